package agent

import (
	"errors"
	"testing"
	"time"

	"p2pnode"
)

// square is four nodes 0-1-2, 0-3-2: two ways from 0 to 2.
func square(t *testing.T) *fleet {
	f := newFleet(t, 1, 4, 2)
	f.run(50 * time.Millisecond)
	return f
}

func dead(f *fleet, i int) evBeliefs {
	b := Beliefs{Peers: map[peerID]Belief{}}
	for j, id := range f.ids {
		b.Peers[id] = Belief{Verdict: p2pnode.Alive, Life: f.nodes[id].life}
		if j == i {
			b.Peers[id] = Belief{Verdict: p2pnode.ProcessDead, Life: f.nodes[id].life}
		}
	}
	return evBeliefs{b}
}

// onMission puts an agent on node 0 that is about to leave for a neighbour of 2.
func onMission(t *testing.T, f *fleet) (*core, fxHand) {
	t.Helper()
	c := f.nodes[f.ids[0]].core
	c.now = f.now
	c.takeOrder(Order{ID: "o-1", SLO: time.Minute, Confidence: 0.5, At: f.now})
	c.spawn("o-1", patrolTTL, time.Minute)
	f.nodes[f.ids[2]].core = nil
	go1, ok := find[fxHand](c.Step(f.now, dead(f, 2)))
	if !ok {
		t.Fatal("nobody leaves")
	}
	return c, go1
}

func TestHandoffSecondChoiceThenStay(t *testing.T) {
	f := square(t)
	c, first := onMission(t, f)
	second, ok := find[fxHand](c.Step(f.now.Add(first.wait), evHanded{first.agent, first.token, errors.New("cut")}))
	if !ok || second.to == first.to {
		t.Fatalf("no second choice: %+v after %+v", second, first)
	}
	if total := first.wait + second.wait; total > time.Second {
		t.Errorf("both tries take %s, want less than a second", total)
	}
	now := f.now.Add(first.wait + second.wait)
	if again, ok := find[fxHand](c.Step(now, evHanded{second.agent, second.token, errors.New("cut")})); ok {
		t.Fatalf("goes on at once: %+v", again)
	}
	if c.held[first.agent] == nil {
		t.Fatal("lost between two failures")
	}
	if _, ok := find[fxHand](c.Step(now.Add(handoffRetry), evTick{})); !ok {
		t.Error("does not try again with fresh routes")
	}
}

func TestAfterTheAckNothingIsLeft(t *testing.T) {
	f := square(t)
	c, first := onMission(t, f)
	c.Step(f.now.Add(time.Millisecond), evHanded{first.agent, first.token, nil})
	if len(c.held) != 0 {
		t.Fatalf("still holds %+v", c.held)
	}
	for at := f.now; at.Before(f.now.Add(claimLease - 10*time.Millisecond)); at = at.Add(10 * time.Millisecond) {
		for _, fx := range c.Step(at, evTick{}) {
			switch fx.(type) {
			case fxKnock, fxRecover, fxHand:
				t.Fatalf("acts after the ACK: %+v", fx)
			}
		}
	}
}

func TestHandoffIsTakenOnce(t *testing.T) {
	f := square(t)
	_, first := onMission(t, f)
	to := f.nodes[first.to].core
	for i := range 2 {
		tr, err := decodeTraveller(f.now, first.req)
		if err != nil {
			t.Fatal(err)
		}
		fx := to.Step(f.now, evArrive{tr, f.ids[0], uint64(i)})
		if r, ok := find[fxReply](fx); !ok || decodeAck(r.ack) != nil {
			t.Fatalf("time %d: no ACK", i)
		}
		if _, knocks := find[fxKnock](fx); knocks != (i == 0) {
			t.Errorf("time %d: knocks %v", i, knocks)
		}
	}
	delete(to.held, first.agent) // it has moved on; a late copy comes
	tr, err := decodeTraveller(f.now, first.req)
	if err != nil {
		t.Fatal(err)
	}
	if to.Step(f.now, evArrive{tr, f.ids[0], 9}); to.held[first.agent] != nil {
		t.Error("a late copy was taken in")
	}
}

func TestLapseOpensTheNextAttempt(t *testing.T) {
	f := square(t)
	c, first := onMission(t, f)
	c.Step(f.now, evHanded{first.agent, first.token, nil})
	w := c.watches[p2pnode.IncidentID(f.ids[2].String(), "", f.nodes[f.ids[2]].life.String())]
	if w == nil || w.best == nil || w.attempt != 0 {
		t.Fatalf("watch %+v", w)
	}
	c.Step(f.now.Add(claimLease-time.Millisecond), evTick{})
	if w.attempt != 0 {
		t.Error("lapsed early")
	}
	c.Step(f.now.Add(claimLease+time.Millisecond), evTick{})
	if w.attempt != 1 {
		t.Error("did not lapse")
	}
}

func TestOfTwoClaimsTheLowerHashGoesOn(t *testing.T) {
	f := square(t)
	c, first := onMission(t, f)
	c.Step(f.now, evHanded{first.agent, first.token, errors.New("x")})
	h := c.held[first.agent]
	h.doing = thinking
	lower, higher := "", ""
	for i := 0; lower == "" || higher == ""; i++ {
		id := string(rune('a'+i%26)) + string(rune('a'+i/26))
		if hash(id, h.mission.incident) < hash(h.id, h.mission.incident) {
			lower = id
		} else {
			higher = id
		}
	}
	rival := h.claim()
	rival.agent = higher
	c.onClaim(f.ids[1], rival)
	if h.mission == nil {
		t.Fatal("gave way to the higher hash")
	}
	rival.agent = lower
	c.onClaim(f.ids[1], rival)
	if h.mission != nil {
		t.Error("did not give way to the lower hash")
	}
}

// TestForgedRecordsChangeNothing: a stamp or claim that does not decode is
// counted and forgotten.
func TestForgedRecordsChangeNothing(t *testing.T) {
	f := square(t)
	c := f.nodes[f.ids[0]].core
	cl, err := encodeClaim(goldenClaim())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []p2pnode.Record{
		{Domain: p2pnode.DomainStamp, Signer: f.ids[1], Body: []byte("x")},
		{Domain: p2pnode.DomainClaim, Signer: f.ids[1], Key: "i-other", Body: cl},
		{Domain: p2pnode.DomainOrder, Signer: f.ids[1], Key: "o", Body: make([]byte, maxOrderBytes+1)},
	} {
		if n, ok := find[fxCount](c.Step(f.now, evRecord{r})); !ok {
			t.Errorf("%s: not counted (%v)", r.Domain, n)
		}
	}
	if len(c.watches)+len(c.orders) != 0 {
		t.Error("something was believed")
	}
}

// Tables that lag behind each other each show the way through the other: an agent
// that came from there is not handed back, a hop a millisecond, until its hops are
// used up.
func TestNoCircles(t *testing.T) {
	f := square(t)
	id := f.ids
	m := &mission{failure: failureOf(id[2], p2pnode.SelfExec, "1-1", p2pnode.ClassExecDead)}
	for _, c := range []struct {
		trail, avoid []peerID
		want         bool
	}{
		{[]peerID{id[0]}, nil, false},
		{[]peerID{id[0], id[1]}, nil, true},
		{[]peerID{id[0], id[1], id[0]}, []peerID{id[2]}, false}, // it found no way once
		{[]peerID{id[1], id[0], id[1], id[0]}, []peerID{id[2]}, true},
	} {
		m.trail, m.avoid = c.trail, c.avoid
		if got := m.circling(id[1]); got != c.want {
			t.Errorf("after %d nodes and %d failures: %v", len(c.trail), len(c.avoid), got)
		}
	}
	if (*mission)(nil).circling(id[1]) {
		t.Error("a patrol may come by again")
	}
	// Node 0 has the agent from 1 and from 3, its only ways on.
	c := f.nodes[id[0]].core
	c.now = f.now
	m.trail, m.avoid = []peerID{id[1], id[3], id[0]}, nil
	h := &here{traveller: &traveller{id: "a-1", hopsLeft: missionHops, expires: f.now.Add(missionTTL), mission: m}, doing: thinking, wake: f.now}
	c.held[h.id] = h
	for _, fx := range c.Step(f.now, evTick{}) {
		if hand, ok := fx.(fxHand); ok {
			t.Fatalf("handed back: %+v", hand)
		}
	}
}

// The neighbour at whose door the work was to be done died while the agent was on
// its way to it. It turns round for the other one, and does not dial from afar.
func TestTurnsFromAnEndThatDied(t *testing.T) {
	f := newFleet(t, 1, 6, 2) // a ring: 3 has the neighbours 2 and 4
	f.run(50 * time.Millisecond)
	id := f.ids
	c := f.nodes[id[5]].core
	c.now = f.now
	b := dead(f, 3)
	b.Peers[id[4]] = Belief{Verdict: p2pnode.ProcessDead, Life: f.nodes[id[4]].life}
	f.nodes[id[3]].core, f.nodes[id[4]].core = nil, nil
	c.Step(f.now, b)
	m := &mission{failure: failureOf(id[3], "", "1-1", p2pnode.ClassProcessDead), trail: []peerID{id[0], id[5]}}
	h := &here{traveller: &traveller{id: "a-1", hopsLeft: missionHops, expires: f.now.Add(missionTTL), mission: m}, doing: thinking, wake: f.now}
	c.held[h.id] = h
	fxs := c.Step(f.now, evTick{})
	for _, fx := range fxs {
		if hand, ok := fx.(fxHand); ok && hand.agent == h.id {
			if hand.to != id[0] {
				t.Errorf("went on to %s", hand.to)
			}
			return
		}
	}
	t.Fatalf("did not turn round: %+v", fxs)
}

// A host was started again by others: the next life is there before an agent has
// acted. Nobody in there knows that anything failed, so the agent tells it.
func TestWhatCameBackByItselfIsTold(t *testing.T) {
	f := square(t)
	target := f.ids[2]
	c := f.nodes[f.ids[1]].core
	c.now = f.now
	old, next := p2pnode.Life{Boot: 1, Nonce: 1}, p2pnode.Life{Boot: 2, Nonce: 2}
	m := &mission{failure: failureOf(target, "", old.String(), p2pnode.ClassProcessDead), trail: []peerID{f.ids[1]}, knownAt: f.now, claimedAt: f.now}
	h := &here{traveller: &traveller{id: "a-1", hopsLeft: missionHops, expires: f.now.Add(missionTTL), mission: m}, doing: thinking, wake: f.now}
	c.held[h.id] = h
	knock, ok := find[fxKnock](c.Step(f.now, evTick{}))
	if !ok {
		t.Fatal("no knock")
	}
	word := DoorWord{ExecAlive: true, NodeAlive: true, NodeLife: next}
	ask, ok := find[fxRecover](c.Step(f.now, evDoor{knock.agent, knock.token, word, nil}))
	if !ok {
		t.Fatal("its exec is not asked who made the next life")
	}
	unknown := p2pnode.RecoverAnswer{Outcome: p2pnode.OutcomeRefused, Reason: p2pnode.RefusedStale}
	c.Step(f.now, evRecovered{agent: ask.agent, incident: ask.incident, token: ask.token, answer: unknown})
	f.now = f.now.Add(orphanSettle * c.cfg.Settle)
	knock, ok = find[fxKnock](c.Step(f.now, evTick{}))
	if !ok {
		t.Fatal("not looked at again once it had settled")
	}
	told, ok := find[fxOrphan](c.Step(f.now, evDoor{knock.agent, knock.token, word, nil}))
	r := told.report
	if !ok || r.Phase != p2pnode.PhaseVerified || r.New != next.String() || r.By != (p2pnode.By{}) || r.DetectedAt.IsZero() || r.Action != "" {
		t.Errorf("told: %v %+v", ok, r)
	}
}

// The end of an old story waits until its host can be reached: nobody is sent to a
// member that is unreachable.
func TestNobodyGoesToTheUnreachable(t *testing.T) {
	for verdict, want := range map[p2pnode.Verdict]bool{p2pnode.Unreachable: false, p2pnode.Doubtful: true} {
		f := square(t)
		c := f.nodes[f.ids[0]].core
		b := dead(f, 2)
		b.Peers[f.ids[2]] = Belief{Verdict: verdict, Life: p2pnode.Life{Boot: 9, Nonce: 9}}
		c.Step(f.now, b)
		w := c.watchOf(failureOf(f.ids[2], "", "1-1", p2pnode.ClassProcessDead))
		w.verifyOnly = true
		went := false
		for at := f.now; at.Before(f.now.Add(2 * time.Second)); at = at.Add(50 * time.Millisecond) {
			_, claimed := find[fxHistory](c.Step(at, evTick{}))
			went = went || claimed
		}
		if went != want {
			t.Errorf("%s: went %v", verdict, went)
		}
	}
}
