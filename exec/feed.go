package exec

import (
	"sync"

	"p2pnode"
)

// feed numbers events, keeps the last ones and hands them to readers. A reader
// that is too slow misses events; it sees that by a gap in Seq.
type feed struct {
	mu      sync.Mutex
	seq     uint64
	ring    []p2pnode.ExecEvent
	readers map[chan p2pnode.ExecEvent]struct{}
}

func newFeed() *feed { return &feed{readers: map[chan p2pnode.ExecEvent]struct{}{}} }

func (f *feed) publish(ev p2pnode.ExecEvent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seq++
	ev.Seq = f.seq
	if len(f.ring) == eventRing {
		f.ring = append(f.ring[:0], f.ring[1:]...)
	}
	f.ring = append(f.ring, ev)
	for r := range f.readers {
		select {
		case r <- ev:
		default:
		}
	}
}

// subscribe returns what the ring holds after seq and a channel for the rest.
func (f *feed) subscribe(after uint64) ([]p2pnode.ExecEvent, chan p2pnode.ExecEvent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var past []p2pnode.ExecEvent
	for _, ev := range f.ring {
		if ev.Seq > after {
			past = append(past, ev)
		}
	}
	ch := make(chan p2pnode.ExecEvent, clientQueue)
	f.readers[ch] = struct{}{}
	return past, ch
}

func (f *feed) unsubscribe(ch chan p2pnode.ExecEvent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.readers, ch)
}
