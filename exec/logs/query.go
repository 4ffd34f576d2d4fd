package logs

import (
	"context"
	"fmt"
	"os"
	"time"

	"p2pnode"
	"p2pnode/exec/disk"
)

// Query tells emit the newest n lines (n <= 0: all in memory) that are not older
// than since, oldest first, and with follow every new line until ctx ends, the
// Log is closed or emit returns false. Lines from before exec's start come from
// the files and have no time; with since set they are left out. So it is with the
// file that the program logs to by itself, whose newest n lines come first; what is
// written there while it is followed is told within ownEvery.
func (l *Log) Query(ctx context.Context, n int, since time.Time, follow bool, emit func(at time.Time, text string) bool) error {
	ownPath := l.followed()
	now := l.look(n, since, !follow)
	lines, next, changed := now.lines, now.next, now.changed
	follow = follow && !now.closed // nothing would end the wait
	var looks <-chan time.Time
	var file *own
	if ownPath != "" {
		if follow {
			file = followOwn(ownPath)
			defer file.end()
			tick := time.NewTicker(ownEvery)
			defer tick.Stop()
			looks = tick.C
		}
		if since.IsZero() {
			for _, text := range pastOwn(ownPath, n) {
				if !emit(time.Time{}, text) {
					return nil
				}
			}
		}
	}
	if now.hangs && !emit(time.Time{}, "["+disk.ErrHangs.Error()+": what only it has is left out]") {
		return nil
	}
	if now.files != nil {
		if !now.files.older(ctx, n-len(lines), len(lines)+now.apart, func(text string) bool { return emit(time.Time{}, text) }) {
			return ctx.Err()
		}
	}
	if n > 0 && len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	for _, x := range lines {
		if x.at.Before(since) {
			continue
		}
		if !emit(x.at, x.text) {
			return nil
		}
	}
	for follow {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-looks:
			if !file.pull(emit) {
				return nil
			}
			continue
		case <-changed:
		}
		var fresh []line
		var closed bool
		l.mu.Lock()
		for _, x := range l.ring.lines {
			if x.seq >= next {
				fresh = append(fresh, x)
			}
		}
		missed := l.ring.seq + 1 - next - uint64(len(fresh))
		next, changed, closed = l.ring.seq+1, l.changed, l.closed
		l.mu.Unlock()
		if missed > 0 && !emit(time.Now(), fmt.Sprintf("[%d lines came faster than they could be shown]", missed)) {
			return nil
		}
		for _, x := range fresh {
			if !emit(x.at, x.text) {
				return nil
			}
		}
		if closed {
			return nil
		}
	}
	return nil
}

// Untimed tells who asks for what is not older than since that lines were left out of
// the answer which may be as young, as nobody knows when they were written; "" where
// there are none.
func (l *Log) Untimed(since time.Time) string {
	if since.IsZero() {
		return ""
	}
	before, youngest := l.opened, l.file.inherited
	l.mu.Lock()
	if kept := l.ring.lines; len(kept) > 0 && kept[0].seq > 1 && !kept[0].at.IsZero() {
		before, youngest = kept[0].at, kept[0].at // what memory gave up has no time any more
	}
	l.mu.Unlock()
	if since.Before(youngest) {
		return fmt.Sprintf("[lines from before %s have no time and are left out]", before.UTC().Format(time.RFC3339))
	}
	if own := l.followed(); own != "" {
		if young, _ := disk.Got(&l.others, func() bool { return writtenSince(own, since) }); young {
			return "[lines of " + own + " have no time and are left out]"
		}
	}
	return ""
}

// past is what there is when a query begins.
type past struct {
	lines   []line
	next    uint64
	changed chan struct{}
	files   *chain // as they are while nothing is written: what is in memory is counted off their end
	apart   int    // 1: the files end with the beginning of a line that is not among lines
	closed  bool
	hangs   bool // the disk: there are no files
}

// look is what there is of the newest n lines that are not older than since. A line
// without an end is one of them for who does not wait for its end.
func (l *Log) look(n int, since time.Time, unfinished bool) past {
	if !since.IsZero() || n <= 0 {
		return l.inMemory(unfinished)
	}
	p, done := disk.Got(&l.hand, func() past {
		p := l.inMemory(unfinished)
		if n > len(p.lines) {
			p.files = l.file.files()
		}
		return p
	})
	if done {
		return p
	}
	p = l.inMemory(unfinished)
	p.hangs = n > len(p.lines)
	return p
}

func (l *Log) inMemory(unfinished bool) past {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := past{lines: append([]line(nil), l.ring.lines...), next: l.ring.seq + 1, changed: l.changed, closed: l.closed}
	switch {
	case len(l.ring.partial) == 0:
	case unfinished || l.closed:
		p.lines = append(p.lines, line{at: time.Now(), text: clean(l.ring.partial)})
	default:
		p.apart = 1
	}
	return p
}

// older tells emit up to n lines that stand before the newest skip lines, oldest first;
// false: it wants no more. Whatever their number and the size of the files, it holds
// a buffer and a line.
func (c *chain) older(ctx context.Context, n, skip int, emit func(text string) bool) (more bool) {
	defer c.close()
	end := c.back(ctx, c.size, skip)
	from := c.back(ctx, end, n)
	return c.lines(from, end, func(text string) bool { return ctx.Err() == nil && emit(text) })
}

// snapshot is a regular file as long as it was at one moment; without a file it
// is empty.
type snapshot struct {
	f     *os.File
	size  int64
	inode uint64
}

func snap(path string) snapshot {
	f, info, err := p2pnode.OpenFor(path)
	if err != nil {
		return snapshot{}
	}
	return snapshot{f, info.Size(), inodeOf(info.Sys())}
}

// tail is the last limit bytes; it closes the file.
func (s snapshot) tail(limit int64) []byte {
	defer s.close()
	return s.section(max(0, s.size-limit), s.size)
}

// tail is the last limit bytes of a regular file; nil for anything else.
func tail(path string, limit int64) []byte { return snap(path).tail(limit) }
