package manage

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"p2pnode"
)

var t0 = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func names(id string) string {
	return map[string]string{"A": "ash", "B": "birch", "C": "cedar"}[id]
}

// report is one about the node process of C, seen from B, ms after t0.
func report(phase p2pnode.Phase, seq uint64, ms int) p2pnode.Report {
	return p2pnode.Report{
		Origin: "B", Epoch: "e", Seq: seq, At: t0.Add(time.Duration(ms) * time.Millisecond), Phase: phase,
		Incident: "i-1", Kind: p2pnode.KindNode, Node: "C", Class: p2pnode.ClassProcessDead, Old: "1-a", DetectedAt: t0,
	}
}

func acted(seq uint64, ms int) p2pnode.Report {
	r := report(p2pnode.PhaseActed, seq, ms)
	r.RecoveredAt = r.At
	r.Agent, r.By = "a-1", p2pnode.By{Kind: p2pnode.ByAgent, Agent: "a-1", Node: "B"}
	r.Hops, r.Trail, r.New = 1, []string{"A", "B", "C"}, "2-b"
	r.Timing = p2pnode.Timing{Detect: 4, Travel: 1}
	return r
}

func verified(seq uint64, ms int) p2pnode.Report {
	r := report(p2pnode.PhaseVerified, seq, ms)
	r.VerifiedAt = r.At
	r.Timing = p2pnode.Timing{Verify: 2}
	return r
}

func TestFoldTellsTheStory(t *testing.T) {
	early := acted(1, 90)
	early.Excerpt = &p2pnode.Excerpt{Lines: []string{"panic"}}
	sealed := verified(2, 3090)
	sealed.Excerpt = &p2pnode.Excerpt{Sealed: true}
	got := Fold([]p2pnode.Report{sealed, early}, names)
	if len(got) != 1 {
		t.Fatalf("%d incidents", len(got))
	}
	i := got[0]
	want := p2pnode.Incident{
		ID: "i-1", Kind: p2pnode.KindNode, Node: "cedar", NodeID: "C", Class: p2pnode.ClassProcessDead, State: p2pnode.IncidentRecovered,
		DetectedAt: t0, RecoveredAt: t0.Add(90 * time.Millisecond), VerifiedAt: t0.Add(3090 * time.Millisecond),
		By:   p2pnode.By{Kind: p2pnode.ByAgent, Agent: "a-1", Node: "birch"},
		Hops: 1, Trail: []string{"ash", "birch", "cedar"}, OldIncarnation: "1-a", NewIncarnation: "2-b",
		Timing:  p2pnode.Timing{Detect: 4, Travel: 1, Verify: 2, Total: 90},
		Excerpt: early.Excerpt, Count: 1, Reports: 2,
	}
	if !reflect.DeepEqual(i, want) {
		t.Errorf("got  %+v\nwant %+v", i, want)
	}
}

// Who looked at the work of the agent that acted may tell of it first, or alone in
// time: the way is that of the one who acted.
func TestTheWayIsThatOfWhoActed(t *testing.T) {
	own := acted(1, 90) // the next life was not there yet
	own.RecoveredAt, own.New = time.Time{}, ""
	ownEnd := verified(2, 3200)
	ownEnd.Agent, ownEnd.By, ownEnd.Hops, ownEnd.Trail = own.Agent, own.By, own.Hops, own.Trail
	looked := verified(1, 3100)
	looked.Origin, looked.Agent, looked.By, looked.Trail = "D", "a-2", own.By, []string{"C"}
	looked.RecoveredAt = t0.Add(100 * time.Millisecond)
	blind := looked
	blind.By = p2pnode.By{}
	for name, reports := range map[string][]p2pnode.Report{
		"after its act":              {own, looked},
		"before its end":             {looked, ownEnd},
		"by one who knows of no act": {own, blind},
	} {
		i := Fold(reports, names)[0]
		if i.By.Agent != "a-1" || i.Hops != 1 || !slices.Equal(i.Trail, []string{"ash", "birch", "cedar"}) || !i.RecoveredAt.Equal(looked.RecoveredAt) {
			t.Errorf("%s: by %+v, hops %d, trail %v, recovered at %v", name, i.By, i.Hops, i.Trail, i.RecoveredAt)
		}
	}
}

func TestStates(t *testing.T) {
	held := func(phase p2pnode.Phase, h p2pnode.Held) p2pnode.Report {
		r := report(phase, 9, 5)
		r.Held = h
		return r
	}
	scheduled := report(p2pnode.PhaseActed, 1, 10) // acted, not back yet
	for _, c := range []struct {
		name    string
		reports []p2pnode.Report
		state   p2pnode.IncidentState
		held    p2pnode.Held
	}{
		{"seen", []p2pnode.Report{held(p2pnode.PhaseObserved, "")}, p2pnode.IncidentOpen, ""},
		{"maintenance", []p2pnode.Report{held(p2pnode.PhaseRefused, p2pnode.HeldMaintenance)}, p2pnode.IncidentOpen, p2pnode.HeldMaintenance},
		{"observe", []p2pnode.Report{held(p2pnode.PhaseRefused, p2pnode.HeldObserve)}, p2pnode.IncidentObserved, p2pnode.HeldObserve},
		{"off", []p2pnode.Report{held(p2pnode.PhaseObserved, p2pnode.HeldOff)}, p2pnode.IncidentObserved, p2pnode.HeldOff},
		{"acting", []p2pnode.Report{scheduled}, p2pnode.IncidentActing, ""},
		{"acted", []p2pnode.Report{acted(1, 10)}, p2pnode.IncidentRecovered, ""},
		{"held, then acted", []p2pnode.Report{held(p2pnode.PhaseRefused, p2pnode.HeldBackoff), acted(1, 10)}, p2pnode.IncidentRecovered, ""},
		{"acted, then failed", []p2pnode.Report{acted(1, 10), report(p2pnode.PhaseFailed, 2, 20)}, p2pnode.IncidentFailed, ""},
		{"failed, then acted", []p2pnode.Report{report(p2pnode.PhaseFailed, 1, 10), acted(2, 20)}, p2pnode.IncidentRecovered, ""},
		{"failed, then verified", []p2pnode.Report{report(p2pnode.PhaseFailed, 1, 10), acted(2, 20), verified(3, 30)}, p2pnode.IncidentRecovered, ""},
	} {
		i := Fold(c.reports, names)[0]
		if i.State != c.state || i.Held != c.held {
			t.Errorf("%s: %s (%s), want %s (%s)", c.name, i.State, i.Held, c.state, c.held)
		}
	}
}

// The merge of reports is a union; so must be what is read from it.
func TestFoldIgnoresOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		phases := []p2pnode.Phase{p2pnode.PhaseObserved, p2pnode.PhaseRefused, p2pnode.PhaseActed, p2pnode.PhaseVerified, p2pnode.PhaseFailed}
		var reports []p2pnode.Report
		for n := range rapid.IntRange(1, 12).Draw(t, "reports") {
			phase := rapid.SampledFrom(phases).Draw(t, "phase")
			r := report(phase, uint64(n+1), rapid.IntRange(0, 20).Draw(t, "at"))
			if phase == p2pnode.PhaseActed {
				r = acted(uint64(n+1), rapid.IntRange(0, 20).Draw(t, "at"))
			}
			r.Origin = rapid.SampledFrom([]string{"A", "B"}).Draw(t, "origin")
			r.Incident = rapid.SampledFrom([]string{"i-1", "i-2"}).Draw(t, "incident")
			r.By.Node = r.Origin
			if rapid.Bool().Draw(t, "excerpt") {
				r.Excerpt = &p2pnode.Excerpt{Sealed: rapid.Bool().Draw(t, "sealed"), Lines: []string{r.Origin}}
			}
			reports = append(reports, r)
		}
		want := Fold(reports, names)
		shuffled := append([]p2pnode.Report(nil), reports...)
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if got := Fold(shuffled, names); !reflect.DeepEqual(got, want) {
			t.Fatalf("another order tells another story:\n%+v\n%+v", got, want)
		}
	})
}

func TestNewestFirst(t *testing.T) {
	a, b := acted(1, 10), acted(2, 10)
	b.Incident, b.DetectedAt = "i-2", t0.Add(time.Second)
	got := Fold([]p2pnode.Report{a, b}, names)
	if len(got) != 2 || got[0].ID != "i-2" {
		t.Errorf("%+v", got)
	}
}

func TestEventsGap(t *testing.T) {
	e := NewEvents()
	if list, _ := e.After(0); len(list) != 0 {
		t.Errorf("an empty memory remembers %v", list)
	}
	_, more := e.After(0)
	for n := range maxEvents + 10 {
		e.Add(t0, "ash", "test", n)
	}
	select {
	case <-more:
	default:
		t.Error("a reader is not woken")
	}
	list, _ := e.After(5)
	if list[0].Event != "gap" || string(list[0].Fields) != `{"lost":1019}` {
		t.Errorf("first is %+v %s", list[0], list[0].Fields)
	}
	for i := 1; i < len(list); i++ {
		if list[i].Seq != list[i-1].Seq+1 {
			t.Fatalf("%d after %d", list[i].Seq, list[i-1].Seq)
		}
	}
	if last := list[len(list)-1].Seq; last != maxEvents+10 {
		t.Errorf("last is %d", last)
	}
	if list, _ := e.After(maxEvents + 10); len(list) != 0 {
		t.Errorf("%d events after the last", len(list))
	}
	if list, _ := e.After(1 << 40); len(list) == 0 || list[0].Event != "gap" {
		t.Error("a number of another life is not told of a gap")
	}
}
