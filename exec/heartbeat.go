package exec

import (
	"sync"
	"time"
)

// heartbeats are the node process's. One that says what the one before it said, of a
// node process that is well, changes only the time after which it is hung: it waits
// here until the policy is asked something else. To wake the loop for each was most of
// what an idle exec cost.
type heartbeats struct {
	mu     sync.Mutex
	from   *session
	said   NodeHealth
	well   bool      // the node process, in the policy's view
	untold time.Time // when the last one came that the policy has not heard of
}

// again takes in a heartbeat that changes nothing; false where the policy must hear h.
func (b *heartbeats) again(from *session, h NodeHealth) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.well || b.from != from || b.said != h {
		return false
	}
	b.untold = time.Now()
	return true
}

// told: the policy heard h.
func (b *heartbeats) told(from *session, h NodeHealth) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.from, b.said, b.untold = from, h, time.Time{}
}

// tell gives what the policy has not heard of, once.
func (b *heartbeats) tell() (evNode, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	at := b.untold
	b.untold = time.Time{}
	return b.said.event(at), !at.IsZero()
}

func (b *heartbeats) nodeIs(well bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.well = well
}

func (h NodeHealth) event(at time.Time) evNode {
	return evNode{connected: true, at: at, life: h.Life, links: h.Links, orders: h.Orders}
}
