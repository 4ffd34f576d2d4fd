package exec

import (
	"strconv"
	"time"

	"p2pnode"
)

// ended: the main process of an incarnation is gone.
func (p *policy) ended(now time.Time, ev evEnded) {
	s := p.svcs[ev.name]
	if s == nil || ev.inc != s.inc && (s.start == nil || ev.inc != s.start.old) {
		return // news of a life that was dealt with already
	}
	if s.phase == starting && s.start != nil && s.start.failure != nil && s.start.failure.live {
		ev.exit.Why = s.start.failure.why
		s.start.failure.exit = &ev.exit
		s.start.failure.live = false // whatever becomes of the start
	}
	s.lastExit = &ev.exit
	if s.phase == starting || s.phase == idle {
		return // it is being replaced, or was to be: this is how that looks
	}
	if s.spec.Name == p2pnode.SelfNode {
		p.nodeEnded()
	}
	wasStopping := s.phase == stopping
	s.phase, s.pid, s.stopKill, s.giveUp = idle, 0, time.Time{}, time.Time{}
	age := now.Sub(s.startedAt)
	p.clearHealth(s)
	switch {
	case wasStopping:
		p.stopped(now, s)
	case s.leaving: // before its turn
		p.set(now, s, p2pnode.StateStopping, endedBy(ev.exit))
	case s.stays(ev.exit):
		s.failure = nil
		p.set(now, s, p2pnode.StateExited, phrase(endedBy(ev.exit), "its restart policy leaves it so"))
		p.emit(effLeftSo{ev.name, ev.inc, ev.exit})
	default:
		class := p2pnode.ClassExited
		if ev.exit.Signal != "" {
			class = p2pnode.ClassSignalled
		}
		if s.spec.Name == p2pnode.SelfNode {
			class = p2pnode.ClassProcessDead
		}
		p.fail(now, s, failure{class: class, exit: &ev.exit}, age)
	}
}

// stays reports whether the restart policy lets an ended service be.
func (s *svc) stays(exit p2pnode.Exit) bool {
	switch s.spec.Restart {
	case p2pnode.RestartNo:
		return true
	case p2pnode.RestartOnFailure:
		return exit.Code == 0 && exit.Signal == "" && !exit.Unknown
	default:
		return false
	}
}

// done reports whether s has done its work: it ended well and is left so.
func (s *svc) done() bool {
	e := s.lastExit
	return s.state == p2pnode.StateExited && s.failure == nil && e != nil && e.Code == 0 && e.Signal == "" && !e.Unknown
}

// stopped: a stop that somebody ordered is through.
func (p *policy) stopped(now time.Time, s *svc) {
	p.emit(effCleanup{name: s.spec.Name, inc: s.inc})
	s.failure = nil
	p.down(now, s)
}

// fail takes down a new failure: when may it start again, who may act on it.
func (p *policy) fail(now time.Time, s *svc, f failure, age time.Duration) {
	if s.leaving {
		return
	}
	if s.failure != nil { // frozen or hung before, now dead too: the same failure
		f.claimed, f.op, f.graceEnd, f.due = s.failure.claimed, s.failure.op, s.failure.graceEnd, s.failure.due
		f.at = s.failure.at
		if s.failure.live {
			s.failure = &f
			p.decide(now, s)
			return
		}
	}
	f.at = now
	s.failures = append(recent(s.failures, now.Add(-loopWindow)), now)
	f.due = p.dueAfter(now, s, age)
	f.graceEnd = f.due.Add(p.graceOf(s, f.class)) // agents are told again when the backoff ends
	s.failure = &f
	p.decide(now, s)
}

// dueAfter is the earliest start after a failure of a life of the given age.
func (p *policy) dueAfter(now time.Time, s *svc, age time.Duration) time.Time {
	if plantNoBudget {
		return now
	}
	if len(s.failures) >= loopFailures {
		s.looping = true
	}
	switch {
	case s.looping:
		return now.Add(slowLane + time.Duration(p.rand.Int64N(int64(slowLane/3))))
	case s.delays == 0 && age >= freeLife:
		s.delays = 1
		return p.afterBudget(now, s, now)
	}
	wait := backoffFirst << min(max(s.delays-1, 0), 20)
	s.delays = max(s.delays, 1) + 1
	return p.afterBudget(now, s, now.Add(min(wait, backoffMax)))
}

// afterBudget moves a start to where it keeps budgetStarts in budgetWindow.
func (p *policy) afterBudget(now time.Time, s *svc, at time.Time) time.Time {
	s.starts = recent(s.starts, now.Add(-budgetWindow))
	if len(s.starts) < budgetStarts {
		return at
	}
	free := s.starts[len(s.starts)-budgetStarts].Add(budgetWindow)
	if free.After(at) {
		return free
	}
	return at
}

func recent(times []time.Time, since time.Time) []time.Time {
	for len(times) > 0 && !times[0].After(since) {
		times = times[1:]
	}
	return times
}

// graceOf is how long an agent may take before exec acts alone.
func (p *policy) graceOf(s *svc, class p2pnode.Class) time.Duration {
	switch {
	case s.spec.Name == p2pnode.SelfDoor, s.spec.Recover == p2pnode.RecoverLocal:
		return 0
	case s.spec.Name == p2pnode.SelfNode:
		if p.node.links == 0 || p.node.orders == 0 {
			return min(lonelyGrace, p.grace.Node)
		}
		return p.grace.Node
	case !p.nodeAnswers():
		return 0
	}
	return p.grace.Agent
}

// actAt is when exec starts s by itself.
func (s *svc) actAt() time.Time {
	f := s.failure
	if f.claimed != nil {
		return f.due
	}
	if f.graceEnd.After(f.due) {
		return f.graceEnd
	}
	return f.due
}

// waits reports whether only time stands before a start; other reasons wait for
// a person.
func heldWaits(h p2pnode.Held) bool {
	return h == "" || h == p2pnode.HeldBackoff || h == p2pnode.HeldBudget
}

// heldBy says who or what forbids a start of s now.
func (p *policy) heldBy(now time.Time, s *svc) p2pnode.Held {
	f := s.failure
	switch {
	case s.maintEnds.After(now):
		return p2pnode.HeldMaintenance
	case p.observe && !s.self(), s.observe:
		return p2pnode.HeldObserve
	case s.spec.Recover == p2pnode.RecoverOff:
		return p2pnode.HeldOff
	case f.traced:
		return p2pnode.HeldTraced
	case !f.due.After(now):
		return ""
	case s.looping, len(s.starts) >= budgetStarts:
		return p2pnode.HeldBudget
	}
	return p2pnode.HeldBackoff
}

func (s *svc) self() bool {
	return s.spec.Name == p2pnode.SelfNode || s.spec.Name == p2pnode.SelfDoor
}

// decide looks at a failure and either holds, waits or starts.
func (p *policy) decide(now time.Time, s *svc) {
	f := s.failure
	if f == nil || s.start != nil || s.phase == stopping || p.shutdown.on || s.stopped || s.removed {
		return
	}
	held := p.heldBy(now, s)
	waits := heldWaits(held)
	if !f.said || held != f.held && f.claimed == nil {
		f.said, f.held = true, held
		p.sayFailure(now, s)
	}
	f.held = held
	if held == p2pnode.HeldTraced && s.probeAt.IsZero() {
		s.probeAt = now.Add(blockedEvery) // has the debugger left?
	}
	p.showFailure(now, s)
	if !s.probeAt.IsZero() {
		return // missing, blocked, unkillable: the world decides
	}
	if !waits || s.actAt().After(now) || p.storms(now, s) {
		return
	}
	by := p2pnode.By{Kind: p2pnode.ByExec, Fallback: s.spec.Recover == p2pnode.RecoverAgent && s.spec.Name != p2pnode.SelfDoor}
	if f.claimed != nil {
		by = *f.claimed
	}
	p.begin(now, s, f, by, f.op, false)
}

// storms puts off a start of what keeps failing where the host has seen too many of
// those just now: fifty crashing services must leave room for the first crash of
// the fifty-first, which is never put off.
func (p *policy) storms(now time.Time, s *svc) bool {
	if s.delays <= 1 && !s.looping || s.self() {
		return false
	}
	p.storm = recent(p.storm, now.Add(-stormWindow))
	if len(p.storm) >= stormStarts {
		s.failure.due = p.storm[len(p.storm)-stormStarts].Add(stormWindow)
		return true
	}
	p.storm = append(p.storm, now)
	return false
}

func (p *policy) sayFailure(now time.Time, s *svc) {
	f := s.failure
	p.emit(effEvent{p2pnode.ExecEvent{
		At: now, Event: p2pnode.FactFailed, Service: s.spec.Name, Target: p.target(s), PID: s.pid,
		Class: f.class, State: s.state, Held: f.held, Exit: f.exit, DetectedAt: f.at, Detail: f.why,
	}})
}

// showFailure makes ps tell what a failed service waits for.
func (p *policy) showFailure(now time.Time, s *svc) {
	f := s.failure
	if f.live || !s.probeAt.IsZero() {
		return
	}
	switch {
	case !heldWaits(f.held):
		p.set(now, s, p2pnode.StateExited, phrase(s.downBy(), "not restarted: "+string(f.held)))
	case s.looping:
		p.set(now, s, p2pnode.StateCrashLooping, phrase(s.downBy(), "it keeps failing: one start a minute"))
	default:
		p.set(now, s, p2pnode.StateBackoff, s.downBy())
	}
	if heldWaits(f.held) && s.worldAt.IsZero() && f.due.Sub(now) > worldEvery {
		s.worldAt = now.Add(worldEvery)
	}
}

// downBy is what ended s, for people; "" where nothing is known.
func (s *svc) downBy() string {
	f := s.failure
	switch {
	case s.startSaid != "":
		return s.startSaid
	case f.exit == nil:
		return string(f.class)
	}
	return endedBy(*f.exit)
}

// endedBy is an exit for people.
func endedBy(e p2pnode.Exit) string {
	switch {
	case e.OOM:
		return "killed: out of memory"
	case e.Signal != "":
		return "ended by " + e.Signal
	case e.Unknown:
		return "ended, nobody saw how"
	}
	return "ended: exit " + strconv.Itoa(e.Code)
}

func phrase(cause, more string) string {
	if cause == "" {
		return more
	}
	return cause + "; " + more
}

// begin starts s: the incarnation is allocated here and nowhere else.
func (p *policy) begin(now time.Time, s *svc, f *failure, by p2pnode.By, op string, force bool) *startRequest {
	old := s.inc
	r := &startRequest{old: old, target: p.target(s), by: by, op: op, failure: f}
	s.start, s.waiting, s.probeAt, s.worldAt, s.renewAt = r, false, time.Time{}, time.Time{}, time.Time{}
	if s.inc.IsZero() || !plantSameIncarnation {
		s.inc = s.inc.Next()
	}
	s.phase, s.says, s.startSaid = starting, "", ""
	s.starts = append(recent(s.starts, now.Add(-budgetWindow)), now)
	eff := effStart{name: s.spec.Name, inc: s.inc, old: old, target: r.target, by: by, op: op, force: force, starts: s.starts, restarts: s.restarts}
	if s.lived {
		eff.restarts++
	}
	if f != nil {
		eff.class, eff.live, eff.failed, eff.why = f.class, f.live, f.at, f.why
	}
	if s.spec.Name == p2pnode.SelfNode {
		p.nodeEnded()
	}
	p.emit(eff)
	p.set(now, s, p2pnode.StateStarting, "")
	return r
}

func (p *policy) started(now time.Time, ev evStarted) {
	s := p.svcs[ev.name]
	if s == nil || s.start == nil || ev.inc != s.inc {
		return
	}
	r := s.start
	s.start, s.phase, s.pid, s.adopted = nil, running, ev.pid, false
	s.startedAt, s.readyAt, s.failure = now, time.Time{}, nil
	s.lastBy = r.by
	if s.lived {
		s.restarts++
	}
	s.lived = true
	p.armHealth(now, s)
	if s.spec.Name == p2pnode.SelfNode {
		p.node.links, p.node.orders = 0, 0
	}
	if r.failure != nil {
		f := r.failure
		p.emit(effEvent{p2pnode.ExecEvent{
			At: now, Event: p2pnode.FactActed, Service: ev.name, Target: r.target, New: s.inc.String(), PID: ev.pid,
			Class: f.class, Exit: f.exit, By: r.by, DetectedAt: f.at, VerifiedAt: ev.looked, StartedAt: now,
		}})
	}
	p.answerStarted(now, s, r, ev.looked)
	if s.stopLate || p.shutdown.stops(s) {
		s.stopLate = false
		p.stop(now, s)
		return
	}
	if s.spec.Ready == p2pnode.ReadyStarted {
		p.ready(now, s)
	}
}

func (p *policy) startFailed(now time.Time, ev evStartFailed) {
	s := p.svcs[ev.name]
	if s == nil || s.start == nil || ev.inc != s.inc {
		return
	}
	r := s.start
	s.start, s.phase = nil, idle
	s.inc = r.old // nothing of the new number ran: the old life is the one that is missed
	f := r.failure
	if f == nil {
		f = &failure{at: now, due: now, graceEnd: now}
	}
	s.failure = f
	if ev.kind != startBroken && len(s.starts) > 0 {
		s.starts = s.starts[:len(s.starts)-1] // nothing ran: no budget used
	}
	if s.stopLate || s.leaving || p.shutdown.stops(s) {
		if s.stopLate = false; !s.leaving {
			p.stopped(now, s)
		}
		s.failure = nil
		p.answerWaiting(now, s, r)
		return
	}
	if f.live && ev.kind != startBlocked && ev.kind != startBroken {
		p.notReplaced(now, s, f, ev)
		p.answerWaiting(now, s, r)
		return
	}
	f.live = false
	s.startSaid = ev.text
	switch ev.kind {
	case startMissing, startRetry:
		p.missing(now, s, f, ev.text)
	case startBlocked:
		s.probeAt = now.Add(blockedEvery)
		p.set(now, s, p2pnode.StateBlocked, ev.text)
	case startUnkillable:
		s.probeAt = now.Add(blockedEvery)
		p.set(now, s, p2pnode.StateUnkillable, ev.text)
	case startBroken:
		f.due = p.dueAfter(now, s, 0)
		f.graceEnd = f.due
		p.decide(now, s)
	}
	s.why = ev.text
	p.answerWaiting(now, s, r)
}

// notReplaced: the failed process is still there, since it does not die, or since
// nothing could be started in its place.
func (p *policy) notReplaced(now time.Time, s *svc, f *failure, ev evStartFailed) {
	s.phase = running
	state := p2pnode.StateHung
	if f.class == p2pnode.ClassFrozen {
		state = p2pnode.StateFrozen
	}
	if ev.kind == startTraced {
		p.set(now, s, state, ev.text)
		f.traced, f.said = true, false
		p.decide(now, s)
		return
	}
	f.due = now.Add(blockedEvery)
	f.graceEnd = f.due
	if ev.kind == startUnkillable {
		s.probeAt = f.due
		p.set(now, s, p2pnode.StateUnkillable, ev.text)
		return
	}
	p.set(now, s, state, ev.text)
}

// missing: the world lacks what the start needs; look at it again and again.
func (p *policy) missing(now time.Time, s *svc, f *failure, text string) {
	s.probeAt = now.Add(worldEvery)
	first := s.state != p2pnode.StateMissing && f.class != p2pnode.ClassMissing
	f.class, f.live = p2pnode.ClassMissing, false
	p.set(now, s, p2pnode.StateMissing, text)
	if first {
		f.said = true
		p.sayFailure(now, s)
	}
}

// probe asks the runner to look at what a service waits for in the world.
func (p *policy) probe(now time.Time, s *svc) {
	s.probeAt = time.Time{}
	switch s.state {
	case p2pnode.StateMissing:
		s.probeAt = now.Add(worldEvery)
	case p2pnode.StateBlocked, p2pnode.StateUnkillable:
		s.probeAt = now.Add(blockedEvery)
	default:
		if s.failure == nil || !s.failure.traced {
			return
		}
		s.probeAt = now.Add(blockedEvery)
	}
	p.emit(effProbe{s.spec.Name})
}

// lookAtWorld asks the runner whether the program of a service that keeps failing
// is another one by now: a mended one is tried at once.
func (p *policy) lookAtWorld(now time.Time, s *svc) {
	s.worldAt = time.Time{}
	if s.failure == nil || s.phase != idle || !s.probeAt.IsZero() {
		return
	}
	s.worldAt = now.Add(worldEvery)
	p.emit(effProbe{s.spec.Name})
}

// worldChanged: what a service waited for is different now; try at once.
func (p *policy) worldChanged(now time.Time, ev evWorld) {
	s := p.svcs[ev.name]
	if s == nil || s.start != nil || s.failure == nil || s.stopped || p.shutdown.on {
		return
	}
	if s.phase == running && s.failure.traced {
		s.failure.traced, s.probeAt = false, time.Time{}
		p.decide(now, s)
	}
	if s.phase != idle || !heldWaits(p.heldBy(now, s)) {
		return
	}
	if s.probeAt.IsZero() && (s.looping || s.state == p2pnode.StateBackoff) {
		p.tryAtOnce(now, s)
		return
	}
	by := p2pnode.By{Kind: p2pnode.ByExec}
	if s.failure.claimed != nil {
		by = *s.failure.claimed
	}
	p.begin(now, s, s.failure, by, s.failure.op, false)
}
