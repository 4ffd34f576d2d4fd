package logs

import (
	"bytes"
	"syscall"
	"time"

	"p2pnode"
)

// Mark is a place in a log's files: an inode, since files are renamed when they
// are rotated, and the bytes before it. The zero Mark is no place.
type Mark struct {
	File uint64 `json:"file,omitempty"`
	At   int64  `json:"at,omitempty"`
}

// recall puts the newest lines of the files back into memory: an exec that was
// killed has left its last words there, and the lines before a crash belong to its
// story whichever exec read them. Lines of before the run that began at m are
// kept apart from it; without a place all are taken for the run's.
func (l *Log) recall(m Mark) {
	old, cur := snap(l.file.path+".1"), snap(l.file.path)
	defer old.close()
	defer cur.close()
	began := -1 // in what follows
	var text []byte
	if cur.size < maxRingBytes {
		text = old.end(maxRingBytes - cur.size)
		began = old.place(m, len(text), began)
	}
	before := len(text)
	text = append(text, cur.end(maxRingBytes)...)
	if at := cur.place(m, len(text)-before, -1); at >= 0 {
		began = before + at
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	earlier, run := text[:max(began, 0)], text[max(began, 0):]
	if int64(len(text)) < old.size+cur.size { // what was read begins somewhere in a line
		if began < 0 {
			_, run, _ = bytes.Cut(run, []byte{'\n'})
		} else {
			_, earlier, _ = bytes.Cut(earlier, []byte{'\n'})
		}
	}
	l.ring.add(time.Time{}, earlier, func(line) {})
	l.ring.run(time.Time{})
	l.began = m
	if head := first(m, old, cur); began < 0 && len(head) > 0 {
		l.ring.first = head
	}
	l.ring.add(time.Time{}, run, func(line) {})
}

// ExcerptOf is the excerpt of a run that is over: it began at from, the next one at
// to. It reads the files alone.
func (l *Log) ExcerptOf(from, to Mark) p2pnode.Excerpt {
	old, cur := snap(l.file.path+".1"), snap(l.file.path)
	defer old.close()
	defer cur.close()
	for _, f := range []snapshot{old, cur} {
		if f.f == nil || to.File == 0 || f.inode != to.File {
			continue
		}
		start := int64(0) // rotated in between
		if from.File == to.File {
			start = min(from.At, to.At)
		}
		cut := max(start, to.At-maxRingBytes)
		buf := make([]byte, to.At-cut)
		n, _ := f.f.ReadAt(buf, cut)
		var run []string
		for line := range bytes.Lines(bytes.TrimSuffix(buf[:n], []byte{'\n'})) {
			line = bytes.TrimSuffix(line, []byte{'\n'})
			run = append(run, clean(line[:min(len(line), maxLine)]))
		}
		total := len(run)
		if cut > start && total > 0 {
			run = run[1:] // most likely half a line
		}
		return cutExcerpt(first(from, old, cur), run, total)
	}
	return p2pnode.Excerpt{Lines: []string{}}
}

// first are the first lines of a run of which memory holds only the end.
func first(m Mark, files ...snapshot) []string {
	for _, f := range files {
		if f.f == nil || f.inode != m.File || m.File == 0 {
			continue
		}
		buf := make([]byte, excerptFirst*maxLine)
		n, _ := f.f.ReadAt(buf, m.At)
		lines := bytes.Split(buf[:n], []byte{'\n'})
		var out []string
		for _, b := range lines[:min(len(lines)-1, excerptFirst)] {
			out = append(out, clean(b[:min(len(b), maxLine)]))
		}
		return out
	}
	return nil
}

// end is the last limit bytes.
func (s snapshot) end(limit int64) []byte {
	if s.f == nil {
		return nil
	}
	from := max(0, s.size-limit)
	buf := make([]byte, s.size-from)
	n, _ := s.f.ReadAt(buf, from)
	return buf[:n]
}

// place is where m is in the last n bytes, otherwise is returned if not there.
func (s snapshot) place(m Mark, n, otherwise int) int {
	at := m.At - (s.size - int64(n))
	if s.f == nil || m.File == 0 || s.inode != m.File || at < 0 || at > int64(n) {
		return otherwise
	}
	return int(at)
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
