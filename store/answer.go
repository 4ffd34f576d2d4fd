package store

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// HandleBulk answers a Pull of a member.
func (s *Store) HandleBulk(ctx context.Context, from peer.ID, req []byte) ([]byte, error) {
	q, err := decodePull(req)
	if err != nil {
		s.metrics.refuse("pull")
		return nil, err
	}
	select {
	case s.serving <- struct{}{}:
		defer func() { <-s.serving }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if len(q.digest) > 0 {
		s.mu.Lock()
		mine := s.ix.digest()
		s.mu.Unlock()
		return encodeBatch(batch{same: bytes.Equal(mine[:], q.digest)})
	}
	if !s.charge(from, 0) {
		s.metrics.refuse("rate")
		return nil, errors.New("asked for too much; ask again later")
	}
	raw, err := encodeBatch(s.answer(q))
	s.charge(from, len(raw))
	s.metrics.sent.Add(float64(len(raw)))
	return raw, err
}

// answer is what they lack, as much as fits: reports of open incidents first, then
// the newest, and the papers of their origins.
func (s *Store) answer(q *pull) batch {
	places, more := s.lackingThere(q)
	b := batch{more: more}
	size, origins := 0, map[peer.ID]bool{}
	for _, p := range places {
		raw, err := s.raw(p)
		if err != nil {
			continue // nobody is served what is damaged here
		}
		if size += len(raw); size > q.most && len(b.reports) > 0 {
			b.more = true
			break
		}
		b.reports = append(b.reports, raw)
		origins[p.l.origin] = true
	}
	for l := range q.theirs {
		if q.covers(l) {
			origins[l.origin] = true
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range origins {
		if chain := s.papers[id]; len(chain) > 0 && !q.papers[id] && len(b.papers) < maxLines {
			b.papers = append(b.papers, chain)
		}
	}
	return b
}

// lackingThere picks by sketches: nothing is read for what they have.
func (s *Store) lackingThere(q *pull) (out []place, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked, theirs := make([]bool, len(s.shelf.lines)), make([]*held, len(s.shelf.lines))
	for n, l := range s.shelf.lines {
		asked[n], theirs[n] = q.covers(l), q.theirs[l]
	}
	size := 0
	for k := range s.shelf.newestFirst() {
		if !asked[k.line] || theirs[k.line] != nil && theirs[k.line].here.has(k.seq) {
			continue
		}
		if size > q.most {
			return out, true
		}
		size += int(k.size)
		out = append(out, s.shelf.place(k))
	}
	return out, false
}

// account is what a peer may still be sent.
type account struct {
	left float64
	at   time.Time
}

// charge takes n bytes off a peer's account, which fills again with time, and says
// whether anything is left on it.
func (s *Store) charge(from peer.ID, n int) bool {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.ledger[from]
	if !ok {
		a = account{left: peerBurst, at: now}
		for id, other := range s.ledger {
			if len(s.ledger) >= peerLedger && now.Sub(other.at) > peerBurst/peerRate*time.Second {
				delete(s.ledger, id) // full again
			}
		}
	}
	a.left = min(peerBurst, a.left+peerRate*now.Sub(a.at).Seconds()) - float64(n)
	a.at = now
	s.ledger[from] = a
	return a.left > 0
}
