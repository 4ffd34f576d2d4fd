package exec

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"p2pnode"
)

var errBad = errors.New("bad")

// probed is a world in which the checks of a service are answered by what bad says:
// of each the error that it meets, and how often it was asked.
type probed struct {
	*world
	bad   map[string]error
	count map[string]int
	busy  float64
}

// threeChecks asks each second, by the names in which.
func threeChecks(which ...string) *p2pnode.Checks {
	one := func(name string) *p2pnode.Check {
		if !slices.Contains(which, name) {
			return nil
		}
		return &p2pnode.Check{HTTP: name, Every: time.Second, Timeout: time.Second, Failures: 3, Good: 1}
	}
	return &p2pnode.Checks{Start: one(p2pnode.CheckStart), Ready: one(p2pnode.CheckReady), Live: one(p2pnode.CheckLive)}
}

func probe(t *testing.T, bad map[string]error, specs ...p2pnode.ServiceSpec) *probed {
	w := &probed{world: newWorld(t, specs...), bad: bad, count: map[string]int{}}
	w.asked = func(e effCheck) (evChecked, bool) {
		w.count[e.which]++
		if e.check.HTTP != e.which && e.which != "" {
			t.Errorf("%s asks %q", e.which, e.check.HTTP)
		}
		return evChecked{err: w.bad[e.which], busy: w.busy}, true
	}
	return w
}

// answers3 says of each check what bad says; a question out of its order is an error,
// and so is a restart for want of readiness.
func (w *world) answers3(bad map[string]bool) func(effCheck) (evChecked, bool) {
	begun := map[p2pnode.Incarnation]bool{} // whose start check has passed
	return func(e effCheck) (evChecked, bool) {
		if begun[e.inc] == (e.which == p2pnode.CheckStart) {
			w.t.Fatalf("%s is asked for its %s; its start is over: %v", e.name, e.which, begun[e.inc])
		}
		if ev := w.last(e.name, p2pnode.FactFailed); strings.HasPrefix(ev.Detail, p2pnode.CheckReady) {
			w.t.Fatalf("%s failed: %s", e.name, ev.Detail)
		}
		if bad[e.which] {
			return evChecked{err: fmt.Errorf("bad"), skip: w.traced, traced: w.traced}, true
		}
		begun[e.inc] = true
		return evChecked{}, true
	}
}

func (w *probed) expect(name string, state p2pnode.ServiceState, starts int) {
	w.t.Helper()
	if s := w.p.svcs[name]; s.state != state || len(w.starts[name]) != starts {
		w.t.Errorf("%s is %s (%s) after %d starts, want %s after %d", name, s.state, s.why, len(w.starts[name]), state, starts)
	}
}

// What is bad all the time, by the checks that a service has: what it is after 5 s, and
// how often it was started after two minutes, of which 10 s are its start.
func TestWhatEachCheckDecides(t *testing.T) {
	all := []string{p2pnode.CheckStart, p2pnode.CheckReady, p2pnode.CheckLive}
	start, ready, live := all[:1], all[1:2], all[2:]
	for _, c := range []struct {
		has, bad []string
		state    p2pnode.ServiceState
		again    bool   // it is restarted
		which    string // does not pass at 5 s
	}{
		{all, nil, p2pnode.StateUp, false, ""},
		{start, nil, p2pnode.StateUp, false, ""},
		{ready, nil, p2pnode.StateUp, false, ""},
		{live, nil, p2pnode.StateUp, false, ""},
		{all[1:], nil, p2pnode.StateUp, false, ""},
		{all, start, p2pnode.StateStarting, true, "start"},
		{start, start, p2pnode.StateStarting, true, "start"},
		{all, all, p2pnode.StateStarting, true, "start"},
		{all, ready, p2pnode.StateUnready, false, "ready"},
		{ready, ready, p2pnode.StateStarting, false, "ready"},
		{all[1:], ready, p2pnode.StateStarting, false, "ready"},
		{live, live, p2pnode.StateStarting, true, "live"},
		{all[1:], live, p2pnode.StateUp, true, "live"},
		{all[1:], all[1:], p2pnode.StateStarting, true, "ready"},
	} {
		t.Run(fmt.Sprint(c.has, " without ", c.bad), func(t *testing.T) {
			s := spec("web")
			s.Checks, s.StartWithin = threeChecks(c.has...), 10*time.Second
			bad := map[string]error{}
			for _, which := range c.bad {
				bad[which] = errBad
			}
			w := probe(t, bad, s)
			w.pass(5 * time.Second)
			w.expect("web", c.state, 1)
			if got := w.p.svcs["web"].checkStatus(); got.Which != c.which || (got.State == "passing") != (c.which == "") {
				t.Errorf("its check is %+v, want %q", got, c.which)
			}
			w.pass(2 * time.Minute)
			if n := len(w.starts["web"]); (n > 1) != c.again {
				t.Errorf("%d starts", n)
			}
			if ev := w.last("web", p2pnode.FactFailed); c.again && !strings.HasPrefix(ev.Detail, "start check: bad") && !strings.HasPrefix(ev.Detail, "live check: bad") {
				t.Errorf("it failed by %q", ev.Detail)
			}
		})
	}
}

// The other two are not asked before a start's success, and it is not asked after; a
// start longer than three of its periods is no failure.
func TestAStartCheckGatesTheOthersOnce(t *testing.T) {
	s := spec("web")
	s.Checks = threeChecks(p2pnode.CheckStart, p2pnode.CheckReady, p2pnode.CheckLive)
	w := probe(t, map[string]error{"start": errBad, "live": errBad}, s)
	w.pass(50 * time.Second)
	if want := map[string]int{"start": w.count["start"]}; !maps.Equal(w.count, want) || w.count["start"] < 40 {
		t.Fatalf("asked %v", w.count)
	}
	w.expect("web", p2pnode.StateStarting, 1)
	w.bad = nil
	w.pass(1100 * time.Millisecond)
	w.expect("web", p2pnode.StateUp, 1)
	n := w.count["start"]
	w.pass(20 * time.Second)
	if w.count["start"] != n || w.count["ready"] < 15 || w.count["live"] < 15 {
		t.Errorf("asked %v; start %d times until its success", w.count, n)
	}
	w.bad = map[string]error{"live": errBad} // its start is over: it counts at once
	w.pass(3300 * time.Millisecond)
	w.expect("web", p2pnode.StateUp, 2)
	if ev := w.last("web", p2pnode.FactFailed); ev.Detail != "live check: bad (3 times)" {
		t.Errorf("it failed by %q", ev.Detail)
	}
}

// Who is not ready is waited for, and is ready again after its successes; what is only
// asked whether it lives goes on being asked.
func TestAnUnreadyServiceIsWaitedFor(t *testing.T) {
	s, after := spec("web"), spec("after")
	s.Checks = threeChecks(p2pnode.CheckReady, p2pnode.CheckLive)
	s.Checks.Ready.Good = 3
	after.After = []string{"web"}
	w := probe(t, nil, s)
	w.pass(5 * time.Second)
	w.expect("web", p2pnode.StateUp, 1)
	w.bad = map[string]error{"ready": errBad}
	w.pass(5 * time.Second)
	w.expect("web", p2pnode.StateUnready, 1)
	if why := w.p.svcs["web"].why; why != "ready check: bad" {
		t.Errorf("unready by %q", why)
	}
	w.do(evReload{loaded: Loaded{Services: []p2pnode.ServiceSpec{s, after}, Grace: p2pnode.DefaultGrace()}})
	w.pass(time.Minute)
	w.expect("web", p2pnode.StateUnready, 1)
	w.expect("after", p2pnode.StateStarting, 0)
	w.bad = nil
	n := w.count["ready"]
	for w.p.svcs["web"].state == p2pnode.StateUnready && w.count["ready"] < n+9 {
		w.pass(10 * time.Millisecond)
	}
	if w.count["ready"] != n+3 {
		t.Errorf("ready again after %d good answers, 3 are wanted", w.count["ready"]-n)
	}
	w.expect("after", p2pnode.StateUp, 1)
}

// What is held hung, because its live check failed, and lives again is only unready while
// its ready check fails, and up when that passes; the ready check alone mends nothing.
func TestWhatHungComesBackByItsOwnCheck(t *testing.T) {
	s := spec("web")
	s.Checks, s.Recover = threeChecks(p2pnode.CheckReady, p2pnode.CheckLive), p2pnode.RecoverOff
	w := probe(t, nil, s)
	for _, c := range []struct {
		bad   []string
		state p2pnode.ServiceState
	}{
		{nil, p2pnode.StateUp},
		{[]string{"ready", "live"}, p2pnode.StateHung},
		{[]string{"live"}, p2pnode.StateHung},
		{[]string{"ready", "live"}, p2pnode.StateHung},
		{[]string{"ready"}, p2pnode.StateUnready},
		{nil, p2pnode.StateUp},
		{[]string{"live"}, p2pnode.StateHung},
		{nil, p2pnode.StateUp},
	} {
		w.bad = map[string]error{}
		for _, which := range c.bad {
			w.bad[which] = errBad
		}
		w.pass(10 * time.Second)
		w.expect("web", c.state, 1)
		s, hung := w.p.svcs["web"], c.state == p2pnode.StateHung
		if (s.failure != nil) != hung || hung && !s.readyAt.IsZero() {
			t.Errorf("without %v: failure %+v, ready since %v", c.bad, s.failure, s.readyAt)
		}
	}
}

// Busy is not hung by a live check either, and good readiness does not hide it.
func TestBusyIsUnreadyWhateverReadySays(t *testing.T) {
	s := spec("web")
	s.Checks = threeChecks(p2pnode.CheckReady, p2pnode.CheckLive)
	w := probe(t, nil, s)
	w.pass(5 * time.Second)
	w.bad, w.busy = map[string]error{"live": errBad}, 0.5
	w.pass(10 * time.Second)
	w.expect("web", p2pnode.StateUnready, 1)
	ups := 0
	for _, ev := range w.events {
		if ev.Event == p2pnode.FactUp {
			ups++
		}
	}
	if ups != 1 {
		t.Errorf("it was up %d times", ups)
	}
	w.bad = nil
	w.pass(2 * time.Second)
	w.expect("web", p2pnode.StateUp, 1)
}

// A check that gets no answer holds up no other one.
func TestChecksOfOneServiceDoNotWaitForEachOther(t *testing.T) {
	s := spec("web")
	s.Checks = threeChecks(p2pnode.CheckReady, p2pnode.CheckLive)
	w := probe(t, nil, s)
	answers := w.asked
	w.asked = func(e effCheck) (evChecked, bool) {
		ev, _ := answers(e)
		return ev, e.which == p2pnode.CheckLive
	}
	w.pass(time.Minute)
	if w.count["ready"] != 1 || w.count["live"] < 50 {
		t.Errorf("asked %v", w.count)
	}
}

// Who stood still does not answer: its checks begin to count anew, and it is as ready
// as it was.
func TestAStopIsNoWordOfAnyCheck(t *testing.T) {
	for _, state := range []p2pnode.ServiceState{p2pnode.StateUp, p2pnode.StateUnready} {
		s := spec("web")
		s.Checks, s.StopGrace = threeChecks(p2pnode.CheckReady, p2pnode.CheckLive), time.Minute
		w := probe(t, nil, s)
		w.pass(5 * time.Second)
		if state == p2pnode.StateUnready {
			w.bad = map[string]error{"ready": errBad}
			w.pass(5 * time.Second)
		}
		was := maps.Clone(w.count)
		w.do(evFrozen{name: "web", inc: w.running["web"]})
		w.pass(20 * time.Second)
		if !maps.Equal(w.count, was) {
			t.Errorf("asked %v, before the stop %v", w.count, was)
		}
		w.do(evThawed{"web"})
		w.expect("web", state, 1)
	}
}

// A change of checks is no reason to restart, whatever the service was and is asked.
func TestAReloadOfChecksTouchesNoProcess(t *testing.T) {
	asked := func(check *p2pnode.Check, checks *p2pnode.Checks) p2pnode.ServiceSpec {
		s := spec("web")
		s.Check, s.Checks = check, checks
		return s
	}
	three := threeChecks(p2pnode.CheckStart, p2pnode.CheckReady, p2pnode.CheckLive)
	for name, c := range map[string]struct {
		from, to p2pnode.ServiceSpec
		bad      string // then and after
		before   p2pnode.ServiceState
		after    p2pnode.ServiceState
	}{
		"check to checks":       {asked(&p2pnode.Check{HTTP: "x"}, nil), asked(nil, three), "start", p2pnode.StateUp, p2pnode.StateUp},
		"nothing to checks":     {asked(nil, nil), asked(nil, three), "start", p2pnode.StateUp, p2pnode.StateUp},
		"checks to nothing":     {asked(nil, three), asked(nil, nil), "ready", p2pnode.StateUnready, p2pnode.StateUp},
		"no ready any more":     {asked(nil, three), asked(nil, threeChecks(p2pnode.CheckLive)), "ready", p2pnode.StateUnready, p2pnode.StateUp},
		"only start any more":   {asked(nil, three), asked(nil, threeChecks(p2pnode.CheckStart)), "ready", p2pnode.StateUnready, p2pnode.StateUp},
		"in its start":          {asked(nil, three), asked(nil, threeChecks(p2pnode.CheckStart)), "start", p2pnode.StateStarting, p2pnode.StateStarting},
		"in its start, all":     {asked(nil, three), asked(nil, nil), "start", p2pnode.StateStarting, p2pnode.StateUp},
		"ready for a start":     {asked(nil, threeChecks(p2pnode.CheckReady)), asked(nil, three), "ready", p2pnode.StateStarting, p2pnode.StateUnready},
		"a start more, at once": {asked(nil, threeChecks(p2pnode.CheckReady)), asked(nil, three), "start", p2pnode.StateUp, p2pnode.StateUp},
	} {
		t.Run(name, func(t *testing.T) {
			w := probe(t, map[string]error{c.bad: errBad}, c.from)
			w.pass(5 * time.Second)
			w.expect("web", c.before, 1)
			w.do(evReload{loaded: Loaded{Services: []p2pnode.ServiceSpec{c.to}, Grace: p2pnode.DefaultGrace()}})
			w.pass(10 * time.Second)
			w.expect("web", c.after, 1)
		})
	}
}

// Jitter moves each question of a service that is well, and 0 leaves it alone.
func TestJitterIsWhatItSays(t *testing.T) {
	for _, jitter := range []time.Duration{0, 400 * time.Millisecond} {
		s := spec("web")
		s.Checks = threeChecks(p2pnode.CheckLive)
		s.Checks.Live.Jitter = jitter
		w := newWorld(t, s)
		var at []time.Time
		w.asked = func(effCheck) (evChecked, bool) {
			at = append(at, w.now)
			return evChecked{}, true
		}
		w.pass(time.Minute)
		low, high := time.Hour, time.Duration(0)
		for i := 2; i < len(at); i++ {
			gap := at[i].Sub(at[i-1]) - time.Second
			low, high = min(low, gap), max(high, gap)
		}
		if low < 0 || high > jitter || jitter > 0 && high-low < jitter/2 {
			t.Errorf("jitter %v: questions are from %v to %v late", jitter, low, high)
		}
	}
}

// What was asked under rules that a reload has changed says nothing under the new ones.
func TestAnAnswerCountsUnderItsOwnRules(t *testing.T) {
	s := spec("web")
	s.Check = &p2pnode.Check{HTTP: "old", Every: time.Second, Timeout: time.Second, Failures: 1, Good: 1}
	w := newWorld(t, s)
	var put []effCheck
	w.asked = func(e effCheck) (evChecked, bool) { // all but the last are answered at once
		put = append(put, e)
		return evChecked{}, len(put) == 1
	}
	w.pass(3 * time.Second)
	if len(put) != 2 {
		t.Fatalf("asked %d times", len(put))
	}
	s.Check = &p2pnode.Check{HTTP: "new", Every: time.Second, Timeout: time.Second, Failures: 1, Good: 1}
	w.do(evReload{loaded: Loaded{Services: []p2pnode.ServiceSpec{s}, Grace: w.p.grace}})
	w.pass(500 * time.Millisecond)
	if len(put) != 3 || put[2].check.HTTP != "new" {
		t.Fatalf("asked %+v", put)
	}
	answer := func(e effCheck, err error) {
		w.do(evChecked{name: "web", inc: e.inc, which: e.which, rules: e.rules, err: err})
	}
	answer(put[1], errBad)
	if f := w.last("web", p2pnode.FactFailed); f.Class != "" || !w.p.svcs["web"].health.checks[0].asking {
		t.Fatalf("the old answer counted: %+v", f)
	}
	answer(put[2], errBad)
	if f := w.last("web", p2pnode.FactFailed); f.Class != p2pnode.ClassCheckFailed {
		t.Errorf("the new one did not: %+v", f)
	}
}

// When to wake next is asked with every event, of every service: where two hundred are
// asked each second, a slice for each was a third of what exec did.
func TestTheNextMomentIsFoundWithoutGarbage(t *testing.T) {
	web, db := service("web", "x"), service("db", "x")
	web.Checks, db.Checks = threeChecks(p2pnode.CheckLive), threeChecks(p2pnode.CheckReady, p2pnode.CheckLive)
	w := probe(t, nil, web, db)
	w.pass(time.Minute)
	if n := testing.AllocsPerRun(100, func() { w.p.next() }); n != 0 || w.p.next().IsZero() {
		t.Errorf("%v pieces of memory to find %v", n, w.p.next())
	}
}
