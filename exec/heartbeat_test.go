package exec

import (
	"testing"
	"time"

	"p2pnode"
)

// A heartbeat that changes nothing is kept for the policy's next question and told once;
// another word, another connection, or a node process that is not well is told at once.
func TestOnlyARepeatedHeartbeatWaits(t *testing.T) {
	one, two := &session{}, &session{}
	h := NodeHealth{Life: p2pnode.NewLife(1), Links: 1, Orders: 1, PeerID: "self"}
	fewer := h
	fewer.Links = 0
	var b heartbeats
	b.told(one, h)
	if b.again(one, h) {
		t.Error("it waits before the policy has called the node process well")
	}
	b.nodeIs(true)
	if b.again(two, h) || b.again(one, fewer) {
		t.Error("news waits")
	}
	if _, ok := b.tell(); ok {
		t.Error("one is told that nobody said")
	}
	before := time.Now()
	if !b.again(one, h) {
		t.Fatal("one that says the same is told at once")
	}
	ev, ok := b.tell()
	if !ok || !ev.connected || ev.life != h.Life || ev.links != 1 || ev.orders != 1 || ev.at.Before(before) || ev.at.After(time.Now()) {
		t.Errorf("told %v: %+v", ok, ev)
	}
	if _, ok := b.tell(); ok {
		t.Error("it is told twice")
	}
	b.again(one, h)
	if b.told(one, fewer); b.untold != (time.Time{}) {
		t.Error("what was said before is told after what was said later")
	}
	if b.nodeIs(false); b.again(one, fewer) {
		t.Error("it waits while the node process is not well")
	}
}

// The node process is hung by when it spoke, not by when the policy heard of it.
func TestAHeartbeatCountsFromWhenItWasSaid(t *testing.T) {
	w := newWorld(t, p2pnode.ServiceSpec{Name: p2pnode.SelfNode, Command: []string{"node"}, Ready: p2pnode.ReadyNotify, Watchdog: nodeSilence, StopGrace: time.Minute})
	said := evNode{connected: true, life: p2pnode.NewLife(1), links: 1, orders: 1}
	w.do(said)
	if !w.p.nodeWell() {
		t.Fatal("it is not well")
	}
	w.pass(nodeSilence - time.Second)
	said.at = w.now.Add(-3 * time.Second)
	w.do(said)
	starts := len(w.starts[p2pnode.SelfNode])
	w.pass(nodeSilence - 3*time.Second - time.Millisecond)
	if len(w.starts[p2pnode.SelfNode]) != starts || !w.p.nodeWell() {
		t.Fatal("hung before its silence was over")
	}
	w.pass(time.Second)
	if ev := w.last(p2pnode.SelfNode, p2pnode.FactFailed); ev.Class != p2pnode.ClassHung || w.p.nodeWell() {
		t.Errorf("silent for %v and %+v", nodeSilence, ev)
	}
}

// One that says the same each second lives, though the loop does not hear of it; one that
// falls silent with its connection open is replaced.
func TestASilentNodeProcessIsReplaced(t *testing.T) {
	h := newHost(t, daemonConfig{NodePart: "falls-silent"})
	was := h.await(p2pnode.SelfNode, p2pnode.StateUp)
	began := was.Since
	events, err := h.c.Events(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for speaks := time.After(nodeSilence + nodeSilence/5); speaks != nil; {
		select {
		case ev := <-events:
			if ev.Service == p2pnode.SelfNode && ev.Event == p2pnode.FactFailed {
				t.Fatalf("it spoke each second: %+v", ev)
			}
		case <-speaks:
			speaks = nil
		}
	}
	for now := was; now.PID == was.PID; now = h.status(p2pnode.SelfNode) {
		if time.Since(began) > speaksFor+2*nodeSilence {
			t.Fatalf("still there %v after its last word", time.Since(began)-speaksFor)
		}
		time.Sleep(100 * time.Millisecond)
	}
	if silent := time.Since(began) - speaksFor; silent < nodeSilence-2*time.Second {
		t.Errorf("replaced %v after its last word", silent)
	}
	h.awaitNew(p2pnode.SelfNode, was.PID)
}
