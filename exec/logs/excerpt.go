package logs

import (
	"bytes"

	"p2pnode"
	"p2pnode/exec/disk"
)

// Excerpt is the end of the run that goes on or has just ended, after its first
// lines where they are no longer part of the end; masked, at most 4 KiB.
func (l *Log) Excerpt() p2pnode.Excerpt {
	l.mu.Lock()
	run := l.ring.ofRun()
	first := append([]string(nil), l.ring.first...)
	total := int(l.ring.seq - l.ring.runFrom + 1)
	if len(l.ring.partial) > 0 {
		total++ // the unfinished line, which run has too
	}
	l.mu.Unlock()
	if own := l.ownFile(); len(own) > 0 {
		run = append(run, own...)
		total += len(own)
	}
	return cutExcerpt(first, run, total)
}

// cutExcerpt fits the first lines of a run and its last ones (of total) into an
// excerpt. A line is masked before it is cut: half a secret is a secret.
func cutExcerpt(first, run []string, total int) p2pnode.Excerpt {
	last := newest(run)
	tail, n := maskLines(last)
	// One line more than is quoted went through the mask: it may begin a key.
	tail = tail[max(0, len(tail)-excerptLines):]
	e := p2pnode.Excerpt{Masked: n}
	if total == len(tail) && size(tail) <= excerptBytes {
		e.Lines = append([]string{}, tail...)
		return e
	}
	e.Truncated = true
	head, n := maskLines(first[:min(len(first), max(0, total-1))])
	e.Masked += n
	for size(head) > firstBytes {
		head = head[:len(head)-1]
	}
	room := excerptBytes - size(head)
	if len(head) > 0 {
		room -= len("...") + 1
	}
	from := len(tail)
	for from > 0 && room >= len(tail[from-1])+1 {
		from--
		room -= len(tail[from]) + 1
	}
	if from == len(tail) && from > 0 {
		// Not even the last line fits: its end is worth more than nothing.
		from--
		tail[from] = "..." + tailRunes(tail[from], room-len("...")-1)
	}
	// What the end quotes is not quoted twice.
	head = head[:min(len(head), total-(len(tail)-from))]
	if len(head) > 0 {
		head = append(head, "...")
	}
	e.Lines = append(head, tail[from:]...)
	return e
}

// newest are the last lines of run that can matter to an excerpt: masking is slow,
// and a verdict waits for it.
func newest(run []string) []string {
	from, bytes := len(run), 0
	for from > 0 && len(run)-from <= excerptLines && bytes < 2*excerptBytes {
		from--
		bytes += len(run[from])
	}
	return run[from:]
}

func size(lines []string) (n int) {
	for _, s := range lines {
		n += len(s) + 1
	}
	return n
}

// tailRunes is the end of s in at most n bytes, without half a rune.
func tailRunes(s string, n int) string {
	if len(s) <= n {
		return s
	}
	b := s[len(s)-max(0, n):]
	for len(b) > 0 && b[0]&0xc0 == 0x80 {
		b = b[1:]
	}
	return b
}

// ownFile is the end of the file that the program itself logs to.
func (l *Log) ownFile() []string {
	path := l.followed()
	if path == "" {
		return nil
	}
	data, _ := disk.Got(&l.others, func() []byte { return tail(path, 2*excerptBytes) })
	if len(data) == 0 {
		return nil
	}
	parts := bytes.Split(bytes.TrimSuffix(data, []byte{'\n'}), []byte{'\n'})
	if len(data) == 2*excerptBytes {
		parts = parts[1:] // most likely half a line
	}
	out := make([]string, 0, len(parts))
	for _, p := range parts {
		out = append(out, clean(p))
	}
	return out
}
