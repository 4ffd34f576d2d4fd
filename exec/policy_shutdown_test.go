package exec

import (
	"fmt"
	"maps"
	"strconv"
	"testing"
	"time"

	"p2pnode"

	"pgregory.net/rapid"
)

// Each of a chain has its part of a shutdown's time, and those after it what it did not
// need: a database that writes for long after quick ones is not killed for it. Node
// process and door have their eighth, whatever services take.
func TestAShutdownSharesItsTime(t *testing.T) {
	const front, db, slow = "front", "db", "slow"
	patient := func(name string, after ...string) p2pnode.ServiceSpec {
		s := spec(name)
		s.After, s.StopTimeout = after, time.Minute
		return s
	}
	const asks = "asks for more"
	hasty := patient(front, db)
	hasty.StopTimeout = time.Second
	self := []p2pnode.ServiceSpec{patient(p2pnode.SelfNode), patient(p2pnode.SelfDoor)}
	for _, c := range []struct {
		what     string
		services []p2pnode.ServiceSpec
		deaf     []string         // end by SIGKILL alone
		before   string           // is being stopped already
		killed   map[string]int64 // after so many milliseconds of eight seconds
	}{
		{asks, append(self, patient(front, db), patient(db)), []string{front, db}, "", map[string]int64{front: 2600, db: 5200}},
		{asks, append(self, hasty, patient(db)), []string{front, db}, "", map[string]int64{front: 2600, db: 5200}},
		{"one alone", []p2pnode.ServiceSpec{patient(db)}, []string{db}, "", map[string]int64{db: 5200}},
		{"its own time is shorter", []p2pnode.ServiceSpec{hasty, patient(db)}, []string{front, db}, "", map[string]int64{front: 1000, db: 5200}},
		{"what comes before it is quick", []p2pnode.ServiceSpec{patient(front, db), patient(db)}, []string{db}, "", map[string]int64{db: 5200}},
		{"all take what they get", []p2pnode.ServiceSpec{patient(front, db), patient(db)}, []string{front, db}, "", map[string]int64{front: 2600, db: 5200}},
		{"it has nothing to do with the chain", []p2pnode.ServiceSpec{patient(front, db), patient(db), patient(slow)}, []string{front, slow}, "", map[string]int64{front: 2600, slow: 5200}},
		{"it was being stopped", []p2pnode.ServiceSpec{patient(front, db), patient(db)}, []string{front}, front, map[string]int64{front: 2600}},
		{"the node process hangs", append(self, patient(db)), []string{p2pnode.SelfNode}, "", map[string]int64{p2pnode.SelfNode: 6200}},
		{"nothing heeds its signal", append(self, patient(db)), []string{p2pnode.SelfNode, p2pnode.SelfDoor, db}, "", map[string]int64{db: 5200, p2pnode.SelfNode: 6200, p2pnode.SelfDoor: 7200}},
	} {
		w := newWorld(t, c.services...)
		w.pass(time.Minute)
		w.hold = map[string]bool{}
		for _, name := range c.deaf {
			w.hold[name] = true
		}
		if c.before != "" {
			w.do(evOrder{name: c.before, verb: verbStop})
		}
		began, killed := w.now, map[string]int64{}
		w.do(evShutdown{within: 8 * time.Second})
		if c.what == asks {
			w.do(evNotified{name: front, more: 7 * time.Second})
		}
		for range 1000 {
			was := maps.Clone(w.running)
			w.pass(10 * time.Millisecond)
			for name := range was {
				if _, lives := w.running[name]; !lives && w.hold[name] {
					killed[name] = w.now.Sub(began).Milliseconds()
				}
			}
		}
		if !maps.Equal(killed, c.killed) || !w.done || len(w.running) > 0 {
			t.Errorf("%s: killed %v, want %v; done %v, left %v", c.what, killed, c.killed, w.done, w.running)
		}
	}
}

// A shutdown that begins before exec knows what lives is shared out among what it finds.
func TestAShutdownBeforeTheBootSharesItsTime(t *testing.T) {
	front := spec("front")
	front.After, front.StopTimeout = []string{"db"}, time.Minute
	w := newWorld(t)
	w.p.booted = false
	boot := evBoot{}
	for _, s := range []p2pnode.ServiceSpec{spec("db"), front} {
		w.p.add(w.now, s)
		w.running[s.Name] = p2pnode.Incarnation{Epoch: 7, N: 1}
		boot.found = append(boot.found, found{name: s.Name, inc: w.running[s.Name]})
	}
	w.hold = map[string]bool{"front": true}
	w.do(evShutdown{within: 8 * time.Second})
	w.do(boot)
	began := w.now
	for w.pass(0); len(w.running) > 0; w.pass(10 * time.Millisecond) {
	}
	if took := w.now.Sub(began); took != 2600*time.Millisecond {
		t.Errorf("a deaf one before another was killed after %v", took)
	}
}

// Whatever overruns its share of a shutdown, by an extension that it asks for, a start in
// flight or a kernel that does not let it die: all that stops after it has a part of what
// is left, and it is over in time.
func TestAnOverrunLeavesAllTheirPart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		within := time.Duration(rapid.IntRange(100, 20_000).Draw(t, "within")) * time.Millisecond
		moment := func(what string) time.Duration {
			return time.Duration(rapid.Int64Range(0, int64(within*5/4)).Draw(t, what))
		}
		chain := rapid.IntRange(1, 6).Draw(t, "chain")
		specs := []p2pnode.ServiceSpec{spec(p2pnode.SelfNode), spec(p2pnode.SelfDoor)}
		for i := range chain { // the last one stops first
			s := spec(fmt.Sprint("s", i))
			if i > 0 {
				s.After = []string{fmt.Sprint("s", i-1)}
			}
			specs = append(specs, s)
		}
		for i := range specs {
			specs[i].StopTimeout = time.Hour
		}
		w := newWorld(t, specs...)
		w.pass(time.Minute)
		w.hold, w.kernel = map[string]bool{}, map[string]bool{}
		inFlight, dies, extends := map[string]time.Duration{}, map[string]time.Duration{}, map[string]time.Duration{}
		for _, s := range specs {
			switch name := s.Name; rapid.SampledFrom([]string{"quick", "deaf", "asks", "starts", "held", "late"}).Draw(t, name) {
			case "deaf":
				w.hold[name] = true
			case "asks":
				w.hold[name], extends[name] = true, moment("more")
			case "held":
				w.hold[name], w.kernel[name], dies[name] = true, true, moment("dies")
			case "late":
				w.hold[name], dies[name] = true, moment("ends")
			case "starts":
				w.pending = true
				w.crash(name)
				w.pass(time.Second)
				w.pending, inFlight[name] = false, moment("started")
			}
		}
		began := w.now
		end := began.Add(within)
		var asking []evNotified
		w.asksEnd = func(name string) {
			left := end.Sub(w.now)
			if left <= 0 {
				return
			}
			own, others, n := 0.125, 0.1, 1.0 // of all: what it has by the plan, and so many of its chain, and what is for others
			if name == p2pnode.SelfNode {
				others = 0.225
			} else if i, err := strconv.Atoi(name[1:]); err == nil {
				own, others, n = 0.65/float64(chain), 0.35, float64(i+1)
			}
			floor := time.Duration(float64(left) * own / (own*n + others))
			if has := w.p.svcs[name].stopKill.Sub(w.now); has <= 0 || has < floor-time.Microsecond {
				t.Fatalf("%v before the end %s has %v to stop, and not %v", left, name, has, floor)
			}
			if more, ok := extends[name]; ok {
				asking = append(asking, evNotified{name: name, more: more})
			}
		}
		w.do(evShutdown{within: within})
		for w.now.Before(end) {
			w.pass(within / 1000)
			at := w.now.Sub(began)
			for _, s := range specs {
				name := s.Name
				if now := w.p.svcs[name]; inFlight[name] > 0 && at >= inFlight[name] && now.start != nil {
					w.running[name] = now.inc
					w.do(evStarted{name: name, inc: now.inc, pid: 1, looked: w.now})
				}
				if dies[name] > 0 && at >= dies[name] && w.p.svcs[name].phase == stopping {
					w.crash(name)
				}
			}
			for _, ev := range asking {
				w.do(ev)
			}
			asking = nil
		}
		w.pass(time.Millisecond)
		for name := range w.running {
			if !w.kernel[name] {
				t.Fatalf("%s lives when the time is over", name)
			}
		}
		if w.pass(killPatience); !w.done {
			t.Fatal("it is not over")
		}
	})
}

// What does not die of SIGKILL, since a disk that is gone holds it, holds up nobody: what
// stops after it is asked half a second later, and has its time.
func TestWhatTheKernelHoldsHoldsUpNobody(t *testing.T) {
	for what, stopped := range map[string]time.Duration{"it is killed in the shutdown": 0, "it was killed before": time.Second} {
		front := spec("front")
		front.After, front.StopTimeout = []string{"db"}, 500*time.Millisecond
		w := newWorld(t, spec(p2pnode.SelfNode), spec(p2pnode.SelfDoor), front, spec("db"))
		w.pass(time.Minute)
		w.hold = map[string]bool{"front": true}
		w.kernel = w.hold
		if stopped > 0 {
			w.do(evOrder{name: "front", verb: verbStop})
			w.pass(stopped)
		}
		w.do(evShutdown{within: 8 * time.Second})
		w.pass(1100 * time.Millisecond)
		if len(w.running) != 1 || w.p.svcs["front"].state != p2pnode.StateUnkillable {
			t.Errorf("%s: after a second there are %v, front is %s", what, w.running, w.p.svcs["front"].state)
		}
		for _, ev := range w.events {
			if ev.Exit != nil && ev.Exit.Signal != "" {
				t.Errorf("%s: killed was %s", what, ev.Service)
			}
		}
		if w.pass(8*time.Second + killPatience); !w.done {
			t.Errorf("%s: it is not over", what)
		}
	}
}

// A service that an exec starts for the first time was not restarted, whatever number
// its life has; one whose life ended while no exec looked was.
func TestAFirstStartIsNoRestart(t *testing.T) {
	before := p2pnode.Incarnation{Epoch: 7, N: 41}
	for what, c := range map[string]struct {
		boot evBoot
		want int
	}{
		"the host was shut down":       {evBoot{}, 0},
		"it died and nobody looked":    {evBoot{ended: []evEnded{{name: "web", inc: before, restarts: 3}}}, 4},
		"it died before it was there":  {evBoot{unborn: []unborn{{name: "web", restarts: 4}}}, 4},
		"its first life was not there": {evBoot{unborn: []unborn{{name: "web"}}}, 0},
		"it lives":                     {evBoot{found: []found{{name: "web", inc: before, restarts: 3}}}, 3},
	} {
		w := newWorld(t)
		w.p.booted = false
		w.p.past["web"] = before
		w.p.add(w.now, spec("web"))
		for _, f := range c.boot.found {
			w.running[f.name] = f.inc
		}
		w.do(c.boot)
		w.pass(time.Minute)
		s := w.p.svcs["web"]
		if s.restarts != c.want || s.state != p2pnode.StateUp {
			t.Errorf("%s: %s after %d restarts, want %d", what, s.state, s.restarts, c.want)
		}
		w.crash("web")
		w.pass(time.Minute)
		if s.restarts != c.want+1 {
			t.Errorf("%s, and a crash: %d restarts", what, s.restarts)
		}
	}
}
