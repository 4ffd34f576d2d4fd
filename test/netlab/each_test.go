package netlab

import (
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/bin"
	"p2pnode/test/history"
)

// One of each everyday failure on three hosts that all reach each other.
func TestOneOfEach(t *testing.T) {
	names := []string{"a", "b", "c"}
	l, hosts := mesh(t, bin.P2pnode(t), farFallback+service("web"), names...)
	a, b, c := hosts[0], hosts[1], hosts[2]
	a.OK("agents", "launch", "--slo", "15s")
	l.Must(20*time.Second, "an agent on patrol", func() bool { return len(b.Agents()) > 0 })
	web := webOf(c)
	time.Sleep(1200 * time.Millisecond) // a life that is restarted at once
	c.Kill("web", p2pnode.ClassSignalled, web.PID)
	l.Must(8*time.Second, "web of c runs again", func() bool { s := webOf(c); return s.PID != 0 && s.PID != web.PID })
	old := b.Role("node")
	b.Kill(p2pnode.SelfNode, p2pnode.ClassProcessDead, old)
	l.Must(8*time.Second, "the node process of b runs again", func() bool { pid := b.Role("node"); return pid != 0 && pid != old })
	l.Must(20*time.Second, "each agent is in one place", func() bool {
		here := 0.0
		for _, h := range hosts {
			here += h.Metric("p2pnode_agent_here")
		}
		return int(here) == len(a.Agents()) && here > 0
	})
	time.Sleep(4 * time.Second) // what is verified is verified after three
	l.Judge(history.Options{EndView: true})
}

// One wire of a triangle swallows everything for ten seconds. Each of its ends has
// lost the other from sight, and nobody is called unreachable: the third sees both.
func TestOneWireIsNoHost(t *testing.T) {
	names := []string{"a", "b", "c"}
	l, hosts := mesh(t, bin.P2pnode(t), farFallback+service("web"), names...)
	a, b := hosts[0], hosts[1]
	a.OK("agents", "launch", "--slo", "15s")
	l.Must(20*time.Second, "an agent on patrol", func() bool { return len(b.Agents()) > 0 })
	l.Cut("a", "b")
	doubted := false
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		doubted = doubted || a.Nodes()["b"].Verdict != p2pnode.Alive
	}
	l.Mend("a", "b")
	l.Must(15*time.Second, "one view", func() bool { return a.Sees(names...) && b.Sees(names...) })
	web := webOf(hosts[2]) // a fault that the checker can accuse by
	hosts[2].Kill("web", p2pnode.ClassSignalled, web.PID)
	t.Logf("b was doubted: %v", doubted)
	l.Judge(history.Options{EndView: true})
}

// The carrier of a mission dies, with its host, after it has acted and before it
// has verified: another one sees it to its end.
func TestCarrierDiesWhileSettling(t *testing.T) {
	names := []string{"a", "b", "c", "d"}
	l, hosts := mesh(t, bin.P2pnode(t), farFallback+service("web"), names...)
	a, d := hosts[0], hosts[3]
	a.OK("agents", "launch", "--slo", "15s")
	l.Must(20*time.Second, "an agent on patrol", func() bool { return len(a.Agents()) > 0 })
	for range attempts {
		life, old := d.Nodes()["d"].Life, d.Role("node")
		d.Kill(p2pnode.SelfNode, p2pnode.ClassProcessDead, old)
		var acted p2pnode.Incident
		l.Must(10*time.Second, "two others hold the report of the act", func() bool {
			held := 0
			for _, h := range hosts[:3] {
				if i, ok := h.Incident("d", "", func(i p2pnode.Incident) bool { return i.OldIncarnation == life && i.By.Kind == p2pnode.ByAgent }); ok {
					acted, held = i, held+1
				}
			}
			return held >= 2
		})
		carrier := acted.By.Node
		if carrier == "a" || !acted.VerifiedAt.IsZero() { // a founded the cluster and is asked below; or we came too late
			l.Must(20*time.Second, "d is well again", func() bool {
				_, ok := a.Incident("d", "", func(i p2pnode.Incident) bool { return i.OldIncarnation == life && verified(i) })
				return ok && d.Sees(names...)
			})
			continue
		}
		for _, h := range hosts {
			if h.Name == carrier {
				h.Gone()
			}
		}
		l.Must(30*time.Second, "another one sees it to its end", func() bool {
			_, ok := a.Incident("d", "", func(i p2pnode.Incident) bool { return i.OldIncarnation == life && verified(i) })
			return ok
		})
		once(l, d, p2pnode.SelfNode, life)
		l.Judge(history.Options{EndView: true, Gone: []string{carrier}})
		return
	}
	t.Fatalf("no carrier that may die in %d repairs", attempts)
}

// A service that ends at once, always, is not restarted without end.
func TestCrashLoopKeepsItsBudget(t *testing.T) {
	l := New(t, bin.P2pnode(t))
	a := l.Host("a").Configure(farFallback + "services:\n  bad:\n    shell: \"exit 3\"\n    ready: started\n")
	a.Start("--listen", "0.0.0.0:7744", "--door", "0.0.0.0:7745", "--join", "192.0.2.1")
	l.Must(20*time.Second, "it is called a crash loop, or has had its budget", func() bool {
		var d p2pnode.PSDoc
		return a.JSON(&d, "ps") && len(d.Services) == 1 && (d.Services[0].State == p2pnode.StateCrashLooping || d.Services[0].Restarts > 20)
	})
	time.Sleep(2 * time.Second)
	l.Judge(history.Options{})
}
