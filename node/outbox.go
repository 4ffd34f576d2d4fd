package node

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/rs/zerolog"

	"p2pnode"
	"p2pnode/store"
)

// maxOutbox bounds the reports that wait for the store; what comes on top is
// dropped, and said.
const maxOutbox = 4096

// outbox takes the agents' reports to the store. An agent never waits for it: the
// goroutine that reports also publishes claims and stamps, and a disk that hangs
// must not stop those.
type outbox struct {
	log   zerolog.Logger
	wake  chan struct{}
	ended chan struct{} // closed when nothing comes any more and all is in the store

	mu      sync.Mutex
	waiting []p2pnode.Report // the first one may be on its way
	closed  bool
}

func newOutbox(log zerolog.Logger) *outbox {
	return &outbox{log: log, wake: make(chan struct{}, 1), ended: make(chan struct{})}
}

func (o *outbox) add(r p2pnode.Report) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.waiting) >= maxOutbox {
		o.log.Error().Str("incident", r.Incident).Msg("report dropped: too many wait for the store")
		return
	}
	o.waiting = append(o.waiting, r)
	o.poke()
}

// close says that no more comes.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.poke()
}

func (o *outbox) poke() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// has reports whether a report of that phase waits.
func (o *outbox) has(incident string, phase p2pnode.Phase) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.ContainsFunc(o.waiting, func(r p2pnode.Report) bool { return r.Incident == incident && r.Phase == phase })
}

// run hands reports over in order until close; before there is a store ctx ends it
// as well.
func (o *outbox) run(ctx context.Context, reports late[*store.Store]) error {
	defer close(o.ended)
	s, ok := reports.wait(ctx)
	for {
		r, more := o.first()
		switch {
		case !ok:
			o.log.Error().Int("reports", len(o.waiting)).Msg("this life ends without a store")
			return nil
		case more:
			o.put(s, r)
		case o.isClosed():
			return nil
		default:
			<-o.wake
		}
	}
}

func (o *outbox) first() (r p2pnode.Report, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.waiting) == 0 {
		return r, false
	}
	return o.waiting[0], true
}

func (o *outbox) isClosed() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closed && len(o.waiting) == 0
}

func (o *outbox) put(s *store.Store, r p2pnode.Report) {
	_, err := s.Put(context.Background(), r)
	if err != nil && !errors.Is(err, store.ErrUnsaved) {
		o.log.Error().Err(err).Str("incident", r.Incident).Msg("report lost")
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.waiting = slices.Delete(o.waiting, 0, 1)
}
