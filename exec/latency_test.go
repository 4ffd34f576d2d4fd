package exec

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"p2pnode"
)

// TestRecoveryLatency prints how long each step of story 1 takes on this machine.
// It asserts nothing about time: a shared machine would make that a coin toss.
func TestRecoveryLatency(t *testing.T) {
	var specs []p2pnode.ServiceSpec
	for i := range 20 {
		specs = append(specs, p2pnode.ServiceSpec{Name: fmt.Sprint("s", i), Command: []string{"sleep", "1000"}, StopGrace: time.Second})
	}
	h := newHost(t, daemonConfig{Services: specs, Grace: longGrace, Node: true, Door: true})
	h.await(p2pnode.SelfNode, p2pnode.StateUp)
	for _, s := range specs {
		h.await(s.Name, p2pnode.StateUp)
	}
	events, err := h.c.Events(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(freeLife)
	var detect, dispatch, act, total []time.Duration
	for _, s := range specs {
		pid := h.status(s.Name).PID
		began := time.Now()
		kill9(t, pid)
		ev := awaitEvent(t, events, p2pnode.FactActed, s.Name)
		if ev.By.Kind != p2pnode.ByAgent {
			t.Fatalf("%s was restarted by %+v", s.Name, ev.By)
		}
		detect = append(detect, ev.DetectedAt.Sub(began))
		dispatch = append(dispatch, ev.VerifiedAt.Sub(ev.DetectedAt))
		act = append(act, ev.StartedAt.Sub(ev.VerifiedAt))
		total = append(total, ev.StartedAt.Sub(began))
	}
	for _, row := range []struct {
		what string
		d    []time.Duration
	}{{"kill -> detected", detect}, {"detected -> agent asked, exec looked", dispatch}, {"looked -> started", act}, {"kill -> started", total}} {
		slices.Sort(row.d)
		t.Logf("%-40s p50 %v  max %v  (n=%d)", row.what, row.d[len(row.d)/2], row.d[len(row.d)-1], len(row.d))
	}
}
