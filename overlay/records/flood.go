package records

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode/overlay/records/recordspb"
)

// outbox is what waits for one link: names of records, not their bytes, so that
// the newest version goes out and a busy record waits only once.
type outbox struct {
	urgent, rest []entryKey
	waiting      map[entryKey]bool
}

// Link opens an outbox for a neighbour. It starts empty: run a round of
// anti-entropy when a link comes up.
func (c *Core) Link(to peer.ID) {
	if c.links[to] == nil {
		c.links[to] = &outbox{waiting: map[entryKey]bool{}}
	}
}

// Unlink drops a neighbour's outbox and what waits in it.
func (c *Core) Unlink(to peer.ID) { delete(c.links, to) }

// Urgent lists the links for which something waits that should go now, sorted.
func (c *Core) Urgent() []peer.ID {
	var out []peer.ID
	for to, box := range c.links {
		if len(box.urgent) > 0 {
			out = append(out, to)
		}
	}
	slices.Sort(out)
	return out
}

// queue puts a new record into every outbox but the sender's, and where it is lean
// those of the sender's own neighbours.
func (c *Core) queue(e *entry, from peer.ID) {
	spec := c.shelves[e.domain].spec
	urgent := spec.Urgent
	for to, box := range c.links {
		if to == from || box.waiting[e.entryKey] {
			continue
		}
		if spec.Lean && from != "" && c.cfg.Linked != nil && c.cfg.Linked(from, to) {
			continue
		}
		if len(box.waiting) >= maxQueue {
			box.dropOldest()
			c.counts[CountDropped]++
		}
		box.waiting[e.entryKey] = true
		if urgent {
			box.urgent = append(box.urgent, e.entryKey)
		} else {
			box.rest = append(box.rest, e.entryKey)
		}
	}
}

// dropOldest makes room at the cost of what is not urgent first.
func (b *outbox) dropOldest() {
	q := &b.rest
	if len(*q) == 0 {
		q = &b.urgent
	}
	delete(b.waiting, (*q)[0])
	*q = (*q)[1:]
}

// Batch takes what waits for a link, urgent records first, as one message of at
// most limit bytes (MaxMessage at most, one record at least); with all unset the
// urgent ones only. It returns nil when nothing waits, and is to be called again
// until then, or with the next heartbeat.
func (c *Core) Batch(now time.Time, to peer.ID, all bool, limit int) []byte {
	box := c.links[to]
	if box == nil {
		return nil
	}
	room := max(MaxItem, min(limit, MaxMessage)-1)
	var msg recordspb.Batch
	full := c.fill(&msg, now, box, &box.urgent, &room)
	if all && !full {
		c.fill(&msg, now, box, &box.rest, &room)
	}
	if len(msg.Items) == 0 {
		return nil
	}
	return encode(&msg)
}

// fill moves records from a queue into msg until the next one has no room.
func (c *Core) fill(msg *recordspb.Batch, now time.Time, box *outbox, q *[]entryKey, room *int) (full bool) {
	for len(*q) > 0 {
		k := (*q)[0]
		if e := c.shelves[k.domain].entries[k]; e != nil && e.alive(now) {
			item := e.item(now)
			if item.size() > *room || len(msg.Items) >= maxItems {
				return true
			}
			*room -= item.size()
			msg.Items = append(msg.Items, item.message())
		}
		delete(box.waiting, k)
		*q = (*q)[1:]
	}
	*q = nil
	return false
}

func (e *entry) item(now time.Time) Item {
	it := Item{Domain: e.domain, Envelope: e.envelope}
	if !e.expires.IsZero() {
		it.LeftMS = max(1, milliseconds(e.expires.Sub(now)))
	}
	return it
}

// TakeBatch takes in every record of a batch and returns the results that matter:
// all but Stale. An error means that the batch itself is damaged and nothing of
// it was taken in; the link's other end is to blame.
func (c *Core) TakeBatch(now time.Time, batch []byte, from peer.ID) ([]Result, error) {
	items, err := DecodeBatch(batch)
	if err != nil {
		return nil, err
	}
	return c.takeAll(now, items, from), nil
}

func (c *Core) takeAll(now time.Time, items []Item, from peer.ID) []Result {
	var out []Result
	for _, it := range items {
		if res := c.Take(now, it, from); res.Verdict != Stale || res.Conflict {
			out = append(out, res)
		}
	}
	return out
}
