package store

import (
	"maps"

	"github.com/libp2p/go-libp2p/core/peer"
)

// publish takes reports into the index, wakes readers, and tells whom it was told
// to tell.
func (r *runner) publish(fresh []taken) {
	if len(fresh) == 0 {
		return
	}
	r.mu.Lock()
	var added []sketch
	var told []taken
	for _, t := range fresh {
		if h := r.ix.of(t.line); h.gone.has(t.sketch.seq) || !h.here.add(t.sketch.seq) {
			continue
		}
		k := t.sketch
		k.line = r.shelf.number(t.line)
		added, told = append(added, k), append(told, t)
	}
	r.shelf.add(added)
	r.metrics.count(r.shelf)
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
	if r.cfg.Stored == nil {
		return
	}
	for _, t := range told {
		r.cfg.Stored(t.report)
	}
}

func setOf(places []place) map[place]struct{} {
	out := make(map[place]struct{}, len(places))
	for _, p := range places {
		out[p] = struct{}{}
	}
	return out
}

// newPapers are those that come with puts, and this node's own where they changed.
func (r *runner) newPapers(puts []put) map[peer.ID][][]byte {
	out := map[peer.ID][][]byte{}
	if chain := r.cfg.Chain(); len(chain) > 0 && !sameChain(chain, r.papers[r.origin]) {
		out[r.origin] = chain
	}
	for _, p := range puts {
		maps.Copy(out, p.papers)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.Copy(r.papers, out)
	return out
}
