package sim

import (
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/score"
)

// restarted counts what execs started in place of something, whoever asked.
func (w *World) restarted() (n int) {
	for _, m := range w.Machines {
		m.mu.Lock()
		n += m.restarts
		m.mu.Unlock()
	}
	return n
}

// brakes reports whether the brake of each of ms is as wanted.
func brakes(ms []*Machine, want bool) bool {
	for _, m := range ms {
		n := m.running()
		if n == nil {
			return false
		}
		st, err := n.API().Status(m.w.ctx)
		if err != nil || st.Brake == nil || st.Brake.On != want {
			return false
		}
	}
	return true
}

// Row 6: 10 | 10 for 20 s, and for longer than memberlist remembers its dead. The brake is on while it lasts,
// nobody restarts anybody across the cut, local repairs go on, and one view is
// there soon after the heal.
func TestPartitionInHalves(t *testing.T) {
	for name, long := range map[string]time.Duration{"20s": 20 * time.Second, "90s": 90 * time.Second} {
		t.Run(name, func(t *testing.T) {
			Run(t, Options{Seed: 6, Nodes: 20, Latency: time.Millisecond, Grace: agentsOnly}, func(w *World) {
				w.launch(w.Machines[0], 15*time.Second)
				time.Sleep(40 * time.Second)
				w.CutOff(w.Machines...)
				left, right := w.Machines[:10], w.Machines[10:]
				w.Net.Cut(addrs(left), addrs(right))
				cut := time.Now()
				braked := w.Must(15*time.Second, "the brake is on everywhere", func() bool { return brakes(w.Machines, true) })
				for _, m := range []*Machine{left[3], right[3]} {
					w.Fault(m, "web", p2pnode.ClassSignalled)
					m.KillService()
				}
				time.Sleep(long - time.Since(cut))
				if n := w.restarted(); n != 2 {
					t.Errorf("%d restarts, want the two services that died", n)
				}
				w.steady(cut, left, right)
				w.steady(cut, right, left)
				w.Net.Heal(addrs(left), addrs(right))
				took := w.Must(15*time.Second, "one view again", w.OneView)
				w.Must(5*time.Second, "the brake is off everywhere", func() bool { return brakes(w.Machines, false) })
				time.Sleep(10 * time.Second)
				if n := w.restarted(); n != 2 {
					t.Errorf("%d restarts after the heal", n)
				}
				t.Logf("brake on everywhere after %v, one view %v after the heal", braked, took)
				score.Record(t, score.Figure{
					Row: "6", How: "10/10 for " + name, Text: "one view " + score.Millis(took) + " after the heal, 0 restarts across", N: 1,
					Chance: "200 pairs unreachable meanwhile, brake on everywhere after " + score.Millis(braked), Where: "simulation", Kept: !t.Failed(),
				})
			})
		})
	}
}

// quiet watches for a while that nobody among observers accuses any of subjects,
// beyond doubt, and that nothing is restarted.
func (w *World) quiet(d time.Duration, observers, subjects []*Machine) {
	w.T.Helper()
	before := w.restarted()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		for _, o := range observers {
			view := o.verdicts()
			for _, s := range subjects {
				if v := view[s.name]; o != s && v != p2pnode.Alive && v != p2pnode.Doubtful {
					w.T.Fatalf("%s calls %s %s: %.700s", o.name, s.name, v, o.describe())
				}
			}
		}
	}
	if n := w.restarted(); n != before {
		w.T.Errorf("%d restarts", n-before)
	}
}

// Row 7: one node alone, a cut that only one direction has, and overlapping cuts.
// The lone node acts on nobody; no healthy node is accused by those who see it.
func TestOddCuts(t *testing.T) {
	few := func(w *World) (lone *Machine, rest []*Machine) {
		w.launch(w.Machines[0], 15*time.Second)
		time.Sleep(40 * time.Second)
		return w.Machines[19], w.Machines[:19]
	}
	t.Run("19|1", func(t *testing.T) {
		Run(t, Options{Seed: 7, Nodes: 20, Latency: time.Millisecond, Grace: agentsOnly}, func(w *World) {
			lone, rest := few(w)
			w.CutOff(w.Machines...)
			w.Net.Cut(addrs(rest), addrs([]*Machine{lone}))
			took := w.Must(10*time.Second, "the others call it unreachable", func() bool {
				for _, m := range rest {
					if m.verdict(lone) != p2pnode.Unreachable {
						return false
					}
				}
				return true
			})
			w.Must(30*time.Second, "the lone node's brake is on", func() bool { return brakes([]*Machine{lone}, true) })
			w.quiet(30*time.Second, rest, rest)
			w.Net.Heal(addrs(rest), addrs([]*Machine{lone}))
			healed := w.Must(15*time.Second, "one view again", w.OneView)
			score.Record(t, score.Figure{
				Row: "7", How: "19/1", Text: "0 of 19 accused, the lone node's brake is on; unreachable everywhere after " + score.Millis(took) + ", one view " + score.Millis(healed) + " after the heal",
				N: 1, Chance: "20 nodes watched for 30 s", Where: "simulation", Kept: !t.Failed(),
			})
		})
	})
	t.Run("one way", func(t *testing.T) {
		Run(t, Options{Seed: 8, Nodes: 20, Latency: time.Millisecond, Grace: agentsOnly}, func(w *World) {
			_, rest := few(w)
			deaf, mute := rest[:3], rest[3:6]
			w.Net.CutOneWay(addrs(mute), addrs(deaf))
			w.quiet(time.Minute, w.Machines, w.Machines)
			w.Net.HealOneWay(addrs(mute), addrs(deaf))
			w.Must(15*time.Second, "one view again", w.OneView)
		})
	})
	t.Run("overlapping", func(t *testing.T) {
		Run(t, Options{Seed: 9, Nodes: 20, Latency: time.Millisecond, Grace: agentsOnly}, func(w *World) {
			few(w)
			a, b, c := w.Machines[:6], w.Machines[4:10], w.Machines[12:17]
			onlyA, onlyB := a[:4], b[2:]
			w.Net.Cut(addrs(onlyA), addrs(onlyB))
			w.Net.Cut(addrs(onlyB), addrs(c))
			w.quiet(time.Minute, w.Machines, w.Machines)
			w.Net.Heal(addrs(onlyA), addrs(onlyB))
			w.Net.Heal(addrs(onlyB), addrs(c))
			w.Must(15*time.Second, "one view again", w.OneView)
		})
	})
}
