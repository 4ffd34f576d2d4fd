package sim

import (
	"testing"
	"time"

	"p2pnode"
)

// orders are the IDs of the standing orders that m's node knows.
func (m *Machine) orderIDs() (ids []string) {
	n := m.running()
	if n == nil {
		return nil
	}
	doc, err := n.API().Agents(m.w.ctx)
	if err != nil {
		return nil
	}
	for _, o := range doc.Orders {
		ids = append(ids, o.ID)
	}
	return ids
}

// A night without power: every node process ends at once, and who gave the order
// never comes back. The others keep it, agents walk again, and a recall by another
// manager, also kept over a night, is for good.
func TestOrdersSurviveANight(t *testing.T) {
	Run(t, Options{Seed: 12, Nodes: 5, Latency: time.Millisecond}, func(w *World) {
		boss, heir, rest := w.Machines[0], w.Machines[1], w.Machines[1:]
		w.promote(boss, heir)
		w.launch(boss, 15*time.Second)
		all := func(what string, n int) {
			w.Must(20*time.Second, what, func() bool {
				for _, m := range rest {
					if len(m.orderIDs()) != n {
						return false
					}
				}
				return true
			})
		}
		all("the order is everywhere", 1)
		time.Sleep(40 * time.Second)

		w.Fault(boss, "", p2pnode.ClassUnreachable)
		night := func() {
			for _, m := range rest {
				w.Fault(m, "", p2pnode.ClassUnreachable)
				m.host.SetUp(false)
			}
			for _, m := range rest {
				m.KillNode()
			}
			time.Sleep(time.Minute)
			for _, m := range rest {
				m.host.SetUp(true)
				m.boot()
			}
			w.Must(30*time.Second, "one view in the morning", w.OneView)
		}
		boss.Vanish()
		night()
		all("the order is there in the morning", 1)
		w.Must(20*time.Second, "agents walk again", func() bool {
			doc, err := heir.running().API().Agents(w.ctx)
			return err == nil && len(doc.Agents) > 0
		})
		if err := heir.running().API().Manage(w.ctx, true); err != nil {
			t.Error(err)
		}
		if err := heir.running().API().Recall(w.ctx, ""); err != nil {
			t.Error(err)
			return
		}
		all("the order is recalled", 0)
		time.Sleep(5 * time.Second)
		night()
		time.Sleep(10 * time.Second)
		all("and stays recalled", 0)
	}, "n00")
}
