package store

import (
	"maps"
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"pgregory.net/rapid"
)

// A set of numbers is a set; a map is what it must agree with.
func TestSpansAreASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s spans
		model := map[uint64]bool{}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			n := rapid.Uint64Range(1, 24).Draw(t, "n")
			if rapid.IntRange(0, 3).Draw(t, "what") == 0 {
				s.drop(n)
				delete(model, n)
				continue
			}
			if added := s.add(n); added == model[n] {
				t.Fatalf("add(%d) = %v with %v", n, added, s)
			}
			model[n] = true
		}
		agree(t, s, model)
		back, ok := decodeSpans(s.encode(), maxSpans)
		if !ok || !slices.Equal(back, s) {
			t.Fatalf("%v became %v", s, back)
		}
	})
}

func agree(t *rapid.T, s spans, model map[uint64]bool) {
	for n := uint64(1); n <= 25; n++ {
		if s.has(n) != model[n] {
			t.Fatalf("has(%d) = %v; spans %v, model %v", n, s.has(n), s, slices.Sorted(maps.Keys(model)))
		}
	}
	for i := 1; i < len(s); i++ {
		if s[i].lo <= s[i-1].hi+1 {
			t.Fatalf("spans touch: %v", s)
		}
	}
	if s.count() != uint64(len(model)) {
		t.Fatalf("count %d of %d", s.count(), len(model))
	}
}

func TestUnion(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var a, b spans
		model := map[uint64]bool{}
		for _, n := range rapid.SliceOf(rapid.Uint64Range(1, 24)).Draw(t, "a") {
			a.add(n)
			model[n] = true
		}
		for _, n := range rapid.SliceOf(rapid.Uint64Range(1, 24)).Draw(t, "b") {
			b.add(n)
			model[n] = true
		}
		was := slices.Clone(a)
		agree(t, a.union(b), model)
		if !slices.Equal(a, was) {
			t.Fatalf("union changed its part: %v, was %v", a, was)
		}
	})
}

// Numbers at the end of what a number can be are no way to make anybody count for
// ever.
func TestSpansFromTheWire(t *testing.T) {
	for _, raw := range [][]byte{
		{0, 0},
		{1},
		{1, 0, 1, 0},
		{0x80},
		{1, 0x80},
		spans{{1, maxSeq + 1}}.encode(), spans{{maxSeq + 1, maxSeq + 1}}.encode(), spans{{1, ^uint64(0)}}.encode(),
	} {
		if got, ok := decodeSpans(raw, maxSpans); ok {
			t.Errorf("%v is the set %v", raw, got)
		}
	}
	long := make([]byte, 0, 4*maxSpans)
	for range maxSpans + 1 {
		long = append(long, 2, 0)
	}
	if _, ok := decodeSpans(long, maxSpans); ok {
		t.Error("a set with more holes than the limit")
	}
}

func drawIndex(t *rapid.T, what string) index {
	ix := index{}
	for range rapid.IntRange(0, 30).Draw(t, what) {
		l := line{peer.ID(rapid.SampledFrom([]string{"A", "B"}).Draw(t, "origin")), rapid.SampledFrom([]string{"e", "f"}).Draw(t, "epoch")}
		h, n := ix.of(l), rapid.Uint64Range(1, 12).Draw(t, "seq")
		if rapid.IntRange(0, 4).Draw(t, "gone") == 0 && !h.here.has(n) {
			h.gone.add(n)
		} else if !h.gone.has(n) {
			h.here.add(n)
		}
	}
	return ix
}

// After the answer to a question has been taken in, nothing is lacking; and only
// what was lacking was in it, nothing of what was given up.
func TestLacking(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mine, theirs := drawIndex(t, "mine"), drawIndex(t, "theirs")
		for l, seq := range mine.lacking(theirs) {
			if theirs.knows(l, seq) {
				t.Fatalf("%v %d was known", l, seq)
			}
			theirs.of(l).here.add(seq)
		}
		for l, seq := range mine.lacking(theirs) {
			t.Fatalf("%v %d is lacking still", l, seq)
		}
	})
}

// Equal sets have one digest whatever was given up, others have another.
func TestDigest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawIndex(t, "a"), drawIndex(t, "b")
		same := func(a, b index) bool {
			for range a.lacking(b) {
				return false
			}
			return true
		}
		for _, ix := range []index{a, b} {
			for _, h := range ix {
				h.gone = nil
			}
		}
		if equal := same(a, b) && same(b, a); equal != (a.digest() == b.digest()) {
			t.Fatalf("equal %v, digests equal %v: %v %v", equal, !equal, a, b)
		}
		before := a.digest()
		a.of(line{"A", "e"}).gone.add(99)
		if a.digest() != before {
			t.Fatal("what was given up is in the digest")
		}
	})
}

func TestComplete(t *testing.T) {
	l := line{"A", "e"}
	for _, c := range []struct {
		here, gone     []uint64
		floor, highest uint64
		want           bool
	}{
		{nil, nil, 1, 0, true},
		{nil, nil, 1, 1, false},
		{[]uint64{1, 2, 3}, nil, 1, 3, true},
		{[]uint64{1, 3}, nil, 1, 3, false},
		{[]uint64{3}, nil, 3, 3, true},
		{[]uint64{3}, []uint64{1, 2}, 1, 3, true},
		{[]uint64{1, 2}, nil, 1, 3, false},
		{nil, []uint64{1, 2, 3}, 1, 3, true},
	} {
		ix := index{}
		h := ix.of(l)
		for _, n := range c.here {
			h.here.add(n)
		}
		for _, n := range c.gone {
			h.gone.add(n)
		}
		if got := ix.complete(l, c.floor, c.highest); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	if (index{}).complete(l, 1, 2) || !(index{}).complete(l, 1, 0) {
		t.Error("an unknown line")
	}
}
