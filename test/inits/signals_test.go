package inits

import (
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"p2pnode"
	"p2pnode/test/host"
)

// unheeded are signals that none of the three heeds: they are sent by accident, by
// the rotation of logs, or by a terminal.
var unheeded = []syscall.Signal{
	unix.SIGUSR1, unix.SIGUSR2, unix.SIGPIPE, unix.SIGWINCH, unix.SIGTSTP, unix.SIGCONT, unix.SIGALRM, unix.SIGURG, unix.SIGIO, unix.SIGPWR, unix.SIGXFSZ,
}

// Each signal to each process has the effect that docs/OPERATIONS.md names, and no
// other process of the host notices.
func TestSignals(t *testing.T) {
	t.Parallel()
	h := newHost(t).Start(alone...)
	was := settled(h)
	h.Fleet.Must(patience, "the door listens: before that it is no more than a program that starts", func() bool {
		var d p2pnode.StatusDoc
		if !h.JSON(&d, "status") {
			return false
		}
		c, err := net.Dial("tcp", d.Node.Door)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	send := func(pid int, s syscall.Signal) {
		t.Helper()
		if err := syscall.Kill(pid, s); err != nil {
			t.Fatalf("%v to %d: %v", s, pid, err)
		}
	}
	same := func(when string) {
		t.Helper()
		if now := becomes(h, when, func(p pids) bool { return p.whole() }); now != was {
			t.Errorf("%s: %+v, was %+v", when, now, was)
		}
	}

	for _, s := range unheeded {
		send(was.exec, s)
	}
	same("after what exec does not heed")
	for _, pid := range []int{was.door, was.node} {
		for _, s := range append(unheeded, unix.SIGINT, unix.SIGHUP) {
			send(pid, s)
		}
	}
	same("after what door and node process do not heed")

	for _, s := range []syscall.Signal{unix.SIGTERM, unix.SIGQUIT, unix.SIGKILL} {
		send(was.door, s)
		was = becomes(h, "the door is back after "+s.String(), func(p pids) bool { return p.door != was.door && p == pids{was.exec, p.door, was.node, was.web} })
		send(was.node, s)
		was = becomes(h, "the node process is back after "+s.String(), func(p pids) bool { return p.node != was.node && p == pids{was.exec, was.door, p.node, was.web} })
		if s == unix.SIGQUIT {
			stacks(h, p2pnode.SelfDoor)
			stacks(h, p2pnode.SelfNode)
		}
	}
	send(was.door, unix.SIGSTOP)
	send(was.node, unix.SIGSTOP)
	was = becomes(h, "who is stopped is replaced", func(p pids) bool {
		return p.door != was.door && p.node != was.node && p == pids{was.exec, p.door, p.node, was.web}
	})

	h.Configure(config + "  more:\n    command: [sleep, \"100000\"]\n")
	send(was.exec, unix.SIGHUP)
	h.Fleet.Must(patience, "a reload starts what is new", func() bool { return strings.Contains(h.OK("ps"), "more") })
	same("after SIGHUP")

	send(was.exec, unix.SIGSTOP)
	stays(t, "a stopped exec stays the only one", func() bool { return slices.Equal(execs(h), []int{was.exec}) })
	send(was.exec, unix.SIGCONT)
	same("after SIGSTOP and SIGCONT")

	send(was.exec, unix.SIGQUIT)
	if code := h.Wait(); code != 2 {
		t.Errorf("exec ends with %d after SIGQUIT", code)
	}
	if raw, _ := os.ReadFile(h.Dir + ".log"); !strings.Contains(string(raw), "goroutine ") {
		t.Errorf("no stacks of exec after SIGQUIT: %s", raw)
	}
	back := func(p pids) bool { return p.exec != was.exec && p == pids{p.exec, was.door, was.node, was.web} }
	was = becomes(h, "exec is back after SIGQUIT", back)
	send(was.exec, unix.SIGKILL)
	was = becomes(h, "exec is back after SIGKILL", back)
	send(was.exec, unix.SIGTERM)
	empty(h, "after SIGTERM")

	h.Start(alone...)
	was = settled(h)
	send(was.exec, unix.SIGINT)
	if code := h.Wait(); code != 0 {
		t.Errorf("exec ends with %d after SIGINT", code)
	}
	empty(h, "after SIGINT")
	if host.Running(was.web, host.StartTicks(was.web)) {
		t.Error("the service runs on after SIGINT")
	}
}

// stacks: a role that SIGQUIT has ended has printed what it did, where its output is
// read, and ended with 2.
func stacks(h *host.Host, role string) {
	h.Fleet.T.Helper()
	if out := h.OK("logs", role, "-n", "10000"); !strings.Contains(out, "SIGQUIT: quit") || !strings.Contains(out, "\ngoroutine ") {
		h.Fleet.T.Errorf("no stacks of %s after SIGQUIT: %s", role, out)
	}
	var d p2pnode.PSDoc
	if !h.JSON(&d, "ps", "--all") {
		h.Fleet.T.Fatal("ps does not answer")
	}
	for _, s := range d.Services {
		if s.Name == role && (s.LastExit == nil || s.LastExit.Code != 2) {
			h.Fleet.T.Errorf("%s ended with %+v after SIGQUIT, want 2", role, s.LastExit)
		}
	}
}
