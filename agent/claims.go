package agent

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"p2pnode"

	"github.com/libp2p/go-libp2p/core/peer"
)

// claimPhase is how far the holder of a claim has come.
//
//	travel -> act -> settle -> done
//	   \________\________\---> released (nothing to do, or not now)
type claimPhase string

const (
	phaseTravel   claimPhase = "travel"
	phaseAct      claimPhase = "act"
	phaseSettle   claimPhase = "settle"
	phaseDone     claimPhase = "done"
	phaseReleased claimPhase = "released"
)

func (p claimPhase) order() int {
	return slices.Index([]claimPhase{phaseTravel, phaseAct, phaseSettle}, p)
}

// claim is "I go", for one attempt.
type claim struct {
	failure
	attempt int
	agent   string
	phase   claimPhase
	lease   time.Duration
}

// beats reports whether c holds against d: a later attempt, then who has come
// further, then the lower hash.
func (c claim) beats(d claim) bool {
	if c.attempt != d.attempt {
		return c.attempt > d.attempt
	}
	if (c.phase == phaseTravel) != (d.phase == phaseTravel) {
		return c.phase != phaseTravel
	}
	return hash(c.agent, c.incident) < hash(d.agent, d.incident)
}

// watch is one failure as this node follows it, whoever works on it.
type watch struct {
	failure
	knownAt    time.Time
	believed   bool // by this node's own verdicts, now
	verifyOnly bool // somebody acted and was lost: only the end must be seen
	attempt    int
	base       time.Time // ranks are counted from here
	dueAt      time.Time
	best       *claim
	until      time.Time // the lease, by the own clock
	idleUntil  time.Time // nobody goes before: refused, released or done
	releases   int
	mine       string  // agent that this node sent, for this attempt
	by         peer.ID // whose claim named it first; "" this node's own verdict
}

func (c *core) onBeliefs(b Beliefs) {
	c.beliefs = b
	for _, w := range c.watches {
		w.believed = false
	}
	for _, p := range slices.Sorted(maps.Keys(b.Peers)) {
		f, ok := c.failureBelieved(p)
		if !ok {
			continue
		}
		w := c.watchOf(f)
		if w == nil {
			continue
		}
		w.class = f.class
		if !w.believed && w.best == nil && w.releases == 0 {
			w.base = c.now
		}
		w.believed, w.dueAt = true, c.now
		c.follow(w)
	}
	for _, h := range c.held {
		c.missionBelief(h)
	}
	c.emit(fxChanged{})
}

// failureBelieved is what an agent could mend at p. A node that nobody reaches
// is not among it, whatever the brake says: nothing is restarted on a guess.
func (c *core) failureBelieved(p peer.ID) (failure, bool) {
	b := c.beliefs.Peers[p]
	actionable := b.Verdict.Actionable() || (plantBrakeOff && b.Verdict == p2pnode.Unreachable) ||
		(plantActOnDoubt && b.Verdict == p2pnode.Doubtful)
	if p == c.self || !actionable || b.Life.IsZero() {
		return failure{}, false
	}
	service := ""
	if b.Verdict == p2pnode.ExecDead {
		service = p2pnode.SelfExec
	}
	return failureOf(p, service, b.Life.String(), p2pnode.Class(b.Verdict)), true
}

func (c *core) watchOf(f failure) *watch {
	if w, ok := c.watches[f.incident]; ok {
		return w
	}
	if len(c.watches) >= maxWatches && !c.forgetNamed() {
		c.count("watches-full")
		return nil
	}
	w := &watch{failure: f, knownAt: c.now, base: c.now}
	c.watches[f.incident] = w
	return w
}

// onClaim takes another node's word on who goes.
func (c *core) onClaim(signer peer.ID, cl claim) {
	if cl.target == c.self {
		return
	}
	_, known := c.watches[cl.incident]
	if !known && c.namedBy(signer) >= maxClaimedBy {
		c.count("claim-" + string(refusedFlood))
		return
	}
	if w := c.watchOf(cl.failure); w != nil {
		if !known {
			w.by = signer
		}
		c.noteClaim(w, cl)
		c.yield(w)
	}
}

// namedBy counts the failures that are there only because signer claims them.
func (c *core) namedBy(signer peer.ID) (n int) {
	for _, w := range c.watches {
		if w.by == signer && !w.believed {
			n++
		}
	}
	return n
}

// forgetNamed makes room for a failure by one that others name and this node does not
// believe.
func (c *core) forgetNamed() bool {
	for _, id := range slices.Sorted(maps.Keys(c.watches)) {
		if w := c.watches[id]; w.by != "" && !w.believed && w.mine == "" {
			delete(c.watches, id)
			return true
		}
	}
	return false
}

// follow sees to it that the end of a failure is told which somebody went to, or
// wanted to, and which this node saw itself: one that a claim alone names may not
// be there.
func (c *core) follow(w *watch) {
	if w.believed && (w.best != nil || w.attempt > 0) {
		c.storyOf(w.failure, p2pnode.KindNode, c.cfg.NameOf(w.target))
	}
}

func (c *core) noteClaim(w *watch, cl claim) {
	w.dueAt = c.now
	if w.best == nil || w.best.agent != cl.agent || w.best.phase != cl.phase {
		c.emit(fxChanged{}) // not for each extension
	}
	defer c.follow(w)
	switch {
	case cl.phase == phaseDone:
		w.best, w.verifyOnly, w.mine = nil, false, ""
		w.attempt = max(w.attempt, cl.attempt+1)
		w.rest(c.now, doneFor)
	case cl.phase == phaseReleased:
		if w.best == nil || w.best.agent == cl.agent || cl.beats(*w.best) {
			w.best, w.mine = nil, ""
			w.attempt = max(w.attempt, cl.attempt+1)
			w.rest(c.now, max(cl.lease, min(releasedFor<<min(w.releases, 8), releasedMax)))
			if w.releases++; w.releases > knockTries {
				w.verifyOnly = false // nobody finds anything to verify
			}
		}
	case cl.phase.order() < 0:
		c.count("claim-phase")
	case w.best == nil && cl.attempt >= w.attempt, w.best != nil && (cl.agent == w.best.agent && cl.attempt >= w.best.attempt || cl.beats(*w.best)):
		w.best, w.attempt, w.until = &cl, cl.attempt, c.now.Add(cl.lease)
	}
}

func (w *watch) rest(now time.Time, d time.Duration) {
	w.idleUntil = now.Add(d)
	w.base = w.idleUntil
}

// yield takes own agents off an incident that another has the better claim to.
// One that has acted stays: exec did it once, and who acted sees it through.
func (c *core) yield(w *watch) {
	for _, id := range slices.Sorted(maps.Keys(c.held)) {
		h := c.held[id]
		if h.mission == nil || h.mission.incident != w.incident || h.acted() || h.doing == leaving {
			continue
		}
		over := w.best == nil && !w.idleUntil.Before(c.now)
		if over || (w.best != nil && w.best.agent != id && w.best.beats(h.claim())) {
			c.count("claim-yielded")
			c.endMission(h)
		}
	}
}

func (h *here) claim() claim {
	return claim{failure: h.mission.failure, attempt: h.mission.attempt, agent: h.id, phase: h.phase(), lease: h.lease()}
}

func (h *here) phase() claimPhase {
	switch {
	case h.work.acted || h.doing == settling || h.doing == judging:
		return phaseSettle
	case h.doing == acting:
		return phaseAct
	}
	return phaseTravel
}

func (h *here) lease() time.Duration {
	if h.phase() == phaseSettle {
		return settleLease
	}
	return claimLease
}

// publishClaim makes or extends the claim of an agent that is here.
func (c *core) publishClaim(h *here, phase claimPhase) {
	cl := h.claim()
	cl.phase = phase
	c.spreadClaim(cl)
	h.extendAt = c.now.Add(claimExtend)
	if phase == phaseSettle {
		h.extendAt = c.now.Add(settleExtend)
	}
}

func (c *core) spreadClaim(cl claim) {
	if w := c.watchOf(cl.failure); w != nil {
		c.noteClaim(w, cl)
	}
	body, err := encodeClaim(cl)
	if err != nil {
		panic("agent: own claim does not fit: " + err.Error())
	}
	c.emit(fxPublish{p2pnode.DomainClaim, cl.incident, body, claimTTL})
}

// dueWatches looks at every failure that is followed, the worst first.
func (c *core) dueWatches() {
	list := slices.SortedFunc(maps.Values(c.watches), func(a, b *watch) int {
		return cmp.Or(cmp.Compare(b.severity(), a.severity()), cmp.Compare(a.incident, b.incident))
	})
	for _, w := range list {
		if !c.now.Before(w.dueAt) {
			c.dueWatch(w)
		}
	}
}

func (c *core) dueWatch(w *watch) {
	if c.now.Before(w.idleUntil) {
		w.dueAt = w.idleUntil
		return
	}
	if w.best != nil {
		if c.now.Before(w.until) || plantNoLapse {
			w.dueAt = w.until
			if plantNoLapse {
				w.dueAt = c.now.Add(time.Hour)
			}
			return
		}
		c.lapse(w)
	}
	if !w.believed && !w.verifyOnly {
		if c.now.Sub(w.base) > doneFor {
			delete(c.watches, w.incident)
			return
		}
		w.dueAt = w.base.Add(doneFor + time.Millisecond)
		return
	}
	if c.beliefs.Peers[w.target].Verdict == p2pnode.Unreachable && !plantBrakeOff {
		w.dueAt = c.now.Add(claimLease) // the end of an old story can wait until somebody can go there
		return
	}
	at, start := c.turn(w)
	if at.IsZero() || c.now.Before(at) {
		w.dueAt = at
		if at.IsZero() {
			w.dueAt = c.now.Add(rankStep)
		}
		return
	}
	w.dueAt = c.now.Add(rankStep)
	start()
}

// lapse: whoever claimed is not heard of any more. The next attempt is open, and
// if he had acted it only has to see the end.
func (c *core) lapse(w *watch) {
	c.count("claim-lapsed")
	w.verifyOnly = w.verifyOnly || w.best.phase == phaseSettle
	w.attempt, w.base, w.best, w.mine = w.best.attempt+1, c.now, nil, ""
}

// turn is when it is this node's turn to send somebody, and how. Agents go by
// rank, 150 ms apart; after two silent ranks a node may make one, and where
// there are none at all, at once. Who knows no way lets those go first who
// may know one.
func (c *core) turn(w *watch) (time.Time, func()) {
	if c.cfg.Observe() || c.ownInFlight() >= ownMissions {
		return time.Time{}, nil
	}
	agents := c.ranked(w)
	for rank, s := range agents {
		if h, ok := c.held[s.id]; ok && s.at == c.self && h.mission == nil && h.doing != leaving {
			return w.base.Add(time.Duration(rank) * rankStep), func() { c.send(h, w) }
		}
	}
	first := w.base
	if len(agents) > 0 || c.costTo(c.self, w.target) == farAway {
		first = first.Add(silentRanks * rankStep)
	}
	rank := slices.Index(c.spawners(w), c.self)
	if rank < 0 {
		return time.Time{}, nil
	}
	return first.Add(time.Duration(rank) * rankStep), func() { c.send(c.spawn("", missionTTL, 0), w) }
}

func (c *core) ownInFlight() (n int) {
	for _, w := range c.watches {
		if w.mine != "" && w.best != nil {
			n++
		}
	}
	return n
}

// ranked are the agents that may go to w, nearest first. Those seen last on the
// suspect, or on a node that is not well, are not among them.
func (c *core) ranked(w *watch) []sighting {
	var out []sighting
	cost := map[peer.ID]int{}
	for id, s := range c.census {
		if s.kind != kindPatrol || s.incident != "" || s.at == w.target || !c.usable(s.at) || c.missing(s) {
			continue
		}
		if h, ok := c.held[id]; s.at == c.self && (!ok || h.mission != nil || h.doing == leaving) {
			continue
		}
		if _, ok := cost[s.at]; !ok {
			cost[s.at] = c.costTo(s.at, w.target)
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b sighting) int {
		return cmp.Or(cmp.Compare(cost[a.at], cost[b.at]), cmp.Compare(hash(a.id, w.incident), hash(b.id, w.incident)))
	})
	ranked := map[peer.ID]bool{} // of many at one place one goes: it delays nobody that they are many
	return slices.DeleteFunc(out, func(s sighting) bool {
		again := ranked[s.at]
		ranked[s.at] = true
		return again
	})
}

// spawners are the nodes that may make an agent for w, nearest first.
func (c *core) spawners(w *watch) []peer.ID {
	var out []peer.ID
	cost := map[peer.ID]int{}
	for _, p := range c.cfg.Links.Members() {
		if p != w.target && c.usable(p) {
			cost[p] = c.costTo(p, w.target)
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b peer.ID) int {
		return cmp.Or(cmp.Compare(cost[a], cost[b]), cmp.Compare(hash(string(a), w.incident), hash(string(b), w.incident)))
	})
	return out
}

// farAway is the cost of no route.
const farAway = 1 << 30

// costTo is the cost from a node to where a mission to target ends.
func (c *core) costTo(from, target peer.ID) int {
	best := farAway
	for _, n := range c.near(target, nil) {
		if n == from {
			return 0
		}
		if cost, ok := c.cfg.Links.Cost(from, n); ok {
			best = min(best, cost+1)
		}
	}
	return best
}

// near are the nodes beside target that are well.
func (c *core) near(target peer.ID, avoid []peer.ID) []peer.ID {
	return slices.DeleteFunc(slices.Clone(c.cfg.Links.NeighboursOf(target)), func(p peer.ID) bool {
		return p == target || !c.usable(p) || slices.Contains(avoid, p)
	})
}

// send claims w for h and sets it on its way.
func (c *core) send(h *here, w *watch) {
	if h == nil {
		return
	}
	h.mission = &mission{
		failure: w.failure, attempt: w.attempt, trail: []peer.ID{c.self}, verifyOnly: w.verifyOnly,
		knownAt: w.knownAt, claimedAt: c.now,
	}
	h.goal, h.hopsLeft, h.expires = "", missionHops, c.now.Add(missionTTL)
	h.doing, h.wake, h.work, h.to = thinking, c.now, work{}, ""
	w.mine = h.id
	c.publishClaim(h, phaseTravel)
	c.stampDirty = true
	c.emit(fxHistory{p2pnode.HistoryEvent{
		Event: p2pnode.HistClaimed, Target: c.cfg.NameOf(w.target), Service: w.service, Old: w.failed,
		Attempt: w.attempt, Agent: h.id, Incident: w.incident, Class: w.class,
	}})
	c.dueAgent(h)
}
