package manage

import (
	"encoding/json"
	"sync"
	"time"

	"p2pnode"
)

// Events is a bounded memory of what happened on this node, numbered from 1. Add
// never blocks; a reader that falls further behind than the memory reaches is
// told so by an event "gap".
type Events struct {
	mu      sync.Mutex
	ring    []p2pnode.EventDoc // ring[i] has Seq first+i
	first   uint64
	changed chan struct{} // closed at the next Add
}

// NewEvents is an empty memory.
func NewEvents() *Events { return &Events{first: 1, changed: make(chan struct{})} }

// Add notes event about node with its fields (anything that marshals).
func (e *Events) Add(at time.Time, node, event string, fields any) {
	raw, err := json.Marshal(fields)
	if err != nil {
		raw = nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.ring) == maxEvents {
		e.ring = append(e.ring[:0:0], e.ring[maxEvents/4:]...)
		e.first += maxEvents / 4
	}
	e.ring = append(e.ring, p2pnode.EventDoc{Seq: e.first + uint64(len(e.ring)), At: at, Node: node, Event: event, Fields: raw})
	close(e.changed)
	e.changed = make(chan struct{})
}

// After returns the events after seq and a channel that closes when there are
// more. Where some are no longer remembered the first one says how many.
func (e *Events) After(seq uint64) ([]p2pnode.EventDoc, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []p2pnode.EventDoc
	last := e.first + uint64(len(e.ring)) - 1
	switch {
	case seq > last: // of an earlier life of this node process: begin anew
		seq = 0
		out = append(out, gap(e.first-1, 0))
	case seq+1 < e.first:
		out = append(out, gap(e.first-1, e.first-1-seq))
		seq = e.first - 1
	}
	seq = max(seq, e.first-1)
	return append(out, e.ring[seq-(e.first-1):]...), e.changed
}

// gap is the event that says that some are missing; lost 0 means that nobody
// knows how many.
func gap(seq, lost uint64) p2pnode.EventDoc {
	d := p2pnode.EventDoc{Seq: seq, At: time.Now(), Event: "gap"}
	if lost > 0 {
		d.Fields, _ = json.Marshal(map[string]uint64{"lost": lost})
	}
	return d
}
