package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/store/storepb"
)

// neighbour is s as another store's neighbour.
func neighbour(s *Store) Bulk {
	return func(ctx context.Context, _ peer.ID, req []byte) ([]byte, error) {
		if len(req) > 64<<10 {
			return nil, fmt.Errorf("a question of %d bytes", len(req))
		}
		out, err := s.HandleBulk(ctx, "somebody", req)
		if len(out) > 4<<20 {
			return nil, fmt.Errorf("an answer of %d bytes", len(out))
		}
		return out, err
	}
}

// asked is the question of somebody who has nothing.
func asked(t testing.TB) []byte {
	raw, err := frame(&storepb.Pull{})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func signed(t testing.TB, seed byte, change func(*p2pnode.Report)) []byte {
	t.Helper()
	r := sample(1)
	r.Origin, r.Epoch, r.Seq, r.Excerpt = id(seed).String(), "e", 1, nil
	change(&r)
	raw, err := encodeReport(key(seed), r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// papersOf stands for certificates: a chain is its holder's ID.
func papersOf(seed byte) func() [][]byte {
	return func() [][]byte { return [][]byte{[]byte(id(seed))} }
}

func certified(chain [][]byte) (peer.ID, error) {
	if len(chain) != 1 || string(chain[0]) == "forged" {
		return "", errors.New("no chain of this cluster")
	}
	return peer.ID(chain[0]), nil
}

func memberConfig(t testing.TB, seed byte) Config {
	cfg := config(t, seed)
	cfg.Chain, cfg.Certified = papersOf(seed), certified
	return cfg
}

// Reports of three origins spread by pulls of random pairs until all are equal.
func TestStoresBecomeEqual(t *testing.T) {
	stores := map[peer.ID]*Store{}
	var ids []peer.ID
	for seed := byte(1); seed <= 3; seed++ {
		s, _ := running(t, memberConfig(t, seed))
		for n := range int(seed) * 5 {
			must(t, s, n)
		}
		stores[s.self.origin] = s
		ids = append(ids, s.self.origin)
	}
	bulk := func(ctx context.Context, to peer.ID, req []byte) ([]byte, error) {
		return neighbour(stores[to])(ctx, to, req)
	}
	rng := mrand.New(mrand.NewPCG(1, 2))
	for range 12 {
		a, b := ids[rng.IntN(3)], ids[rng.IntN(3)]
		if a == b {
			continue
		}
		if _, err := stores[a].Sync(t.Context(), b, bulk); err != nil {
			t.Fatal(err)
		}
	}
	want := all(stores[ids[0]])
	if len(want) != 30 {
		t.Fatalf("%d reports, want 30", len(want))
	}
	for _, id := range ids[1:] {
		if got := all(stores[id]); !reflect.DeepEqual(got, want) {
			t.Errorf("stores differ: %d and %d reports", len(got), len(want))
		}
	}
	// Equal stores say so in one short question.
	asked, size := 0, 0
	n, err := stores[ids[0]].Sync(t.Context(), ids[1], func(ctx context.Context, to peer.ID, req []byte) ([]byte, error) {
		out, err := bulk(ctx, to, req)
		asked++
		size += len(req) + len(out)
		return out, err
	})
	if n != 0 || err != nil || asked != 1 || size > 100 {
		t.Errorf("equal stores exchange %d reports in %d questions of %d bytes, %v", n, asked, size, err)
	}
}

// A node that joins when an origin is long gone takes its reports from somebody
// else: the certificate goes along.
func TestReportsOfTheDead(t *testing.T) {
	dead, stop := running(t, memberConfig(t, 1))
	must(t, dead, 1)
	cfg := memberConfig(t, 2)
	heir, stopHeir := running(t, cfg)
	if _, err := heir.Sync(t.Context(), "", neighbour(dead)); err != nil {
		t.Fatal(err)
	}
	stop()
	stopHeir()
	heir, _ = running(t, cfg) // what it knows of the dead is on its disk
	late, _ := running(t, memberConfig(t, 3))
	if n, err := late.Sync(t.Context(), "", neighbour(heir)); n != 1 || err != nil || count(late) != 1 {
		t.Errorf("%d reports of the dead, %v", n, err)
	}
}

func TestHeadsWake(t *testing.T) {
	a, _ := running(t, config(t, 1))
	b, _ := running(t, config(t, 2))
	must(t, a, 1)
	body, err := a.HeadBody()
	if err != nil {
		t.Fatal(err)
	}
	b.OnRecord(p2pnode.Record{Domain: p2pnode.DomainHead, Signer: a.self.origin, Body: body})
	select {
	case <-b.Wake():
	default:
		t.Error("a missing report wakes nobody")
	}
	if l := b.Lacking(); len(l) != 1 || l[0] != a.self.origin {
		t.Errorf("lacking %v", l)
	}
	must(t, b, 9)
	size := 0
	n, err := b.Fetch(t.Context(), "", func(ctx context.Context, to peer.ID, req []byte) ([]byte, error) {
		size += len(req)
		return neighbour(a)(ctx, to, req)
	})
	if n != 1 || err != nil || size > 200 {
		t.Fatalf("%d fetched with a question of %d bytes, %v", n, size, err)
	}
	if l := b.Lacking(); len(l) != 0 {
		t.Errorf("still lacking %v", l)
	}
	for _, bad := range [][]byte{{9, 9}, must2(encodeHead(Head{Epoch: "e", Highest: maxSeq + 1})), must2(encodeHead(Head{Highest: 3}))} {
		before := b.Refused()["head"]
		if b.OnRecord(p2pnode.Record{Body: bad}); b.Refused()["head"] != before+1 {
			t.Errorf("head %x was taken", bad)
		}
	}
}

func must2(raw []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return raw
}

func TestForgedReportsAreRefused(t *testing.T) {
	cfg := memberConfig(t, 1)
	s, _ := running(t, cfg)
	good := signed(t, 2, func(*p2pnode.Report) {})
	flipped := bytes.Clone(good)
	flipped[len(flipped)-3] ^= 1
	mine := papersOf(2)()
	bad := [][]byte{
		flipped,
		{},
		{1, 2, 3},
		make([]byte, maxReport+1),
		signed(t, 2, func(r *p2pnode.Report) { r.Origin = id(1).String() }), // in another's name
		signed(t, 2, func(r *p2pnode.Report) { r.Seq = 0 }),
		signed(t, 2, func(r *p2pnode.Report) { r.Seq = maxSeq + 1 }),
		signed(t, 2, func(r *p2pnode.Report) { r.Seq = ^uint64(0) }),
		signed(t, 2, func(r *p2pnode.Report) { r.Epoch = strings.Repeat("e", 99) }),
		signed(t, 2, func(r *p2pnode.Report) { r.Incident = strings.Repeat("i", maxName+1) }),
		signed(t, 2, func(r *p2pnode.Report) { r.Service = "web\x1b[2J" }),
		signed(t, 2, func(r *p2pnode.Report) { r.Observed = strings.Repeat("o", maxPhrase+1) }),
		signed(t, 2, func(r *p2pnode.Report) { r.At = time.Time{} }),
		signed(t, 2, func(r *p2pnode.Report) { r.Trail = make([]string, maxTrail+1) }),
	}
	if n, _, err := s.take(t.Context(), batch{reports: bad, papers: [][][]byte{mine}}); n != 0 || err != nil || count(s) != 0 {
		t.Errorf("took %d forged reports (%v)", n, err)
	}
	if got := s.Refused(); got["forged"] != uint64(len(bad)) {
		t.Errorf("refused %v, want %d forged", got, len(bad))
	}
	stranger := signed(t, 9, func(*p2pnode.Report) {})
	if n, _, _ := s.take(t.Context(), batch{reports: [][]byte{stranger}, papers: [][][]byte{{[]byte("forged")}}}); n != 0 {
		t.Error("took a stranger's report")
	}
	if got := s.Refused(); got["stranger"] != 1 || got["papers"] != 1 {
		t.Errorf("refused %v", got)
	}
	if n, _, err := s.take(t.Context(), batch{reports: [][]byte{good, good}}); n != 2 || err != nil || count(s) != 1 {
		t.Errorf("good ones: %d %v, %d here", n, err, count(s))
	}
}

// A member that numbers with holes, or draws epoch after epoch, blows up nobody's
// questions.
func TestSparseNumbersAreRefused(t *testing.T) {
	t.Parallel()
	s, _ := running(t, config(t, 1))
	var sparse, epochs [][]byte
	for n := range maxSpans + 50 {
		sparse = append(sparse, signed(t, 2, func(r *p2pnode.Report) { r.Seq = uint64(2*n + 1) }))
		epochs = append(epochs, signed(t, 3, func(r *p2pnode.Report) { r.Epoch = fmt.Sprint(n) }))
	}
	if _, _, err := s.take(t.Context(), batch{reports: sparse[:maxSpans]}); err != nil {
		t.Fatal(err)
	}
	if n, _, err := s.take(t.Context(), batch{reports: sparse[maxSpans:]}); n != 0 || err != nil || s.Refused()["sparse"] != 50 {
		t.Errorf("%d sparse reports beyond the limit, %v, refused %v", n, err, s.Refused())
	}
	for _, raw := range epochs {
		if _, _, err := s.take(t.Context(), batch{reports: [][]byte{raw}}); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.Refused()["epochs"]; got != uint64(len(epochs)-maxEpochs) {
		t.Errorf("%d epochs refused of %d", got, len(epochs))
	}
	twin, _ := running(t, config(t, 4))
	if _, err := twin.Sync(t.Context(), "", neighbour(s)); err != nil || count(twin) != count(s) {
		t.Errorf("the twin has %d of %d, %v", count(twin), count(s), err)
	}
}

// Thousands of lines do not fit into one question.
func TestManyLinesAreAskedInWindows(t *testing.T) {
	a, _ := running(t, config(t, 1))
	b, _ := running(t, config(t, 2))
	for seed := byte(10); seed < 20; seed++ {
		var list, half [][]byte
		for n := range 300 {
			raw := signed(t, seed, func(r *p2pnode.Report) { r.Epoch = fmt.Sprintf("epoch-%03d", n) })
			if list = append(list, raw); n%2 == 0 {
				half = append(half, raw)
			}
		}
		if n, _, err := a.take(t.Context(), batch{reports: list}); n != 300 || err != nil {
			t.Fatal(n, err)
		}
		if n, _, err := b.take(t.Context(), batch{reports: half}); n != 150 || err != nil {
			t.Fatal(n, err)
		}
	}
	questions := 0
	n, err := b.Sync(t.Context(), "", func(ctx context.Context, to peer.ID, req []byte) ([]byte, error) {
		questions++
		return neighbour(a)(ctx, to, req)
	})
	if n != 1500 || err != nil || count(b) != 3000 {
		t.Errorf("%d new, %d here, %v", n, count(b), err)
	}
	if questions < 3 {
		t.Errorf("%d questions: there were no windows", questions)
	}
}

// Reports of strangers fill the first answer; what stands behind them comes all
// the same, and they are not sent a second time.
func TestStrangersDoNotBlock(t *testing.T) {
	var list [][]byte
	for n := range 3000 {
		list = append(list, signed(t, 9, func(r *p2pnode.Report) { r.Seq, r.Observed = uint64(n+1), strings.Repeat("x", 1000) }))
	}
	between, _ := running(t, config(t, 3))
	member := signed(t, 2, func(r *p2pnode.Report) { r.At = time.Now().Add(-2 * time.Hour) })
	between.take(t.Context(), batch{reports: append(list, member)})
	between.papers[id(2)] = papersOf(2)()

	s, _ := running(t, memberConfig(t, 4))
	size := 0
	bulk := func(ctx context.Context, to peer.ID, req []byte) ([]byte, error) {
		out, err := neighbour(between)(ctx, to, req)
		size += len(out)
		return out, err
	}
	if n, err := s.Sync(t.Context(), "", bulk); n != 1 || err != nil {
		t.Fatalf("%d new reports, %v", n, err)
	}
	size = 0
	if _, err := s.Sync(t.Context(), "", bulk); err != nil || size > 1000 {
		t.Errorf("%d bytes are sent again, %v", size, err)
	}
	// The stranger turns out to be a member: its head is in a verified record.
	between.papers[id(9)] = papersOf(9)()
	s.OnRecord(p2pnode.Record{Signer: id(9), Body: must2(encodeHead(Head{Epoch: "e", Highest: 3000}))})
	if n, err := s.Sync(t.Context(), "", bulk); n != 3000 || err != nil {
		t.Errorf("%d reports of the new member, %v", n, err)
	}
}

// What is open and what is newest is there after the first short answer.
func TestNewestAndOpenComeFirst(t *testing.T) {
	a, _ := running(t, config(t, 1))
	var list [][]byte
	for n := range 3000 {
		list = append(list, signed(t, 2, func(r *p2pnode.Report) {
			r.Seq, r.Incident, r.Phase, r.Observed = uint64(n+1), fmt.Sprint("i-", n), p2pnode.PhaseVerified, strings.Repeat("x", 500)
			r.At = time.Now().Add(time.Duration(n-4000) * time.Second)
			if n == 7 {
				r.Phase = p2pnode.PhaseObserved // never repaired
			}
		}))
	}
	if _, _, err := a.take(t.Context(), batch{reports: list}); err != nil {
		t.Fatal(err)
	}
	b, _ := running(t, config(t, 3))
	answers := 0
	bulk := func(ctx context.Context, to peer.ID, req []byte) ([]byte, error) {
		if answers++; answers == 3 { // the digest, the first batch, and then no more
			return nil, errors.New("cut")
		}
		return neighbour(a)(ctx, to, req)
	}
	n, _ := b.Sync(t.Context(), "", bulk)
	if n < 100 || n > 1000 {
		t.Fatalf("%d reports in the first answer", n)
	}
	if !b.Reported("i-7", p2pnode.PhaseObserved) {
		t.Error("the open incident is not there")
	}
	for i := 2999; i > 3000-n+1; i-- {
		if !b.Reported(fmt.Sprint("i-", i), p2pnode.PhaseVerified) {
			t.Fatalf("%d reports are here, and not the one that is number %d from the newest", n, 3000-i)
		}
	}
	if n, err := b.Sync(t.Context(), "", neighbour(a)); err != nil || count(b) != 3000 {
		t.Errorf("then %d more, %d in all, %v", n, count(b), err)
	}
}

// A peer that asks for ever is told to wait; others are served.
func TestRateOfOnePeer(t *testing.T) {
	s, _ := running(t, config(t, 1))
	s.charge("greedy", 3*peerBurst)
	if _, err := s.HandleBulk(t.Context(), "greedy", asked(t)); err == nil || s.Refused()["rate"] != 1 {
		t.Errorf("served beyond its rate: %v", err)
	}
	if _, err := s.HandleBulk(t.Context(), "modest", asked(t)); err != nil {
		t.Errorf("another peer: %v", err)
	}
	s.mu.Lock()
	a := s.ledger["greedy"]
	a.at = a.at.Add(-5 * time.Second)
	s.ledger["greedy"] = a
	s.mu.Unlock()
	if _, err := s.HandleBulk(t.Context(), "greedy", asked(t)); err != nil {
		t.Errorf("after a while: %v", err)
	}
}
