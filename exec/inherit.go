package exec

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"p2pnode"

	"golang.org/x/sys/unix"
)

// inherited is what a child takes over from the thread that forks it: it costs a
// start nothing. What belongs to a process rather than to a thread (limits, OOM
// score) needs a step between fork and exec: see launch.go.
type inherited struct {
	umask *int
	nice  int
	noNew bool // no rights are gained by setuid and setcap programs, for ever
}

func inheritedBy(spec p2pnode.ServiceSpec) inherited {
	return inherited{umask: spec.Umask, nice: spec.Nice, noNew: (spec.User != "" || spec.Group != "") && !spec.Gain}
}

// fork runs f, which forks, on a thread that carries these marks. Marks cannot all
// be taken off again, so the thread ends with the call.
func (in inherited) fork(f func() error) error {
	if in == (inherited{}) {
		return f()
	}
	done := make(chan error, 1)
	go onOwnThread(func() { done <- in.marked(f) })
	return <-done
}

func (in inherited) marked(f func() error) error {
	if in.umask != nil {
		// Threads share their umask until one of them leaves.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return &cannotRun{startBroken, "cannot set its umask: " + err.Error()}
		}
		unix.Umask(*in.umask)
	}
	if in.nice != 0 {
		if err := unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), in.nice); err != nil {
			return &cannotRun{startMissing, fmt.Sprintf("nice %d is refused (%v): below 0 it wants root or CAP_SYS_NICE", in.nice, err)}
		}
	}
	if in.noNew {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return &cannotRun{startBroken, "cannot forbid it new privileges: " + err.Error()}
		}
	}
	return f()
}

// onOwnThread runs f on a thread that ends with it. Go keeps the process's first
// thread for ever, and what is marked there everybody sees: it is held while
// another one works.
func onOwnThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != os.Getpid() {
		f()
		return // locked: the thread ends with the goroutine
	}
	defer runtime.UnlockOSThread()
	done := make(chan struct{})
	go func() {
		defer close(done)
		onOwnThread(f)
	}()
	<-done
}

// credential is the user and the groups of l's process; nil: exec's own.
func (l *launch) credential() *syscall.Credential {
	if l.as == nil {
		return nil
	}
	return &syscall.Credential{Uid: l.as.UID, Gid: l.as.GID, Groups: l.as.Groups}
}
