package ring

import (
	"fmt"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/history"
	"p2pnode/test/host"
	"p2pnode/test/score"
)

// settling is how long after it went on a node may still be wrong about others, and
// others about it.
const settling = time.Second

// stall is a time in which a node process stood still.
type stall struct {
	node       string
	from, till time.Time
}

// Row 11: two of ten node processes stand still for 4 s, then two others, and so on
// around. Nobody who runs calls anybody who runs dead, hung or unreachable, and no
// process is replaced.
func TestAFifthStallsInTurn(t *testing.T) {
	const n, atOnce, long = 10, 2, 4 * time.Second
	r := New(t, n, farFallback)
	launchOne(r.Hosts[0])
	before := map[*host.Host]int{}
	for _, h := range r.Hosts {
		before[h] = h.Role("node")
	}
	var stalls []stall
	for round := range min(2*rounds(), n/atOnce) { // each once: a second stall of one life is the same incident
		from := time.Now()
		var still []*host.Host
		for k := range atOnce {
			h := r.Hosts[(3*round+k*n/atOnce)%n]
			h.Fault(p2pnode.SelfNode, p2pnode.ClassFrozen, before[h])
			if err := Stop(before[h]); err != nil {
				t.Fatal(err)
			}
			still = append(still, h)
		}
		time.Sleep(long)
		for _, h := range still {
			if err := Continue(before[h]); err != nil {
				t.Fatal(err)
			}
			stalls = append(stalls, stall{h.Name, from, time.Now()})
		}
		r.Settled(n)
	}
	replaced := 0
	for h, pid := range before {
		if now := h.Role("node"); now != pid {
			replaced++
			t.Errorf("the node process of %s was replaced: %d, now %d", h.Name, pid, now)
		}
	}
	suspicions, accused := accusations(t, r, stalls)
	for _, e := range accused {
		t.Errorf("%s called %s %s at %s, and both ran", e.Node, e.Target, e.Verdict, e.At.Format(time.StampMilli))
	}
	score.Record(t, score.Figure{
		Row: "11", How: fmt.Sprintf("%d of %d node processes at a time, %s each", atOnce, n, long),
		Text: fmt.Sprintf("%d healthy nodes called dead, hung or unreachable by healthy ones, %d processes replaced", len(accused), replaced),
		N:    len(stalls), Chance: fmt.Sprintf("%d stalls, %d suspicions raised", len(stalls), suspicions),
		Where: "hosts on loopback", Kept: len(accused)+replaced == 0,
	})
	r.Judge(history.Options{EndView: true})
}

// accusations counts the verdicts on others that were not `alive`, and returns those
// that a running node passed on a running one and that somebody may act on.
func accusations(t *testing.T, r *Ring, stalls []stall) (suspicions int, wrong []p2pnode.HistoryEvent) {
	t.Helper()
	stood := func(node string, at time.Time) bool {
		for _, s := range stalls {
			if s.node == node && at.After(s.from) && at.Before(s.till.Add(settling)) {
				return true
			}
		}
		return false
	}
	for _, h := range r.Hosts {
		events, err := history.ReadFiles(r.HistoryFile(h.Name))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if e.Event != p2pnode.HistVerdict || e.Verdict == p2pnode.Alive {
				continue
			}
			suspicions++
			if (e.Verdict.Actionable() || e.Verdict == p2pnode.Unreachable) && !stood(e.Target, e.At) && !stood(e.Node, e.At) {
				wrong = append(wrong, e)
			}
		}
	}
	return suspicions, wrong
}
