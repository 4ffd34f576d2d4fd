package exec

import (
	"errors"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"p2pnode"

	"golang.org/x/sys/unix"
)

// process is a process that exec watches: by pidfd, never by pid alone.
type process struct {
	pid   int
	ticks uint64 // start time in clock ticks since boot
	fd    *os.File
	ours  bool // our child: exit status and stops come from waitid

	told   chan struct{} // closed when its end, with its last words, was handed on
	behind atomic.Bool   // another one is the main process now: its end is nobody's business
	killed atomic.Bool   // by us
}

// newProcess wraps a pidfd, which it takes over.
func newProcess(pid, pidfd int, ours bool) (*process, error) {
	if err := unix.SetNonblock(pidfd, true); err != nil {
		unix.Close(pidfd)
		return nil, err
	}
	p := &process{pid: pid, fd: os.NewFile(uintptr(pidfd), "pidfd"), ours: ours, told: make(chan struct{})}
	if st, err := readStat(pid); err == nil {
		p.ticks = st.ticks
	}
	return p, nil
}

// watchPID opens a pidfd on a process that must have started at the given tick;
// ok is false when that process is gone.
func watchPID(pid int, ticks uint64) (*process, bool) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, false
	}
	// The stat is read after the pidfd is open: if it still shows the process that
	// is meant, the pidfd is of that process too.
	st, err := readStat(pid)
	if err != nil || st.ticks != ticks || st.state == 'Z' || st.state == 'X' {
		unix.Close(fd)
		return nil, false
	}
	return &process{pid: pid, ticks: ticks, fd: os.NewFile(uintptr(fd), "pidfd"), told: make(chan struct{})}, true
}

// control runs f with the raw pidfd.
func (p *process) control(f func(fd int) error) error {
	rc, err := p.fd.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := rc.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}

// dead reports whether the process has ended; it does not reap it.
func (p *process) dead() bool {
	ended := true // a closed pidfd was closed after the end
	p.control(func(fd int) error {
		ended = readable(fd)
		return nil
	})
	return ended
}

func readable(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if err != unix.EINTR {
			return err == nil && n > 0
		}
	}
}

// wait parks the goroutine in the runtime's poller until the process has ended.
func (p *process) wait() error {
	rc, err := p.fd.SyscallConn()
	if err != nil {
		return err
	}
	return rc.Read(func(fd uintptr) bool { return readable(int(fd)) })
}

// reap takes the exit status: from waitid for our child, also one that became it when
// its parent ended, from the pidfd itself or /proc for an adopted process, else unknown.
func (p *process) reap() p2pnode.Exit {
	exit := p2pnode.Exit{Unknown: true}
	p.control(func(fd int) error {
		var info unix.Siginfo
		var used unix.Rusage
		if err := waitidFD(fd, &info, unix.WEXITED|unix.WNOHANG, &used); err == nil && info.Signo != 0 {
			exit = exitOf(&info)
			exit.MaxRSS = used.Maxrss << 10
			exit.UserMS, exit.SystemMS = ms(time.Duration(used.Utime.Nano())), ms(time.Duration(used.Stime.Nano()))
			return nil
		}
		exit = p.keptExit(fd)
		return nil
	})
	return exit
}

// keptExit asks the kernel what it kept. The pidfd has the status once the process
// has been reaped, which its new parent does at its own pace; until then /proc
// shows it. Between the two looks it may have been reaped: look again.
func (p *process) keptExit(fd int) p2pnode.Exit {
	for range 3 {
		if exit, ok := exitOfZombie(p.pid, p.ticks); ok {
			return exit
		}
		info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
		err := unix.IoctlPidfdInfo(fd, &info)
		if err == nil && info.Mask&unix.PIDFD_INFO_EXIT != 0 {
			return exitOfStatus(syscall.WaitStatus(info.Exit_code))
		}
		if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL) {
			break
		}
		time.Sleep(time.Millisecond)
	}
	return p2pnode.Exit{Unknown: true}
}

func exitOfStatus(ws syscall.WaitStatus) p2pnode.Exit {
	if ws.Signaled() {
		return p2pnode.Exit{Signal: unix.SignalName(ws.Signal()), Core: ws.CoreDump()}
	}
	return p2pnode.Exit{Code: ws.ExitStatus()}
}

// Codes of a child's siginfo.
const (
	cldExited    = 1
	cldKilled    = 2
	cldDumped    = 3
	cldStopped   = 5
	cldContinued = 6
)

// childStatus is si_status; siginfo's union begins with si_pid and si_uid.
func childStatus(info *unix.Siginfo) int {
	fields := (*sigchldInfo)(infoPointer(info))
	return int(fields.status)
}

func exitOf(info *unix.Siginfo) p2pnode.Exit {
	status := childStatus(info)
	switch info.Code {
	case cldKilled, cldDumped:
		return p2pnode.Exit{Signal: unix.SignalName(syscall.Signal(status)), Core: info.Code == cldDumped}
	}
	return p2pnode.Exit{Code: status}
}

func waitidFD(fd int, info *unix.Siginfo, options int, used *unix.Rusage) error {
	for {
		err := unix.Waitid(unix.P_PIDFD, fd, info, options, used)
		if err != unix.EINTR {
			return err
		}
	}
}

// stopChange tells whether our child was stopped or went on since the last look.
func (p *process) stopChange() (stopped, continued bool) {
	p.control(func(fd int) error {
		for {
			var info unix.Siginfo
			err := waitidFD(fd, &info, unix.WSTOPPED|unix.WCONTINUED|unix.WNOHANG, nil)
			if err != nil || info.Signo == 0 {
				return nil
			}
			stopped = info.Code == cldStopped
			continued = info.Code == cldContinued
		}
	})
	return stopped, continued
}

// uptime is how long ago the process was started, by the kernel's clock; 0 where that
// is not known.
func (p *process) uptime() time.Duration {
	var now unix.Timespec
	if p.ticks == 0 || unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) != nil {
		return 0
	}
	return max(0, time.Duration(now.Nano())-time.Duration(p.ticks)*time.Second/ticksPerSecond)
}

// ticksPerSecond is USER_HZ, which is 100 on every Linux that Go runs on.
const ticksPerSecond = 100

// signal sends sig to exactly this process.
func (p *process) signal(sig unix.Signal) error {
	return p.control(func(fd int) error { return unix.PidfdSendSignal(fd, sig, nil, 0) })
}

// killGroup sends SIGKILL to the process group that this process leads. Before Linux
// 6.9 a group is known by its number only, which is the leader's until it is reaped.
func (p *process) killGroup() {
	err := p.control(func(fd int) error {
		return unix.PidfdSendSignal(fd, unix.SIGKILL, nil, unix.PIDFD_SIGNAL_PROCESS_GROUP)
	})
	if errors.Is(err, unix.EINVAL) && p.being().lives() {
		unix.Kill(-p.pid, unix.SIGKILL)
	}
}

func (p *process) being() being { return being{p.pid, p.ticks} }

// dupFile is another descriptor of the same description.
func dupFile(f *os.File) (*os.File, error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var inner error
	if err := rc.Control(func(raw uintptr) { fd, inner = unix.FcntlInt(raw, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, err
	}
	if inner != nil {
		return nil, inner
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

func (p *process) close() { p.fd.Close() }
