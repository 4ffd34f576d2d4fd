package overlay

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/test/bubble"
	"p2pnode/test/memnet"
)

// inBook reports whether m would dial x after a restart.
func (m *member) inBook(x *member) bool {
	for _, e := range m.book.Entries() {
		if e.ID == x.self {
			return true
		}
	}
	return false
}

func (m *member) hasCert(x *member) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.memberLocked(x.self)
}

func (m *member) isGone(id peer.ID) bool {
	_, ok := m.Forgotten(id)
	return ok
}

// A node that is not expected back is off all lists, also of who was away and of who
// starts again; with its next word it is a member as before, in the same life or
// in another.
func TestForgottenUntilItSpeaks(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(74, time.Millisecond, 0)
		a := inMemory(t, net, 1, nil).admitted(time.Second)
		b := inMemory(t, net, 2, joins("10.0.0.1"))
		dirC, dirX := t.TempDir(), t.TempDir()
		third := func() *member {
			return inMemory(t, net, 3, func(c *Config) { c.Dir, c.Join = dirC, []string{"10.0.0.2"} })
		}
		lost := func() *member {
			return inMemory(t, net, 4, func(c *Config) { c.Dir, c.Join = dirX, []string{"10.0.0.1", "10.0.0.2"} })
		}
		c, x := third(), lost()
		d := inMemory(t, net, 5, joins("10.0.0.1"))
		allKnowAll(t, 10*time.Second, a, b, c, d, x)
		time.Sleep(10 * time.Second)
		x.host.SetUp(false)
		d.host.SetUp(false)
		time.Sleep(time.Minute)

		if err := b.Forget(x.self); p2pnode.ExitCode(err) != p2pnode.ExitNotPermitted {
			t.Errorf("a worker forgot: %v", err)
		}
		if err := a.Forget(a.self); err == nil {
			t.Error("a manager forgot itself")
		}
		if err := a.Forget(x.self); err != nil {
			t.Fatal(err)
		}
		forgotten := func(ms ...*member) bool {
			return !slices.ContainsFunc(ms, func(m *member) bool { return knows(m, x.self) || m.hasCert(x) || m.inBook(x) || !m.isGone(x.self) })
		}
		eventually(t, 10*time.Second, "all have forgotten it", func() bool { return forgotten(a, b, c) })
		if err := a.Forget(x.self); err == nil {
			t.Error("forgotten twice")
		}
		d.host.SetUp(true) // it was away, and brings the old record
		eventually(t, 60*time.Second, "who was away has forgotten it too", func() bool { return forgotten(d) && knows(d, a.self) })
		c.stop()
		for _, m := range []*member{a, b, d} {
			m.host.SetUp(false)
		}
		c = third()
		eventually(t, 10*time.Second, "alone after a restart, c knows it still", func() bool { return c.isGone(x.self) })
		for _, m := range []*member{a, b, d} {
			m.host.SetUp(true)
		}
		allKnowAll(t, 60*time.Second, a, b, c, d)
		time.Sleep(time.Minute)
		if !forgotten(a, b, c, d) {
			t.Error("it came back without a word of its own")
		}

		back := func(what string) {
			t.Helper()
			began := time.Now()
			eventually(t, 2*time.Minute, what, func() bool {
				return !slices.ContainsFunc([]*member{a, b, c, d}, func(m *member) bool {
					return !knows(m, x.self) || !m.hasCert(x) || m.isGone(x.self) || !knows(x, m.self)
				})
			})
			t.Log(what, "after", time.Since(began))
		}
		x.host.SetUp(true)
		back("a member again, in the same life")
		x.crash()
		time.Sleep(time.Minute)
		if err := a.Forget(x.self); err != nil {
			t.Fatal(err)
		}
		eventually(t, 10*time.Second, "all have forgotten it again", func() bool { return forgotten(a, b, c, d) })
		x.stop()
		if err := os.Remove(filepath.Join(dirX, "boot")); err != nil { // its numbers start again, below those that are forgotten
			t.Fatal(err)
		}
		x = lost()
		back("a member again, in its next life")
	})
}

// An ephemeral member's record lapses an hour after its last word, everywhere, and
// with it all that is kept of it; who is waited for stays. In good order it leaves
// for good.
func TestEphemeralMemberLapses(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(75, time.Millisecond, 0)
		a := inMemory(t, net, 1, nil).admitted(time.Second)
		b := inMemory(t, net, 2, joins("10.0.0.1"))
		passing := func(n int) *member {
			return inMemory(t, net, n, func(c *Config) { c.Join, c.Ephemeral = []string{"10.0.0.1"}, time.Hour })
		}
		x, y := passing(3), passing(4)
		z := inMemory(t, net, 5, joins("10.0.0.1"))
		allKnowAll(t, 10*time.Second, a, b, x, y, z)
		time.Sleep(2 * time.Hour) // while they live nobody forgets them
		if !knows(a, x.self, y.self, z.self) || !knows(b, x.self, y.self, z.self) || !a.View().Peers[x.self].Ephemeral || a.View().Peers[z.self].Ephemeral {
			t.Fatalf("known: %v", a.View().Peers)
		}
		y.stop()
		eventually(t, time.Second, "it has left for good", func() bool { p := a.View().Peers[y.self]; return p.Left && p.ForGood })
		x.crash()
		z.crash()
		time.Sleep(45 * time.Minute)
		if !knows(a, x.self, z.self) || a.isGone(x.self) {
			t.Error("forgotten before its time")
		}
		time.Sleep(16 * time.Minute)
		for _, m := range []*member{a, b} {
			for _, gone := range []*member{x, y} {
				if knows(m, gone.self) || m.hasCert(gone) || m.inBook(gone) || !m.isGone(gone.self) {
					t.Errorf("%s still has %s after an hour: book %v", m.cfg.Name, gone.cfg.Name, m.inBook(gone))
				}
			}
			if !knows(m, z.self) || m.isGone(z.self) {
				t.Errorf("%s has forgotten one that is waited for", m.cfg.Name)
			}
		}
	})
}
