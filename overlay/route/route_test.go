package route

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"pgregory.net/rapid"

	"p2pnode"
)

// id is a well-formed peer ID that sorts by n.
func id(n int) peer.ID {
	var key [32]byte
	binary.BigEndian.PutUint32(key[:], uint32(n)+1)
	return p2pnode.PeerID(key[:])
}

func ids(ns ...int) []peer.ID {
	out := make([]peer.ID, len(ns))
	for i, n := range ns {
		out[i] = id(n)
	}
	return out
}

// graph makes link records in which both ends agree on every given link.
func graph(links ...[3]int) []Links {
	said := map[int][]Edge{}
	for _, l := range links {
		said[l[0]] = append(said[l[0]], Edge{Peer: id(l[1]), Class: Class(l[2])})
		said[l[1]] = append(said[l[1]], Edge{Peer: id(l[0]), Class: Class(l[2])})
	}
	var out []Links
	for n, e := range said {
		out = append(out, Links{Of: id(n), Edges: e})
	}
	return out
}

func TestChain(t *testing.T) {
	table := Build(id(0), graph([3]int{0, 1, 0}, [3]int{1, 2, 0}, [3]int{2, 3, 0}), nil)
	if got := table.Path(id(0), id(3)); !slices.Equal(got, ids(0, 1, 2, 3)) {
		t.Fatalf("path %v", got)
	}
	next, second, ok := table.Next(id(3))
	if !ok || next != id(1) || second != "" {
		t.Fatalf("next %v second %v ok %v: a chain has one way", next, second, ok)
	}
	if hops, _ := table.Hops(id(0), id(3)); hops != 3 {
		t.Fatalf("hops %d", hops)
	}
	if cost, ok := table.Cost(id(3), id(0)); !ok || cost != 3*Class(0).Cost() {
		t.Fatalf("cost %d %v", cost, ok)
	}
	if _, _, ok := table.Next(id(0)); ok {
		t.Fatal("a next hop to itself")
	}
	if _, _, ok := table.Next(id(9)); ok || table.Path(id(0), id(9)) != nil {
		t.Fatal("a route to somebody unknown")
	}
}

func TestRingHasSecondChoice(t *testing.T) {
	ring := graph([3]int{0, 1, 0}, [3]int{1, 2, 0}, [3]int{2, 3, 0}, [3]int{3, 4, 0}, [3]int{4, 0, 0})
	table := Build(id(0), ring, nil)
	for dst, want := range map[int][2]int{1: {1, 4}, 2: {1, 4}, 3: {4, 1}, 4: {4, 1}} {
		next, second, _ := table.Next(id(dst))
		if next != id(want[0]) || second != id(want[1]) {
			t.Errorf("to %d: next %v second %v", dst, next, second)
		}
	}
	alt := table.Alternatives(id(0), id(2))
	if len(alt) != 1 || !slices.Equal(alt[0], ids(0, 4, 3, 2)) {
		t.Errorf("alternatives %v", alt)
	}
}

func TestEdgeRule(t *testing.T) {
	say := func(of int, to ...int) Links {
		l := Links{Of: id(of)}
		for _, n := range to {
			l.Edges = append(l.Edges, Edge{Peer: id(n)})
		}
		return l
	}
	tests := []struct {
		name  string
		self  int
		links []Links
		want  bool
	}{
		{"both say so", 0, []Links{say(0, 1), say(1, 0)}, true},
		{"the other has no record", 0, []Links{say(0, 1)}, true},
		{"the far end alone says so", 0, []Links{say(1, 0)}, true},
		{"the other's record is older than self's link", 0, []Links{say(0, 1), say(1)}, true},
		{"of two others, one denies it", 2, []Links{say(0, 1), say(1)}, false},
		{"self denies it", 0, []Links{say(0), say(1, 0)}, false},
		{"nobody says so", 0, []Links{say(0), say(1)}, false},
	}
	for _, tt := range tests {
		table := Build(id(tt.self), tt.links, nil)
		if _, got := table.Hops(id(0), id(1)); got != tt.want {
			t.Errorf("%s: edge %v", tt.name, got)
		}
	}
}

func TestDearerEndCounts(t *testing.T) {
	table := Build(id(0), []Links{
		{Of: id(0), Edges: []Edge{{id(1), 0}}},
		{Of: id(1), Edges: []Edge{{id(0), 3}}},
	}, nil)
	if c, ok := table.Class(id(1), id(0)); !ok || c != 3 {
		t.Fatalf("class %d %v", c, ok)
	}
}

func TestAroundDeadNode(t *testing.T) {
	// 2 died: its record still names 1 and 3, both deny it.
	table := Build(id(0), []Links{
		{Of: id(0), Edges: []Edge{{Peer: id(1)}}},
		{Of: id(1), Edges: []Edge{{Peer: id(0)}}},
		{Of: id(2), Edges: []Edge{{Peer: id(1)}, {Peer: id(3)}}},
		{Of: id(3)},
	}, nil)
	if got := table.Neighbours(id(2)); len(got) != 0 {
		t.Fatalf("neighbours of the dead %v", got)
	}
	if got := table.Around(id(2)); !slices.Equal(got, ids(1, 3)) {
		t.Fatalf("around %v", got)
	}
}

func TestDoubtIsAvoidedNotForbidden(t *testing.T) {
	g := graph([3]int{0, 1, 0}, [3]int{1, 3, 0}, [3]int{0, 2, 4}, [3]int{2, 3, 4})
	calm, worried := Build(id(0), g, nil), Build(id(0), g, map[peer.ID]int{id(1): DoubtPenalty})
	if next, _, _ := calm.Next(id(3)); next != id(1) {
		t.Fatalf("calm: %v", next)
	}
	if next, _, _ := worried.Next(id(3)); next != id(2) {
		t.Fatalf("worried: %v", next)
	}
	if next, _, ok := worried.Next(id(1)); !ok || next != id(1) {
		t.Fatalf("a doubtful neighbour cannot be reached: %v %v", next, ok)
	}
}

func TestSecondPrefersOneThatNeedsNoNews(t *testing.T) {
	// To 3: 0-1-3. 2 would everyday go through 1 (cheap), 4 never does, though it
	// is dearer. 1 dies: 2 would send what it gets to 1, 4 delivers.
	g := graph([3]int{0, 1, 0}, [3]int{1, 3, 0}, [3]int{0, 2, 0}, [3]int{2, 1, 0}, [3]int{2, 3, 2}, [3]int{0, 4, 2}, [3]int{4, 3, 2})
	if _, second, _ := Build(id(0), g, nil).Next(id(3)); second != id(4) {
		t.Fatalf("second %v", second)
	}
}

func TestEqualWaysTakeTheLowestID(t *testing.T) {
	// Seen from 3, node 2 is reached first; both ways cost the same in the end.
	g := graph([3]int{3, 2, 0}, [3]int{3, 1, 1}, [3]int{0, 2, 1}, [3]int{0, 1, 0})
	if next, second, _ := Build(id(0), g, nil).Next(id(3)); next != id(1) || second != id(2) {
		t.Fatalf("next %v second %v", next, second)
	}
}

func TestAvoiding(t *testing.T) {
	ring := graph([3]int{0, 1, 0}, [3]int{1, 2, 0}, [3]int{2, 3, 0}, [3]int{3, 0, 0})
	table := Build(id(0), ring, nil)
	if next, ok := table.Avoiding(id(2), id(1)); !ok || next != id(3) {
		t.Fatalf("next %v %v", next, ok)
	}
	if _, ok := table.Avoiding(id(2), id(1), id(3)); ok {
		t.Fatal("a way through what was to be avoided")
	}
	if next, ok := table.Avoiding(id(1), id(1)); !ok || next != id(1) {
		t.Fatalf("the destination itself is always allowed: %v %v", next, ok)
	}
}

func drawGraph(t *rapid.T) (int, []Links, map[peer.ID]int) {
	n := rapid.IntRange(2, 14).Draw(t, "nodes")
	var links [][3]int
	for a := range n {
		for b := range a {
			if rapid.IntRange(0, 9).Draw(t, "edge") < 3 {
				links = append(links, [3]int{a, b, rapid.IntRange(0, 5).Draw(t, "class")})
			}
		}
	}
	penalty := map[peer.ID]int{}
	for a := range n {
		if rapid.IntRange(0, 9).Draw(t, "doubt") == 0 {
			penalty[id(a)] = DoubtPenalty
		}
	}
	return n, graph(links...), penalty
}

func TestPathIsWhatEachHopAnswers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, g, penalty := drawGraph(t)
		here := Build(id(0), g, penalty)
		for a := range n {
			for b := range n {
				path := here.Path(id(a), id(b))
				if path == nil {
					if _, _, ok := here.NextFrom(id(a), id(b)); ok {
						t.Fatalf("%d to %d: a next hop without a path", a, b)
					}
					continue
				}
				left, _ := here.Cost(id(a), id(b))
				for i, at := range path[:len(path)-1] {
					// Every node decides for itself, from its own table.
					next, _, ok := Build(at, g, penalty).Next(id(b))
					if !ok || next != path[i+1] {
						t.Fatalf("%d to %d: hop %d goes to %v, path says %v", a, b, i, next, path[i+1])
					}
					now, _ := here.Cost(next, id(b))
					if now >= left && next != id(b) {
						t.Fatalf("%d to %d: cost left does not fall: %d then %d", a, b, left, now)
					}
					left = now
				}
				if seen := slices.Compact(slices.Sorted(slices.Values(path))); len(seen) != len(path) {
					t.Fatalf("a loop: %v", path)
				}
			}
		}
	})
}

// without drops a node, or only the link between two of them.
func without(g []Links, gone func(a, b peer.ID) bool) []Links {
	var out []Links
	for _, l := range g {
		kept := Links{Of: l.Of}
		for _, e := range l.Edges {
			if !gone(l.Of, e.Peer) {
				kept.Edges = append(kept.Edges, e)
			}
		}
		out = append(out, kept)
	}
	return out
}

func TestSecondChoiceSurvivesLossOfFirst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, g, penalty := drawGraph(t)
		for a := range n {
			table := Build(id(a), g, penalty)
			for b := range n {
				next, second, ok := table.Next(id(b))
				if !ok {
					continue
				}
				if second == next {
					t.Fatal("second choice is the first one")
				}
				broken := without(g, func(x, y peer.ID) bool {
					if next == id(b) {
						return x == id(a) && y == next || x == next && y == id(a)
					}
					return x == next || y == next
				})
				_, exists := Build(id(a), broken, nil).Hops(id(a), id(b))
				if exists != (second != "") {
					t.Fatalf("%d to %d: way without %v exists=%v, second %q", a, b, next, exists, second)
				}
				if !exists {
					continue
				}
				// From there on without this node: what is left reaches b.
				rest := without(broken, func(x, y peer.ID) bool { return x == id(a) || y == id(a) })
				if _, ok := Build(second, rest, nil).Hops(second, id(b)); !ok {
					t.Fatalf("%d to %d: second choice %v leads back or nowhere", a, b, second)
				}
				if alt := table.Alternatives(id(a), id(b)); len(alt) == 0 {
					t.Fatalf("%d to %d: a second choice but no alternative", a, b)
				}
			}
		}
	})
}

func TestCheapest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, g, penalty := drawGraph(t)
		table := Build(id(0), g, penalty)
		// Floyd and Warshall as the witness.
		const far = 1 << 40
		d := make([][]int, n)
		for a := range n {
			d[a] = make([]int, n)
			for b := range n {
				d[a][b] = far
				if a == b {
					d[a][b] = 0
				} else if c, ok := table.Class(id(a), id(b)); ok {
					d[a][b] = c.Cost() + penalty[id(b)]
				}
			}
		}
		for k := range n {
			for a := range n {
				for b := range n {
					d[a][b] = min(d[a][b], d[a][k]+d[k][b])
				}
			}
		}
		for a := range n {
			for b := range n {
				cost, ok := table.Cost(id(a), id(b))
				_, inTable := table.index[id(b)]
				_, fromTable := table.index[id(a)]
				if !inTable || !fromTable {
					continue
				}
				if ok != (d[a][b] < far) || ok && cost != d[a][b] {
					t.Fatalf("%d to %d: cost %d %v, want %d", a, b, cost, ok, d[a][b])
				}
			}
		}
	})
}

func TestTreesAreBounded(t *testing.T) {
	table := Build(id(0), randomGraph(3*maxTrees/2, 4), nil)
	for _, dst := range table.Members() {
		table.Next(dst)
		if len(table.trees) > maxTrees {
			t.Fatalf("%d trees kept", len(table.trees))
		}
	}
}

func TestClassHysteresis(t *testing.T) {
	ms := func(f float64) time.Duration { return time.Duration(f * float64(time.Millisecond)) }
	tests := []struct {
		at   Class
		rtt  time.Duration
		want Class
	}{
		{0, ms(1), 0},
		{0, ms(2.2), 0},
		{0, ms(2.6), 1},
		{1, ms(1.8), 1},
		{1, ms(1.4), 0},
		{1, ms(90), 4},
		{5, ms(130), 5},
		{5, ms(100), 4},
		{4, ms(1), 0},
		{5, time.Hour, 5},
		{200, time.Hour, 5},
	}
	for _, tt := range tests {
		if got := tt.at.Follow(tt.rtt); got != tt.want {
			t.Errorf("class %d after %v: %d, want %d", tt.at, tt.rtt, got, tt.want)
		}
	}
	for c := Class(1); c <= MaxClass; c++ {
		if c.Cost() <= (c-1).Cost() || Classify(c.bound()-1) != c {
			t.Errorf("class %d out of order", c)
		}
	}
}

func randomGraph(n, degree int) []Links {
	rng := rand.New(rand.NewPCG(1, 2))
	var links [][3]int
	have := map[[2]int]bool{}
	for a := range n {
		for range degree {
			b := rng.IntN(n)
			if k := [2]int{min(a, b), max(a, b)}; a != b && !have[k] {
				have[k] = true
				links = append(links, [3]int{a, b, rng.IntN(3)})
			}
		}
	}
	return graph(links...)
}

// BenchmarkNext builds a table of 1,000 nodes with eight links each and asks for
// one next hop, which is what a node does after a change.
func BenchmarkNext(b *testing.B) {
	g := randomGraph(1000, 4)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		Build(id(0), g, nil).Next(id(1 + i%999))
	}
}

// BenchmarkNextWarm asks a table that has its trees.
func BenchmarkNextWarm(b *testing.B) {
	table := Build(id(0), randomGraph(1000, 4), nil)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		table.Next(id(1 + i%200))
	}
}
