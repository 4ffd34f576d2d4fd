package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"p2pnode"

	"golang.org/x/sys/unix"
)

// A log is one file that is written to and, oldest last, the ones that it was rotated
// to:
//
//	SVC.log   SVC.log.1   SVC.log.2 ... SVC.log.KEEP
//
// A rotation gives each name on, from the oldest to the newest. Killed between two of
// its steps it leaves a number out, at which the next one stops: each step is whole or
// not done, and the oldest file goes once.

// Mark is a place in a log's files: which file, since files are renamed when they are
// rotated, and the bytes before it. The zero Mark is no place.
type Mark struct {
	File uint64 `json:"file,omitempty"` // its inode
	Born int64  `json:"born,omitempty"` // when it was made, in ns, since an inode's number comes again; 0 where nobody told
	At   int64  `json:"at,omitempty"`
}

// sameFile reports whether two places are in one file.
func (m Mark) sameFile(of Mark) bool {
	return m.File != 0 && m.File == of.File && (m.Born == of.Born || m.Born == 0 || of.Born == 0)
}

// numbered is the name of the n-th file that was rotated, from 1, the newest; 0 is the
// one that is written to.
func numbered(path string, n int) string {
	if n == 0 {
		return path
	}
	return fmt.Sprintf("%s.%d", path, n)
}

// Rotate moves the file at path aside, to PATH.1, and those before it one number up; of
// keep of them the oldest goes, and what a larger keep has left. The error is that of
// the file at path.
func Rotate(path string, keep int) (err error) {
	for n := keep + 1; unix.Unlink(numbered(path, n)) == nil; n++ {
	}
	for _, n := range steps(path, keep) {
		err = os.Rename(numbered(path, n-1), numbered(path, n))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err // what could not be given on is not written over
		}
	}
	return err
}

// steps are the numbers that are given on, in their order: up to the first one that is
// free, or to the oldest file.
func steps(path string, keep int) (out []int) {
	last := 1
	for last < keep {
		if _, err := os.Lstat(numbered(path, last)); errors.Is(err, fs.ErrNotExist) {
			break
		}
		last++
	}
	for n := last; n >= 1; n-- {
		out = append(out, n)
	}
	return out
}

// Trim removes what was rotated before the newest keep files.
func Trim(path string, keep int) {
	for n := MaxKeep; n > keep; n-- {
		unix.Unlink(numbered(path, n))
	}
}

// part is one file of a chain.
type part struct {
	file Mark     // At is how long it was
	n    int      // its number then: it only rises
	from int64    // where it begins in the chain
	f    *os.File // once it was read
}

// chain is a log's files as they were at one moment, oldest first, read as one text:
// places are counted from its beginning. What was read once stays open, so that no
// rotation takes it away from under a slow reader; with many services and many files of
// each exec would run out of descriptors, so beyond maxHeld a chain holds the one that
// it reads.
type chain struct {
	path  string
	keep  int
	parts []part
	size  int64
}

// held is how many files all chains have open.
var held atomic.Int64

func chainOf(path string, keep int) *chain {
	c := &chain{path: path, keep: keep}
	for n := keep; n >= 0; n-- {
		file, err := lookAt(numbered(path, n))
		if err != nil {
			continue
		}
		c.parts = append(c.parts, part{file: file, n: n, from: c.size})
		c.size += file.At
	}
	return c
}

// lookAt says which regular file is at path, and where it ends.
func lookAt(path string) (Mark, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return Mark{}, err
	}
	if !info.Mode().IsRegular() {
		return Mark{}, errors.New("not a regular file")
	}
	m := Mark{File: inodeOf(info.Sys()), At: info.Size()}
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_INO|unix.STATX_BTIME, &st) == nil && st.Ino == m.File {
		m.Born = bornOf(&st)
	}
	return m, nil
}

// born is when f was made, in ns; 0 where the file system does not tell.
func born(f *os.File) (at int64) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0
	}
	raw.Control(func(fd uintptr) {
		var st unix.Statx_t
		if unix.Statx(int(fd), "", unix.AT_EMPTY_PATH, unix.STATX_BTIME, &st) == nil {
			at = bornOf(&st)
		}
	})
	return at
}

func bornOf(st *unix.Statx_t) int64 {
	if st.Mask&unix.STATX_BTIME == 0 {
		return 0
	}
	return st.Btime.Sec*int64(time.Second) + int64(st.Btime.Nsec)
}

// file opens the i-th part, whatever its name is by now; nil if it is gone.
func (c *chain) file(i int) *os.File {
	p := &c.parts[i]
	if p.f != nil {
		return p.f
	}
	if held.Load() >= maxHeld {
		c.close()
	}
	for n := p.n; n <= c.keep && p.f == nil; n++ {
		f, info, err := p2pnode.OpenRegular(numbered(c.path, n), unix.O_NOFOLLOW)
		if err != nil {
			continue
		}
		if !(Mark{File: inodeOf(info.Sys()), Born: born(f)}).sameFile(p.file) {
			f.Close()
			continue
		}
		p.f = f
		held.Add(1)
	}
	return p.f
}

// close lets go of the files; what is read after it is opened again.
func (c *chain) close() {
	for i := range c.parts {
		if f := c.parts[i].f; f != nil {
			f.Close()
			c.parts[i].f = nil
			held.Add(-1)
		}
	}
}

// place is where m is in the chain; false if it is not there any more.
func (c *chain) place(m Mark) (int64, bool) {
	for _, p := range c.parts {
		if m.sameFile(p.file) && m.At <= p.file.At {
			return p.from + m.At, true
		}
	}
	return 0, false
}

// read fills buf from a place in the i-th part on; false if that is gone.
func (c *chain) read(i int, buf []byte, at int64) bool {
	f := c.file(i)
	if f == nil {
		return false
	}
	n, _ := f.ReadAt(buf, at-c.parts[i].from)
	return n == len(buf)
}

// text are the bytes from one place to another, without what is gone.
func (c *chain) text(from, to int64) []byte {
	out := make([]byte, 0, max(0, to-from))
	for i, p := range c.parts {
		at, end := max(from, p.from), min(to, p.from+p.file.At)
		if at >= end {
			continue
		}
		n := len(out)
		if out = out[:n+int(end-at)]; !c.read(i, out[n:], at) {
			out = out[:n]
		}
	}
	return out
}

// back is where the newest n lines before end begin; end is the beginning of a line, or
// the chain's end. What is gone, and what is before that, counts as no line.
func (c *chain) back(ctx context.Context, end int64, n int) int64 {
	buf := make([]byte, readChunk)
	at := end
	for i := len(c.parts) - 1; i >= 0 && n > 0; i-- {
		for from := c.parts[i].from; at > from; {
			text := buf[:min(at-from, readChunk)]
			if ctx.Err() != nil || !c.read(i, text, at-int64(len(text))) {
				return at
			}
			at -= int64(len(text))
			if at+int64(len(text)) == end {
				text = bytes.TrimSuffix(text, []byte{'\n'}) // it ends the newest line
			}
			if found := bytes.Count(text, []byte{'\n'}); found < n {
				n -= found
				continue
			}
			for ; n > 0; n-- {
				text = text[:bytes.LastIndexByte(text, '\n')]
			}
			return at + int64(len(text)) + 1
		}
	}
	return at
}

// lines tells emit each line between two places, and where something is gone how much;
// false: it wants no more.
func (c *chain) lines(from, end int64, emit func(text string) bool) (more bool) {
	var cut ring
	buf := make([]byte, readChunk)
	more = true
	for i, p := range c.parts {
		for at, stop := max(from, p.from), min(end, p.from+p.file.At); at < stop && more; {
			text := buf[:min(stop-at, readChunk)]
			if !c.read(i, text, at) {
				if len(cut.partial) > 0 {
					more = emit(cut.newline(time.Time{}).text)
				}
				more = more && emit(fmt.Sprintf("[%d bytes were gone before they could be shown]", stop-at))
				break
			}
			at += int64(len(text))
			cut.add(time.Time{}, text, func(l line) { more = more && emit(l.text) })
		}
	}
	if more && len(cut.partial) > 0 {
		more = emit(cut.newline(time.Time{}).text)
	}
	return more
}
