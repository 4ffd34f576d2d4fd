package sim

import (
	"strings"
	"testing"
	"time"

	"p2pnode"
)

// Three managers. One is demoted while another is away: what is reported from then on
// opens for the two who remain, also for the one who was away, and for nobody else; what
// was reported before opens for them still, and for who is promoted later. The demoted
// one's standing order goes on in another's name.
func TestTheDemotedReadsNothingNew(t *testing.T) {
	Run(t, Options{Seed: 41, Nodes: 6, Latency: time.Millisecond, Grace: agentsOnly}, func(w *World) {
		boss, second, away, one, other, late := w.Machines[0], w.Machines[1], w.Machines[2], w.Machines[3], w.Machines[4], w.Machines[5]
		for _, m := range []*Machine{second, away} {
			w.Must(10*time.Second, "promoted", func() bool { return boss.running().API().Promote(w.ctx, m.name) == nil })
		}
		w.Must(10*time.Second, "the second manager works", func() bool { return second.running().API().Manage(w.ctx, true) == nil })
		w.launch(second, 15*time.Second)
		time.Sleep(30 * time.Second)
		w.Fault(one, "web", p2pnode.ClassSignalled)
		one.KillService()
		w.Must(time.Minute, "all managers read the first excerpt", func() bool {
			return reads(boss, one, "web") && reads(second, one, "web") && reads(away, one, "web")
		})
		time.Sleep(10 * time.Second)

		w.CutOff(away)
		away.host.SetUp(false)
		doc, err := boss.running().API().Demote(w.ctx, second.name, false)
		if err != nil || doc.Was != p2pnode.RoleManager {
			t.Errorf("%+v, %v", doc, err)
			return
		}
		time.Sleep(10 * time.Second)
		w.Fault(other, "web", p2pnode.ClassSignalled)
		other.KillService()
		w.Must(time.Minute, "the remaining manager reads the second", func() bool { return reads(boss, other, "web") && reads(boss, one, "web") })
		time.Sleep(time.Minute)
		for _, m := range []*Machine{second, late} {
			for _, about := range []*Machine{one, other} {
				i, ok := m.Incident(about, "web")
				if !ok || i.Excerpt == nil || !i.Excerpt.Sealed || len(i.Excerpt.Lines) > 0 {
					t.Errorf("%s has of %s: %+v", m.name, about.name, i.Excerpt)
				}
				if m == second && !strings.Contains(i.Excerpt.Why, "demoted by "+boss.name) {
					t.Errorf("it is told: %q", i.Excerpt.Why)
				}
			}
		}
		orders, err := late.running().API().Agents(w.ctx)
		if err != nil || len(orders.Orders) != 1 || orders.Orders[0].By != boss.name || len(orders.Agents) == 0 {
			t.Errorf("the standing order of the demoted one: %+v, %v", orders, err)
		}

		away.host.SetUp(true)
		w.Must(time.Minute, "one view again", w.OneView)
		w.Must(2*time.Minute, "who was away reads both", func() bool { return reads(away, one, "web") && reads(away, other, "web") })
		w.Must(10*time.Second, "it manages", func() bool { return away.running().API().Manage(w.ctx, true) == nil })
		w.Must(10*time.Second, "it promotes", func() bool { return away.running().API().Promote(w.ctx, late.name) == nil })
		w.Must(time.Minute, "the new manager reads both", func() bool { return reads(late, one, "web") && reads(late, other, "web") })
	})
}
