package overlay

import (
	"bytes"
	"context"
	"testing"
	"time"

	"p2pnode/overlay/papers"
	"p2pnode/test/bubble"
	"p2pnode/test/memnet"
)

func (m *member) gossipKey() []byte {
	c, _ := m.Cluster()
	return c.GossipKey
}

// A revocation brings another gossip key to everybody but the revoked: link by link
// along a chain, to who was away, to who joins later; it outlives restarts, and a
// second revocation brings a third key.
func TestRevocationRotatesTheGossipKey(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(76, time.Millisecond, 0)
		dirC := t.TempDir()
		a := inMemory(t, net, 1, func(c *Config) { c.DenyLinks = []string{"n3", "n6"} }).admitted(time.Second)
		b := inMemory(t, net, 2, joins("10.0.0.1"))
		third := func() *member { // two links from the manager
			return inMemory(t, net, 3, func(c *Config) { c.Dir, c.Join, c.DenyLinks = dirC, []string{"10.0.0.2"}, []string{"n1"} })
		}
		c := third()
		x := inMemory(t, net, 4, joins("10.0.0.1", "10.0.0.2"))
		y := inMemory(t, net, 5, joins("10.0.0.1", "10.0.0.2"))
		d := inMemory(t, net, 6, func(c *Config) { c.Join, c.DenyLinks = []string{"10.0.0.2"}, []string{"n1"} })
		allKnowAll(t, 10*time.Second, a, b, c, d, x, y)
		first := a.gossipKey()
		told := make(chan []byte, 8)
		b.mu.Lock()
		b.onGossipKey = func(key []byte) { told <- key }
		b.mu.Unlock()
		d.host.SetUp(false)
		time.Sleep(10 * time.Second)
		rotated := func(what string, from []byte, ms ...*member) {
			t.Helper()
			began := time.Now()
			eventually(t, time.Minute, what, func() bool {
				for _, m := range ms {
					if k := m.gossipKey(); !bytes.Equal(k, a.gossipKey()) || bytes.Equal(k, from) {
						return false
					}
				}
				return true
			})
			t.Log(what, "after", time.Since(began))
		}
		if _, err := a.Revoke(x.self); err != nil {
			t.Fatal(err)
		}
		rotated("all that are there have another key", first, a, b, c, y)
		second := a.gossipKey()
		if key := <-told; !bytes.Equal(key, second) {
			t.Error("gossip was told another key")
		}
		d.host.SetUp(true)
		rotated("who was away has it", first, d)
		e := inMemory(t, net, 7, joins("10.0.0.2")).admitted(20 * time.Second)
		rotated("who joined later has it", first, e)
		if _, err := a.Revoke(y.self); err != nil {
			t.Fatal(err)
		}
		rotated("all have a third key", second, a, b, c, d, e)
		c.stop()
		for _, m := range []*member{a, b, d, e} {
			m.host.SetUp(false)
		}
		c = third()
		if !bytes.Equal(c.gossipKey(), a.gossipKey()) {
			t.Error("a restart forgot the key")
		}
		time.Sleep(time.Minute)
		if !bytes.Equal(x.gossipKey(), first) || !bytes.Equal(y.gossipKey(), second) {
			t.Error("the revoked got a key")
		}
	})
}

// The key is given to members that are none of the revoked, and not before the
// revocation itself was heard of.
func TestGossipKeyIsGivenToMembersOnly(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(77, time.Millisecond, 0)
		a := inMemory(t, net, 1, nil).admitted(time.Second)
		b := inMemory(t, net, 2, joins("10.0.0.1"))
		x := inMemory(t, net, 3, joins("10.0.0.1"))
		allKnowAll(t, 10*time.Second, a, b, x)
		if _, err := a.Revoke(x.self); err != nil {
			t.Fatal(err)
		}
		digest := gossipDigest(a.gossipKey())
		if key, err := a.giveGossipKey(context.Background(), b.self, digest); err != nil || !bytes.Equal(key, a.gossipKey()) {
			t.Errorf("a member got %d bytes, %v", len(key), err)
		}
		if _, err := a.giveGossipKey(context.Background(), x.self, digest); err == nil {
			t.Error("the revoked was given the key")
		}
		if _, err := a.giveGossipKey(context.Background(), b.self, gossipDigest(make([]byte, papers.GossipKeySize))); err == nil {
			t.Error("a key was given that was not asked for")
		}
		a.mu.Lock()
		a.revoked = nil
		a.mu.Unlock()
		if _, err := a.giveGossipKey(context.Background(), b.self, digest); err == nil {
			t.Error("the key was given before its revocation was heard of")
		}
	})
}
