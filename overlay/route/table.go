package route

import (
	"maps"
	"slices"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Edge is one end's word about one of its links.
type Edge struct {
	Peer  peer.ID
	Class Class
}

// Links is the link record of one node, as decoded.
type Links struct {
	Of    peer.ID
	Edges []Edge
}

// DoubtPenalty is the price of passing through, or going to, a node that is
// under doubt: more than any sensible detour costs.
const DoubtPenalty = 1000

// Table answers where to go from one set of link records. It is immutable and
// safe for concurrent use; the trees that answers need are made when asked for.
type Table struct {
	self  int
	ids   []peer.ID       // sorted: an index stands for a node, its order breaks ties
	index map[peer.ID]int // inverse of ids
	adj   [][]half        // counted links, by neighbour
	named [][]int         // what either side's own record names, counted or not
	price []int32         // penalty of entering a node

	mu    sync.Mutex
	trees map[int]*tree
}

// half is a counted link as seen from one end.
type half struct {
	to    int
	cost  int32 // the dearer of the two ends' classes
	class Class
}

// Build makes the table of self. links holds at most one entry per node (of
// several the last one counts); penalty, which may be nil, prices nodes that are
// under doubt. A self without links is a table that knows no route. What self says of its
// own links it sees: they count also where the other end's record is older than the link.
func Build(self peer.ID, links []Links, penalty map[peer.ID]int) *Table {
	said := make(map[peer.ID]map[peer.ID]Class, len(links))
	all := map[peer.ID]bool{self: true}
	for _, l := range links {
		said[l.Of] = make(map[peer.ID]Class, len(l.Edges))
		all[l.Of] = true
		for _, e := range l.Edges {
			if e.Peer != l.Of {
				said[l.Of][e.Peer] = min(e.Class, MaxClass)
				all[e.Peer] = true
			}
		}
	}
	ids := slices.Sorted(maps.Keys(all))
	t := &Table{
		ids:   ids,
		index: make(map[peer.ID]int, len(ids)),
		adj:   make([][]half, len(ids)),
		named: make([][]int, len(ids)),
		price: make([]int32, len(ids)),
		trees: map[int]*tree{},
	}
	for i, id := range ids {
		t.index[id] = i
		t.price[i] = int32(max(0, min(penalty[id], maxPenalty)))
	}
	t.self = t.index[self]
	for of, edges := range said {
		for to, class := range edges {
			t.addWord(said, of, to, class)
		}
	}
	for i := range t.adj {
		slices.SortFunc(t.adj[i], func(a, b half) int { return a.to - b.to })
		slices.Sort(t.named[i])
		t.named[i] = slices.Compact(t.named[i])
	}
	return t
}

// addWord takes in that of's record lists to.
func (t *Table) addWord(said map[peer.ID]map[peer.ID]Class, of, to peer.ID, class Class) {
	a, b := t.index[of], t.index[to]
	t.named[a], t.named[b] = append(t.named[a], b), append(t.named[b], a)
	other, speaks := said[to]
	if speaks {
		back, lists := other[of]
		switch {
		case lists && a > b:
			return // counted from the other side
		case lists:
			class = max(class, back)
		case a != t.self:
			return // denied
		}
	}
	cost := int32(class.Cost())
	t.adj[a] = append(t.adj[a], half{to: b, cost: cost, class: class})
	t.adj[b] = append(t.adj[b], half{to: a, cost: cost, class: class})
}

// Self is the node that the table belongs to.
func (t *Table) Self() peer.ID { return t.ids[t.self] }

// Members lists every node that a record speaks of, and self, sorted by ID.
func (t *Table) Members() []peer.ID { return slices.Clone(t.ids) }

// Neighbours lists the nodes at the other end of id's counted links, sorted.
func (t *Table) Neighbours(id peer.ID) []peer.ID {
	i, ok := t.index[id]
	if !ok {
		return nil
	}
	out := make([]peer.ID, 0, len(t.adj[i]))
	for _, h := range t.adj[i] {
		out = append(out, t.ids[h.to])
	}
	return out
}

// Around lists the nodes that have or, by id's or their own last record, had a
// link with id, sorted. The neighbours of a dead node deny their links to it
// within milliseconds, its own record goes on naming them: this is where an
// errand to a dead node ends.
func (t *Table) Around(id peer.ID) []peer.ID {
	i, ok := t.index[id]
	if !ok {
		return nil
	}
	return t.names(t.named[i])
}

// Class is the class of the counted link between two nodes.
func (t *Table) Class(a, b peer.ID) (Class, bool) {
	i, okA := t.index[a]
	j, okB := t.index[b]
	if !okA || !okB {
		return 0, false
	}
	h, ok := t.link(i, j)
	return h.class, ok
}

func (t *Table) link(i, j int) (half, bool) {
	at, ok := slices.BinarySearchFunc(t.adj[i], j, func(h half, to int) int { return h.to - to })
	if !ok {
		return half{}, false
	}
	return t.adj[i][at], true
}

func (t *Table) names(nodes []int) []peer.ID {
	out := make([]peer.ID, len(nodes))
	for i, n := range nodes {
		out[i] = t.ids[n]
	}
	return out
}
