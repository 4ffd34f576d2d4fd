package sim

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"p2pnode"
)

// oneStory reports whether the reports of all these machines are the same bytes,
// and there are some.
func oneStory(ms ...*Machine) bool {
	want := ms[0].Reports()
	return strings.Contains(want, `"incident"`) && !slices.ContainsFunc(ms[1:], func(m *Machine) bool { return m.Reports() != want })
}

func reads(m, about *Machine, service string) bool {
	i, ok := m.Incident(about, service)
	return ok && i.Excerpt != nil && slices.Contains(i.Excerpt.Lines, "last words of "+service+" on "+about.name)
}

// Reports outlive everybody who made them. Heads are not spread; a service dies
// while the fleet is cut in two; then the launcher of the agents and the host that
// reported are gone, and their folders with them. A node that joins after that has
// the same reports as all others, byte for byte, and once it is a manager it reads
// the last words.
func TestReportsOutliveEverybody(t *testing.T) {
	Run(t, Options{Seed: 31, Nodes: 8, Latency: time.Millisecond, Grace: agentsOnly, NoPush: true}, func(w *World) {
		boss, heir, origin := w.Machines[0], w.Machines[3], w.Machines[5]
		w.promote(boss, heir)
		w.launch(boss, 15*time.Second)
		time.Sleep(30 * time.Second)

		w.killNode(origin)
		left, right := w.Machines[:4], w.Machines[4:]
		for _, m := range w.Machines {
			w.Fault(m, "", p2pnode.ClassUnreachable)
		}
		w.Fault(origin, "web", p2pnode.ClassSignalled)
		w.Net.Cut(addrs(left), addrs(right))
		origin.KillService()
		w.Must(time.Minute, "it is repaired on its side of the cut", func() bool {
			i, ok := right[0].Incident(origin, "web")
			return verifiedBy(p2pnode.ByAgent, i, ok)
		})
		if _, ok := heir.Incident(origin, "web"); ok {
			t.Error("the report crossed the cut")
		}
		w.Net.Heal(addrs(left), addrs(right))
		w.Must(60*time.Second, "one view again", w.OneView)
		w.Must(2*time.Minute, "the heir reads the last words", func() bool { return reads(heir, origin, "web") })
		time.Sleep(2 * time.Minute)

		for _, gone := range []*Machine{boss, origin} {
			w.Fault(gone, "", p2pnode.ClassUnreachable)
			gone.Vanish()
			if err := os.RemoveAll(gone.dir); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(2 * time.Minute)
		workers := []*Machine{w.Machines[1], w.Machines[2], w.Machines[4], w.Machines[6], w.Machines[7]}
		w.Must(time.Minute, "all workers tell one story", func() bool { return oneStory(workers...) })
		if err := heir.running().API().Manage(w.ctx, true); err != nil {
			t.Error(err)
			return
		}
		token, err := heir.running().API().CreateToken(w.ctx, p2pnode.RoleWorker, time.Hour, 1)
		if err != nil {
			t.Error(err)
			return
		}
		late := w.add()
		late.join, late.token = []string{w.Machines[1].address()}, token.Token
		began := time.Now()
		late.boot()
		w.Must(time.Minute, "the newcomer tells the same, byte for byte", func() bool { return oneStory(append(workers, late)...) })
		t.Logf("%d bytes of reports, the same %v after its start on the newcomer", len(late.Reports()), time.Since(began))
		i, _ := late.Incident(origin, "web")
		if i.Excerpt == nil || !i.Excerpt.Sealed || i.Excerpt.Why == "" {
			t.Errorf("a worker is told of the excerpt: %+v", i.Excerpt)
		}
		w.Must(time.Minute, "it is promoted", func() bool { return heir.running().API().Promote(w.ctx, late.name) == nil })
		w.Must(time.Minute, "and reads the last words of somebody whom it never met", func() bool { return reads(late, origin, "web") })
		w.Must(time.Minute, "and tells what the other manager tells", func() bool { return oneStory(heir, late) })
	}, "n00", "n05")
}

// Many nodes hold the same reports by anti-entropy alone; what it costs. `make
// spread` does it with a hundred.
func TestManyNodesConverge(t *testing.T) {
	nodes := 24
	if n, err := strconv.Atoi(os.Getenv("P2PNODE_SIM_NODES")); err == nil {
		nodes = n
	}
	Run(t, Options{Seed: 32, Nodes: nodes, Latency: time.Millisecond, Grace: agentsOnly, NoPush: true}, func(w *World) {
		time.Sleep(20 * time.Second)
		for _, i := range []int{1, nodes / 3, nodes / 2, nodes - 1} {
			w.Fault(w.Machines[i], "web", p2pnode.ClassSignalled)
			w.Machines[i].KillService()
		}
		began := time.Now()
		// Looked at every five seconds: all nodes are asked each time.
		all := func(cond func(m *Machine) bool) time.Duration {
			for slices.ContainsFunc(w.Machines, func(m *Machine) bool { return !cond(m) }) {
				if time.Since(began) > 5*time.Minute {
					t.Fatal("not within 5 min")
				}
				time.Sleep(5 * time.Second)
			}
			return time.Since(began)
		}
		// Each story is observed or acted, and verified.
		stories := all(func(m *Machine) bool { return m.Metric("p2pnode_store_reports") >= 4 })
		same := all(func(m *Machine) bool { return oneStory(w.Machines[1], m) || m == w.Machines[0] })
		sum := func() (sent, pulled float64) {
			for _, m := range w.Machines {
				sent, pulled = sent+m.Metric("p2pnode_store_sent_bytes_total"), pulled+m.Metric("p2pnode_store_pulled_bytes_total")
			}
			return sent, pulled
		}
		n, rest := float64(nodes), time.Minute
		sent, pulled := sum()
		time.Sleep(rest)
		_, idle := sum()
		rate := (idle - pulled) / n / rest.Seconds()
		t.Logf("%d nodes, no push: four reports everywhere after %v, byte for byte after %v; %.1f KB sent and %.1f KB pulled per node; at rest %.1f B/s per node",
			nodes, stories, same, sent/n/1e3, pulled/n/1e3, rate)
		if rate > 50 {
			t.Errorf("at rest each node pulls %.0f B/s for nothing", rate)
		}
	})
}
