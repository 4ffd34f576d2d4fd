package records

import (
	"slices"
	"time"

	"p2pnode"
)

// makeRoom reports whether e may come in, and pushes out the signer's lowest
// number if it holds too many keys. It prefers the memory of expired ones. What
// stays are always the highest numbers, in whatever order they came.
func (c *Core) makeRoom(sh *shelf, e *entry) bool {
	if sh.entries[e.entryKey] != nil {
		return true
	}
	if sh.of[e.signer] >= sh.spec.MaxKeys {
		var low *entry
		for _, o := range sh.entries {
			if o.signer == e.signer && (low == nil || weaker(o, low)) {
				low = o
			}
		}
		if !low.gone() && low.seq > e.seq {
			return false
		}
		c.drop(sh, low)
	}
	return len(sh.entries) < sh.spec.MaxTotal
}

func weaker(a, b *entry) bool {
	if a.gone() != b.gone() {
		return a.gone()
	}
	return a.seq < b.seq || a.seq == b.seq && a.key < b.key
}

func (c *Core) put(sh *shelf, e *entry) {
	if old := sh.entries[e.entryKey]; old != nil {
		c.unsum(sh, old)
	} else {
		sh.of[e.signer]++
	}
	e.bucket = e.entryKey.bucket()
	sh.entries[e.entryKey] = e
	if sh.spec.AntiEntropy {
		c.sums[e.bucket] ^= e.mark(e.seq, e.hash)
	}
}

func (c *Core) unsum(sh *shelf, e *entry) {
	if sh.spec.AntiEntropy && !e.gone() {
		c.sums[e.bucket] ^= e.mark(e.seq, e.hash)
	}
}

func (c *Core) drop(sh *shelf, e *entry) {
	c.unsum(sh, e)
	delete(sh.entries, e.entryKey)
	if sh.of[e.signer]--; sh.of[e.signer] == 0 {
		delete(sh.of, e.signer)
	}
}

// Sweep ends what has expired by now and returns it, and publishes again what was
// Refuted. Call it with each heartbeat; Records and Get leave out what expired in
// between.
func (c *Core) Sweep(now time.Time) []p2pnode.Record {
	var ended []p2pnode.Record
	for _, d := range c.order {
		sh := c.shelves[d]
		grave := graveShort
		if sh.spec.AntiEntropy {
			grave = graveLong
		}
		for _, e := range sh.entries {
			switch {
			case e.gone() && !now.Before(e.forget):
				c.drop(sh, e)
			case !e.gone() && !e.alive(now):
				ended = append(ended, e.record())
				c.unsum(sh, e)
				e.forget = now.Add(grave)
				e.envelope, e.body = nil, nil
			}
		}
	}
	for id, r := range c.rates {
		if now.Sub(r.since) > time.Minute {
			delete(c.rates, id)
		}
	}
	c.refute(now)
	slices.SortFunc(ended, compareRecords)
	return ended
}

func (e *entry) alive(now time.Time) bool {
	return !e.gone() && (e.expires.IsZero() || e.expires.After(now))
}

// expiry is when a record ends here: the signer's wish, cut to what is left of
// it where it came from and to what the domain allows.
func expiry(now time.Time, ttlMS, leftMS uint64, longest time.Duration) time.Time {
	ttl := duration(ttlMS)
	if ttl == 0 || longest > 0 && ttl > longest {
		ttl = longest
	}
	if left := duration(leftMS); left > 0 && (ttl == 0 || left < ttl) {
		ttl = left
	}
	if ttl == 0 {
		return time.Time{}
	}
	return now.Add(ttl)
}

func duration(ms uint64) time.Duration {
	return time.Duration(min(ms, uint64(maxTTL/time.Millisecond))) * time.Millisecond
}

// milliseconds rounds up: a time that has not run out never becomes "no limit".
func milliseconds(d time.Duration) uint64 {
	return uint64((max(0, d) + time.Millisecond - 1) / time.Millisecond)
}
