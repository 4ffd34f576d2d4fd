package records

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"p2pnode"
	"p2pnode/overlay/records/recordspb"
)

var epoch = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

func key(n int) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(fmt.Appendf(nil, "%032d", n))
}

func id(n int) peer.ID { return p2pnode.PeerID(key(n).Public().(ed25519.PublicKey)) }

// members are nodes 0 to 9; deriving an ID costs as much as a signature.
var members = func() (out []peer.ID) {
	for n := range 10 {
		out = append(out, id(n))
	}
	return out
}()

// node makes the Core of node n in its first life: peers 0 to 9 are members, of
// them 0 and 1 managers.
func node(n int) *Core { return nodeAt(n, 1) }

func nodeAt(n int, boot uint64) *Core {
	member := func(p peer.ID) bool { return slices.Contains(members, p) }
	manager := func(p peer.ID) bool { return slices.Contains(members[:2], p) }
	c := New(Config{Self: id(n), Key: key(n), Boot: boot, Member: member, Manager: manager})
	c.Domain(Spec{Domain: p2pnode.DomainPeer, TTL: time.Minute, AntiEntropy: true, MaxKeys: 8})
	c.Domain(Spec{Domain: p2pnode.DomainClaim, TTL: 10 * time.Second, Urgent: true})
	c.Domain(Spec{Domain: p2pnode.DomainStamp, TTL: time.Minute, Urgent: true, Lean: true, AntiEntropy: true})
	c.Domain(Spec{Domain: p2pnode.DomainOrder, AntiEntropy: true, ManagersOnly: true})
	return c
}

// item is what node n would send for one record.
func item(n int, domain p2pnode.Domain, k string, seq, ttlMS uint64, body string) Item {
	payload, _ := proto.Marshal(&recordspb.Payload{Key: k, Seq: seq, TtlMs: ttlMS, Body: []byte(body)})
	return Item{Domain: domain, Envelope: p2pnode.Seal(signingDomain(domain), key(n), payload)}
}

func bodies(c *Core, now time.Time, d p2pnode.Domain) map[string]string {
	out := map[string]string{}
	for _, r := range c.Records(now, d) {
		out[p2pnode.ShortID(r.Signer)+"/"+r.Key] = fmt.Sprintf("%d %s", r.Seq, r.Body)
	}
	return out
}

func TestTake(t *testing.T) {
	c := node(0)
	ok := item(2, p2pnode.DomainPeer, "", 5, 0, "five")
	bent := Item{Domain: ok.Domain, Envelope: append(slices.Clone(ok.Envelope[:len(ok.Envelope)-1]), 'x')}
	elsewhere := Item{Domain: p2pnode.DomainClaim, Envelope: ok.Envelope}
	junk := Item{Domain: p2pnode.DomainPeer, Envelope: p2pnode.Seal(signingDomain(p2pnode.DomainPeer), key(2), []byte{0xff, 0xff})}
	steps := []struct {
		name    string
		item    Item
		verdict Verdict
		reason  string
	}{
		{"new", ok, Fresh, ""},
		{"again", ok, Stale, ""},
		{"older", item(2, p2pnode.DomainPeer, "", 4, 0, "four"), Stale, ""},
		{"newer", item(2, p2pnode.DomainPeer, "", 6, 0, "six"), Fresh, ""},
		{"another key", item(2, p2pnode.DomainPeer, "k", 1, 0, "k"), Fresh, ""},
		{"unknown domain", item(2, "novel", "", 1, 0, ""), Refused, ReasonDomain},
		{"stranger", item(11, p2pnode.DomainPeer, "", 1, 0, ""), Refused, ReasonStranger},
		{"bent", bent, Refused, ReasonForged},
		{"bent again costs no verification", bent, Stale, ""},
		{"signed as another kind", elsewhere, Refused, ReasonForged},
		{"no payload inside", junk, Refused, ReasonDamaged},
		{"empty", Item{Domain: p2pnode.DomainPeer}, Refused, ReasonForged},
		{"too long", Item{Domain: p2pnode.DomainPeer, Envelope: make([]byte, maxEnvelope+1)}, Refused, ReasonSize},
		{"long key", item(2, p2pnode.DomainPeer, strings.Repeat("k", MaxKey+1), 1, 0, ""), Refused, ReasonSize},
		{"order of a worker", item(2, p2pnode.DomainOrder, "", 1, 0, ""), Refused, ReasonManager},
		{"order of a manager", item(1, p2pnode.DomainOrder, "", 1, 0, ""), Fresh, ""},
	}
	for _, s := range steps {
		res := c.Take(epoch, s.item, id(3))
		if res.Verdict != s.verdict || res.Reason != s.reason {
			t.Errorf("%s: %+v", s.name, res)
		}
	}
	want := map[string]string{p2pnode.ShortID(id(2)) + "/": "6 six", p2pnode.ShortID(id(2)) + "/k": "1 k"}
	if got := bodies(c, epoch, p2pnode.DomainPeer); !maps.Equal(got, want) {
		t.Errorf("kept %v", got)
	}
	if n := c.Counters()[ReasonForged]; n != 3 {
		t.Errorf("forged counted %d", n)
	}
}

func TestStrangerIsTakenOnceAdmitted(t *testing.T) {
	admitted := false
	c := New(Config{Self: id(0), Key: key(0)})
	c.Domain(Spec{Domain: "x", Admit: func(r p2pnode.Record) error {
		if !admitted || string(r.Body) != "proof" {
			return errors.New("no")
		}
		return nil
	}})
	it := item(5, "x", "", 1, 0, "proof")
	if res := c.Take(epoch, it, ""); res.Reason != ReasonStranger {
		t.Fatalf("%+v", res)
	}
	admitted = true
	if res := c.Take(epoch, it, ""); res.Verdict != Fresh {
		t.Fatalf("a refusal that depends on others must not be remembered: %+v", res)
	}
}

// Whatever the order and however often: the same records stay, with the limit on
// keys in play.
func TestMergeIsOrderless(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var items []Item
		for range rapid.IntRange(1, 40).Draw(t, "n") {
			items = append(items, item(
				rapid.IntRange(2, 3).Draw(t, "signer"), p2pnode.DomainPeer,
				fmt.Sprint(rapid.IntRange(0, 11).Draw(t, "key")),
				uint64(rapid.IntRange(1, 30).Draw(t, "seq"))*100, 0, rapid.SampledFrom([]string{"a", "b"}).Draw(t, "body")))
		}
		// A signer's numbers rise with every publication: a number names one key.
		first := map[string]string{}
		items = slices.DeleteFunc(items, func(it Item) bool {
			e, _, _ := open(it)
			n := fmt.Sprint(e.signer, e.seq)
			if first[n] == "" {
				first[n] = "k" + e.key
			}
			return first[n] != "k"+e.key
		})
		a, b := node(0), node(1)
		for _, it := range items {
			a.Take(epoch, it, "")
		}
		shuffled := rapid.Permutation(append(slices.Clone(items), items...)).Draw(t, "order")
		for _, it := range shuffled {
			b.Take(epoch, it, "")
		}
		if x, y := bodies(a, epoch, p2pnode.DomainPeer), bodies(b, epoch, p2pnode.DomainPeer); !maps.Equal(x, y) {
			t.Fatalf("%v\n%v", x, y)
		}
		if !bytes.Equal(a.Digest(), b.Digest()) {
			t.Fatal("equal records, different digests")
		}
	})
}

func TestTimeOfReceiverCounts(t *testing.T) {
	a, b := node(0), node(1)
	b.Link(id(0))
	a.Link(id(1))
	if _, err := a.Publish(epoch, p2pnode.DomainPeer, "", []byte("x"), 20*time.Second); err != nil {
		t.Fatal(err)
	}
	later := epoch.Add(15 * time.Second)
	res, err := b.TakeBatch(later, a.Batch(later, id(1), true, MaxMessage), id(0))
	if err != nil || len(res) != 1 {
		t.Fatalf("%+v %v", res, err)
	}
	if got := res[0].Record.Expires.Sub(later); got != 5*time.Second {
		t.Fatalf("passed on with %v left", got)
	}
	if n := len(b.Records(later.Add(5*time.Second), p2pnode.DomainPeer)); n != 0 {
		t.Fatal("lives on after its time")
	}
	if ended := b.Sweep(later.Add(5 * time.Second)); len(ended) != 1 || string(ended[0].Body) != "x" {
		t.Fatalf("ended %+v", ended)
	}
	// A relay that says more than was signed is not believed.
	long := item(2, p2pnode.DomainPeer, "", 1, 1000, "y")
	long.LeftMS = 1 << 60
	if r := b.Take(later, long, ""); r.Record.Expires.Sub(later) != time.Second {
		t.Fatalf("%+v", r)
	}
	// Neither is a signer that says more than the domain allows.
	if r := b.Take(later, item(3, p2pnode.DomainPeer, "", 1, 1<<63, "z"), ""); r.Record.Expires.Sub(later) != time.Minute {
		t.Fatalf("%+v", r)
	}
	if r := b.Take(later, item(1, p2pnode.DomainOrder, "", 1, 0, "o"), ""); !r.Record.Expires.IsZero() {
		t.Fatalf("an order without an end got one: %+v", r)
	}
}

func TestExpiredDoesNotComeBack(t *testing.T) {
	c := node(0)
	it := item(2, p2pnode.DomainPeer, "", 1, 1000, "x")
	c.Take(epoch, it, "")
	gone := epoch.Add(2 * time.Second)
	c.Sweep(gone)
	c.seen = seen{at: map[[16]byte]struct{}{}} // long ago
	if res := c.Take(gone, it, ""); res.Verdict != Stale {
		t.Fatalf("%+v", res)
	}
	if res := c.Take(gone, item(2, p2pnode.DomainPeer, "", 2, 1000, "x"), ""); res.Verdict != Fresh {
		t.Fatalf("a newer one: %+v", res)
	}
	c.Sweep(gone.Add(2 * time.Second))
	c.Sweep(gone.Add(graveLong + 3*time.Second))
	if n := len(c.shelves[p2pnode.DomainPeer].entries); n != 0 {
		t.Fatalf("%d remembered for ever", n)
	}
}

func TestNumbersRiseOverRestarts(t *testing.T) {
	first, second := nodeAt(0, 7), nodeAt(0, 8)
	var last uint64
	for range 3 {
		r, _ := first.Publish(epoch, p2pnode.DomainPeer, "", nil, 0)
		if r.Seq <= last {
			t.Fatalf("%d after %d", r.Seq, last)
		}
		last = r.Seq
	}
	if last>>32 != 7 {
		t.Fatalf("first life counts in %d", last>>32)
	}
	r, _ := second.Publish(epoch, p2pnode.DomainPeer, "", nil, 0)
	if r.Seq <= last {
		t.Fatalf("next life: %d after %d", r.Seq, last)
	}
}

// A node that lost its boot number, or whose key is used twice, says again what
// it says, above the other, once per sweep.
func TestForeignRecordOfOwnKeyIsRefuted(t *testing.T) {
	c := node(0)
	c.Link(id(1))
	c.Publish(epoch, p2pnode.DomainPeer, "", []byte("mine"), 0)
	foreign := item(0, p2pnode.DomainPeer, "", 99<<32, 0, "theirs")
	if res := c.Take(epoch, foreign, id(1)); res.Verdict != Refuted {
		t.Fatalf("%+v", res)
	}
	c.Sweep(epoch)
	c.Sweep(epoch)
	got, ok := c.Get(epoch, p2pnode.DomainPeer, id(0), "")
	if !ok || string(got.Body) != "mine" || got.Seq != 99<<32+1 {
		t.Fatalf("%+v: exactly one new number above the foreign one", got)
	}
	other := node(1)
	other.Take(epoch, foreign, "")
	other.TakeBatch(epoch, c.Batch(epoch, id(1), true, MaxMessage), id(0))
	if r, _ := other.Get(epoch, p2pnode.DomainPeer, id(0), ""); string(r.Body) != "mine" {
		t.Fatalf("the others believe %q", r.Body)
	}
	// What this life never said is an old word of ours, kept like anybody's.
	if res := c.Take(epoch, item(0, p2pnode.DomainPeer, "old", 1, 0, "old"), ""); res.Verdict != Fresh {
		t.Fatalf("%+v", res)
	}
}

func TestConflictIsSaid(t *testing.T) {
	a, b := item(2, p2pnode.DomainPeer, "", 1, 0, "a"), item(2, p2pnode.DomainPeer, "", 1, 0, "b")
	for _, order := range [][]Item{{a, b}, {b, a}} {
		c := node(0)
		c.Take(epoch, order[0], "")
		if res := c.Take(epoch, order[1], ""); !res.Conflict {
			t.Fatalf("%+v", res)
		}
		if c.Counters()[CountConflict] != 1 {
			t.Fatal("not counted")
		}
	}
}

func TestLimits(t *testing.T) {
	c := node(0)
	for i := range 20 { // 8 keys per signer
		c.Take(epoch, item(2, p2pnode.DomainPeer, fmt.Sprint(i), uint64(i+1), 0, ""), "")
	}
	got := c.Records(epoch, p2pnode.DomainPeer)
	if len(got) != 8 || slices.ContainsFunc(got, func(r p2pnode.Record) bool { return r.Seq <= 12 }) {
		t.Fatalf("%d records of one signer, lowest must go", len(got))
	}
	if res := c.Take(epoch, item(2, p2pnode.DomainPeer, "low", 1, 0, "low"), ""); res.Reason != ReasonFull {
		t.Fatalf("%+v", res)
	}
	full := New(Config{Self: id(0), Key: key(0), Member: func(peer.ID) bool { return true }})
	full.Domain(Spec{Domain: "x", MaxTotal: 2})
	for i := range 3 {
		res := full.Take(epoch, item(i+1, "x", "", 1, 0, ""), "")
		if (res.Reason == ReasonFull) != (i == 2) {
			t.Fatalf("record %d: %+v", i, res)
		}
	}
	if _, err := full.Publish(epoch, "x", "", nil, 0); !errors.Is(err, ErrSize) {
		t.Fatal(err)
	}
}

func TestRateOfOneSigner(t *testing.T) {
	c := node(0)
	refused := 0
	for i := range maxRate + 10 {
		if c.Take(epoch, item(2, p2pnode.DomainPeer, "", uint64(i+1), 0, ""), "").Reason == ReasonRate {
			refused++
		}
	}
	if refused != 10 {
		t.Fatalf("refused %d", refused)
	}
	if res := c.Take(epoch, item(3, p2pnode.DomainPeer, "", 1, 0, ""), ""); res.Verdict != Fresh {
		t.Fatalf("another signer pays for it: %+v", res)
	}
	if res := c.Take(epoch.Add(time.Second), item(2, p2pnode.DomainPeer, "", maxRate+10, 0, ""), ""); res.Verdict != Fresh {
		t.Fatalf("a second later: %+v", res)
	}
}

func TestSeenIsBounded(t *testing.T) {
	s := seen{at: map[[16]byte]struct{}{}}
	for i := range maxSeen + 100 {
		s.add([16]byte{byte(i), byte(i >> 8), byte(i >> 16)})
	}
	if len(s.at) != maxSeen || s.has([16]byte{99}) || !s.has([16]byte{100}) {
		t.Fatalf("%d kept", len(s.at))
	}
}

func TestPublishRefuses(t *testing.T) {
	c := node(2)
	for name, f := range map[string]func() error{
		"domain": func() error { _, err := c.Publish(epoch, "novel", "", nil, 0); return err },
		"body": func() error {
			_, err := c.Publish(epoch, p2pnode.DomainPeer, "", make([]byte, MaxBody+1), 0)
			return err
		},
		"manager": func() error { _, err := c.Publish(epoch, p2pnode.DomainOrder, "", nil, 0); return err },
		"utf-8":   func() error { _, err := c.Publish(epoch, p2pnode.DomainPeer, "\xff", nil, 0); return err },
	} {
		if f() == nil {
			t.Errorf("%s: published", name)
		}
	}
	body := []byte("mine")
	c.Publish(epoch, p2pnode.DomainPeer, "", body, 0)
	body[0] = 'X'
	if r, _ := c.Get(epoch, p2pnode.DomainPeer, id(2), ""); string(r.Body) != "mine" {
		t.Errorf("kept the caller's bytes: %q", r.Body)
	}
}

func TestForget(t *testing.T) {
	c := node(0)
	c.Take(epoch, item(2, p2pnode.DomainPeer, "", 1, 0, ""), "")
	c.Take(epoch, item(3, p2pnode.DomainPeer, "", 1, 0, ""), "")
	if said := c.Forget(id(2), func(d p2pnode.Domain) bool { return d == p2pnode.DomainPeer }); len(said) != 1 || said[0].Signer != id(2) {
		t.Errorf("dropped %v", said)
	}
	only := node(0)
	only.Take(epoch, item(3, p2pnode.DomainPeer, "", 1, 0, ""), "")
	if !bytes.Equal(c.Digest(), only.Digest()) || len(c.Records(epoch, p2pnode.DomainPeer)) != 1 {
		t.Fatal("something of it is left")
	}
}

const goldenBatch = "010a7e0a04706565721273011ba4075b77c9e3fb3ecde15cdaf5221f3c10373e623f7b0e1ef76366b0af7137" +
	"373be12f602fb4c306de66de2a68c6d729c1f0c301a809ca75760b759210f82ee1af46a95fd3d2dfe41a365d32e72bfb4182432299bc5955" +
	"5111dabf117893070a016b10818080801018e8072204626f647918e807"

// The bytes of version 1, for ever.
func TestBatchGolden(t *testing.T) {
	c := node(0)
	c.Link(id(1))
	c.Publish(epoch, p2pnode.DomainPeer, "k", []byte("body"), time.Second)
	raw := c.Batch(epoch, id(1), true, MaxMessage)
	if hex.EncodeToString(raw) != goldenBatch {
		t.Fatalf("batch is %x", raw)
	}
	got, err := node(1).TakeBatch(epoch, raw, id(0))
	if err != nil || len(got) != 1 || got[0].Record.Key != "k" || string(got[0].Record.Body) != "body" {
		t.Fatalf("reads as %+v %v", got, err)
	}
}

func TestRandomBatchesAreSafe(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	c, from := node(0), node(1)
	from.Link(id(0))
	from.Publish(epoch, p2pnode.DomainPeer, "", []byte("x"), 0)
	good := from.Batch(epoch, id(0), true, MaxMessage)
	for range 2000 {
		bad := slices.Clone(good)
		bad[1+rng.IntN(len(bad)-1)] ^= byte(1 + rng.IntN(255))
		c.TakeBatch(epoch, bad, id(1))
	}
	for _, r := range c.Records(epoch, p2pnode.DomainPeer) {
		if string(r.Body) != "x" || r.Signer != id(1) {
			t.Fatalf("a bent record was believed: %+v", r)
		}
	}
}
