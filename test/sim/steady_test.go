package sim

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"p2pnode"
)

// changes counts, of the verdicts that m wrote down since from, how often each far
// machine went from one to the other.
func (w *World) changes(m *Machine, from time.Time) map[string]map[string]int {
	f, err := os.Open(w.historyFile(m.name))
	if err != nil {
		w.T.Fatal(err)
	}
	defer f.Close()
	out, was := map[string]map[string]int{}, map[string]p2pnode.Verdict{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var e p2pnode.HistoryEvent
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.Event != p2pnode.HistVerdict {
			continue
		}
		if !e.At.Before(from) && was[e.Target] != "" {
			if out[e.Target] == nil {
				out[e.Target] = map[string]int{}
			}
			out[e.Target][string(was[e.Target])+">"+string(e.Verdict)]++
		}
		was[e.Target] = e.Verdict
	}
	return out
}

// A cut that lasts does not make verdicts swing: who is behind it becomes
// unreachable, and stays so, however few there are to say it. TestPartitionInHalves
// asks the same of twenty.
func TestVerdictsAreSteadyInALongCut(t *testing.T) {
	for _, c := range []struct{ nodes, left int }{{4, 2}, {3, 2}} {
		t.Run(fmt.Sprintf("%d|%d", c.left, c.nodes-c.left), func(t *testing.T) {
			Run(t, Options{Seed: 61, Nodes: c.nodes, Latency: time.Millisecond, Grace: agentsOnly}, func(w *World) {
				w.launch(w.Machines[0], 15*time.Second)
				time.Sleep(40 * time.Second)
				w.CutOff(w.Machines...)
				left, right := w.Machines[:c.left], w.Machines[c.left:]
				w.Net.Cut(addrs(left), addrs(right))
				cut := time.Now()
				time.Sleep(60 * time.Second)
				w.steady(cut, left, right)
				w.steady(cut, right, left)
				w.Net.Heal(addrs(left), addrs(right))
				w.Must(15*time.Second, "one view again", w.OneView)
			})
		})
	}
}

// steady wants each verdict of observers on those behind a cut to end as unreachable
// and to have gone no way more than twice since from.
func (w *World) steady(from time.Time, observers, far []*Machine) {
	w.T.Helper()
	all, verdicts := map[string]int{}, 0
	for _, m := range observers {
		changed := w.changes(m, from)
		for _, o := range far {
			verdicts++
			if v := m.verdict(o); v != p2pnode.Unreachable {
				w.T.Errorf("%s calls %s %s", m.name, o.name, v)
			}
			for what, times := range changed[o.name] {
				all[what] += times
				if times > 2 {
					w.T.Errorf("%s on %s: %s %d times in a minute", m.name, o.name, what, times)
				}
			}
		}
	}
	w.T.Logf("changes of %d verdicts: %v", verdicts, all)
}
