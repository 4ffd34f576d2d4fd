package exec

import (
	"time"

	"p2pnode"
)

// recover answers a caller who says that something is dead. What the caller says
// decides only which thing and which life it means; whether it is dead is exec's
// own knowledge.
func (p *policy) recover(now time.Time, ev evRecover) {
	if ans, ok := p.ops.get(questionOf(ev.req)); ok {
		p.emit(effAnswer{ev.id, ans})
		return
	}
	if ev.req.Target == p2pnode.SelfExec {
		p.refuse(ev, p2pnode.RecoverAnswer{}, p2pnode.RefusedHealthy)
		return
	}
	s := p.svcs[ev.req.Target]
	if s == nil || s.removed {
		p.refuse(ev, p2pnode.RecoverAnswer{}, p2pnode.RefusedUnknown)
		return
	}
	if !p.booted {
		p.emit(effAnswer{ev.id, p2pnode.RecoverAnswer{Outcome: p2pnode.OutcomeBusy}})
		return
	}
	if r := s.start; r != nil && ev.req.Op != "" && r.op == ev.req.Op && r.target == ev.req.Expected {
		r.answers = append(r.answers, ev.id)
		return
	}
	ans := p2pnode.RecoverAnswer{Old: p.target(s), PID: s.pid, Exit: s.lastExit, By: s.lastBy}
	switch p.compare(s, ev.req.Expected) {
	case before:
		p.recoverEarlier(s, ev, ans)
	case other:
		p.refuse(ev, ans, p2pnode.RefusedStale)
	case same:
		p.recoverCurrent(now, s, ev, ans)
	}
}

// relation of a named life to the one that exec knows.
type relation int

const (
	same relation = iota
	before
	other
)

func (p *policy) compare(s *svc, expected string) relation {
	if expected == "" {
		return other
	}
	if s.spec.Name == p2pnode.SelfNode {
		life, err := p2pnode.ParseLife(expected)
		switch {
		case err != nil:
			return other
		case life == p.node.life && s.phase == running && p.node.nameless():
			return before // its successor runs and has not said its name yet
		case life == p.node.life:
			return same
		case life == p.node.previous || life.Boot < p.node.life.Boot:
			return before
		}
		return other
	}
	inc, err := p2pnode.ParseIncarnation(expected)
	current := s.inc
	if s.start != nil {
		current = s.start.old
		if inc == current {
			return before // its successor is being made
		}
	}
	switch {
	case err != nil || inc.Epoch != current.Epoch || inc.N > current.N:
		return other
	case inc.N < current.N:
		return before
	}
	return same
}

// recoverEarlier: the named life ended and exec went on from it.
func (p *policy) recoverEarlier(s *svc, ev evRecover, ans p2pnode.RecoverAnswer) {
	switch {
	case s.start != nil:
		ans.Outcome, ans.Old = p2pnode.OutcomeBusy, s.start.target
		p.emit(effAnswer{ev.id, ans})
	case s.phase == running && s.failure == nil:
		ans.Outcome, ans.Old, ans.New = p2pnode.OutcomeAlreadyDone, ev.req.Expected, p.target(s)
		if ans.New == ans.Old {
			ans.New = ""
		}
		p.answer(ev, ans)
	default:
		p.refuse(ev, ans, p2pnode.RefusedStale)
	}
}

func (p *policy) recoverCurrent(now time.Time, s *svc, ev evRecover, ans p2pnode.RecoverAnswer) {
	if s.start != nil { // of @node: the life is the same until the next one speaks
		ans.Outcome = p2pnode.OutcomeBusy
		p.emit(effAnswer{ev.id, ans})
		return
	}
	f := s.failure
	switch {
	case s.stopped, s.leaving, s.phase == stopping, p.shutdown.on:
		p.refuse(ev, ans, p2pnode.RefusedStopped)
		return
	case f == nil && s.phase == running && s.state == p2pnode.StateFrozen && !s.health.frozenTill.IsZero():
		ans.Outcome, ans.At, ans.Class = p2pnode.OutcomeScheduled, s.health.frozenTill, p2pnode.ClassFrozen
		p.emit(effAnswer{ev.id, ans})
		return
	case f == nil && s.phase == idle:
		p.refuse(ev, ans, p2pnode.RefusedStopped) // exited, and left so by its restart policy
		return
	case f == nil:
		p.refuse(ev, ans, p2pnode.RefusedHealthy)
		return
	}
	ans.Class, ans.Exit, ans.DetectedAt = f.class, f.exit, f.at
	if reason, held := refusalOf(p.heldBy(now, s)); held {
		p.refuse(ev, ans, reason)
		return
	}
	f.claimed, f.op = &ev.by, ev.req.Op
	if f.due.After(now) || s.probeAt.After(now) || p.storms(now, s) {
		ans.Outcome, ans.At = p2pnode.OutcomeScheduled, f.due
		if s.probeAt.After(now) {
			ans.At = s.probeAt
		}
		p.emit(effAnswer{ev.id, ans})
		return
	}
	r := p.begin(now, s, f, ev.by, ev.req.Op, false)
	r.answers = append(r.answers, ev.id)
}

// refusalOf is the refusal that a hold means; backoff and budget are waits.
func refusalOf(h p2pnode.Held) (p2pnode.Refusal, bool) {
	switch h {
	case p2pnode.HeldMaintenance:
		return p2pnode.RefusedMaintenance, true
	case p2pnode.HeldObserve:
		return p2pnode.RefusedObserve, true
	case p2pnode.HeldOff:
		return p2pnode.RefusedOff, true
	case p2pnode.HeldTraced:
		return p2pnode.RefusedTraced, true
	}
	return "", false
}

// answer gives a final answer and keeps it for the same question.
func (p *policy) answer(ev evRecover, ans p2pnode.RecoverAnswer) {
	p.ops.put(questionOf(ev.req), ans)
	p.emit(effAnswer{ev.id, ans})
}

// refuse is not kept: the same op may come again after a hold ended.
func (p *policy) refuse(ev evRecover, ans p2pnode.RecoverAnswer, reason p2pnode.Refusal) {
	ans.Outcome, ans.Reason = p2pnode.OutcomeRefused, reason
	p.emit(effRefused{name: ev.req.Target, op: ev.req.Op, reason: reason})
	p.emit(effAnswer{ev.id, ans})
}

// answerStarted tells those who asked for a start that it is done.
func (p *policy) answerStarted(now time.Time, s *svc, r *startRequest, looked time.Time) {
	ans := p2pnode.RecoverAnswer{
		Outcome: p2pnode.OutcomeDone, Old: r.target, New: s.inc.String(), PID: s.pid, By: r.by,
		VerifiedAt: looked, StartedAt: now,
	}
	if s.spec.Name == p2pnode.SelfNode {
		ans.New = "" // until it says its life
	}
	if f := r.failure; f != nil {
		ans.Class, ans.Exit, ans.DetectedAt = f.class, f.exit, f.at
		if ans.Exit == nil {
			ans.Exit = s.lastExit
		}
	}
	p.ops.put(question{r.op, s.spec.Name, r.target}, ans)
	for _, id := range r.answers {
		p.emit(effAnswer{id, ans})
	}
}

// answerWaiting tells those who asked for a start that failed when it is tried
// again.
func (p *policy) answerWaiting(now time.Time, s *svc, r *startRequest) {
	for _, id := range r.answers {
		ans := p2pnode.RecoverAnswer{Outcome: p2pnode.OutcomeScheduled, Old: r.target, At: now, Exit: s.lastExit}
		if f := s.failure; f != nil {
			ans.Class, ans.DetectedAt = f.class, f.at
			ans.At = f.due
			if f.traced {
				ans.Outcome, ans.Reason, ans.At = p2pnode.OutcomeRefused, p2pnode.RefusedTraced, time.Time{}
				p.emit(effRefused{name: s.spec.Name, op: r.op, reason: ans.Reason})
				p.emit(effAnswer{id, ans})
				continue
			}
		}
		if s.probeAt.After(ans.At) {
			ans.At = s.probeAt
		}
		p.emit(effAnswer{id, ans})
	}
}

// question is what an answer is kept for. An op alone is not enough: its name can be
// foretold, and whoever used it first for something else would take the answer from
// the agent whose op it is.
type question struct{ op, target, expected string }

func questionOf(req p2pnode.RecoverRequest) question {
	return question{req.Op, req.Target, req.Expected}
}

// opMemoryRing keeps the last final answers by question.
type opMemoryRing struct {
	answers map[question]p2pnode.RecoverAnswer
	ring    []question
	at      int
}

func newOpMemory(n int) opMemoryRing {
	return opMemoryRing{answers: map[question]p2pnode.RecoverAnswer{}, ring: make([]question, n)}
}

func (m *opMemoryRing) get(q question) (p2pnode.RecoverAnswer, bool) {
	ans, ok := m.answers[q]
	return ans, ok && q.op != ""
}

func (m *opMemoryRing) put(q question, ans p2pnode.RecoverAnswer) {
	if q.op == "" {
		return
	}
	if _, known := m.answers[q]; !known {
		delete(m.answers, m.ring[m.at])
		m.ring[m.at] = q
		m.at = (m.at + 1) % len(m.ring)
	}
	m.answers[q] = ans
}
