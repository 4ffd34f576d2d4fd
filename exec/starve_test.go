package exec

import (
	"fmt"
	"testing"
	"time"

	"p2pnode"
)

// Fifty services that end as soon as they are started do not keep the fifty-first
// from being restarted when it dies, and none of them is started more often than its
// budget allows.
func TestFiftyCrashingServicesStarveNobody(t *testing.T) {
	// Programs that cost next to nothing: fifty copies of this test, under the race
	// detector, would starve the good one of the machine and not of its turn.
	specs := []p2pnode.ServiceSpec{{Name: "good", Command: []string{"/bin/sleep", "1000"}}}
	for i := range 50 {
		specs = append(specs, p2pnode.ServiceSpec{Name: fmt.Sprint("bad", i), Command: []string{"/bin/false"}})
	}
	h := newHost(t, daemonConfig{Services: specs})
	for range 3 {
		good := h.await("good", p2pnode.StateUp)
		time.Sleep(freeLife)
		began := time.Now()
		kill9(t, good.PID)
		h.awaitNew("good", good.PID)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("the good one was away for %v", took)
		}
	}
	// Those that crash share stormStarts a second: all get their turn.
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		restarted := 0
		for _, s := range specs[1:] {
			st := h.status(s.Name)
			if st.Restarts > budgetStarts {
				t.Fatalf("%s was started %d times", s.Name, st.Restarts)
			}
			if st.Restarts > 0 {
				restarted++
			}
		}
		if restarted == 50 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("only %d of 50 were restarted at all", restarted)
		}
	}
}

// A disk whose fsync takes seconds holds up who asked for something to be
// written, and no restart.
func TestASlowSyncDelaysNoRestart(t *testing.T) {
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:sleep")}, SlowSync: true})
	was := h.await("web", p2pnode.StateUp)
	time.Sleep(freeLife)
	written := make(chan time.Duration, 1)
	began := time.Now()
	go func() {
		h.c.Observe(t.Context(), "web", false)
		written <- time.Since(began)
	}()
	time.Sleep(100 * time.Millisecond)
	kill9(t, was.PID)
	h.awaitNew("web", was.PID)
	if took := time.Since(began); took > slowSync-500*time.Millisecond {
		t.Errorf("the restart took %v: it waited for the disk", took)
	}
	select {
	case took := <-written:
		t.Errorf("the disk was through after %v, before the restart", took)
	default:
	}
	if took := <-written; took < slowSync-time.Second {
		t.Errorf("the disk took %v: nothing was slow", took)
	}
}
