package sim

import (
	"testing"
	"time"

	"p2pnode"
)

// settled is what `wait --for settled` asks, on m.
func (m *Machine) settled() bool {
	for _, i := range m.Incidents() {
		open := i.State == p2pnode.IncidentOpen || i.State == p2pnode.IncidentActing
		if open || i.State == p2pnode.IncidentRecovered && i.VerifiedAt.IsZero() {
			return false
		}
	}
	return m.running() != nil
}

// Reboot ends everything on m, as a host does that is switched off and on: its new
// exec remembers nothing of what it did.
func (m *Machine) Reboot() {
	m.KillNode()
	m.mu.Lock()
	m.ring, m.ops = nil, map[string]p2pnode.RecoverAnswer{}
	m.mu.Unlock()
}

// A service was restarted, and within the settle time its host was gone for good. The
// others end the story and say that how the service is now is not known.
func TestHostDiesBeforeTheVerification(t *testing.T) {
	Run(t, Options{Seed: 31, Nodes: 5, Latency: time.Millisecond}, func(w *World) {
		a, lost := w.Machines[0], w.Machines[2]
		w.Fault(lost, "web", p2pnode.ClassSignalled)
		lost.KillService()
		w.Must(10*time.Second, "the repair is known", func() bool {
			i, ok := a.Incident(lost, "web")
			return ok && i.State == p2pnode.IncidentRecovered
		})
		w.Fault(lost, "", p2pnode.ClassUnreachable)
		lost.Vanish()
		w.Must(3*time.Minute, "the story has an end", func() bool {
			i, _ := a.Incident(lost, "web")
			return i.State == p2pnode.IncidentFailed
		})
		failed := 0
		reports, err := a.running().API().Incident(w.ctx, func() string { i, _ := a.Incident(lost, "web"); return i.ID }())
		if err != nil {
			t.Error(err)
		}
		for _, r := range reports.Reports {
			if r.Phase == p2pnode.PhaseFailed {
				failed++
				if r.Result == "" || r.Origin == r.Node {
					t.Errorf("ended by %+v", r)
				}
			}
		}
		if failed != 1 {
			t.Errorf("%d peers end the story", failed)
		}
	}, "n02")
}

// The same, but the host comes back: its next life ends the story with what its new
// exec says.
func TestHostRestartsBeforeTheVerification(t *testing.T) {
	Run(t, Options{Seed: 32, Nodes: 4, Latency: time.Millisecond}, func(w *World) {
		a, m := w.Machines[0], w.Machines[2]
		w.Fault(m, "web", p2pnode.ClassSignalled)
		m.KillService()
		w.Must(10*time.Second, "the repair is known", func() bool {
			i, ok := a.Incident(m, "web")
			return ok && i.State == p2pnode.IncidentRecovered
		})
		time.Sleep(2 * time.Second) // the report is on its disk; it is not settled yet
		w.Fault(m, "", p2pnode.ClassProcessDead)
		m.Reboot()
		w.Must(3*time.Minute, "all stories have an end", func() bool { return a.settled() && m.settled() })
		i, _ := a.Incident(m, "web")
		if i.State != p2pnode.IncidentRecovered || i.VerifiedAt.IsZero() || i.By.Kind != p2pnode.ByAgent {
			t.Errorf("the story is told as %+v", i)
		}
	})
}
