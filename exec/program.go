package exec

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"p2pnode"

	"golang.org/x/sys/unix"
)

// A check's program runs as its service does: the same user, groups, folder,
// environment, umask and nice, and no more rights to gain. It is no process of the
// service: it leads a session of its own and has neither lock, cookie, notify socket
// nor group of it, by which it would be taken for a copy, be heard in its name, and be
// killed with it. So the service's limits are not its: it ends with its timeout, or, where
// exec is killed before, with the next exec (former.go).

// checkKey marks the environment of one run of a check's program.
const checkKey = "P2PNODE_CHECK"

// program runs a check's program; see check.Ask.
type program func(ctx context.Context, argv []string) error

// programOf runs programs for the checks of k's life inc.
func (r *runner) programOf(k *kid, inc p2pnode.Incarnation) program {
	spec, started := k.spec, k.launch
	job := startJob{eff: effStart{name: spec.Name, inc: inc}, spec: spec, id: k.id, last: k.last}
	return func(ctx context.Context, argv []string) error {
		if started == nil { // by another exec: what an env_file said then is not known
			env, _ := r.envOf(job)
			l, err := asService(spec, env)
			if err != nil {
				return err
			}
			started = &l
		}
		l, err := started.checking(argv)
		if err != nil {
			return err
		}
		return r.runProgram(ctx, l)
	}
}

// checking is l for the program of a check.
func (l launch) checking(argv []string) (launch, error) {
	l = l.running(argv)
	l.limits, l.oom = p2pnode.Limits{}, nil
	l.env = slices.DeleteFunc(slices.Clone(l.env), func(kv string) bool {
		key, _, _ := strings.Cut(kv, "=")
		return key == cookieKey || key == "NOTIFY_SOCKET" || key == "WATCHDOG_USEC"
	})
	var err error
	if l.path, err = resolve(argv[0], l.cwd, l.env); err != nil {
		return l, err
	}
	// A child that waits for a mount whose server is gone holds up every fork of exec until
	// its program runs. Let that wait be here, in the question's own goroutine.
	if l.cwd != "" {
		err = unix.Access(l.cwd, unix.X_OK)
	}
	return l, err
}

// runProgram runs l until it ends or ctx does, and ends all that it started. Exit
// status 0 is a good answer.
//
// The program's own status is taken last: until then its number is nobody else's, and
// its session's neither.
func (r *runner) runProgram(ctx context.Context, l launch) error {
	said, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer said.Close()
	l.stdout = int(w.Fd())
	if l.as != nil { // it may open /dev/stderr
		if err := unix.Fchown(l.stdout, int(l.as.UID), int(l.as.GID)); err != nil {
			w.Close()
			return err
		}
	}
	mark := marks{env: r.programs.run()}
	mark.pipe, _ = os.Readlink(procPath(os.Getpid(), "fd/"+strconv.Itoa(l.stdout)))
	l.env = append(l.env, mark.env)
	r.forking.Add(1)
	p, err := spawn(l, r.programs.held, nil)
	if err == nil {
		r.mains.Store(p.pid, p)
	}
	r.forking.Add(-1)
	w.Close()
	if err != nil {
		return err
	}
	defer p.close()
	defer r.mains.CompareAndDelete(p.pid, p)
	var out cutBuffer
	mark.gone = make(chan struct{})
	go func() {
		io.Copy(&out, said)
		close(mark.gone)
	}()
	killed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { endProgram(p, mark); close(killed) })
	p.wait()
	if !stop() {
		<-killed
	}
	endProgram(p, mark)
	exit := p.reap()
	said.SetReadDeadline(time.Now()) // of what nothing ended
	<-mark.gone
	text := strings.TrimSpace(out.String())
	switch {
	case exit.Signal != "" || exit.Unknown:
		err = fmt.Errorf("%s: %s", l.argv[0], exitText(exit))
	case exit.Code != 0:
		err = fmt.Errorf("%s: exit status %d", l.argv[0], exit.Code)
	default:
		return nil
	}
	if text != "" {
		err = fmt.Errorf("%w: %s", err, text)
	}
	return err
}

// endProgram kills a check's program, if it lives, and all that it started. It looks
// again when they are dead: a fork may have been under way, and orphans come to us
// then. The kernel leaves some of our children out while others are reaped: where
// somebody still has the program's output open, every process of the host is looked at.
func endProgram(p *process, mark marks) {
	left := descendants(p.being())
	deadline := time.Now().Add(leftPatience)
	for pause := time.Millisecond; ; pause *= 2 {
		for len(left) > 0 && time.Now().Before(deadline) {
			left.kill()
			for left.live() && time.Now().Before(deadline) {
				time.Sleep(time.Millisecond)
			}
			left = leftOf(childrenOf(os.Getpid()), p.being(), mark)
		}
		left.kill()
		select {
		case <-mark.gone:
			return
		case <-time.After(pause):
		}
		if time.Now().After(deadline) {
			return
		}
		left = leftOf(allPIDs(), p.being(), mark)
	}
}

// marks are what tells a process that left the session of the program that it is of: a
// variable, which a process that is just becoming another program does not show, and
// where it prints.
type marks struct {
	env, pipe string
	gone      chan struct{} // closed when nobody has the pipe open
}

func (m marks) on(pid int) bool {
	for _, fd := range []string{"fd/1", "fd/2"} {
		if link, err := os.Readlink(procPath(pid, fd)); err == nil && link == m.pipe {
			return true
		}
	}
	return hasEnv(pid, m.env)
}

// leftOf are the living ones of pids that a check's program left: of its session, or
// with its mark; and what these started.
func leftOf(pids []int, leader being, mark marks) (out copies) {
	for _, orphan := range surely(pids, func(pid int) bool {
		st, err := readStat(pid)
		return err == nil && pid != leader.pid && st.state != 'Z' && st.ticks >= leader.ticks && (st.session == leader.pid || mark.on(pid))
	}) {
		out = append(out, descendants(orphan)...)
	}
	return out
}

// live reports whether one of them has not ended.
func (c copies) live() bool {
	return slices.ContainsFunc(c, func(b being) bool {
		st, err := readStat(b.pid)
		return err == nil && st.ticks == b.ticks && st.state != 'Z' && st.state != 'X'
	})
}

// cutBuffer keeps the first bytes that are written to it. The buffer is not
// embedded: its ReadFrom would read without a limit.
type cutBuffer struct{ buf bytes.Buffer }

// Write implements io.Writer.
func (b *cutBuffer) Write(p []byte) (int, error) {
	b.buf.Write(p[:min(len(p), max(0, 256-b.buf.Len()))])
	return len(p), nil
}

// String is what was kept.
func (b *cutBuffer) String() string { return b.buf.String() }
