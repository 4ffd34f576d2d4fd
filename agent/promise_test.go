package agent

import (
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// census of truth: what an observer who sees every host notes of visits.
type visits struct {
	f      *fleet
	slo    time.Duration
	at     map[peer.ID]time.Time // last visit, or since when the node could be visited
	kept   int
	late   int
	worst  time.Duration
	counts func(peer.ID) bool
}

func watchVisits(f *fleet, slo time.Duration) *visits {
	v := &visits{f: f, slo: slo, at: map[peer.ID]time.Time{}, counts: func(peer.ID) bool { return true }}
	f.visited = func(n *simNode) {
		at, known := v.at[n.id]
		v.at[n.id] = f.now
		if !known || !v.counts(n.id) {
			return
		}
		gap := f.now.Sub(at)
		v.worst = max(v.worst, gap)
		if gap > slo {
			v.late++
		} else {
			v.kept++
		}
	}
	return v
}

// reset begins anew: visits from now on count.
func (v *visits) reset() { v.kept, v.late, v.worst = 0, 0, 0 }

// An order for four nodes of a ring, six links apart: the reckoned population walks
// too far to keep its promise. It grows by what is measured until it does; when
// links make the way short it shrinks again, slowly, and keeps the promise.
func TestPopulationFollowsTheMeasuredGap(t *testing.T) {
	const slo = 4 * time.Second
	seeds(t, 2, func(start func(int, int) *fleet, seed uint64) {
		f := start(24, 2)
		site := map[peer.ID]bool{}
		for i := 0; i < 24; i += 6 {
			site[f.ids[i]] = true
		}
		f.labels = func(id peer.ID) map[string]string {
			return map[string]string{"site": map[bool]string{true: "a"}[site[id]]}
		}
		v := watchVisits(f, slo)
		v.counts = func(id peer.ID) bool { return site[id] }
		f.order(Order{ID: "o-1", SLO: slo, Confidence: 0.9, Labels: map[string]string{"site": "a"}})
		f.run(4 * time.Second)
		c := f.nodes[f.ids[9]].core
		o := c.orders["o-1"]
		reckoned := c.wants(o)
		f.run(2 * time.Minute)
		grown, broken := f.agentsOf("o-1"), v.late
		v.reset()
		f.run(5 * time.Minute)
		if broken == 0 || grown <= reckoned {
			t.Errorf("seed %d: %d broken promises, %d agents of %d reckoned: this shows nothing", seed, broken, grown, reckoned)
		}
		if v.late*10 > v.kept {
			t.Errorf("seed %d: with %d agents %d of %d visits were late, worst gap %s", seed, grown, v.late, v.late+v.kept, v.worst)
		}
		told := c.ordersNow()[0]
		if told.WorstHour < slo || told.Visits == 0 || told.Late == 0 || told.Late > told.Visits/4 || told.Agents != c.wants(o) {
			t.Errorf("seed %d: people are told %+v", seed, told)
		}
		for i := 0; i < 24; i += 6 {
			for j := 0; j < i; j += 6 {
				f.link(i, j)
			}
		}
		f.run(20 * time.Second)
		v.reset()
		f.run(5 * time.Minute)
		if shrunk := f.agentsOf("o-1"); shrunk >= grown || v.late*10 > v.kept {
			t.Errorf("seed %d: %d agents of %d are left where the way is short; %d of %d visits late", seed, shrunk, grown, v.late, v.late+v.kept)
		}
		t.Logf("seed %d: %d agents reckoned, %d after %d late visits, %d once the way was short; then worst gap %s", seed, reckoned, grown, broken, f.agentsOf("o-1"), v.worst)
	})
}

// An hour in which nodes die with the agents on them, new ones join and old ones
// leave: the promise is kept for the share of visits that was asked for, by a
// population that stays in bounds.
func TestPromiseIsKeptForAnHour(t *testing.T) {
	const slo, confidence = 12 * time.Second, 0.99
	seeds(t, 1, func(start func(int, int) *fleet, seed uint64) {
		f := start(16, 4)
		away := slices.Clone(f.ids[12:])
		for _, id := range away {
			f.leave(id)
		}
		f.launch(slo, confidence)
		f.run(15 * time.Second)
		v := watchVisits(f, slo)
		least, most, deaths, moves := 1<<10, 0, 0, 0
		for end := f.now.Add(time.Hour); f.now.Before(end); {
			f.run(10 * time.Second)
			for id := range v.at { // what no chain of links reaches cannot be visited either
				if _, ok := f.distances(f.ids[0])[id]; !ok {
					delete(v.at, id)
				}
			}
			if seed == 1 {
			}
			switch k := f.rng.IntN(6); {
			case k < 2:
				n := f.nodes[f.ids[f.rng.IntN(len(f.ids))]]
				delete(v.at, n.id) // who is dead cannot be visited
				f.kill(n)
				deaths++
			case k == 2 && len(f.ids) > 10:
				away = append(away, f.ids[f.rng.IntN(len(f.ids))])
				f.leave(away[len(away)-1])
				delete(v.at, away[len(away)-1])
				moves++
			case k == 3 && len(away) > 0:
				f.ids = append(f.ids, away[0])
				v.at[away[0]] = f.now
				f.boot(f.nodes[away[0]])
				away = away[1:]
				moves++
			}
			least, most = min(least, f.population()), max(most, f.population())
		}
		all := v.kept + v.late
		if share := float64(v.kept) / float64(all); share < confidence || all < 5000 {
			t.Errorf("seed %d: %d of %d visits within %s, which is %.4f: %g was promised; worst gap %s", seed, v.kept, all, slo, share, confidence, v.worst)
		}
		if most > 12 || deaths < 60 || moves < 60 {
			t.Errorf("seed %d: %d to %d agents on 10 to 16 nodes; %d deaths, %d joins and departures", seed, least, most, deaths, moves)
		}
		t.Logf("seed %d: %d visits, %d late, worst gap %s; %d to %d agents; %d deaths, %d joins and departures", seed, all, v.late, v.worst, least, most, deaths, moves)
	})
}

// leave takes a node out of the fleet, in good order.
func (f *fleet) leave(id peer.ID) {
	f.nodes[id].core = nil
	f.ids = slices.DeleteFunc(slices.Clone(f.ids), func(x peer.ID) bool { return x == id })
	delete(f.dead, id)
	delete(f.records, "stamp//"+string(id)+"/")
	f.believe()
}

// What a node tells of its promise: hours, by minutes; the dead are not waited for.
func TestWorstOfHour(t *testing.T) {
	var w worstOfHour
	now := time.Unix(1_700_000_000, 0)
	w.note(now, 5*time.Second)
	w.note(now.Add(30*time.Minute), 3*time.Second)
	if got := w.max(); got != 5*time.Second {
		t.Errorf("worst is %s after half an hour, want 5s", got)
	}
	w.note(now.Add(65*time.Minute), time.Second)
	if got := w.max(); got != 3*time.Second {
		t.Errorf("worst is %s after 65 minutes, want 3s", got)
	}
	w.note(now.Add(10*time.Hour), time.Second)
	if got := w.max(); got != time.Second {
		t.Errorf("worst is %s after a night, want 1s", got)
	}
}
