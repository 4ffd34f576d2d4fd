package agent

import (
	"math/rand/v2"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/manage"
)

// host is one core without a fleet, for stories of one host.
type host struct {
	t    testing.TB
	core *core
	now  time.Time
	out  []p2pnode.Report
	fx   []effect
}

func newHost(t testing.TB, observe bool) *host {
	f := &fleet{nodes: map[peerID]*simNode{}}
	self := testID(0)
	f.nodes[self], f.ids = &simNode{id: self}, []peerID{self}
	now := time.Unix(1_700_000_000, 0)
	return &host{t: t, now: now, core: newCore(Config{
		Self: self, Name: "alone", Links: simLinks{f, self}, Settle: time.Second, LifeWait: 3 * time.Second,
		Observe: func() bool { return observe }, NameOf: p2pnode.ShortID, Rand: rand.NewPCG(1, 2),
	}, now)}
}

func (h *host) step(after time.Duration, ev event) []effect {
	h.now = h.now.Add(after)
	h.fx = h.core.Step(h.now, ev)
	for _, fx := range h.fx {
		if r, ok := fx.(fxReport); ok {
			h.out = append(h.out, r.report)
		}
	}
	return h.fx
}

func find[T effect](fx []effect) (T, bool) {
	for _, e := range fx {
		if x, ok := e.(T); ok {
			return x, true
		}
	}
	var zero T
	return zero, false
}

func (h *host) phases(want ...p2pnode.Phase) {
	h.t.Helper()
	if len(h.out) != len(want) {
		h.t.Fatalf("reports %+v, want %v", h.out, want)
	}
	for i, r := range h.out {
		if r.Phase != want[i] || r.Hops != 0 || r.Service != "web" || r.Incident != p2pnode.IncidentID(h.core.self.String(), "web", "7-1") {
			h.t.Errorf("report %d is %+v, want %s", i, r, want[i])
		}
	}
}

func failed(held p2pnode.Held, at time.Time) evExec {
	return evExec{p2pnode.ExecEvent{
		Event: p2pnode.FactFailed, At: at, DetectedAt: at, Service: "web", Target: "7-1", Class: p2pnode.ClassSignalled, Held: held,
		Exit: &p2pnode.Exit{Signal: "SIGKILL"}, Excerpt: &p2pnode.Excerpt{Lines: []string{"last words"}},
	}}
}

func TestResidentRestartsAndVerifies(t *testing.T) {
	h := newHost(t, false)
	req, ok := find[fxRecover](h.step(time.Millisecond, failed("", h.now)))
	if !ok || req.target != "" || req.req.Expected != "7-1" || req.req.Agent != h.core.resident {
		t.Fatalf("asked for %+v", req)
	}
	by := p2pnode.By{Kind: p2pnode.ByAgent, Agent: h.core.resident, Node: h.core.self.String()}
	ans := p2pnode.RecoverAnswer{Outcome: p2pnode.OutcomeDone, Old: "7-1", New: "7-2", By: by}
	h.step(2*time.Millisecond, evRecovered{incident: req.incident, token: req.token, answer: ans})
	h.phases(p2pnode.PhaseActed)
	// The same act comes as an event too: it is one story.
	h.step(0, evExec{p2pnode.ExecEvent{Event: p2pnode.FactActed, Service: "web", Target: "7-1", New: "7-2", By: by}})
	h.phases(p2pnode.PhaseActed)
	if h.out[0].Excerpt == nil || h.out[0].By != by || h.out[0].Exit == nil {
		t.Errorf("acted says %+v", h.out[0])
	}
	ask, ok := find[fxStatus](h.step(time.Second, evTick{}))
	if !ok {
		t.Fatal("did not look again after the settle time")
	}
	h.step(0, evStatus{incident: ask.incident, token: ask.token, status: p2pnode.ExecStatus{
		Services: []p2pnode.ServiceStatus{{Name: "web", State: p2pnode.StateUp, Incarnation: "7-2"}},
	}})
	h.phases(p2pnode.PhaseActed, p2pnode.PhaseVerified)
}

func TestResidentSeesItDieAgain(t *testing.T) {
	h := newHost(t, false)
	req, _ := find[fxRecover](h.step(0, failed("", h.now)))
	h.step(0, evRecovered{incident: req.incident, token: req.token, answer: p2pnode.RecoverAnswer{Outcome: p2pnode.OutcomeDone, New: "7-2"}})
	h.step(100*time.Millisecond, evExec{p2pnode.ExecEvent{Event: p2pnode.FactFailed, At: h.now, Service: "web", Target: "7-2", Held: p2pnode.HeldBackoff, Class: p2pnode.ClassExited}})
	if len(h.out) != 3 || h.out[1].Phase != p2pnode.PhaseFailed || h.out[2].Held != p2pnode.HeldBackoff || h.out[2].Old != "7-2" {
		t.Fatalf("reports %+v", h.out)
	}
}

func TestResidentHoldsBack(t *testing.T) {
	for name, c := range map[string]struct {
		held  p2pnode.Held
		ans   *p2pnode.RecoverAnswer
		phase []p2pnode.Phase
	}{
		"observe":           {p2pnode.HeldObserve, nil, []p2pnode.Phase{p2pnode.PhaseObserved}},
		"off":               {p2pnode.HeldOff, nil, []p2pnode.Phase{p2pnode.PhaseObserved}},
		"maintenance":       {p2pnode.HeldMaintenance, nil, []p2pnode.Phase{p2pnode.PhaseRefused}},
		"exec: maintenance": {"", &p2pnode.RecoverAnswer{Outcome: p2pnode.OutcomeRefused, Reason: p2pnode.RefusedMaintenance}, []p2pnode.Phase{p2pnode.PhaseRefused}},
		"exec: observe":     {"", &p2pnode.RecoverAnswer{Outcome: p2pnode.OutcomeRefused, Reason: p2pnode.RefusedObserve}, []p2pnode.Phase{p2pnode.PhaseObserved}},
		"exec: healthy":     {"", &p2pnode.RecoverAnswer{Outcome: p2pnode.OutcomeRefused, Reason: p2pnode.RefusedHealthy}, nil},
		"exec: scheduled":   {"", &p2pnode.RecoverAnswer{Outcome: p2pnode.OutcomeScheduled}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, false)
			req, asked := find[fxRecover](h.step(0, failed(c.held, h.now)))
			if asked != (c.ans != nil) {
				t.Fatalf("asked exec: %v", asked)
			}
			if c.ans != nil {
				h.step(0, evRecovered{incident: req.incident, token: req.token, answer: *c.ans})
			}
			h.step(0, failed(c.held, h.now)) // said again, told once
			h.phases(c.phase...)
		})
	}
}

func TestResidentOnAnObservingHostAsksNobody(t *testing.T) {
	h := newHost(t, true)
	if _, asked := find[fxRecover](h.step(0, failed("", h.now))); asked {
		t.Fatal("asked exec to act")
	}
	h.phases(p2pnode.PhaseObserved)
	if h.out[0].Held != p2pnode.HeldObserve || h.out[0].Action != "would have restarted web" {
		t.Errorf("says %+v", h.out[0])
	}
}

func TestExecAloneIsReported(t *testing.T) {
	h := newHost(t, false)
	by := p2pnode.By{Kind: p2pnode.ByExec, Fallback: true}
	h.step(0, evExec{p2pnode.ExecEvent{Event: p2pnode.FactActed, At: h.now, Service: "web", Target: "7-1", New: "7-2", By: by, Class: p2pnode.ClassExited}})
	h.phases(p2pnode.PhaseActed)
	if h.out[0].By != by || h.out[0].Agent != "" {
		t.Errorf("says %+v", h.out[0])
	}
	op := newHost(t, false)
	op.step(0, evExec{p2pnode.ExecEvent{Event: p2pnode.FactActed, At: op.now, Service: "web", Target: "7-1", New: "7-2", By: p2pnode.By{Kind: p2pnode.ByOperator}}})
	op.phases()
	late := newHost(t, false) // it had failed, and nobody here had heard of that
	late.step(0, evExec{p2pnode.ExecEvent{Event: p2pnode.FactActed, At: late.now, Service: "web", Target: "7-1", New: "7-2", By: p2pnode.By{Kind: p2pnode.ByOperator}, Class: p2pnode.ClassExited}})
	late.phases(p2pnode.PhaseActed)
}

// Exec itself was killed, and killed again: each has a story of its own, also when
// it is heard twice, and the first has the name that neighbours give it.
func TestExecsOwnReturnIsReported(t *testing.T) {
	h := newHost(t, false)
	by := p2pnode.By{Kind: p2pnode.ByExec}
	back := func(at time.Time) evExec {
		return evExec{p2pnode.ExecEvent{
			Event: p2pnode.FactActed, At: at, Service: p2pnode.SelfExec, Target: "1-a", By: by, Class: p2pnode.ClassExecDead,
			DetectedAt: at.Add(-time.Second), StartedAt: at,
		}}
	}
	first := back(h.now)
	h.step(0, first)
	h.step(0, first)
	h.step(2*time.Second, back(h.now.Add(2*time.Second)))
	if len(h.out) != 2 || h.out[0].Phase != p2pnode.PhaseActed || h.out[1].Phase != p2pnode.PhaseActed {
		t.Fatalf("reports %+v", h.out)
	}
	one, two := h.out[0], h.out[1]
	if one.Kind != p2pnode.KindNode || one.Service != p2pnode.SelfExec || one.By != by || one.Timing.Total != 1000 ||
		one.Incident != p2pnode.IncidentID(h.core.self.String(), p2pnode.SelfExec, "1-a") || two.Incident == one.Incident {
		t.Errorf("says %+v, then %+v", one, two)
	}
	asked, ok := find[fxStatus](h.step(h.core.cfg.Settle, evTick{}))
	if !ok {
		t.Fatal("was not looked at again")
	}
	h.step(0, evStatus{incident: asked.incident, token: asked.token})
	if got := h.out[len(h.out)-1]; got.Phase != p2pnode.PhaseVerified || got.Incident != asked.incident {
		t.Errorf("ends with %+v", got)
	}
}

// TestOrphan: an agent restarted this node process and its report never came.
func TestOrphan(t *testing.T) {
	h := newHost(t, false)
	ev := p2pnode.ExecEvent{Event: p2pnode.FactActed, At: h.now, Service: p2pnode.SelfNode, Target: "1-a", By: p2pnode.By{Kind: p2pnode.ByAgent, Agent: "a-9", Node: "x"}}
	if h.step(0, evExec{ev}); len(h.out) != 0 {
		t.Fatalf("spoke for the agent: %+v", h.out)
	}
	told, ok := find[fxOrphan](h.step(2*time.Second, evTick{}))
	if !ok || told.report.Agent != "a-9" || told.report.Service != "" || told.report.Kind != p2pnode.KindNode {
		t.Fatalf("after the wait: %+v %v", told, ok)
	}
}

// BenchmarkResident is what the resident agent adds to a local crash: from
// exec's word to the request, in the core.
func BenchmarkResident(b *testing.B) {
	h := newHost(b, false)
	n := uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		n++
		ev := p2pnode.ExecEvent{Event: p2pnode.FactFailed, At: h.now, Service: "web", Target: p2pnode.Incarnation{Epoch: 7, N: n}.String()}
		if _, ok := find[fxRecover](h.core.Step(h.now, evExec{ev})); !ok {
			b.Fatal("did not ask")
		}
		clear(h.core.cases)
	}
}

// A service with a check is back when the check has passed for the first time: who
// verifies says so, and that is what the incident tells.
func TestRecoveredWhenReady(t *testing.T) {
	h := newHost(t, false)
	down := h.now
	req, _ := find[fxRecover](h.step(0, failed("", down)))
	ans := p2pnode.RecoverAnswer{Outcome: p2pnode.OutcomeDone, Old: "7-1", New: "7-2", DetectedAt: down, VerifiedAt: down, StartedAt: down.Add(4 * time.Millisecond)}
	h.step(5*time.Millisecond, evRecovered{incident: req.incident, token: req.token, answer: ans})
	ready := down.Add(800 * time.Millisecond)
	h.step(800*time.Millisecond, evExec{p2pnode.ExecEvent{Event: p2pnode.FactUp, At: ready, Service: "web", New: "7-2", State: p2pnode.StateUp}})
	ask, _ := find[fxStatus](h.step(time.Second, evTick{}))
	h.step(0, evStatus{incident: ask.incident, token: ask.token, status: p2pnode.ExecStatus{
		Services: []p2pnode.ServiceStatus{{Name: "web", State: p2pnode.StateUp, Incarnation: "7-2"}},
	}})
	h.phases(p2pnode.PhaseActed, p2pnode.PhaseVerified)
	i := manage.Fold(h.out, func(string) string { return "" })[0]
	if !i.RecoveredAt.Equal(ready) || i.Timing.Total != 800 || i.State != p2pnode.IncidentRecovered {
		t.Errorf("recovered at %s after %v ms, want %s after 800", i.RecoveredAt, i.Timing.Total, ready)
	}
	i = manage.Fold(h.out[:1], func(string) string { return "" })[0]
	if !i.RecoveredAt.Equal(ans.StartedAt) || i.Timing.Total != 4 {
		t.Errorf("before it was verified: recovered at %s after %v ms", i.RecoveredAt, i.Timing.Total)
	}
}
