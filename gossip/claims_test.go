package gossip

import (
	"slices"
	"testing"
	"time"

	"p2pnode"
)

// Who has a peer on a live link says so against those who call it silent, and takes
// it back with the first heartbeat that is late.
func TestLiveLinkContradicts(t *testing.T) {
	b := newBench()
	x := b.ids[0]
	b.do(evLink{peer: x, up: true})
	b.did = nil
	b.do(evClaim{witness: b.ids[1], subject: x, kind: kindSilent, life: b.life, expires: b.now.Add(claimTTL)})
	if !slices.Contains(b.did, effect(effPublish{x, kindHeard, b.life})) {
		t.Fatalf("nobody contradicts: %v", b.did)
	}
	b.did = nil
	b.do(evMissed{x, 1})
	if !slices.Contains(b.did, effect(effPublish{x, kindFine, b.life})) {
		t.Fatalf("still contradicts with a late heartbeat: %v", b.did)
	}
}

// Who has no link with a peer but hears it since others called it silent says so too,
// once is enough in a fleet, and takes it back when probes have no answer.
func TestAnAnsweredProbeContradicts(t *testing.T) {
	said := func(b *bench, k kind) bool { return slices.Contains(b.did, effect(effPublish{b.ids[0], k, b.life})) }
	accuse := func(b *bench, witness int, k kind) {
		b.did = nil
		b.do(evClaim{witness: b.ids[witness], subject: b.ids[0], kind: k, life: b.life, expires: b.now.Add(claimTTL)})
		b.after(tickEvery)
	}
	b := newBench()
	b.do(evHeard{b.ids[0]})
	accuse(b, 1, kindSilent)
	if said(b, kindHeard) {
		t.Fatal("an older sign of life speaks against a newer silence")
	}
	b.do(evHeard{b.ids[0]})
	if !said(b, kindHeard) {
		t.Fatalf("an answer since then does not: %v", b.did)
	}
	accuse(b, 2, kindSilent)
	if said(b, kindFine) {
		t.Error("taken back because somebody else accuses, too")
	}
	b.did = nil
	b.do(evBurst{peer: b.ids[0]})
	if !said(b, kindSilent) {
		t.Errorf("probes had no answer, and it still speaks for it: %v", b.did)
	}

	b = newBench()
	accuse(b, 1, kindSilent)
	accuse(b, 2, kindHeard)
	b.do(evHeard{b.ids[0]})
	if said(b, kindHeard) {
		t.Error("said again what another member has said")
	}
}

// What this node claims at first hand it repeats while it holds and takes back.
func TestClaimsAreTakenBack(t *testing.T) {
	b := newBench()
	x := b.ids[0]
	said := func(k kind) bool {
		return slices.ContainsFunc(b.did, func(e effect) bool { p, ok := e.(effPublish); return ok && p.subject == x && p.kind == k })
	}
	b.do(evLink{peer: x, up: true})
	b.do(evLink{peer: x, lost: true})
	b.do(evKnock{peer: x, word: DoorWord{ExecAlive: true, NodeLife: b.life}})
	if !said(kindProcessDead) {
		t.Fatalf("the door's word was kept to ourselves: %v", b.did)
	}
	b.did = nil
	b.certify(p2pnode.Life{Boot: 9, Nonce: 9}, false)
	if !said(kindFine) {
		t.Fatalf("the claim was not taken back: %v", b.did)
	}
	b.did = nil
	b.after(time.Minute)
	if said(kindFine) || said(kindProcessDead) {
		t.Fatalf("still talking: %v", b.did)
	}
}
