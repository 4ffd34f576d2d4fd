package records

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/overlay/records/recordspb"
)

// Digest is the sums of all records that anti-entropy covers: the first message
// of a round.
func (c *Core) Digest() []byte {
	return encode(&recordspb.Digest{Sums: c.sums[:]})
}

// Compare answers a digest with a listing of buckets that differ, as many as fit;
// the next listing goes on behind them. It is nil if everything is equal.
func (c *Core) Compare(digest []byte) ([]byte, error) {
	var theirs recordspb.Digest
	if err := decode(digest, &theirs); err != nil {
		return nil, err
	}
	if len(theirs.Sums) != buckets {
		return nil, fmt.Errorf("%w: digest of %d sums", ErrMessage, len(theirs.Sums))
	}
	held := c.byBucket()
	out := &recordspb.Listing{}
	room, start := MaxMessage-buckets*4, c.turn
	for i := range buckets {
		b := (start + i) % buckets
		if theirs.Sums[b] == c.sums[b] {
			continue
		}
		entries, size := listed(held[b])
		if len(out.Buckets) > 0 && (size > room || len(out.Entries)+len(entries) > maxEntries) {
			break
		}
		// A bucket too big for a message goes out cut: what is cut is offered
		// again by the other side, which is waste and no harm.
		for size > room || len(entries) > maxEntries {
			size -= entrySize(entries[len(entries)-1])
			entries = entries[:len(entries)-1]
		}
		room -= size
		out.Buckets = append(out.Buckets, uint32(b))
		out.Entries = append(out.Entries, entries...)
		c.turn = (b + 1) % buckets
	}
	if len(out.Buckets) == 0 {
		return nil, nil
	}
	return encode(out), nil
}

// byBucket sorts all that anti-entropy covers into buckets, each in the order in
// which it is to be handed over.
func (c *Core) byBucket() (out [buckets][]*entry) {
	for _, d := range c.order {
		if sh := c.shelves[d]; sh.spec.AntiEntropy {
			for _, e := range sh.entries {
				out[e.bucket] = append(out[e.bucket], e)
			}
		}
	}
	for _, es := range out {
		c.sort(es)
	}
	return out
}

func (c *Core) sort(es []*entry) {
	slices.SortFunc(es, func(a, b *entry) int {
		return cmp.Or(c.shelves[a.domain].rank-c.shelves[b.domain].rank,
			cmp.Compare(a.signer, b.signer), cmp.Compare(a.key, b.key))
	})
}

func listed(es []*entry) (out []*recordspb.Entry, size int) {
	for _, e := range es {
		m := e.listing()
		size += entrySize(m)
		out = append(out, m)
	}
	return out, size
}

func (e *entry) listing() *recordspb.Entry {
	return &recordspb.Entry{Domain: string(e.domain), Signer: []byte(e.signer), Key: e.key, Seq: e.seq, Hash: e.hash, Gone: e.gone()}
}

// entrySize is an upper bound of what m adds to a message.
func entrySize(m *recordspb.Entry) int {
	return len(m.Domain) + len(m.Signer) + len(m.Key) + 40
}

func keyOf(m *recordspb.Entry) entryKey {
	return entryKey{domain: p2pnode.Domain(m.Domain), signer: peer.ID(m.Signer), key: m.Key}
}

// Resolve answers a listing with what the other lacks and the names of what it
// has newer, as much as fits; the next round brings the rest. It is nil if
// there is nothing to trade.
func (c *Core) Resolve(now time.Time, listing []byte) ([]byte, error) {
	var theirs recordspb.Listing
	if err := decode(listing, &theirs); err != nil {
		return nil, err
	}
	if len(theirs.Buckets) > buckets || len(theirs.Entries) > maxEntries {
		return nil, fmt.Errorf("%w: listing of %d entries", ErrMessage, len(theirs.Entries))
	}
	known := make(map[entryKey]*recordspb.Entry, len(theirs.Entries))
	out := &recordspb.Exchange{}
	room := MaxMessage / 2
	for _, m := range theirs.Entries {
		k := keyOf(m)
		known[k] = m
		sh := c.shelves[k.domain]
		if m.Gone || sh == nil || !sh.spec.AntiEntropy || entrySize(m) > room {
			continue
		}
		if mine := sh.entries[k]; mine == nil || newer(m.Seq, m.Hash, mine) {
			out.Want = append(out.Want, m)
			room -= entrySize(m)
		}
	}
	out.Give = c.missing(now, theirs.Buckets, known)
	if len(out.Give) == 0 && len(out.Want) == 0 {
		return nil, nil
	}
	return encode(out), nil
}

// missing is what the holder of known lacks of the given buckets.
func (c *Core) missing(now time.Time, in []uint32, known map[entryKey]*recordspb.Entry) []*recordspb.Item {
	var give []*entry
	held := c.byBucket()
	done := [buckets]bool{}
	for _, b := range in {
		if b >= buckets || done[b] {
			continue
		}
		done[b] = true
		for _, e := range held[b] {
			if m := known[e.entryKey]; e.alive(now) && (m == nil || !newerEntry(m, e)) {
				give = append(give, e)
			}
		}
	}
	c.sort(give)
	return c.fit(now, give, MaxMessage/2)
}

// newerEntry reports whether the listed version is at least e's.
func newerEntry(m *recordspb.Entry, e *entry) bool {
	return m.Seq == e.seq && m.Hash == e.hash || newer(m.Seq, m.Hash, e)
}

// fit makes items of as many entries as go into room bytes. When not all do,
// every second answer starts where the last such one ended: what the other side
// keeps refusing must not stand in the way of the rest for ever.
func (c *Core) fit(now time.Time, es []*entry, room int) (out []*recordspb.Item) {
	skip := 0
	odd := c.cuts%2 == 1
	if odd && len(es) > 0 {
		skip = c.skip % len(es)
	}
	for i := range es {
		it := es[(skip+i)%len(es)].item(now)
		if it.size() > room || len(out) >= maxItems {
			c.cuts++
			if odd {
				c.skip = skip + i
			}
			break
		}
		room -= it.size()
		out = append(out, it.message())
	}
	return out
}

// Exchange takes in what from gave and returns, as a batch, what it wanted (nil:
// nothing), as much as fits. The results are TakeBatch's.
func (c *Core) Exchange(now time.Time, exchange []byte, from peer.ID) (batch []byte, taken []Result, err error) {
	var msg recordspb.Exchange
	if err := decode(exchange, &msg); err != nil {
		return nil, nil, err
	}
	items, err := itemsOf(msg.Give)
	if err != nil {
		return nil, nil, err
	}
	if len(msg.Want) > maxEntries {
		return nil, nil, fmt.Errorf("%w: %d records wanted", ErrMessage, len(msg.Want))
	}
	taken = c.takeAll(now, items, from)
	var give []*entry
	for _, m := range msg.Want {
		sh := c.shelves[p2pnode.Domain(m.Domain)]
		if sh == nil || !sh.spec.AntiEntropy {
			continue
		}
		if e := sh.entries[keyOf(m)]; e != nil && e.alive(now) {
			give = append(give, e)
		}
	}
	c.sort(give)
	out := c.fit(now, slices.Compact(give), MaxMessage-1)
	if len(out) == 0 {
		return nil, taken, nil
	}
	return encode(&recordspb.Batch{Items: out}), taken, nil
}
