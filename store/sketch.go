package store

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"iter"
	"maps"
	"slices"
	"time"

	"p2pnode"
)

// sketch is what is known of a report without reading it, 48 bytes: enough to
// order, count, find and give up a hundred thousand of them in memory.
type sketch struct {
	at       int64 // ns since 1970
	incident uint64
	seq      uint64
	line     uint32 // in shelf.lines
	size     uint32 // bytes on disk
	node     uint32
	thing    uint32 // node and service
	phase    uint8
	flags    uint8
}

// Phases by number, as they rest on disk; 0 is one that this version does not know.
var phases = []p2pnode.Phase{1: p2pnode.PhaseObserved, 2: p2pnode.PhaseRefused, 3: p2pnode.PhaseActed, 4: p2pnode.PhaseVerified, 5: p2pnode.PhaseFailed}

const (
	phaseActed    = 3
	phaseVerified = 4
	phaseFailed   = 5

	flagRecovered = 1 << 0 // RecoveredAt is set
	flagWatched   = 1 << 1 // held on purpose: observe or off
)

func sketchOf(r p2pnode.Report) sketch {
	k := sketch{
		at: r.At.UnixNano(), incident: fingerprint(r.Incident), seq: r.Seq,
		node: uint32(fingerprint(r.Node)), thing: uint32(fingerprint(r.Node + "\x00" + r.Service)),
		phase: uint8(max(0, slices.Index(phases, r.Phase))),
	}
	if !r.RecoveredAt.IsZero() {
		k.flags |= flagRecovered
	}
	if r.Held == p2pnode.HeldObserve || r.Held == p2pnode.HeldOff {
		k.flags |= flagWatched
	}
	return k
}

// fingerprint stands for a name. It is no checksum that can be steered: who finds
// two names with one fingerprint could close another's incident.
func fingerprint(name string) uint64 {
	sum := sha256.Sum256([]byte(name))
	return binary.BigEndian.Uint64(sum[:])
}

// shelf is the sketches of all reports here, oldest first. It is pure; the store's
// mutex owns it.
type shelf struct {
	list  []sketch
	lines []line
	nth   map[line]uint32
	open  map[uint64]struct{} // incidents that are not at their end
	bytes int64
}

func newShelf() *shelf { return &shelf{nth: map[line]uint32{}, open: map[uint64]struct{}{}} }

// number is the place of l in lines.
func (sh *shelf) number(l line) uint32 {
	n, ok := sh.nth[l]
	if !ok {
		n = uint32(len(sh.lines))
		sh.lines = append(sh.lines, l)
		sh.nth[l] = n
	}
	return n
}

func (sh *shelf) place(k sketch) place { return place{sh.lines[k.line], k.seq} }

// compare is the order in which everybody lists reports.
func (sh *shelf) compare(a, b sketch) int {
	if a.at != b.at {
		return cmp.Compare(a.at, b.at)
	}
	return cmp.Or(sh.lines[a.line].compare(sh.lines[b.line]), cmp.Compare(a.seq, b.seq))
}

// add takes in sketches that are not here.
func (sh *shelf) add(fresh []sketch) {
	if len(fresh) == 0 {
		return
	}
	touched := map[uint64]struct{}{}
	for _, k := range fresh {
		sh.bytes += int64(k.size)
		touched[k.incident] = struct{}{}
	}
	slices.SortFunc(fresh, sh.compare)
	sh.merge(fresh)
	sh.restate(touched)
}

// merge sorts fresh in from the end, in place: most are newer than all others.
func (sh *shelf) merge(fresh []sketch) {
	old, free := len(sh.list), len(fresh)
	if old+free > cap(sh.list) {
		// A quarter of room instead of append's double: memory is counted here.
		sh.list = append(make([]sketch, 0, old+free+max(64, old/4)), sh.list...)
	}
	sh.list = sh.list[:old+free]
	for at := len(sh.list) - 1; free > 0; at-- {
		if old > 0 && sh.compare(sh.list[old-1], fresh[free-1]) > 0 {
			old--
			sh.list[at] = sh.list[old]
			continue
		}
		free--
		sh.list[at] = fresh[free]
	}
}

// drop takes out what goes names.
func (sh *shelf) drop(goes map[place]struct{}) {
	touched := map[uint64]struct{}{}
	sh.list = slices.DeleteFunc(sh.list, func(k sketch) bool {
		_, out := goes[sh.place(k)]
		if out {
			sh.bytes -= int64(k.size)
			touched[k.incident] = struct{}{}
		}
		return out
	})
	sh.restate(touched)
}

// restate says anew which of the touched incidents are open, in one pass.
func (sh *shelf) restate(touched map[uint64]struct{}) {
	stories := make(map[uint64]story, len(touched))
	for _, k := range sh.list {
		if _, ok := touched[k.incident]; ok {
			s := stories[k.incident]
			s.add(k)
			stories[k.incident] = s
		}
	}
	for id := range touched {
		s, ok := stories[id]
		if ok && s.open() {
			sh.open[id] = struct{}{}
		} else {
			delete(sh.open, id)
		}
	}
}

// restateAll is restate for everything that is here, a sixteenth at a time: maps of
// all incidents at once would be most of the memory of a large store's start.
func (sh *shelf) restateAll() {
	for part := range uint64(16) {
		some := map[uint64]struct{}{}
		for _, k := range sh.list {
			if k.incident>>60 == part {
				some[k.incident] = struct{}{}
			}
		}
		sh.restate(some)
	}
}

// story is as much of an incident as decides whether it is open. It agrees with
// what manage.Fold makes of the same reports.
type story struct {
	acted, failed                int64 // newest
	hasActed, hasFailed          bool
	recovered, verified, watched bool
	waiting                      uint8 // phase of the report that watched speaks of
}

// add takes the reports of an incident, oldest first.
func (s *story) add(k sketch) {
	switch k.phase {
	case phaseVerified:
		s.verified = true
	case phaseActed:
		s.hasActed, s.acted, s.recovered = true, k.at, k.flags&flagRecovered != 0
	case phaseFailed:
		s.hasFailed, s.failed = true, k.at
	default:
		if k.phase >= s.waiting {
			s.waiting, s.watched = k.phase, k.flags&flagWatched != 0
		}
	}
}

func (s *story) open() bool {
	switch {
	case s.verified, s.hasFailed && (!s.hasActed || s.failed > s.acted):
		return false
	case s.hasActed:
		return !s.recovered
	}
	return !s.watched
}

// newestFirst yields open incidents' reports and then all others, newest first.
func (sh *shelf) newestFirst() iter.Seq[sketch] {
	return func(yield func(sketch) bool) {
		for _, wanted := range []bool{true, false} {
			if wanted && len(sh.open) == 0 {
				continue
			}
			for i := len(sh.list) - 1; i >= 0; i-- {
				_, open := sh.open[sh.list[i].incident]
				if open == wanted && !yield(sh.list[i]) {
					return
				}
			}
		}
	}
}

// of are the places of an incident's reports.
func (sh *shelf) of(incident uint64) (out []place) {
	for _, k := range sh.list {
		if k.incident == incident {
			out = append(out, sh.place(k))
		}
	}
	return out
}

// has reports whether there is a report of that phase of an incident.
func (sh *shelf) has(incident uint64, phase p2pnode.Phase) bool {
	want := uint8(max(0, slices.Index(phases, phase)))
	for i := len(sh.list) - 1; i >= 0; i-- {
		if k := sh.list[i]; k.incident == incident && k.phase == want {
			return true
		}
	}
	return false
}

// recent are the reports of the newest n incidents and of all open ones, and how
// many other incidents there are.
func (sh *shelf) recent(n int) (out []place, more int) {
	picked := maps.Clone(sh.open)
	others := map[uint64]struct{}{}
	for i := len(sh.list) - 1; i >= 0; i-- {
		id := sh.list[i].incident
		if _, ok := picked[id]; ok {
			continue
		}
		if len(picked) < n+len(sh.open) {
			picked[id] = struct{}{}
		} else {
			others[id] = struct{}{}
		}
	}
	for _, k := range sh.list {
		if _, ok := picked[k.incident]; ok {
			out = append(out, sh.place(k))
		}
	}
	return out, len(others)
}

// since counts incidents of which something was reported after t.
func (sh *shelf) since(t time.Time) int {
	seen := map[uint64]struct{}{}
	for i := len(sh.list) - 1; i >= 0 && sh.list[i].at > t.UnixNano(); i-- {
		seen[sh.list[i].incident] = struct{}{}
	}
	return len(seen)
}
