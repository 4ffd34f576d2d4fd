package agent

import (
	"fmt"
	"testing"
	"time"

	"p2pnode"
)

// flood1 lets one member send everybody ten times what a fleet has, for a second:
// agents of a real order and of none, claims of failures that nobody saw, stamps full of
// agents that are nowhere, orders without end.
func (f *fleet) flood1(liar *simNode) {
	for i := range 500 {
		after := time.Duration(i) * 2 * time.Millisecond
		for _, id := range f.ids {
			if id == liar.id {
				continue
			}
			for k := range 3 {
				t := &traveller{
					id: fmt.Sprintf("a-%04x%02x", i, k), order: []string{"o-1", "o-none", ""}[k], hop: 1, hopsLeft: patrolHops,
					born: f.now, expires: f.now.Add(time.Hour), slo: time.Second,
				}
				f.send(id, after, evArrive{t, liar.id, 0})
			}
			cl := claim{failure: failureOf(f.ids[i%len(f.ids)], "", fmt.Sprintf("9-%x", i), p2pnode.ClassProcessDead), agent: "a-x", phase: phaseTravel, lease: time.Hour}
			body, err := encodeClaim(cl)
			if err != nil {
				f.t.Fatal(err)
			}
			f.send(id, after, evRecord{p2pnode.Record{Domain: p2pnode.DomainClaim, Signer: liar.id, Key: cl.incident, Body: body}})
			s := stamp{at: f.now.Add(after)}
			for k := range maxPresent {
				s.agents = append(s.agents, present{id: fmt.Sprintf("a-%d-%d", i, k), kind: kindPatrol, order: "o-1", hop: 1})
			}
			if body, err = encodeStamp(f.now, s); err != nil {
				f.t.Fatal(err)
			}
			f.send(id, after, evRecord{p2pnode.Record{Domain: p2pnode.DomainStamp, Signer: liar.id, Body: body}})
			o := Order{ID: fmt.Sprintf("o-flood-%d", i), SLO: time.Second, Confidence: 0.9, At: f.now}
			if body, err = EncodeOrder(o); err != nil {
				f.t.Fatal(err)
			}
			f.send(id, after, evRecord{p2pnode.Record{Domain: p2pnode.DomainOrder, Signer: liar.id, Key: o.ID, Body: body}})
		}
	}
}

// Row 17: one member floods its neighbours and the fleet with agents, claims, stamps and
// orders. What it sends is refused at quotas, each counted by its reason; nobody's tables
// grow over their limits; a node process that dies in the middle of it is back as if
// nothing were; and agents of others are still taken.
func TestFlood(t *testing.T) {
	seeds(t, 1, func(start func(int, int) *fleet, seed uint64) {
		f := start(8, 4)
		f.counts = map[string]int{}
		for i := 1; i < 8; i++ {
			f.link(0, i)
		}
		f.launch(4*time.Second, 0.9)
		f.run(5 * time.Second)
		f.flood1(f.nodes[f.ids[0]])
		f.run(500 * time.Millisecond)
		target := f.nodes[f.ids[3]]
		life, killed := target.life, f.now
		f.kill(target)
		if !f.until(1500*time.Millisecond, func() bool { return target.core != nil }) {
			t.Errorf("seed %d: not back in %s during the flood", seed, f.now.Sub(killed))
		}
		back := f.now.Sub(killed)
		f.run(500 * time.Millisecond)
		for _, id := range f.ids[1:] {
			c := f.nodes[id].core
			if c == nil {
				continue
			}
			named := 0
			for _, w := range c.watches {
				if !w.believed && w.by == f.ids[0] {
					named++
				}
			}
			if len(c.held) > maxHeldFrom+16 || len(c.seen) > maxSeenFrom+64 || named > maxClaimedBy || len(c.census) > maxCensus || len(c.orders) > maxOrders || len(c.stories) > maxStories {
				t.Errorf("seed %d: %d agents here, %d seen, %d failures named, %d in the census, %d orders", seed, len(c.held), len(c.seen), named, len(c.census), len(c.orders))
			}
		}
		for _, what := range []string{"handoff-flood", "handoff-unknown-order", "claim-flood", "orders-full"} {
			if f.counts[what] == 0 {
				t.Errorf("seed %d: nothing is counted as %s: %v", seed, what, f.counts)
			}
		}
		honest := &traveller{id: "a-honest", order: "o-1", hop: 1, hopsLeft: patrolHops, born: f.now, expires: f.now.Add(time.Minute), slo: 4 * time.Second}
		c := f.nodes[f.ids[5]].core
		c.Step(f.now, evArrive{honest, f.ids[6], 0})
		if c.held["a-honest"] == nil && c.seen["a-honest"].from != f.ids[6] {
			t.Errorf("seed %d: another neighbour's agent is refused as well", seed)
		}
		f.run(10 * time.Second)
		f.checkIncident(seed, target.id, life)
		t.Logf("seed %d: back after %s during the flood; refused %d agents, %d of no order, %d claims, %d orders", seed, back,
			f.counts["handoff-flood"], f.counts["handoff-unknown-order"], f.counts["claim-flood"], f.counts["orders-full"])
	})
}
