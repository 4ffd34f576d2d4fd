package agent

import (
	"time"

	"p2pnode"
)

// missionBelief lets an agent that waits for the next life see it in the hello
// before the door is asked again, and ends missions that have lost their reason.
func (c *core) missionBelief(h *here) {
	m := h.mission
	if m == nil || m.service != "" {
		return
	}
	b := c.beliefs.Peers[m.target]
	next := b.Verdict == p2pnode.Alive && !b.Life.IsZero() && b.Life.String() != m.failed
	switch {
	case !next:
	case h.doing == awaiting:
		c.settle(h, b.Life)
	case h.doing == thinking && !m.verifyOnly && !h.work.acted && !h.work.promised:
		c.found(h, b.Life)
	}
}

func (c *core) seeNextLife(h *here, e evDoor) {
	h.wake = c.now.Add(lifePoll)
	w := e.word
	if e.err != nil {
		return
	}
	if h.mission.service == p2pnode.SelfExec {
		if w.ExecAlive {
			c.settle(h, w.NodeLife)
		}
		return
	}
	if w.NodeAlive && !w.NodeLife.IsZero() && w.NodeLife.String() != h.mission.failed {
		c.settle(h, w.NodeLife)
		return
	}
	if h.work.answer.Outcome == "" || !w.ExecAlive {
		return
	}
	if h.mission.verifyOnly && !w.NodeAlive {
		c.fail(h, "it is dead again")
	}
}

func (c *core) settle(h *here, life p2pnode.Life) {
	w := &h.work
	w.life, w.upAt, w.acted = life, c.now, true
	settle := c.cfg.Settle
	if w.own {
		w.timing.Total = ms(c.now.Sub(h.mission.knownAt)) + w.timing.Detect
	} else if !h.mission.verifyOnly {
		settle *= orphanSettle // left to whoever acted
	}
	h.doing, h.wake, c.stampDirty = settling, c.now.Add(settle), true
	c.publishClaim(h, phaseSettle)
}

// judge says how it ended: up after the settle time with the life that came up.
func (c *core) judge(h *here, e evDoor) {
	m, w := h.mission, &h.work
	if e.err != nil {
		w.tries++
		b := c.beliefs.Peers[m.target]
		if b.Verdict == p2pnode.Alive && b.Life == w.life {
			c.verified(h)
			return
		}
		if w.tries < 2*knockTries {
			h.doing, h.wake = settling, c.now.Add(knockRetry)
			return
		}
		c.fail(h, "its door does not answer after the repair")
		return
	}
	up := e.word.NodeAlive && e.word.NodeLife == w.life
	if m.service == p2pnode.SelfExec {
		up = e.word.ExecAlive
	}
	if !up {
		c.fail(h, "it did not stay up")
		return
	}
	c.verified(h)
}

// verified tells that it held; of what another did only if he has not told it.
func (c *core) verified(h *here) {
	h.work.timing.Verify = ms(c.now.Sub(h.work.upAt))
	switch {
	case h.work.own:
		c.reportMission(h, p2pnode.PhaseVerified, "", "", "")
	case h.work.answer.Outcome == "" && !h.mission.verifyOnly:
		c.emit(fxOrphan{c.missionReport(h, p2pnode.PhaseVerified, "it came back, and no agent had to act", "", "")})
	default:
		c.emit(fxOrphan{c.missionReport(h, p2pnode.PhaseVerified, "", "", "")})
	}
	c.finish(h, phaseDone, doneFor)
}

// fail ends a mission with a report of why. What was tried before without an
// act, and told, is not told again.
func (c *core) fail(h *here, why string) {
	phase := phaseReleased
	if h.work.acted || h.mission.verifyOnly {
		phase = phaseDone // the story of this life is over
	}
	if w := c.watches[h.mission.incident]; phase == phaseDone || w == nil || w.releases == 0 {
		c.reportMission(h, p2pnode.PhaseFailed, why, "", "")
	}
	c.finish(h, phase, releasedMax)
}

// release ends a mission without a word, or with one that was said before. rest
// is how long nobody should go again; 0 lets it grow with each release.
func (c *core) release(h *here, rest time.Duration) {
	c.finish(h, phaseReleased, rest)
}

func (c *core) finish(h *here, phase claimPhase, rest time.Duration) {
	cl := h.claim()
	cl.phase, cl.lease = phase, min(rest, maxLease)
	c.spreadClaim(cl)
	if w := c.watches[cl.incident]; w != nil && rest > 0 {
		w.rest(c.now, rest)
	}
	c.endMission(h)
}

// endMission makes a patrol of h again, or ends it when it serves no order.
func (c *core) endMission(h *here) {
	h.mission, h.work, h.doing, h.to = nil, work{}, dwelling, ""
	h.expires, h.wake = c.now.Add(patrolTTL), c.now
	c.stampDirty = true
	if h.order == "" {
		c.drop(h)
	}
}

func (c *core) thing(m *mission) string {
	switch m.service {
	case "":
		return "the node process of " + c.cfg.NameOf(m.target)
	case p2pnode.SelfExec:
		return "the exec service of " + c.cfg.NameOf(m.target)
	}
	return m.service
}

// reportMission tells the fleet what this agent saw and did.
func (c *core) reportMission(h *here, phase p2pnode.Phase, result, action string, held p2pnode.Held) {
	c.emit(fxReport{report: c.missionReport(h, phase, result, action, held)})
}

func (c *core) missionReport(h *here, phase p2pnode.Phase, result, action string, held p2pnode.Held) p2pnode.Report {
	m, w := h.mission, &h.work
	r := p2pnode.Report{
		At: c.now, Phase: phase, Agent: h.id, Incident: m.incident, Kind: p2pnode.KindNode,
		Node: m.target.String(), NodeName: c.cfg.NameOf(m.target), Service: m.service, Class: m.class,
		Observed: string(m.class), Action: action, Result: result, Held: held,
		Old: m.failed, Hops: m.hops, Direct: w.direct, Timing: w.timing,
	}
	for _, p := range m.trail {
		r.Trail = append(r.Trail, p.String())
	}
	if len(m.trail) == 0 || m.trail[len(m.trail)-1] != m.target {
		r.Trail = append(r.Trail, m.target.String())
	}
	if w.acted {
		r.By, r.Exit, r.DetectedAt = w.answer.By, w.answer.Exit, w.answer.DetectedAt
		if !w.life.IsZero() {
			r.New, r.RecoveredAt = w.life.String(), w.upAt
		}
		if w.answer.Outcome == p2pnode.OutcomeDone || phase == p2pnode.PhaseActed {
			r.Excerpt = w.answer.Excerpt
		}
	}
	if phase == p2pnode.PhaseActed && r.RecoveredAt.IsZero() {
		r.Timing.Total = 0
	}
	if phase == p2pnode.PhaseVerified {
		r.VerifiedAt = c.now
	}
	if r.DetectedAt.IsZero() {
		r.DetectedAt = m.knownAt
	}
	return r
}
