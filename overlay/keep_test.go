package overlay

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode/overlay/overlaypb"
	"p2pnode/test/bubble"
	"p2pnode/test/memnet"
)

// A host's address changes: its connections lead nowhere and nobody is told. New
// ones are made, whoever dials, instead of asking over the dead ones for ever.
func TestStrandedConnectionsAreReplaced(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(47, time.Millisecond, 0)
		a := inMemory(t, net, 1, nil).admitted(time.Second)
		b := inMemory(t, net, 2, joins("10.0.0.1"))
		c := inMemory(t, net, 3, joins("10.0.0.1"))
		allKnowAll(t, 10*time.Second, a, b, c)
		// A connection without a link to listen for its silence.
		if _, err := c.reach(t.Context(), a.self); err != nil {
			t.Fatal(err)
		}
		a.host.Strand()
		eventually(t, 20*time.Second, "the links are given up", func() bool { return len(a.View().Links) == 0 })
		eventually(t, 20*time.Second, "a has links with both again", func() bool { return a.linked(b) && b.linked(a) && a.linked(c) && c.linked(a) })
		for _, from := range []*member{b, c} {
			if _, _, err := from.Route(t.Context(), a.self, kindPing, nil); err != nil {
				t.Errorf("%s does not reach a: %v", from.cfg.Name, err)
			}
		}
	})
}

// Of two links with a neighbour one leads nowhere. The other is what counts, also
// once the first was given up: its missed heartbeats are nobody's.
func TestSecondLinkThatLeadsNowhere(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(53, time.Millisecond, 0)
		a := inMemory(t, net, 1, nil).admitted(time.Second)
		var missed, most atomic.Int64
		cfg, _ := inMemoryConfig(t, net, 2)
		cfg.Join = []string{"10.0.0.1"}
		b := start(t, cfg, func(o *Overlay) {
			o.OnHeartbeatMissed(func(_ peer.ID, n int) {
				missed.Store(int64(n))
				most.Store(max(most.Load(), int64(n)))
			})
		})
		allKnowAll(t, 10*time.Second, a, b)
		// What a link looks like whose other end is gone: nothing comes in any more.
		b.mu.Lock()
		good := b.linkOfLocked(a.self)
		b.mu.Unlock()
		s, err := good.conn.conn.NewStream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		bad := &link{
			peer: a.self, conn: good.conn, stream: s, heard: time.Now(), out: make(chan []byte, linkQueue), done: make(chan struct{}),
			waiting: map[uint64]chan *overlaypb.Reply{},
		}
		b.mu.Lock()
		bad.id, b.links[0] = 0, bad // older than the good one
		b.mu.Unlock()
		time.Sleep(4 * beatEvery)
		b.mu.Lock()
		if b.linkOfLocked(a.self) != good {
			t.Error("the link that leads nowhere is used")
		}
		b.mu.Unlock()
		if bad.missedNow() < 2 {
			t.Fatal("the second link hears something")
		}
		b.endLink(bad, CauseSilent)
		time.Sleep(beatEvery)
		if most.Load() > 1 || missed.Load() > 0 {
			t.Errorf("%d heartbeats of a neighbour were missed, %d are, whose other link speaks", most.Load(), missed.Load())
		}
	})
}
