package door

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/exec"
	"p2pnode/test/score"
)

// A member's handshake at a byte a second is ended after the time that a handshake
// has, and counted, beside others that are answered.
func TestSlowHandshakesEnd(t *testing.T) {
	f := newFleet(t)
	m, b := f.member("a", p2pnode.RoleWorker), f.member("b", p2pnode.RoleWorker)
	s := m.serve()
	var slow sync.WaitGroup
	for range maxConns - 1 {
		slow.Go(func() {
			if err := b.greetSlowly(t.Context(), m.addr); err == nil {
				t.Error("a handshake at a byte a second came to its end")
			}
		})
	}
	eventually(t, "all are in", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.conns) == maxConns-1 })
	if _, err := b.knocker().Status(t.Context(), m.addr, m.peer().ID); err != nil {
		t.Errorf("a member is kept out: %v", err)
	}
	slow.Wait()
	eventually(t, "each is counted", func() bool { return s.count.get("handshake-slow") == maxConns-1 })
	eventually(t, "and gone", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.conns) == 0 })
}

// trickle is a connection on which a byte a second is written.
type trickle struct{ net.Conn }

func (c trickle) Write(b []byte) (n int, err error) {
	for i := range b {
		if _, err := c.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
		time.Sleep(time.Second)
	}
	return len(b), nil
}

// greetSlowly is a whole handshake with the member's papers, a byte a second.
func (m *member) greetSlowly(ctx context.Context, addr string) error {
	raw, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return err
	}
	defer raw.Close()
	return tls.Client(trickle{raw}, config(m.chain, m.key, func([][]byte) error { return nil })).HandshakeContext(ctx)
}

// Thousands of strangers open connections to the door and say nothing, some say a
// byte now and then, and members prove themselves at a byte a second: another member
// is answered all the while, exec does not notice, and the door has no more open than
// its limit. A door that is killed is back at once.
func TestAFloodAtTheDoor(t *testing.T) {
	f := newFleet(t)
	a, b := f.member("a", p2pnode.RoleWorker), f.member("b", p2pnode.RoleWorker)
	a.host(false)
	c := a.client()
	web := a.awaitWeb(c)
	k, want := b.knocker(), a.peer().ID
	eventually(t, "the door answers", func() bool { _, err := k.Status(t.Context(), a.addr, want); return err == nil })
	door := a.doorPID(c)

	var opened atomic.Int64
	stop := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var open []net.Conn
		defer func() {
			for _, s := range open {
				s.Close()
			}
		}()
		for range strangers() {
			select {
			case <-stop:
				return
			default:
			}
			s, err := net.DialTimeout("tcp", a.addr, time.Second)
			if err != nil {
				continue
			}
			open = append(open, s)
			if opened.Add(1)%7 == 0 {
				s.Write([]byte{22}) // the first byte of a handshake, and nothing after it
			}
		}
		<-stop
	}()
	var slow sync.WaitGroup
	for range 8 {
		slow.Go(func() {
			for range 2 {
				if b.greetSlowly(t.Context(), a.addr) == nil {
					t.Error("a handshake at a byte a second came to its end")
				}
			}
		})
	}
	most, asked, unanswered := 0, 0, 0
	for began := time.Now(); time.Since(began) < 20*time.Second && (opened.Load() < int64(strangers())*9/10 || asked < 50); asked++ {
		ans, err := k.Recover(t.Context(), a.addr, want, p2pnode.RecoverRequest{Op: fmt.Sprint("flood ", asked), Target: "web", Expected: web.Incarnation})
		switch {
		case err != nil:
			unanswered++ // crowded out while it proved itself: a caller tries again
		case ans.Reason != p2pnode.RefusedHealthy:
			t.Errorf("beside a flood: %+v", ans)
		}
		most = max(most, descriptors(door))
	}
	t.Logf("%d strangers, %d of %d members' requests crowded out, at most %d descriptors in the door", opened.Load(), unanswered, asked, most)
	if opened.Load() < 1000 {
		t.Errorf("%d strangers are no flood", opened.Load())
	}
	if unanswered == asked {
		t.Error("no member was answered")
	}
	if most > 100 {
		t.Errorf("the door had %d descriptors open", most)
	}
	if now := a.awaitWeb(c); now.PID != web.PID {
		t.Errorf("web has pid %d, had %d", now.PID, web.PID)
	}
	slow.Wait() // each was ended
	close(stop)
	<-ended

	began := time.Now()
	if err := syscall.Kill(door, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another door answers", func() bool {
		now := a.doorPID(c)
		_, err := k.Status(t.Context(), a.addr, want)
		return err == nil && now != door && now != 0
	})
	took := time.Since(began)
	score.Record(t, score.Figure{
		Row: "20", How: "the door killed, until it answers a member again", Text: score.Millis(took), N: 1,
		Chance: "1 kill after a flood", Where: "one host", Kept: took < 5*time.Second,
	})
	if took > 10*time.Second {
		t.Errorf("the door was back after %v", took)
	}
}

// A member with a valid certificate asks a thousand times for what needs no help or
// must not be helped: no pid changes, and each answer says exactly why.
func TestAMemberCannotMakeExecAct(t *testing.T) {
	f := newFleet(t)
	a, b := f.member("a", p2pnode.RoleWorker), f.member("b", p2pnode.RoleWorker)
	a.services = []p2pnode.ServiceSpec{
		counting("web"), counting("stopped"), counting("maintained"),
		{Name: "crashing", Command: []string{"/bin/false"}, StopGrace: time.Second},
	}
	a.host(false)
	c := a.client()
	states := func() map[string]p2pnode.ServiceStatus {
		out := map[string]p2pnode.ServiceStatus{}
		st, err := c.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range st.Services {
			out[s.Name] = s
		}
		return out
	}
	eventually(t, "three run and one loops", func() bool {
		s := states()
		return s["web"].State == p2pnode.StateUp && s["stopped"].State == p2pnode.StateUp && s["maintained"].State == p2pnode.StateUp && s["crashing"].State == p2pnode.StateCrashLooping
	})
	if _, err := c.Stop(t.Context(), "stopped", exec.VerbOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Maintenance(t.Context(), "maintained", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	syscall.Kill(states()["maintained"].PID, syscall.SIGKILL)
	eventually(t, "two are down", func() bool {
		s := states()
		return s["stopped"].PID == 0 && s["maintained"].PID == 0
	})
	was := states()
	asks := []struct {
		target, expected string
		outcome          p2pnode.Outcome
		reason           p2pnode.Refusal
	}{
		{"crashing", was["crashing"].Incarnation, p2pnode.OutcomeScheduled, ""}, // first: its slow lane ends after a minute
		{"web", was["web"].Incarnation, p2pnode.OutcomeRefused, p2pnode.RefusedHealthy},
		{"stopped", was["stopped"].Incarnation, p2pnode.OutcomeRefused, p2pnode.RefusedStopped},
		{"maintained", was["maintained"].Incarnation, p2pnode.OutcomeRefused, p2pnode.RefusedMaintenance},
		{"web", "1-1", p2pnode.OutcomeRefused, p2pnode.RefusedStale},
	}
	k, want := b.knocker(), a.peer().ID
	for i, ask := range asks {
		var members sync.WaitGroup
		for j := range 8 {
			members.Go(func() {
				for n := range 25 {
					op := fmt.Sprint(i, j, n)
					ans, err := k.Recover(t.Context(), a.addr, want, p2pnode.RecoverRequest{Op: op, Target: ask.target, Expected: ask.expected, Agent: "x"})
					if err != nil || ans.Outcome != ask.outcome || ans.Reason != ask.reason {
						t.Errorf("recover %s %s: %+v, %v", ask.target, ask.expected, ans, err)
						return
					}
				}
			})
		}
		members.Wait()
		if now := states()[ask.target]; now.PID != was[ask.target].PID || now.Restarts != was[ask.target].Restarts || now.Incarnation != was[ask.target].Incarnation {
			t.Errorf("%s: %+v, was %+v", ask.target, now, was[ask.target])
		}
	}
}

// strangers is how many connections this process can have.
func strangers() int {
	var lim syscall.Rlimit
	syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim)
	return int(min(10_000, lim.Cur*3/4))
}

func descriptors(pid int) int {
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(entries)
}

// doorPID is the door's.
func (m *member) doorPID(c *exec.Client) int {
	m.f.t.Helper()
	st, err := c.Status(m.f.t.Context())
	if err != nil {
		m.f.t.Fatal(err)
	}
	return st.Door.PID
}
