package exec

import (
	"testing"
	"time"

	"p2pnode"
)

// The names of operations can be foretold. Whoever uses one first, for another thing
// or for a life that is long over, takes no answer from the agent whose operation it
// is: an answer is kept for the whole question.
func TestAnOperationThatWasForetoldTakesNoAnswer(t *testing.T) {
	w := newWorld(t, spec("web"), spec("db"))
	w.pass(2 * time.Second)
	old := w.running["web"]
	w.crash("web")
	w.pass(12 * time.Second)
	id := uint64(0)
	ask := func(op, target, expected string) p2pnode.RecoverAnswer {
		id++
		w.do(evRecover{id: id, req: p2pnode.RecoverRequest{Op: op, Target: target, Expected: expected}, by: p2pnode.By{Kind: p2pnode.ByAgent, Agent: "x"}})
		return w.answers[id]
	}
	if a := ask("foretold", "web", old.String()); a.Outcome != p2pnode.OutcomeAlreadyDone {
		t.Fatalf("of an earlier life: %+v", a)
	}
	w.do(evNode{connected: true, links: 1, orders: 1}) // an agent has its grace
	now, db := w.running["web"], w.running["db"]
	w.crash("db")
	if a := ask("foretold", "db", db.String()); a.Outcome != p2pnode.OutcomeDone || a.Old != db.String() {
		t.Errorf("of another service: %+v", a)
	}
	w.crash("web")
	if a := ask("foretold", "web", now.String()); a.Outcome != p2pnode.OutcomeDone || a.Old != now.String() {
		t.Errorf("of the next life: %+v", a)
	}
	if a := ask("foretold", "db", db.String()); a.Outcome != p2pnode.OutcomeDone || a.Old != db.String() {
		t.Errorf("the same question again: %+v", a)
	}
}

// While a start is in flight, who asks the same of the same life waits for it, and who
// asks it of another life does not.
func TestOnlyTheSameQuestionJoinsAStart(t *testing.T) {
	p := newPolicy(1, p2pnode.Grace{Agent: time.Minute}, false)
	p.epoch = 7
	p.add(epoch0, spec("web"))
	p.step(epoch0, evBoot{})
	now := epoch0.Add(time.Second)
	p.step(epoch0, evStarted{name: "web", inc: p.svcs["web"].inc, pid: 1})
	p.step(now, evNode{connected: true, links: 1, orders: 1})
	dead := p.svcs["web"].inc
	p.step(now, evEnded{name: "web", inc: dead, exit: p2pnode.Exit{Code: 1}})
	answers := map[uint64]p2pnode.RecoverAnswer{}
	take := func(effects []effect) {
		for _, e := range effects {
			if a, ok := e.(effAnswer); ok {
				answers[a.id] = a.answer
			}
		}
	}
	ask := func(id uint64, op, expected string) {
		take(p.step(now, evRecover{id: id, req: p2pnode.RecoverRequest{Op: op, Target: "web", Expected: expected}}))
	}
	ask(1, "op", dead.String())
	ask(2, "op", dead.String())
	ask(3, "op", "7-999")
	ask(4, "other", dead.String())
	if a, ok := answers[3]; !ok || a.Reason != p2pnode.RefusedStale {
		t.Errorf("of a life that there never was: %+v, answered %v", a, ok)
	}
	if a, ok := answers[4]; !ok || a.Outcome != p2pnode.OutcomeBusy {
		t.Errorf("another operation beside it: %+v, answered %v", a, ok)
	}
	if len(answers) != 2 {
		t.Errorf("answered before the start is through: %v", answers)
	}
	take(p.step(now, evStarted{name: "web", inc: p.svcs["web"].inc, pid: 2}))
	for _, id := range []uint64{1, 2} {
		if a := answers[id]; a.Outcome != p2pnode.OutcomeDone || a.PID != 2 || a.Old != dead.String() {
			t.Errorf("caller %d: %+v", id, a)
		}
	}
}
