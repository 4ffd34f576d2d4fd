package exec

import (
	"testing"
	"time"

	"p2pnode"
)

// A shutdown that is ordered while exec still looks for what lives stops that too:
// nothing is left running because it was not known yet.
func TestAShutdownWaitsForAdoption(t *testing.T) {
	w := &world{
		t: t, p: newPolicy(1, p2pnode.DefaultGrace(), false), now: epoch0,
		running: map[string]p2pnode.Incarnation{}, starts: map[string][]time.Time{}, highest: map[string]uint64{}, answers: map[uint64]p2pnode.RecoverAnswer{},
	}
	w.p.epoch = 7
	w.p.add(w.now, spec("web"))
	w.p.add(w.now, spec("fresh"))
	w.do(evShutdown{within: time.Second})
	if w.done {
		t.Fatal("it ended before it knew what runs")
	}
	inc := p2pnode.Incarnation{Epoch: 7, N: 3}
	w.running["web"] = inc
	w.do(evBoot{found: []found{{name: "web", inc: inc, pid: 12, started: w.now, began: w.now}}})
	w.pass(5 * time.Second)
	if _, lives := w.running["web"]; lives || !w.done {
		t.Errorf("web runs: %v, shutdown done: %v", lives, w.done)
	}
	if len(w.starts["fresh"]) > 0 {
		t.Error("a shutdown started a service")
	}
}

// What lives on is up since it came up, not since somebody looked.
func TestAnAdoptedServiceIsAsOldAsItIs(t *testing.T) {
	w := newWorld(t)
	w.p.epoch = 7
	w.p.add(w.now, spec("web"))
	born := w.now.Add(-time.Hour)
	w.do(evBoot{found: []found{{name: "web", inc: p2pnode.Incarnation{Epoch: 7, N: 3}, pid: 12, started: born, began: born}}})
	if s := w.p.svcs["web"]; s.state != p2pnode.StateUp || !s.since.Equal(born) {
		t.Errorf("%s since %v, want since %v", s.state, s.since, born)
	}
}

// A stop that lasts too long is a failure, but not while a debugger holds the
// process; when the debugger has left, it is one at once.
func TestAStoppedProcessUnderADebuggerIsNotKilled(t *testing.T) {
	w := newWorld(t, spec("web"))
	w.pass(2 * time.Second)
	inc := w.running["web"]
	w.traced = true
	w.do(evFrozen{name: "web", inc: inc})
	w.pass(time.Minute)
	if w.running["web"] != inc {
		t.Fatal("a traced process was replaced")
	}
	if ev := w.last("web", p2pnode.FactFailed); ev.Held != p2pnode.HeldTraced {
		t.Errorf("held %q, want traced", ev.Held)
	}
	w.do(evRecover{id: 1, req: p2pnode.RecoverRequest{Op: "a", Target: "web", Expected: inc.String()}})
	if a := w.answers[1]; a.Outcome != p2pnode.OutcomeRefused || a.Reason != p2pnode.RefusedTraced {
		t.Errorf("answer %+v, want refused: traced", a)
	}
	w.traced = false
	w.do(evWorld{name: "web"}) // the look of every second sees no debugger
	w.pass(100 * time.Millisecond)
	if w.running["web"] == inc {
		t.Error("it is still stopped, and nobody holds it: it should have been replaced")
	}
}

// The debugger may come between the verdict and the kill: exec's own look, right
// before it acts, is what counts, and who asked is told so.
func TestTheLastLookSeesADebugger(t *testing.T) {
	s := spec("web")
	s.Watchdog = time.Second
	w := newWorld(t, s)
	w.do(evNotified{name: "web", ready: true, beat: true})
	inc := w.running["web"]
	w.refuses, w.refuse = true, startTraced
	w.pass(3 * time.Second)
	w.do(evRecover{id: 1, req: p2pnode.RecoverRequest{Op: "a", Target: "web", Expected: inc.String()}})
	if a := w.answers[1]; w.running["web"] != inc || a.Outcome != p2pnode.OutcomeRefused || a.Reason != p2pnode.RefusedTraced {
		t.Errorf("%s runs (was %s), answer %+v", w.running["web"], inc, a)
	}
	if ev := w.last("web", p2pnode.FactFailed); ev.Held != p2pnode.HeldTraced {
		t.Errorf("held %q, want traced", ev.Held)
	}
	w.refuses = false
	w.do(evWorld{name: "web"})
	w.pass(time.Second)
	if w.running["web"] == inc {
		t.Error("the debugger has left, it still hangs: it should have been replaced")
	}
}

// A mended program is tried at once, not when the slow lane's minute is over; the
// budget holds all the same.
func TestAMendedProgramIsTriedAtOnce(t *testing.T) {
	w := newWorld(t, spec("web"))
	for range loopFailures {
		w.crash("web")
		w.pass(2 * time.Second)
	}
	if s := w.p.svcs["web"]; s.state != p2pnode.StateCrashLooping {
		t.Fatalf("state %s", s.state)
	}
	n, at := len(w.starts["web"]), w.now
	w.do(evWorld{name: "web"})
	w.pass(100 * time.Millisecond)
	if len(w.starts["web"]) != n+1 {
		t.Errorf("%d starts %v after its program changed", len(w.starts["web"])-n, w.now.Sub(at))
	}
	for range 40 {
		w.crash("web")
		w.do(evWorld{name: "web"})
		w.pass(time.Second)
	}
	if n := len(w.starts["web"]); n > budgetStarts {
		t.Errorf("%d starts within %v", n, w.now.Sub(epoch0))
	}
}

// A node process that is stopped is connected and claims nothing: nobody waits
// for it.
func TestAStoppedNodeProcessIsNotWaitedFor(t *testing.T) {
	for _, first := range []string{"stop", "crash"} {
		w := newWorld(t, spec("web"), p2pnode.ServiceSpec{Name: p2pnode.SelfNode, Command: []string{"node"}, Ready: p2pnode.ReadyNotify, StopGrace: time.Minute})
		w.p.grace = p2pnode.Grace{Agent: time.Minute, Node: time.Minute, NodeStop: time.Hour}
		w.do(evNode{connected: true, life: p2pnode.NewLife(1), links: 1, orders: 1})
		w.pass(2 * time.Second)
		n := len(w.starts["web"])
		stop := func() { w.do(evFrozen{name: p2pnode.SelfNode, inc: w.running[p2pnode.SelfNode]}) }
		if first == "stop" {
			stop()
		}
		w.crash("web")
		if first == "crash" {
			stop()
		}
		w.pass(100 * time.Millisecond)
		if len(w.starts["web"]) != n+1 {
			t.Errorf("%s first: the service waits for an agent of a stopped node process", first)
		}
	}
}

// The budget is one across execs: an end that none of them saw does not refill it.
func TestAnUnseenEndKeepsTheBudget(t *testing.T) {
	w := newWorld(t)
	w.p.booted = false
	w.p.add(w.now, spec("web"))
	var used []time.Time
	for i := range budgetStarts {
		used = append(used, w.now.Add(-time.Duration(budgetStarts-i)*time.Second))
	}
	w.do(evBoot{ended: []evEnded{{name: "web", inc: p2pnode.Incarnation{Epoch: 7, N: 20}, starts: used}}})
	w.pass(time.Minute)
	if len(w.starts["web"]) > 0 {
		t.Error("a start beyond the budget")
	}
	w.pass(budgetWindow)
	if len(w.starts["web"]) == 0 {
		t.Error("given up for good")
	}
}

// A person's start of what exec is starting at that moment is done when that is up:
// no other incarnation will come.
func TestAStartThatIsUnderWayIsWaitedFor(t *testing.T) {
	for _, verb := range []string{verbStart, verbRestart} {
		s := &svc{spec: spec("web"), phase: starting, start: &startRequest{}, state: p2pnode.StateStarting, inc: p2pnode.Incarnation{Epoch: 7, N: 4}}
		w := &waiter{verb: verb, names: []string{"web"}, from: map[string]uint64{"web": lastBefore(verb, s)}}
		if w.settled(s) {
			t.Errorf("%s: done before it runs", verb)
		}
		s.phase, s.start, s.state = running, nil, p2pnode.StateUp
		if !w.settled(s) {
			t.Errorf("%s: up, and still waited for", verb)
		}
	}
}

// A service that is stopped for too long is ended, and only then it turns out that it
// cannot be started: it is missing, as if it had died by itself, and it can be stopped.
func TestWhatCannotBeStartedAfterItsEnd(t *testing.T) {
	for _, kind := range []startFailure{startMissing, startRetry} {
		w := newWorld(t, service("web", "x"))
		w.pass(time.Minute)
		w.refuses, w.refuse, w.tooLate = true, kind, true
		w.do(evFrozen{name: "web", inc: w.running["web"]})
		w.pass(p2pnode.DefaultStopGrace + time.Minute)
		if s := w.p.svcs["web"]; s.state != p2pnode.StateMissing || s.phase != idle {
			t.Errorf("kind %v: phase %v, %s (%s)", kind, s.phase, s.state, s.why)
		}
		w.do(evOrder{verb: verbStop, name: "web"})
		if s := w.p.svcs["web"]; s.state != p2pnode.StateStopped {
			t.Errorf("kind %v, told to stop: phase %v, %s (%s)", kind, s.phase, s.state, s.why)
		}
	}
}
