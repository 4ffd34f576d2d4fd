package exec

import (
	"maps"
	"testing"
	"time"

	"p2pnode"
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
