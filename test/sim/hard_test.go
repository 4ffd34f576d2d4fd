package sim

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/score"
)

// number is the setting name of the environment, or fallback.
func number(name string, fallback int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return fallback
}

// tellings are the reports that m holds, by ID.
func (m *Machine) tellings() map[string]p2pnode.Report {
	n := m.running()
	if n == nil {
		return nil
	}
	doc, err := n.API().Reports(context.Background())
	if err != nil {
		return nil
	}
	out := map[string]p2pnode.Report{}
	for _, r := range doc.Reports {
		out[fmt.Sprint(r.Origin, r.Epoch, r.Seq)] = r
	}
	return out
}

// reaches reports whether an answer comes back from other.
func (m *Machine) reaches(other *Machine) bool {
	_, err := m.running().API().Ping(m.w.ctx, other.name)
	return err == nil
}

// looks counts the bursts of probes of the whole fleet: each is a suspicion that
// somebody looked into.
func (w *World) looks() (n int) {
	for _, m := range w.Machines {
		n += int(m.Reason("p2pnode_gossip_events_total", "bursts"))
	}
	return n
}

// flap is for how long a link is there, and then gone. In step with the heartbeats, one
// a second, it might never fall on any.
const flap = 1030 * time.Millisecond

// Row 10: for ten minutes one link, and then the only way to a whole host, is there
// for a second and gone for a second. Nothing is restarted, and few words are made
// about it.
func TestLinksFlap(t *testing.T) {
	for _, c := range []struct {
		how    string
		others int // that the second machine cannot reach while it is gone
	}{{"one pair of five", 1}, {"one host of five", 4}} {
		t.Run(c.how, func(t *testing.T) {
			Run(t, Options{Seed: 10, Nodes: 5, Latency: time.Millisecond, Grace: agentsOnly}, func(w *World) {
				w.launch(w.Machines[0], 15*time.Second)
				time.Sleep(40 * time.Second)
				flaky, others := w.Machines[4:], w.Machines[4-c.others:4]
				if c.others == 4 {
					w.CutOff(flaky...)
				}
				before, flaps := w.looks(), 0
				for began := time.Now(); time.Since(began) < 10*time.Minute; flaps++ {
					w.Net.Cut(addrs(flaky), addrs(others))
					time.Sleep(flap)
					w.Net.Heal(addrs(flaky), addrs(others))
					time.Sleep(flap)
				}
				looks := w.looks() - before
				w.Must(30*time.Second, "one view again", w.OneView)
				time.Sleep(time.Minute) // what is still to be told gets told
				most, restarts := 0, w.restarted()
				by := map[string]int{}
				for _, r := range w.Machines[0].tellings() {
					by[r.Origin]++
					most = max(most, by[r.Origin])
				}
				if restarts > 0 {
					t.Errorf("%d restarts, and nothing had failed", restarts)
				}
				if most > 12 {
					t.Errorf("one node made %d reports of it", most)
				}
				if looks == 0 {
					t.Error("nobody noticed anything: this test shows nothing")
				}
				score.Record(t, score.Figure{
					Row: "10", How: c.how + ", 0.5 Hz for 10 min", Text: fmt.Sprintf("%d restarts, at most %d reports of one node", restarts, most), N: flaps,
					Chance: fmt.Sprintf("%d cuts, %d suspicions looked into", flaps, looks), Where: "simulation", Kept: restarts == 0 && most <= 12,
				})
				// The harness must have said something for the checker to accuse by.
				w.Fault(w.Machines[1], "web", p2pnode.ClassSignalled)
				w.Machines[1].KillService()
			})
		})
	}
}

// Row 12: services die, and at that moment the power fails everywhere. When it is
// back there is one view soon, and everybody holds every report that any store had
// taken.
func TestWholeFleetLosesPower(t *testing.T) {
	nodes := number("P2PNODE_SIM_FLEET", 12)
	Run(t, Options{Seed: 13, Nodes: nodes, Latency: time.Millisecond, Grace: agentsOnly}, func(w *World) {
		w.launch(w.Machines[0], 15*time.Second)
		time.Sleep(40 * time.Second)
		for i, m := range w.Machines {
			w.Fault(m, "", p2pnode.ClassUnreachable)
			if i%2 == 0 {
				w.Fault(m, "web", p2pnode.ClassSignalled)
				m.KillService()
			}
		}
		time.Sleep(100 * time.Millisecond) // acted and put down by some, not spread yet
		acked := map[string]bool{}
		everywhere := 0
		for _, m := range w.Machines {
			for key := range m.tellings() {
				acked[key] = true
			}
			m.host.SetUp(false)
		}
		for key := range acked {
			if !slices.ContainsFunc(w.Machines, func(m *Machine) bool { _, ok := m.tellings()[key]; return !ok }) {
				everywhere++
			}
		}
		for _, m := range w.Machines {
			m.KillNode()
		}
		time.Sleep(30 * time.Second)
		for _, m := range w.Machines {
			m.host.SetUp(true)
			m.boot()
		}
		// Who has just started believes well of all: a view counts when there are links
		// behind it, and a way to each.
		took := w.Must(60*time.Second, "one view, and a way to each", func() bool {
			return w.OneView() && !slices.ContainsFunc(w.Machines, func(m *Machine) bool {
				return m.Metric("p2pnode_overlay_links") == 0 || m != w.Machines[0] && !w.Machines[0].reaches(m)
			})
		})
		lost := func() (n int) {
			for _, m := range w.Machines {
				have := m.tellings()
				for key := range acked {
					if _, ok := have[key]; !ok {
						n++
					}
				}
			}
			return n
		}
		w.Must(3*time.Minute, "every report is everywhere", func() bool { return lost() == 0 })
		if len(acked) == 0 {
			t.Error("there was no report to lose")
		}
		if took > 15*time.Second {
			t.Errorf("one view after %v", took)
		}
		score.Record(t, score.Figure{
			Row: "12", How: fmt.Sprintf("%d nodes", nodes), Text: fmt.Sprintf("one view after %s, 0 of %d reports lost on any node", score.Millis(took), len(acked)), N: 1,
			Chance: fmt.Sprintf("%d reports taken by a store at the moment of the cut, %d of them were everywhere already", len(acked), everywhere), Where: "simulation",
			Kept: took <= 15*time.Second,
		})
	})
}

// Row 33: every 20 s three of ten machines lose their service or their node process,
// for P2PNODE_SIM_MINUTES under each of P2PNODE_SIM_SEEDS seeds. All comes back, and
// neither goroutines nor memory grow.
func TestSoak(t *testing.T) {
	minutes, seeds := number("P2PNODE_SIM_MINUTES", 4), number("P2PNODE_SIM_SEEDS", 1)
	kills, violations := 0, 0
	var growth, routines float64
	for seed := range seeds {
		ok := t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			Run(t, Options{Seed: uint64(3300 + seed), Nodes: 10, Latency: time.Millisecond, Grace: agentsOnly}, func(w *World) {
				w.launch(w.Machines[0], 15*time.Second)
				time.Sleep(30 * time.Second)
				span := time.Duration(minutes) * time.Minute
				var heap, running float64
				for began := time.Now(); time.Since(began) < span; {
					if heap == 0 && time.Since(began) > span/4 {
						heap, running = held()
					}
					w.killSome(&kills)
					time.Sleep(20 * time.Second)
				}
				w.Must(time.Minute, "one view", w.OneView)
				w.Must(time.Minute, "every service is up", func() bool { return !slices.ContainsFunc(w.Machines, func(m *Machine) bool { return !m.serves() }) })
				after, now := held()
				growth, routines = max(growth, after/heap), max(routines, now/running)
			})
		})
		if !ok { // also where it ended at once
			violations++
		}
	}
	if routines > 1.2 {
		t.Errorf("there are %.2f times as many goroutines as in the first quarter", routines)
	}
	score.Record(t, score.Figure{
		Row: "33", How: fmt.Sprintf("%d min of 24 h, %d of 50 seeds, 10 nodes", minutes, seeds),
		Text: fmt.Sprintf("%d runs with violations; goroutines x %.2f, heap x %.2f from the first quarter to the end (reports are kept)", violations, routines, growth), N: seeds,
		Chance: fmt.Sprintf("%d kills", kills), Where: "simulation", Kept: violations == 0 && routines <= 1.2,
	})
}

// killSome takes something from three machines that have all of theirs.
func (w *World) killSome(kills *int) {
	for range 3 {
		m := w.Machines[w.rng.IntN(len(w.Machines))]
		if m.running() == nil || !m.serves() {
			continue
		}
		*kills++
		time.Sleep(time.Millisecond) // a restart takes no virtual time: two kills at one instant could not be told apart
		if w.rng.IntN(2) == 0 {
			w.Fault(m, "web", p2pnode.ClassSignalled)
			m.KillService()
			continue
		}
		w.Fault(m, p2pnode.SelfNode, p2pnode.ClassProcessDead)
		m.KillNode()
	}
}

// held is the living heap in bytes and the number of goroutines.
func held() (heap, routines float64) {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return float64(s.HeapAlloc), float64(runtime.NumGoroutine())
}
