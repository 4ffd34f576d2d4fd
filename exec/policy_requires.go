package exec

import (
	"iter"
	"slices"
	"time"

	"p2pnode"
)

// A service that requires another one has its life only beside that one's: it ends
// before the other is stopped, waits while that is down on purpose, and begins anew
// when the other has. A crash is mended at once all the same: what requires the dead
// one goes on until a new life of it is ready, and is renewed then.

// adoptedAge is how exactly the age of an adopted process is known: the kernel counts
// it in ticks of a hundredth of a second.
const adoptedAge = 20 * time.Millisecond

// requiring yields what requires s and may be stopped for it.
func (p *policy) requiring(now time.Time, s *svc) iter.Seq[*svc] {
	return func(yield func(*svc) bool) {
		for d := range p.all {
			leftAlone := d.maintEnds.After(now) || p.observe || d.observe || d.spec.Recover == p2pnode.RecoverOff
			if slices.Contains(d.spec.Requires, s.spec.Name) && !leftAlone && !yield(d) {
				return
			}
		}
	}
}

// leave stops s once everything that requires it has ended.
func (p *policy) leave(now time.Time, s *svc) {
	s.leaving, p.parting = true, true
	p.advanceLeaving(now)
}

// renew stops d in order, and starts it when all that it requires is ready, with
// among that.
func (p *policy) renew(now time.Time, d *svc, with *svc) {
	d.again, d.renewed, d.renewAt = true, with.spec.Name, time.Time{}
	p.leave(now, d)
}

// advanceLeaving stops what is to end and is required by nothing that still runs.
func (p *policy) advanceLeaving(now time.Time) {
	if !p.parting {
		return
	}
	p.parting = false
	for s := range p.all {
		if !s.leaving {
			continue
		}
		switch d := p.lastOn(now, s); {
		case d != nil:
			p.parting = true
			p.set(now, s, s.state, "it stops when "+d.spec.Name+" has, which requires it")
		case s.leaving: // still
			s.leaving = false
			p.stop(now, s)
		}
	}
}

// lastOn is something that requires s and has not ended; each such thing is made to.
func (p *policy) lastOn(now time.Time, s *svc) (last *svc) {
	for d := range p.requiring(now, s) {
		onItsWay := d.leaving || d.stopLate || d.phase == stopping
		if !onItsWay && (d.phase != idle || d.failure != nil) {
			p.renew(now, d, s)
		}
		if d.phase != idle && d.state != p2pnode.StateUnkillable {
			last = d
		}
	}
	return last
}

// renewRequiring follows a life of s that is ready: what is older and requires it
// begins anew, within its budget.
func (p *policy) renewRequiring(now time.Time, s *svc) {
	for d := range p.requiring(now, s) {
		if d.phase != running || d.leaving || d.stopped || d.failure != nil || !d.renewAt.IsZero() || !d.older(s) {
			continue
		}
		if at := p.afterBudget(now, d, now); at.After(now) {
			d.renewAt = at
			continue
		}
		p.renew(now, d, s)
	}
}

// renewAgain takes up what the budget put off.
func (p *policy) renewAgain(now time.Time, d *svc) {
	d.renewAt = time.Time{}
	for _, name := range d.spec.Requires {
		if r := p.svcs[name]; r != nil && r.phase == running && !r.readyAt.IsZero() {
			p.renewRequiring(now, r)
		}
	}
}

// older reports whether the life of d began before that of s.
func (d *svc) older(s *svc) bool {
	if d.startedAt.IsZero() || s.startedAt.IsZero() {
		return false
	}
	age := s.startedAt.Sub(d.startedAt)
	if d.adopted || s.adopted {
		age -= adoptedAge
	}
	return age > 0
}

// startRequired starts what a person stopped and now wants something of.
func (p *policy) startRequired(now time.Time, s *svc, by string) {
	for _, name := range s.spec.Requires {
		if r := p.svcs[name]; r != nil && r.stopped {
			p.ordered(now, evOrder{verb: verbStart, name: name, by: by})
		}
	}
}
