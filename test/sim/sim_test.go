package sim

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/history"
	"p2pnode/test/score"
)

// agentsOnly keeps the simulated execs from acting alone.
var agentsOnly = p2pnode.Grace{Agent: time.Minute, Node: time.Minute}

func (w *World) launch(at *Machine, slo time.Duration) {
	w.T.Helper()
	if _, err := at.running().API().Launch(w.ctx, slo, 0.99, nil); err != nil {
		w.T.Errorf("launch: %v", err)
	}
}

// promote makes heir a manager, by boss.
func (w *World) promote(boss, heir *Machine) {
	w.T.Helper()
	w.Must(10*time.Second, "a route to the heir", func() bool {
		_, err := boss.running().API().Ping(w.ctx, heir.name)
		return err == nil
	})
	if err := boss.running().API().Promote(w.ctx, heir.name); err != nil {
		w.T.Fatal(err)
	}
}

// killNode kills a node process and waits until all others believe in its next
// life again.
func (w *World) killNode(m *Machine) time.Duration {
	w.T.Helper()
	w.Fault(m, p2pnode.SelfNode, p2pnode.ClassProcessDead)
	m.KillNode()
	return w.Must(20*time.Second, m.name+" is back in everybody's eyes", w.OneView)
}

func verifiedBy(kind p2pnode.ByKind, i p2pnode.Incident, ok bool) bool {
	return ok && i.By.Kind == kind && !i.VerifiedAt.IsZero()
}

// Twenty whole nodes: a node process and a service die; agents bring them back,
// everybody holds the reports.
func TestTwentyNodes(t *testing.T) {
	Run(t, Options{Seed: 1, Nodes: 20, Latency: time.Millisecond, Grace: agentsOnly}, func(w *World) {
		w.launch(w.Machines[0], 15*time.Second)
		time.Sleep(30 * time.Second)
		target := w.Machines[13]
		took := w.killNode(target)
		w.Must(30*time.Second, "the story is verified everywhere", func() bool {
			for _, m := range w.Machines {
				i, ok := m.Incident(target, "")
				if !verifiedBy(p2pnode.ByAgent, i, ok) || i.By.Node == target.name {
					return false
				}
			}
			return true
		})
		story, _ := w.Machines[0].Incident(target, "")
		t.Logf("node process back in all views after %v; hops %d, timing %+v", took, story.Hops, story.Timing)

		w.Fault(target, "web", p2pnode.ClassSignalled)
		target.KillService()
		w.Must(30*time.Second, "the service's story is verified everywhere", func() bool {
			for _, m := range w.Machines {
				i, ok := m.Incident(target, "web")
				if !verifiedBy(p2pnode.ByAgent, i, ok) || i.By.Node != target.name || i.Hops != 0 {
					return false
				}
			}
			return true
		})
	})
}

// A host vanishes without a FIN: all others call it unreachable, and nobody
// restarts anything.
func TestHostVanishes(t *testing.T) {
	for _, c := range []struct {
		nodes  int
		budget time.Duration
	}{{10, 3 * time.Second}, {30, 4 * time.Second}} {
		t.Run(fmt.Sprint(c.nodes), func(t *testing.T) {
			Run(t, Options{Seed: 2, Nodes: c.nodes, Latency: time.Millisecond, Grace: agentsOnly}, func(w *World) {
				time.Sleep(40 * time.Second)
				gone := w.Machines[6]
				w.Fault(gone, "", p2pnode.ClassUnreachable)
				gone.Vanish()
				took := w.Must(20*time.Second, "unreachable at all of the others", func() bool {
					for _, m := range w.Machines {
						if m != gone && m.verdict(gone) != p2pnode.Unreachable {
							return false
						}
					}
					return true
				})
				if took > c.budget {
					t.Errorf("unreachable everywhere after %v, the budget is %v", took, c.budget)
				}
				score.Record(t, score.Figure{
					Row: "4", How: fmt.Sprintf("%d nodes", c.nodes), Text: "unreachable at all others after " + score.Millis(took),
					N: 1, Chance: "1 host gone", Where: "simulation", Kept: took <= c.budget,
				})
			}, "n06")
		})
	}
}

// A fleet is cut in halves for longer than memberlist remembers the dead, and
// healed: one view again, and nobody was restarted across the cut.
func TestPartitionHeals(t *testing.T) {
	Run(t, Options{Seed: 3, Nodes: 10, Latency: time.Millisecond, Grace: agentsOnly}, func(w *World) {
		w.launch(w.Machines[0], 15*time.Second)
		time.Sleep(40 * time.Second)
		w.CutOff(w.Machines...)
		left, right := w.Machines[:5], w.Machines[5:]
		w.Net.Cut(addrs(left), addrs(right))
		time.Sleep(60 * time.Second)
		for _, m := range w.Machines {
			api := m.running().API()
			st, err := api.Status(w.ctx)
			if err != nil || st.Brake == nil || !st.Brake.On {
				t.Errorf("%s: half of the fleet is gone and the brake is off (%+v, %v)", m.name, st.Brake, err)
			}
		}
		w.Net.Heal(addrs(left), addrs(right))
		took := w.Must(30*time.Second, "one view again", w.OneView)
		t.Logf("one view %v after the heal", took)
		met := w.Must(30*time.Second, "every failure detector knows all again", func() bool {
			return !slices.ContainsFunc(w.Machines, func(m *Machine) bool { return int(m.Metric("p2pnode_gossip_nodes")) != len(w.Machines) })
		})
		t.Logf("failure detectors complete %v after that", met)
	})
}

// Two nodes cannot hear each other while all others hear both: neither is called
// anything that somebody acts on.
func TestOneWitnessIsNone(t *testing.T) {
	Run(t, Options{Seed: 5, Nodes: 5, Latency: time.Millisecond, Grace: agentsOnly}, func(w *World) {
		w.launch(w.Machines[0], 15*time.Second)
		time.Sleep(40 * time.Second)
		a, b := w.Machines[1:2], w.Machines[2:3]
		w.Net.Cut(addrs(a), addrs(b)) // and no line about it: nobody is cut off, so nobody may be accused
		doubts := 0
		for range 60 {
			time.Sleep(time.Second)
			if a[0].verdict(b[0]) != p2pnode.Alive {
				doubts++
			}
		}
		w.Net.Heal(addrs(a), addrs(b))
		w.Must(15*time.Second, "one view again", w.OneView)
		// The harness must have said something for the checker to accuse by.
		w.Fault(w.Machines[4], "web", p2pnode.ClassSignalled)
		w.Machines[4].KillService()
		score.Record(t, score.Figure{
			Row: "7", How: "one pair of five cannot hear each other for 60 s", Text: "0 healthy nodes accused", N: 1,
			Chance: fmt.Sprintf("doubted in %d of 60 looks", doubts), Where: "simulation", Kept: !t.Failed(),
		})
	})
}

// Packets get lost, all the time: nobody is called dead for it.
func TestLossKillsNobody(t *testing.T) {
	for _, loss := range []float64{0.05, 0.10, 0.20} {
		t.Run(fmt.Sprint(loss), func(t *testing.T) {
			const span = 3 * time.Minute
			Run(t, Options{Seed: 6, Nodes: 10, Latency: time.Millisecond, Loss: loss, Grace: agentsOnly}, func(w *World) {
				w.launch(w.Machines[0], 15*time.Second)
				doubts, deaths, before := 0, 0, w.looks()
				for began := time.Now(); time.Since(began) < span; time.Sleep(time.Second) {
					for _, m := range w.Machines {
						for _, other := range w.Machines {
							switch m.verdict(other) {
							case p2pnode.Alive:
							case p2pnode.Doubtful:
								doubts++
							default:
								deaths++
							}
						}
					}
				}
				if deaths > 0 {
					t.Errorf("%d looks found a living node called dead", deaths)
				}
				score.Record(t, score.Figure{
					Row: "8", How: fmt.Sprintf("%.0f %% for 3 min, 10 nodes", loss*100), Text: fmt.Sprintf("%d false deaths", deaths), N: int(span.Seconds()) * 90,
					Chance: fmt.Sprintf("%d suspicions looked into, %d looks found a doubt", w.looks()-before, doubts), Where: "simulation", Kept: deaths == 0,
				})
				w.Fault(w.Machines[4], "web", p2pnode.ClassSignalled)
				w.Machines[4].KillService()
			})
		})
	}
}

// The carrier of a mission dies after it has acted and before it has verified: the
// next one sees the end, and nothing is restarted twice.
func TestCarrierDiesWhileSettling(t *testing.T) {
	Run(t, Options{Seed: 7, Nodes: 6, Latency: time.Millisecond, Grace: agentsOnly}, func(w *World) {
		w.launch(w.Machines[0], 15*time.Second)
		time.Sleep(30 * time.Second)
		target := w.Machines[4]
		w.Fault(target, p2pnode.SelfNode, p2pnode.ClassProcessDead)
		target.KillNode()
		var carrier *Machine
		w.Must(10*time.Second, "another one holds the report of the act", func() bool {
			for _, m := range w.Machines {
				if i, ok := m.Incident(target, ""); ok && i.By.Kind == p2pnode.ByAgent && m != target && m.name != i.By.Node {
					carrier = w.named(i.By.Node)
				}
			}
			return carrier != nil
		})
		w.Fault(carrier, "", p2pnode.ClassUnreachable)
		carrier.Vanish()
		w.gone = append(w.gone, carrier.name)
		w.Must(60*time.Second, "the story is verified on all that are left", func() bool {
			for _, m := range w.Machines {
				if i, ok := m.Incident(target, ""); m != carrier && !verifiedBy(p2pnode.ByAgent, i, ok) {
					return false
				}
			}
			return true
		})
	})
}

// Whoever has said "I go" dies before he has done anything: his word lapses, and
// somebody else goes.
func TestCarrierDiesOnItsWay(t *testing.T) {
	Run(t, Options{Seed: 9, Nodes: 6, Latency: 20 * time.Millisecond, Grace: agentsOnly}, func(w *World) {
		w.launch(w.Machines[0], 15*time.Second)
		time.Sleep(30 * time.Second)
		target := w.Machines[4]
		w.Fault(target, p2pnode.SelfNode, p2pnode.ClassProcessDead)
		target.KillNode()
		var carrier *Machine
		w.Must(10*time.Second, "somebody goes", func() bool {
			carrier = w.claimer(target)
			return carrier != nil
		})
		time.Sleep(50 * time.Millisecond) // the others hear of it; a knock takes 80 ms here
		if target.running() != nil {
			t.Error("it has acted already: this shows nothing")
		}
		w.Fault(carrier, "", p2pnode.ClassUnreachable)
		carrier.Vanish()
		w.gone = append(w.gone, carrier.name)
		took := w.Must(20*time.Second, "somebody else went", func() bool { return target.running() != nil })
		t.Logf("%s said that it goes, and died; back %v later", carrier.name, took)
		time.Sleep(10 * time.Second)
		if n := w.restarted(); n != 1 {
			t.Errorf("%d restarts", n)
		}
	})
}

// claimer is the machine whose agent was the first to go to target.
func (w *World) claimer(target *Machine) *Machine {
	events, err := history.ReadFiles(w.historyFile("*"))
	if err != nil {
		w.T.Fatal(err)
	}
	for _, e := range events {
		if e.Event == p2pnode.HistClaimed && e.Target == target.name {
			return w.named(e.Node)
		}
	}
	return nil
}

// A small fleet and one of each everyday failure: what a planted bug must spoil.
func TestSmallFleet(t *testing.T) {
	Run(t, Options{Seed: 8, Nodes: 5, Latency: time.Millisecond, Grace: agentsOnly}, func(w *World) {
		w.launch(w.Machines[0], 15*time.Second)
		w.Must(20*time.Second, "agents on patrol", func() bool {
			doc, err := w.Machines[1].running().API().Agents(w.ctx)
			return err == nil && len(doc.Agents) > 0
		})
		time.Sleep(20 * time.Second)
		target := w.Machines[3]
		w.Fault(target, "web", p2pnode.ClassSignalled)
		target.KillService()
		w.Must(20*time.Second, "the service is back", target.serves)
		time.Sleep(10 * time.Second)
		w.killNode(w.Machines[2])
		time.Sleep(10 * time.Second)
		w.Must(10*time.Second, "each agent is in one place", func() bool {
			here := 0.0
			for _, m := range w.Machines {
				here += m.Metric("p2pnode_agent_here")
			}
			doc, err := w.Machines[1].running().API().Agents(w.ctx)
			return err == nil && here > 0 && int(here) == len(doc.Agents)
		})
	})
}

// The manager that launched the agents dies for good; what is killed after that
// is repaired all the same, and a manager promoted before reads it.
func TestManagerDies(t *testing.T) {
	Run(t, Options{Seed: 4, Nodes: 8, Latency: time.Millisecond, Grace: agentsOnly}, func(w *World) {
		boss, heir, target := w.Machines[0], w.Machines[3], w.Machines[5]
		w.promote(boss, heir)
		w.launch(boss, 15*time.Second)
		time.Sleep(30 * time.Second)
		w.Fault(boss, "", p2pnode.ClassUnreachable)
		boss.Vanish()
		time.Sleep(10 * time.Second)
		w.killNode(target)
		w.Fault(target, "web", p2pnode.ClassSignalled)
		target.KillService()
		w.Must(60*time.Second, "the heir reads the last words", func() bool {
			i, ok := heir.Incident(target, "web")
			return verifiedBy(p2pnode.ByAgent, i, ok) && i.Excerpt != nil && slices.Contains(i.Excerpt.Lines, "last words of web on "+target.name)
		})
		w.Must(30*time.Second, "and the node process's story", func() bool {
			i, ok := heir.Incident(target, "")
			return verifiedBy(p2pnode.ByAgent, i, ok)
		})
	}, "n00")
}
