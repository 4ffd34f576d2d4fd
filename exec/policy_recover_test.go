package exec

import (
	"fmt"
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

// Each answer, by what the thing is when it is asked about: with its own life and with
// the one before that.
func TestEveryAnswerHasItsState(t *testing.T) {
	crash := func(w *world) { w.crash("web") }
	loop := func(w *world) {
		for range loopFailures {
			w.crash("web")
			w.pass(5 * time.Second)
		}
	}
	lacks := func(kind startFailure) func(*world) {
		return func(w *world) {
			w.refuses, w.refuse = true, kind
			w.do(evNode{})
			w.crash("web")
			w.pass(time.Second)
		}
	}
	held := func(w *world) { w.crash("web"); w.pass(time.Second) }
	refused := func(r p2pnode.Refusal) string { return string(r) }
	const done, already, scheduled, busy = string(p2pnode.OutcomeDone), string(p2pnode.OutcomeAlreadyDone), string(p2pnode.OutcomeScheduled), string(p2pnode.OutcomeBusy)
	for _, c := range []struct {
		state       string
		spec        func(*p2pnode.ServiceSpec)
		do          func(*world)
		own, before string
	}{
		{"up", nil, func(*world) {}, refused(p2pnode.RefusedHealthy), already},
		{"dead", nil, crash, done, refused(p2pnode.RefusedStale)},
		{"dead, and its backoff runs", nil, func(w *world) { crash(w); w.pass(100 * time.Millisecond); crash(w) }, scheduled, refused(p2pnode.RefusedStale)},
		{"it keeps failing", nil, loop, scheduled, refused(p2pnode.RefusedStale)},
		{"its budget is used up", nil, func(w *world) {
			for len(w.p.svcs["web"].starts) < budgetStarts {
				w.crash("web")
				w.pass(12 * time.Second)
			}
			w.crash("web")
		}, scheduled, refused(p2pnode.RefusedStale)},
		{"missing", nil, lacks(startMissing), scheduled, refused(p2pnode.RefusedStale)},
		{"blocked", nil, lacks(startBlocked), scheduled, refused(p2pnode.RefusedStale)},
		{"stopped by a signal", nil, func(w *world) { w.do(evFrozen{name: "web", inc: w.running["web"]}) }, scheduled, already},
		{"stopped by a debugger", nil, func(w *world) {
			w.traced = true
			w.do(evFrozen{name: "web", inc: w.running["web"]})
			w.pass(time.Minute)
		}, refused(p2pnode.RefusedTraced), refused(p2pnode.RefusedStale)},
		{"being started", nil, func(w *world) { w.pending = true; w.do(evNode{}); crash(w) }, busy, busy},
		{"stopped by a person", nil, func(w *world) { w.do(evOrder{verb: verbStop, name: "web"}) }, refused(p2pnode.RefusedStopped), refused(p2pnode.RefusedStale)},
		{"on its way down", nil, func(w *world) { w.hold = map[string]bool{"web": true}; w.do(evOrder{verb: verbStop, name: "web"}) }, refused(p2pnode.RefusedStopped), refused(p2pnode.RefusedStale)},
		{"left so by its restart policy", func(s *p2pnode.ServiceSpec) { s.Restart = p2pnode.RestartOnFailure }, func(w *world) {
			for _, ev := range w.end("web", p2pnode.Exit{}) {
				w.do(ev)
			}
		}, refused(p2pnode.RefusedStopped), refused(p2pnode.RefusedStale)},
		{"dead in maintenance", nil, func(w *world) { w.do(evMaintenance{"web", w.now.Add(time.Hour)}); held(w) }, refused(p2pnode.RefusedMaintenance), refused(p2pnode.RefusedStale)},
		{"dead and observed", nil, func(w *world) { w.do(evObserve{"web", true}); held(w) }, refused(p2pnode.RefusedObserve), refused(p2pnode.RefusedStale)},
		{"dead on a host that is observed", nil, func(w *world) { w.do(evObserve{"", true}); held(w) }, refused(p2pnode.RefusedObserve), refused(p2pnode.RefusedStale)},
		{"dead, recover: off", func(s *p2pnode.ServiceSpec) { s.Recover = p2pnode.RecoverOff }, held, refused(p2pnode.RefusedOff), refused(p2pnode.RefusedStale)},
		{"dead in a shutdown", nil, func(w *world) {
			w.hold = map[string]bool{"other": true}
			w.do(evShutdown{within: time.Minute})
			crash(w)
		}, refused(p2pnode.RefusedStopped), refused(p2pnode.RefusedStale)},
	} {
		t.Run(c.state, func(t *testing.T) {
			w := newWorld(t, spec("web"), spec("other"))
			if c.spec != nil {
				c.spec(&w.p.svcs["web"].spec)
			}
			w.pass(2 * time.Second)
			before := w.running["web"]
			w.do(evOrder{verb: verbRestart, name: "web"})
			w.do(evNode{connected: true, links: 1, orders: 1}) // an agent has its grace
			w.pass(12 * time.Second)
			c.do(w)
			s := w.p.svcs["web"]
			own := s.inc
			if s.start != nil {
				own = s.start.old
			}
			id := uint64(0)
			ask := func(target, expected string) string {
				id++
				w.do(evRecover{id: id, req: p2pnode.RecoverRequest{Op: fmt.Sprint(id), Target: target, Expected: expected}, by: p2pnode.By{Kind: p2pnode.ByAgent, Agent: "x"}})
				ans, answered := w.answers[id]
				switch {
				case !answered:
					t.Errorf("%s %s: no answer", target, expected)
				case ans.Outcome == p2pnode.OutcomeScheduled && (ans.At.IsZero() || !ans.At.After(w.now)):
					t.Errorf("scheduled at %v, it is %v", ans.At, w.now)
				case ans.Outcome == p2pnode.OutcomeRefused:
					return string(ans.Reason)
				}
				return string(ans.Outcome)
			}
			for expected, want := range map[string]string{
				before.String(): c.before, "": refused(p2pnode.RefusedStale), "x": refused(p2pnode.RefusedStale), "7-999": refused(p2pnode.RefusedStale), "8-1": refused(p2pnode.RefusedStale),
			} {
				if got := ask("web", expected); got != want {
					t.Errorf("of the life %q: %s, want %s", expected, got, want)
				}
			}
			if got := ask("web", own.String()); got != c.own {
				t.Errorf("of its own life: %s, want %s", got, c.own)
			}
			if got := ask(p2pnode.SelfExec, ""); got != refused(p2pnode.RefusedHealthy) {
				t.Errorf("of exec: %s", got)
			}
			if got := ask("nobody", own.String()); got != refused(p2pnode.RefusedUnknown) {
				t.Errorf("of what is not declared: %s", got)
			}
		})
	}
	t.Run("exec does not know yet what lives", func(t *testing.T) {
		p := newPolicy(1, p2pnode.DefaultGrace(), false)
		p.add(epoch0, spec("web"))
		out := p.step(epoch0, evRecover{id: 1, req: p2pnode.RecoverRequest{Op: "a", Target: "web", Expected: "7-1"}})
		if a, ok := out[0].(effAnswer); !ok || a.answer.Outcome != p2pnode.OutcomeBusy {
			t.Errorf("%+v", out)
		}
	})
}
