package exec

import (
	"strconv"
	"strings"
	"time"

	"p2pnode"
)

// health is what checks, heartbeats and the kernel say of a running process.
type health struct {
	checkAt    time.Time
	asked      time.Time     // when the last question went out
	gap        time.Duration // between questions until the first good answer
	asking     bool
	failing    int // in a row
	passing    int // in a row
	everGood   bool
	lastGood   time.Time
	lastErr    string
	answers    []string  // the last ones that were no good
	askedLate  bool      // the last question went out late
	pardoned   bool      // a bad answer was not counted since the last good one
	beatBy     time.Time // watchdog deadline
	readyBy    time.Time // until READY must have been said
	granted    bool      // one more period was given
	draining   bool
	frozenTill time.Time // grace of a stop
	looking    bool      // it is over: is a debugger there?
	wasState   p2pnode.ServiceState
	busySince  time.Time // failing, but working
}

func (h *health) deadlines() []time.Time {
	out := []time.Time{h.frozenTill}
	if !h.asking {
		out = append(out, h.checkAt)
	}
	if !h.draining {
		out = append(out, h.beatBy, h.readyBy)
	}
	return out
}

func (p *policy) clearHealth(s *svc) {
	s.health = health{lastErr: s.health.lastErr}
	s.readyAt = time.Time{}
}

// armHealth starts the clocks of a fresh or adopted process.
func (p *policy) armHealth(now time.Time, s *svc) {
	s.health = health{gap: firstCheck, lastGood: now}
	if c := s.spec.Check; c != nil {
		s.health.checkAt = now.Add(firstCheck)
		if s.adopted {
			s.health.checkAt = now.Add(time.Duration(p.rand.Int64N(int64(c.Every))))
		}
	}
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
	if s.readyAt.IsZero() {
		s.readyAt = now
	}
	s.health.readyBy = time.Time{}
	if s.failure != nil && s.failure.live && s.failure.class != p2pnode.ClassFrozen && s.start == nil {
		s.failure, s.probeAt = nil, time.Time{} // it came back by itself before anybody acted
	}
	if s.failure != nil || s.state == p2pnode.StateFrozen {
		return
	}
	p.set(now, s, p2pnode.StateUp, "")
	p.wakeDependents(now, s)
	p.renewRequiring(now, s)
}

func (p *policy) checked(now time.Time, ev evChecked) {
	s := p.svcs[ev.name]
	if s == nil {
		return
	}
	h := &s.health
	if s.phase != running || ev.inc != s.inc || s.spec.Check == nil {
		return
	}
	h.asking = false
	h.checkAt = later(now, h.asked.Add(p.checkGap(s, ev.err == nil)))
	switch {
	case ev.err == nil:
		h.failing, h.lastGood, h.busySince, h.pardoned = 0, now, time.Time{}, false
		if h.passing++; h.passing < s.spec.Check.Good {
			return // not yet
		}
		h.everGood, h.lastErr, h.answers = true, "", nil
		h.checkAt = later(now, h.asked.Add(p.checkGap(s, true)))
		if s.spec.Ready == p2pnode.ReadyCheck || !s.readyAt.IsZero() {
			p.ready(now, s)
		}
	case ev.skip:
		h.failing = 0
		if ev.traced && s.failure != nil {
			s.failure.traced = true
			p.decide(now, s)
		}
	default:
		p.checkFailed(now, s, ev)
	}
}

// checkGap is the time from one question to the next: short and doubling until the
// first good answer, then the period with a tenth of jitter. A question that runs
// into its timeout is a part of that period, not on top of it: three of them take
// three periods to tell, not six.
func (p *policy) checkGap(s *svc, good bool) time.Duration {
	every := s.spec.Check.Every
	if !good && s.health.everGood {
		return every // whether it hangs is to be known soon
	}
	if s.health.everGood || s.adopted {
		return every + time.Duration(p.rand.Int64N(int64(every/10)+1))
	}
	gap := min(s.health.gap, every)
	s.health.gap *= 2
	return gap
}

func (p *policy) checkFailed(now time.Time, s *svc, ev evChecked) {
	h := &s.health
	h.passing = 0
	if (ev.late || h.askedLate) && !h.pardoned {
		h.pardoned, h.lastGood = true, now
		return // the host stood still, and the service with it: one more period, once
	}
	h.lastErr = ev.err.Error()
	h.answers = append(h.answers[max(0, len(h.answers)-lastAnswers+1):], h.lastErr)
	if !h.everGood && now.Sub(s.startedAt) < s.spec.StartWithin && !s.adopted {
		return
	}
	h.failing++
	if h.failing < s.spec.Check.Failures {
		return
	}
	if s.spec.Check.Unready {
		if s.failure == nil && s.state != p2pnode.StateFrozen {
			p.set(now, s, p2pnode.StateUnready, h.lastErr)
		}
		return
	}
	if ev.busy >= busyProgress {
		if h.busySince.IsZero() {
			h.busySince = now
		}
		if now.Sub(h.lastGood) < busyLimit {
			if s.failure == nil && s.state != p2pnode.StateFrozen {
				p.set(now, s, p2pnode.StateUnready, "busy, not hung: "+h.lastErr)
			}
			return
		}
	}
	class := p2pnode.ClassCheckFailed
	if ev.timeout {
		class = p2pnode.ClassHung
	}
	p.hang(now, s, class, h.say(), ev.traced)
}

// say tells the last answers of a check that failed, newest last; what came several
// times in a row is counted.
func (h *health) say() string {
	var out []string
	for i := 0; i < len(h.answers); {
		n := i
		for n < len(h.answers) && h.answers[n] == h.answers[i] {
			n++
		}
		text := h.answers[i]
		if n-i > 1 {
			text += " (" + strconv.Itoa(n-i) + " times)"
		}
		out, i = append(out, text), n
	}
	text := strings.Join(out, "; ")
	return strings.ToValidUTF8(text[max(0, len(text)-maxWhy):], "")
}

// hang: the process is there and does not do its work.
func (p *policy) hang(now time.Time, s *svc, class p2pnode.Class, why string, traced bool) {
	if s.failure != nil {
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
		s.stopKill = later(s.stopKill, now.Add(ev.more)) // a shutdown's own deadline holds all the same
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
		}
	}
	for _, by := range []*time.Time{&h.beatBy, &h.readyBy} {
		if ev.more > 0 && !by.IsZero() {
			*by = later(*by, now.Add(ev.more))
		}
	}
	if ev.ready && s.spec.Ready == p2pnode.ReadyNotify {
		p.ready(now, s)
	}
}

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
	h.frozenTill, h.looking, h.failing, h.lastGood = time.Time{}, false, 0, now
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
	if !s.readyAt.IsZero() {
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
	if s.spec.Check == nil || h.asking || !due(now, h.checkAt) {
		return
	}
	if s.state == p2pnode.StateFrozen {
		h.checkAt = now.Add(s.spec.Check.Every)
		return
	}
	p.ask(now, s, late > s.spec.Check.Every/4)
}

func (p *policy) ask(now time.Time, s *svc, late bool) {
	s.health.asking, s.health.asked, s.health.askedLate = true, now, late
	p.emit(effCheck{name: s.spec.Name, inc: s.inc})
}

// gather asks, beside a question that is due, what would be asked soon anyway: ten
// services wake an idle host once a second then, and not ten times. What failed last
// keeps its own time.
func (p *policy) gather(now time.Time) {
	asked := 0
	for s := range p.all {
		if s.health.asking && s.health.asked.Equal(now) {
			asked++
		}
	}
	if asked == 0 {
		return
	}
	for s := range p.all {
		h := &s.health
		if asked == checkBurst {
			return
		}
		if s.phase != running || s.spec.Check == nil || h.asking || h.failing > 0 || !h.everGood || s.state == p2pnode.StateFrozen {
			continue
		}
		if h.checkAt.Sub(now) <= min(s.spec.Check.Every/4, checkGather) {
			p.ask(now, s, false)
			asked++
		}
	}
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
	s.health.beatBy, s.health.granted = now.Add(nodeSilence), false
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

// nodeEnded forgets the life that ended, after telling the door about it.
func (p *policy) nodeEnded() {
	if p.node.nameless() {
		return
	}
	p.emit(effDeath{p.node.life})
	p.node.previous = p.node.life
	p.node.connected = false
}
