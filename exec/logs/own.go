package logs

import (
	"bytes"
	"fmt"
	"time"

	"p2pnode"
)

const (
	ownEvery = 200 * time.Millisecond // a followed file is looked at this often
	ownPull  = 16 << 20               // bytes of one look: of more the last ones, and a count of the others
)

// own reads on in the file that the program logs to by itself (log_file:), as long as
// somebody follows it. A file that was moved away is read to its end before the one
// that has its name now; one that was cut is read from its beginning.
type own struct {
	path  string
	now   snapshot
	at    int64
	lines ring // for its unfinished line
}

// followOwn begins at the end of what is there; a file that comes later is read from
// its beginning.
func followOwn(path string) *own {
	o := &own{path: path, now: snap(path)}
	o.at = o.now.size
	return o
}

// pull tells emit what was written since the last look; false: emit wants no more.
func (o *own) pull(emit func(at time.Time, text string) bool) (more bool) {
	if !o.read(emit) {
		return false
	}
	now := snap(o.path)
	if now.f == nil {
		return true // moved away, and no other one yet
	}
	if o.now.f != nil && now.inode == o.now.inode {
		now.close()
		if now.size >= o.at {
			return true
		}
		o.at = 0 // somebody cut it
		return o.read(emit)
	}
	more = o.read(emit) // what was written between our look and its move
	o.now.close()
	o.now, o.at = now, 0
	return more && o.read(emit)
}

// read tells emit what the file has by now.
func (o *own) read(emit func(at time.Time, text string) bool) (more bool) {
	if o.now.f == nil {
		return true
	}
	info, err := o.now.f.Stat()
	if err != nil {
		return true
	}
	if over := info.Size() - o.at - ownPull; over > 0 {
		o.at += over
		over += int64(len(o.lines.partial))
		o.lines.partial, o.lines.cut = nil, false
		if !emit(time.Now(), fmt.Sprintf("[%d bytes came faster than they could be shown]", over)) {
			return false
		}
	}
	buf := make([]byte, readChunk)
	more = true
	for end := info.Size(); o.at < end && more; {
		n, err := o.now.f.ReadAt(buf[:min(end-o.at, readChunk)], o.at)
		o.at += int64(n)
		o.lines.add(time.Now(), buf[:n], func(l line) { more = more && emit(l.at, l.text) })
		if err != nil {
			break
		}
	}
	return more
}

// writtenSince reports whether the program's own file has something and was written to
// since then.
func writtenSince(path string, since time.Time) bool {
	f, info, err := p2pnode.OpenFor(path)
	if err != nil {
		return false
	}
	f.Close()
	return info.Size() > 0 && !info.ModTime().Before(since)
}

func (o *own) end() { o.now.close() }

// pastOwn are up to n of the newest lines of the program's own file (n <= 0: as many
// as memory would hold).
func pastOwn(path string, n int) []string {
	data := tail(path, maxRingBytes)
	if len(data) == 0 {
		return nil
	}
	whole := len(data) < maxRingBytes
	parts := bytes.Split(bytes.TrimSuffix(data, []byte{'\n'}), []byte{'\n'})
	if !whole {
		parts = parts[1:] // most likely half a line
	}
	if n <= 0 || n > maxRingLines {
		n = maxRingLines
	}
	var out []string
	for _, p := range parts[max(0, len(parts)-n):] {
		out = append(out, clean(p[:min(len(p), maxLine)]))
	}
	return out
}
