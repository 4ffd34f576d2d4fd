package door

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/exec"
)

// exec dies; its door says so, reads on for it, brings it back on a neighbour's
// word and gives the service's output back: no line is lost, none is doubled.
func TestExecDiesAndIsBroughtBackAtTheDoor(t *testing.T) {
	f := newFleet(t)
	a, b := f.member("a", p2pnode.RoleWorker), f.member("b", p2pnode.RoleWorker)
	a.host(false)
	c := a.client()
	k := b.knocker()
	want := a.peer().ID
	eventually(t, "the door says that exec lives", func() bool {
		st, err := k.Status(t.Context(), a.addr, want)
		return err == nil && st.ExecAlive
	})
	ans, err := k.Recover(t.Context(), a.addr, want, p2pnode.RecoverRequest{Op: "1", Target: p2pnode.SelfExec, Agent: "x"})
	if err != nil || ans.Outcome != p2pnode.OutcomeRefused || ans.Reason != p2pnode.RefusedHealthy {
		t.Fatalf("recover of a living exec: %+v, %v", ans, err)
	}
	was := a.awaitWeb(c)
	if ans, err = k.Recover(t.Context(), a.addr, want, p2pnode.RecoverRequest{Op: "2", Target: "web", Expected: was.Incarnation, Agent: "x"}); err != nil || ans.Outcome != p2pnode.OutcomeRefused || ans.Reason != p2pnode.RefusedHealthy {
		t.Errorf("recover of a healthy service: %+v, %v", ans, err)
	}
	eventually(t, "the door holds its output", func() bool { return a.doorHolds(c) })
	eventually(t, "the service prints", func() bool { return len(a.numbers(c)) > 20 })

	_, pid := exec.ExecAlive(a.dir)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the door says that exec is dead", func() bool {
		st, err := k.Status(t.Context(), a.addr, want)
		return err == nil && !st.ExecAlive
	})
	eventually(t, "the door reads for it", func() bool { return len(away(a.dir)) > 200 })
	eventually(t, "it is brought back", func() bool {
		ans, err = k.Recover(t.Context(), a.addr, want, p2pnode.RecoverRequest{Op: "3", Target: p2pnode.SelfExec, Agent: "x"})
		return err == nil && ans.Outcome == p2pnode.OutcomeDone
	})
	if ans.Class != p2pnode.ClassExecDead || ans.By.Node != b.peer().ID.String() || ans.By.Agent != "x" || ans.PID == pid || ans.PID == 0 {
		t.Errorf("%+v", ans)
	}
	c = a.client()
	if now := a.awaitWeb(c); now.PID != was.PID {
		t.Errorf("the service has pid %d, had %d", now.PID, was.PID)
	}
	seen := len(a.numbers(c))
	eventually(t, "output arrives again", func() bool { return len(a.numbers(c)) > seen+50 })
	for i, n := range a.numbers(c) {
		if n != i {
			t.Fatalf("line %d says %d: lines are lost or doubled", i, n)
		}
	}
}

// doorHolds reports whether the door process has the service's FIFO open.
func (m *member) doorHolds(c *exec.Client) bool {
	st, err := c.Status(m.f.t.Context())
	if err != nil {
		return false
	}
	fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", st.Door.PID))
	for _, fd := range fds {
		if to, _ := os.Readlink(fd); strings.HasSuffix(to, ".fifo") && strings.Contains(to, "/web-") {
			return true
		}
	}
	return false
}

func (m *member) awaitWeb(c *exec.Client) (s p2pnode.ServiceStatus) {
	m.f.t.Helper()
	eventually(m.f.t, "web is up", func() bool {
		st, err := c.Status(m.f.t.Context())
		if err != nil || len(st.Services) != 1 {
			return false
		}
		s = st.Services[0]
		return s.State == p2pnode.StateUp
	})
	return s
}

// numbers are what the service printed so far.
func (m *member) numbers(c *exec.Client) (out []int) {
	m.f.t.Helper()
	stream, err := c.Logs(m.f.t.Context(), exec.LogQuery{Services: []string{"web"}, Lines: 100000})
	if err != nil {
		return nil
	}
	for l := range stream {
		if n, err := strconv.Atoi(l.Text); err == nil {
			out = append(out, n)
		}
	}
	return out
}

// A node process dies: its door tells another host's door, and exec there tells
// whoever listens to its events.
func TestADeathIsToldFromDoorToDoor(t *testing.T) {
	f := newFleet(t)
	a, b := f.member("a", p2pnode.RoleWorker), f.member("b", p2pnode.RoleWorker)
	a.trust(Trust{Peers: []TrustPeer{b.peer()}})
	a.host(true)
	b.host(false)
	ca, cb := a.client(), b.client()
	eventually(t, "b's door is connected", func() bool {
		ans, err := a.knocker().Recover(t.Context(), b.addr, b.peer().ID, p2pnode.RecoverRequest{Op: "1", Target: "web", Expected: "x"})
		return err == nil && ans.Reason != p2pnode.RefusedExecDead
	})
	events, err := cb.Events(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	var st p2pnode.ExecStatus
	eventually(t, "a's node process says its life, and the door holds it", func() bool {
		st, err = ca.Status(t.Context())
		ds, derr := b.knocker().Status(t.Context(), a.addr, a.peer().ID)
		return err == nil && !st.NodeLife.IsZero() && st.Node.PID != 0 && derr == nil && ds.ExecAlive && ds.NodeAlive
	})
	eventually(t, "the door is the keeper", func() bool { return a.doorHolds(ca) })
	if err := syscall.Kill(st.Node.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	over := time.After(20 * time.Second)
	for {
		select {
		case ev, ok := <-events:
			if !ok {
				t.Fatal("the events ended")
			}
			if ev.Event != p2pnode.FactPeerDeath {
				continue
			}
			if ev.Peer != a.peer().ID.String() || ev.Life != st.NodeLife {
				t.Errorf("%+v, want life %v", ev, st.NodeLife)
			}
			return
		case <-over:
			t.Fatal("no word of the death")
		}
	}
}
