package exec

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/exec/check"
	"p2pnode/test/need"
)

// A service that would use two cores and may use a fifth of one uses that, the children
// that it starts included.
func TestCPUIsBounded(t *testing.T) {
	need.Root(t, "a cgroup with the cpu controller is wanted")
	spin := []string{"/bin/sh", "-c", "while :; do :; done & while :; do :; done"}
	held := p2pnode.ServiceSpec{Name: "held", Command: spin, Limits: p2pnode.Limits{CPU: new(uint64(200))}}
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{held}})
	eventually(t, "it runs, or cannot", func() bool {
		s := h.status("held").State
		return s == p2pnode.StateUp || s == p2pnode.StateMissing
	})
	if s := h.status("held"); s.State == p2pnode.StateMissing && strings.Contains(s.Why, "no cgroup of this host") {
		t.Skip("SKIPPED: " + s.Why)
	}
	used := func() time.Duration { return check.CPU(check.Tree(h.status("held").PID)) }
	before, began := used(), time.Now()
	time.Sleep(2 * time.Second)
	if got := float64(used()-before) / float64(time.Since(began)); got > 0.3 || got == 0 {
		t.Errorf("it used %.2f of a core, 0.2 are allowed", got)
	}
	kill9(t, h.status("held").PID)
	eventually(t, "it is back", func() bool { s := h.status("held"); return s.Restarts == 1 && s.State == p2pnode.StateUp })
	h.endsWithout("cpu")
}

// What all of a service uses is bounded, not each process: one that grows is killed and
// said to be, and a child that grows is killed beside a main process that goes on.
func TestMemoryIsBoundedTogether(t *testing.T) {
	need.Root(t, "a cgroup with the memory controller is wanted")
	// memory: ends what no group would hold, with another exit.
	limits := p2pnode.Limits{MemoryTotal: new(uint64(48 << 20)), Memory: new(uint64(1 << 29))}
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{
		{Name: "grows", Command: []string{"/usr/bin/tail", "/dev/zero"}, Limits: limits, Restart: p2pnode.RestartNo},
		{Name: "parent", Command: []string{"/bin/sh", "-c", "tail /dev/zero; echo child: $?; exec sleep 1000"}, Limits: limits},
	}})
	eventually(t, "it has grown, or cannot", func() bool {
		s := h.status("grows").State
		return s == p2pnode.StateExited || s == p2pnode.StateMissing
	})
	s := h.status("grows")
	if s.State == p2pnode.StateMissing && strings.Contains(s.Why, "no cgroup of this host") {
		t.Skip("SKIPPED: " + s.Why)
	}
	if e := s.LastExit; e == nil || !e.OOM || e.Signal != "SIGKILL" || e.MaxRSS > 64<<20 {
		t.Errorf("it ended with %+v, want a kill for want of memory at 48 MiB", e)
	}
	if !strings.HasPrefix(s.Why, "killed: out of memory") {
		t.Errorf("ps says %q", s.Why)
	}
	eventually(t, "the child is killed", func() bool {
		raw, _ := os.ReadFile(filepath.Join(logDir(h.dir), "parent.log"))
		return strings.Contains(string(raw), "child: 137")
	})
	if s := h.status("parent"); s.State != p2pnode.StateUp || s.Restarts != 0 {
		t.Errorf("the parent of what was killed: %+v", s)
	}
	h.endsWithout("memory")
}

// A fork bomb stays within its number, its neighbour does not notice, and nothing
// of its groups is left when exec has ended.
func TestAForkBombIsBounded(t *testing.T) {
	need.Root(t, "a cgroup with the pids controller is wanted")
	bomb := p2pnode.ServiceSpec{Name: "bomb", Command: []string{"/bin/sh", "-c", "while :; do sleep 100000 & done"}, Limits: p2pnode.Limits{PIDs: new(uint64(12))}}
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{bomb, service("web", "part:sleep")}})
	eventually(t, "it has all that it may have", func() bool {
		raw, _ := os.ReadFile(filepath.Join(logDir(h.dir), "bomb.log"))
		return strings.Contains(strings.ToLower(string(raw)), "fork") || h.status("bomb").State == p2pnode.StateMissing
	})
	if s := h.status("bomb"); s.State == p2pnode.StateMissing && strings.Contains(s.Why, "no cgroup of this host") {
		t.Skip("SKIPPED: " + s.Why)
	}
	for range 20 {
		if n := copiesOf(h, "bomb"); n > 12 {
			t.Fatalf("%d processes, 12 are allowed", n)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if s := h.await("web", p2pnode.StateUp); s.Restarts != 0 {
		t.Errorf("its neighbour: %+v", s)
	}
	h.endsWithout("pids")
	eventually(t, "nothing of it is left", func() bool { return copiesOf(h, "bomb") == 0 })
}

// endsWithout ends the daemon and wants no group of its own left in the hierarchy of a
// controller.
func (h *host) endsWithout(controller string) {
	h.t.Helper()
	if err := h.c.Shutdown(h.t.Context(), false); err != nil {
		h.t.Fatal(err)
	}
	h.cmd.Wait()
	st, err := openState(stateDir(h.dir), runDir(h.dir))
	if err != nil {
		h.t.Fatal(err)
	}
	groups := identity{folder: st.identity()}.groups(controller)
	if _, err := os.Stat(groups); err == nil {
		h.t.Errorf("%s is left behind", groups)
	}
}
