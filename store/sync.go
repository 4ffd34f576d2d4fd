package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/store/storepb"
)

// Anti-entropy is pulled: the asker says what it knows, the answer is what it
// lacks, until there is no more. Both sides may be at it at once.
//
//	asker                              answerer
//	  Pull{digest}                  ->
//	                                <-   Batch{same}             done; or
//	  Pull{lines, spans of each}    ->
//	                                <-   Batch{reports, papers, more}
//	  (verify, store durably)
//	  Pull ...                      ->   until more is false
//
// A question that would be too long is asked in windows of lines, by turns. The
// first answers are short: what is open and what is newest is there at once.

// Bulk asks another node; the overlay's bulk call.
type Bulk func(ctx context.Context, to peer.ID, req []byte) ([]byte, error)

var errFull = errors.New("no room for reports of others while the disk does not work")

// Sync pulls from a peer everything that is missing here, and returns how many
// reports were new.
func (s *Store) Sync(ctx context.Context, to peer.ID, bulk Bulk) (int, error) {
	s.mu.Lock()
	digest := s.ix.digest()
	wants := s.papersMissingLocked()
	s.mu.Unlock()
	b, err := s.ask(ctx, to, bulk, &storepb.Pull{Digest: digest[:]})
	if err != nil || b.same && !wants {
		return 0, err
	}
	return s.pull(ctx, to, bulk, []window{{}})
}

// Fetch pulls from a peer only what heads name and is missing here.
func (s *Store) Fetch(ctx context.Context, to peer.ID, bulk Bulk) (int, error) {
	s.mu.Lock()
	var list []window
	for _, l := range s.lackingLocked() {
		k := lineKey(l)
		list = append(list, window{k, k})
	}
	s.mu.Unlock()
	return s.pull(ctx, to, bulk, list)
}

// window is lines that are asked about at once, first and last included.
type window struct{ first, upto []byte }

// pull asks about each window by turns until nobody has more.
func (s *Store) pull(ctx context.Context, to peer.ID, bulk Bulk, queue []window) (total int, err error) {
	for round := 0; len(queue) > 0 && round < maxRounds; round++ {
		q, rest := s.question(queue[0])
		if queue = queue[1:]; rest != nil {
			queue = append(queue, *rest)
		}
		if q.Most = maxBatch; round < 2 {
			q.Most = firstBatch
		}
		b, err := s.ask(ctx, to, bulk, q)
		if err != nil {
			return total, err
		}
		n, known, err := s.take(ctx, b)
		total += n
		if err != nil {
			return total, err
		}
		if b.more && n+known > 0 {
			queue = append(queue, window{q.First, q.Upto})
		}
	}
	return total, nil
}

func (s *Store) ask(ctx context.Context, to peer.ID, bulk Bulk, q *storepb.Pull) (batch, error) {
	req, err := frame(q)
	if err != nil {
		return batch{}, err
	}
	raw, err := bulk(ctx, to, req)
	if err != nil {
		return batch{}, err
	}
	s.metrics.pulled.Add(float64(len(raw)))
	b, err := decodeBatch(raw)
	if err != nil {
		s.metrics.refuse("batch")
		return batch{}, fmt.Errorf("batch of %s: %w", p2pnode.ShortID(to), err)
	}
	return b, nil
}

// question says what is known here of the lines of w, as many as fit; rest are the
// others.
func (s *Store) question(w window) (q *storepb.Pull, rest *window) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q = &storepb.Pull{First: w.first, Upto: w.upto}
	in := pull{first: w.first, upto: w.upto}
	lines := slices.Collect(maps.Keys(s.ix))
	for l := range s.refused {
		if s.ix[l] == nil {
			lines = append(lines, l)
		}
	}
	slices.SortFunc(lines, line.compareKeys)
	size := 0
	for _, l := range lines {
		if !in.covers(l) {
			continue
		}
		have := s.haveLocked(l)
		size += len(have.Origin) + len(have.Epoch) + len(have.Spans) + haveOverhead
		if size > maxQuestion && len(q.Have) > 0 {
			// This one ends with the line before; the rest begins right behind that: there
			// may be lines in between that nobody here knows.
			last := q.Have[len(q.Have)-1]
			q.Upto = lineKey(line{peer.ID(last.Origin), last.Epoch})
			rest = &window{append(slices.Clone(q.Upto), 0), w.upto}
			break
		}
		q.Have = append(q.Have, have)
	}
	return q, rest
}

func (s *Store) haveLocked(l line) *storepb.Have {
	var known spans
	if h := s.ix[l]; h != nil {
		known = h.known()
	}
	if h := s.refused[l]; h != nil {
		known = known.union(h.here)
	}
	_, papers := s.papers[l.origin]
	// A line of too many holes is asked for in part: some come again.
	return &storepb.Have{Origin: []byte(l.origin), Epoch: l.epoch, Spans: known[max(0, len(known)-maxSpans):].encode(), Papers: papers}
}

func (s *Store) papersMissingLocked() bool {
	if s.cfg.Certified == nil {
		return false
	}
	for l := range s.ix {
		if _, ok := s.papers[l.origin]; !ok {
			return true
		}
	}
	return false
}

// take verifies reports of others and stores the good ones durably: n are new,
// and known ones will not be asked for again.
func (s *Store) take(ctx context.Context, b batch) (n, known int, err error) {
	p := put{done: make(chan error, 1), papers: s.goodPapers(b.papers)}
	for _, raw := range b.reports {
		t, err := newTaken(raw)
		if err != nil {
			s.metrics.refuse("forged")
			continue
		}
		switch why := s.admit(t, p.papers); why {
		case "":
			p.others = append(p.others, t)
			n++
		case "known":
			known++
		default:
			s.metrics.refuse(why)
			if s.pass(t.place()) {
				known++
			}
		}
	}
	if n == 0 && len(p.papers) == 0 {
		return 0, known, nil
	}
	if err := s.enqueue(ctx, p); err != nil {
		return 0, known, err
	}
	if err := s.await(p); err != nil && !errors.Is(err, ErrUnsaved) {
		return 0, known, err
	}
	if s.Trouble() != "" && !s.holds(p.others) {
		return 0, known, errFull
	}
	return n, known, nil
}

// holds reports whether the last of the list is here: memory takes them in order.
func (s *Store) holds(list []taken) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(list) == 0 || s.ix.knows(list[len(list)-1].line, list[len(list)-1].sketch.seq)
}

// goodPapers are chains that lead to the cluster's root and are new here.
func (s *Store) goodPapers(chains [][][]byte) map[peer.ID][][]byte {
	out := map[peer.ID][][]byte{}
	for _, chain := range chains {
		size := 0
		for _, der := range chain {
			size += len(der)
		}
		if s.cfg.Certified == nil || size > maxChain {
			continue
		}
		id, err := s.cfg.Certified(chain)
		if err != nil {
			s.metrics.refuse("papers")
			continue
		}
		s.mu.Lock()
		if _, have := s.papers[id]; !have {
			out[id] = chain
		}
		s.mu.Unlock()
	}
	return out
}

// admit says why a verified report is not taken; "" if it is.
func (s *Store) admit(t taken, papers map[peer.ID][][]byte) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, certified := s.papers[t.line.origin]
	if _, now := papers[t.line.origin]; !now && !certified && s.cfg.Certified != nil && t.line.origin != s.origin {
		return "stranger"
	}
	if s.ix.knows(t.line, t.sketch.seq) {
		return "known"
	}
	h := s.ix[t.line]
	switch {
	case h != nil && len(h.here) >= maxSpans && !h.here.has(t.sketch.seq-1) && !h.here.has(t.sketch.seq+1):
		return "sparse"
	case h == nil && s.epochsLocked(t.line.origin) >= maxEpochs:
		return "epochs"
	}
	if t.at < s.oldestLocked() {
		s.sweeps = true
	}
	return ""
}

func (s *Store) epochsLocked(origin peer.ID) (n int) {
	if len(s.ix) < maxEpochs {
		return 0
	}
	for l := range s.ix {
		if l.origin == origin {
			n++
		}
	}
	return n
}

// pass notes a report that is not taken, so that it is not sent over and over and
// what stands behind it gets through.
func (s *Store) pass(p place) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, known := s.refused[p.l]
	if !known && len(s.refused) >= maxRefused || known && len(h.here) >= maxSpans {
		return false
	}
	return s.refused.of(p.l).here.add(p.seq)
}
