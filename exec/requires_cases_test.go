package exec

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"p2pnode"

	"pgregory.net/rapid"
)

// letGo ends what does not end by a signal.
func (w *world) letGo(name string) {
	delete(w.hold, name)
	for _, ev := range w.end(name, p2pnode.Exit{}) {
		w.do(ev)
	}
}

func (w *world) order(verb, name string) { w.do(evOrder{verb: verb, name: name, by: "ann"}) }

func (w *world) reload(specs ...p2pnode.ServiceSpec) {
	w.do(evReload{loaded: Loaded{Services: specs, Grace: w.p.grace}})
}

// slow are services that take their time to stop.
func (w *world) slow(names ...string) {
	w.hold = map[string]bool{}
	for _, name := range names {
		w.hold[name] = true
	}
}

func requiring(name string, required ...string) p2pnode.ServiceSpec {
	s := spec(name)
	s.Requires = required
	return s
}

func another(s p2pnode.ServiceSpec) p2pnode.ServiceSpec {
	s.Command = []string{"another"}
	return s
}

func byHand(name string) p2pnode.ServiceSpec {
	s := spec(name)
	s.Manual = true
	return s
}

// What happens in the middle of something. In the end those run that want says; starts,
// where given, is how often each was started.
func TestRequiresInTheMiddle(t *testing.T) {
	chained := []p2pnode.ServiceSpec{spec("db"), requiring("web", "db"), requiring("site", "web")}
	job := spec("job")
	job.Restart = p2pnode.RestartOnFailure
	once := spec("db")
	once.Restart = p2pnode.RestartNo
	afterCache := requiring("web", "db")
	afterCache.After = []string{"cache"}
	for _, c := range []struct {
		name   string
		specs  []p2pnode.ServiceSpec
		do     func(w *world)
		want   string
		starts string
	}{
		{"a stop stays one through a reload", chained, func(w *world) {
			w.slow("site")
			w.order(verbStop, "web")
			w.reload(chained[0], another(chained[1]), chained[2])
			w.letGo("site")
		}, "db", ""},
		{"a job that has ended is not waited for", []p2pnode.ServiceSpec{job, spec("db"), requiring("web", "db", "job")}, func(w *world) {
			for _, ev := range w.end("job", p2pnode.Exit{}) {
				w.do(ev)
			}
			w.pass(clearAfter)
			w.crash("db")
		}, "db web", "db 2 job 1 web 2"},
		{"what it only comes after may be away", []p2pnode.ServiceSpec{spec("cache"), spec("db"), afterCache}, func(w *world) {
			w.order(verbStop, "cache")
			w.crash("db")
		}, "db web", ""},
		{"a stop that is taken back wakes who has ended", []p2pnode.ServiceSpec{spec("db"), requiring("web", "db"), requiring("site", "db")}, func(w *world) {
			w.slow("site")
			w.order(verbStop, "db")
			w.order(verbStart, "db")
			w.letGo("site")
		}, "db site web", "db 1 site 2 web 2"},
		{"stopped twice, taken back once", chained, func(w *world) {
			w.slow("db", "web")
			w.do(evMaintenance{"web", w.now.Add(time.Second)})
			w.order(verbStop, "db")
			w.pass(2 * time.Second)
			w.order(verbStop, "db")
			w.order(verbStart, "db")
			w.letGo("db")
			w.letGo("web")
		}, "db site web", ""},
		{"taken back when it has ended by itself", []p2pnode.ServiceSpec{once, requiring("web", "db")}, func(w *world) {
			w.slow("web")
			w.order(verbStop, "db")
			w.crash("db")
			w.order(verbStart, "db")
			w.letGo("web")
		}, "db web", ""},
		{"a reload takes what it waits for away", chained, func(w *world) {
			w.order(verbStop, "db")
			w.reload(spec("web"))
		}, "web", ""},
		{"the last one is started, the middle one waits", chained, func(w *world) {
			w.order(verbStop, "db")
			w.pass(time.Minute)
			w.order(verbStart, "site")
		}, "db site web", ""},
		{"what is required has ended by itself", []p2pnode.ServiceSpec{once, requiring("web", "db")}, func(w *world) {
			w.crash("db")
			w.order(verbStop, "web")
			w.order(verbStart, "web")
		}, "db web", "db 2 web 2"},
		{"a shutdown that keeps services keeps them", append(chained, spec(p2pnode.SelfNode)), func(w *world) {
			w.slow("site")
			w.order(verbRestart, "db")
			w.do(evShutdown{keep: true, within: 10 * time.Second})
			w.letGo("site")
		}, "db web", ""},
		{"a reload of both, the one that requires first", []p2pnode.ServiceSpec{requiring("web", "db"), spec("db")}, func(w *world) {
			w.slow("db", "web")
			w.reload(another(requiring("web", "db")), another(spec("db")))
			w.letGo("web")
			w.letGo("db")
		}, "db web", "db 2 web 2"},
		{"a restart of both, the one that requires first", []p2pnode.ServiceSpec{requiring("web", "db"), spec("db")}, func(w *world) {
			w.slow("db", "web")
			w.order(verbRestart, "web")
			w.order(verbRestart, "db")
			w.letGo("web")
			w.letGo("db")
		}, "db web", "db 2 web 2"},
		{"an agent asks for what is leaving", chained, func(w *world) {
			w.do(evNode{connected: true, life: p2pnode.Life{Boot: 1, Nonce: 1}, links: 1, orders: 1})
			w.slow("site")
			w.order(verbRestart, "web")
			old := w.running["web"]
			w.crash("web")
			w.do(evRecover{id: 1, req: p2pnode.RecoverRequest{Op: "a", Target: "web", Expected: old.String()}, by: p2pnode.By{Kind: p2pnode.ByAgent, Agent: "x"}})
			if a := w.answers[1]; a.Outcome != p2pnode.OutcomeRefused || a.Reason != p2pnode.RefusedStopped {
				w.t.Errorf("the agent is told %+v", a)
			}
			w.letGo("site")
		}, "db site web", "db 1 site 2 web 2"},
		{"maintenance is over", chained, func(w *world) {
			w.do(evMaintenance{"web", w.now.Add(time.Minute)})
			w.crash("db")
		}, "db site web", "db 2 site 2 web 2"},
		{"maintenance begins", chained, func(w *world) {
			w.slow("site")
			w.order(verbRestart, "db")
			w.do(evMaintenance{"web", w.now.Add(24 * time.Hour)})
			w.letGo("site")
		}, "db site web", "db 2 site 2 web 1"},
		{"a debugger holds the last one", chained, func(w *world) {
			w.traced = true
			w.do(evFrozen{"site", w.running["site"]})
			w.pass(6 * time.Second)
			w.crash("db")
		}, "db site web", "db 2 site 1 web 2"},
		{"a debugger has left", chained, func(w *world) {
			w.traced = true
			w.do(evFrozen{"web", w.running["web"]})
			w.pass(6 * time.Second)
			w.crash("db")
			w.traced = false
			w.do(evThawed{"web"})
		}, "db site web", "db 2 site 2 web 2"},
		{"another thing that it requires is away", []p2pnode.ServiceSpec{spec("cache"), spec("db"), requiring("web", "db", "cache")}, func(w *world) {
			w.refuses, w.refuse = true, startMissing
			w.crash("cache")
			w.refuses = false
			w.p.svcs["cache"].probeAt = w.now.Add(48 * time.Hour)
			w.crash("db")
		}, "db web", "cache 1 db 2 web 1"},
		{"maintenance ends beside what a person stopped", chained, func(w *world) {
			w.do(evMaintenance{"web", w.now.Add(time.Minute)})
			w.order(verbStop, "db")
		}, "", ""},
		{"set aside, but on its way down", chained, func(w *world) {
			w.slow("web")
			w.do(evMaintenance{"web", w.now.Add(time.Hour)})
			w.order(verbStop, "site")
			w.order(verbStop, "web")
			w.order(verbStop, "db")
			if w.p.svcs["db"].phase != running {
				w.t.Error("db did not wait for web")
			}
			w.letGo("web")
		}, "", ""},
		{"requires goes while a renewal is put off", chained, func(w *world) {
			w.p.svcs["web"].starts = slices.Repeat([]time.Time{w.now}, budgetStarts)
			w.crash("db")
			if s := w.p.svcs["web"]; s.renewAt.IsZero() || !strings.Contains(s.why, "budget") {
				w.t.Errorf("web is not put off: %q", s.why)
			}
			w.reload(spec("db"), spec("web"), chained[2])
		}, "db site web", "db 2 site 1 web 1"},
		{"a reload takes one away and changes what is required", append([]p2pnode.ServiceSpec{byHand("aside")}, chained...), func(w *world) {
			w.slow("site")
			w.reload(another(chained[0]), chained[1], chained[2])
			if w.p.svcs["db"].phase != running {
				w.t.Error("db did not wait for web")
			}
			w.letGo("site")
		}, "db site web", "db 2 site 2 web 2"},
		{"stopped by a signal, and a stop taken back", chained, func(w *world) {
			w.slow("site")
			w.do(evFrozen{"web", w.running["web"]})
			w.order(verbStop, "web")
			w.order(verbStart, "web")
			w.pass(time.Minute)
			w.letGo("site")
		}, "db site web", "db 1 site 3 web 2"},
		{"what crashes meanwhile", chained, func(w *world) {
			w.slow("site")
			w.order(verbRestart, "web")
			w.crash("web")
			if s := w.p.svcs["web"]; s.state != p2pnode.StateStopping || s.why == "" {
				w.t.Errorf("web is %s: %q", s.state, s.why)
			}
			w.pass(time.Second) // and it does not spin
			w.letGo("site")
		}, "db site web", "db 1 site 2 web 2"},
		{"what keeps failing meanwhile", chained, func(w *world) {
			w.crash("web")
			w.crash("web")
			w.slow("site")
			w.order(verbRestart, "db")
			w.pass(time.Second)
			w.letGo("site")
		}, "db site web", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, c.specs...)
			w.pass(clearAfter + time.Second)
			c.do(w)
			w.pass(time.Hour)
			w.hold = nil
			if !w.p.shutdown.on {
				w.look()
			}
			var names []string
			for name := range w.running {
				if !strings.HasPrefix(name, "@") {
					names = append(names, name)
				}
			}
			slices.Sort(names)
			if got := strings.Join(names, " "); got != c.want {
				t.Errorf("%q run, want %q: %s", got, c.want, w.dump())
			}
			var starts []string
			for name, at := range w.starts {
				starts = append(starts, fmt.Sprintf("%s %d", name, len(at)))
			}
			slices.Sort(starts)
			if got := strings.Join(starts, " "); c.starts != "" && got != c.starts {
				t.Errorf("starts %q, want %q", got, c.starts)
			}
		})
	}
}

// A person is told what something waits for, and for whom it stops, as it is now.
func TestRequiresTells(t *testing.T) {
	w := chain(t)
	why := func(name, want string) {
		t.Helper()
		if got := w.p.svcs[name].why; got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	w.slow("site")
	w.order(verbStop, "db")
	why("db", "it stops when web has, which requires it")
	why("site", "it has its life beside web's")
	w.order(verbStart, "db")
	why("db", "")
	w.letGo("site")
	w.pass(time.Second)
	w.order(verbStop, "db")
	why("site", "waiting for web, which waits for db, which ann stopped")
	w.refuses, w.refuse = true, startMissing
	w.order(verbStart, "db")
	why("web", "waiting for db, which is missing")

	w = newWorld(t, byHand("db"), requiring("web", "db"))
	why("web", "waiting for db, which is started by hand")
}

// An exec that comes when something was going on: what a person stopped ends before
// anything is started beside it, and who missed a renewal is renewed.
func TestRequiresAfterBoot(t *testing.T) {
	boot := func(stopped bool) *world {
		w := newWorld(t)
		w.p.add(w.now, requiring("web", "db"))
		w.p.add(w.now, spec("db")).stopped = stopped
		return w
	}
	w := boot(true)
	w.running["db"] = p2pnode.Incarnation{Epoch: 7, N: 1}
	w.do(evBoot{found: []found{{name: "db", inc: w.running["db"], pid: 1, began: w.now}}})
	w.pass(time.Hour)
	if len(w.running) != 0 || len(w.starts) != 0 {
		t.Errorf("running %v, started %v: db is stopped by a person", w.running, w.starts)
	}
	w = boot(false)
	w.running["web"], w.running["db"] = p2pnode.Incarnation{Epoch: 7, N: 1}, p2pnode.Incarnation{Epoch: 7, N: 2}
	w.highest["web"] = 1
	w.do(evBoot{found: []found{
		{name: "db", inc: w.running["db"], pid: 1, began: w.now.Add(-time.Minute)}, {name: "web", inc: w.running["web"], pid: 2, began: w.now.Add(-time.Hour)},
	}})
	w.pass(time.Hour)
	if len(w.starts["web"]) != 1 || len(w.starts["db"]) != 0 {
		t.Errorf("starts %v: web is older than db", w.starts)
	}
}

// The budget holds for the last of a chain too, which crashes by itself besides.
func TestRenewalsKeepTheBudgetOfAChain(t *testing.T) {
	w := chain(t)
	for i := range 120 {
		w.crash("site")
		w.pass(12 * time.Second)
		if i%2 == 0 {
			w.crash("db")
			w.pass(12 * time.Second)
		}
	}
}

// What goes with a reload goes in order.
func TestRequiresRemoved(t *testing.T) {
	w := chain(t)
	w.slow("db", "web", "site")
	w.reload()
	for _, name := range []string{"site", "web", "db"} {
		if got := w.told(p2pnode.StateStopping); got[len(got)-1] != name {
			t.Errorf("stopping %v, the last one should be %s", got, name)
		}
		w.letGo(name)
	}
	if len(w.running) != 0 || len(w.p.svcs) != 0 {
		t.Errorf("left: %v", w.running)
	}
}

// Whatever happens, with stops that take their time: in the end nothing is on its way
// any more, what a person stopped is down, and everything else is up or waits for
// something that is down for a reason.
func TestRequiresHoldsUnderAnyQueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"site", "a", "web", "b", "db"}
		specs := func() []p2pnode.ServiceSpec {
			b := spec("b")
			b.After = []string{"db"}
			return []p2pnode.ServiceSpec{requiring("site", "web"), requiring("a", "db", "b"), requiring("web", "db"), b, spec("db")}
		}
		w := newWorld(t, specs()...)
		w.slow()
		for n := range rapid.IntRange(1, 60).Draw(t, "n") {
			name := rapid.SampledFrom(names).Draw(t, "name")
			switch rapid.IntRange(0, 10).Draw(t, "what") {
			case 0:
				w.crash(name)
			case 1, 2, 3:
				w.order(rapid.SampledFrom([]string{verbStart, verbStop, verbRestart}).Draw(t, "verb"), name)
			case 4, 5:
				w.hold[name] = !w.hold[name]
			case 6:
				if w.p.svcs[name].phase == stopping {
					w.letGo(name)
				}
			case 7:
				all := specs()
				for i := range all {
					if rapid.Bool().Draw(t, "changed") {
						all[i].Command = []string{fmt.Sprint(n)}
					}
				}
				w.reload(all...)
			case 8:
				w.do(evMaintenance{name, w.now.Add(rapid.SampledFrom([]time.Duration{0, time.Second}).Draw(t, "ttl"))})
			case 9:
				w.do(evFrozen{name: name, inc: w.p.svcs[name].inc})
			case 10:
				w.do(evThawed{name})
			}
			if rapid.Bool().Draw(t, "passes") {
				w.pass(time.Duration(rapid.Int64Range(0, int64(5*time.Second)).Draw(t, "pass")))
			}
		}
		w.slow()
		w.pass(2 * time.Hour)
		for s := range w.p.all {
			_, lives := w.running[s.spec.Name]
			lacks := w.p.lacking(s)
			switch {
			case s.leaving, s.phase == stopping, s.phase == starting:
				t.Fatalf("%s is still on its way: %s", s.spec.Name, w.dump())
			case s.stopped && lives:
				t.Fatalf("%s lives, and a person stopped it: %s", s.spec.Name, w.dump())
			case !s.stopped && !lives && (!s.waiting || lacks == nil || lacks.phase == idle && !lacks.stopped && !lacks.waiting):
				t.Fatalf("%s is down for no reason: %s", s.spec.Name, w.dump())
			}
		}
	})
}
