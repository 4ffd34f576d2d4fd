package agent

import (
	"slices"
	"testing"
	"time"

	"p2pnode"

	"github.com/libp2p/go-libp2p/core/peer"
)

// checkIncident: one failure, one restart, and a story that fits the topology.
func (f *fleet) checkIncident(seed uint64, target peer.ID, life p2pnode.Life) {
	f.t.Helper()
	incident := p2pnode.IncidentID(target.String(), "", life.String())
	got := f.phases(incident)
	if n := f.nodes[target].restarts[life.String()]; n != 1 {
		f.t.Errorf("seed %d: %d restarts of one life, want 1", seed, n)
	}
	if len(got[p2pnode.PhaseActed]) == 0 {
		f.t.Errorf("seed %d: nobody reports acted: %v", seed, got)
	}
	for _, r := range got[p2pnode.PhaseActed] {
		f.checkTrail(seed, r)
	}
}

func (f *fleet) checkTrail(seed uint64, r p2pnode.Report) {
	f.t.Helper()
	if len(r.Trail) == 1 {
		return // told by the node itself
	}
	byName := map[string]peer.ID{}
	for _, id := range f.ids {
		byName[id.String()] = id
	}
	if r.Trail[len(r.Trail)-1] != r.Node || (!r.Direct && r.Hops != len(r.Trail)-2) {
		f.t.Errorf("seed %d: hops %d do not fit trail of %d", seed, r.Hops, len(r.Trail))
	}
	for i := 1; i < len(r.Trail); i++ {
		a, b := byName[r.Trail[i-1]], byName[r.Trail[i]]
		if !slices.Contains(f.edges[a], b) && !(r.Direct && i == len(r.Trail)-1) {
			f.t.Errorf("seed %d: the trail jumps from %s to %s", seed, p2pnode.ShortID(a), p2pnode.ShortID(b))
		}
	}
}

// TestMissions: whatever the topology, a dead node process comes back once and
// its story is told to the end, with agents on patrol and without.
func TestMissions(t *testing.T) {
	for seed := range uint64(60) {
		f := newFleet(t, seed, 4+int(seed%9), 2+int(seed%3))
		if seed%4 != 0 {
			f.launch(4*time.Second, 0.9)
		}
		f.run(3 * time.Second)
		target := f.nodes[f.ids[f.rng.IntN(len(f.ids))]]
		life := target.life
		killed := f.now
		f.kill(target)
		if !f.until(3*time.Second, func() bool { return target.core != nil }) {
			t.Errorf("seed %d: not back in %s", seed, f.now.Sub(killed))
			continue
		}
		if took := f.now.Sub(killed); took > time.Second {
			t.Errorf("seed %d: back after %s without any other fault", seed, took)
		}
		f.run(4 * time.Second)
		f.checkIncident(seed, target.id, life)
		got := f.phases(p2pnode.IncidentID(target.id.String(), "", life.String()))
		if len(got[p2pnode.PhaseActed]) != 1 || len(got[p2pnode.PhaseVerified]) != 1 {
			t.Errorf("seed %d: %d acted and %d verified, want one each", seed, len(got[p2pnode.PhaseActed]), len(got[p2pnode.PhaseVerified]))
		}
	}
}

// TestPopulationHolds: agents come without being sent, are replaced when nodes
// die, retire when there are too many or the order is recalled, and no node
// waits longer than the service level once they walk.
func TestPopulationHolds(t *testing.T) {
	for seed := range uint64(8) {
		f := newFleet(t, seed, 12, 4)
		f.launch(6*time.Second, 0.99)
		f.run(15 * time.Second)
		c := f.nodes[f.ids[3]].core
		want := c.wants(c.orders["o-1"])
		if got := f.population(); got < want || want < 2 {
			t.Errorf("seed %d: %d agents, want %d", seed, got, want)
		}
		var worst time.Duration
		for range 300 {
			f.run(100 * time.Millisecond)
			for _, id := range f.ids {
				worst = max(worst, f.now.Sub(c.lastVisit(id)))
			}
		}
		if worst > 6*time.Second {
			t.Errorf("seed %d: a node waited %s for a visit", seed, worst)
		}
		for range 3 {
			f.kill(f.nodes[f.ids[f.rng.IntN(len(f.ids))]])
			f.run(time.Second)
		}
		f.run(20 * time.Second)
		if got, want := f.population(), f.wanted("o-1"); got < want || got > want+1 {
			t.Errorf("seed %d: %d agents after deaths, want %d", seed, got, want)
		}
		t.Logf("seed %d: %d agents, worst gap %s", seed, want, worst)
		body, err := EncodeOrder(Order{ID: "o-1", Recalled: true, At: f.now})
		if err != nil {
			t.Fatal(err)
		}
		r := p2pnode.Record{Domain: p2pnode.DomainOrder, Signer: f.ids[5], Key: "o-1", Body: body}
		for _, id := range f.ids {
			f.send(id, f.lag(), evRecord{r})
		}
		f.run(5 * time.Second)
		if got := f.population(); got != 0 {
			t.Errorf("seed %d: %d agents after the recall", seed, got)
		}
	}
}
