package agent

import (
	"testing"
	"time"

	"p2pnode"
)

// acted is a report that a service of node i was restarted.
func (f *fleet) acted(i int) p2pnode.Report {
	id := f.ids[i].String()
	return p2pnode.Report{
		At: f.now, Origin: id, Phase: p2pnode.PhaseActed, Incident: p2pnode.IncidentID(id, "web", "7-1"), Kind: p2pnode.KindService,
		Node: id, Service: "web", Old: "7-1", New: "7-2", Class: p2pnode.ClassSignalled, By: p2pnode.By{Kind: p2pnode.ByAgent},
		DetectedAt: f.now, RecoveredAt: f.now,
	}
}

// A service was restarted, and before anybody could see whether it holds its host was
// gone, has left, or has another identity. One peer ends the story, once, and says
// that how the service is now is not known. While the host may only be slow, nobody does.
func TestServiceStoryOfALostHost(t *testing.T) {
	for verdict, want := range map[p2pnode.Verdict]string{
		p2pnode.Unreachable: endedHostLost, p2pnode.Left: endedHostLeft, p2pnode.IdentityChanged: endedHostOther,
		p2pnode.Alive: "", p2pnode.ProcessDead: "", p2pnode.Doubtful: "",
	} {
		f := newFleet(t, 3, 6, 3)
		f.run(time.Second)
		lost := f.ids[2]
		r := f.acted(2)
		f.store(r)
		f.run(time.Second)
		f.nodes[lost].core = nil
		f.called[lost] = verdict
		f.believe()
		f.run(20 * time.Second)
		if verdict == p2pnode.Unreachable && len(f.phases(r.Incident)[p2pnode.PhaseFailed]) > 0 {
			t.Error("a host that is away for 20 s is given up")
		}
		f.run(2 * time.Minute)
		got := f.phases(r.Incident)[p2pnode.PhaseFailed]
		if want == "" {
			if len(got) != 0 {
				t.Errorf("%s: a story that its host can end was ended: %+v", verdict, got)
			}
			continue
		}
		if len(got) != 1 || got[0].Result != want || got[0].Class != p2pnode.ClassSignalled || got[0].New != "" {
			t.Errorf("%s: ended %d times: %+v", verdict, len(got), got)
			continue
		}
		if i, ok := f.folded(r.Incident); !ok || i.State != p2pnode.IncidentFailed || i.By.Kind != p2pnode.ByAgent {
			t.Errorf("%s: the incident is told as %+v", verdict, i)
		}
	}
}

// Whoever has lost all others knows nothing of them and tells nothing.
func TestServiceStoryAndNobodyElse(t *testing.T) {
	f := newFleet(t, 3, 2, 2)
	f.run(time.Second)
	r := f.acted(1)
	f.store(r)
	f.run(time.Second)
	f.nodes[f.ids[1]].core = nil
	f.called[f.ids[1]] = p2pnode.Unreachable
	f.believe()
	f.run(5 * time.Minute)
	if got := f.phases(r.Incident)[p2pnode.PhaseFailed]; len(got) != 0 {
		t.Errorf("told by one who sees nobody: %+v", got)
	}
}

// The host was started again with all that was on it: its new exec knows nothing of
// the repair. The next life looks how the service is and ends the story.
func TestServiceStoryAfterARestartOfItsHost(t *testing.T) {
	up := p2pnode.ServiceStatus{Name: "web", State: p2pnode.StateUp, Incarnation: "9-1"}
	stopped := p2pnode.ServiceStatus{Name: "web", State: p2pnode.StateStopped}
	exited := p2pnode.ServiceStatus{Name: "web", State: p2pnode.StateExited}
	looping := p2pnode.ServiceStatus{Name: "web", State: p2pnode.StateBackoff}
	for name, x := range map[string]struct {
		phase    p2pnode.Phase // that the story had
		services []p2pnode.ServiceStatus
		state    p2pnode.IncidentState
		how      string
	}{
		"up":               {p2pnode.PhaseActed, []p2pnode.ServiceStatus{up}, p2pnode.IncidentRecovered, endedUp},
		"stopped":          {p2pnode.PhaseActed, []p2pnode.ServiceStatus{stopped}, p2pnode.IncidentFailed, endedStopped},
		"exited":           {p2pnode.PhaseActed, []p2pnode.ServiceStatus{exited}, p2pnode.IncidentFailed, endedExited},
		"undeclared":       {p2pnode.PhaseActed, nil, p2pnode.IncidentFailed, endedUndeclared},
		"still failing":    {p2pnode.PhaseActed, []p2pnode.ServiceStatus{looping}, p2pnode.IncidentRecovered, ""},
		"observed, exited": {p2pnode.PhaseObserved, []p2pnode.ServiceStatus{exited}, p2pnode.IncidentObserved, ""},
		"refused, stopped": {p2pnode.PhaseRefused, []p2pnode.ServiceStatus{stopped}, p2pnode.IncidentFailed, endedStopped},
		"refused, exited":  {p2pnode.PhaseRefused, []p2pnode.ServiceStatus{exited}, p2pnode.IncidentOpen, ""},
	} {
		f := newFleet(t, 3, 4, 3)
		f.services = x.services
		for i := range f.services {
			f.services[i].Since = f.now
		}
		r := f.acted(1)
		if r.Phase = x.phase; r.Phase != p2pnode.PhaseActed {
			r.RecoveredAt, r.New, r.By = time.Time{}, "", p2pnode.By{}
		}
		if r.Phase == p2pnode.PhaseObserved {
			r.Held = p2pnode.HeldObserve
		}
		f.store(r)
		f.run(30 * time.Second)
		i, _ := f.folded(r.Incident)
		ends := append(f.phases(r.Incident)[p2pnode.PhaseFailed], f.phases(r.Incident)[p2pnode.PhaseVerified]...)
		if i.State != x.state || x.how == "" && len(ends) > 0 || x.how != "" && (len(ends) != 1 || ends[0].Observed != x.how) {
			t.Errorf("%s: %s by %+v, want %s by %q", name, i.State, ends, x.state, x.how)
		}
		if x.how == endedUp && (i.NewIncarnation != "9-1" || i.VerifiedAt.IsZero()) {
			t.Errorf("%s: told as %+v", name, i)
		}
	}
}

// What is stopped on purpose while its repair was being watched had held until then.
func TestStoppedWhileItWasWatched(t *testing.T) {
	h := newHost(t, false)
	ask, _ := find[fxRecover](h.step(0, failed("", h.now)))
	h.step(time.Millisecond, evRecovered{incident: ask.incident, token: ask.token, answer: p2pnode.RecoverAnswer{Outcome: p2pnode.OutcomeDone, New: "7-2"}})
	h.step(time.Millisecond, evExec{p2pnode.ExecEvent{Event: p2pnode.FactUp, Service: "web", New: "7-2"}})
	h.step(time.Second, evExec{p2pnode.ExecEvent{Event: p2pnode.FactState, Service: "web", State: p2pnode.StateStopping}})
	h.phases(p2pnode.PhaseActed, p2pnode.PhaseVerified)
}
