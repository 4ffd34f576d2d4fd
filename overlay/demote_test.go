package overlay

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/overlay/papers"
	"p2pnode/test/bubble"
	"p2pnode/test/memnet"
)

// reads reports whether m holds what opens that reader key.
func (m *member) reads(seal []byte) bool { return papers.ReaderFor(m.Readers().Private, seal) != nil }

func (m *member) seal() []byte { return m.Readers().Seal }

// agreed reports whether all seal to one key that is fit, and returns it.
func agreed(all ...*member) ([]byte, bool) {
	seal := all[0].seal()
	for _, m := range all {
		m.mu.Lock()
		fit := m.Overlay.seal.fit()
		m.mu.Unlock()
		if !fit || !bytes.Equal(m.seal(), seal) {
			return nil, false
		}
	}
	return seal, true
}

func rolesAre(role p2pnode.Role, of *member, at ...*member) bool {
	return !slices.ContainsFunc(at, func(m *member) bool { return m.View().Peers[of.self].Role != role })
}

// at is an overlay at 10.0.0.n that may be started again in its folder.
func at(t *testing.T, net *memnet.Net, n int, dir string, join ...string) func() *member {
	return func() *member {
		return inMemory(t, net, n, func(c *Config) { c.Dir, c.Join = dir, join })
	}
}

func promoted(t *testing.T, by *member, who ...*member) {
	t.Helper()
	for _, m := range who {
		if err := by.Promote(t.Context(), m.self); err != nil {
			t.Fatal(err)
		}
		eventually(t, 5*time.Second, "all see "+m.cfg.Name+" as a manager", func() bool { return rolesAre(p2pnode.RoleManager, m, by, m) })
	}
}

// Three managers: one is demoted while another is away. What is sealed from then on
// opens for those who remain, also for who was away, and never for the demoted one; what
// was sealed before opens for them still. Restarts forget nothing.
func TestDemotedReadsNothingNew(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(83, time.Millisecond, 0)
		startA, startB := at(t, net, 1, t.TempDir()), at(t, net, 2, t.TempDir(), "10.0.0.1")
		startC, startD := at(t, net, 3, t.TempDir(), "10.0.0.1"), at(t, net, 4, t.TempDir(), "10.0.0.1", "10.0.0.3")
		a := startA().admitted(time.Second)
		b, c, d := startB(), startC(), startD()
		allKnowAll(t, 10*time.Second, a, b, c, d)
		promoted(t, a, b, c)
		before, ok := agreed(a, b, c, d)
		if !ok || !b.reads(before) || !c.reads(before) || d.reads(before) {
			t.Fatal("at first all managers read, and nobody else")
		}
		tok, err := b.CreateToken(p2pnode.RoleManager, time.Hour, 5)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, 5*time.Second, "the token is known", func() bool { return len(a.Tokens()) == 1 && len(c.Tokens()) == 1 })
		c.host.SetUp(false) // it is away
		time.Sleep(20 * time.Second)
		if _, err := d.Demote(b.self); p2pnode.ExitCode(err) != p2pnode.ExitNotPermitted {
			t.Errorf("a worker demoted: %v", err)
		}
		if _, err := a.Demote(d.self); err == nil {
			t.Error("a worker was demoted")
		}
		if _, err := a.Demote(b.self); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		eventually(t, 10*time.Second, "b is a worker to all", func() bool { return rolesAre(p2pnode.RoleWorker, b, a, b, d) })
		var after []byte
		eventually(t, 10*time.Second, "another reader key", func() bool {
			after, ok = agreed(a, b, d)
			return ok && !bytes.Equal(after, before)
		})
		t.Log("a new key counts at all after", time.Since(began))
		if !a.reads(after) || !a.reads(before) || b.reads(after) || b.reads(before) || len(papers.LoadReaders(b.cfg.Dir)) != 0 {
			t.Error("a reads both, b none")
		}
		if b.DemotedBy() != "n1" || a.DemotedBy() != "" {
			t.Errorf("demoted by %q", b.DemotedBy())
		}
		// It stays a member, and its privilege is gone, here and where others look.
		if _, err := b.CreateToken(p2pnode.RoleWorker, time.Hour, 1); p2pnode.ExitCode(err) != p2pnode.ExitNotPermitted {
			t.Errorf("it made a token: %v", err)
		}
		if len(a.Tokens()) != 0 {
			t.Error("its token works on")
		}
		c.host.SetUp(true)
		eventually(t, 60*time.Second, "who was away reads the new key", func() bool { return bytes.Equal(c.seal(), after) && c.reads(after) && c.reads(before) })
		// Restarts, all at once: the record is on every disk.
		for _, m := range []*member{a, b, c, d} {
			m.stop()
		}
		b = startB()
		eventually(t, time.Second, "alone after a restart b knows that it is a worker", func() bool {
			cert, ok := b.Certificate()
			return ok && cert.Role == p2pnode.RoleWorker && b.DemotedBy() != ""
		})
		d = startD()
		if !bytes.Equal(d.seal(), after) {
			t.Error("after a restart d seals to the old key")
		}
		a, c = startA(), startC()
		allKnowAll(t, 30*time.Second, a, b, c, d)
		eventually(t, 10*time.Second, "nothing is forgotten", func() bool {
			now, ok := agreed(a, b, c, d)
			return ok && bytes.Equal(now, after) && a.reads(after) && c.reads(after) && c.reads(before) && !b.reads(after) && rolesAre(p2pnode.RoleWorker, b, a, b, c, d)
		})
		// Promoted again it gets all keys; demoted again another key follows.
		promoted(t, c, b)
		eventually(t, 10*time.Second, "b reads again", func() bool { return b.reads(after) && b.reads(before) && rolesAre(p2pnode.RoleManager, b, a, b, c, d) })
		if _, err := c.Demote(b.self); err != nil {
			t.Fatal(err)
		}
		eventually(t, 10*time.Second, "a third key", func() bool {
			now, ok := agreed(a, b, c, d)
			return ok && !bytes.Equal(now, after) && a.reads(now) && c.reads(now) && !b.reads(now)
		})
		// Who is let in with what b had granted is a stranger, and b lets nobody in.
		e := inMemory(t, net, 5, func(cfg *Config) { cfg.Join, cfg.TokenFile = []string{"10.0.0.2"}, tokenFile(t, tok.Token) })
		time.Sleep(time.Minute)
		if e.isAdmitted() {
			t.Error("a demoted manager's token let somebody in")
		}
	})
}

// Two managers demote one another manager each, at the same time, and cannot hear each
// other: each leaves out only whom it knows of. When they meet neither key is fit, and
// one more follows that nobody holds who may not.
func TestTwoRotateAtOnce(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(89, time.Millisecond, 0)
		a := inMemory(t, net, 1, nil).admitted(time.Second)
		var others []*member
		for n := 2; n <= 5; n++ {
			others = append(others, inMemory(t, net, n, joins("10.0.0.1")))
		}
		b, x, y, w := others[0], others[1], others[2], others[3]
		allKnowAll(t, 10*time.Second, a, b, x, y, w)
		promoted(t, a, b, x, y)
		eventually(t, 5*time.Second, "managers everywhere", func() bool {
			return rolesAre(p2pnode.RoleManager, b, a, b, x, y, w) && rolesAre(p2pnode.RoleManager, x, a, b, x, y, w) && rolesAre(p2pnode.RoleManager, y, a, b, x, y, w)
		})
		b.host.SetUp(false)
		y.host.SetUp(false)
		if _, err := a.Demote(x.self); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Demote(y.self); err != nil {
			t.Fatal(err)
		}
		one, other := a.seal(), b.seal()
		time.Sleep(20 * time.Second)
		if bytes.Equal(one, other) || !y.reads(y.seal()) {
			t.Error("they are apart: two keys, and y knows of nothing")
		}
		b.host.SetUp(true)
		y.host.SetUp(true)
		eventually(t, 60*time.Second, "one fit key", func() bool {
			seal, ok := agreed(a, b, x, y, w)
			return ok && a.reads(seal) && b.reads(seal) && !x.reads(seal) && !y.reads(seal) && !w.reads(seal)
		})
		eventually(t, 30*time.Second, "both managers hold both first keys", func() bool { return a.reads(other) && b.reads(one) })
	})
}

// Who demoted somebody ends before it makes a new key: the next manager by rank does.
// One that demotes itself makes none either, and what it had revoked stays revoked.
func TestSomebodyRotates(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(97, time.Millisecond, 0)
		a := inMemory(t, net, 1, nil).admitted(time.Second)
		b, c, d, thief := inMemory(t, net, 2, joins("10.0.0.1")), inMemory(t, net, 3, joins("10.0.0.1")), inMemory(t, net, 4, joins("10.0.0.1", "10.0.0.2")), inMemory(t, net, 9, joins("10.0.0.1"))
		allKnowAll(t, 10*time.Second, a, b, c, d, thief)
		promoted(t, a, b, c)
		time.Sleep(5 * time.Second)
		before := a.seal()
		if _, err := c.Revoke(thief.self); err != nil {
			t.Fatal(err)
		}
		var second []byte
		eventually(t, 10*time.Second, "a revocation makes a new key, too", func() bool {
			seal, ok := agreed(a, b, c, d)
			second = seal
			return ok && !bytes.Equal(seal, before) && a.reads(seal) && b.reads(seal)
		})
		a.mu.Lock()
		marks, _ := a.certifiedLocked(b.self)
		err := a.sayRefusedLocked(b.self, p2pnode.Revocation{At: time.Now().Unix(), Demoted: true, Kept: marks})
		a.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(500 * time.Millisecond)
		a.crash()
		var third []byte
		eventually(t, 30*time.Second, "c makes a key", func() bool {
			seal, ok := agreed(c, d)
			third = seal
			return ok && !bytes.Equal(seal, second) && c.reads(seal) && !b.reads(seal)
		})
		promoted(t, c, d)
		if _, err := c.Demote(c.self); err != nil {
			t.Fatal(err)
		}
		eventually(t, 30*time.Second, "d makes a key, and says what c had said", func() bool {
			seal, ok := agreed(b, c, d)
			d.mu.Lock()
			said := d.repeatedLocked(p2pnode.DomainRevoked, thief.self.String()+"/0", time.Now())
			d.mu.Unlock()
			return ok && !bytes.Equal(seal, third) && d.reads(seal) && d.reads(third) && !c.reads(seal) && rolesAre(p2pnode.RoleWorker, c, b, c, d) && said
		})
		e := inMemory(t, net, 5, joins("10.0.0.4"))
		allKnowAll(t, 20*time.Second, c, d, e)
		if !e.Revoked().Refused(thief.self) || e.View().Peers[c.self].Role != p2pnode.RoleWorker {
			t.Errorf("who comes later does not know: %v", e.Revoked())
		}
	})
}

// Nobody gets reader keys but a manager, and a manager takes them only from one.
func TestReaderKeysAreForManagers(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(101, time.Millisecond, 0)
		a := inMemory(t, net, 1, nil).admitted(time.Second)
		b, w := inMemory(t, net, 2, joins("10.0.0.1")), inMemory(t, net, 3, joins("10.0.0.1"))
		allKnowAll(t, 10*time.Second, a, b, w)
		promoted(t, a, b)
		if _, _, err := w.Route(t.Context(), a.self, kindReaders, nil); err == nil {
			t.Error("a worker was given reader keys")
		}
		if _, err := w.handReaders(t.Context(), a.self, nil); err == nil {
			t.Error("a worker hands out reader keys")
		}
		raw, _, err := b.Route(t.Context(), a.self, kindReaders, nil)
		if err != nil {
			t.Fatal(err)
		}
		take := func(m *member, from *member, raw []byte) error {
			m.mu.Lock()
			defer m.mu.Unlock()
			return m.takeHandoverLocked(from.self, raw)
		}
		if err := take(b, a, raw); err != nil {
			t.Errorf("a handover by a manager: %v", err)
		}
		junk, _, _ := papers.NewReader()
		box, _ := papers.BoxPublic(b.key)
		sealed, err := papers.SealReaders(box, [][]byte{junk})
		if err != nil {
			t.Fatal(err)
		}
		forged := p2pnode.Seal(handoverDomain, w.key, sealed)
		for name, err := range map[string]error{
			"a worker's":                 take(b, w, forged),
			"a worker's in a's name":     take(b, a, forged),
			"damaged":                    take(b, a, raw[:len(raw)-1]),
			"somebody else's, to a node": take(w, a, raw),
		} {
			if err == nil {
				t.Errorf("taken: %s", name)
			}
		}
		if pub, _ := papers.ReaderPublic(junk); b.reads(pub) {
			t.Error("a worker's key was taken")
		}
	})
}
