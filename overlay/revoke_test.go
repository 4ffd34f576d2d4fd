package overlay

import (
	"errors"
	"slices"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/overlay/papers"
	"p2pnode/test/bubble"
	"p2pnode/test/memnet"
)

// SCORECARD row 22: a revoked key is refused everywhere within 10 s, also where it
// has no link, after restarts, and by who was away; it is let in never again.
func TestRevokedIsRefusedEverywhere(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(73, time.Millisecond, 0)
		a := inMemory(t, net, 1, nil).admitted(time.Second)
		b := inMemory(t, net, 2, joins("10.0.0.1"))
		dirC, dirX := t.TempDir(), t.TempDir()
		third := func() *member {
			return inMemory(t, net, 3, func(c *Config) { c.Dir, c.Join = dirC, []string{"10.0.0.2"} })
		}
		c := third()
		thief := func() *member {
			return inMemory(t, net, 4, func(c *Config) { c.Dir, c.Join = dirX, []string{"10.0.0.1", "10.0.0.2", "10.0.0.3"} })
		}
		x := thief()
		d := inMemory(t, net, 5, joins("10.0.0.1"))
		allKnowAll(t, 10*time.Second, a, b, c, d, x)
		time.Sleep(10 * time.Second)
		d.host.SetUp(false) // it is away
		if _, err := b.Revoke(x.self); p2pnode.ExitCode(err) != p2pnode.ExitNotPermitted {
			t.Errorf("a worker revoked: %v", err)
		}
		if _, err := a.Revoke(a.self); err == nil {
			t.Error("a manager revoked itself")
		}
		if _, err := a.Revoke(x.self); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		refused := func(ms ...*member) bool {
			return !slices.ContainsFunc(ms, func(m *member) bool {
				_, there := m.View().Peers[x.self]
				_, revoked := m.Revoked()[x.self]
				return there || !revoked || m.linked(x) || x.linked(m)
			})
		}
		eventually(t, 10*time.Second, "all refuse it", func() bool { return refused(a, b, c) })
		t.Log("refused everywhere after", time.Since(began))
		eventually(t, 30*time.Second, "it says why", func() bool {
			e, ok := errors.AsType[*p2pnode.Error](x.JoinError())
			return ok && e.Code == ReasonRevoked && e.Fix != ""
		})
		eventually(t, 30*time.Second, "it tries, and that is counted", func() bool {
			return b.Counters()[ReasonRevoked]+a.Counters()[ReasonRevoked]+c.Counters()[ReasonRevoked] > 0
		})
		// Who was away hears of it, though the thief talks to it first.
		d.host.SetUp(true)
		eventually(t, 60*time.Second, "who was away refuses it too", func() bool { return refused(d) && knows(d, a.self) })
		// Restarts forget nothing, of either.
		c.stop()
		x.stop()
		a.host.SetUp(false)
		b.host.SetUp(false)
		d.host.SetUp(false)
		c, x = third(), thief()
		time.Sleep(time.Minute)
		if !refused(c) {
			t.Error("alone after a restart, c takes the revoked one in")
		}
		for _, m := range []*member{a, b, d} {
			m.host.SetUp(true)
		}
		// With clean papers it asks for admission, the window open, with a token too.
		x.stop()
		if err := papers.Forget(dirX); err != nil {
			t.Fatal(err)
		}
		tok, err := a.CreateToken(p2pnode.RoleManager, time.Hour, 1)
		if err != nil {
			t.Fatal(err)
		}
		x = inMemory(t, net, 4, func(c *Config) { c.Dir, c.Join, c.TokenFile = dirX, []string{"10.0.0.1"}, tokenFile(t, tok.Token) })
		time.Sleep(2 * time.Minute)
		if x.isAdmitted() || a.Counters()[string(papers.RefusedRevoked)] == 0 {
			t.Errorf("it was let in again: %v, %v", x.isAdmitted(), a.Counters())
		}
		allKnowAll(t, 30*time.Second, a, b, c, d)
	})
}

// A hello is judged and kept in two steps. Who is revoked, or demoted, between them is
// not taken back in as what it was.
func TestHelloWhileRevoked(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(151, time.Millisecond, 0)
		a := inMemory(t, net, 1, nil).admitted(time.Second)
		b, c := inMemory(t, net, 2, joins("10.0.0.1")), inMemory(t, net, 3, joins("10.0.0.1"))
		allKnowAll(t, 10*time.Second, a, b, c)
		promoted(t, a, c)
		first, _ := b.Certificate()
		second, _ := c.Certificate()
		if _, err := a.Revoke(b.self); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Demote(c.self); err != nil {
			t.Fatal(err)
		}
		if _, reason := a.noteCert(first); reason != ReasonRevoked {
			t.Errorf("a revoked one's certificate: %q", reason)
		}
		if cert, reason := a.noteCert(second); reason != "" || cert.Role != p2pnode.RoleWorker {
			t.Errorf("a demoted one's: %s, %q", cert.Role, reason)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.memberLocked(b.self) || a.managerLocked(c.self) {
			t.Error("as if nothing had been said")
		}
	})
}

// The first manager is stolen. Everybody was let in by it, the second manager too;
// they stay, it goes, and what it certifies from then on is worth nothing.
func TestTheFirstManagerIsRevoked(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(79, time.Millisecond, 0)
		a := inMemory(t, net, 1, nil).admitted(time.Second)
		b := inMemory(t, net, 2, joins("10.0.0.1"))
		dirC := t.TempDir()
		c := inMemory(t, net, 3, func(c *Config) { c.Dir, c.Join = dirC, []string{"10.0.0.1", "10.0.0.2"} })
		allKnowAll(t, 10*time.Second, a, b, c)
		if err := a.Promote(t.Context(), b.self); err != nil {
			t.Fatal(err)
		}
		eventually(t, 5*time.Second, "b is a manager", func() bool { return c.View().Peers[b.self].Role == p2pnode.RoleManager })
		kept, err := b.Revoke(a.self)
		if err != nil || !slices.Equal(kept, []string{"n2", "n3"}) {
			t.Fatalf("kept %v, %v", kept, err)
		}
		eventually(t, 10*time.Second, "a is out, b and c stay", func() bool {
			_, atB := b.View().Peers[a.self]
			_, atC := c.View().Peers[a.self]
			return !atB && !atC && b.linked(c) && len(a.View().Links) == 0
		})
		// The thief certifies an accomplice, and revokes whom it can.
		e := inMemory(t, net, 5, joins("10.0.0.1"))
		e.admitted(10 * time.Second)
		a.Revoke(b.self)
		time.Sleep(time.Minute)
		if knows(b, e.self) || knows(c, e.self) || len(b.Revoked()) != 1 || len(c.Revoked()) != 1 {
			t.Errorf("the thief's word counts: %v, %v", b.Revoked(), c.Revoked())
		}
		// Its revocation is refused also where somebody hands it over.
		a.mu.Lock()
		items := a.records.Items(time.Now(), p2pnode.DomainRevoked)
		a.mu.Unlock()
		refusals := 0
		for _, it := range items {
			c.mu.Lock()
			if c.records.Take(time.Now(), it, "").Reason != "" {
				refusals++
			}
			c.mu.Unlock()
		}
		if refusals != 1 {
			t.Errorf("%d of %d revocations that a holds are refused", refusals, len(items))
		}
		// The second manager goes on: it admits, also those that c relays.
		d := inMemory(t, net, 4, joins("10.0.0.3"))
		allKnowAll(t, 20*time.Second, b, c, d)
		c.stop()
		c = inMemory(t, net, 3, func(c *Config) { c.Dir, c.Join = dirC, []string{"10.0.0.2"} })
		allKnowAll(t, 20*time.Second, b, c, d)
		if _, ok := c.Revoked()[a.self]; !ok {
			t.Error("forgotten over a restart")
		}
	})
}
