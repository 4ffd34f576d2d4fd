package exec

import (
	"slices"
	"strings"
	"time"

	"p2pnode"
)

// A service that requires another one has its life only beside that one's: it ends
// before the other is stopped, waits while that is down on purpose, and begins anew
// when the other has. A crash is mended at once all the same: what requires the dead
// one goes on until a new life of it is ready, and is renewed then.
//
// All of it follows from how things stand, and is looked at after each event
// (advance): whoever could not follow at once, for his maintenance, his budget, or
// since there was no exec, follows when he can.

// link notes who requires whom, after a change of what is declared.
func (p *policy) link() {
	if p.requires != nil {
		return
	}
	p.requires = map[string][]*svc{}
	for s := range p.all {
		for _, name := range s.spec.Requires {
			p.requires[name] = append(p.requires[name], s)
		}
	}
}

// leave makes s stop once everything that requires it has ended. Until then it is no
// failure if it ends or hangs.
func (p *policy) leave(s *svc) {
	if s.phase == stopping {
		return
	}
	s.leaving, p.parting = true, true
	s.failure, s.probeAt, s.worldAt, s.renewAt = nil, time.Time{}, time.Time{}, time.Time{}
}

// renew is leave for what is to begin anew with a service that it requires.
func (p *policy) renew(s *svc, with string) {
	if !s.stopped && !s.removed {
		s.again, s.renewed = true, with
	}
	p.leave(s)
}

// wait keeps s down until nothing is missing any more: of all that it comes after, or,
// where somebody wants it now, of what it requires.
func (p *policy) wait(s *svc, needed bool) {
	s.waiting, s.needed, p.waits = true, needed, true
	s.failure, s.probeAt, s.worldAt = nil, time.Time{}, time.Time{}
}

// advance does what can be done by now for those that leave, wait or are to be
// renewed, until nothing more follows.
func (p *policy) advance(now time.Time) {
	if p.link(); p.shutdown.on || !p.booted || !p.parting && !p.waits && len(p.requires) == 0 {
		return
	}
	for more := true; more; {
		more, p.parting, p.waits = false, false, false
		for s := range p.all {
			switch {
			case s.leaving:
				more = p.part(now, s) || more
			case s.waiting && s.phase == idle && s.start == nil && !s.stopped:
				more = p.await(now, s) || more
			case len(s.spec.Requires) > 0:
				more = p.follow(now, s) || more
			}
		}
	}
}

// part stops s unless something that requires it has not ended, which is made to. It
// reports whether anything changed.
func (p *policy) part(now time.Time, s *svc) (changed bool) {
	if s.renewed != "" && s.phase == running && p.leftAlone(now, s) {
		s.leaving, s.again, s.renewed = false, false, ""
		p.set(now, s, s.state, "")
		return true
	}
	p.link() // what went before it may have changed that
	var last *svc
	for _, d := range p.requires[s.spec.Name] {
		onItsWay := d.leaving || d.stopLate || d.phase == stopping
		switch {
		case d.state == p2pnode.StateUnkillable:
			continue
		case onItsWay:
		case p.leftAlone(now, d):
			continue
		case d.phase != idle, d.failure != nil && !s.again: // what keeps failing has times of its own
			p.renew(d, s.spec.Name)
			changed = true
		default:
			continue
		}
		last = d
	}
	if last == nil {
		p.stop(now, s)
		return true
	}
	p.parting = true
	p.set(now, s, s.state, "it stops when "+last.spec.Name+" has, which requires it")
	return changed
}

// await starts s if nothing is missing any more, and else says what is.
func (p *policy) await(now time.Time, s *svc) (changed bool) {
	missing := p.lacking(s)
	if missing == nil {
		p.begin(now, s, nil, p2pnode.By{Kind: p2pnode.ByExec}, "", false)
		return true
	}
	p.waits = true
	p.set(now, s, p2pnode.StateStarting, "waiting for "+p.tellOf(missing))
	return false
}

// tellOf names a service that is missing, and why it is.
func (p *policy) tellOf(s *svc) string {
	text := s.spec.Name
	switch {
	case s.stopped && s.intent.By != "":
		text += ", which " + s.intent.By + " stopped"
	case s.stopped:
		text += ", which is started by hand"
	case s.waiting && p.lacking(s) != nil:
		text += ", which waits for " + p.tellOf(p.lacking(s))
	case s.state != p2pnode.StateUp && s.state != p2pnode.StateStarting:
		text += ", which is " + string(s.state)
	}
	return text
}

// together are those that a restart of some services ends while they are well: they
// themselves, and all that require them.
func (p *policy) together(now time.Time, names []string) (out []p2pnode.ServiceSpec) {
	p.link()
	names, seen := slices.Clone(names), map[string]bool{}
	for i := 0; i < len(names); i++ {
		s := p.svcs[names[i]]
		if s == nil || seen[names[i]] {
			continue
		}
		seen[names[i]] = true
		if s.phase == running && s.state == p2pnode.StateUp {
			out = append(out, s.spec)
		}
		for _, d := range p.requires[names[i]] {
			if !p.leftAlone(now, d) {
				names = append(names, d.spec.Name)
			}
		}
	}
	return out
}

// renewedBy are those that a reload of specs restarts while they are well, as they are to
// be.
func (p *policy) renewedBy(now time.Time, specs []p2pnode.ServiceSpec) []p2pnode.ServiceSpec {
	ends := p.together(now, p.compareSpecs(specs).Changed)
	return slices.DeleteFunc(slices.Clone(specs), func(spec p2pnode.ServiceSpec) bool {
		return !slices.ContainsFunc(ends, func(s p2pnode.ServiceSpec) bool { return s.Name == spec.Name })
	})
}

// lacking is the first of what a waiting s waits for.
func (p *policy) lacking(s *svc) *svc { return p.missingOf(s.awaits(s.needed)) }

// awaits are those that s waits for.
func (s *svc) awaits(needed bool) []string {
	if needed {
		return s.spec.Requires
	}
	return s.spec.After
}

// missingOf is the first of some services that is not there to build on. One that has
// done its work is.
func (p *policy) missingOf(names []string) *svc {
	for _, name := range names {
		d := p.svcs[name]
		if d != nil && !d.done() && (d.phase != running || d.leaving || d.readyAt.IsZero() || d.state == p2pnode.StateUnready) {
			return d
		}
	}
	return nil
}

// follow renews s if something that it requires is ready and younger, as soon as its
// budget, and that of all that requires s, has room. It ends s where a person stopped
// what it requires, and nobody could tell it then.
func (p *policy) follow(now time.Time, s *svc) (changed bool) {
	const putOff = "it begins anew when its budget of starts has room, with "
	s.renewAt = time.Time{}
	if strings.HasPrefix(s.why, putOff) {
		p.set(now, s, s.state, "")
	}
	if s.stopped || s.removed || p.leftAlone(now, s) {
		return false
	}
	for _, name := range s.spec.Requires {
		r := p.svcs[name]
		if r == nil || !r.stopped || r.phase != idle || !s.startedAt.Before(r.intent.At) {
			continue
		}
		switch {
		case s.phase == running:
			p.renew(s, name)
			return true
		case s.phase == idle && s.failure != nil:
			p.wait(s, true)
			return true
		}
	}
	if s.phase != running || s.failure != nil || s.state == p2pnode.StateFrozen || p.missingOf(s.spec.Requires) != nil {
		return false
	}
	for _, name := range s.spec.Requires {
		r := p.svcs[name]
		if r == nil || r.phase != running || !s.older(r) {
			continue
		}
		if at := p.roomFor(now, s, map[*svc]bool{}); at.After(now) {
			if s.renewAt = at; s.why == "" {
				p.set(now, s, s.state, putOff+name)
			}
			return false
		}
		p.renew(s, name)
		return true
	}
	return false
}

// roomFor is when s and all that requires it may be started.
func (p *policy) roomFor(now time.Time, s *svc, seen map[*svc]bool) time.Time {
	at := p.afterBudget(now, s, now)
	seen[s] = true
	for _, d := range p.requires[s.spec.Name] {
		if !seen[d] && d.phase == running {
			at = later(at, p.roomFor(now, d, seen))
		}
	}
	return at
}

// leftAlone reports whether s is not to be stopped for the sake of others: a person
// has set it aside, or a debugger holds it.
func (p *policy) leftAlone(now time.Time, s *svc) bool {
	return s.maintEnds.After(now) || p.observe || s.observe || s.spec.Recover == p2pnode.RecoverOff || s.failure != nil && s.failure.traced
}

// older reports whether the life of d began before that of s.
func (d *svc) older(s *svc) bool {
	return !d.startedAt.IsZero() && !s.startedAt.IsZero() && s.startedAt.Sub(d.startedAt) > sameAge
}

// startRequired starts what somebody wants something of and nobody else would start.
func (p *policy) startRequired(now time.Time, s *svc, by string) {
	for _, name := range s.spec.Requires {
		r := p.svcs[name]
		switch {
		case r == nil:
		case r.stopped, r.state == p2pnode.StateExited && r.failure == nil && !r.done():
			p.ordered(now, evOrder{verb: verbStart, name: name, by: by})
		case r.phase == idle, r.phase == stopping:
			p.startRequired(now, r, by)
		}
	}
}
