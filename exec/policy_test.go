package exec

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"p2pnode"

	"pgregory.net/rapid"
)

var epoch0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// world plays the processes for a policy: what it starts runs, what it kills ends.
// It keeps the rules that must hold whatever happens.
type world struct {
	t       rapid.TB
	p       *policy
	now     time.Time
	pid     int
	running map[string]p2pnode.Incarnation // the copies that live
	starts  map[string][]time.Time
	unasked map[string][]time.Time // those of them that no operator ordered
	highest map[string]uint64
	answers map[uint64]p2pnode.RecoverAnswer
	events  []p2pnode.ExecEvent
	refuse  startFailure // what the next start fails with
	refuses bool
	tooLate bool                             // what misses something is seen to when the life before has ended
	pending bool                             // starts do not come to their end
	traced  bool                             // a debugger holds every process
	asked   func(effCheck) (evChecked, bool) // answers a question at once, if it does
	done    bool
	asksEnd func(string)    // sees who is asked to end
	hold    map[string]bool // these do not end by a signal
	kernel  map[string]bool // nor these by SIGKILL: the kernel holds them
}

func newWorld(t rapid.TB, specs ...p2pnode.ServiceSpec) *world {
	w := &world{
		t: t, p: newPolicy(1, p2pnode.Grace{Agent: 50 * time.Millisecond, Node: time.Second, NodeStop: 10 * time.Second}, false), now: epoch0,
		running: map[string]p2pnode.Incarnation{}, starts: map[string][]time.Time{}, highest: map[string]uint64{}, answers: map[uint64]p2pnode.RecoverAnswer{},
	}
	w.p.epoch = 7
	for _, s := range specs {
		w.p.add(w.now, s)
	}
	w.do(evBoot{})
	return w
}

func (w *world) do(ev event) {
	queue := []event{ev}
	for len(queue) > 0 {
		effects := w.p.step(w.now, queue[0])
		queue = queue[1:]
		for _, e := range effects {
			queue = append(queue, w.carryOut(e)...)
		}
	}
}

func (w *world) carryOut(eff effect) []event {
	switch e := eff.(type) {
	case effStart:
		refuses := w.refuses && (e.live || w.refuse != startTraced) // nobody traces what is dead
		if refuses && e.live && (w.refuse == startBlocked || w.refuse == startBroken || w.tooLate && (w.refuse == startMissing || w.refuse == startRetry)) {
			return append(w.end(e.name, p2pnode.Exit{Signal: "SIGKILL"}), evStartFailed{name: e.name, inc: e.inc, kind: w.refuse, text: "no"})
		}
		if refuses {
			return []event{evStartFailed{name: e.name, inc: e.inc, kind: w.refuse, text: "no"}}
		}
		if old, lives := w.running[e.name]; lives && !e.live && !e.force {
			w.t.Fatalf("%s: %s started beside %s", e.name, e.inc, old)
		}
		if e.inc.N <= w.highest[e.name] {
			w.t.Fatalf("%s: incarnation %s after %d", e.name, e.inc, w.highest[e.name])
		}
		if s := w.p.svcs[e.name]; s.stopped && e.by.Kind != p2pnode.ByOperator {
			w.t.Fatalf("%s: started though a person stopped it", e.name)
		}
		w.highest[e.name] = e.inc.N
		if w.pending {
			return nil
		}
		w.running[e.name] = e.inc
		w.starts[e.name] = append(w.starts[e.name], w.now)
		if e.by.Kind != p2pnode.ByOperator {
			w.keepsBudget(e.name)
		}
		w.pid++
		return []event{evStarted{name: e.name, inc: e.inc, pid: w.pid, looked: w.now}}
	case effSignal:
		if w.asksEnd != nil {
			w.asksEnd(e.name)
		}
		if w.hold[e.name] {
			return nil
		}
		return w.end(e.name, p2pnode.Exit{})
	case effKill:
		if w.kernel[e.name] {
			return nil
		}
		return w.end(e.name, p2pnode.Exit{Signal: "SIGKILL"})
	case effEvent:
		w.events = append(w.events, e.event)
	case effAnswer:
		w.answers[e.id] = e.answer
	case effDrain:
		return []event{evLooked{name: e.name, held: w.traced, traced: w.traced}}
	case effLook:
		return []event{evLooked{name: e.name, held: w.traced, traced: w.traced}}
	case effCheck:
		if w.asked == nil {
			return nil
		}
		if ev, ok := w.asked(e); ok {
			ev.name, ev.inc, ev.which, ev.rules = e.name, e.inc, e.which, e.rules
			return []event{ev}
		}
	case effDone:
		w.done = true
	}
	return nil
}

// end is the death of what runs of a service.
func (w *world) end(name string, exit p2pnode.Exit) []event {
	inc, ok := w.running[name]
	if !ok {
		return nil
	}
	delete(w.running, name)
	return []event{evEnded{name: name, inc: inc, exit: exit}}
}

func (w *world) crash(name string) {
	for _, ev := range w.end(name, p2pnode.Exit{Code: 1}) {
		w.do(ev)
	}
}

// pass lets time go by, tick by tick.
func (w *world) pass(d time.Duration) {
	until := w.now.Add(d)
	for ticks := 0; ; ticks++ {
		at := w.p.next()
		if at.IsZero() || at.After(until) {
			break
		}
		if ticks > 20000 {
			w.t.Fatalf("the machine spins at %v (now %v): %s", at, w.now, w.dump())
		}
		w.now = later(w.now, at)
		w.do(evTick{})
	}
	w.now = until
}

// keepsBudget takes down a start that nobody ordered: no window may have more of them
// than the budget.
func (w *world) keepsBudget(name string) {
	if w.unasked == nil {
		w.unasked = map[string][]time.Time{}
	}
	starts := append(recent(w.unasked[name], w.now.Add(-budgetWindow)), w.now)
	if w.unasked[name] = starts; len(starts) > budgetStarts {
		w.t.Fatalf("%s: %d starts within %v", name, len(starts), budgetWindow)
	}
}

func (w *world) last(name string, fact p2pnode.ExecFact) p2pnode.ExecEvent {
	for _, ev := range slices.Backward(w.events) {
		if ev.Service == name && ev.Event == fact {
			return ev
		}
	}
	return p2pnode.ExecEvent{}
}

func spec(name string) p2pnode.ServiceSpec {
	return p2pnode.ServiceSpec{Name: name, Command: []string{name}, StopGrace: 5 * time.Second}
}

func TestFirstRestartIsAtOnceThenBackoff(t *testing.T) {
	w := newWorld(t, spec("web"))
	w.pass(2 * time.Second)
	var waits []time.Duration
	for range 4 {
		died, n := w.now, len(w.starts["web"])
		w.crash("web")
		for len(w.starts["web"]) == n {
			w.pass(10 * time.Millisecond)
		}
		waits = append(waits, w.starts["web"][n].Sub(died))
	}
	want := []time.Duration{0, 100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond}
	if !slices.Equal(waits, want) {
		t.Errorf("waits %v, want %v", waits, want)
	}
	w.pass(clearAfter + time.Second)
	if s := w.p.svcs["web"]; s.dirty() {
		t.Errorf("a good life of 10 s cleared nothing: %+v", s)
	}
}

func TestCrashLoopGoesToTheSlowLaneAndIsNeverGivenUp(t *testing.T) {
	w := newWorld(t, spec("web"))
	for w.now.Before(epoch0.Add(30 * time.Minute)) {
		w.crash("web")
		w.pass(100 * time.Millisecond)
	}
	if n := len(w.starts["web"]); n < 15 || w.p.svcs["web"].state != p2pnode.StateCrashLooping && len(w.running) == 0 {
		t.Errorf("%d starts in 30 min, state %s", n, w.p.svcs["web"].state)
	}
}

func TestAgentGraceThenExec(t *testing.T) {
	w := newWorld(t, spec("web"))
	w.pass(2 * time.Second)
	w.do(evNode{connected: true, life: p2pnode.Life{Boot: 1, Nonce: 1}, links: 1, orders: 1})
	old := w.running["web"]
	w.crash("web")
	w.pass(49 * time.Millisecond)
	if len(w.running) != 0 {
		t.Fatal("exec did not wait for an agent")
	}
	w.do(evRecover{id: 1, req: p2pnode.RecoverRequest{Op: "a", Target: "web", Expected: old.String()}, by: p2pnode.By{Kind: p2pnode.ByAgent, Agent: "x"}})
	if a := w.answers[1]; a.Outcome != p2pnode.OutcomeDone || a.By.Agent != "x" || a.New != w.running["web"].String() {
		t.Errorf("answer %+v", a)
	}
	w.do(evRecover{id: 2, req: p2pnode.RecoverRequest{Op: "a", Target: "web", Expected: old.String()}})
	w.do(evRecover{id: 3, req: p2pnode.RecoverRequest{Op: "b", Target: "web", Expected: old.String()}})
	if w.answers[2].Outcome != p2pnode.OutcomeDone || w.answers[3].Outcome != p2pnode.OutcomeAlreadyDone {
		t.Errorf("repeated op: %+v, another op: %+v", w.answers[2], w.answers[3])
	}
	if len(w.starts["web"]) != 2 {
		t.Errorf("%d starts", len(w.starts["web"]))
	}
	w.pass(12 * time.Second)
	w.crash("web")
	w.pass(51 * time.Millisecond)
	if by := w.last("web", p2pnode.FactActed).By; by.Kind != p2pnode.ByExec || !by.Fallback {
		t.Errorf("nobody claimed it and by = %+v", by)
	}
	w.pass(12 * time.Second)
	w.crash("web")
	w.do(evNode{connected: false})
	if len(w.running) != 1 {
		t.Error("exec waits for agents of a node process that is gone")
	}
}

func TestScheduledIsCreditedToTheAgent(t *testing.T) {
	w := newWorld(t, spec("web"))
	w.do(evNode{connected: true, links: 1, orders: 1})
	old := w.running["web"]
	w.crash("web") // a life under a second: backoff
	w.do(evRecover{id: 1, req: p2pnode.RecoverRequest{Op: "a", Target: "web", Expected: old.String()}, by: p2pnode.By{Kind: p2pnode.ByAgent, Agent: "x"}})
	if a := w.answers[1]; a.Outcome != p2pnode.OutcomeScheduled || !a.At.Equal(w.now.Add(backoffFirst)) {
		t.Errorf("answer %+v", a)
	}
	w.pass(backoffFirst)
	if by := w.last("web", p2pnode.FactActed).By; by.Agent != "x" {
		t.Errorf("by %+v", by)
	}
}

func TestWatchdogForgivesALateTimerOnce(t *testing.T) {
	beat := spec("beat")
	beat.Watchdog, beat.Ready = 300*time.Millisecond, p2pnode.ReadyNotify
	w := newWorld(t, beat)
	w.do(evNotified{name: "beat", ready: true})
	w.now = w.now.Add(400 * time.Millisecond)
	w.do(evTick{late: 100 * time.Millisecond})
	if w.last("beat", p2pnode.FactFailed).Class != "" {
		t.Fatal("a late timer was held against the service")
	}
	w.now = w.now.Add(300 * time.Millisecond)
	w.do(evTick{late: 100 * time.Millisecond})
	if w.last("beat", p2pnode.FactFailed).Class != p2pnode.ClassHung {
		t.Error("the grant was given twice")
	}
}

func TestTwoWatchdogsInOneTickAreGrantedOnce(t *testing.T) {
	a, b := spec("a"), spec("b")
	a.Watchdog, b.Watchdog = time.Second, time.Second
	w := newWorld(t, a, b)
	w.do(evNotified{name: "a", beat: true})
	w.do(evNotified{name: "b", beat: true})
	w.pass(1500 * time.Millisecond)
	if w.last("a", p2pnode.FactFailed).Class != "" {
		t.Error("a stalled host was taken for two hung services")
	}
	w.pass(time.Second)
	if w.last("a", p2pnode.FactFailed).Class == "" || w.last("b", p2pnode.FactFailed).Class == "" {
		t.Error("two hung services were forgiven for ever")
	}
}

func TestBusyIsNotHung(t *testing.T) {
	web := spec("web")
	web.Check = &p2pnode.Check{HTTP: "x", Every: time.Second, Timeout: time.Second, Failures: 3}
	w := newWorld(t, web)
	say := func(err error, busy float64) {
		w.pass(2 * time.Second)
		w.do(evChecked{name: "web", inc: w.running["web"], err: err, timeout: true, busy: busy})
	}
	say(nil, 0)
	for range 5 {
		say(fmt.Errorf("no answer"), 0.5)
	}
	if s := w.p.svcs["web"]; s.state != p2pnode.StateUnready || s.failure != nil {
		t.Fatalf("busy service: %s", s.state)
	}
	say(fmt.Errorf("no answer"), 0.001)
	if w.last("web", p2pnode.FactFailed).Class != p2pnode.ClassHung {
		t.Error("a service that does nothing and answers nothing is hung")
	}
}

// A host that stood still tells nothing of its services: one bad answer is not
// counted for it, whether the question went out late or its own clock ran out late.
func TestALateQuestionIsForgivenOnce(t *testing.T) {
	for name, late := range map[string]bool{"asked late": false, "answered late": true} {
		t.Run(name, func(t *testing.T) {
			web := spec("web")
			web.Check = &p2pnode.Check{HTTP: "x", Every: time.Second, Timeout: time.Second, Failures: 1}
			w := newWorld(t, web)
			w.do(evChecked{name: "web", inc: w.running["web"]})
			bad := func(tick time.Duration) {
				w.now = w.now.Add(2 * time.Second)
				w.do(evTick{late: tick})
				w.do(evChecked{name: "web", inc: w.running["web"], err: fmt.Errorf("no answer"), timeout: true, late: late})
			}
			tick := map[bool]time.Duration{false: 300 * time.Millisecond, true: 0}[late]
			bad(tick)
			if w.last("web", p2pnode.FactFailed).Class != "" {
				t.Fatal("a host that stood still was taken for a hung service")
			}
			bad(tick)
			if w.last("web", p2pnode.FactFailed).Class != p2pnode.ClassHung {
				t.Error("it was forgiven twice")
			}
		})
	}
}

// A question that runs into its timeout does not push the next one back: what hangs
// is known after three periods.
func TestThreeTimeoutsTakeThreePeriods(t *testing.T) {
	web := spec("web")
	web.Check = &p2pnode.Check{HTTP: "x", Every: time.Second, Timeout: time.Second, Failures: 3}
	w := newWorld(t, web)
	w.do(evChecked{name: "web", inc: w.running["web"]})
	began := w.now
	asked := 0
	for w.now.Sub(began) < 10*time.Second && w.last("web", p2pnode.FactFailed).Event == "" {
		w.pass(5 * time.Millisecond)
		if w.p.svcs["web"].health.checks[0].asking {
			asked++
			w.now = w.now.Add(time.Second - 5*time.Millisecond)
			w.do(evChecked{name: "web", inc: w.running["web"], err: fmt.Errorf("no answer"), timeout: true})
		}
	}
	if took := w.now.Sub(began); asked != 3 || took > 4500*time.Millisecond {
		t.Errorf("hung is known after %v and %d questions", took, asked)
	}
}

func TestOrderAndShutdown(t *testing.T) {
	web, db := spec("web"), spec("db")
	web.After, db.Ready = []string{"db"}, p2pnode.ReadyNotify
	w := newWorld(t, web, db)
	if _, up := w.running["web"]; up {
		t.Fatal("web started before db was ready")
	}
	w.do(evNotified{name: "db", ready: true})
	if _, up := w.running["web"]; !up {
		t.Fatal("web did not start when db was ready")
	}
	w.do(evShutdown{within: 8 * time.Second})
	w.pass(10 * time.Second)
	if !w.done || len(w.running) != 0 {
		t.Fatalf("shutdown left %v", w.running)
	}
	var order []string
	for _, ev := range w.events {
		if ev.State == p2pnode.StateStopping {
			order = append(order, ev.Service)
		}
	}
	if !slices.Equal(order, []string{"web", "db"}) {
		t.Errorf("stopped in the order %v", order)
	}
}

func TestMissingUsesNoBudgetAndTriesOnChange(t *testing.T) {
	w := &world{}
	*w = *newWorld(t, spec("web"))
	w.pass(2 * time.Second)
	w.refuses, w.refuse = true, startMissing
	w.crash("web")
	w.pass(time.Minute)
	s := w.p.svcs["web"]
	if s.state != p2pnode.StateMissing || len(s.starts) != 1 {
		t.Fatalf("state %s, %d starts on the budget", s.state, len(s.starts))
	}
	w.refuses = false
	w.do(evWorld{name: "web"})
	if len(w.running) != 1 {
		t.Error("it did not start when its program was there")
	}
}

// Whatever happens in whatever order: one copy, rising incarnations, no start
// against a person's will, starts within the budget (all in carryOut), no question
// out of its order (in answers3), and a service that is wanted and not held is up or has
// a moment to look forward to (in look).
func TestPolicyHoldsUnderAnyQueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newVaried(t)
		for _, m := range drawMoves(t, 120) {
			w.play(m)
			w.look()
		}
	})
}

// varied is a host with five services of different kinds.
type varied struct {
	*world
	bad map[string]bool // these checks fail
	id  uint64          // of the newest question
}

func newVaried(t rapid.TB) *varied {
	b, c, d, e := spec("b"), spec("c"), spec("d"), spec("e")
	b.After = []string{"a"}
	c.Watchdog, c.Restart = time.Second, p2pnode.RestartOnFailure
	d.Requires = []string{"a", "c"}
	e.Checks = threeChecks(p2pnode.CheckStart, p2pnode.CheckReady, p2pnode.CheckLive)
	w := &varied{world: newWorld(t, spec("a"), b, c, d, e), bad: map[string]bool{}}
	w.asked = w.answers3(w.bad)
	return w
}

// move is one thing that happens to a host, and the time after it.
type move struct {
	what        int
	name        string
	verb, check string
	until, pass time.Duration
	on          bool
	op          int
	kind        startFailure
}

func drawMoves(t *rapid.T, most int) []move {
	one := rapid.Custom(func(t *rapid.T) move {
		return move{
			what: rapid.IntRange(0, 16).Draw(t, "what"),
			name: rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(t, "name"),
			verb: rapid.SampledFrom([]string{verbStart, verbStop, verbRestart}).Draw(t, "verb"), check: rapid.SampledFrom([]string{p2pnode.CheckStart, p2pnode.CheckReady, p2pnode.CheckLive}).Draw(t, "check"),
			until: rapid.SampledFrom([]time.Duration{0, time.Second, time.Hour}).Draw(t, "until"), pass: time.Duration(rapid.Int64Range(0, int64(20*time.Second)).Draw(t, "pass")),
			on: rapid.Bool().Draw(t, "on"), op: rapid.IntRange(0, 9).Draw(t, "op"), kind: startFailure(rapid.IntRange(0, int(startTraced)).Draw(t, "kind")),
		}
	})
	return rapid.SliceOfN(one, 1, most).Draw(t, "moves")
}

func (w *varied) play(m move) {
	inc := w.p.svcs[m.name].inc
	switch m.what {
	case 0, 1, 2:
		w.crash(m.name)
	case 3:
		w.do(evFrozen{name: m.name, inc: inc})
	case 4:
		w.do(evThawed{m.name})
	case 5:
		w.do(evOrder{verb: m.verb, name: m.name})
	case 6:
		w.do(evMaintenance{m.name, w.now.Add(m.until)})
	case 7:
		w.do(evObserve{m.name, m.on})
	case 8:
		w.do(evNode{connected: m.on, links: 1, orders: 1})
	case 9, 10:
		w.id++
		if m.on {
			inc.N -= min(inc.N, 1)
		}
		w.do(evRecover{
			id: w.id, req: p2pnode.RecoverRequest{Op: fmt.Sprint(m.op), Target: m.name, Expected: inc.String()},
			by: p2pnode.By{Kind: p2pnode.ByAgent},
		})
		if _, answered := w.answers[w.id]; !answered {
			w.t.Fatalf("recover %d has no answer", w.id)
		}
	case 11:
		w.refuses, w.refuse, w.tooLate = m.on, m.kind, m.op%2 == 1
	case 12:
		w.do(evWorld{name: m.name})
	case 13:
		w.do(evNotified{name: m.name, beat: true})
	case 14:
		w.traced = m.on
	case 15, 16:
		w.bad[m.check] = m.on
	}
	w.pass(m.pass)
}

func (w *world) look() {
	for s := range w.p.all {
		name := s.spec.Name
		if inc, lives := w.running[name]; lives != (s.phase == running || s.phase == stopping) || lives && inc != s.inc {
			w.t.Fatalf("%s: policy says phase %d %s, the world has %v %s", name, s.phase, s.inc, lives, inc)
		}
		if s.leaving && w.hold == nil || s.waiting && w.p.lacking(s) == nil {
			w.t.Fatalf("%s is %s (%s): leaving %v, waiting %v for nothing", name, s.state, s.why, s.leaving, s.waiting)
		}
		if w.stuck(s) && !slices.ContainsFunc(deadlinesOf(s), func(at time.Time) bool { return !at.IsZero() }) {
			w.t.Fatalf("%s is %s (%s), and of itself nothing will ever happen to it", name, s.state, s.why)
		}
	}
}

// stuck reports whether s is not as it is wanted, and no person is waited for.
func (w *world) stuck(s *svc) bool {
	f := s.failure
	switch {
	case s.stopped || s.removed || s.waiting || s.leaving:
		return false
	case f == nil:
		return s.phase == idle && s.state != p2pnode.StateExited
	}
	held := w.p.heldBy(w.now, s)
	return held != p2pnode.HeldObserve && held != p2pnode.HeldOff
}

func (w *world) dump() (out string) {
	for s := range w.p.all {
		out += fmt.Sprintf("%s phase %d %s failure %+v deadlines %v; ", s.spec.Name, s.phase, s.state, s.failure, deadlinesOf(s))
	}
	return out
}

func deadlinesOf(s *svc) (out []time.Time) {
	s.deadlines(func(t time.Time) { out = append(out, t) })
	return append(out, s.failureDeadlines()...)
}

func TestReloadTouchesOnlyWhatChanged(t *testing.T) {
	kept, changed, gone, fresh, same := spec("kept"), spec("changed"), spec("gone"), spec("fresh"), spec("same")
	w := newWorld(t, kept, changed, gone, same)
	before := w.running["kept"]
	changed.Command = []string{"other"}
	kept.StopGrace = time.Minute
	loaded := Loaded{Services: []p2pnode.ServiceSpec{kept, changed, fresh, same}, Grace: p2pnode.DefaultGrace()}
	diff := w.p.compareSpecs(loaded.Services)
	if fmt.Sprint(diff) != "{[fresh] [gone] [changed] [kept] [same] []}" {
		t.Errorf("a dry run says %+v", diff)
	}
	w.do(evReload{id: 1, loaded: loaded})
	if w.running["kept"] != before || len(w.starts["changed"]) != 2 || len(w.starts["fresh"]) != 1 {
		t.Errorf("running %v, starts %v", w.running, w.starts)
	}
	if _, there := w.running["gone"]; there || w.p.svcs["gone"] != nil {
		t.Error("what is no longer declared goes on")
	}
	loaded.Services = append(loaded.Services, gone)
	w.do(evReload{id: 3, loaded: loaded}) // carryOut checks that its numbers go on
	if w.running["gone"].Epoch != 7 {
		t.Errorf("declared again it runs as %s", w.running["gone"])
	}
	w.do(evReload{id: 2, loaded: loaded})
	if len(w.starts["changed"]) != 2 {
		t.Error("a reload of the same thing restarted it")
	}
}

// A check that is to make its service unready does so, and it comes back, without
// anybody being restarted.
func TestUnreadyIsNotRestarted(t *testing.T) {
	web := spec("web")
	web.Check = &p2pnode.Check{HTTP: "x", Every: time.Second, Timeout: time.Second, Failures: 2, Unready: true}
	w := newWorld(t, web)
	say := func(err error) {
		w.pass(time.Second)
		w.do(evChecked{name: "web", inc: w.running["web"], err: err})
	}
	say(nil)
	say(fmt.Errorf("no"))
	if s := w.p.svcs["web"]; s.state != p2pnode.StateUp {
		t.Errorf("one bad answer of two: %s", s.state)
	}
	for range 100 {
		say(fmt.Errorf("no"))
	}
	if s := w.p.svcs["web"]; s.state != p2pnode.StateUnready || s.why != "no" || s.failure != nil || len(w.starts["web"]) != 1 {
		t.Errorf("%s (%s), %d starts", s.state, s.why, len(w.starts["web"]))
	}
	say(nil)
	if s := w.p.svcs["web"]; s.state != p2pnode.StateUp || s.why != "" {
		t.Errorf("%s (%s)", s.state, s.why)
	}
}
