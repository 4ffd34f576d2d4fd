package exec

import (
	"slices"
	"time"

	"p2pnode"
)

// The verbs of a person.
const (
	verbStart   = "start"
	verbStop    = "stop"
	verbRestart = "restart"
)

// boot takes in what adoption found and starts the rest.
func (p *policy) boot(now time.Time, ev evBoot) {
	p.booted = true
	p.node.life = ev.life
	for _, f := range ev.found {
		p.adopt(now, f)
	}
	for _, e := range ev.ended {
		p.endedUnseen(now, e)
	}
	for _, u := range ev.unborn {
		if s := p.svcs[u.name]; s != nil {
			s.lived, s.starts, s.restarts = u.restarts > 0, u.starts, max(u.restarts-1, 0)
		}
	}
	if p.shutdown.on {
		p.shareOut() // among what it finds
	}
	for s := range p.all {
		if s.stopped && s.phase == running {
			p.leave(s) // the last exec did not get through with it
		}
	}
	for s := range p.all {
		if s.phase == idle && s.failure == nil && s.start == nil && !s.stopped && s.state != p2pnode.StateExited && !p.shutdown.on {
			p.first(now, s)
		}
	}
}

// adopt takes over a process that an earlier exec started.
func (p *policy) adopt(now time.Time, f found) {
	s := p.svcs[f.name]
	if s == nil {
		return
	}
	s.lived, s.inc, s.pid, s.adopted, s.phase, s.starts = true, f.inc, f.pid, !f.ours, running, f.starts
	s.startedAt, s.readyAt, s.lastExit, s.restarts = f.began, now, f.last, f.restarts
	p.armHealth(now, s)
	if s.spec.Name == p2pnode.SelfNode {
		s.readyAt = time.Time{}
		p.set(now, s, p2pnode.StateStarting, "")
		return
	}
	p.set(now, s, p2pnode.StateUp, "")
	if !f.started.IsZero() {
		s.since = f.started // it was up all the time, as far as anybody knows
	}
}

// endedUnseen is a death while no exec looked.
func (p *policy) endedUnseen(now time.Time, e evEnded) {
	s := p.svcs[e.name]
	if s == nil || s.stopped {
		return
	}
	s.lived, s.inc, s.phase, s.starts, s.restarts = true, e.inc, running, e.starts, e.restarts
	s.startedAt = now.Add(-freeLife) // nobody knows its age: give it the first start at once
	p.ended(now, e)
}

// first starts s, or makes it wait for all that it comes after.
func (p *policy) first(now time.Time, s *svc) {
	p.want(now, s, false, p2pnode.By{Kind: p2pnode.ByExec})
}

// want starts s, or makes it wait; for what, see wait.
func (p *policy) want(now time.Time, s *svc, needed bool, by p2pnode.By) {
	if p.missingOf(s.awaits(needed)) != nil {
		p.wait(s, needed)
		return
	}
	p.begin(now, s, nil, by, "", false)
}

// retryDependents tries at once what failed while s was not there.
func (p *policy) retryDependents(now time.Time, s *svc) {
	for d := range p.all {
		if !slices.Contains(d.spec.After, s.spec.Name) || p.shutdown.on {
			continue
		}
		if f := d.failure; f != nil && d.phase == idle && f.due.After(now) && p.missingOf(d.spec.After) == nil {
			p.tryAtOnce(now, d)
		}
	}
}

// tryAtOnce ends the wait of a service that kept failing: its world is another one
// now. The budget holds.
func (p *policy) tryAtOnce(now time.Time, s *svc) {
	f := s.failure
	s.looping = false
	f.due = p.afterBudget(now, s, now)
	f.graceEnd = f.due.Add(p.graceOf(s, f.class))
	p.decide(now, s)
}

// ordered carries out what a person wants; that beats every hold.
func (p *policy) ordered(now time.Time, ev evOrder) {
	s := p.svcs[ev.name]
	if s == nil || p.shutdown.on {
		return
	}
	wasStopped := s.stopped
	s.stopped = ev.verb == verbStop
	if s.stopped != wasStopped || s.stopped && s.intent.By == "" {
		s.intent = intent{}
		if s.stopped {
			s.intent = intent{At: now, By: ev.by}
		}
		p.emit(effPersist{})
	}
	switch {
	case ev.verb == verbStop:
		s.again, s.renewed = false, ""
		p.leave(s)
	case ev.verb == verbRestart && s.phase == running:
		s.again, s.renewed = true, ""
		p.leave(s)
	default:
		p.startRequired(now, s, ev.by)
		p.orderStart(now, s, ev.force)
	}
}

func (p *policy) orderStart(now time.Time, s *svc, force bool) {
	if s.leaving && !s.again { // a stop is taken back, a restart goes on
		s.leaving = false
		p.set(now, s, s.state, "")
		if s.state == p2pnode.StateFrozen {
			s.health.frozenTill = now.Add(s.spec.StopGrace) // nobody looked meanwhile
		}
	}
	switch {
	case s.leaving:
	case s.start != nil:
		s.stopLate = false
	case s.phase == stopping:
		s.again = true
	case s.phase == running && (s.failure == nil || !s.failure.live):
	case !force && s.phase == idle && p.missingOf(s.awaits(true)) != nil:
		p.wait(s, true)
	default:
		p.begin(now, s, s.failure, p2pnode.By{Kind: p2pnode.ByOperator}, "", force)
	}
}

// stop ends s in order: its signal, its time, then SIGKILL for the tree.
func (p *policy) stop(now time.Time, s *svc) {
	s.waiting, s.leaving, s.probeAt, s.worldAt, s.failure = false, false, time.Time{}, time.Time{}, nil
	switch s.phase {
	case starting:
		s.stopLate = true
		p.emit(effGiveUp{s.spec.Name})
	case running:
		s.phase = stopping
		s.stopKill = now.Add(p.stopTime(now, s))
		p.emit(effSignal{name: s.spec.Name, inc: s.inc})
		p.set(now, s, p2pnode.StateStopping, s.forWhom())
	case idle:
		if s.lastExit != nil { // what a dead main process left behind ends too
			p.emit(effCleanup{name: s.spec.Name, inc: s.inc})
		}
		p.down(now, s)
	}
}

// down is the end of every stop: s stays so, is forgotten, or comes again.
func (p *policy) down(now time.Time, s *svc) {
	p.set(now, s, p2pnode.StateStopped, "")
	switch {
	case s.removed:
		p.forget(s)
	case s.again && !s.stopped && !p.shutdown.on:
		p.comeAgain(now, s)
	}
}

// forWhom is why s is stopped, where that is for the sake of another.
func (s *svc) forWhom() string {
	if s.renewed == "" {
		return ""
	}
	return "it has its life beside " + s.renewed + "'s"
}

// comeAgain starts what was stopped in order to be started.
func (p *policy) comeAgain(now time.Time, s *svc) {
	by := p2pnode.By{Kind: p2pnode.ByOperator}
	if s.renewed != "" {
		by.Kind = p2pnode.ByExec
	}
	s.again, s.renewed = false, ""
	p.want(now, s, true, by)
}

func (p *policy) stopTime(now time.Time, s *svc) time.Duration {
	if p.shutdown.on {
		return min(s.spec.StopTimeout, p.share(now, s))
	}
	return s.spec.StopTimeout
}

// ServiceTime is what a shutdown that may take within leaves a service that stops beside
// others and not after them; a chain of services shares it.
func ServiceTime(within time.Duration) time.Duration {
	return within*9/10 - 2*(within/shutdownShare)
}

// shareOut makes the plan of a shutdown, by the longest chain there is.
func (p *policy) shareOut() {
	longest, known := 1, map[*svc]int{}
	for s := range p.all {
		if !s.self() && s.phase != idle {
			longest = max(longest, p.chain(s, known))
		}
	}
	p.shutdown.part = ServiceTime(p.shutdown.within) / time.Duration(longest)
}

// share is what s may take of a shutdown's time: a service, of what is left by then, as
// much as each of those that stop after it, so that who needs less leaves it to them.
// Where one overran its share, all after it give up the same part of theirs: each has
// something until the deadline.
func (p *policy) share(now time.Time, s *svc) time.Duration {
	left := p.shutdown.end.Sub(now)
	if left <= 0 {
		return 0
	}
	own, others, n := p.plan(s)
	return max((left-others)/n, time.Duration(float64(left)*float64(own)/float64(own*n+others)))
}

// plan is what of a shutdown is for s by its part, how many have as much, s and those
// of its chain that stop after it, and what is for nobody of them.
func (p *policy) plan(s *svc) (own, others, n time.Duration) {
	d := &p.shutdown
	spare := d.within - 2*d.role - ServiceTime(d.within)
	switch s.spec.Name {
	case p2pnode.SelfDoor:
		return d.role, spare, 1
	case p2pnode.SelfNode:
		return d.role, spare + d.role, 1
	}
	return d.part, spare + 2*d.role, time.Duration(p.chain(s, map[*svc]int{}))
}

// extended is when a stopping process that asks for more time, from now on, is killed. In
// a shutdown that is no more than what the plan does not have for those after it: there
// is no other time.
func (p *policy) extended(now time.Time, s *svc, more time.Duration) time.Time {
	by := now.Add(more)
	if p.shutdown.stops(s) {
		own, others, n := p.plan(s)
		if last := p.shutdown.end.Add(-others - (n-1)*own); last.Before(by) {
			by = last
		}
	}
	return later(s.stopKill, by)
}

// chain is the length of the longest chain of services that are still to end and of
// which s is the first; known has those that were counted.
func (p *policy) chain(s *svc, known map[*svc]int) int {
	n := 0
	for _, name := range s.spec.After {
		d := p.svcs[name]
		if d == nil || d.phase == idle {
			continue
		}
		if known[d] == 0 {
			known[d] = p.chain(d, known)
		}
		n = max(n, known[d])
	}
	return n + 1
}

func (p *policy) forget(s *svc) {
	p.past[s.spec.Name] = s.inc // its numbers go on should it be declared again
	delete(p.svcs, s.spec.Name)
	p.order = slices.DeleteFunc(slices.Clone(p.order), func(n string) bool { return n == s.spec.Name })
	p.requires = nil
	p.emit(effForget{s.spec.Name})
}

// maintenance sets or ends the time in which a service is left alone.
func (p *policy) maintenance(now time.Time, ev evMaintenance) {
	s := p.svcs[ev.name]
	if s == nil {
		return
	}
	s.maintEnds = ev.until
	if !ev.until.After(now) {
		s.maintEnds = time.Time{}
	}
	p.emit(effPersist{})
	p.freshGrace(now, s)
}

func (p *policy) observed(now time.Time, ev evObserve) {
	if ev.name == "" {
		p.observe = ev.on
	} else if s := p.svcs[ev.name]; s != nil {
		s.observe = ev.on
	}
	p.emit(effPersist{})
	for s := range p.all {
		p.freshGrace(now, s)
	}
}

// freshGrace gives agents their time again where a hold has just ended.
func (p *policy) freshGrace(now time.Time, s *svc) {
	f := s.failure
	if f == nil {
		return
	}
	if !heldWaits(f.held) && heldWaits(p.heldBy(now, s)) {
		f.graceEnd = now.Add(p.graceOf(s, f.class))
	}
	p.decide(now, s)
}

// reload takes in a new declaration: new services start, missing ones stop,
// those whose process would look different restart, the rest is updated.
func (p *policy) reload(now time.Time, ev evReload) {
	diff := p.compareSpecs(ev.loaded.Services)
	p.grace = ev.loaded.Grace
	if p.observe != ev.loaded.Observe {
		p.observe = ev.loaded.Observe
		p.emit(effPersist{})
	}
	specs := map[string]p2pnode.ServiceSpec{}
	for _, spec := range ev.loaded.Services {
		specs[spec.Name] = spec
	}
	for _, name := range diff.Removed {
		s := p.svcs[name]
		s.removed = true
		p.leave(s)
	}
	for _, name := range slices.Concat(diff.Updated, diff.Changed) {
		p.svcs[name].spec = normalised(specs[name])
	}
	for _, name := range diff.Updated {
		if s := p.svcs[name]; s.phase == running {
			p.rearm(now, s)
		}
	}
	for _, name := range diff.Changed {
		s := p.svcs[name]
		switch {
		case s.phase == running:
			s.again, s.renewed = true, ""
			p.leave(s)
		case s.failure != nil && s.phase == idle:
			s.failure.due, s.looping = now, false
			p.worldChanged(now, evWorld{name: name})
		}
	}
	for _, name := range diff.Added {
		if s := p.svcs[name]; s != nil { // it was on its way out
			s.spec, s.removed, s.stopped, s.again = normalised(specs[name]), false, false, true
			continue
		}
		p.emit(effOpen{specs[name]})
		if s := p.add(now, specs[name]); !s.stopped {
			p.first(now, s)
		}
	}
	p.requires = nil
	p.emit(effReloaded{ev.id, diff})
}

// compareSpecs says what a reload would do.
func (p *policy) compareSpecs(specs []p2pnode.ServiceSpec) ReloadResult {
	var diff ReloadResult
	seen := map[string]bool{}
	for _, spec := range specs {
		seen[spec.Name] = true
		s := p.svcs[spec.Name]
		spec = normalised(spec)
		switch {
		case s == nil || s.removed:
			diff.Added = append(diff.Added, spec.Name)
		case !sameProcess(s.spec, spec):
			diff.Changed = append(diff.Changed, spec.Name)
		case !sameSpec(s.spec, spec):
			diff.Updated = append(diff.Updated, spec.Name)
		default:
			diff.Kept = append(diff.Kept, spec.Name)
		}
	}
	for s := range p.all {
		if !seen[s.spec.Name] && !s.self() && !s.removed {
			diff.Removed = append(diff.Removed, s.spec.Name)
		}
	}
	return diff
}

// shutdown is the orderly end: services first, dependents before what they come
// after, then the node process, then the door.
type shutdown struct {
	on       bool
	keep     bool          // services go on
	within   time.Duration // all of it
	role     time.Duration // what the node process and the door have, each
	part     time.Duration // what each service of the longest chain has
	end      time.Time     // all are killed by then: it is shared out until there
	deadline time.Time     // the same, until it has come
	final    time.Time     // then exec ends, whatever still runs
	done     bool
}

// stops reports whether s ends with this shutdown.
func (d *shutdown) stops(s *svc) bool { return d.on && (!d.keep || s.self()) }

func (p *policy) beginShutdown(now time.Time, ev evShutdown) {
	if p.shutdown.on && !ev.instant {
		return
	}
	if ev.instant {
		ev.within = 0
	}
	end := now.Add(ev.within)
	p.shutdown = shutdown{on: true, keep: ev.keep, within: ev.within, role: ev.within / shutdownShare, end: end, deadline: end}
	p.shareOut()
	for s := range p.all {
		if s.phase == idle && s.lastExit != nil && p.shutdown.stops(s) {
			p.emit(effCleanup{name: s.spec.Name, inc: s.inc}) // what a dead main process left behind ends too
		}
		if s.phase != stopping || !p.shutdown.stops(s) {
			continue
		}
		if by := now.Add(p.share(now, s)); by.Before(s.stopKill) {
			s.stopKill = by // the stop that it was in had more time
		}
		if by := now.Add(heldFor); by.Before(s.giveUp) {
			s.giveUp = by
		}
	}
}

// advanceShutdown stops what nothing running comes after, until all is idle.
func (p *policy) advanceShutdown(now time.Time) {
	d := &p.shutdown
	if !d.on || d.done || !p.booted {
		return // what is not adopted yet cannot be stopped
	}
	if due(now, d.deadline) {
		d.deadline, d.final = time.Time{}, now.Add(killPatience/2)
		for s := range p.all {
			if d.stops(s) && s.phase != idle {
				s.stopKill = time.Time{}
				p.stop(now, s)
				s.stopKill = time.Time{}
				p.emit(effKill{name: s.spec.Name, inc: s.inc, class: "shutdown deadline"})
			}
		}
	}
	left := 0
	for s := range p.all {
		if !d.stops(s) {
			continue
		}
		if s.phase == idle {
			continue
		}
		left++
		if s.phase != stopping && !s.stopLate && !p.heldUp(s) {
			p.stop(now, s)
		}
	}
	if left == 0 || due(now, d.final) {
		d.done, d.deadline, d.final = true, time.Time{}, time.Time{}
		p.emit(effDone{})
	}
}

// heldUp reports whether something that still runs must stop before s. What the kernel
// does not let die is not waited for: it writes nothing more.
func (p *policy) heldUp(s *svc) bool {
	for d := range p.all {
		if d == s || d.phase == idle || d.phase == stopping && d.state == p2pnode.StateUnkillable || !p.shutdown.stops(d) {
			continue
		}
		switch s.spec.Name {
		case p2pnode.SelfDoor:
			return true
		case p2pnode.SelfNode:
			if d.spec.Name != p2pnode.SelfDoor {
				return true
			}
		default:
			if slices.Contains(d.spec.After, s.spec.Name) {
				return true
			}
		}
	}
	return false
}
