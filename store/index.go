package store

import (
	"cmp"
	"crypto/sha256"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// line is the reports of one origin in one epoch, numbered from 1 without gaps.
type line struct {
	origin peer.ID
	epoch  string
}

func (l line) compare(other line) int {
	return cmp.Or(cmp.Compare(l.origin, other.origin), cmp.Compare(l.epoch, other.epoch))
}

// held is which numbers of a line are here, and which were given up: neither
// wanted nor taken again. The two are apart.
type held struct {
	here, gone spans
	empty      time.Time // since when a sweep found nothing here; zero: it did not
}

func (h *held) knows(seq uint64) bool { return h.here.has(seq) || h.gone.has(seq) }

// known is what nobody needs to send: one range for a line of which the old part
// was given up but for what is pinned.
func (h *held) known() spans {
	if len(h.gone) == 0 {
		return h.here
	}
	return h.here.union(h.gone)
}

// floor is the lowest number that was not given up and is not one of the pinned
// ones among those.
func (h *held) floor() uint64 {
	if len(h.gone) == 0 {
		return 1
	}
	return h.gone[len(h.gone)-1].hi + 1
}

// index is which reports are here: the whole state of the merge. It is pure; the
// store's mutex owns it.
type index map[line]*held

func (ix index) of(l line) *held {
	h, ok := ix[l]
	if !ok {
		h = &held{}
		ix[l] = h
	}
	return h
}

// knows reports whether seq of l is here or given up.
func (ix index) knows(l line, seq uint64) bool {
	h, ok := ix[l]
	return ok && h.knows(seq)
}

// complete reports whether everything from floor to highest is here or given up.
func (ix index) complete(l line, floor, highest uint64) bool {
	if highest == 0 || floor > highest {
		return true
	}
	h := ix[l]
	return h != nil && h.known().covers(span{max(1, floor), highest})
}

// lacking yields what is here and not known to them, line by line in a fixed
// order, numbers rising.
func (ix index) lacking(theirs index) iter.Seq2[line, uint64] {
	return func(yield func(line, uint64) bool) {
		for _, l := range ix.lines() {
			for _, s := range ix[l].here {
				for seq := s.lo; seq <= s.hi; seq++ {
					if !theirs.knows(l, seq) && !yield(l, seq) {
						return
					}
				}
			}
		}
	}
}

func (ix index) lines() []line { return slices.SortedFunc(maps.Keys(ix), line.compare) }

// digest is the same for two stores exactly if the same numbers are here, whatever
// they gave up.
func (ix index) digest() [sha256.Size]byte {
	h := sha256.New()
	for _, l := range ix.lines() {
		if len(ix[l].here) == 0 {
			continue
		}
		h.Write(lineKey(l))
		h.Write(ix[l].here.encode())
	}
	return [sha256.Size]byte(h.Sum(nil))
}
