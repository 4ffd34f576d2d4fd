package sim

import (
	"testing"
	"time"

	"p2pnode"
)

// Row 34: an agent that comes from another host for a node process that a person
// has put aside is refused by its exec, and so is exec's own fallback. The story
// says why nobody acts; once a person has started it, the story ends.
func TestHandsOffANodeProcess(t *testing.T) {
	Run(t, Options{Seed: 34, Nodes: 4, Latency: time.Millisecond, Grace: p2pnode.Grace{Agent: time.Second, Node: time.Second}}, func(w *World) {
		w.launch(w.Machines[0], 15*time.Second)
		time.Sleep(20 * time.Second)
		for held, m := range map[p2pnode.Held]*Machine{p2pnode.HeldMaintenance: w.Machines[2], p2pnode.HeldObserve: w.Machines[3]} {
			m.mu.Lock()
			m.Maintenance[p2pnode.SelfNode], m.Observe = held == p2pnode.HeldMaintenance, held == p2pnode.HeldObserve
			m.mu.Unlock()
			w.Fault(m, p2pnode.SelfNode, p2pnode.ClassProcessDead)
			m.KillNode()
			w.Must(20*time.Second, "another one tells that nobody acts: "+string(held), func() bool {
				i, ok := w.Machines[0].Incident(m, "")
				return ok && i.Held == held
			})
			time.Sleep(10 * time.Second)
			if n := w.restarted(); m.running() != nil || n != 0 {
				t.Fatalf("%s: %d restarts", held, n)
			}
			m.Start()
			w.Must(20*time.Second, "one view", w.OneView)
			w.Must(time.Minute, "the story has an end", func() bool {
				i, ok := w.Machines[0].Incident(m, "")
				return ok && i.State == p2pnode.IncidentRecovered
			})
			m.mu.Lock()
			m.Maintenance[p2pnode.SelfNode], m.Observe, m.restarts = false, false, 0
			m.mu.Unlock()
		}
	})
}
