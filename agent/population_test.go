package agent

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Two orders at once, one of them for the nodes of one site only: each has its
// agents, the agents of the second go to that site alone, both service levels hold
// while nodes die and come back, and the recall of one leaves the other.
func TestTwoOrders(t *testing.T) {
	seeds(t, 6, func(start func(int, int) *fleet, seed uint64) {
		f := start(12, 4)
		site := map[peer.ID]bool{}
		for _, id := range f.ids[:5] {
			site[id] = true
		}
		f.labels = func(id peer.ID) map[string]string {
			if site[id] {
				return map[string]string{"site": "a"}
			}
			return map[string]string{"site": "b"}
		}
		f.order(Order{ID: "o-all", SLO: 8 * time.Second, Confidence: 0.9})
		f.order(Order{ID: "o-site", SLO: 4 * time.Second, Confidence: 0.9, Labels: map[string]string{"site": "a"}})
		f.run(15 * time.Second)
		c := f.nodes[f.ids[7]].core
		worst := map[bool]time.Duration{}
		watch := func(d time.Duration) {
			for end := f.now.Add(d); f.now.Before(end); f.run(100 * time.Millisecond) {
				for _, id := range f.ids {
					if _, dead := f.dead[id]; !dead && c == f.nodes[f.ids[7]].core {
						worst[site[id]] = max(worst[site[id]], f.now.Sub(c.lastVisit(id)))
					}
				}
				for _, id := range f.ids {
					n := f.nodes[id]
					if n.core == nil {
						continue
					}
					for _, h := range n.core.held {
						if h.order == "o-site" && h.goal != "" && h.mission == nil && !site[h.goal] {
							t.Errorf("seed %d: an agent of one site heads for another", seed)
						}
					}
				}
			}
		}
		watch(20 * time.Second)
		f.kill(f.nodes[f.ids[2]])
		watch(5 * time.Second)
		f.kill(f.nodes[f.ids[9]])
		watch(20 * time.Second)
		wantAll, wantSite := f.wanted("o-all"), f.wanted("o-site") // fewer by now, where few are enough
		if a, s := f.agentsOf("o-all"), f.agentsOf("o-site"); a < wantAll || s < wantSite {
			t.Errorf("seed %d: %d and %d agents, want %d and %d", seed, a, s, wantAll, wantSite)
		}
		if worst[true] > 4*time.Second || worst[false] > 8*time.Second {
			t.Errorf("seed %d: worst gaps %v on the site, %v elsewhere: the orders say 4 s and 8 s", seed, worst[true], worst[false])
		}
		t.Logf("seed %d: %d and %d agents; worst gaps %v on the site, %v elsewhere", seed, wantAll, wantSite, worst[true], worst[false])
		f.order(Order{ID: "o-site", Recalled: true})
		f.run(6 * time.Second)
		if a, s := f.agentsOf("o-all"), f.agentsOf("o-site"); a == 0 || s != 0 {
			t.Errorf("seed %d: after the recall of one order %d and %d agents", seed, a, s)
		}
	})
}
