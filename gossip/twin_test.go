package gossip

import (
	"net/netip"
	"testing"
	"time"

	"p2pnode"
)

// Two processes with one key: whatever else is known of the subject, nobody may take
// a verdict about the one for the other. It lapses a minute after the last proof.
func TestNobodyActsOnATwin(t *testing.T) {
	b := newBench()
	s := b.peers[b.ids[0]]
	s.Twice = b.now
	b.do(evLink{peer: b.ids[0], up: true})
	b.want(t, p2pnode.DuplicateIdentity)
	b.do(evDeath{peer: b.ids[0], life: b.life})
	b.do(evKnock{peer: b.ids[0], word: DoorWord{ExecAlive: true, NodeLife: b.life}})
	b.want(t, p2pnode.DuplicateIdentity)
	if p2pnode.DuplicateIdentity.Actionable() || p2pnode.IdentityChanged.Actionable() {
		t.Error("agents would act")
	}
	b.after(twiceLasts + time.Second)
	if got := b.verdict(); got == p2pnode.DuplicateIdentity {
		t.Error("it is still held against it")
	}
}

// A host came back without its data folder: another key is proved where the subject
// proved its own. What was unreachable is then known to be replaced, and no longer
// in the share that sets the brake; an address that is only claimed says nothing.
func TestAnotherIdentityAtTheSameAddress(t *testing.T) {
	b := newBench()
	dead, fresh := b.peers[b.ids[0]], b.peers[b.ids[1]]
	b.do(evLink{peer: b.ids[0], up: true})
	dead.Proven = netip.MustParseAddrPort("10.0.0.1:7744")
	b.now = b.now.Add(time.Second)
	b.do(evLink{peer: b.ids[0], lost: true})
	fresh.first = b.now
	b.do(evLink{peer: b.ids[1], up: true})
	b.do(evBurst{peer: b.ids[0]})
	if got := b.verdict(); got == p2pnode.IdentityChanged {
		t.Fatal("a claimed address was believed")
	}
	fresh.Proven = dead.Proven
	b.after(time.Second)
	b.want(t, p2pnode.IdentityChanged)
	b.do(evLink{peer: b.ids[0], up: true})
	b.after(time.Second)
	b.want(t, p2pnode.Alive)
}
