package door

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"p2pnode/exec/logs"
)

// absence is what a service prints while no exec is there: the beginning in one file,
// and, once that is full, the end in two more by turns. What lies between is
// dropped and counted, so that the writer never blocks and its last words are
// kept however long exec is away.
type absence struct {
	path    string
	out     *os.File // nil: the disk refuses
	end     int64    // where its next byte goes
	room    int64    // left in out
	full    bool     // out is one of the two
	dropped int64
}

func openAway(path string) *absence {
	a := &absence{path: path}
	a.open(path)
	if a.out != nil && a.room == 0 { // an earlier absence of the same exec filled it
		a.out.Close()
		a.full = true
		a.open(path + logs.AwayNewest)
	}
	return a
}

func (a *absence) open(path string) {
	a.out, a.end = openPart(path)
	a.room = 0
	if a.out != nil {
		a.room = max(0, maxAway-a.end)
	}
}

// pull takes what a pipe holds, up to a buffer of it. Where the disk lets it the
// kernel does that in one call: a byte is in the pipe or in the file at any moment,
// also when the door is killed.
func (a *absence) pull(pipe int, buf []byte) (n int, err error) {
	if a.room == 0 && a.out != nil {
		a.turn()
	}
	if a.room > 0 {
		if n, err = a.splice(pipe, int(min(a.room, int64(len(buf))))); n > 0 || err == unix.EAGAIN || err == unix.EINTR {
			return n, err
		}
	}
	if n, err = unix.Read(pipe, buf); n > 0 {
		a.write(buf[:n])
	}
	return max(n, 0), err
}

func (a *absence) splice(pipe, limit int) (n int, err error) {
	raw, err := a.out.SyscallConn()
	if err != nil {
		return 0, err
	}
	raw.Control(func(fd uintptr) {
		to := a.end
		var moved int64
		moved, err = unix.Splice(pipe, nil, int(fd), &to, limit, unix.SPLICE_F_NONBLOCK)
		n = int(max(moved, 0))
	})
	a.end += int64(n)
	a.room -= int64(n)
	return n, err
}

func (a *absence) write(b []byte) {
	for len(b) > 0 {
		if a.room == 0 && a.out != nil {
			a.turn()
		}
		if a.room == 0 {
			a.dropped += int64(len(b))
			return
		}
		take := b[:min(int64(len(b)), a.room)]
		n, err := a.out.WriteAt(take, a.end)
		a.room -= int64(n)
		a.end += int64(n)
		b = b[n:]
		if err != nil {
			a.dropped += int64(len(b))
			return
		}
	}
}

// turn goes on in a fresh file; the older one of the two is dropped for it.
func (a *absence) turn() {
	a.out.Close()
	if a.full {
		older := a.path + logs.AwayOlder
		if info, err := os.Stat(older); err == nil {
			a.dropped += info.Size()
		}
		os.Rename(a.path+logs.AwayNewest, older)
	}
	first := !a.full
	a.full = true
	a.open(a.path + logs.AwayNewest)
	if first && a.out != nil && a.room == 0 { // an exec was killed before it removed it
		a.turn()
	}
}

// close says, where it happened, how much was dropped.
func (a *absence) close() {
	if a.out != nil {
		a.out.Close()
	}
	if a.dropped == 0 {
		return
	}
	if head, end := openPart(a.path); head != nil {
		head.WriteAt(fmt.Appendf(nil, "\n[%d bytes were dropped while exec was away]\n", a.dropped), end)
		head.Close()
	}
}

// openPart opens one file to go on with, locked, so that exec does not take it away
// while it is written to, and says where it ends. A symlink or FIFO at that place was
// not put there by us.
func openPart(path string) (*os.File, int64) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, 0
	}
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, 0
	}
	unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	return f, info.Size()
}
