package exec

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"p2pnode"

	"pgregory.net/rapid"
)

// crowd is a host on which n services end as soon as they are started, and web,
// which was well.
func crowd(t rapid.TB, n int) *world {
	specs := []p2pnode.ServiceSpec{}
	for i := range n {
		specs = append(specs, spec(fmt.Sprintf("bad%d", i)))
	}
	return newWorld(t, append(specs, spec("web"))...)
}

// crashAll ends what runs of the bad ones.
func (w *world) crashAll() {
	for name := range w.p.svcs {
		if name != "web" {
			w.crash(name)
		}
	}
}

// Fifty services that crash at once, for a quarter of an hour, do not hold up the
// first crash of the fifty-first, and the host starts no more of them in any second
// than it may; each of them is tried again all the same.
func TestAStormLeavesRoomForOthers(t *testing.T) {
	w := crowd(t, 50)
	w.pass(2 * time.Second)
	for i := range 3000 {
		w.crashAll()
		w.pass(100 * time.Millisecond)
		if i%200 == 10 { // each 20 s: a good life has cleared its past, and the budget lasts
			died, n := w.now, len(w.starts["web"])
			w.crash("web")
			if len(w.starts["web"]) != n+1 {
				w.pass(10 * time.Second)
				t.Fatalf("web waited until %v, it died at %v", w.starts["web"][n], died)
			}
		}
	}
	var all []time.Time
	for name, starts := range w.starts {
		if name == "web" {
			continue
		}
		if len(starts) < 6 {
			t.Errorf("%s was started %d times in five minutes", name, len(starts))
		}
		all = append(all, starts[2:]...) // the first, and the free first restart
	}
	slices.SortFunc(all, time.Time.Compare)
	for i := stormStarts; i < len(all); i++ {
		if gap := all[i].Sub(all[i-stormStarts]); gap < stormWindow {
			t.Fatalf("%d starts in %v", stormStarts+1, gap)
		}
	}
}

// Whatever happens: never more starts by exec or an agent than the budget in any
// window (in carryOut), and what is wanted and not held comes up in the end, if it can.
func TestBudgetAndLivenessUnderAnyQueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := crowd(t, rapid.IntRange(1, 8).Draw(t, "crowd"))
		names := slices.Clone(w.p.order)
		for range rapid.IntRange(1, 40).Draw(t, "n") {
			name := rapid.SampledFrom(names).Draw(t, "name")
			switch rapid.IntRange(0, 10).Draw(t, "what") {
			case 0, 1, 2, 3:
				for range rapid.IntRange(1, 12).Draw(t, "times") {
					w.crashAll()
					w.pass(time.Duration(rapid.Int64Range(0, int64(2*time.Second)).Draw(t, "gap")))
				}
			case 4:
				w.do(evWorld{name: name})
			case 5:
				w.refuses, w.refuse = rapid.Bool().Draw(t, "fail"), startFailure(rapid.SampledFrom([]int{int(startMissing), int(startRetry), int(startBroken)}).Draw(t, "kind"))
			case 6:
				w.do(evNode{connected: rapid.Bool().Draw(t, "connected"), links: 1, orders: 1})
			case 7:
				w.do(evRecover{id: 1, req: p2pnode.RecoverRequest{Target: name, Expected: w.p.svcs[name].inc.String()}, by: p2pnode.By{Kind: p2pnode.ByAgent}})
			case 8:
				w.do(evMaintenance{name, w.now.Add(rapid.SampledFrom([]time.Duration{0, time.Second, time.Hour}).Draw(t, "until"))})
			case 9:
				w.do(evObserve{rapid.SampledFrom(append([]string{""}, names...)).Draw(t, "observed"), rapid.Bool().Draw(t, "on")})
			case 10:
				w.do(evOrder{verb: rapid.SampledFrom([]string{verbStart, verbStop, verbRestart}).Draw(t, "verb"), name: name})
			}
			w.pass(time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "pass")))
			w.look()
		}
		w.refuses = false
		w.do(evObserve{"", false})
		for s := range w.p.all { // nobody holds it any more, and what was missing is there
			w.do(evMaintenance{s.spec.Name, time.Time{}})
			w.do(evObserve{s.spec.Name, false})
			if s.stopped {
				w.do(evOrder{verb: verbStart, name: s.spec.Name})
			}
			w.do(evWorld{name: s.spec.Name})
		}
		w.pass(budgetWindow + 2*slowLane)
		for _, name := range names {
			if _, up := w.running[name]; !up {
				t.Fatalf("%s is wanted, nothing holds it, and it is %s", name, w.p.svcs[name].state)
			}
		}
	})
}

// The same seed and the same events lead to the same effects, to the nanosecond.
func TestPolicyIsDeterministic(t *testing.T) {
	play := func() string {
		w := crowd(t, 12)
		checked := spec("checked")
		checked.Check = &p2pnode.Check{HTTP: "x", Every: time.Second, Timeout: time.Second, Failures: 3}
		w.do(evReload{id: 1, loaded: Loaded{Services: append(slices.Collect(func(yield func(p2pnode.ServiceSpec) bool) {
			for s := range w.p.all {
				if !yield(s.spec) {
					return
				}
			}
		}), checked), Grace: p2pnode.DefaultGrace()}})
		for i := range 400 {
			w.crash(fmt.Sprintf("bad%d", i%12))
			w.pass(time.Duration(i%7) * 300 * time.Millisecond)
			w.do(evChecked{name: "checked", inc: w.running["checked"], err: map[bool]error{true: fmt.Errorf("no")}[i%3 == 0]})
		}
		raw, err := json.Marshal([]any{w.events, w.p.next(), w.starts})
		if err != nil || len(w.events) < 100 {
			t.Fatalf("%d events, %v", len(w.events), err)
		}
		return string(raw)
	}
	if a, b := play(), play(); a != b {
		t.Error("the same seed played twice gives two stories")
	}
}

// So do any events.
func TestAnyQueueIsDeterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		moves := drawMoves(t, 80)
		play := func() string {
			w := newVaried(t)
			for _, m := range moves {
				w.play(m)
			}
			raw, err := json.Marshal([]any{w.events, w.p.next(), w.starts, w.answers})
			if err != nil {
				t.Fatal(err)
			}
			return string(raw)
		}
		if a, b := play(), play(); a != b {
			t.Errorf("the same queue played twice gives two stories:\n%s\n%s", a, b)
		}
	})
}
