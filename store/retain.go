package store

import (
	"maps"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// What is given up for its age is a function of the set alone and of the time, and
// giving up early adds nothing: keep(keep(A) + keep(B)) is within keep(A + B). So all
// stores end up with the same reports, in whatever order they came and were swept.
//
// Of each origin the newest stay, up to a fair share of the bytes: who reports a
// flood pushes out nobody's reports but its own. Only there, at the limit, may two
// stores differ, by a report or two at the old end of an origin.

// victims are the places that go: what is older than keep, and what is too much.
// The last incident of each thing and the newest repairs of each node are pinned:
// age does not matter for them.
func (sh *shelf) victims(now time.Time, keep time.Duration, maxBytes int64) (goes []place) {
	limit := now.Add(-keep).UnixNano()
	pins := sh.pins()
	sizes, young := map[peer.ID]int64{}, make([]bool, len(sh.list))
	for i, k := range sh.list {
		_, pinned := pins[k.incident]
		if young[i] = pinned || k.at >= limit; young[i] {
			sizes[sh.lines[k.line].origin] += int64(k.size)
		}
	}
	share := share(sizes, maxBytes)
	used := map[peer.ID]int64{}
	for i := len(sh.list) - 1; i >= 0; i-- {
		k := sh.list[i]
		origin := sh.lines[k.line].origin
		if young[i] {
			if used[origin] += int64(k.size); used[origin] <= share {
				continue
			}
		}
		goes = append(goes, sh.place(k))
	}
	return goes
}

// pins are the incidents that stay whole whatever their age.
func (sh *shelf) pins() map[uint64]struct{} {
	pins, things, acts := map[uint64]struct{}{}, map[uint32]struct{}{}, map[uint32]map[uint64]struct{}{}
	for i := len(sh.list) - 1; i >= 0; i-- {
		k := sh.list[i]
		if _, seen := things[k.thing]; !seen && len(things) < pinnedThings {
			things[k.thing] = struct{}{}
			pins[k.incident] = struct{}{}
		}
		if k.phase != phaseActed {
			continue
		}
		of := acts[k.node]
		if of == nil && len(acts) < pinnedThings {
			of = map[uint64]struct{}{}
			acts[k.node] = of
		}
		if of != nil && len(of) < pinnedActs {
			of[k.incident] = struct{}{}
			pins[k.incident] = struct{}{}
		}
	}
	return pins
}

// share is how many bytes each origin may have so that all together have no more
// than total: the water level at which the small ones keep all they have.
func share(sizes map[peer.ID]int64, total int64) int64 {
	left := total
	rising := slices.Sorted(maps.Values(sizes))
	for i, size := range rising {
		level := left / int64(len(rising)-i)
		if size > level {
			return level
		}
		left -= size
	}
	return total
}
