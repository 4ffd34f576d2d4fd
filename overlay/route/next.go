package route

import (
	"cmp"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Next is where self sends what is for dst, and where it sends it when that
// fails; second is "" where there is no other way. ok is false when there is no
// way at all, and for dst == self.
func (t *Table) Next(dst peer.ID) (next, second peer.ID, ok bool) {
	return t.NextFrom(t.ids[t.self], dst)
}

// NextFrom is what node at, holding the same records, would answer to Next(dst).
func (t *Table) NextFrom(at, dst peer.ID) (next, second peer.ID, ok bool) {
	from, to, ok := t.pair(at, dst)
	if !ok || from == to {
		return "", "", false
	}
	tr := t.to(to)
	first := int(tr.next[from])
	if first < 0 {
		return "", "", false
	}
	if s := t.second(tr, from, first, to); s >= 0 {
		second = t.ids[s]
	}
	return t.ids[first], second, true
}

// second chooses the neighbour to try when first fails. If first is a node on
// the way, it is taken for dead; if it is the destination itself, only the link
// to it is. In both cases a way that comes back through from is none.
func (t *Table) second(tr *tree, from, first, to int) int {
	// No way may enter from, so none uses the link from it to first either.
	other := t.grow(to, func(n int) bool { return n == from || n == first && n != to })
	best, bestSure, bestCost := -1, false, int32(0)
	for _, h := range t.adj[from] {
		if h.to == first || other.left[h.to] == unreached {
			continue
		}
		sure := keepsAway(tr, h.to, from, first, to)
		cost := h.cost + t.price[h.to] + other.left[h.to]
		if best < 0 || sure && !bestSure || sure == bestSure && cost < bestCost {
			best, bestSure, bestCost = h.to, sure, cost
		}
	}
	return best
}

// keepsAway reports whether the everyday way from n avoids from and, unless it
// is the destination, first: then n needs not know that anything broke.
func keepsAway(tr *tree, n, from, first, to int) bool {
	for ; n >= 0; n = int(tr.next[n]) {
		if n == from || n == first && n != to {
			return false
		}
	}
	return true
}

// Avoiding is self's next hop to dst on the cheapest way through none of the
// given nodes (dst itself is always allowed): for a traveller that knows what
// failed, and where it has been.
func (t *Table) Avoiding(dst peer.ID, avoid ...peer.ID) (next peer.ID, ok bool) {
	to, known := t.index[dst]
	if !known || to == t.self {
		return "", false
	}
	tr := t.grow(to, func(n int) bool {
		return n != to && n != t.self && slices.Contains(avoid, t.ids[n])
	})
	if tr.next[t.self] < 0 {
		return "", false
	}
	return t.ids[tr.next[t.self]], true
}

// Path is the way from a to b that Next gives hop by hop, both ends included; nil
// if there is none, one node if a is b.
func (t *Table) Path(a, b peer.ID) []peer.ID {
	from, to, ok := t.pair(a, b)
	if !ok {
		return nil
	}
	way := t.to(to).way(from)
	if way == nil {
		return nil
	}
	return t.names(way)
}

// Alternatives lists ways from a to b that begin with another neighbour than
// Path does, one per neighbour, cheapest first, at most four. None comes back
// through a.
func (t *Table) Alternatives(a, b peer.ID) [][]peer.ID {
	from, to, ok := t.pair(a, b)
	if !ok || from == to {
		return nil
	}
	first := int(t.to(to).next[from])
	tr := t.grow(to, func(n int) bool { return n == from })
	type way struct {
		via  int
		cost int32
	}
	var ways []way
	for _, h := range t.adj[from] {
		if h.to != first && tr.left[h.to] != unreached {
			ways = append(ways, way{via: h.to, cost: h.cost + t.price[h.to] + tr.left[h.to]})
		}
	}
	slices.SortFunc(ways, func(x, y way) int { return cmp.Or(cmp.Compare(x.cost, y.cost), x.via-y.via) })
	var out [][]peer.ID
	for _, w := range ways[:min(len(ways), maxAlternatives)] {
		out = append(out, append([]peer.ID{a}, t.names(tr.way(w.via))...))
	}
	return out
}

// Cost is the cost of Path(a, b): link classes plus the prices of doubtful nodes
// on it. It is 0 for a == b; ok is false where there is no way.
func (t *Table) Cost(a, b peer.ID) (cost int, ok bool) {
	from, to, ok := t.pair(a, b)
	if !ok {
		return 0, false
	}
	left := t.to(to).left[from]
	if left == unreached {
		return 0, false
	}
	return int(left), true
}

// Hops is the number of links on Path(a, b).
func (t *Table) Hops(a, b peer.ID) (hops int, ok bool) {
	from, to, ok := t.pair(a, b)
	if !ok {
		return 0, false
	}
	way := t.to(to).way(from)
	return max(0, len(way)-1), way != nil
}

func (t *Table) pair(a, b peer.ID) (i, j int, ok bool) {
	i, okA := t.index[a]
	j, okB := t.index[b]
	return i, j, okA && okB
}
