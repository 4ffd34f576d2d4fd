package keeper

import (
	"fmt"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// world is a network of Cores: dials take 5 ms, a cut makes them fail and ends
// the connections across it.
type world struct {
	t     *testing.T
	cores []*Core
	conns map[uint64][2]int // dialler, other end
	next  uint64
	now   time.Time
	side  func(int) int
}

func (w *world) index(p peer.ID) int {
	for i := range w.cores {
		if id(i) == p {
			return i
		}
	}
	return -1
}

func (w *world) step(n int, ev Event) {
	for _, e := range w.cores[n].Step(w.now, ev) {
		switch e := e.(type) {
		case Dial:
			to := w.index(e.Peer)
			if w.side(n) != w.side(to) {
				w.step(n, Dialled{Key: e.Key})
				continue
			}
			w.next++
			conn := w.next
			w.conns[conn] = [2]int{n, to}
			w.step(n, Dialled{Key: e.Key, Peer: e.Peer, OK: true})
			w.step(n, Up{Conn: conn, Peer: e.Peer, Outbound: true})
			w.step(to, Up{Conn: conn, Peer: id(n)})
		case Close:
			w.end(e.Conn)
		}
	}
}

func (w *world) end(conn uint64) {
	if ends, ok := w.conns[conn]; ok {
		delete(w.conns, conn)
		w.step(ends[0], Down{Conn: conn})
		w.step(ends[1], Down{Conn: conn})
	}
}

// reach is who can be reached from n over links.
func (w *world) reach(n int) map[int]bool {
	seen := map[int]bool{n: true}
	for grew := true; grew; {
		grew = false
		for _, e := range w.conns {
			if seen[e[0]] != seen[e[1]] {
				seen[e[0]], seen[e[1]], grew = true, true, true
			}
		}
	}
	return seen
}

// run lets time pass; every second all nodes learn who is lost and who has how
// many links, as records would tell them.
func (w *world) run(d time.Duration, until func() bool) time.Duration {
	from := w.now
	for beat := 0; w.now.Sub(from) < d; beat++ {
		if until != nil && until() {
			break
		}
		degree := map[int]int{}
		for _, e := range w.conns {
			degree[e[0]]++
			degree[e[1]]++
		}
		for n := range w.cores {
			if beat%4 == 0 {
				seen := w.reach(n)
				var list []Candidate
				for m := range w.cores {
					list = append(list, Candidate{ID: id(m), Addrs: []string{addr(m)}, Lost: !seen[m], Degree: degree[m]})
				}
				w.step(n, Known{list})
			}
			w.step(n, Tick{})
		}
		w.now = w.now.Add(250 * time.Millisecond)
	}
	return w.now.Sub(from)
}

func TestClusters(t *testing.T) {
	for _, n := range []int{2, 3, 5, 30} {
		for seed := range max(2, 6-n/5) {
			t.Run(fmt.Sprintf("%d nodes seed %d", n, seed), func(t *testing.T) {
				w := &world{t: t, conns: map[uint64][2]int{}, now: epoch, side: func(int) int { return 0 }}
				for i := range n {
					w.cores = append(w.cores, core(i, func(c *Config) { c.Rand = randOf(seed*1000 + i) }))
				}
				w.run(30*time.Second, nil)
				w.check(n)

				// A cut ends what crosses it, and only that.
				w.side = func(i int) int { return i % 2 }
				for conn, e := range w.conns {
					if w.side(e[0]) != w.side(e[1]) {
						w.end(conn)
					}
				}
				w.run(3*time.Minute, nil)
				if got := len(w.reach(0)); got != (n+1)/2 {
					t.Fatalf("%d of %d on one side are connected", got, (n+1)/2)
				}
				w.side = func(int) int { return 0 }
				took := w.run(time.Minute, func() bool { return len(w.reach(0)) == n })
				if took > 6*time.Second {
					t.Fatalf("healed after %v", took)
				}
				w.run(30*time.Second, nil)
				w.check(n)
			})
		}
	}
}

// check asks for what the package comment promises of a network at rest.
func (w *world) check(n int) {
	w.t.Helper()
	if got := len(w.reach(0)); got != n {
		w.t.Fatalf("%d of %d connected", got, n)
	}
	between, links := map[[2]int]int{}, map[int]int{}
	for _, e := range w.conns {
		between[[2]int{min(e[0], e[1]), max(e[0], e[1])}]++
		links[e[0]]++
		links[e[1]]++
	}
	for pair, count := range between {
		if count > 1 {
			w.t.Fatalf("%d connections between %v", count, pair)
		}
	}
	for i := range n {
		if links[i] < min(DefaultDialled, n-1) || links[i] > DefaultMost+1 {
			w.t.Fatalf("node %d has %d links", i, links[i])
		}
	}
}
