package logs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// rotating appends to a file and keeps those before it (chain.go). It never returns an
// error to a writer: what the disk refuses is counted, and said in the file where
// it is missing.
type rotating struct {
	path string
	f    *os.File
	size int64

	most atomic.Int64 // size at which the file is rotated
	keep atomic.Int64 // how many rotated ones there may be

	inherited time.Time // when the files were last written to before; zero where there were none

	dropped atomic.Uint64 // read without the lock
	gap     uint64        // missing since the disk took something
	refused func(error)   // told of the first refusal, of each try that fails, and with nil of its end
}

func newRotating(path string, refused func(error)) *rotating {
	if refused == nil {
		refused = func(error) {}
	}
	r := &rotating{path: path, refused: refused}
	r.most.Store(DefaultSize)
	r.keep.Store(DefaultKeep)
	for n := 0; n <= MaxKeep; n++ { // until somebody says how many: what is there
		info, err := os.Lstat(numbered(path, n))
		switch {
		case err != nil && n > DefaultKeep:
			return r
		case err != nil:
			continue
		}
		r.keep.Store(int64(max(n, DefaultKeep)))
		if info.Size() > 0 && r.inherited.IsZero() {
			r.inherited = info.ModTime()
		}
	}
	return r
}

// files are what there is of the log.
func (r *rotating) files() *chain { return chainOf(r.path, int(r.keep.Load())) }

func (r *rotating) write(data []byte) {
	if r.mend() != nil {
		r.drop(len(data), nil) // told already
		return
	}
	r.append(data)
}

func (r *rotating) append(data []byte) {
	if r.f == nil {
		if err := r.open(); err != nil {
			r.drop(len(data), err)
			return
		}
	}
	n, err := r.f.WriteAt(data, r.end())
	r.size += int64(n)
	if err != nil {
		// Open it again with the next write: the disk may have room by then.
		r.f.Close()
		r.f = nil
		r.drop(len(data)-n, err)
		return
	}
	if r.size > r.most.Load() {
		r.rotate()
	}
}

// say writes a line that counts bytes which are missing there. Where the disk refuses
// that, the line that tells of the refusal counts them too.
func (r *rotating) say(note string, missing int) {
	if r.mend() != nil {
		r.lack(missing, nil)
	} else if err := r.line(note); err != nil {
		r.lack(missing, err)
	}
}

// line writes a line of ours whole, or not at all.
func (r *rotating) line(text string) error {
	if r.f == nil {
		if err := r.open(); err != nil {
			return err
		}
	}
	at := r.end()
	if _, err := r.f.WriteAt([]byte(text), at); err != nil {
		r.f.Truncate(at)
		r.f.Close()
		r.f = nil
		return err
	}
	r.size = at + int64(len(text))
	return nil
}

// end is where the file ends: somebody may have cut it.
func (r *rotating) end() int64 {
	if info, err := r.f.Stat(); err == nil && info.Size() < r.size {
		r.size = info.Size()
	}
	return r.size
}

// move takes what a pipe holds into the file, by one call of the kernel: a byte is
// in the one or in the other at any moment, so that a kill loses none and doubles
// none. It returns what it moved, in buf; errCannotMove means that nothing was, and
// that reading and writing is the way.
func (r *rotating) move(pipe int, buf []byte) ([]byte, error) {
	if r.gap > 0 || r.f == nil && r.open() != nil {
		return nil, errCannotMove
	}
	raw, err := r.f.SyscallConn()
	if err != nil {
		return nil, errCannotMove
	}
	from := r.end()
	var n int64
	var inner error
	err = raw.Control(func(fd uintptr) {
		to := from
		n, inner = unix.Splice(pipe, nil, int(fd), &to, len(buf), unix.SPLICE_F_NONBLOCK)
	})
	switch {
	case err != nil, inner != nil && inner != unix.EAGAIN && inner != unix.EINTR:
		return nil, errCannotMove
	case inner != nil:
		return nil, inner
	}
	r.size += n
	got, err := r.f.ReadAt(buf[:n], from)
	if err != nil {
		return buf[:got], nil // it is in the file; memory misses it
	}
	if r.size > r.most.Load() {
		r.rotate()
	}
	return buf[:n], nil
}

var errCannotMove = errors.New("cannot move from pipe to file")

func (r *rotating) drop(n int, err error) {
	r.dropped.Add(uint64(n))
	r.lack(n, err)
}

// lack counts what is missing until there is a line that says so.
func (r *rotating) lack(n int, err error) {
	if r.gap == 0 {
		r.refused(err)
	}
	r.gap += uint64(n)
}

// mend says in the file how much is missing; an error means that the disk refuses that
// too.
func (r *rotating) mend() error {
	if r.gap == 0 {
		return nil
	}
	if err := r.line(fmt.Sprintf("\n[%d bytes were dropped: the disk was full or failed]\n", r.gap)); err != nil {
		return err
	}
	r.gap = 0
	r.refused(nil)
	return nil
}

// open refuses everything but a regular file: a symlink or FIFO at that place
// was not put there by us.
func (r *rotating) open() error {
	f, err := os.OpenFile(r.path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		f.Close()
		return err
	}
	r.f, r.size = f, info.Size()
	return nil
}

// mark is where the next byte goes.
func (r *rotating) mark() Mark {
	if r.f == nil && r.open() != nil {
		return Mark{}
	}
	info, err := r.f.Stat()
	if err != nil {
		return Mark{}
	}
	return Mark{File: inodeOf(info.Sys()), Born: born(r.f), At: r.size}
}

func (r *rotating) rotate() {
	r.f.Close()
	r.f = nil
	err := Rotate(r.path, int(r.keep.Load()))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && r.size > 2*r.most.Load() {
		// Better a short log than one that grows for ever.
		os.Truncate(r.path, 0)
	}
}

func (r *rotating) close() error {
	if r.f == nil {
		return nil
	}
	err := r.f.Close()
	r.f = nil
	return err
}
