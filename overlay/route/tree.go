package route

// tree holds the cheapest ways to one destination from everywhere: the cost left
// and the next node. It is Dijkstra's algorithm run backwards from there.
type tree struct {
	left []int32 // cost to the destination; unreached if there is no way
	next []int32 // node to go to; -1 at the destination and where there is no way
}

const unreached = int32(1<<31 - 1)

// to is the tree of a destination over the whole table, kept for later questions.
func (t *Table) to(dst int) *tree {
	t.mu.Lock()
	kept := t.trees[dst]
	t.mu.Unlock()
	if kept != nil {
		return kept
	}
	// Made outside the lock: two askers may do the work twice, nobody waits.
	made := t.grow(dst, nil)
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.trees) >= maxTrees {
		clear(t.trees)
	}
	t.trees[dst] = made
	return made
}

// grow computes a tree in which no way goes through a closed node (nil: none is).
// Going from u to v costs the link and the price of v. Every cost is positive, so left falls strictly along next; of
// equally cheap ways the next node with the lowest ID is taken, everywhere alike.
func (t *Table) grow(dst int, closed func(int) bool) *tree {
	tr := &tree{left: make([]int32, len(t.ids)), next: make([]int32, len(t.ids))}
	for i := range tr.left {
		tr.left[i], tr.next[i] = unreached, -1
	}
	tr.left[dst] = 0
	q := &queue{{node: int32(dst)}}
	for len(*q) > 0 {
		at := q.pop()
		v := int(at.node)
		if at.cost > tr.left[v] {
			continue // an older, dearer entry
		}
		for _, h := range t.adj[v] {
			u := h.to
			if closed != nil && closed(u) {
				continue
			}
			cost := at.cost + h.cost + t.price[v]
			if cost < tr.left[u] {
				tr.left[u], tr.next[u] = cost, int32(v)
				q.push(step{cost: cost, node: int32(u)})
			} else if cost == tr.left[u] && int32(v) < tr.next[u] {
				tr.next[u] = int32(v)
			}
		}
	}
	return tr
}

// way lists the nodes from a to the tree's destination, a first; nil if there is
// no way.
func (tr *tree) way(a int) []int {
	if tr.left[a] == unreached {
		return nil
	}
	out := []int{a}
	for n := tr.next[a]; n >= 0; n = tr.next[n] {
		out = append(out, int(n))
	}
	return out
}

// step is an entry of queue, a binary heap by cost. container/heap would box
// every entry: three times slower at 1,000 nodes.
type step struct{ cost, node int32 }

type queue []step

func (q *queue) push(s step) {
	h := append(*q, s)
	i := len(h) - 1
	for i > 0 && h[(i-1)/2].cost > h[i].cost {
		h[i], h[(i-1)/2] = h[(i-1)/2], h[i]
		i = (i - 1) / 2
	}
	*q = h
}

func (q *queue) pop() step {
	h := *q
	top, last := h[0], len(h)-1
	h[0] = h[last]
	h = h[:last]
	for i := 0; ; {
		small := i
		for _, c := range [2]int{2*i + 1, 2*i + 2} {
			if c < last && h[c].cost < h[small].cost {
				small = c
			}
		}
		if small == i {
			break
		}
		h[i], h[small] = h[small], h[i]
		i = small
	}
	*q = h
	return top
}
