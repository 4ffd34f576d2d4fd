package agent

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"p2pnode"

	"github.com/libp2p/go-libp2p/core/peer"
)

// traveller is an agent: all of this goes along when it moves, and nothing else.
type traveller struct {
	id, order string
	hop       uint64
	hopsLeft  int
	expires   time.Time
	slo       time.Duration
	born      time.Time
	visited   int
	goal      peer.ID
	marks     []mark
	mission   *mission
}

// mark is a last visit.
type mark struct {
	node peer.ID
	at   time.Time
}

// mission is an errand to one suspect, since its claim.
type mission struct {
	failure
	attempt, hops int
	trail         []peer.ID
	verifyOnly    bool
	knownAt       time.Time // the claiming node knew
	claimedAt     time.Time
	avoid         []peer.ID // neighbours of the target from where its door could not be reached
}

// sighting is where an agent was seen last.
type sighting struct {
	present
	at    peer.ID
	heard time.Time
}

// doing is what an agent that is on this node does.
type doing int

const (
	dwelling doing = iota // a patrol on its visit
	leaving               // handed over, no ACK yet: decides nothing
	thinking              // has a mission and is to go on at wake
	knocking              // waits for a door's word
	acting                // waits for the answer to Recover
	awaiting              // acted, waits for the next life
	settling              // the next life is there
	judging               // settled, waits for the door's last word
)

// here is an agent while it is on this node.
type here struct {
	*traveller
	doing    doing
	wake     time.Time
	token    uint64 // of the answer that it waits for; others are void
	to       peer.ID
	second   peer.ID
	from     peer.ID // neighbour that brought it; "" made here
	arrived  time.Time
	extendAt time.Time
	work     work
}

// onArrive takes an agent in. A handoff that was taken before is acknowledged
// again and has no effect: the sender may have missed the first ACK. An agent's
// hops only rise, so whatever is behind the newest that came by is a copy of it
// that was left behind, or a replay.
func (c *core) onArrive(e evArrive) {
	t := e.t
	if reason := c.forged(e); reason != "" {
		c.count("handoff-" + string(reason))
		c.emit(fxReply{e.reply, encodeAck(reason)})
		return
	}
	last, again := c.seen[t.id]
	if again && t.hop <= last.hop && !plantTakeTwice {
		c.count(map[bool]string{true: "handoff-duplicate", false: "handoff-replayed"}[t.hop == last.hop])
		c.emit(fxReply{e.reply, encodeAck("")})
		return
	}
	if reason := c.crowded(e.from, again); reason != "" {
		c.count("handoff-" + string(reason))
		c.emit(fxReply{e.reply, encodeAck(reason)})
		return
	}
	if !again {
		last.from = e.from
	}
	c.seen[t.id] = seen{t.hop, c.now, last.from}
	c.emit(fxReply{e.reply, encodeAck("")})
	if old, ok := c.held[t.id]; ok && (old.hop >= t.hop || old.acted()) {
		c.count("handoff-older-copy")
		return
	}
	h := &here{traveller: t, from: e.from, arrived: c.now, wake: c.now.Add(c.dwell(t.slo))}
	t.visited++
	c.held[t.id] = h
	for _, k := range t.marks {
		c.visited(k.node, k.at)
	}
	c.visit(h)
	line := p2pnode.HistoryEvent{Event: p2pnode.HistHop, Agent: t.id, Hop: int(t.hop)}
	if m := t.mission; m != nil {
		m.trail = append(m.trail, c.self)
		line.Incident, line.Attempt = m.incident, m.attempt
		h.doing, h.wake = thinking, c.now
		c.publishClaim(h, phaseTravel)
	}
	c.emit(fxHistory{line})
}

// forged is why a traveller cannot be what it says: it comes from the neighbour
// that its trail ends with, has made as many moves as its trail has nodes, and its
// target is a member.
func (c *core) forged(e evArrive) refused {
	m := e.t.mission
	switch {
	case e.t.hop == 0:
		return refusedTrail
	case m == nil && !c.knownOrder(e.t.order):
		return refusedOrder // its record comes first, or nobody gave it
	case m == nil:
		return ""
	case len(m.trail) == 0, m.trail[len(m.trail)-1] != e.from, m.hops != len(m.trail):
		return refusedTrail
	case !slices.Contains(c.cfg.Links.Members(), m.target):
		return refusedTarget
	}
	return ""
}

// crowded is why no more agents are taken, of anybody or of this neighbour: whoever
// floods is refused before others are. again: the agent was here before.
func (c *core) crowded(from peer.ID, again bool) refused {
	if len(c.held) >= maxAgentsHere || !again && len(c.seen) >= maxSeen {
		return refusedFull
	}
	held, seen, fresh := 0, 0, 0
	for _, h := range c.held {
		if h.from == from {
			held++
		}
	}
	for _, s := range c.seen {
		if s.from == from {
			seen++
			if c.now.Sub(s.at) < newWindow {
				fresh++
			}
		}
	}
	if held >= maxHeldFrom || !again && (seen >= maxSeenFrom || fresh >= maxNewFrom) {
		return refusedFlood
	}
	return ""
}

// visit is what a patrol does on each node that it comes to: it asks the local
// exec, and the node stamps.
func (c *core) visit(h *here) {
	c.visited(c.self, c.now)
	c.stampDirty = true
	if h.mission == nil {
		h.token = c.nextToken()
		c.emit(fxStatus{agent: h.id, token: h.token})
	}
}

func (c *core) dueAgent(h *here) {
	if h.mission != nil && !c.now.Before(h.extendAt) { // without an ACK it is still ours
		c.publishClaim(h, h.phase())
	}
	if c.now.Before(h.wake) {
		return
	}
	if h.mission != nil {
		c.dueMission(h)
		return
	}
	if h.doing == leaving {
		h.wake = c.now.Add(handoffFirst) // its answer has a deadline of its own
		return
	}
	if c.retireNow(h) {
		c.drop(h)
		return
	}
	c.patrol(h)
}

// drop ends an agent on this node.
func (c *core) drop(h *here) {
	delete(c.held, h.id)
	delete(c.census, h.id)
	c.stampDirty = true
}

// patrol sends an idle agent on toward the node that needs a visit most.
func (c *core) patrol(h *here) {
	h.wake = c.now.Add(c.dwell(h.slo))
	if h.goal == c.self || h.hopsLeft <= 0 || !c.wanted(h, h.goal) {
		h.goal = c.chooseGoal(h)
		h.hopsLeft = patrolHops
	}
	if h.goal == "" {
		c.visit(h)
		return
	}
	if !c.depart(h, h.goal) {
		h.goal = ""
	}
}

func (c *core) wanted(h *here, p peer.ID) bool {
	return p != "" && c.usable(p) && c.now.Sub(c.lastVisit(p)) > h.slo/10
}

// chooseGoal weighs the gap since the last visit against the way there. An
// agent's own share of the nodes (its arc) weighs half as much again, so that
// two agents seldom run after the same node; what is overdue is everybody's.
func (c *core) chooseGoal(h *here) peer.ID {
	agents := c.patrols(h.order)
	var best peer.ID
	var bestScore float64
	for _, p := range c.scope(h.order) {
		if p == c.self || !c.usable(p) {
			continue
		}
		cost, ok := c.cfg.Links.Cost(c.self, p)
		if !ok {
			continue
		}
		gap := c.now.Sub(c.lastVisit(p))
		score := gap.Seconds() / math.Sqrt(1+float64(max(cost, 0)))
		if gap > 2*h.slo || ownerOf(p, agents) == h.id {
			score *= 1.5
		}
		if best == "" || score > bestScore || (score == bestScore && hash(h.id, string(p)) < hash(h.id, string(best))) {
			best, bestScore = p, score
		}
	}
	return best
}

// ownerOf is the agent in whose arc p lies: the highest hash of the pair.
func ownerOf(p peer.ID, agents []string) string {
	return slices.MaxFunc(append([]string{""}, agents...), func(a, b string) int {
		if (a == "") != (b == "") {
			return cmp.Compare(len(a), len(b))
		}
		return cmp.Compare(hash(a, string(p)), hash(b, string(p)))
	})
}

// lastVisit of a node that nobody has visited yet is when this node first heard
// of it, so that a newcomer is neither ignored nor everybody's first goal.
func (c *core) lastVisit(p peer.ID) time.Time {
	at, ok := c.book[p]
	if !ok {
		at = c.now
		c.book[p] = at
	}
	return at
}

// stay is how long a patrol stays on average.
func (c *core) stay(slo time.Duration) time.Duration {
	if c.cfg.Dwell > 0 {
		return c.cfg.Dwell
	}
	return min(max(slo/15, 50*time.Millisecond), time.Second)
}

// dwell is how long it stays this time.
func (c *core) dwell(slo time.Duration) time.Duration {
	d := c.stay(slo)
	return d + time.Duration(c.rng.Int64N(int64(d/5)+1)) - d/10
}

// depart hands h to the next hop toward dst. The state that goes along is fixed
// here; from now until the answer comes h decides nothing.
func (c *core) depart(h *here, dst peer.ID) bool {
	next, second, ok := c.cfg.Links.Next(dst)
	if h.mission.circling(second) {
		second = ""
	}
	if h.mission.circling(next) {
		next, second = second, ""
	}
	if !ok || next == "" {
		return false
	}
	if c.now.Before(c.bad[next]) && second != "" {
		next, second = second, next
	}
	h.to, h.second, h.doing = next, second, leaving
	c.hand(h, next, handoffFirst)
	return true
}

// circling reports whether a mission was on p too often. Tables that lag behind each
// other send an agent to and fro, a hop a millisecond. Each place where it found no
// way, or no answer, may make it come by once more.
func (m *mission) circling(p peer.ID) bool {
	if m == nil || p == "" {
		return false
	}
	times := 0
	for _, t := range m.trail {
		if t == p {
			times++
		}
	}
	return times > len(m.avoid)
}

func (c *core) hand(h *here, to peer.ID, wait time.Duration) {
	t := *h.traveller
	t.hop++
	t.hopsLeft--
	t.marks = c.freshest(h)
	if h.mission != nil {
		m := *h.mission
		m.hops++
		flight := c.cfg.Links.RTT(to) / 2 // the way there, which no clock of ours sees
		m.knownAt, m.claimedAt = m.knownAt.Add(-flight), m.claimedAt.Add(-flight)
		t.mission = &m
	} else if pop, ok := c.orders[h.order]; ok {
		t.slo, t.expires = pop.order.SLO, c.now.Add(patrolTTL)
	}
	blob, err := encodeTraveller(c.now, &t)
	if err != nil {
		panic("agent: own state does not fit: " + err.Error())
	}
	h.token = c.nextToken()
	h.wake = c.now.Add(wait + handoffSecond) // only a guard: the answer comes earlier
	c.emit(fxHand{h.id, h.token, to, blob, wait})
}

// freshest are the newest visits that this node knows, for nodes that the flood
// has not reached.
func (c *core) freshest(h *here) []mark {
	var out []mark
	for p, at := range c.book {
		out = append(out, mark{p, at})
	}
	slices.SortFunc(out, func(a, b mark) int {
		return cmp.Or(b.at.Compare(a.at), cmp.Compare(a.node, b.node))
	})
	return slices.Clone(out[:min(len(out), maxMarks/2)])
}

// onHanded is the end of a handoff. After an ACK nothing of the agent is left
// here; without one the second choice is tried, then it stays and tries again
// with fresh routes.
func (c *core) onHanded(e evHanded) {
	h, ok := c.held[e.agent]
	if !ok || h.token != e.token || h.doing != leaving {
		return
	}
	if e.err == nil {
		if !plantStayBehind {
			delete(c.held, h.id)
		}
		delete(c.bad, h.to)
		s := sighting{present: c.present(h), at: h.to, heard: c.now}
		s.hop++
		c.census[h.id] = s
		c.emit(fxChanged{})
		return
	}
	c.count("handoff-failed")
	c.bad[h.to] = c.now.Add(2 * time.Second)
	if h.second != "" {
		h.to, h.second = h.second, ""
		c.hand(h, h.to, handoffSecond)
		return
	}
	h.wake = c.now.Add(handoffRetry)
	h.doing = dwelling
	if h.mission != nil {
		h.doing = thinking
	}
}

func (c *core) present(h *here) present {
	p := present{id: h.id, kind: kindPatrol, order: h.order, hop: h.hop, visited: h.visited, born: h.born, next: h.goal, why: h.why()}
	switch {
	case h.mission != nil:
		p.kind, p.incident, p.next = kindMission, h.mission.incident, h.to
	case h.doing == dwelling && (h.goal == "" || h.goal == c.self):
		p.next = c.chooseGoal(h) // where it would go now
	}
	if p.kind == kindPatrol && p.next != "" {
		p.unseen = c.now.Sub(c.lastVisit(p.next))
	}
	return p
}

// roomFor is how many agents more the census takes that signer names. Those that it
// named before and that nobody hears of any more make room.
func (c *core) roomFor(signer peer.ID) int {
	of := 0
	for id, s := range c.census {
		switch {
		case s.at != signer:
		case c.missing(s) && c.held[id] == nil:
			delete(c.census, id)
		default:
			of++
		}
	}
	return min(maxPresent-of, maxCensus-len(c.census))
}

// Kinds of agents as people see them.
const (
	kindPatrol  = "patrol"
	kindMission = "mission"
)

// publishStamp tells everybody when this node was visited last and who is here.
func (c *core) publishStamp() {
	c.stampDirty, c.stampedAt = false, c.now
	s := stamp{at: c.book[c.self]}
	for _, id := range slices.Sorted(maps.Keys(c.held)) {
		p := c.present(c.held[id])
		s.agents = append(s.agents, p)
		c.census[id] = sighting{present: p, at: c.self, heard: c.now}
	}
	if p, busy := c.residentNow(); busy {
		s.agents = append(s.agents, p)
	}
	for _, id := range slices.Sorted(maps.Keys(c.orders)) {
		s.needs = append(s.needs, need{id, c.ownNeed(c.orders[id])})
	}
	body, err := encodeStamp(c.now, s)
	if err != nil {
		panic(fmt.Sprintf("agent: own stamp does not fit: %v", err))
	}
	c.emit(fxPublish{p2pnode.DomainStamp, "", body, stampTTL})
	c.emit(fxChanged{})
}

// onStamp notes a visit and who is where. Of two copies of one agent (an ACK was
// lost and the second choice took it too) the one that is behind dissolves.
func (c *core) onStamp(signer peer.ID, s stamp) {
	at := c.now
	if _, known := c.book[signer]; !known && !s.at.IsZero() && s.at.Before(at) {
		at = s.at // an old stamp that came late, e.g. to a newcomer
	}
	if s.at.IsZero() || s.at.Equal(c.stamps[signer]) {
		at = time.Time{} // never visited, or not since: only says who is there
	}
	c.stamps[signer] = s.at
	c.needs[signer] = s.needs
	c.visited(signer, at)
	room := c.roomFor(signer)
	for _, p := range s.agents {
		old, ok := c.census[p.id]
		if ok && p.hop == old.hop+1 && p.kind == kindPatrol && old.kind == kindPatrol {
			c.hopTime += (c.now.Sub(old.heard) - c.hopTime) / 8
		}
		if !ok {
			if room--; room < 0 {
				c.count("stamp-" + string(refusedFlood))
				continue
			}
		}
		if !ok || p.hop > old.hop || (p.hop == old.hop && (old.at == signer || signer < old.at)) {
			c.census[p.id] = sighting{present: p, at: signer, heard: c.now}
		}
		h, ok := c.held[p.id]
		if !ok || h.acted() || p.hop < h.hop || (p.hop == h.hop && c.self < signer) || h.doing == leaving {
			continue
		}
		c.count("copy-dissolved")
		delete(c.held, p.id)
		c.stampDirty = true
	}
	c.emit(fxChanged{})
}
