package agent

import (
	"fmt"
	"slices"
	"time"

	"p2pnode"

	"github.com/libp2p/go-libp2p/core/peer"
)

// work is what an agent has seen and done on the node that it is on. It does not
// travel: what was begun on one node ends there.
type work struct {
	begun       time.Time // arrived at the end of the way
	direct      bool
	tries       int // knocks without an answer
	try         int // Recover requests with another op
	asked       time.Time
	promised    bool      // exec has it in hand for this agent: how it ended is to be asked
	patientTill time.Time // an exec that says "starting" is waited for
	acted       bool
	own         bool // and it was this agent's doing
	inquired    bool // exec was asked who had acted
	answer      p2pnode.RecoverAnswer
	actedAt     time.Time
	deadline    time.Time
	life        p2pnode.Life // the next one
	upAt        time.Time
	timing      p2pnode.Timing
}

// acted reports whether h has done something that it must see through here.
func (h *here) acted() bool {
	return h.mission != nil && (h.work.acted || h.doing == acting || h.doing == settling || h.doing == judging)
}

func (c *core) dueMission(h *here) {
	switch h.doing {
	case leaving: // the answer never came: the runtime broke its word, stay
		h.doing, h.wake = thinking, c.now
		c.onward(h)
	case dwelling, thinking:
		if !c.now.Before(h.expires) {
			c.fail(h, "the mission ran out of time")
			return
		}
		c.onward(h)
	case knocking, acting, judging:
		h.wake = c.now.Add(time.Hour) // an answer always comes
	case awaiting:
		if !c.now.Before(h.work.deadline) {
			c.fail(h, fmt.Sprintf("no next life within %s", c.cfg.LifeWait))
			return
		}
		c.knock(h, awaiting)
	case settling:
		c.knock(h, judging)
	}
}

// onward moves h one hop toward the end of its mission, or begins the work there.
func (c *core) onward(h *here) {
	m := h.mission
	c.turnFrom(m)
	end, direct := c.missionEnd(m)
	if end != c.self && h.hopsLeft > 0 && c.depart(h, end) {
		return
	}
	if end != c.self && !direct && h.hopsLeft > 0 {
		h.doing, h.wake = thinking, c.now.Add(handoffRetry)
		m.avoid = appendCapped(m.avoid, end)
		return
	}
	if c.cfg.Observe() {
		if others := c.near(m.target, append([]peer.ID{c.self}, m.avoid...)); len(others) > 0 && !direct && !slices.Contains(m.avoid, c.self) {
			m.avoid = appendCapped(m.avoid, c.self)
			h.doing, h.wake = thinking, c.now
			c.onward(h)
			return
		}
		c.reportMission(h, p2pnode.PhaseObserved, "", "would have restarted "+c.thing(m), p2pnode.HeldObserve)
		c.release(h, refusedFor)
		return
	}
	if h.work.begun.IsZero() {
		h.work.begun, c.stampDirty = c.now, true
	}
	h.work.direct = h.work.direct || direct || end != c.self
	if plantActBlind && !h.work.acted && !m.verifyOnly {
		c.ask(h, p2pnode.SelfNode)
		return
	}
	c.knock(h, knocking)
}

// turnFrom notes the neighbours of the target that died while m was on its way to
// one of them: going back for another is then no circle.
func (c *core) turnFrom(m *mission) {
	if len(m.trail) < 2 {
		return
	}
	for _, p := range c.cfg.Links.NeighboursOf(m.target) {
		if p != m.target && !c.usable(p) {
			m.avoid = appendCapped(m.avoid, p)
		}
	}
}

// missionEnd is where the work is done: at the target while its node process
// lives, else at a neighbour of it. direct means that no neighbour is known or
// reachable, and the door is dialled from here.
func (c *core) missionEnd(m *mission) (end peer.ID, direct bool) {
	if m.service == p2pnode.SelfExec && !slices.Contains(m.avoid, m.target) {
		if m.target == c.self {
			return c.self, false
		}
		beside := slices.Contains(c.near(m.target, nil), c.self)
		linked := slices.Contains(c.cfg.Links.Neighbours(), m.target)
		if _, _, ok := c.cfg.Links.Next(m.target); ok && (linked || !beside) {
			return m.target, false // whoever has just lost it as a neighbour knows better
		}
		// Nobody here knows a way to it. Another node's table may be behind and send
		// the agent back: it must not believe that one again.
		m.avoid = appendCapped(m.avoid, m.target)
	}
	best := -1
	for _, n := range c.near(m.target, m.avoid) {
		if n == c.self {
			return c.self, false
		}
		if cost, ok := c.cfg.Links.Cost(c.self, n); ok && (best < 0 || cost < best || (cost == best && n < end)) {
			end, best = n, cost
		}
	}
	if best < 0 {
		return c.self, !slices.Contains(c.near(m.target, nil), c.self)
	}
	return end, false
}

func appendCapped(list []peer.ID, p peer.ID) []peer.ID {
	if len(list) >= maxAvoid || slices.Contains(list, p) {
		return list
	}
	return append(slices.Clone(list), p)
}

func (c *core) knock(h *here, doing doing) {
	h.doing, h.token, h.wake = doing, c.nextToken(), c.now.Add(time.Hour)
	c.emit(fxKnock{h.id, h.token, h.mission.target})
}

// onDoor is local truth: what the target's door says of its host.
func (c *core) onDoor(e evDoor) {
	h, ok := c.held[e.agent]
	if !ok || h.mission == nil || h.token != e.token {
		return
	}
	switch h.doing {
	case awaiting:
		c.seeNextLife(h, e)
	case judging:
		c.judge(h, e)
	case knocking:
		c.decide(h, e)
	}
}

func (c *core) decide(h *here, e evDoor) {
	m := h.mission
	if e.err != nil {
		c.noAnswer(h, "its door does not answer")
		return
	}
	word, next := e.word, !e.word.NodeLife.IsZero() && e.word.NodeLife.String() != m.failed
	switch {
	case m.service == p2pnode.SelfExec && word.ExecAlive:
		c.found(h, word.NodeLife)
	case m.service == "" && word.ExecAlive && !word.NodeAlive && word.NodeState == string(p2pnode.StateStarting) && c.patient(h):
		h.doing, h.wake = thinking, c.now.Add(lifePoll) // its exec is starting it
	case m.service == p2pnode.SelfExec || !word.ExecAlive && !word.NodeAlive:
		c.ask(h, p2pnode.SelfExec)
	case word.NodeAlive && h.work.promised:
		// It was started when its time had come, on this agent's request: exec says
		// so, and the agent tells it.
		h.work.promised = false
		c.ask(h, p2pnode.SelfNode)
	case word.NodeAlive && next && !h.work.inquired:
		h.work.inquired, h.work.life = true, word.NodeLife // whoever made it may be lost, and what he told too
		c.ask(h, p2pnode.SelfNode)
	case word.NodeAlive && next:
		c.found(h, word.NodeLife)
	case word.NodeAlive && m.class != p2pnode.ClassHung && wellState(word.NodeState):
		c.release(h, 0) // the belief is behind: nothing is dead here
	case m.verifyOnly && word.NodeAlive:
		c.release(h, 0)
	default:
		c.ask(h, p2pnode.SelfNode)
	}
}

// patient reports whether h waits for an exec that is starting its node process,
// which it does for as long as a start may take.
func (c *core) patient(h *here) bool {
	if h.work.patientTill.IsZero() {
		h.work.patientTill = c.now.Add(c.cfg.LifeWait)
	}
	return c.now.Before(h.work.patientTill)
}

func wellState(s string) bool {
	return s == "" || s == string(p2pnode.StateUp) || s == string(p2pnode.StateStarting)
}

// found: the next life is there and this agent did not make it. If somebody
// acted and was lost, his work is verified. If nobody did, as where a whole host
// was started again, nobody else may know that anything failed: it is seen through
// all the same, and told if by then nobody has.
func (c *core) found(h *here, life p2pnode.Life) { c.settle(h, life) }

// noAnswer tries again, then from another neighbour, then gives up.
func (c *core) noAnswer(h *here, why string) {
	m := h.mission
	h.work.tries++
	if h.work.tries < knockTries {
		h.doing, h.wake = thinking, c.now.Add(knockRetry)
		return
	}
	m.avoid = appendCapped(m.avoid, c.self)
	if end, direct := c.missionEnd(m); !direct && end != c.self && h.hopsLeft > 0 {
		h.work = work{}
		h.doing, h.wake = thinking, c.now
		return
	}
	if b := c.beliefs.Peers[m.target]; b.Verdict == p2pnode.Unreachable {
		c.reportMission(h, p2pnode.PhaseRefused, why, "", c.braked())
		c.release(h, refusedFor)
		return
	}
	c.fail(h, why)
}

func (c *core) braked() p2pnode.Held {
	if c.beliefs.Brake.On {
		return p2pnode.HeldBrake
	}
	return ""
}

// ask has the target's exec look and act. The op is the same for the same
// incident, attempt and try: an answer that was lost can be asked for again.
func (c *core) ask(h *here, target string) {
	m := h.mission
	h.doing, h.token, h.wake = acting, c.nextToken(), c.now.Add(time.Hour)
	h.work.asked = c.now
	c.publishClaim(h, phaseAct)
	c.emit(fxRecover{agent: h.id, incident: m.incident, token: h.token, target: m.target, req: p2pnode.RecoverRequest{
		Op:     fmt.Sprintf("%s/%d/%d%s", m.incident, m.attempt, h.work.try, target),
		Target: target, Expected: m.failed, Agent: h.id, Incident: m.incident,
	}})
}

func (c *core) onRecovered(e evRecovered) {
	if e.agent == "" {
		c.onLocalAnswer(e)
		return
	}
	h, ok := c.held[e.agent]
	if !ok || h.mission == nil || h.token != e.token || h.doing != acting {
		return
	}
	if e.err != nil { // the same op again, after a look
		c.noAnswer(h, "its exec does not answer")
		return
	}
	ans := e.answer
	switch ans.Outcome {
	case p2pnode.OutcomeDone:
		c.did(h, ans, true)
	case p2pnode.OutcomeAlreadyDone:
		if ans.By.Kind == p2pnode.ByExec && !ans.By.Fallback && !h.mission.verifyOnly && !h.work.inquired {
			c.release(h, 0) // its host started it like any other: nothing was repaired
			return
		}
		c.did(h, ans, ans.By.Kind == p2pnode.ByAgent && ans.By.Agent == h.id)
	case p2pnode.OutcomeScheduled:
		h.work.promised = true
		c.again(h, ans.At.Sub(c.now)+busyRetry)
	case p2pnode.OutcomeBusy:
		h.work.promised = true
		c.again(h, busyRetry)
	default:
		c.refusedBy(h, ans)
	}
}

// again asks with another op after a while.
func (c *core) again(h *here, after time.Duration) {
	h.work.try++
	if h.work.try > actTries {
		c.fail(h, "exec was busy with it until the agent gave up")
		return
	}
	h.doing, h.wake = thinking, c.now.Add(min(max(after, busyRetry), refusedFor))
}

// did: exec restarted it. The report goes out at once when it was this agent's
// doing; what another did is his, or the resident's, to report.
func (c *core) did(h *here, ans p2pnode.RecoverAnswer, own bool) {
	m, w := h.mission, &h.work
	w.answer, w.acted, w.own, w.actedAt, w.deadline = ans, true, own, c.now, c.now.Add(c.cfg.LifeWait)
	if own {
		w.timing = p2pnode.Timing{
			Dispatch: ms(m.claimedAt.Sub(m.knownAt)), Travel: ms(w.begun.Sub(m.claimedAt)), Act: ms(c.now.Sub(w.begun)),
		}
		if !ans.DetectedAt.IsZero() && !ans.VerifiedAt.IsZero() {
			// Both on exec's clock; what is left after our own way was detection.
			w.timing.Detect = ms(ans.VerifiedAt.Sub(ans.DetectedAt) - w.asked.Sub(m.knownAt))
		}
		c.reportMission(h, p2pnode.PhaseActed, "", "restarted "+c.thing(m), "")
	}
	h.doing, h.wake, c.stampDirty = awaiting, c.now.Add(lifePoll), true
	c.publishClaim(h, phaseSettle)
	c.missionBelief(h)
}

func ms(d time.Duration) float64 { return p2pnode.Milliseconds(max(d, 0)) }

func (c *core) refusedBy(h *here, ans p2pnode.RecoverAnswer) {
	would := "would have restarted " + c.thing(h.mission)
	if h.work.inquired {
		c.found(h, h.work.life) // its exec knows nothing of it: that one is new too
		return
	}
	switch ans.Reason {
	case p2pnode.RefusedHealthy, p2pnode.RefusedStale, p2pnode.RefusedStopped:
		c.release(h, 0) // nothing failed, or it is another life's story
	case p2pnode.RefusedExecDead:
		c.noAnswer(h, "its exec is dead")
	case p2pnode.RefusedObserve, p2pnode.RefusedOff:
		c.reportMission(h, p2pnode.PhaseObserved, "", would, p2pnode.Held(ans.Reason))
		c.release(h, refusedFor)
	case p2pnode.RefusedMaintenance, p2pnode.RefusedTraced:
		c.reportMission(h, p2pnode.PhaseRefused, "", "", p2pnode.Held(ans.Reason))
		c.release(h, refusedFor)
	default:
		c.reportMission(h, p2pnode.PhaseRefused, "exec says: "+string(ans.Reason), "", "")
		c.release(h, refusedFor)
	}
}
