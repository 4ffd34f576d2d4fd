package overlay

import (
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/overlay/papers"
	"p2pnode/test/bubble"
	"p2pnode/test/memnet"
)

const day = 24 * time.Hour

// founded makes the papers of a cluster that was founded so long ago; the root's key is
// elsewhere, so that who joins gets a certificate that ends as soon.
func founded(t *testing.T, ago time.Duration) (dir string) {
	t.Helper()
	dir = t.TempDir()
	key, err := p2pnode.LoadOrCreateKey(filepath.Join(dir, "node.key"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := papers.Found(dir, key, "n1", time.Now().Add(-ago)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "root.key"), filepath.Join(dir, "safe")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// bringRoot puts the root's key back.
func (m *member) bringRoot() {
	m.t.Helper()
	if err := os.Rename(filepath.Join(m.cfg.Dir, "safe"), filepath.Join(m.cfg.Dir, "root.key")); err != nil {
		m.t.Fatal(err)
	}
}

func (m *member) left() time.Duration {
	cert, _ := m.Certificate()
	return time.Until(cert.Until)
}

// Nobody thinks of certificates: two months before they end the host with the root's key
// makes its own anew, and gives the others theirs, along a chain and of
// the same role. A restart changes nothing, and members see each other all the while.
func TestCertificatesAreRenewed(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(113, time.Millisecond, 0)
		dirA, dirW := founded(t, 310*day), t.TempDir()
		a := inMemory(t, net, 1, func(c *Config) { c.Dir, c.DenyLinks = dirA, []string{"n3"} }).admitted(time.Second)
		if _, err := a.Open(time.Hour); err != nil {
			t.Fatal(err)
		}
		b := inMemory(t, net, 2, joins("10.0.0.1"))
		startW := func() *member {
			return inMemory(t, net, 3, func(c *Config) { c.Dir, c.Join, c.DenyLinks = dirW, []string{"10.0.0.2"}, []string{"n1"} })
		}
		w := startW()
		allKnowAll(t, 10*time.Second, a, b, w)
		promoted(t, a, b)
		if a.left() > 56*day || w.left() > 56*day {
			t.Fatalf("they end in %v, %v", a.left(), w.left())
		}
		before, _ := w.Certificate()
		a.bringRoot()
		time.Sleep(2*renewEvery + time.Minute)
		for _, m := range []*member{a, b, w} {
			if m.left() < 350*day {
				t.Errorf("%s ends in %v", m.cfg.Name, m.left())
			}
		}
		cert, _ := w.Certificate()
		if cert.Role != p2pnode.RoleWorker || !cert.From.Equal(before.From) || !rolesAre(p2pnode.RoleManager, b, a, b, w) {
			t.Errorf("another role, or another beginning: %+v", cert)
		}
		if u := a.View().Peers[w.self].Until; time.Until(u) < 350*day {
			t.Errorf("others see its end in %v", time.Until(u))
		}
		w.stop()
		w = startW()
		allKnowAll(t, 10*time.Second, a, b, w)
		if w.left() < 350*day {
			t.Error("forgotten over a restart")
		}
		if a.Counters()[ReasonRenewal]+b.Counters()[ReasonRenewal]+w.Counters()[ReasonRenewal] != 0 {
			t.Errorf("refused: %v %v", a.Counters(), b.Counters())
		}
	})
}

// Without the root's key nobody's certificate can be made to last longer than those
// above it. At the end privilege is gone and membership is not; the key, put back for a
// moment, mends it.
func TestRenewalWithoutTheRoot(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(127, time.Millisecond, 0)
		dir := founded(t, 365*day-30*time.Minute)
		a := inMemory(t, net, 1, func(c *Config) { c.Dir = dir }).admitted(time.Second)
		if _, err := a.Open(time.Hour); err != nil {
			t.Fatal(err)
		}
		b := inMemory(t, net, 2, joins("10.0.0.1"))
		allKnowAll(t, 10*time.Second, a, b)
		promoted(t, a, b)
		time.Sleep(40 * time.Minute)
		if _, err := a.Open(time.Hour); p2pnode.ExitCode(err) != p2pnode.ExitNotPermitted {
			t.Errorf("an ended certificate opens doors: %v", err)
		}
		if !a.linked(b) || !knows(b, a.self) {
			t.Error("the end took membership")
		}
		// Another cluster's root key helps nobody.
		other, err := p2pnode.LoadOrCreateKey(filepath.Join(dir, "root.key"))
		if err != nil || len(other) != ed25519.PrivateKeySize {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		if a.left() > 0 {
			t.Fatal("renewed by another cluster's key")
		}
		a.bringRoot()
		eventually(t, 2*time.Hour, "the root's key mends it", func() bool { return a.left() > 350*day })
		if _, err := a.Open(time.Hour); err != nil {
			t.Error(err)
		}
		// A manager's that has ended is not renewed without a person.
		time.Sleep(3 * time.Hour)
		if b.left() > 0 || a.Counters()[ReasonRenewal] == 0 {
			t.Errorf("b's ended certificate was renewed: %v", b.left())
		}
		if err := a.Promote(t.Context(), b.self); err != nil || b.left() < 350*day {
			t.Errorf("promoted again: %v, %v", err, b.left())
		}
	})
}

// A member gets what it has, and only itself.
func TestRenewalIsForTheMemberItself(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(131, time.Millisecond, 0)
		dir := founded(t, 320*day)
		a := inMemory(t, net, 1, func(c *Config) { c.Dir = dir }).admitted(time.Second)
		if _, err := a.Open(time.Hour); err != nil {
			t.Fatal(err)
		}
		b := inMemory(t, net, 2, joins("10.0.0.1"))
		allKnowAll(t, 10*time.Second, a, b)
		a.bringRoot()
		a.renew()
		stranger := newCaller(t)
		forged, err := papers.NewRequest(stranger.key, "n2", nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.giveRenewal(t.Context(), b.self, forged); err == nil {
			t.Error("somebody else's request was answered")
		}
		if _, err := a.giveRenewal(t.Context(), stranger.id, forged); err == nil {
			t.Error("a stranger was answered")
		}
		if _, err := b.giveRenewal(t.Context(), a.self, forged); err == nil {
			t.Error("a worker renews")
		}
		old, _ := b.Certificate()
		own, err := papers.NewRequest(b.key, "n2", nil)
		if err != nil {
			t.Fatal(err)
		}
		a.mu.Lock()
		issuer := a.issuerLocked()
		a.mu.Unlock()
		raised := old
		raised.Role = p2pnode.RoleManager
		answer, err := issuer.Renewal(own, raised, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		b.mu.Lock()
		p := b.papers
		b.mu.Unlock()
		if _, err := p.AcceptRenewal(b.cfg.Dir, b.key, old, answer); err == nil {
			t.Error("a renewal made it a manager")
		}
		for n := range answer {
			bad := append([]byte(nil), answer...)
			bad[n] ^= 1
			if next, err := p.AcceptRenewal(b.cfg.Dir, b.key, raised, bad); err == nil {
				if cert, err := next.Certificate(); err != nil || cert.ID != b.self {
					t.Fatalf("byte %d changed, and it was taken", n)
				}
			}
		}
	})
}

// A renewal takes a while to come, and what a person or the fleet changes meanwhile stays:
// in memory, and over a restart.
func TestRenewalForgetsNothing(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(139, time.Millisecond, 0)
		dir, dirB := founded(t, 320*day), t.TempDir()
		a := inMemory(t, net, 1, func(c *Config) { c.Dir = dir }).admitted(time.Second)
		if _, err := a.Open(time.Hour); err != nil {
			t.Fatal(err)
		}
		start := at(t, net, 2, dirB, "10.0.0.1")
		b := start()
		allKnowAll(t, 10*time.Second, a, b)
		a.bringRoot()
		a.renew()
		done := make(chan struct{})
		go func() { b.renew(); close(done) }()
		time.Sleep(time.Millisecond / 2) // the question is on its way
		key := slices.Repeat([]byte{7}, papers.GossipKeySize)
		if err := errors.Join(b.Trust(a.cluster()), b.takeGossipKey(key)); err != nil {
			t.Fatal(err)
		}
		if b.left() > 60*day {
			t.Fatal("the renewal came first: nothing was shown")
		}
		<-done
		kept := func(when string) {
			if c, _ := b.Cluster(); b.left() < 350*day || !c.Trusted || !slices.Equal(c.GossipKey, key) {
				t.Errorf("%s: it lasts %v more, trusted %v", when, b.left(), c.Trusted)
			}
		}
		kept("after the renewal")
		b.stop()
		b = start()
		kept("after a restart")
	})
}
