package netlab

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/bin"
	"p2pnode/test/history"
	"p2pnode/test/host"
	"p2pnode/test/score"
)

// brakeOn reports whether the brake is on at every one of hosts.
func brakeOn(hosts []*host.Host, want bool) bool {
	for _, h := range hosts {
		var d p2pnode.StatusDoc
		if !h.JSON(&d, "status") || d.Brake == nil || d.Brake.On != want {
			return false
		}
	}
	return true
}

// restarts counts what the execs of hosts have started in place of something.
func restarts(l *Lab) (n int) {
	l.T.Helper()
	events, err := history.ReadFiles(l.HistoryFile("*"))
	if err != nil {
		l.T.Fatal(err)
	}
	for _, e := range events {
		if e.Event == p2pnode.HistStarted && e.Old != "" {
			n++
		}
	}
	return n
}

// Six hosts are cut in halves of three for 20 s, and the cut ends. Meanwhile the
// brake is on at all six, nobody is restarted across the cut, and a service that
// dies is repaired at home. After it there is one view within 15 s, and no brake is
// on.
func TestCutInHalves(t *testing.T) {
	names := []string{"a", "b", "c", "d", "e", "f"}
	left, right := names[:3], names[3:]
	l, hosts := mesh(t, bin.P2pnode(t), farFallback+service("web"), names...)
	a, e := hosts[0], hosts[4]
	a.OK("agents", "launch", "--slo", "15s")
	l.Must(30*time.Second, "an agent somewhere", func() bool { return len(e.Agents()) > 0 })

	time.Sleep(35 * time.Second) // a member counts for the brake once it has been well for 30 s
	before := restarts(l)
	l.Part(left, right)
	cut := time.Now()
	l.Must(18*time.Second, "the brake is on everywhere", func() bool { return brakeOn(hosts, true) })
	braked := time.Since(cut)
	killWeb(l, e, e)
	time.Sleep(time.Until(cut.Add(20 * time.Second)))
	if n := restarts(l) - before; n != 1 {
		t.Errorf("%d restarts during the cut, want the one service that died", n)
	}
	if !brakeOn(hosts, true) {
		t.Error("a brake is off before the cut ends")
	}
	pairs := 0
	for i, h := range hosts {
		nodes := h.Nodes()
		for k, other := range names {
			if i < 3 != (k < 3) && nodes[other].Verdict == p2pnode.Unreachable {
				pairs++
			}
		}
	}

	l.Join(left, right)
	healed := time.Now()
	l.Must(15*time.Second, "one view", func() bool {
		for _, h := range hosts {
			if !h.Sees(names...) {
				return false
			}
		}
		return true
	})
	took := time.Since(healed)
	l.Must(20*time.Second, "every failure detector knows all again", func() bool {
		return !slices.ContainsFunc(hosts, func(h *host.Host) bool { return int(h.Metric("p2pnode_gossip_nodes")) != len(hosts) })
	})
	l.Must(5*time.Second, "the brake is off everywhere", func() bool { return brakeOn(hosts, false) })
	l.Must(20*time.Second, "the other half reads what was repaired meanwhile", func() bool {
		_, ok := a.Incident("e", "web", verified)
		return ok
	})
	if n := restarts(l) - before; n != 1 {
		t.Errorf("%d restarts after the heal", n-1)
	}
	score.Record(t, score.Figure{
		Row: "6", How: "3/3 for 20 s", Text: "one view " + score.Millis(took) + " after the heal, 0 restarts across", N: 1,
		Chance: fmt.Sprintf("the brake on at 6 of 6 after %s, %d of 18 pairs called unreachable at the end of the cut", score.Millis(braked), pairs), Where: "six hosts in namespaces", Kept: !t.Failed(),
	})
	l.Judge(history.Options{EndView: true})
}
