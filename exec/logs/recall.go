package logs

import (
	"bytes"
	"syscall"
	"time"

	"p2pnode"
)

// recall puts the newest lines of the files back into memory: an exec that was
// killed has left its last words there, and the lines before a crash belong to its
// story whichever exec read them. Lines of before the run that began at m are
// kept apart from it; without a place all are taken for the run's.
func (l *Log) recall(m Mark) {
	c := l.file.files()
	defer c.close()
	from := max(0, c.size-maxRingBytes)
	text := c.text(from, c.size)
	began := -1 // in text
	at, known := c.place(m)
	if known && at >= from {
		began = int(min(at-from, int64(len(text))))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	earlier, run := text[:max(began, 0)], text[max(began, 0):]
	if from > 0 { // what was read begins somewhere in a line
		if began < 0 {
			_, run, _ = bytes.Cut(run, []byte{'\n'})
		} else {
			_, earlier, _ = bytes.Cut(earlier, []byte{'\n'})
		}
	}
	l.ring.add(time.Time{}, earlier, func(line) {})
	l.ring.run(time.Time{})
	l.began = m
	if known && began < 0 {
		if head := c.first(at); len(head) > 0 {
			l.ring.first = head
		}
	}
	l.ring.add(time.Time{}, run, func(line) {})
}

// ExcerptOf is the excerpt of a run that is over: it began at from, the next one at
// to. It reads the files alone; without a place for from all before to is the run's.
func (l *Log) ExcerptOf(from, to Mark) p2pnode.Excerpt {
	c := l.file.files()
	defer c.close()
	end, ok := c.place(to)
	if !ok {
		return p2pnode.Excerpt{Lines: []string{}}
	}
	start, known := c.place(from)
	start = min(start, end)
	cut := max(start, end-maxRingBytes)
	var run []string
	for line := range bytes.Lines(bytes.TrimSuffix(c.text(cut, end), []byte{'\n'})) {
		line = bytes.TrimSuffix(line, []byte{'\n'})
		run = append(run, clean(line[:min(len(line), maxLine)]))
	}
	total := len(run)
	if cut > start && total > 0 {
		run = run[1:] // most likely half a line
	}
	var head []string
	if known {
		head = c.first(start)
	}
	return cutExcerpt(head, run, total)
}

// first are the first lines of a run that began at a place, of which memory holds only
// the end.
func (c *chain) first(at int64) (out []string) {
	text := c.text(at, min(c.size, at+excerptFirst*maxLine))
	lines := bytes.Split(text, []byte{'\n'})
	for _, b := range lines[:min(len(lines)-1, excerptFirst)] {
		out = append(out, clean(b[:min(len(b), maxLine)]))
	}
	return out
}

// section are the bytes from one place to another.
func (s snapshot) section(from, to int64) []byte {
	if s.f == nil || from >= to {
		return nil
	}
	buf := make([]byte, to-from)
	n, _ := s.f.ReadAt(buf, from)
	return buf[:n]
}

func (s snapshot) close() {
	if s.f != nil {
		s.f.Close()
	}
}

func inodeOf(sys any) uint64 {
	if st, ok := sys.(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}
