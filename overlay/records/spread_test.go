package records

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"pgregory.net/rapid"

	"p2pnode"
	"p2pnode/overlay/records/recordspb"
)

// mesh is a network of Cores without time: what one batch holds arrives.
type mesh struct {
	cores []*Core
	links map[[2]int]bool
	now   time.Time
}

func newMesh(n int) *mesh {
	m := &mesh{links: map[[2]int]bool{}, now: epoch}
	for i := range n {
		c := node(i)
		c.cfg.Linked = func(a, b peer.ID) bool {
			return m.links[[2]int{slices.Index(members, a), slices.Index(members, b)}]
		}
		m.cores = append(m.cores, c)
	}
	return m
}

func (m *mesh) link(a, b int) {
	m.links[[2]int{a, b}], m.links[[2]int{b, a}] = true, true
	m.cores[a].Link(id(b))
	m.cores[b].Link(id(a))
}

// beat carries what waits, once over every link; urgent things only unless all.
func (m *mesh) beat(all bool) (carried int) {
	for l := range m.links {
		if b := m.cores[l[0]].Batch(m.now, id(l[1]), all, MaxMessage); b != nil {
			carried++
			m.cores[l[1]].TakeBatch(m.now, b, id(l[0]))
		}
	}
	return carried
}

// round is one round of anti-entropy of a with b; it reports whether anything
// moved.
func (m *mesh) round(t interface{ Fatal(...any) }, a, b int) bool {
	listing, err := m.cores[b].Compare(m.cores[a].Digest())
	if err != nil {
		t.Fatal(err)
	}
	if listing == nil {
		return false
	}
	exchange, err := m.cores[a].Resolve(m.now, listing)
	if err != nil {
		t.Fatal(err)
	}
	if exchange == nil {
		return false
	}
	batch, _, err := m.cores[b].Exchange(m.now, exchange, id(a))
	if err != nil {
		t.Fatal(err)
	}
	for _, msg := range [][]byte{listing, exchange, batch} {
		if len(msg) > MaxMessage {
			t.Fatal("message of", len(msg))
		}
	}
	if batch != nil {
		if _, err := m.cores[a].TakeBatch(m.now, batch, id(b)); err != nil {
			t.Fatal(err)
		}
	}
	return true
}

func TestFloodReachesAllAndEnds(t *testing.T) {
	m := newMesh(6) // a ring with a chord
	for i := range 6 {
		m.link(i, (i+1)%6)
	}
	m.link(0, 3)
	m.cores[2].Publish(m.now, p2pnode.DomainClaim, "c", []byte("I go"), 0)
	m.cores[2].Publish(m.now, p2pnode.DomainPeer, "", []byte("me"), 0)
	for range 4 {
		m.beat(false)
	}
	for i, c := range m.cores {
		if len(c.Records(m.now, p2pnode.DomainClaim)) != 1 {
			t.Errorf("the urgent record did not reach %d", i)
		}
		if i != 2 && len(c.Records(m.now, p2pnode.DomainPeer)) != 0 {
			t.Errorf("what is not urgent went at once to %d", i)
		}
	}
	for range 6 {
		m.beat(true)
	}
	for i, c := range m.cores {
		if len(c.Records(m.now, p2pnode.DomainPeer)) != 1 {
			t.Errorf("the record did not reach %d", i)
		}
	}
	if n := m.beat(true); n != 0 {
		t.Errorf("%d batches after all is said", n)
	}
}

// In a full mesh a lean record crosses one link to each other node; where there is
// but one way to somebody it goes that way all the same.
func TestLeanRecordsCrossOnce(t *testing.T) {
	m := newMesh(5)
	for a := range 5 {
		for b := range a {
			m.link(a, b)
		}
	}
	spread := func(d p2pnode.Domain) (carried int) {
		m.cores[0].Publish(m.now, d, "k", []byte("said often"), 0)
		for range 4 {
			carried += m.beat(false)
		}
		for i, c := range m.cores {
			if len(c.Records(m.now, d)) != 1 {
				t.Errorf("%s did not reach %d", d, i)
			}
		}
		return carried
	}
	if n := spread(p2pnode.DomainStamp); n != 4 {
		t.Errorf("a lean record crossed %d links of five nodes", n)
	}
	if n := spread(p2pnode.DomainClaim); n < 10 {
		t.Errorf("what is not lean crossed %d links: who would miss it with one of them?", n)
	}
	m = newMesh(5) // a triangle with a tail
	for _, l := range [][2]int{{0, 1}, {1, 2}, {2, 0}, {2, 3}, {3, 4}} {
		m.link(l[0], l[1])
	}
	spread(p2pnode.DomainStamp)
}

// A link that everybody believes in and that carries nothing costs a lean record its
// way; anti-entropy with anybody brings it.
func TestLeanRecordsThatWereLostComeByAntiEntropy(t *testing.T) {
	m := newMesh(3)
	for _, l := range [][2]int{{0, 1}, {1, 2}, {2, 0}} {
		m.link(l[0], l[1])
	}
	m.cores[0].Unlink(id(2))
	m.cores[0].Publish(m.now, p2pnode.DomainStamp, "k", []byte("lost"), 0)
	for range 4 {
		m.beat(false)
	}
	if len(m.cores[2].Records(m.now, p2pnode.DomainStamp)) != 0 {
		t.Fatal("it came: this test shows nothing")
	}
	m.round(t, 1, 2)
	if len(m.cores[2].Records(m.now, p2pnode.DomainStamp)) != 1 {
		t.Error("it does not come by anti-entropy either")
	}
}

func TestSenderGetsNothingBack(t *testing.T) {
	c := node(0)
	c.Link(id(1))
	c.Link(id(2))
	c.Take(epoch, item(3, p2pnode.DomainClaim, "", 1, 0, ""), id(1))
	if got := c.Urgent(); !slices.Equal(got, []peer.ID{id(2)}) {
		t.Fatalf("urgent for %v", got)
	}
	if c.Batch(epoch, id(1), true, MaxMessage) != nil {
		t.Fatal("sent back where it came from")
	}
	c.Unlink(id(2))
	if c.Urgent() != nil || c.Batch(epoch, id(2), true, MaxMessage) != nil {
		t.Fatal("an outbox outlived its link")
	}
}

func TestNewestVersionGoesOut(t *testing.T) {
	c := node(0)
	c.Link(id(1))
	for i := range 5 {
		c.Publish(epoch, p2pnode.DomainPeer, "", fmt.Append(nil, i), 0)
	}
	items, err := DecodeBatch(c.Batch(epoch, id(1), true, MaxMessage))
	if err != nil || len(items) != 1 {
		t.Fatalf("%d items %v", len(items), err)
	}
	if e, _, _ := open(items[0]); string(e.body) != "4" {
		t.Fatalf("sent %q", e.body)
	}
}

func TestBatchesAreBounded(t *testing.T) {
	c, other := node(0), node(1)
	c.Link(id(1))
	for i := range 8 {
		c.Publish(epoch, p2pnode.DomainPeer, fmt.Sprint(i), bytes.Repeat([]byte{1}, MaxBody), 0)
	}
	batches := 0
	for {
		b := c.Batch(epoch, id(1), true, MaxMessage)
		if b == nil {
			break
		}
		batches++
		if len(b) > MaxMessage {
			t.Fatalf("batch of %d", len(b))
		}
		if _, err := other.TakeBatch(epoch, b, id(0)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(other.Records(epoch, p2pnode.DomainPeer)); n != 8 || batches < 3 {
		t.Fatalf("%d records in %d batches", n, batches)
	}
	// A limit smaller than a record still makes progress.
	c.Publish(epoch, p2pnode.DomainPeer, "", bytes.Repeat([]byte{1}, MaxBody), 0)
	if c.Batch(epoch, id(1), true, 10) == nil {
		t.Fatal("stuck")
	}
}

func TestQueueIsBounded(t *testing.T) {
	c := New(Config{Self: id(0), Key: key(0)})
	c.Domain(Spec{Domain: "x", MaxKeys: 2 * maxQueue})
	c.Link(id(1))
	for i := range maxQueue + 5 {
		c.Publish(epoch, "x", fmt.Sprint(i), nil, 0)
	}
	box := c.links[id(1)]
	if len(box.waiting) != maxQueue || len(box.rest) != maxQueue || c.Counters()[CountDropped] != 5 {
		t.Fatalf("%d wait, %d dropped", len(box.waiting), c.Counters()[CountDropped])
	}
}

// Any two nodes, whatever each knows, know the same after enough rounds, and then
// have nothing to say.
func TestAntiEntropyAloneIsEnough(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newMesh(3)
		for range rapid.IntRange(0, 60).Draw(t, "n") {
			it := item(rapid.IntRange(4, 9).Draw(t, "signer"), p2pnode.DomainPeer,
				fmt.Sprint(rapid.IntRange(0, 5).Draw(t, "key")), uint64(rapid.IntRange(1, 9).Draw(t, "seq")), 0,
				string(bytes.Repeat([]byte{'x'}, rapid.IntRange(0, 3000).Draw(t, "size"))))
			m.cores[rapid.IntRange(0, 2).Draw(t, "at")].Take(m.now, it, "")
		}
		for i := 0; m.round(t, 0, 1) || m.round(t, 1, 2) || m.round(t, 2, 0); i++ {
			if i > 100 {
				t.Fatal("no end")
			}
		}
		want := bodies(m.cores[0], m.now, p2pnode.DomainPeer)
		for i, c := range m.cores {
			if got := bodies(c, m.now, p2pnode.DomainPeer); !maps.Equal(got, want) {
				t.Fatalf("node %d knows %v, node 0 %v", i, got, want)
			}
		}
	})
}

func TestAntiEntropyLeavesOutShortLived(t *testing.T) {
	m := newMesh(2)
	m.cores[0].Publish(m.now, p2pnode.DomainClaim, "", nil, 0)
	if m.round(t, 0, 1) {
		t.Fatal("a claim went by anti-entropy")
	}
}

// Nodes that hand each other a record do not keep it alive past its time.
func TestRecordDies(t *testing.T) {
	m := newMesh(4)
	m.cores[0].Publish(m.now, p2pnode.DomainPeer, "", nil, 10*time.Second)
	m.round(t, 0, 1)
	for s := range 40 {
		m.now = epoch.Add(time.Duration(s) * time.Second)
		for _, c := range m.cores {
			c.Sweep(m.now)
		}
		m.cores[3] = node(3) // a node that restarts all the time, without memory
		for i := range 4 {
			m.round(t, i, (i+1)%4)
		}
		living := 0
		for _, c := range m.cores {
			living += len(c.Records(m.now, p2pnode.DomainPeer))
		}
		if want := s < 10; (living > 0) != want {
			t.Fatalf("after %d s it lives at %d", s, living)
		}
	}
}

// What one side refuses for ever does not keep the rest from passing.
func TestRefusedRecordsDoNotBlock(t *testing.T) {
	a, b := New(Config{Self: id(0), Key: key(0), Member: func(peer.ID) bool { return true }}), node(1)
	a.Domain(Spec{Domain: p2pnode.DomainPeer, AntiEntropy: true})
	m := &mesh{cores: []*Core{a, b}, now: epoch}
	big := string(bytes.Repeat([]byte{'x'}, 10<<10))
	for i := range 12 {
		a.Take(epoch, item(20+i, p2pnode.DomainPeer, "", 1, 0, big), "") // strangers to b
		a.Take(epoch, item(2+i%8, p2pnode.DomainPeer, fmt.Sprint(i), 1, 0, big), "")
	}
	for range 40 {
		m.round(t, 0, 1)
	}
	if n := len(b.Records(epoch, p2pnode.DomainPeer)); n != 12 {
		t.Fatalf("%d of 12 passed", n)
	}
}

func TestManyRecordsConverge(t *testing.T) {
	a, b := New(Config{Self: id(0), Key: key(0)}), New(Config{Self: id(1), Key: key(1), Member: func(peer.ID) bool { return true }})
	for _, c := range []*Core{a, b} {
		c.Domain(Spec{Domain: "x", AntiEntropy: true, MaxKeys: 4000})
	}
	for i := range 1500 {
		a.Publish(epoch, "x", fmt.Sprint(i), []byte("some body of a few bytes"), 0)
	}
	m := &mesh{cores: []*Core{a, b}, now: epoch}
	rounds := 0
	for m.round(t, 0, 1) || m.round(t, 1, 0) {
		m.now = m.now.Add(time.Second)
		if rounds++; rounds > 60 {
			t.Fatalf("after %d rounds %d of 1500", rounds, len(b.Records(m.now, "x")))
		}
	}
	if !bytes.Equal(a.Digest(), b.Digest()) {
		t.Fatal("not equal")
	}
}

// What the other side buried is not asked for.
func TestBuriedIsNotWanted(t *testing.T) {
	entry := &recordspb.Entry{Domain: string(p2pnode.DomainPeer), Signer: []byte(id(2)), Seq: 1}
	for _, gone := range []bool{false, true} {
		entry.Gone = gone
		exchange, err := node(0).Resolve(epoch, encode(&recordspb.Listing{Entries: []*recordspb.Entry{entry}}))
		if err != nil || (exchange == nil) != gone {
			t.Fatalf("gone %v: answered %x, %v", gone, exchange, err)
		}
	}
}

// A listing that had to be cut goes on behind its end, whatever became of it.
func TestListingsMoveOn(t *testing.T) {
	c := New(Config{Self: id(0), Key: key(0)})
	c.Domain(Spec{Domain: "x", AntiEntropy: true, MaxKeys: 4000})
	for i := range 1500 {
		c.Publish(epoch, "x", fmt.Sprint(i), nil, 0)
	}
	listed := map[uint32]bool{}
	for range 8 {
		raw, err := c.Compare(New(Config{}).Digest())
		var l recordspb.Listing
		if err != nil || decode(raw, &l) != nil || len(l.Buckets) == buckets {
			t.Fatalf("%d of %d buckets, %v", len(l.Buckets), buckets, err)
		}
		for _, b := range l.Buckets {
			listed[b] = true
		}
	}
	if len(listed) != buckets {
		t.Fatalf("only %d of %d buckets were ever listed", len(listed), buckets)
	}
}

func TestMessagesRefused(t *testing.T) {
	c := node(0)
	for name, raw := range map[string][]byte{
		"empty": nil, "version": {9}, "long": make([]byte, MaxMessage+1), "junk": {wireVersion, 0xff},
	} {
		if _, err := c.TakeBatch(epoch, raw, ""); err == nil {
			t.Errorf("batch %s", name)
		}
		if _, err := c.Compare(raw); err == nil {
			t.Errorf("digest %s", name)
		}
		if _, err := c.Resolve(epoch, raw); err == nil {
			t.Errorf("listing %s", name)
		}
		if _, _, err := c.Exchange(epoch, raw, ""); err == nil {
			t.Errorf("exchange %s", name)
		}
	}
	if _, err := c.Compare([]byte{wireVersion}); err == nil {
		t.Error("digest without sums")
	}
	if _, err := DecodeBatch(append([]byte{wireVersion}, bytes.Repeat([]byte{0x0a, 0}, maxItems+1)...)); err == nil {
		t.Error("too many records")
	}
}

func seeds() (batch, digest, listing, exchange []byte) {
	a, b := node(0), node(1)
	a.Link(id(1))
	a.Publish(epoch, p2pnode.DomainPeer, "", []byte("a"), 0)
	b.Publish(epoch, p2pnode.DomainPeer, "", []byte("b"), 0)
	batch, digest = a.Batch(epoch, id(1), true, MaxMessage), a.Digest()
	listing, _ = b.Compare(digest)
	exchange, _ = a.Resolve(epoch, listing)
	return batch, digest, listing, exchange
}

func FuzzTakeBatch(f *testing.F) {
	batch, _, _, _ := seeds()
	f.Add(batch)
	f.Fuzz(func(t *testing.T, raw []byte) {
		c := node(2)
		c.Link(id(3))
		c.TakeBatch(epoch, raw, id(0))
		for _, r := range c.Records(epoch, p2pnode.DomainPeer) {
			if r.Signer != id(0) || string(r.Body) != "a" {
				t.Fatalf("believed %+v", r)
			}
		}
	})
}

func FuzzAntiEntropy(f *testing.F) {
	_, digest, listing, exchange := seeds()
	f.Add(digest, listing, exchange)
	f.Fuzz(func(t *testing.T, digest, listing, exchange []byte) {
		c := node(0)
		c.Publish(epoch, p2pnode.DomainPeer, "", []byte("c"), 0)
		before := bodies(c, epoch, p2pnode.DomainPeer)
		a, _ := c.Compare(digest)
		b, _ := c.Resolve(epoch, listing)
		batch, taken, _ := c.Exchange(epoch, exchange, id(1))
		if len(a) > MaxMessage || len(b) > MaxMessage || len(batch) > MaxMessage {
			t.Fatal("an answer too big to read")
		}
		if len(taken) == 0 && !maps.Equal(before, bodies(c, epoch, p2pnode.DomainPeer)) {
			t.Fatal("changed without saying so")
		}
	})
}
