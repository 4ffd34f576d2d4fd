package gossip

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// A node that starts while half of its cluster is cut off knows by the records
// that its neighbours hold who belongs to it: the brake is on for it too.
func TestBrakeOfANodeThatStartsBehindACut(t *testing.T) {
	b := newBench()
	var ps []Peer
	for i, id := range b.ids {
		ps = append(ps, Peer{ID: id, Name: "p", Life: b.life, Routed: i < 3, Neighbours: b.ids, Said: b.now.Add(-5 * time.Minute)})
	}
	b.core = newCore(b.self)
	b.do(evPeers{ps})
	for _, w := range b.ids[:3] {
		b.do(evLink{peer: w, up: true})
		for _, s := range b.ids[3:] {
			b.do(evClaim{witness: w, subject: s, kind: kindSilent, life: b.life, expires: b.now.Add(claimTTL)})
		}
	}
	b.after(contradictIn + 100*time.Millisecond)
	if br := b.brake(b.now); !br.On || br.Unreachable != 2 || br.Of != 6 {
		t.Errorf("two of six are cut off: %+v", br)
	}
}

// The brake is the share of the last stable membership that is unreachable now:
// more than 30 % of five or more. Who left, is dead, hung or new does not count.
func TestBrakeRule(t *testing.T) {
	fleet := func(n int) *bench {
		b := newBench()
		b.ids = nil
		for i := range n - 1 {
			b.ids = append(b.ids, testID(i+1))
		}
		b.core = newCore(b.self)
		b.certify(b.life, false)
		for _, id := range b.ids {
			b.do(evLink{peer: id, up: true})
		}
		b.after(stableAfter + time.Second)
		return b
	}
	gone := func(b *bench, who ...int) {
		for _, i := range who {
			b.do(evLink{peer: b.ids[i], lost: true})
			life := b.peers[b.ids[i]].Life
			for w := range b.ids {
				if w != i {
					b.do(evClaim{witness: b.ids[w], subject: b.ids[i], kind: kindSilent, life: life, expires: b.now.Add(time.Hour)})
				}
			}
		}
		b.after(2 * time.Second)
		for _, i := range who {
			b.do(evBurst{peer: b.ids[i]})
		}
		b.after(100 * time.Millisecond)
	}
	word := func(b *bench, i int, w DoorWord) {
		b.do(evLink{peer: b.ids[i], lost: true})
		w.NodeLife = b.peers[b.ids[i]].Life
		b.do(evKnock{peer: b.ids[i], word: w})
		b.after(100 * time.Millisecond)
	}
	cases := []struct {
		name string
		of   int
		do   func(b *bench)
		want bool
	}{
		{"all well", 10, func(*bench) {}, false},
		{"3 of 10 are 30 %", 10, func(b *bench) { gone(b, 0, 1, 2) }, false},
		{"4 of 10", 10, func(b *bench) { gone(b, 0, 1, 2, 3) }, true},
		{"2 of 5", 5, func(b *bench) { gone(b, 0, 1) }, true},
		{"1 of 5", 5, func(b *bench) { gone(b, 0) }, false},
		{"3 of 4: too few to say", 4, func(b *bench) { gone(b, 0, 1, 2) }, false},
		{"5 of 10 process-dead", 10, func(b *bench) {
			for i := range 5 {
				word(b, i, DoorWord{ExecAlive: true})
			}
		}, false},
		{"5 of 10 hung", 10, func(b *bench) {
			for i := range 5 {
				word(b, i, DoorWord{ExecAlive: true, NodeAlive: true, NodeState: "frozen"})
			}
		}, false},
		{"3 gone and 2 process-dead of 10", 10, func(b *bench) {
			gone(b, 0, 1, 2)
			for i := 3; i < 5; i++ {
				word(b, i, DoorWord{ExecAlive: true})
			}
		}, false},
		{"two left before two of the other five went", 7, func(b *bench) {
			var ps []Peer
			for i, id := range b.ids {
				ps = append(ps, Peer{ID: id, Name: "p", Life: b.peers[id].Life, Neighbours: append([]peer.ID{b.self}, b.ids...), Routed: true, Left: i >= 4})
			}
			b.do(evPeers{ps})
			gone(b, 0, 1)
		}, true},
		{"two ephemeral ones before two of the other five went", 7, func(b *bench) {
			var ps []Peer
			for i, id := range b.ids {
				ps = append(ps, Peer{ID: id, Name: "p", Life: b.peers[id].Life, Neighbours: append([]peer.ID{b.self}, b.ids...), Routed: true, Ephemeral: i >= 4})
			}
			b.do(evPeers{ps})
			gone(b, 4, 5)
			if br := b.brake(b.now); br.On || br.Of != 5 || br.Unreachable != 0 {
				panic("ephemeral ones count")
			}
			gone(b, 0, 1)
		}, true},
		{"on, and off again when they are back", 10, func(b *bench) {
			gone(b, 0, 1, 2, 3)
			if !b.brake(b.now).On {
				panic("not on")
			}
			for i := range 4 {
				b.do(evLink{peer: b.ids[i], up: true})
			}
			b.after(100 * time.Millisecond)
		}, false},
		{"gone for more than a day", 10, func(b *bench) {
			gone(b, 0, 1, 2, 3)
			b.now = b.now.Add(25 * time.Hour)
			for i := 4; i < 9; i++ {
				b.do(evHeard{b.ids[i]})
			}
			b.after(200 * time.Millisecond)
		}, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := fleet(c.of)
			c.do(b)
			if br := b.brake(b.now); br.On != c.want {
				for _, id := range b.ids {
					t.Logf("%s %s", id, b.peers[id].verdict)
				}
				t.Errorf("brake %+v, want on=%v", br, c.want)
			}
		})
	}
}
