package agent

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"p2pnode"

	"github.com/libp2p/go-libp2p/core/peer"
)

// seeds runs a story under n seeds, side by side. P2PNODE_SEEDS makes n so many
// times as large (`make seeds`), P2PNODE_SEED runs one alone.
func seeds(t *testing.T, n int, story func(f func(nodes, degree int) *fleet, seed uint64)) {
	t.Helper()
	first, last := uint64(0), uint64(n)
	if times, err := strconv.Atoi(os.Getenv("P2PNODE_SEEDS")); err == nil {
		last *= uint64(times)
	}
	if one, err := strconv.ParseUint(os.Getenv("P2PNODE_SEED"), 10, 64); err == nil {
		first, last = one, one+1
	}
	next := make(chan uint64)
	var work sync.WaitGroup
	for range 2 {
		work.Go(func() {
			for seed := range next {
				story(func(nodes, degree int) *fleet { return newFleet(t, seed, nodes, degree) }, seed)
			}
		})
	}
	for seed := first; seed < last && !t.Failed(); seed++ {
		next <- seed
	}
	close(next)
	work.Wait()
	t.Logf("seeds %d to %d", first, last-1)
}

type fault struct {
	id   peer.ID
	life p2pnode.Life
}

// TestCarriersDie: a tenth of the steps of a mission kill the carrier, messages
// are lost and come twice; still nothing is lost and nothing done twice.
func TestCarriersDie(t *testing.T) {
	seeds(t, 120, func(start func(int, int) *fleet, seed uint64) {
		f := start(6+int(seed%8), 3)
		f.loss, f.dup = 0.05, 0.1
		f.launch(4*time.Second, 0.9)
		f.run(3 * time.Second)
		var faults []fault
		f.killOn = func(f *fleet, n *simNode, fx effect) bool {
			switch fx.(type) {
			case fxHand, fxKnock, fxRecover, fxReport:
				if len(f.dead) < 2 && len(faults) < 6 && f.rng.Float64() < 0.1 {
					faults = append(faults, fault{n.id, n.life})
					return true
				}
			}
			return false
		}
		target := f.nodes[f.ids[f.rng.IntN(len(f.ids))]]
		faults = append(faults, fault{target.id, target.life})
		f.kill(target)
		f.run(8 * time.Second)
		f.killOn = nil
		if !f.until(20*time.Second, func() bool { return len(f.dead) == 0 }) {
			t.Errorf("seed %d: %d still dead", seed, len(f.dead))
			return
		}
		f.run(8 * time.Second)
		for _, x := range faults {
			f.checkIncident(seed, x.id, x.life)
		}
	})
}

// steps of a mission at which its carrier may die.
var steps = map[string]func(fx effect) bool{
	"hop":     is[fxHand],
	"knock":   is[fxKnock],
	"act":     is[fxRecover],
	"claim":   func(fx effect) bool { p, ok := fx.(fxPublish); return ok && p.domain == p2pnode.DomainClaim },
	"report":  is[fxReport],
	"history": is[fxHistory], // a hop or a claim was written down
}

func is[T any](fx effect) bool { _, ok := fx.(T); return ok }

// Row 16: the carrier dies before or after each step of its mission, the first,
// second and third time that it makes it. The target is back within three seconds,
// three times what a mission may take; once; and both stories are told to the end.
func TestCarrierDiesAtEachStep(t *testing.T) {
	var mu sync.Mutex
	worst := map[string]time.Duration{}
	kills := 0
	seeds(t, 12, func(start func(int, int) *fleet, seed uint64) {
		for name, at := range steps {
			for _, after := range []bool{false, true} {
				for nth := 1; nth <= 3; nth++ {
					f := start(7, 3)
					f.launch(4*time.Second, 0.9)
					f.run(3 * time.Second)
					target := f.nodes[f.ids[f.rng.IntN(len(f.ids))]]
					faults := []fault{{target.id, target.life}}
					seen := 0
					kill := func(f *fleet, n *simNode, fx effect) bool {
						if n == target || len(faults) > 1 || !at(fx) || !f.carries(n, target.id) {
							return false
						}
						if seen++; seen != nth {
							return false
						}
						faults = append(faults, fault{n.id, n.life})
						return true
					}
					if after {
						f.killAfter = kill
					} else {
						f.killOn = kill
					}
					began := f.now
					f.kill(target)
					what := fmt.Sprintf("seed %d: carrier killed at %s %d, after %v", seed, name, nth, after)
					if !f.until(20*time.Second, func() bool { return len(f.dead) == 0 }) {
						t.Errorf("%s: %d still dead", what, len(f.dead))
						continue
					}
					took := f.now.Sub(began)
					f.run(16 * time.Second)
					for _, x := range faults {
						f.checkIncident(seed, x.id, x.life)
						incident := p2pnode.IncidentID(x.id.String(), "", x.life.String())
						if i, ok := f.folded(incident); !ok || i.State != p2pnode.IncidentRecovered {
							t.Errorf("%s: the story of %s is %s", what, p2pnode.ShortID(x.id), i.State)
						}
					}
					mu.Lock()
					worst[name] = max(worst[name], took)
					kills += len(faults) - 1
					mu.Unlock()
					if took > 3*time.Second {
						t.Errorf("%s: all back after %s", what, took)
					}
				}
			}
		}
	})
	t.Logf("%d carriers killed; slowest until all were back, by step: %v", kills, worst)
	if kills == 0 {
		t.Error("no carrier was killed: this shows nothing")
	}
}

// carries reports whether an agent on n is on its way to target.
func (f *fleet) carries(n *simNode, target peer.ID) bool {
	if n.core == nil {
		return false
	}
	for _, h := range n.core.held {
		if h.mission != nil && h.mission.target == target {
			return true
		}
	}
	return false
}

// Row 15: twenty agents go for one node process at once, since no claim or stamp reaches
// anybody: exactly one restart, and the others find it done.
func TestTwentyAgentsAtOnce(t *testing.T) {
	most := 0
	var mu sync.Mutex
	seeds(t, 40, func(start func(int, int) *fleet, seed uint64) {
		f := start(21, 4)
		f.lossOf = map[p2pnode.Domain]float64{p2pnode.DomainClaim: 1, p2pnode.DomainStamp: 1}
		f.run(time.Second)
		target := f.nodes[f.ids[20]]
		for i, id := range f.ids {
			f.link(20, i) // all stand before its door
			if n := f.nodes[id]; n != target {
				n.core.now = f.now
				n.core.takeOrder(Order{ID: "o-1", SLO: time.Hour, Confidence: 0.5, At: f.now})
				n.core.spawn("o-1", patrolTTL, time.Hour)
				n.core.census = map[string]sighting{} // each knows of its own agent only: rank 0 everywhere
				for id, h := range n.core.held {
					n.core.census[id] = sighting{present: n.core.present(h), at: n.id, heard: f.now}
				}
			}
		}
		life := target.life
		f.kill(target)
		f.run(10 * time.Second)
		f.checkIncident(seed, target.id, life)
		mu.Lock()
		most = max(most, f.asked)
		mu.Unlock()
	})
	t.Logf("up to %d requests for one restart", most)
	if most < 10 {
		t.Errorf("at most %d agents asked at once: this shows nothing", most)
	}
}

// Where no agent is known, whoever is nearest makes one at once. Who knows no way, as a
// node that has just started, waits until those who may know one were silent, and then
// goes as well.
func TestWhoKnowsNoWayLetsOthersGoFirst(t *testing.T) {
	for name, neighbours := range map[string]int{"no way": 0, "beside it": 2} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, 1, 3, 2)
			dead := f.nodes[f.ids[2]]
			f.edges[dead.id] = f.edges[dead.id][:neighbours]
			core := newCore(f.nodes[f.ids[0]].core.cfg, f.now)
			peers := map[peer.ID]Belief{dead.id: {Verdict: p2pnode.ProcessDead, Life: dead.life}}
			for _, id := range f.ids[:2] {
				peers[id] = Belief{Verdict: p2pnode.Alive, Life: f.nodes[id].life}
			}
			went := func(after time.Duration, ev event) bool {
				for _, fx := range core.Step(f.now.Add(after), ev) {
					if h, ok := fx.(fxHistory); ok && h.Event == p2pnode.HistClaimed {
						return true
					}
				}
				return false
			}
			soon := went(0, evBeliefs{Beliefs{Peers: peers}}) || went(rankStep, evTick{})
			if soon != (neighbours > 0) {
				t.Errorf("within a rank's step: somebody sent %v, want %v", soon, neighbours > 0)
			}
			if late := (silentRanks + 1) * rankStep; !soon && !went(late, evTick{}) {
				t.Errorf("nobody sent after %s", late)
			}
		})
	}
}

// Ranks go by stamps that are old or never came, handoffs come twice, ACKs and
// answers are lost, so that two hosts hold one agent: no mission is lost, and each
// failure has one restart.
func TestStaleRanksAndTwoHolders(t *testing.T) {
	seeds(t, 60, func(start func(int, int) *fleet, seed uint64) {
		f := start(6+int(seed%7), 3)
		f.loss, f.dup = 0.3, 0.5
		f.lossOf = map[p2pnode.Domain]float64{p2pnode.DomainStamp: 0.8}
		f.launch(4*time.Second, 0.9)
		f.run(4 * time.Second)
		var faults []fault
		for range 2 {
			n := f.nodes[f.ids[f.rng.IntN(len(f.ids))]]
			if n.core == nil {
				continue
			}
			faults = append(faults, fault{n.id, n.life})
			f.kill(n)
		}
		if !f.until(25*time.Second, func() bool { return len(f.dead) == 0 }) {
			t.Errorf("seed %d: %d still dead", seed, len(f.dead))
			return
		}
		f.run(16 * time.Second)
		for _, x := range faults {
			f.checkIncident(seed, x.id, x.life)
		}
	})
}

// Whatever claims come in whatever order, two nodes that heard the same ones agree
// on whose is the best, if they hold any.
func TestClaimsConverge(t *testing.T) {
	seeds(t, 300, func(start func(int, int) *fleet, _ uint64) {
		f := start(3, 2)
		target := f.ids[2]
		var claims []claim
		for i := range 6 {
			claims = append(claims, claim{
				failure: failureOf(target, "", "1-1", p2pnode.ClassProcessDead), attempt: f.rng.IntN(3),
				agent: fmt.Sprint("a-", i), phase: []claimPhase{phaseTravel, phaseAct, phaseSettle}[f.rng.IntN(3)], lease: claimLease,
			})
		}
		best := func() string {
			c := newCore(f.nodes[f.ids[0]].core.cfg, f.now)
			c.now = f.now
			f.rng.Shuffle(len(claims), func(i, j int) { claims[i], claims[j] = claims[j], claims[i] })
			for _, cl := range claims {
				c.onClaim(f.ids[1], cl)
			}
			w := c.watches[claims[0].incident]
			return fmt.Sprint(w.best.agent, "/", w.best.attempt)
		}
		first := best()
		for range 5 {
			if next := best(); next != first {
				t.Fatalf("%s or %s, by the order in which %v came", first, next, claims)
			}
		}
	})
}
