package exec

import (
	"time"

	"p2pnode"
)

// health is what checks, heartbeats and the kernel say of a running process.
type health struct {
	checks     []*checker
	rules      int       // how often checks were changed in this life
	begun      bool      // its start is over: a bad answer counts
	beatBy     time.Time // watchdog deadline
	readyBy    time.Time // until READY must have been said
	granted    bool      // one more period was given
	draining   bool
	saidReady  bool      // READY, in this life
	frozenTill time.Time // grace of a stop
	looking    bool      // it is over: is a debugger there?
	wasState   p2pnode.ServiceState
}

func (h *health) deadlines(give func(time.Time)) {
	give(h.frozenTill)
	for _, c := range h.checks {
		if !c.asking {
			give(c.at)
		}
	}
	if !h.draining {
		give(h.beatBy)
		give(h.readyBy)
	}
}

func (p *policy) clearHealth(s *svc) {
	s.health = health{}
	s.readyAt = time.Time{}
}

// armHealth starts the clocks of a fresh or adopted process.
func (p *policy) armHealth(now time.Time, s *svc) {
	s.health = health{}
	p.armChecks(now, s, s.young(now))
	p.armWords(now, s)
}

// armWords starts the clocks of what it is to say by itself.
func (p *policy) armWords(now time.Time, s *svc) {
	if s.spec.Watchdog > 0 {
		s.health.beatBy = now.Add(max(s.spec.StartWithin, s.spec.Watchdog))
		if s.adopted {
			s.health.beatBy = now.Add(2 * s.spec.Watchdog)
		}
	}
	if s.spec.Ready == p2pnode.ReadyNotify && !s.adopted && s.readyAt.IsZero() {
		s.health.readyBy = now.Add(s.spec.StartWithin)
	}
}

// overdue are the words of a service that should have come by now.
func (h *health) overdue(now time.Time) (beat, ready bool) {
	return due(now, h.beatBy), due(now, h.readyBy)
}

// grant gives each word that is overdue one more period.
func (s *svc) grant(now time.Time) {
	beat, ready := s.health.overdue(now)
	if beat {
		s.health.beatBy = now.Add(s.spec.Watchdog)
	}
	if ready {
		s.health.readyBy = now.Add(s.spec.StartWithin)
	}
}

// ready: the process works; what waits for it may start.
func (p *policy) ready(now time.Time, s *svc) {
	if s.failure != nil && s.health.hung() {
		return // whatever it says by itself
	}
	if s.readyAt.IsZero() {
		s.readyAt = now
	}
	s.health.readyBy = time.Time{}
	p.cameBack(s)
	if s.failure != nil || s.state == p2pnode.StateFrozen || s.health.down() {
		return
	}
	p.set(now, s, p2pnode.StateUp, "")
	p.retryDependents(now, s)
}

// hang: the process is there and does not do its work.
func (p *policy) hang(now time.Time, s *svc, class p2pnode.Class, why string, traced bool) {
	if s.failure != nil || s.leaving {
		return
	}
	age := now.Sub(s.startedAt)
	s.readyAt = time.Time{}
	p.set(now, s, p2pnode.StateHung, why)
	p.fail(now, s, failure{class: class, live: true, traced: traced, why: why}, age)
}

func (p *policy) notified(now time.Time, ev evNotified) {
	s := p.svcs[ev.name]
	if s != nil && s.phase == stopping && ev.more > 0 && !s.stopKill.IsZero() {
		s.stopKill = p.extended(now, s, ev.more)
	}
	if s == nil || s.phase != running {
		return
	}
	h := &s.health
	if ev.text != "" {
		s.says = ev.text
	}
	if s.spec.Watchdog > 0 {
		switch {
		case ev.hung:
			p.hang(now, s, p2pnode.ClassHung, "it says that it hangs", false)
			return
		case ev.beat || ev.ready:
			h.beatBy, h.granted = now.Add(s.spec.Watchdog), false
			p.beatsAgain(now, s)
		}
	}
	for _, by := range []*time.Time{&h.beatBy, &h.readyBy} {
		if ev.more > 0 && !by.IsZero() {
			*by = later(*by, now.Add(ev.more))
		}
	}
	if ev.ready && s.spec.Ready == p2pnode.ReadyNotify {
		h.saidReady = true
		p.ready(now, s)
	}
}

// beatsAgain takes back that s hangs, where a heartbeat says that it does not.
func (p *policy) beatsAgain(now time.Time, s *svc) {
	if !s.health.cures() || !p.cameBack(s) {
		return
	}
	switch {
	case s.health.good():
		p.ready(now, s)
	case s.state == p2pnode.StateHung:
		p.set(now, s, p2pnode.StateStarting, "")
	}
}

// cures reports whether a heartbeat is all that is missed: no check found it hung, and it
// has said READY where that is awaited.
func (h *health) cures() bool { return h.readyBy.IsZero() && !h.hung() }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// watchdogs looks at all missed heartbeats of one tick together. A timer that is
// late itself, or several at once, tell of a stalled host, not of hung services:
// each gets one more period, once.
func (p *policy) watchdogs(now time.Time, late time.Duration) {
	var missed []*svc
	for s := range p.all {
		h := &s.health
		beat, ready := h.overdue(now)
		if s.phase != running || h.draining || !beat && !ready {
			continue
		}
		if s.state == p2pnode.StateFrozen || s.failure != nil {
			s.grant(now)
			continue
		}
		missed = append(missed, s)
	}
	for _, s := range missed {
		h := &s.health
		period := s.spec.Watchdog
		if beat, _ := h.overdue(now); !beat {
			period = s.spec.StartWithin
		}
		if !h.granted && (late > period/4 || len(missed) > 1) {
			h.granted = true
			s.grant(now)
			continue
		}
		h.draining = true
		p.emit(effDrain{s.spec.Name})
	}
}

// looked: all heartbeats that were under way have been counted by now, and
// whether somebody holds the process is known.
func (p *policy) looked(now time.Time, ev evLooked) {
	s := p.svcs[ev.name]
	if s == nil || s.phase != running {
		return
	}
	h := &s.health
	if h.looking {
		h.looking = false
		if s.state == p2pnode.StateFrozen && s.failure == nil {
			p.fail(now, s, failure{class: p2pnode.ClassFrozen, live: true, traced: ev.traced}, now.Sub(s.startedAt))
		}
	}
	if !h.draining {
		return
	}
	h.draining = false
	beat, ready := h.overdue(now)
	if !beat && !ready || s.state == p2pnode.StateFrozen {
		return
	}
	s.grant(now)
	if ev.held {
		return // it could not beat: that is no failure of its own
	}
	why := "no heartbeat for " + s.spec.Watchdog.String()
	if ready {
		why = "not ready within " + s.spec.StartWithin.String()
	}
	p.hang(now, s, p2pnode.ClassHung, why, false)
}

func (p *policy) frozen(now time.Time, ev evFrozen) {
	s := p.svcs[ev.name]
	if s == nil || s.phase != running || ev.inc != s.inc || s.state == p2pnode.StateFrozen {
		return
	}
	h := &s.health
	h.wasState = s.state
	h.frozenTill = now.Add(s.spec.StopGrace)
	if s.spec.Name == p2pnode.SelfNode {
		h.frozenTill = now.Add(p.grace.NodeStop)
	}
	p.set(now, s, p2pnode.StateFrozen, "it was stopped (SIGSTOP)")
	if s.spec.Name == p2pnode.SelfNode {
		p.actAlone(now)
	}
	p.tickHealth(now, s, 0)
}

func (p *policy) thawed(now time.Time, ev evThawed) {
	s := p.svcs[ev.name]
	if s == nil || s.state != p2pnode.StateFrozen || s.phase != running {
		return
	}
	h := &s.health
	h.frozenTill, h.looking = time.Time{}, false
	for _, c := range h.checks {
		c.failing, c.lastGood = 0, now
	}
	if !h.beatBy.IsZero() {
		h.beatBy = later(h.beatBy, now.Add(s.spec.Watchdog))
	}
	if !h.readyBy.IsZero() {
		h.readyBy = later(h.readyBy, now.Add(s.spec.StartWithin))
	}
	if s.failure != nil && s.failure.class == p2pnode.ClassFrozen {
		s.failure, s.probeAt = nil, time.Time{}
	}
	back := h.wasState
	if back == "" || back == p2pnode.StateFrozen || back == p2pnode.StateHung {
		back = p2pnode.StateStarting
	}
	if !s.readyAt.IsZero() && !h.down() {
		back = p2pnode.StateUp
	}
	p.set(now, s, back, "")
}

// tickHealth does what is due for a running process; late is how late this tick is.
func (p *policy) tickHealth(now time.Time, s *svc, late time.Duration) {
	h := &s.health
	if due(now, h.frozenTill) {
		h.frozenTill = time.Time{}
		if s.failure == nil && s.state == p2pnode.StateFrozen {
			h.looking = true
			p.emit(effLook{s.spec.Name})
		}
	}
	p.tickChecks(now, s, late)
}

// nodeSaid: the node process connected, spoke or its connection ended.
func (p *policy) nodeSaid(now time.Time, ev evNode) {
	s := p.svcs[p2pnode.SelfNode]
	if !ev.connected {
		p.node.connected = false
		p.actAlone(now)
		return
	}
	p.node.connected, p.node.links, p.node.orders = true, ev.links, ev.orders
	if !ev.life.IsZero() {
		p.node.life = ev.life
	}
	if s == nil || s.phase != running {
		return
	}
	spoke := now
	if !ev.at.IsZero() {
		spoke = ev.at
	}
	s.health.beatBy, s.health.granted = spoke.Add(nodeSilence), false
	if s.readyAt.IsZero() {
		p.ready(now, s)
	}
}

// actAlone: nobody is there to claim, so what waits for an agent waits no longer.
func (p *policy) actAlone(now time.Time) {
	for s := range p.all {
		if f := s.failure; f != nil && !s.self() && f.graceEnd.After(now) && f.claimed == nil {
			f.graceEnd = now
			p.decide(now, s)
		}
	}
}

// nodeAnswers reports whether a node process is there that may claim a failure: a
// stopped one is connected and does nothing.
func (p *policy) nodeAnswers() bool {
	n := p.svcs[p2pnode.SelfNode]
	return p.node.connected && (n == nil || n.state != p2pnode.StateFrozen && n.state != p2pnode.StateHung)
}

// nodeWell reports whether all that a node process can do by speaking again is to live on.
func (p *policy) nodeWell() bool {
	n := p.svcs[p2pnode.SelfNode]
	return p.node.connected && n != nil && n.phase == running && n.state == p2pnode.StateUp && n.failure == nil
}

// nodeEnded forgets the life that ended, after telling the door about it.
func (p *policy) nodeEnded() {
	if p.node.nameless() {
		return
	}
	p.emit(effDeath{p.node.life})
	p.node.previous = p.node.life
	p.node.connected = false
}
