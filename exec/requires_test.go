package exec

import (
	"slices"
	"testing"
	"time"

	"p2pnode"
)

// chain is a site that requires a web that requires a db, up for a while.
func chain(t *testing.T) *world {
	db, web, site := spec("db"), spec("web"), spec("site")
	web.Requires, site.Requires = []string{"db"}, []string{"web"}
	w := newWorld(t, db, web, site)
	w.pass(clearAfter + time.Second)
	w.events = nil
	return w
}

// told are the services of which w told that they came into that state, in order.
func (w *world) told(state p2pnode.ServiceState) (out []string) {
	for _, ev := range w.events {
		if ev.State == state && (ev.Event == p2pnode.FactState || ev.Event == p2pnode.FactUp) {
			out = append(out, ev.Service)
		}
	}
	return out
}

func (w *world) counts() []int {
	return []int{len(w.starts["db"]), len(w.starts["web"]), len(w.starts["site"])}
}

// A crash is mended at once, and only when the new life is there is what requires it
// renewed, one level after the other: dependents first down, last up.
func TestRequiredCrash(t *testing.T) {
	w := chain(t)
	w.p.svcs["db"].spec.Ready = p2pnode.ReadyNotify
	w.crash("db")
	w.pass(10 * time.Second)
	if got := w.counts(); !slices.Equal(got, []int{2, 1, 1}) {
		t.Errorf("starts %v before db is ready", got)
	}
	w.do(evNotified{name: "db", ready: true})
	w.pass(10 * time.Second)
	if got := w.counts(); !slices.Equal(got, []int{2, 2, 2}) {
		t.Errorf("starts %v: each begins anew once", got)
	}
	if got := w.told(p2pnode.StateStopping); !slices.Equal(got, []string{"site", "web"}) {
		t.Errorf("stopped in the order %v", got)
	}
	if got := w.told(p2pnode.StateUp); !slices.Equal(got, []string{"db", "web", "site"}) {
		t.Errorf("up in the order %v", got)
	}
	for _, ev := range w.events {
		if ev.Service != "db" && (ev.Event == p2pnode.FactFailed || ev.Event == p2pnode.FactActed) {
			t.Errorf("%s is told as a failure: %+v", ev.Service, ev)
		}
	}
}

// What is stopped on purpose takes what requires it along, which waits and says for
// whom, and comes back with it.
func TestRequiredStopAndStart(t *testing.T) {
	w := chain(t)
	w.do(evOrder{verb: verbStop, name: "db", by: "ann"})
	w.pass(time.Minute)
	if len(w.running) != 0 {
		t.Fatalf("running %v", w.running)
	}
	if got := w.told(p2pnode.StateStopping); !slices.Equal(got, []string{"site", "web", "db"}) {
		t.Errorf("stopped in the order %v", got)
	}
	web := w.p.svcs["web"]
	if web.state != p2pnode.StateStarting || web.why != "waiting for db, which ann stopped" || web.stopped {
		t.Errorf("web is %s: %s", web.state, web.why)
	}
	w.do(evOrder{verb: verbStart, name: "db"})
	w.pass(time.Minute)
	if got := w.counts(); !slices.Equal(got, []int{2, 2, 2}) || len(w.running) != 3 {
		t.Errorf("starts %v, running %v", got, w.running)
	}
}

func TestRequiredRestart(t *testing.T) {
	w := chain(t)
	w.do(evOrder{verb: verbRestart, name: "db"})
	w.pass(time.Minute)
	if got := w.counts(); !slices.Equal(got, []int{2, 2, 2}) {
		t.Errorf("starts %v", got)
	}
	if got := w.told(p2pnode.StateStopping); !slices.Equal(got, []string{"site", "web", "db"}) {
		t.Errorf("stopped in the order %v", got)
	}
}

// Who wants the last of the chain wants all of it; and a stop of the last one stops
// nothing else.
func TestRequiredIsStartedToo(t *testing.T) {
	w := chain(t)
	for _, name := range []string{"site", "web", "db"} {
		w.do(evOrder{verb: verbStop, name: name, by: "ann"})
		w.pass(time.Second)
	}
	if len(w.running) != 0 {
		t.Fatalf("running %v", w.running)
	}
	w.do(evOrder{verb: verbStart, name: "site"})
	w.pass(time.Second)
	if len(w.running) != 3 {
		t.Errorf("running %v", w.running)
	}
	w.do(evOrder{verb: verbStop, name: "site"})
	w.pass(time.Second)
	if got := w.counts(); len(w.running) != 2 || !slices.Equal(got, []int{2, 2, 2}) {
		t.Errorf("running %v, starts %v", w.running, got)
	}
}

// What is to be left alone is: for maintenance, for observation, and where nobody may
// restart it.
func TestRequiringLeftAlone(t *testing.T) {
	for name, leave := range map[string]func(*world){
		"maintenance": func(w *world) { w.do(evMaintenance{"web", w.now.Add(time.Hour)}) },
		"observe":     func(w *world) { w.do(evObserve{"web", true}) },
		"off":         func(w *world) { w.p.svcs["web"].spec.Recover = p2pnode.RecoverOff },
	} {
		t.Run(name, func(t *testing.T) {
			w := chain(t)
			leave(w)
			w.crash("db")
			w.pass(10 * time.Second)
			w.do(evOrder{verb: verbRestart, name: "db"})
			w.pass(10 * time.Second)
			if got := w.counts(); !slices.Equal(got, []int{3, 1, 1}) {
				t.Errorf("starts %v", got)
			}
		})
	}
}

// A db that goes on crashing starts what requires it no more often than that may be
// started; in the end both are up and the younger one is the one that requires.
func TestRenewalsKeepTheBudget(t *testing.T) {
	w := chain(t)
	for range 40 {
		w.crash("db")
		w.pass(2 * time.Second)
	}
	w.pass(2 * budgetWindow)
	db, web := w.p.svcs["db"], w.p.svcs["web"]
	if len(w.running) != 3 || web.older(db) {
		t.Errorf("running %v, web of %v, db of %v", w.running, web.startedAt, db.startedAt)
	}
}

// A stop that is taken back before it has begun stops what requires it and not itself;
// one that an exec did not finish is finished by the next.
func TestRequiredStopInterrupted(t *testing.T) {
	w := chain(t)
	w.hold = map[string]bool{"site": true} // it takes its time
	w.do(evOrder{verb: verbStop, name: "db"})
	w.do(evOrder{verb: verbStart, name: "db"})
	for _, ev := range w.end("site", p2pnode.Exit{}) {
		w.do(ev)
	}
	w.pass(time.Second)
	if got := w.counts(); len(w.running) != 3 || got[0] != 1 {
		t.Errorf("running %v, starts %v", w.running, got)
	}

	later := newPolicy(1, p2pnode.Grace{}, false)
	later.epoch = 7
	web := spec("web")
	web.Requires = []string{"db"}
	later.add(w.now, spec("db")).stopped = true
	later.add(w.now, web)
	var order []string
	queue := []event{evBoot{found: []found{
		{name: "db", inc: p2pnode.Incarnation{Epoch: 7, N: 1}, pid: 1, began: w.now}, {name: "web", inc: p2pnode.Incarnation{Epoch: 7, N: 1}, pid: 2, began: w.now},
	}}}
	for len(queue) > 0 {
		for _, eff := range later.step(w.now, queue[0]) {
			if e, ok := eff.(effSignal); ok {
				order = append(order, e.name)
				queue = append(queue, evEnded{name: e.name, inc: e.inc})
			}
		}
		queue = queue[1:]
	}
	if !slices.Equal(order, []string{"web", "db"}) || later.svcs["web"].state != p2pnode.StateStarting {
		t.Errorf("ended %v, web is %s", order, later.svcs["web"].state)
	}
}

// Real processes: the new life of db renews web, exec's own death renews nothing, a
// stop of db takes web along and a start of web brings both.
func TestRequiringProcesses(t *testing.T) {
	db, web := service("db", "part:sleep"), service("web", "part:sleep")
	db.Check = &p2pnode.Check{Exec: []string{"/bin/true"}, Every: 50 * time.Millisecond}
	web.Requires = []string{"db"}
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{web, db}, Door: true})
	first, web1 := h.await("db", p2pnode.StateUp), h.await("web", p2pnode.StateUp)
	kill9(t, first.PID)
	db2, web2 := h.awaitNew("db", first.PID), h.awaitNew("web", web1.PID)
	if alive(web1.PID) || copiesOf(h, "web") != 1 {
		t.Errorf("the old web %d lives: %v, %d copies", web1.PID, alive(web1.PID), copiesOf(h, "web"))
	}

	h.killExec()
	for range 6 { // checks of db, and db is ready again each time
		time.Sleep(50 * time.Millisecond)
		if d, w := h.await("db", p2pnode.StateUp), h.await("web", p2pnode.StateUp); d.PID != db2.PID || w.PID != web2.PID {
			t.Fatalf("after exec's death db is %d and web %d, were %d and %d", d.PID, w.PID, db2.PID, web2.PID)
		}
	}

	if res, err := h.c.Stop(t.Context(), "db", VerbOptions{}); err != nil || !res.OK {
		t.Fatal(res, err)
	}
	if alive(db2.PID) || alive(web2.PID) {
		t.Error("something lives on after the stop")
	}
	if s := h.status("web"); s.State != p2pnode.StateStarting || !s.StoppedAt.IsZero() {
		t.Errorf("web is %+v", s)
	}
	h.killExec()
	h.await("web", p2pnode.StateStarting)
	if res, err := h.c.Start(t.Context(), "web", VerbOptions{}); err != nil || !res.OK {
		t.Fatal(res, err)
	}
	if d, w := h.status("db"), h.status("web"); !alive(d.PID) || !alive(w.PID) || d.PID == 0 {
		t.Errorf("db %+v, web %+v", d, w)
	}
}

// A restart ends what requires it too, but not what is set aside, and not what that holds up.
func TestWhatARestartEnds(t *testing.T) {
	now := time.Now()
	p := newPolicy(1, p2pnode.Grace{}, false)
	for name, requires := range map[string][]string{"base": nil, "db": {"base"}, "web": {"db"}, "aside": {"base"}, "beside": {"aside"}, "sick": {"base"}, "other": nil} {
		s := p.add(now, p2pnode.ServiceSpec{Name: name, Requires: requires})
		s.phase, s.state = running, p2pnode.StateUp
	}
	p.svcs["aside"].maintEnds, p.svcs["sick"].state = now.Add(time.Hour), p2pnode.StateHung
	var got []string
	for _, spec := range p.together(now, []string{"base", "db", "nobody"}) {
		got = append(got, spec.Name)
	}
	slices.Sort(got)
	if want := []string{"base", "db", "web"}; !slices.Equal(got, want) {
		t.Errorf("it ends %q, want %q", got, want)
	}
}
