package exec

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/bin"
	"p2pnode/test/need"

	"golang.org/x/sys/unix"
)

const nobody = 65534

// named are the living processes that were started with the given argument.
func named(argument string) (pids []int) {
	for _, pid := range allPIDs() {
		raw, err := os.ReadFile(procPath(pid, "cmdline"))
		if err == nil && strings.HasSuffix(string(raw), "\x00"+argument+"\x00") && alive(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// aWhile is an argument for sleep that nobody else uses.
func aWhile(i int) string { return fmt.Sprintf("%d%07d", 1000+i, os.Getpid()) }

// hiddenSleep is a copy of sleep with a capability: whoever runs it without being
// root cannot see its environment and its descriptors any more, nor can exec.
func hiddenSleep(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "sleep")
	bin.Copy(t, "/bin/sleep", path, "")
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil {
		t.Fatal(err)
	}
	const version2, effective, netBindService = 0x02000000, 1, 1 << unix.CAP_NET_BIND_SERVICE
	attr := make([]byte, 20)
	binary.LittleEndian.PutUint32(attr, version2|effective)
	binary.LittleEndian.PutUint32(attr[4:], netBindService)
	if err := unix.Setxattr(path, "security.capability", attr, 0); err != nil {
		need.Had(t, fmt.Errorf("no file may have a capability here: %w", err))
	}
	return path
}

// hiddenFromItsUser reports whether only root can see what marks a process.
func hiddenFromItsUser(pid int) bool {
	info, err := os.Stat(procPath(pid, "environ"))
	return err == nil && info.Sys().(*syscall.Stat_t).Uid == 0
}

// A program that hides everything from an exec that is not root is known by its
// record; without one it is not, and then there is no second copy: blocked, until it
// has ended.
func TestAHiddenServiceIsNeverDoubled(t *testing.T) {
	need.Root(t, "a program with a capability is wanted")
	hidden, long := hiddenSleep(t), aWhile(0)
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{{Name: "web", Command: []string{hidden, long}, StopGrace: time.Second}}, As: nobody})
	was := h.await("web", p2pnode.StateUp)
	eventually(t, "it hides itself", func() bool { return hiddenFromItsUser(was.PID) })
	for range 2 {
		h.killExec()
		if now := h.await("web", p2pnode.StateUp); now.PID != was.PID || !now.Adopted {
			t.Fatalf("%+v, was %+v", now, was)
		}
	}
	h.withoutExec(func() {
		if err := os.Remove(filepath.Join(stateDir(h.dir), "services", "web.json")); err != nil {
			t.Fatal(err)
		}
	})
	h.await("web", p2pnode.StateBlocked)
	if pids := named(long); len(pids) != 1 || pids[0] != was.PID {
		t.Fatalf("copies %v, want %d alone", pids, was.PID)
	}
	kill9(t, was.PID)
	now := h.awaitNew("web", was.PID)
	eventually(t, "the next life is there, alone", func() bool { return slices.Equal(named(long), []int{now.PID}) })
}

// The dead service left a child that has neither its session nor its environment, is
// hidden, and keeps the lock: blocked, and a person may force a start.
func TestAHiddenChildWithTheLockBlocks(t *testing.T) {
	need.Root(t, "a program with a capability is wanted")
	hidden, long := hiddenSleep(t), aWhile(1)
	script := fmt.Sprintf("env -i setsid %s %s & exec sleep %s", hidden, long, aWhile(2))
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{{Name: "web", Command: []string{"/bin/sh", "-c", script}, StopGrace: time.Second}}, As: nobody})
	was := h.await("web", p2pnode.StateUp)
	var child []int
	eventually(t, "the child hides itself", func() bool { child = named(long); return len(child) == 1 && hiddenFromItsUser(child[0]) })
	defer func() {
		for _, pid := range named(long) {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	}()
	kill9(t, was.PID)
	s := h.await("web", p2pnode.StateBlocked)
	if !strings.Contains(s.Why, "lock") || !alive(child[0]) || len(named(aWhile(2))) != 0 {
		t.Errorf("%+v", s)
	}
	res, err := h.c.Start(t.Context(), "web", VerbOptions{Force: true})
	if err != nil || !res.OK {
		t.Fatalf("forced: %+v, %v", res, err)
	}
	eventually(t, "it runs, once", func() bool { return len(named(aWhile(2))) == 1 })
}

// What goes on after its main process died, whatever it shed and whatever it holds,
// neither delays the next life nor lives beside it.
func TestNothingGoesOnBesideTheNextLife(t *testing.T) {
	for i, c := range []struct{ name, script string }{
		{"holds the output", "sleep %[1]s & exec sleep %[2]s"},
		{"shed session and environment", "env -i setsid sleep %[1]s & exec sleep %[2]s"},
		{"double fork", "(setsid sleep %[1]s &) ; exec sleep %[2]s"},
		{"double fork, holds nothing but the lock", "(env -i setsid sleep %[1]s </dev/null >/dev/null 2>&1 &) ; exec sleep %[2]s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			child, main := aWhile(10+2*i), aWhile(11+2*i)
			script := fmt.Sprintf(c.script, child, main)
			h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{{Name: "web", Command: []string{"/bin/sh", "-c", script}, StopGrace: time.Second}}, NoCgroups: true})
			was := h.await("web", p2pnode.StateUp)
			for range 2 {
				var old []int
				eventually(t, "both run", func() bool { old = named(child); return len(old) == 1 && len(named(main)) == 1 })
				kill9(t, was.PID)
				was = h.awaitNew("web", was.PID)
				if alive(old[0]) {
					t.Errorf("%d of the old life goes on", old[0])
				}
			}
			if res, err := h.c.Stop(t.Context(), "web", VerbOptions{}); err != nil || !res.OK {
				t.Fatalf("%+v, %v", res, err)
			}
			eventually(t, "a stop ends all of it", func() bool { return len(named(child))+len(named(main)) == 0 })
		})
	}
}

// A program that sends itself to the background has ended, for exec: what it left is
// ended before it is started anew, so there is one at any time.
func TestADaemonisingProgramIsNotDoubled(t *testing.T) {
	long := aWhile(30)
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{{Name: "web", Command: []string{"/bin/sh", "-c", "setsid sleep " + long + " & exit 3"}, StopGrace: time.Second}}, NoCgroups: true})
	seen := map[int]bool{}
	eventually(t, "it was started three times", func() bool {
		for _, pid := range named(long) {
			seen[pid] = true
		}
		if n := len(named(long)); n > 1 {
			t.Fatalf("%d copies", n)
		}
		return h.status("web").Restarts >= 3
	})
	if s := h.status("web"); s.LastExit == nil || s.LastExit.Code != 3 {
		t.Errorf("%+v", s)
	}
}

// A main process that closed its output and its lock is adopted, by its
// record or by its cookie, and stopped.
func TestAServiceThatClosedAllIsAdopted(t *testing.T) {
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:shy")}, NoCgroups: true, Door: true})
	was := h.await("web", p2pnode.StateUp)
	eventually(t, "it has closed them", func() bool {
		fds, _ := filepath.Glob(procPath(was.PID, "fd/*"))
		return !slices.ContainsFunc(fds, func(fd string) bool {
			to, _ := os.Readlink(fd)
			return strings.HasSuffix(to, ".fifo") || strings.HasSuffix(to, ".lock")
		})
	})
	for _, lose := range []bool{false, true, false} {
		h.withoutExec(func() {
			if lose {
				os.Remove(filepath.Join(stateDir(h.dir), "services", "web.json"))
			}
		})
		if now := h.await("web", p2pnode.StateUp); now.PID != was.PID || !now.Adopted || now.Incarnation != was.Incarnation {
			t.Fatalf("record lost %v: %+v, was %+v", lose, now, was)
		}
		if n := copiesOf(h, "web"); n != 1 {
			t.Fatalf("%d copies", n)
		}
	}
	kill9(t, was.PID)
	now := h.awaitNew("web", was.PID)
	if res, err := h.c.Stop(t.Context(), "web", VerbOptions{}); err != nil || !res.OK || alive(now.PID) {
		t.Errorf("stop: %+v, %v", res, err)
	}
}
