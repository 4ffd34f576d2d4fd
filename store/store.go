package store

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
)

// Store is the reports that this node holds. Methods may be called from any
// goroutine; Put needs a running Run.
type Store struct {
	cfg     Config
	origin  peer.ID
	metrics *metrics
	puts    chan put
	broken  chan struct{} // a reader found the file dead
	wake    chan struct{} // somebody says that there is more to pull
	ready   chan struct{} // closed when the first attempt to open the file has ended
	ended   chan struct{} // closed when nothing is written any more
	serving chan struct{} // slots for answers to peers

	mu      sync.Mutex // guards what follows; never held across disk reads or writes
	disk    *disk      // nil while there is none
	trouble string     // why reports are not written; "": they are
	self    line
	next    uint64 // number of the next own report
	ix      index
	shelf   *shelf
	papers  map[peer.ID][][]byte
	unsaved map[place]taken // in memory until the disk works again
	waiting int64           // their bytes
	cache   map[place]decoded
	plain   map[place]*p2pnode.Excerpt // opened, of what is in cache
	changed chan struct{}
	heads   map[peer.ID]Head
	refused index // reports of strangers: not asked for again for a while
	seal    *sealKey
	readers readers
	sealed  string // why there are none; "": a worker never had any
	ledger  map[peer.ID]account
	sweeps  bool // somebody sent what is to be given up
}

// place is where a report is found.
type place struct {
	l   line
	seq uint64
}

var (
	// ErrClosed means that the store has ended: what was put was not written.
	ErrClosed = errors.New("store is closed")
	// ErrUnsaved means that what was put is kept in memory and spreads, but is not on
	// this disk yet: it is written as soon as that works. Do not put it again.
	ErrUnsaved = errors.New("not on disk yet")
)

// New makes a store; Run opens the file. The error is about cfg.
func New(cfg Config) (*Store, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	seal, err := newSealKey(cfg.SealTo)
	if err != nil {
		return nil, err
	}
	s := &Store{
		cfg: cfg, metrics: newMetrics(cfg.Metrics), origin: p2pnode.PeerID(cfg.Key.Public().(ed25519.PublicKey)), seal: seal,
		puts: make(chan put, maxQueued), broken: make(chan struct{}, 1), wake: make(chan struct{}, 1),
		ready: make(chan struct{}), ended: make(chan struct{}), serving: make(chan struct{}, servers),
		ix: index{}, shelf: newShelf(), papers: map[peer.ID][][]byte{}, unsaved: map[place]taken{}, cache: map[place]decoded{}, plain: map[place]*p2pnode.Excerpt{},
		changed: make(chan struct{}), heads: map[peer.ID]Head{}, refused: index{}, ledger: map[peer.ID]account{},
	}
	s.newEpochLocked()
	return s, nil
}

// newEpochLocked begins a new row of own numbers: wherever it is not certain which
// numbers of the old one are taken.
func (s *Store) newEpochLocked() {
	var b [8]byte
	rand.Read(b[:])
	s.self, s.next = line{s.origin, hex.EncodeToString(b[:])}, 1
}

// SetSeal changes whom excerpts are sealed to from now on.
func (s *Store) SetSeal(public []byte) error {
	seal, err := newSealKey(public)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seal = seal
	return nil
}

// SetReaders gives this node private halves of the cluster's reader keys, the
// present one and those before it: what is sealed to any of them is open here.
func (s *Store) SetReaders(private ...[]byte) error {
	keys, err := newReaders(private)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readers = keys
	clear(s.plain)
	return nil
}

// SetSealed says why excerpts stay sealed here while there are no readers; "" is what
// every worker is told.
func (s *Store) SetSealed(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sealed = why
}

// Ready is closed once the file was read, or could not be.
func (s *Store) Ready() <-chan struct{} { return s.ready }

// Changed is closed when a report is added.
func (s *Store) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// Trouble says why reports are not written to the disk; "" means that they are.
func (s *Store) Trouble() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trouble
}

// repair makes Run replace a file that died while it was read.
func (s *Store) repair() {
	select {
	case s.broken <- struct{}{}:
	default:
	}
}

// poke makes Lacking worth a look for whoever waits on Wake.
func (s *Store) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Put signs r as this node's next report and returns it with its identity once it
// is durable; ErrUnsaved if the disk does not take it now. What is too large for
// the limits is cut. ctx ends only the wait for a place in the queue.
func (s *Store) Put(ctx context.Context, r p2pnode.Report) (p2pnode.Report, error) {
	if r.Incident == "" || r.At.IsZero() {
		return r, errors.New("a report needs an incident and a time")
	}
	r = fit(r)
	p := put{own: &r, done: make(chan error, 1)}
	if err := s.enqueue(ctx, p); err != nil {
		return r, err
	}
	err := s.await(p)
	return r, err
}

func (s *Store) enqueue(ctx context.Context, p put) error {
	select {
	case <-s.ended:
		return ErrClosed
	default:
	}
	select {
	case s.puts <- p:
		return nil
	case <-s.ended:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Store) await(p put) error {
	select {
	case err := <-p.done:
		return err
	case <-s.ended:
	}
	select {
	case err := <-p.done: // written before the end
		return err
	default:
		return ErrClosed
	}
}
