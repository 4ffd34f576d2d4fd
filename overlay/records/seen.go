package records

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

func hashOf(envelope []byte) uint64 {
	h := sha256.Sum256(envelope)
	return binary.BigEndian.Uint64(h[:8])
}

// seen remembers the hashes of the last maxSeen judged items.
type seen struct {
	at   map[[16]byte]struct{}
	ring [][16]byte
	next int
}

func seenKey(item Item) (k [16]byte) {
	h := sha256.New()
	h.Write([]byte(item.Domain))
	h.Write([]byte{0})
	h.Write(item.Envelope)
	copy(k[:], h.Sum(nil))
	return k
}

func (s *seen) has(k [16]byte) bool {
	_, ok := s.at[k]
	return ok
}

func (s *seen) add(k [16]byte) {
	if s.has(k) {
		return
	}
	s.at[k] = struct{}{}
	if len(s.ring) < maxSeen {
		s.ring = append(s.ring, k)
		return
	}
	delete(s.at, s.ring[s.next])
	s.ring[s.next] = k
	s.next = (s.next + 1) % maxSeen
}

// rate counts a signer's new records in the current second.
type rate struct {
	since time.Time
	n     int
}

func (c *Core) rateOf(id peer.ID) *rate {
	r := c.rates[id]
	if r == nil {
		r = &rate{}
		c.rates[id] = r
	}
	return r
}

func (r *rate) over(now time.Time) bool {
	if now.Sub(r.since) >= time.Second {
		r.since, r.n = now, 0
	}
	return r.n >= maxRate
}
