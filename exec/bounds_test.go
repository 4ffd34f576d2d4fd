package exec

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
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
	h.bounded("held", func(s p2pnode.ServiceStatus) bool { return s.State == p2pnode.StateUp })
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

// What the kernel says is told where it refuses a limit: in v1 a group may not use more of
// the CPU than one above it.
func TestAQuotaThatTheKernelRefuses(t *testing.T) {
	need.Root(t, "a cgroup with the cpu controller is wanted")
	own, _ := groupPath(cgroupFile("self"), "cpu")
	above := filepath.Join(groupRoot, "cpu", own, fmt.Sprint("above-", os.Getpid()))
	need.Had(t, errors.Join(os.Mkdir(above, 0o755), set(above, []setting{{"cpu.cfs_quota_us", "50000"}})))
	t.Cleanup(func() {
		eventually(t, "the group above is empty", func() bool { return os.Remove(above) == nil })
	})
	web := service("web", "part:sleep")
	web.Limits.CPU, web.Manual = new(uint64(2000)), true
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{web}})
	if err := set(above, []setting{{"cgroup.procs", fmt.Sprint(h.cmd.Process.Pid)}}); err != nil {
		t.Fatal(err)
	}
	res, err := h.c.Start(t.Context(), "web", VerbOptions{})
	if want := "invalid argument): a group above it may use less"; err != nil || res.OK || !strings.Contains(res.Services[0].Text, want) {
		t.Errorf("%+v, %v, want %q", res, err, want)
	}
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
	h.bounded("grows", func(s p2pnode.ServiceStatus) bool { return s.State == p2pnode.StateExited })
	s := h.status("grows")
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

// A fork bomb stays within its number and its neighbour does not notice: one whose
// processes are all of its session, and one whose processes lead sessions of their own,
// forget their environment and fork too. When its main process is killed, at a stop and
// when exec ends, all of it is dead in a moment, and none of its groups is left.
func TestAForkBombIsBounded(t *testing.T) {
	need.Root(t, "a cgroup with the pids controller is wanted")
	const most = 40
	for i, part := range []string{"part:bomb", "part:bomb-of-sessions"} {
		t.Run(part, func(t *testing.T) {
			mark := aWhile(40 + i)
			bomb := service("bomb", part, mark)
			bomb.Limits.PIDs = new(uint64(most))
			h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{bomb, service("web", "part:sleep")}})
			h.bounded("bomb", func(s p2pnode.ServiceStatus) bool { return s.State == p2pnode.StateUp })
			full := func() {
				t.Helper()
				eventually(t, "it is full", func() bool { return len(named(mark)) > most/2 })
				for range 20 {
					if n := len(named(mark)); n > most {
						t.Fatalf("%d processes, %d are allowed", n, most)
					}
					time.Sleep(10 * time.Millisecond)
				}
			}
			full()
			old, was := surely(named(mark), func(int) bool { return true }), h.status("bomb").PID
			kill9(t, was)
			h.awaitNew("bomb", was)
			eventually(t, "all of the old life is dead", func() bool { return !slices.ContainsFunc(old, being.lives) })
			full()
			began := time.Now()
			if _, err := h.c.Stop(t.Context(), "bomb", VerbOptions{}); err != nil {
				t.Fatal(err)
			}
			eventually(t, "stopped, it is dead", func() bool { return len(named(mark)) == 0 })
			t.Logf("dead %v after the stop", time.Since(began))
			if _, err := h.c.Start(t.Context(), "bomb", VerbOptions{}); err != nil {
				t.Fatal(err)
			}
			full()
			if s := h.await("web", p2pnode.StateUp); s.Restarts != 0 {
				t.Errorf("its neighbour: %+v", s)
			}
			h.endsWithout("pids")
			eventually(t, "nothing of it is left", func() bool { return len(named(mark)) == 0 })
		})
	}
}

// bombPart forks whenever it may; with sessions, processes that nothing but a cgroup
// tells to be its own, and that fork as well.
func bombPart(mark string, sessions bool) {
	argv, attr := []string{"sleep", mark}, &syscall.ProcAttr{Env: os.Environ()}
	if sessions {
		argv = []string{"sh", "-c", "while :; do setsid sleep " + mark + " & done"}
		attr = &syscall.ProcAttr{Env: []string{"PATH=/usr/bin:/bin"}, Sys: &syscall.SysProcAttr{Setsid: true}}
	}
	for {
		if pid, err := syscall.ForkExec("/bin/"+argv[0], argv, attr); err != nil {
			time.Sleep(time.Millisecond)
		} else if sessions {
			syscall.Wait4(pid, nil, 0, nil) // it ends when it may fork no more
		}
	}
}

// bounded waits until a service with limits is as ok wants it; a host that cannot hold
// the limits is not one for the test.
func (h *host) bounded(name string, ok func(s p2pnode.ServiceStatus) bool) {
	h.t.Helper()
	eventually(h.t, name+" is bounded, or cannot be", func() bool {
		s := h.status(name)
		if s.State == p2pnode.StateMissing && strings.Contains(s.Why, "no cgroup of this host") {
			need.Had(h.t, errors.New(s.Why))
		}
		return ok(s)
	})
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
	groups := identity{folder: st.identity(), v1: groupRoot}.groups(controller)
	if _, err := os.Stat(groups); err == nil {
		h.t.Errorf("%s is left behind", groups)
	}
}
