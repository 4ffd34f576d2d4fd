package store

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// span is an inclusive range of numbers.
type span struct{ lo, hi uint64 }

// spans is a set of numbers from 1 to maxSeq: ranges in rising order, apart from
// each other by at least one missing number.
type spans []span

// find is the first range that does not end before seq.
func (s spans) find(seq uint64) int {
	i, _ := slices.BinarySearchFunc(s, seq, func(s span, n uint64) int { return cmp.Compare(s.hi, n) })
	return i
}

func (s spans) has(seq uint64) bool {
	i := s.find(seq)
	return i < len(s) && s[i].lo <= seq
}

func (s spans) covers(all span) bool {
	i := s.find(all.lo)
	return i < len(s) && s[i].lo <= all.lo && s[i].hi >= all.hi
}

// add takes seq in; false if it is there already.
func (s *spans) add(seq uint64) bool {
	list := *s
	i := list.find(seq)
	if i < len(list) && list[i].lo <= seq {
		return false
	}
	left := i > 0 && list[i-1].hi+1 == seq
	right := i < len(list) && list[i].lo == seq+1
	switch {
	case left && right:
		list[i-1].hi = list[i].hi
		list = slices.Delete(list, i, i+1)
	case left:
		list[i-1].hi = seq
	case right:
		list[i].lo = seq
	default:
		list = slices.Insert(list, i, span{seq, seq})
	}
	*s = list
	return true
}

func (s *spans) drop(seq uint64) {
	list := *s
	i := list.find(seq)
	if i == len(list) || list[i].lo > seq {
		return
	}
	old := list[i]
	var rest []span
	if old.lo < seq {
		rest = append(rest, span{old.lo, seq - 1})
	}
	if seq < old.hi {
		rest = append(rest, span{seq + 1, old.hi})
	}
	*s = slices.Replace(list, i, i+1, rest...)
}

// union is a set of its own.
func (s spans) union(other spans) spans {
	all := slices.Concat(s, other)
	slices.SortFunc(all, func(a, b span) int { return cmp.Compare(a.lo, b.lo) })
	var out spans
	for _, next := range all {
		if last := len(out) - 1; last >= 0 && next.lo <= out[last].hi+1 {
			out[last].hi = max(out[last].hi, next.hi)
			continue
		}
		out = append(out, next)
	}
	return out
}

func (s spans) highest() uint64 {
	if len(s) == 0 {
		return 0
	}
	return s[len(s)-1].hi
}

func (s spans) count() (n uint64) {
	for _, r := range s {
		n += r.hi - r.lo + 1
	}
	return n
}

// encode is pairs of distances, first from 0: short for what has few holes.
func (s spans) encode() []byte {
	var out []byte
	last := uint64(0)
	for _, r := range s {
		out = binary.AppendUvarint(out, r.lo-last)
		out = binary.AppendUvarint(out, r.hi-r.lo)
		last = r.hi
	}
	return out
}

// decodeSpans is the reverse of encode; false for what is no set, or has more than
// most ranges.
func decodeSpans(raw []byte, most int) (spans, bool) {
	var out spans
	last := uint64(0)
	for len(raw) > 0 {
		gap, n := binary.Uvarint(raw)
		if n <= 0 || gap > maxSeq {
			return nil, false
		}
		raw = raw[n:]
		width, n := binary.Uvarint(raw)
		if n <= 0 || width > maxSeq || len(out) == most {
			return nil, false
		}
		raw = raw[n:]
		r := span{last + gap, last + gap + width}
		if gap == 0 || len(out) > 0 && gap == 1 || r.hi > maxSeq {
			return nil, false
		}
		out = append(out, r)
		last = r.hi
	}
	return out, true
}
