package agent

import (
	"slices"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/manage"

	"github.com/libp2p/go-libp2p/core/peer"
)

// folded is the story that the reports of an incident tell.
func (f *fleet) folded(incident string) (p2pnode.Incident, bool) {
	for _, i := range manage.Fold(f.reports, func(id string) string { return id }) {
		if i.ID == incident {
			return i, true
		}
	}
	return p2pnode.Incident{}, false
}

// A host that nobody reaches is told of once, whoever sees it; its end too. Nobody
// goes there. A second time is another story of the same life.
func TestHostOutOfReachIsToldOnce(t *testing.T) {
	for seed := range uint64(20) {
		f := newFleet(t, seed, 8, 3)
		f.launch(6*time.Second, 0.9)
		f.run(3 * time.Second)
		target := f.nodes[f.ids[f.rng.IntN(len(f.ids))]]
		for time1 := range 2 {
			f.reports = nil
			f.called[target.id] = p2pnode.Unreachable
			f.brake = p2pnode.BrakeState{On: time1 == 1}
			f.believe()
			f.run(5 * time.Second)
			if len(f.reports) != 1 || f.reports[0].Kind != p2pnode.KindHost || f.reports[0].Class != p2pnode.ClassUnreachable {
				for _, r := range f.reports {
					t.Logf("%s %s %s %s %s %s", r.At.Format("05.000"), r.Phase, r.Kind, r.Incident, r.NodeName, r.Observed)
				}
				t.Fatalf("seed %d: %d reports of a host out of reach, want one", seed, len(f.reports))
			}
			id := f.reports[0].Incident
			want := map[bool]p2pnode.Held{true: p2pnode.HeldBrake}[f.brake.On]
			if i, _ := f.folded(id); i.State != p2pnode.IncidentOpen || i.Held != want || i.Kind != p2pnode.KindHost {
				t.Fatalf("seed %d: %+v", seed, i)
			}
			delete(f.called, target.id)
			f.believe()
			f.run(15 * time.Second)
			i, _ := f.folded(id)
			if len(f.reports) != 2 || i.State != p2pnode.IncidentRecovered || i.VerifiedAt.IsZero() || i.By.Kind != "" {
				t.Fatalf("seed %d: %d reports, %+v", seed, len(f.reports), i)
			}
		}
		if f.asked > 0 {
			t.Fatalf("seed %d: somebody acted on a host out of reach", seed)
		}
	}
}

// What is open at a host that is forgotten ends, once, as failed: its own story and
// those of its services. What was over stays as it was.
func TestStoriesOfTheForgottenEnd(t *testing.T) {
	for seed := range uint64(10) {
		f := newFleet(t, seed, 8, 3)
		f.services = []p2pnode.ServiceStatus{{Name: "web", State: p2pnode.StateBackoff}} // on its host it goes on
		f.run(3 * time.Second)
		target := f.nodes[f.ids[f.rng.IntN(len(f.ids))]]
		tell := func(service string, phases ...p2pnode.Phase) string {
			id := p2pnode.IncidentID(target.id.String(), service, "1")
			for _, ph := range phases {
				r := p2pnode.Report{At: f.now, Phase: ph, Incident: id, Kind: p2pnode.KindService, Node: target.id.String(), NodeName: "away", Service: service, Old: "1", DetectedAt: f.now}
				if ph == p2pnode.PhaseVerified {
					r.RecoveredAt, r.VerifiedAt = f.now, f.now
				}
				f.store(r)
			}
			return id
		}
		open := tell("web", p2pnode.PhaseRefused)
		over := tell("db", p2pnode.PhaseRefused, p2pnode.PhaseVerified)
		f.called[target.id] = p2pnode.Unreachable
		f.believe()
		f.run(30 * time.Second)
		var host string
		for _, r := range f.reports {
			if r.Kind == p2pnode.KindHost {
				host = r.Incident
			}
		}
		if i, ok := f.folded(open); !ok || i.State != p2pnode.IncidentOpen {
			t.Fatalf("seed %d: %+v", seed, i)
		}
		f.forgotten = map[peerID]bool{target.id: true}
		delete(f.called, target.id)
		f.believe()
		f.run(30 * time.Second)
		for _, id := range []string{open, host} {
			i, ok := f.folded(id)
			if !ok || i.State != p2pnode.IncidentFailed || len(f.phases(id)[p2pnode.PhaseFailed]) != 1 || !i.RecoveredAt.IsZero() {
				t.Errorf("seed %d: %d ends, %+v", seed, len(f.phases(id)[p2pnode.PhaseFailed]), i)
			}
		}
		if i, _ := f.folded(over); i.State != p2pnode.IncidentRecovered || len(f.phases(over)[p2pnode.PhaseFailed]) > 0 {
			t.Errorf("seed %d: %+v", seed, i)
		}
	}
}

// A node that has lost all others tells nothing of them.
func TestWhoIsAloneTellsNothing(t *testing.T) {
	f := newFleet(t, 1, 6, 3)
	f.run(time.Second)
	b := Beliefs{Peers: map[peerID]Belief{}, Brake: p2pnode.BrakeState{On: true}}
	for _, id := range f.ids[1:] {
		b.Peers[id] = Belief{Verdict: p2pnode.Unreachable, Life: f.nodes[id].life, Since: f.now}
	}
	f.step(f.nodes[f.ids[0]], evBeliefs{b})
	f.run(20 * time.Second)
	if len(f.reports) > 0 {
		t.Errorf("%+v", f.reports)
	}
}

// Whatever a mission comes to, its story has an end when the subject is well again:
// refused, observed, given up, or found well without an act.
func TestEveryStoryEnds(t *testing.T) {
	answers := map[string]p2pnode.RecoverAnswer{
		"maintenance": {Outcome: p2pnode.OutcomeRefused, Reason: p2pnode.RefusedMaintenance},
		"observe":     {Outcome: p2pnode.OutcomeRefused, Reason: p2pnode.RefusedObserve},
		"unknown":     {Outcome: p2pnode.OutcomeRefused, Reason: p2pnode.RefusedUnknown},
		"healthy":     {Outcome: p2pnode.OutcomeRefused, Reason: p2pnode.RefusedHealthy},
		"exec-dead":   {Outcome: p2pnode.OutcomeRefused, Reason: p2pnode.RefusedExecDead},
		"by itself":   {Outcome: p2pnode.OutcomeAlreadyDone, By: p2pnode.By{Kind: p2pnode.ByExec}},
		"silent":      {},
	}
	for name, ans := range answers {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(10) {
				f := newFleet(t, seed, 7, 3)
				f.launch(6*time.Second, 0.9)
				f.run(3 * time.Second)
				target := f.nodes[f.ids[f.rng.IntN(len(f.ids))]]
				life := target.life
				f.answer = func(p2pnode.RecoverRequest) (p2pnode.RecoverAnswer, error) {
					if name == "silent" {
						return ans, errLost
					}
					return ans, nil
				}
				f.kill(target)
				f.run(20 * time.Second)
				incident := p2pnode.IncidentID(target.id.String(), "", life.String())
				if acted := f.phases(incident)[p2pnode.PhaseActed]; len(acted) > 0 {
					t.Fatalf("seed %d: %q was reported as an act: %+v", seed, name, acted[0])
				}
				f.boot(target) // it comes back by itself
				f.run(25 * time.Second)
				i, ok := f.folded(incident)
				if !ok || i.State != p2pnode.IncidentRecovered || i.VerifiedAt.IsZero() || i.By.Kind == p2pnode.ByAgent {
					t.Fatalf("seed %d: told %v, %+v", seed, ok, i)
				}
				if n := len(f.phases(incident)[p2pnode.PhaseVerified]); n != 1 {
					t.Errorf("seed %d: the end was told %d times", seed, n)
				}
			}
		})
	}
}

// A host that is coming up is no failure: while its exec says "starting" nobody
// asks for anything, and nobody claims to have done it.
func TestHostThatIsStartingIsLeftAlone(t *testing.T) {
	f := newFleet(t, 3, 6, 3)
	f.launch(6*time.Second, 0.9)
	f.run(3 * time.Second)
	target := f.nodes[f.ids[2]]
	life := target.life
	f.word = func(s *simNode) DoorWord {
		return DoorWord{ExecAlive: true, NodeAlive: s.core != nil, NodeState: map[bool]string{true: "up", false: "starting"}[s.core != nil], NodeLife: s.life}
	}
	f.kill(target)
	f.run(2 * time.Second)
	if f.asked > 0 {
		t.Fatalf("%d requests to an exec that is starting it", f.asked)
	}
	f.boot(target)
	f.run(15 * time.Second)
	incident := p2pnode.IncidentID(target.id.String(), "", life.String())
	if i, _ := f.folded(incident); f.asked > 0 || i.By.Kind == p2pnode.ByAgent {
		t.Errorf("asked %d times, %+v", f.asked, i)
	}
}

// A start that never ends is asked about after all.
func TestStartThatNeverEndsIsAskedAbout(t *testing.T) {
	f := newFleet(t, 3, 6, 3)
	f.run(time.Second)
	target := f.nodes[f.ids[2]]
	f.word = func(s *simNode) DoorWord { return DoorWord{ExecAlive: true, NodeState: "starting", NodeLife: s.life} }
	f.kill(target)
	if !f.until(20*time.Second, func() bool { return f.asked > 0 }) {
		t.Error("nobody asks")
	}
}

// A traveller that cannot be what it says is refused, and counted by what is wrong.
func TestForgedTravellers(t *testing.T) {
	f := square(t)
	_, first := onMission(t, f)
	good := func() *traveller {
		tr, err := decodeTraveller(f.now, first.req)
		if err != nil {
			t.Fatal(err)
		}
		return tr
	}
	stranger := testID(99)
	cases := map[string]struct {
		spoil func(tr *traveller)
		from  int
		want  string
	}{
		"an honest one":              {func(*traveller) {}, 0, ""},
		"handed over by another":     {func(*traveller) {}, 2, "handoff-forged-trail"},
		"a trail of somebody else's": {func(tr *traveller) { tr.mission.trail[0] = f.ids[3] }, 0, "handoff-forged-trail"},
		"without a trail":            {func(tr *traveller) { tr.mission.trail = nil }, 0, "handoff-forged-trail"},
		"fewer hops than trail":      {func(tr *traveller) { tr.mission.hops = 0 }, 0, "handoff-forged-trail"},
		"more hops than trail":       {func(tr *traveller) { tr.mission.hops = 7 }, 0, "handoff-forged-trail"},
		"to a stranger":              {func(tr *traveller) { tr.mission.target = stranger }, 0, "handoff-unknown-target"},
		"one that never left":        {func(tr *traveller) { tr.hop = 0 }, 0, "handoff-forged-trail"},
	}
	for name, x := range cases {
		to := newCore(f.nodes[first.to].core.cfg, f.now)
		tr := good()
		x.spoil(tr)
		fx := to.Step(f.now, evArrive{tr, f.ids[x.from], 1})
		ack, _ := find[fxReply](fx)
		refused := decodeAck(ack.ack) != nil
		counted := slices.Contains(fx, effect(fxCount{x.want}))
		if refused != (x.want != "") || x.want != "" && (!counted || len(to.held) > 0) {
			t.Errorf("%s: refused %v, want %q counted; %v", name, refused, x.want, fx)
		}
	}
}

// A handoff that is played again, at once or much later, has no effect.
func TestReplayedTravellers(t *testing.T) {
	f := square(t)
	_, first := onMission(t, f)
	to := newCore(f.nodes[first.to].core.cfg, f.now)
	arrive := func(hop uint64) []effect {
		tr, err := decodeTraveller(f.now, first.req)
		if err != nil {
			t.Fatal(err)
		}
		tr.hop = hop
		tr.mission.trail[0] = f.ids[0]
		return to.Step(f.now, evArrive{tr, f.ids[0], 1})
	}
	arrive(5)
	delete(to.held, first.agent) // it went on
	for hop, want := range map[uint64]string{5: "handoff-duplicate", 4: "handoff-replayed", 1: "handoff-replayed"} {
		if fx := arrive(hop); len(to.held) > 0 || !slices.Contains(fx, effect(fxCount{want})) {
			t.Errorf("hop %d: held %d, want %s: %v", hop, len(to.held), want, fx)
		}
	}
	f.now = f.now.Add(9 * time.Minute) // patrols live for ten
	to.Step(f.now, evTick{})
	if arrive(4); len(to.held) > 0 {
		t.Error("an old handoff was taken in after nine minutes")
	}
	if arrive(6); len(to.held) != 1 {
		t.Error("it cannot come back by an honest hop")
	}
}

// The time of the flight itself, which no clock here sees, is in travel.
func TestTravelCountsTheFlight(t *testing.T) {
	f := square(t)
	_, first := onMission(t, f)
	tr, err := decodeTraveller(f.now, first.req)
	if err != nil {
		t.Fatal(err)
	}
	if d := f.now.Sub(tr.mission.claimedAt); d != time.Millisecond {
		t.Errorf("claimed %v ago on arrival over a link with an RTT of 2 ms, want 1 ms", d)
	}
}

// The carrier dies right after exec has acted, its report with it or not. Whoever
// looks at the repair in its place says who made it, as exec knows, and not its own way.
func TestVerifiedSaysWhoActed(t *testing.T) {
	seeds(t, 10, func(start func(int, int) *fleet, seed uint64) {
		f := start(7, 3)
		f.settle = DefaultSettle // so that the verifier is sooner than the new life's own word
		for _, id := range f.ids {
			f.boot(f.nodes[id])
		}
		f.run(time.Second)
		target, carrier := f.nodes[f.ids[2]], peer.ID("")
		incident := p2pnode.IncidentID(target.id.String(), "", target.life.String())
		acted := func(f *fleet, n *simNode, fx effect) bool {
			e, ok := fx.(fxReport)
			if ok && e.report.Phase == p2pnode.PhaseActed && carrier == "" {
				carrier = n.id
				return seed%2 == 0
			}
			return false
		}
		f.killOn, f.killAfter = acted, func(f *fleet, n *simNode, fx effect) bool {
			e, ok := fx.(fxPublish)
			return ok && n.id == carrier && e.domain == p2pnode.DomainClaim && seed%2 == 1
		}
		f.kill(target)
		f.run(20 * time.Second)
		got := f.phases(incident)[p2pnode.PhaseVerified]
		if carrier == "" || len(got) == 0 {
			t.Fatalf("seed %d: carrier %q killed, verified by %v", seed, carrier, got)
		}
		for _, r := range got {
			if r.By.Kind != p2pnode.ByAgent || r.By.Node != carrier.String() {
				t.Errorf("seed %d: agent %q verified what %+v did, want by the agent on %s", seed, r.Agent, r.By, carrier)
			}
		}
		i, _ := f.folded(incident)
		if i.State != p2pnode.IncidentRecovered || i.By.Node != carrier.String() || seed%2 == 0 && i.By.Agent != got[0].Agent && len(i.Trail) > 0 {
			t.Errorf("seed %d: the incident is told as by %+v, trail %v", seed, i.By, i.Trail)
		}
	})
}
