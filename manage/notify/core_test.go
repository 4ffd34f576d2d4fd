package notify

import (
	"slices"
	"testing"
	"time"

	"p2pnode"
)

var t0 = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return t0.Add(time.Duration(seconds * float64(time.Second))) }

// failure is the n-th one of web on C, s seconds after t0, back after 5 ms.
func failure(n int, s float64, state p2pnode.IncidentState) p2pnode.Incident {
	i := p2pnode.Incident{
		ID: "i-" + string(rune('0'+n)), Kind: p2pnode.KindService, Node: "cedar", NodeID: "C", Service: "web", Class: p2pnode.ClassExited,
		State: state, DetectedAt: at(s), OldIncarnation: string(rune('0' + n)),
	}
	if state == p2pnode.IncidentRecovered || state == p2pnode.IncidentFailed {
		i.RecoveredAt, i.NewIncarnation = at(s).Add(5*time.Millisecond), string(rune('1'+n))
	}
	return i
}

func verified(i p2pnode.Incident) p2pnode.Incident {
	i.VerifiedAt = i.RecoveredAt.Add(3 * time.Second)
	return i
}

func events(notices []Notice) (out []Event) {
	for _, n := range notices {
		out = append(out, n.Event)
	}
	return out
}

func TestOneStory(t *testing.T) {
	const open, back, bad = p2pnode.IncidentOpen, p2pnode.IncidentRecovered, p2pnode.IncidentFailed
	held := func(h p2pnode.Held) p2pnode.Incident {
		i := failure(1, 0, open)
		i.Held = h
		return i
	}
	type step struct {
		now  float64
		i    p2pnode.Incident
		want []Event
	}
	for name, steps := range map[string][]step{
		"repaired": {
			{0, failure(1, 0, open), []Event{Opened}},
			{0.1, failure(1, 0, back), nil}, // acted is not yet well
			{3, verified(failure(1, 0, back)), []Event{Recovered}},
			{3.1, verified(failure(1, 0, back)), nil},
		},
		"heard of when it is over": {{3, verified(failure(1, 0, back)), []Event{Opened, Recovered}}},
		"history is no news":       {{1000, verified(failure(1, 0, back)), nil}},
		"given up":                 {{0, failure(1, 0, bad), []Event{Opened, Failed}}},
		"a row is one story": {
			{0, failure(1, 0, back), []Event{Opened}},
			{2, failure(1, 0, bad), []Event{Failed}},
			{2, failure(2, 2, back), nil},
			{3, failure(2, 2, bad), nil},
			{6, verified(failure(3, 3, back)), []Event{Recovered}},
			{8, failure(3, 3, bad), nil}, // said a moment ago
		},
		"another time is another story": {
			{3, verified(failure(1, 0, back)), []Event{Opened, Recovered}},
			{30, failure(2, 30, back), []Event{Opened}},
		},
		"maintenance is what somebody wants": {
			{0, held(p2pnode.HeldMaintenance), nil},
			{1, held(""), []Event{Opened}},
		},
		"observe is told": {{0, held(p2pnode.HeldObserve), []Event{Opened}}},
	} {
		c := newCore("ash")
		for k, s := range steps {
			if got := events(c.incident(at(s.now), s.i)); !slices.Equal(got, s.want) {
				t.Errorf("%s, step %d: %v, want %v", name, k, got, s.want)
			}
		}
	}
}

// What was too soon to say is said later, if it still holds.
func TestLaterWord(t *testing.T) {
	c := newCore("ash")
	c.incident(at(0), failure(1, 0, p2pnode.IncidentFailed))              // opened, failed
	c.incident(at(5), verified(failure(2, 1, p2pnode.IncidentRecovered))) // recovered
	if got := c.incident(at(9), failure(3, 8, p2pnode.IncidentFailed)); got != nil {
		t.Errorf("said too soon: %v", events(got))
	}
	if got := events(c.tick(at(30))); got != nil {
		t.Errorf("at 30 s: %v", got)
	}
	if got := events(c.tick(at(61))); !slices.Equal(got, []Event{Failed}) {
		t.Errorf("at 61 s: %v", got)
	}
	if got := events(c.tick(at(130))); got != nil {
		t.Errorf("said twice: %v", got)
	}
}

func TestThingsAreBounded(t *testing.T) {
	c := newCore("ash")
	for n := range maxThings + 10 {
		i := failure(1, 0, p2pnode.IncidentOpen)
		i.Service = string(rune(0x4e00 + n))
		c.incident(at(float64(n)/1000), i)
	}
	if len(c.things) > maxThings {
		t.Errorf("%d things", len(c.things))
	}
	c.tick(at(3600))
	if len(c.things) != maxThings {
		t.Errorf("%d stories that go on are remembered", len(c.things))
	}
	c.tick(at(8 * 24 * 3600))
	if len(c.things) != 0 {
		t.Errorf("%d stories of a week ago are followed", len(c.things))
	}
}

func TestWhyNobodyActs(t *testing.T) {
	for held, want := range map[p2pnode.Held]string{
		"": "web on cedar failed: exited", p2pnode.HeldBackoff: "web on cedar failed: exited", p2pnode.HeldOff: "web on cedar failed: exited; nobody acts: off",
	} {
		i := failure(1, 0, p2pnode.IncidentOpen)
		i.Held = held
		if got := newCore("ash").incident(t0, i); len(got) != 1 || got[0].Text != want {
			t.Errorf("%q: %+v", held, got)
		}
	}
}

func TestHostAndBrake(t *testing.T) {
	c := newCore("ash")
	if c.host(t0, nil) != nil {
		t.Error("a well host is news")
	}
	got := c.host(t0, []string{"disk: full"})
	if len(got) != 1 || got[0].Text != "ash is degraded: disk: full" || c.host(t0, []string{"disk: full"}) != nil {
		t.Errorf("%+v", got)
	}
	if got := c.host(t0, nil); len(got) != 1 || got[0].Text != "ash is no longer degraded" {
		t.Errorf("%+v", got)
	}
	if n := c.brake(t0, p2pnode.BrakeState{On: true, Unreachable: 2, Of: 5}); n.Event != Brake || !n.Brake.On || n.Schema != "p2pnode/notice/v1" || n.Node != "ash" {
		t.Errorf("%+v", n)
	}
}
