package agent

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"p2pnode"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Doing is what an agent does where it is; the words are in JSON, so they only
// grow in number.
type Doing string

// What agents do.
const (
	DoingVisit  Doing = "visiting"   // a patrol looks round, then goes on toward the node that waits longest
	DoingTravel Doing = "travelling" // a mission is on its way to its target
	DoingDoor   Doing = "at-door"    // it knocks at the target's door, and has no answer that it can act on yet
	DoingAsk    Doing = "asking"     // the target's exec looks for itself and acts
	DoingAwait  Doing = "awaiting"   // exec has acted; the next life has not said hello yet
	DoingSettle Doing = "settling"   // what was repaired runs and is watched until it has held
)

// why is the reason of an agent's being where it is, as its carrier tells it.
type why struct {
	doing   Doing
	since   time.Time
	target  peer.ID       // of a mission
	service string        // of it; "" the node process
	unseen  time.Duration // of a patrol: nobody has been at its goal for so long
}

// why says what h does now.
func (h *here) why() why {
	m, w := h.mission, &h.work
	if m == nil {
		return why{doing: DoingVisit, since: h.arrived}
	}
	out := why{doing: DoingTravel, since: m.claimedAt, target: m.target, service: m.service}
	switch {
	case h.phase() == phaseSettle && !w.upAt.IsZero():
		out.doing, out.since = DoingSettle, w.upAt
	case h.phase() == phaseSettle:
		out.doing, out.since = DoingAwait, w.actedAt
	case h.doing == acting:
		out.doing, out.since = DoingAsk, w.asked
	case !w.begun.IsZero():
		out.doing, out.since = DoingDoor, w.begun
	}
	return out
}

// residentNow is this host's resident agent while it has something in hand: the
// case that it is at longest.
func (c *core) residentNow() (p present, busy bool) {
	var at *localCase
	for _, id := range slices.Sorted(maps.Keys(c.cases)) {
		if k := c.cases[id]; k.open() && (at == nil || k.knownAt.Before(at.knownAt)) {
			at = k
		}
	}
	if at == nil {
		return p, false
	}
	p = present{
		id: c.resident, kind: kindMission, born: c.started, incident: at.incident,
		why: why{doing: DoingAsk, since: at.knownAt, target: c.self, service: reportedAs(at.service)},
	}
	if at.step == caseSettling || at.step == caseJudging {
		p.doing, p.since = DoingAwait, at.actedAt
		if !at.upAt.IsZero() {
			p.doing, p.since = DoingSettle, at.upAt
		}
	}
	return p, true
}

// Wait is why nobody acts on a failure at this moment; its words are in JSON.
type Wait string

// Why nobody, or only one, goes.
const (
	WaitClaim       Wait = "claimed"     // an agent has it in hand; all others leave it alone
	WaitRest        Wait = "resting"     // it was seen to, or refused, just now: nobody goes before Until
	WaitRank        Wait = "rank"        // whose turn it is by rank is about to go
	WaitObserve     Wait = "observe"     // as rank, but this host only watches and sends nobody
	WaitUnreachable Wait = "unreachable" // nobody reaches its host: nothing is restarted on a guess
	WaitBrake       Wait = "brake"       // the same, and so many are unreachable that the network is suspected
)

// Failure is something elsewhere that this node believes to have failed, and how
// far the fleet is with it.
type Failure struct {
	Incident string
	Node     peer.ID
	Service  string // "" the node process
	Class    p2pnode.Class
	Since    time.Time // this node knows of it
	Wait     Wait
	Agent    string // whose claim holds
	Attempt  int
	Phase    string    // of that claim
	Until    time.Time // nobody else goes before: the claim's lease, or the rest
}

// failuresNow lists them, the oldest first.
func (c *core) failuresNow() []Failure {
	var out []Failure
	for _, w := range c.watches {
		if !w.believed && w.best == nil {
			continue
		}
		f := Failure{Incident: w.incident, Node: w.target, Service: w.service, Class: w.class, Since: w.knownAt, Attempt: w.attempt, Wait: WaitRank}
		switch {
		case w.best != nil:
			f.Wait, f.Agent, f.Attempt, f.Phase, f.Until = WaitClaim, w.best.agent, w.best.attempt, string(w.best.phase), w.until
		case c.now.Before(w.idleUntil):
			f.Wait, f.Until = WaitRest, w.idleUntil
		case c.cfg.Observe():
			f.Wait = WaitObserve
		}
		out = append(out, f)
	}
	for p, b := range c.beliefs.Peers {
		if b.Verdict != p2pnode.Unreachable {
			continue
		}
		f := Failure{Node: p, Class: p2pnode.ClassUnreachable, Since: b.Since, Wait: WaitUnreachable}
		if h := c.hosts[p]; h != nil {
			f.Incident = h.open
		}
		if c.beliefs.Brake.On {
			f.Wait = WaitBrake
		}
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b Failure) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Incident, b.Incident), cmp.Compare(a.Node, b.Node))
	})
	return out
}
