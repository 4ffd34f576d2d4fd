package overlay

import (
	"errors"
	"strings"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/overlay/overlaypb"
	"p2pnode/overlay/papers"
	"p2pnode/test/bubble"
	"p2pnode/test/memnet"
)

func knocks(m *member) string {
	e, _ := errors.AsType[*p2pnode.Error](m.JoinError())
	if e == nil || e.Code != string(papers.RefusedClosed) {
		return ""
	}
	return e.Fix
}

// The window is over. Who knocks without a token is listed on every manager, whichever
// it reached; any manager approves by the code that the newcomer shows, or opens the
// door for a while, and any closes it.
func TestPendingApproveOpen(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(103, time.Millisecond, 0)
		a := inMemory(t, net, 1, nil).admitted(time.Second)
		b, w := inMemory(t, net, 2, joins("10.0.0.1")), inMemory(t, net, 3, joins("10.0.0.1", "10.0.0.2"))
		allKnowAll(t, 10*time.Second, a, b, w)
		promoted(t, a, b)
		time.Sleep(papers.Window)
		j := inMemory(t, net, 4, joins("10.0.0.3"))
		code := papers.Code(j.self)
		eventually(t, 20*time.Second, "it says how it may come in", func() bool { return strings.Contains(knocks(j), "p2pnode approve "+code) })
		eventually(t, 20*time.Second, "both managers list it", func() bool {
			pa, pb := a.Pending(), b.Pending()
			return len(pa) == 1 && len(pb) == 1 && pa[0].Code == code && pb[0].ID == j.self.String() && pa[0].Name == "n4" && pa[0].Address == "10.0.0.4"
		})
		since := a.Pending()[0].Since
		time.Sleep(5 * time.Minute)
		if p := b.Pending(); len(p) != 1 || !p[0].Since.Equal(since) || j.isAdmitted() {
			t.Errorf("it waits on, since %v: %+v", since, p)
		}
		if err := w.Approve(j.self); p2pnode.ExitCode(err) != p2pnode.ExitNotPermitted {
			t.Errorf("a worker approved: %v", err)
		}
		if err := b.Approve(j.self); err != nil {
			t.Fatal(err)
		}
		j.admitted(joinRefused + 5*time.Second)
		if cert, _ := j.Certificate(); cert.Role != p2pnode.RoleWorker {
			t.Errorf("it came in as a %s", cert.Role)
		}
		eventually(t, 10*time.Second, "nobody waits", func() bool { return len(a.Pending())+len(b.Pending()) == 0 })

		k := inMemory(t, net, 5, joins("10.0.0.3"))
		eventually(t, 20*time.Second, "another one waits", func() bool { return len(b.Pending()) == 1 })
		if _, err := w.Open(time.Minute); p2pnode.ExitCode(err) != p2pnode.ExitNotPermitted {
			t.Errorf("a worker opened: %v", err)
		}
		if _, err := a.Open(48 * time.Hour); p2pnode.ExitCode(err) != p2pnode.ExitUsage {
			t.Errorf("open for two days: %v", err)
		}
		until, err := b.Open(10 * time.Minute)
		if err != nil || time.Until(until) > 10*time.Minute {
			t.Fatalf("until %v, %v", until, err)
		}
		k.admitted(joinRefused + 5*time.Second)
		eventually(t, 5*time.Second, "the other manager knows", func() bool { return !a.OpenUntil().IsZero() })
		if _, err := a.Open(0); err != nil {
			t.Fatal(err)
		}
		eventually(t, 5*time.Second, "closed, by another manager", func() bool { return a.OpenUntil().IsZero() && b.OpenUntil().IsZero() })
		late := inMemory(t, net, 6, joins("10.0.0.1"))
		time.Sleep(time.Minute)
		if late.isAdmitted() {
			t.Error("let in although the door was closed")
		}
		if _, err := a.Open(30 * time.Second); err != nil {
			t.Fatal(err)
		}
		late.admitted(joinRefused + 5*time.Second)
		time.Sleep(time.Minute)
		last := inMemory(t, net, 7, joins("10.0.0.1"))
		time.Sleep(time.Minute)
		if last.isAdmitted() || !b.OpenUntil().IsZero() {
			t.Error("the door did not close by itself")
		}
	})
}

// One manager's clock is a year ahead: what another one says after it still counts, there
// and everywhere.
func TestOpenByAWrongClock(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(149, time.Millisecond, 0)
		a := inMemory(t, net, 1, nil).admitted(time.Second)
		b := inMemory(t, net, 2, joins("10.0.0.1"))
		allKnowAll(t, 10*time.Second, a, b)
		promoted(t, a, b)
		b.mu.Lock()
		err := b.sayAdmissionLocked(keyOpen, &overlaypb.AdmissionRecord{OpenMs: time.Hour.Milliseconds(), At: time.Now().Add(365 * day).UnixMilli()}, maxOpen)
		b.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, 5*time.Second, "the door is open", func() bool { return !a.OpenUntil().IsZero() && !b.OpenUntil().IsZero() })
		for _, d := range []time.Duration{0, 10 * time.Minute, 0} {
			if _, err := a.Open(d); err != nil {
				t.Fatal(err)
			}
			eventually(t, 5*time.Second, "the last word counts", func() bool { return a.OpenUntil().IsZero() == (d == 0) && b.OpenUntil().IsZero() == (d == 0) })
		}
	})
}

// Strangers cannot fill the fleet's records.
func TestFewStrangersAreListed(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(107, time.Millisecond, 0)
		a := inMemory(t, net, 1, nil).admitted(time.Second)
		for n := range maxPending + 10 {
			a.notePending(papers.Request{Joiner: newCaller(t).id, Name: "x"}, "10.0.0.9")
			a.notePending(papers.Request{Joiner: a.self, Name: "x"}, "10.0.0.9") // one that is a member is not shown
			if len(a.Pending()) > maxPending {
				t.Fatalf("%d are listed after %d", len(a.Pending()), n)
			}
		}
		if a.Counters()[ReasonPending] == 0 {
			t.Error("not counted")
		}
		time.Sleep(pendingTTL + time.Second)
		a.notePending(papers.Request{Joiner: newCaller(t).id, Name: "x"}, "\x1b[2J")
		if p := a.Pending(); len(p) != 1 || p[0].Address != "" {
			t.Errorf("an address that paints the terminal: %q", p)
		}
		time.Sleep(pendingTTL + time.Second)
		if p := a.Pending(); len(p) != 0 {
			t.Errorf("who asks no more is still listed: %v", p)
		}
	})
}

func TestTrust(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(109, time.Millisecond, 0)
		a := inMemory(t, net, 1, nil).admitted(time.Second)
		dir := t.TempDir()
		start := at(t, net, 2, dir, "10.0.0.1")
		b := start().admitted(10 * time.Second)
		own, _ := a.Cluster()
		if c, _ := b.Cluster(); c.Trusted {
			t.Error("trusted on first sight")
		}
		if err := b.Trust("0123456789abcdef"); p2pnode.ExitCode(err) != p2pnode.ExitNotPermitted {
			t.Errorf("another cluster's code: %v", err)
		}
		if err := b.Trust(own.ID); err != nil {
			t.Fatal(err)
		}
		b.stop()
		b = start()
		if c, _ := b.Cluster(); !c.Trusted {
			t.Error("forgotten over a restart")
		}
	})
}
