package exec

import (
	"os"
	"syscall"
	"time"

	"p2pnode/exec/rawio"

	"golang.org/x/sys/unix"
)

// alarm wakes the loop at one moment, by a timerfd. A time.Timer wakes an idle process
// twice for that: the scheduler's watcher at the moment, and the thread that waits for
// it up to a thousandth of the time later (the slack of epoll_wait), with the watcher
// napping 20 microseconds at a time in between; and each Reset to an earlier moment
// breaks that thread's wait.
type alarm struct {
	rings chan struct{} // at the moment, or where it was put off just then, before it
	file  *os.File
	conn  syscall.RawConn // of file
	at    time.Time       // zero: unset
}

func newAlarm() (*alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	a := &alarm{rings: make(chan struct{}, 1), file: os.NewFile(uintptr(fd), "timerfd")}
	if a.conn, err = a.file.SyscallConn(); err != nil {
		return nil, err
	}
	go func() {
		count := make([]byte, 8)
		for {
			if _, err := rawio.Read(a.file, count); err != nil {
				return // closed
			}
			select {
			case a.rings <- struct{}{}:
			default:
			}
		}
	}()
	return a, nil
}

// set is for the moment at, whatever it was before; zero leaves it as it is, as there
// is nothing then that it could disturb. A moment by the wall clock is set each time:
// that clock may have been.
func (a *alarm) set(at time.Time) {
	byWall := at == at.Round(0)
	if at.IsZero() || at.Equal(a.at) && !byWall {
		return
	}
	a.at = at
	in := unix.ItimerSpec{Value: unix.NsecToTimespec(max(int64(time.Until(at)), 1))}
	a.conn.Control(func(fd uintptr) { unix.TimerfdSettime(int(fd), 0, &in, nil) })
}

// rang is for whoever takes a ring: the next set counts even if it is for the same moment.
func (a *alarm) rang() { a.at = time.Time{} }

func (a *alarm) close() { a.file.Close() }
