package netlab

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p2pnode"
	"p2pnode/test/bin"
	"p2pnode/test/history"
	"p2pnode/test/host"
)

// debug attaches to every thread of pid and stops it, as a debugger does, until
// release is called.
func debug(t *testing.T, pid int) (release func()) {
	t.Helper()
	begun, over, done := make(chan error), make(chan struct{}), make(chan struct{})
	go func() { // ptrace belongs to a thread, which ends with this goroutine
		defer close(done)
		runtime.LockOSThread()
		held := map[int]bool{}
		begun <- attach(pid, held)
		<-over
		for tid := range held {
			unix.PtraceDetach(tid)
		}
	}()
	var once bool
	release = func() {
		if !once {
			once = true
			close(over)
			<-done
		}
	}
	t.Cleanup(release)
	if err := <-begun; err != nil {
		t.Fatalf("cannot trace %d: %v", pid, err)
	}
	return release
}

// attach goes over the threads until no new one is found: those that are not held
// yet may still make some.
func attach(pid int, held map[int]bool) error {
	for grew := true; grew; {
		grew = false
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			return err
		}
		for _, e := range entries {
			tid, err := strconv.Atoi(e.Name())
			if err != nil || held[tid] {
				continue
			}
			switch err := unix.PtraceAttach(tid); {
			case errors.Is(err, unix.ESRCH):
				continue // it has ended
			case err != nil:
				return fmt.Errorf("thread %d: %w", tid, err)
			}
			held[tid], grew = true, true
			if _, err := unix.Wait4(tid, nil, unix.WALL, nil); err != nil {
				return fmt.Errorf("thread %d: %w", tid, err)
			}
		}
	}
	return nil
}

// Somebody has stopped a service, and another host's node process, and attaches a
// debugger: neither is replaced when its grace is over, whoever comes to look, and
// both stories say why. Let go, they go on as the same processes.
func TestADebuggerIsLeftAlone(t *testing.T) {
	const yaml = `grace: {agent: 300ms, node: 300ms}
services:
  web: {shell: "exec sleep 1000000", ready: started, stop_grace: 3s}
`
	names := []string{"a", "b", "c"}
	l, hosts := mesh(t, bin.P2pnode(t), yaml, names...)
	a, b, c := hosts[0], hosts[1], hosts[2]
	a.OK("agents", "launch", "--slo", "15s")
	l.Must(20*time.Second, "web is up, an agent walks", func() bool { return webOf(c).PID != 0 && len(a.Agents()) > 0 })
	web, node, life := webOf(c), b.Role("node"), b.Nodes()["b"].Life
	webTicks, nodeTicks := host.StartTicks(web.PID), host.StartTicks(node)
	stop := func(h *host.Host, service string, pid int) {
		h.Fault(service, p2pnode.ClassFrozen, pid)
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	stop(b, p2pnode.SelfNode, node)
	l.Must(8*time.Second, "a hears from b's door that its node process is stopped", func() bool { return a.Nodes()["b"].Verdict == p2pnode.Hung })
	stop(c, "web", web.PID)
	var ps p2pnode.PSDoc
	if !host.Eventually(2*time.Second, func() bool { // its grace is three
		return c.JSON(&ps, "ps") && len(ps.Services) == 1 && ps.Services[0].State == p2pnode.StateFrozen
	}) {
		t.Fatalf("exec does not say that web is stopped: %+v", ps.Services)
	}
	releaseWeb, releaseNode := debug(t, web.PID), debug(t, node)
	held := func(about, service, old string) func() bool {
		return func() bool {
			_, ok := a.Incident(about, service, func(i p2pnode.Incident) bool { return i.OldIncarnation == old && i.Held == p2pnode.HeldTraced })
			return ok
		}
	}
	l.Must(15*time.Second, "a tells that web is traced", held("c", "web", web.Incarnation))
	l.Must(30*time.Second, "a tells that the node process of b is traced", held("b", "", life))
	time.Sleep(1500 * time.Millisecond) // five times what exec would wait for an agent
	if !host.Running(web.PID, webTicks) || !host.Running(node, nodeTicks) {
		t.Errorf("killed under its debugger: web runs %v, node process runs %v", host.Running(web.PID, webTicks), host.Running(node, nodeTicks))
	}
	for pid, release := range map[int]func(){web.PID: releaseWeb, node: releaseNode} {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil { // it is stopped still, and would be replaced
			t.Error(err)
		}
		release()
	}
	l.Must(20*time.Second, "one view", func() bool { return a.Sees(names...) && b.Sees(names...) })
	l.Must(20*time.Second, "web is up as it was", func() bool { return webOf(c).PID == web.PID })
	if got := b.Role("node"); got != node {
		t.Errorf("the node process of b was %d, is %d", node, got)
	}
	l.Judge(history.Options{EndView: true})
}
