package store

import (
	"bytes"
	"cmp"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
)

// HeadBody is this node's head, for a record of p2pnode.DomainHead.
func (s *Store) HeadBody() ([]byte, error) {
	s.mu.Lock()
	head := Head{Epoch: s.self.epoch, Floor: 1}
	if h := s.ix[s.self]; h != nil {
		head.Count, head.Highest, head.Floor = h.here.count(), h.known().highest(), h.floor()
	}
	s.mu.Unlock()
	return encodeHead(head)
}

// OnRecord takes in another node's head. Where it names reports that are not here
// Wake fires.
func (s *Store) OnRecord(r p2pnode.Record) {
	head, err := decodeHead(r.Body)
	if err != nil {
		s.metrics.refuse("head")
		return
	}
	s.mu.Lock()
	s.heads[r.Signer] = head
	for l := range s.refused {
		if l.origin == r.Signer {
			delete(s.refused, l) // who signs records is a member by now
		}
	}
	missing := !s.ix.complete(line{r.Signer, head.Epoch}, head.Floor, head.Highest)
	s.mu.Unlock()
	if missing {
		s.poke()
	}
}

// Wake fires when something is known to be missing here.
func (s *Store) Wake() <-chan struct{} { return s.wake }

// Lacking are the origins whose heads name reports that are not here.
func (s *Store) Lacking() (out []peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lackingLocked() {
		out = append(out, l.origin)
	}
	return out
}

func (s *Store) lackingLocked() (out []line) {
	for id, head := range s.heads {
		if l := (line{id, head.Epoch}); !s.ix.complete(l, head.Floor, head.Highest) {
			out = append(out, l)
		}
	}
	return out
}

// Refused counts what peers sent and was not taken, by reason.
func (s *Store) Refused() map[string]uint64 { return s.metrics.refused() }

// oldestLocked is the age at which reports are given up.
func (s *Store) oldestLocked() int64 { return time.Now().Add(-s.cfg.Keep).UnixNano() }

// compareKeys is the order of the lines' keys on disk.
func (l line) compareKeys(other line) int { return bytes.Compare(lineKey(l), lineKey(other)) }

func sameChain(a, b [][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if cmp.Compare(string(a[i]), string(b[i])) != 0 {
			return false
		}
	}
	return true
}
