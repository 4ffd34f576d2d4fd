package agent

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// population is a standing order as this node follows it.
type population struct {
	order     Order
	need      int           // agents that are needed by the measured gap, 0 before anything was measured,
	nodes     int           // on so many nodes
	gap       time.Duration // the longest that a node waits now
	began     time.Time     // this node knows of it
	quietAt   time.Time     // last look at it
	shortFrom time.Time     // fewer than wanted since
	overFrom  time.Time     // more than wanted since
	promise
}

// takeOrder keeps the newest word on an order; a recall is for good.
func (c *core) takeOrder(o Order) {
	if _, gone := c.recalls[o.ID]; gone {
		return
	}
	if o.Recalled {
		c.recalls[o.ID] = c.now
		delete(c.orders, o.ID)
		c.emit(fxChanged{})
		return
	}
	if old, ok := c.orders[o.ID]; ok {
		if o.At.After(old.order.At) {
			old.order = o
		}
		return
	}
	if len(c.orders) >= maxOrders {
		c.count("orders-full")
		return
	}
	c.orders[o.ID] = &population{order: o, began: c.now, quietAt: c.now}
	c.censusAt = c.now
	c.emit(fxChanged{})
}

// knownOrder reports whether an order stands, or did.
func (c *core) knownOrder(id string) bool {
	_, stands := c.orders[id]
	_, recalled := c.recalls[id]
	return stands || recalled
}

// scope are the members that an order is about.
func (c *core) scope(order string) []peer.ID {
	members := c.cfg.Links.Members()
	p, ok := c.orders[order]
	if !ok || len(p.order.Labels) == 0 {
		return members
	}
	return slices.DeleteFunc(slices.Clone(members), func(id peer.ID) bool { return !c.covers(&p.order, id) })
}

// covers reports whether an order is about a member.
func (c *core) covers(o *Order, id peer.ID) bool {
	if len(o.Labels) == 0 {
		return true
	}
	have := c.cfg.Labels(id)
	for k, v := range o.Labels {
		if have[k] != v {
			return false
		}
	}
	return true
}

// wants is the size of a population: as many as are needed, and on top as many as it
// takes that, with one in ten lost at any moment, enough are left with the asked
// confidence.
func (c *core) wants(p *population) int {
	n := c.covered(p)
	if n == 0 {
		return 0
	}
	need, spare := c.needed(p), 0
	for spare < need+8 && atLeast(need, need+spare) < p.order.Confidence {
		spare++
	}
	return min(need+spare, n, maxPopulation)
}

// covered counts the nodes that an order's agents can visit.
func (c *core) covered(p *population) (n int) {
	for _, id := range c.scope(p.order.ID) {
		if c.usable(id) {
			n++
		}
	}
	return n
}

// needed is how many agents must be walking at any moment: the median of what all
// nodes say, since a node that measured something else than the others would make
// agents that the others retire.
func (c *core) needed(p *population) int {
	said := []int{c.ownNeed(p)}
	for _, needs := range c.needs {
		for _, n := range needs {
			if n.order == p.order.ID {
				said = append(said, n.agents)
			}
		}
	}
	slices.Sort(said)
	return said[len(said)/2]
}

// ownNeed is this node's own word: what it measured, else what all nodes reckon alike:
// with k agents on n nodes and h per hop the worst gap is about 1.8 n*h/k; 2 is taken.
func (c *core) ownNeed(p *population) int {
	n := float64(c.covered(p))
	need := math.Ceil(2 * n * (c.stay(p.order.SLO) + hopAlone).Seconds() / p.order.SLO.Seconds())
	if p.need > 0 {
		need = math.Round(float64(p.need) * n / float64(max(1, p.nodes)))
	}
	return int(min(max(1, need), maxPopulation))
}

// atLeast is the chance that at least k of n agents are there.
func atLeast(k, n int) float64 {
	sum, term := 0.0, math.Pow(1-lossRate, float64(n)) // term: exactly i of n are lost
	for i := 0; i <= n-k; i++ {
		sum += term
		term *= float64(n-i) / float64(i+1) * lossRate / (1 - lossRate)
	}
	return sum
}

// hopFor is how long a hop really takes, stay included.
func (c *core) hopFor(p *population) time.Duration {
	return max(c.stay(p.order.SLO)+hopAlone, c.hopTime)
}

// missing: an agent that has not been seen for so long that it must be lost.
func (c *core) missing(s sighting) bool {
	patience := 3 * time.Second
	if p, ok := c.orders[s.order]; ok {
		patience = max(patience, 6*c.hopFor(p))
	}
	return c.now.Sub(s.heard) > patience || !c.usable(s.at)
}

// alive lists the agents of an order, missions too: they come back.
func (c *core) alive(order string) []string {
	var out []string
	for id, s := range c.census {
		if s.order == order && id != c.resident && !c.missing(s) {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// patrols are the agents among which the nodes are shared out.
func (c *core) patrols(order string) []string {
	return slices.DeleteFunc(c.alive(order), func(id string) bool { return c.census[id].kind != kindPatrol })
}

func (c *core) duePopulation() {
	for id, h := range c.held { // who stays must be heard of
		if c.now.Sub(c.census[id].heard) > time.Second && h.doing != leaving {
			c.stampDirty = true
		}
	}
	if n := len(c.agentsNow()); n != c.shown { // some are missing now
		c.shown = n
		c.emit(fxChanged{})
	}
	for _, id := range slices.Sorted(maps.Keys(c.orders)) {
		p := c.orders[id]
		have := len(c.alive(id))
		c.measure(p, have)
		want := c.wants(p)
		switch {
		case have < want:
			p.overFrom = time.Time{}
			if p.shortFrom.IsZero() {
				p.shortFrom = c.now
			}
			c.spawnMissing(p, have)
		case have > want:
			p.shortFrom = time.Time{}
			if p.overFrom.IsZero() {
				p.overFrom = c.now
			}
		default:
			p.shortFrom, p.overFrom = time.Time{}, time.Time{}
		}
	}
}

// measure follows the worst gap that really is: over the service level one more
// agent is wanted; where one fewer would still be well under it for long, one less.
func (c *core) measure(p *population, have int) {
	p.gap = 0
	for _, id := range c.scope(p.order.ID) {
		if c.usable(id) {
			p.gap = max(p.gap, c.now.Sub(c.waitsFrom(id, c.lastVisit(id))))
		}
	}
	p.note(c.now, p.gap)
	if !p.shortFrom.IsZero() || c.now.Sub(p.began) < p.order.SLO {
		p.peak, p.quietAt = 0, c.now // those who are wanted are not walking yet
		return
	}
	need, since, said := c.needed(p), c.now.Sub(p.quietAt), c.ownNeed(p)
	switch fewer := p.peak * time.Duration(have) / time.Duration(max(1, have-1)); {
	case p.peak > p.order.SLO && since > p.order.SLO:
		if c.wants(p) < min(c.covered(p), maxPopulation) {
			need++
		}
	case since < shrinkPatience*p.order.SLO:
		return
	case need > 1 && float64(fewer) < shrinkBelow*float64(p.order.SLO):
		need--
	}
	p.need, p.nodes, p.peak, p.quietAt = need, c.covered(p), 0, c.now
	c.stampDirty = c.stampDirty || c.ownNeed(p) != said
}

// spawnMissing makes one agent when it is this node's turn. Ranks change with
// the number that is missing, so that one slow node does not stop the others.
func (c *core) spawnMissing(p *population, have int) {
	if c.cfg.Observe() || plantOrderIgnored {
		return
	}
	var nodes []peer.ID
	for _, id := range c.scope(p.order.ID) {
		if c.usable(id) {
			nodes = append(nodes, id)
		}
	}
	salt := fmt.Sprint(p.order.ID, "/", have)
	slices.SortFunc(nodes, func(a, b peer.ID) int {
		return cmp.Compare(hash(salt, string(a)), hash(salt, string(b)))
	})
	rank := slices.Index(nodes, c.self)
	if rank < 0 || c.now.Before(p.shortFrom.Add(time.Duration(rank)*spawnStep)) {
		return
	}
	p.shortFrom = c.now.Add(spawnStep)
	c.spawn(p.order.ID, patrolTTL, p.order.SLO)
}

// spawn makes an agent on this node.
func (c *core) spawn(order string, ttl, slo time.Duration) *here {
	if len(c.held) >= maxAgentsHere {
		c.count("spawn-" + string(refusedFull))
		return nil
	}
	t := &traveller{
		id: fmt.Sprintf("a-%010x", c.rng.Uint64()>>24), order: order, hopsLeft: patrolHops,
		born: c.now, expires: c.now.Add(ttl), slo: slo, visited: 1,
	}
	h := &here{traveller: t, arrived: c.now, wake: c.now.Add(c.dwell(slo))}
	c.held[t.id] = h
	c.census[t.id] = sighting{present: c.present(h), at: c.self, heard: c.now}
	c.visit(h)
	c.count("spawned")
	return h
}

// retireNow: its order is gone, it is too old, or it is one of the excess, which
// are the highest hashes, so that all nodes mean the same ones.
func (c *core) retireNow(h *here) bool {
	p, ok := c.orders[h.order]
	if !ok {
		_, recalled := c.recalls[h.order]
		return recalled || h.order == "" || !c.now.Before(h.expires)
	}
	if p.overFrom.IsZero() || c.now.Sub(p.overFrom) < retirePatient {
		return false
	}
	all := c.alive(h.order)
	slices.SortFunc(all, func(a, b string) int { return cmp.Compare(hash(a, h.order), hash(b, h.order)) })
	return slices.Index(all, h.id) >= c.wants(p)
}

// Info is one agent as its last stamp tells it.
type Info struct {
	ID       string
	Kind     string // patrol | mission
	At, Next peer.ID
	Hops     int
	Visited  int
	Since    time.Time
	Order    string
	Incident string

	Doing   Doing
	Does    time.Time     // it does so since
	Target  peer.ID       // of a mission
	Service string        // of it; "" the node process
	Unseen  time.Duration // of a patrol: how long nobody has been at Next
}

func info(s sighting) Info {
	return Info{
		ID: s.id, Kind: s.kind, At: s.at, Next: s.next, Hops: int(s.hop), Visited: s.visited, Since: s.born, Order: s.order, Incident: s.incident,
		Doing: s.doing, Does: s.since, Target: s.target, Service: s.service, Unseen: s.unseen,
	}
}

// agentsNow and ordersNow are what Agents and Orders publish.
func (c *core) agentsNow() []Info {
	var out []Info
	for _, id := range slices.Sorted(maps.Keys(c.census)) {
		s, h := c.census[id], c.held[id]
		switch {
		case h != nil && h.mission != nil:
			out = append(out, info(sighting{present: c.present(h), at: c.self})) // newer than its stamp
		case h != nil || !c.missing(s):
			out = append(out, info(s))
		}
	}
	if p, busy := c.residentNow(); busy {
		out = append(out, info(sighting{present: p, at: c.self}))
	}
	return out
}

func (c *core) ordersNow() []Order {
	var out []Order
	for _, id := range slices.Sorted(maps.Keys(c.orders)) {
		p := c.orders[id]
		o := p.order
		o.Agents, o.WorstGap, o.WorstHour, o.Visits, o.Late = c.wants(p), p.gap, p.hour.max(), p.visits, p.late
		out = append(out, o)
	}
	return out
}
