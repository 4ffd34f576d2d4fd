package agent

import (
	"testing"
	"time"

	"p2pnode"

	"github.com/libp2p/go-libp2p/core/peer"
)

// whereabouts is what people are told of one agent, or of the only one with a mission.
func whereabouts(t *testing.T, c *core, kind string) Info {
	t.Helper()
	for _, i := range c.agentsNow() {
		if i.Kind == kind {
			return i
		}
	}
	t.Fatalf("no %s among %+v", kind, c.agentsNow())
	return Info{}
}

// At every step of a mission people are told what the agent does, since when and for
// whom, also by nodes far away, which know it from stamps.
func TestWhyOfAMission(t *testing.T) {
	f := newFleet(t, 1, 8, 2) // a ring
	f.run(time.Second)
	target, far := f.nodes[f.ids[4]], f.nodes[f.ids[0]]
	told := map[Doing]Info{}
	f.answer = func(r p2pnode.RecoverRequest) (p2pnode.RecoverAnswer, error) {
		told[DoingAsk] = whereabouts(t, f.carrier(), kindMission)
		return f.exec(target, f.carrier().self, r), nil
	}
	f.word = func(n *simNode) DoorWord {
		if c := f.carrier(); c != nil && f.asked == 0 {
			told[DoingDoor] = whereabouts(t, c, kindMission)
		}
		return DoorWord{ExecAlive: true, NodeAlive: n.core != nil, NodeLife: n.life}
	}
	killed := f.now
	f.kill(target)
	for f.now.Before(killed.Add(3 * time.Second)) {
		f.run(5 * time.Millisecond)
		for _, i := range far.core.agentsNow() {
			if _, known := told[i.Doing]; !known && i.Kind == kindMission {
				told[i.Doing] = i
			}
		}
		if fs := far.core.failuresNow(); len(fs) > 0 && told[DoingSettle].ID != "" && f.asked > 0 && fs[0].Wait != WaitClaim && fs[0].Wait != WaitRest {
			t.Fatalf("a failure that an agent has in hand is told as %+v", fs[0])
		}
	}
	for _, d := range []Doing{DoingDoor, DoingAsk, DoingSettle} {
		i, ok := told[d]
		if !ok {
			t.Errorf("nobody was told that an agent is %s: %+v", d, told)
			continue
		}
		if i.Doing != d || i.Target != target.id || i.Incident == "" || i.Service != "" || i.Does.Before(killed) {
			t.Errorf("%s is told as %+v", d, i)
		}
	}
}

// carrier is the core on which an agent with a mission is.
func (f *fleet) carrier() *core {
	for _, id := range f.ids {
		if c := f.nodes[id].core; c != nil {
			for _, h := range c.held {
				if h.mission != nil {
					return c
				}
			}
		}
	}
	return nil
}

// A patrol says where it goes, and for how long nobody has been there.
func TestWhyOfAPatrol(t *testing.T) {
	f := newFleet(t, 2, 6, 2)
	f.launch(10*time.Second, 0.5)
	f.run(5 * time.Second)
	far, heading := f.nodes[f.ids[0]].core, 0
	for range 200 {
		f.run(50 * time.Millisecond)
		i := whereabouts(t, far, kindPatrol)
		if i.Doing != DoingVisit || i.Order != "o-1" || i.Does.IsZero() {
			t.Fatalf("a patrol is told as %+v", i)
		}
		if i.Next != "" && i.Next != i.At {
			heading++
			if i.Unseen <= 0 || i.Unseen > 10*time.Second {
				t.Fatalf("it goes to a node that was unseen for %s", i.Unseen)
			}
		}
	}
	if heading == 0 {
		t.Error("nobody was told where it goes")
	}
}

// Why nobody goes: the claim of another, a refusal just now, a host out of reach, the brake.
func TestWhyNobodyGoes(t *testing.T) {
	f := square(t)
	c, _ := onMission(t, f)
	why := func(want Wait) Failure {
		t.Helper()
		got := c.failuresNow()
		if len(got) == 0 || got[0].Wait != want {
			t.Fatalf("failures are told as %+v, want first one that is %s", got, want)
		}
		return got[0]
	}
	w := c.watches[why(WaitClaim).Incident] // this node's own agent went
	cl := claim{failure: w.failure, attempt: 1, agent: "a-other", phase: phaseAct, lease: time.Second}
	c.onClaim(f.ids[1], cl)
	if got := why(WaitClaim); got.Agent != "a-other" || got.Attempt != 1 || got.Phase != string(phaseAct) || !got.Until.Equal(c.now.Add(time.Second)) {
		t.Errorf("a claim is told as %+v", got)
	}
	cl.phase = phaseReleased
	c.onClaim(f.ids[1], cl)
	if got := why(WaitRest); !got.Until.After(c.now) {
		t.Errorf("a rest is told as %+v", got)
	}
	c.Step(f.now.Add(time.Hour), evBeliefs{Beliefs{Peers: map[peer.ID]Belief{f.ids[2]: {Verdict: p2pnode.Unreachable, Life: f.nodes[f.ids[2]].life, Since: f.now}}}})
	c.Step(f.now.Add(time.Hour+time.Minute), evTick{})
	if got := why(WaitUnreachable); got.Incident == "" || got.Node != f.ids[2] {
		t.Errorf("a host out of reach is told as %+v", got)
	}
	b := c.beliefs
	b.Brake.On = true
	c.Step(f.now.Add(time.Hour+time.Minute), evBeliefs{b})
	why(WaitBrake)
}

// A stamp never grows over its limit, whatever names agents bring along.
func TestStampsAlwaysFit(t *testing.T) {
	long := string(make([]byte, maxID))
	s := stamp{at: goldenNow}
	for range maxPresent {
		s.agents = append(s.agents, present{id: long, kind: kindMission, order: long, incident: long, next: testID(1), why: why{doing: Doing(long), target: testID(2), service: long, since: goldenNow}})
	}
	raw, err := encodeStamp(goldenNow, s)
	if err != nil || len(raw) > maxStampBytes {
		t.Fatalf("%d bytes: %v", len(raw), err)
	}
	got, err := decodeStamp(goldenNow, raw)
	if err != nil || len(got.agents) < maxPresent/3 {
		t.Errorf("%d agents are left: %v", len(got.agents), err)
	}
}
