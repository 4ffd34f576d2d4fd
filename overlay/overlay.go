package overlay

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	mss "github.com/multiformats/go-multistream"

	"p2pnode"
	"p2pnode/overlay/discover"
	"p2pnode/overlay/keeper"
	"p2pnode/overlay/papers"
	"p2pnode/overlay/records"
	"p2pnode/overlay/route"
)

// Handler answers a call; from is the neighbour, or the origin of a routed call.
type Handler func(ctx context.Context, from peer.ID, req []byte) ([]byte, error)

// LinkEvent says that the links with a peer began, or that the last one ended.
type LinkEvent struct {
	Peer  peer.ID
	Up    bool
	Life  p2pnode.Life // of the peer, as its hello said
	Cause string       // of an end: one of the Cause constants here or in package keeper
	At    time.Time
}

// Causes of a link's end beside keeper's.
const (
	CauseBye    = "bye"    // the peer's life ends in good order
	CauseClosed = "closed" // the peer wants this link no longer, and lives on
	CauseLost   = "lost"   // the connection broke
	CauseSilent = "silent" // writes were stuck, or nothing was heard for long
)

// Overlay is one node's place in the network of nodes.
type Overlay struct {
	cfg    Config
	key    ed25519.PrivateKey
	self   peer.ID
	life   p2pnode.Life
	listen net.Listener
	addr   netip.AddrPort
	stack  *stack
	rules  []protocolRule
	mux    *mss.MultistreamMuxer[protocol.ID]
	deny   keeper.Deny
	book   *discover.Book
	kept   []p2pnode.Domain // whose records are kept on disk

	privileged []p2pnode.Domain // whose records only managers sign, but for revocations

	keptDirty bool // guarded by mu

	calls, routed, bulk map[string]Handler
	onLink              func(LinkEvent)
	onMissed            func(peer.ID, int)
	onStanding          func()
	onRefused           func(Refused)
	onGossipKey         func([]byte)
	deliver             map[p2pnode.Domain]func(p2pnode.Record)

	admitted chan struct{} // closed once there is a certificate
	found    chan foundPeer
	gossip   chan GossipConn
	events   chan func() // callbacks, in order
	poke     chan struct{}
	work     sync.WaitGroup
	ctx      context.Context // of Run: for what callbacks start
	addrsAt  time.Time       // when our addresses were last looked at; Run's loop alone

	current   atomic.Pointer[View]
	multicast func(context.Context, discover.MDNSConfig) error
	resolver  discover.Resolver
	admitting chan struct{} // a token per request for admission that is being answered
	leaving   chan struct{} // closed by Leave
	dissolved chan struct{} // closed once the papers are another cluster's
	running   chan struct{} // closed once there is a stack to dial with

	mu         sync.Mutex
	papers     *papers.Cluster // nil before admission
	cert       p2pnode.Certificate
	readers    [][]byte  // private reader keys; managers only
	seal       word      // the reader key that counts
	sealLeft   keeping   // what is to be done about it
	dissolving bool      // another cluster is asked for admission, or has let this node in
	renewAsked time.Time // when a new certificate was last asked for
	demotedBy  string    // who took this node's privilege; "": nobody
	ledger     papers.Ledger
	records    *records.Core
	keeper     *keeper.Core
	certs      map[peer.ID]certEntry
	lives      map[peer.ID]*lives
	revoked    p2pnode.Revocations    // replaced as a whole
	forgotten  map[peer.ID]uint64     // the newest peer record that does not count any more
	gone       map[peer.ID]former     // who was a member and is none, without having been revoked
	conns      map[string]*connection // by libp2p's connection ID
	links      map[uint64]*link
	nextID     uint64
	managing   bool
	door       string
	penalty    map[peer.ID]int
	classes    map[peer.ID]route.Class
	proven     map[peer.ID]netip.AddrPort
	from       map[peer.ID]netip.Addr
	hints      []string        // --join, and what Join added
	itself     map[string]bool // hints at which nobody but this node answers
	seen       []foundPeer
	admitter   discover.Entry // who let this node in, until its first link
	joinError  error
	troubles   map[string]time.Time // when each reason not to be a member was last said
	knownAt    *View                // what the keeper knows
	bookSaved  time.Time
	watched    time.Time // when heartbeats were last looked at
	addrs      []string  // as last published
	bulkBusy   map[peer.ID]int
	view       *View
	viewAt     time.Time
	viewDue    time.Time // zero: current
	changed    chan struct{}
	linkPace   pace      // of our link record
	linkDue    time.Time // zero: nothing to say
	movedAt    time.Time // a link came, went or was asked for
	peerSaid   time.Time
	closing    bool
	seeking    bool // the gossip key that was rotated

	countMu sync.Mutex
	counts  map[string]uint64
}

// New loads the node's identity and papers from cfg.Dir and listens; nothing runs
// and nothing is answered before Run. Errors that a person can mend are
// *p2pnode.Error.
func New(cfg Config) (*Overlay, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	key, err := p2pnode.LoadOrCreateKey(filepath.Join(cfg.Dir, "node.key"))
	if err != nil {
		return nil, err
	}
	deny, err := keeper.NewDeny(cfg.DenyLinks)
	if err != nil {
		return nil, err
	}
	book, err := discover.OpenBook(filepath.Join(cfg.Dir, "peers.json"))
	if err != nil {
		cfg.Log.Warn().Err(err).Msg("the peer book was damaged and starts anew")
	}
	if cfg.Interfaces == nil {
		cfg.Interfaces = discover.Interfaces
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.NewPCG(rand.Uint64(), rand.Uint64())
	}
	o := &Overlay{
		cfg: cfg, key: key, self: p2pnode.PeerID(key.Public().(ed25519.PublicKey)), deny: deny, book: book,
		calls: map[string]Handler{}, routed: map[string]Handler{}, bulk: map[string]Handler{}, deliver: map[p2pnode.Domain]func(p2pnode.Record){},
		admitted: make(chan struct{}), found: make(chan foundPeer, 16), gossip: make(chan GossipConn, gossipQueue),
		events: make(chan func(), deliveryQueue), poke: make(chan struct{}, 1),
		certs: map[peer.ID]certEntry{}, lives: map[peer.ID]*lives{}, forgotten: map[peer.ID]uint64{}, gone: map[peer.ID]former{}, conns: map[string]*connection{}, links: map[uint64]*link{},
		changed: make(chan struct{}), counts: map[string]uint64{}, door: cfg.Door, rules: protocols(),
		itself: map[string]bool{}, classes: map[peer.ID]route.Class{}, proven: map[peer.ID]netip.AddrPort{}, from: map[peer.ID]netip.Addr{}, hints: append([]string(nil), cfg.Join...),
		multicast: discover.StartMDNS, resolver: net.DefaultResolver, admitting: make(chan struct{}, maxAdmitting), leaving: make(chan struct{}), dissolved: make(chan struct{}), running: make(chan struct{}), bulkBusy: map[peer.ID]int{},
	}
	o.mux = muxer(o.rules)
	if o.life, err = papers.NextLife(cfg.Dir, 0); err != nil {
		// A life is good without a file: others remember what we were.
		cfg.Log.Error().Err(err).Msg("boot number not kept")
	}
	if err := o.loadPapers(); err != nil {
		return nil, err
	}
	if err := o.bind(); err != nil {
		return nil, err
	}
	o.records = records.New(records.Config{Self: o.self, Key: key, Boot: o.life.Boot, Member: o.memberLocked, Manager: o.managerLocked, Linked: o.linkedLocked})
	o.keeper = keeper.New(keeper.Config{Self: o.self, Denied: o.deniedCandidate, Rand: rand.New(cfg.Rand)})
	o.ownDomains()
	o.seal = o.sealLocked()
	o.ownHandlers()
	o.view = o.buildLocked()
	o.current.Store(o.view)
	if cfg.Metrics != nil {
		if err := cfg.Metrics.Register(newMetrics(o)); err != nil {
			return nil, fmt.Errorf("overlay metrics: %w", err)
		}
	}
	return o, nil
}

// bind takes the port, so that it is known before Run.
func (o *Overlay) bind() error {
	l, err := o.cfg.Network.Listen("tcp", o.cfg.Listen)
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return &p2pnode.Error{
				Code: "port-taken", Text: fmt.Sprintf("cannot listen on %s: another program does", o.cfg.Listen),
				Fix: "stop that program, or choose another port with --listen HOST:PORT",
			}
		}
		return fmt.Errorf("cannot listen on %s: %w", o.cfg.Listen, err)
	}
	o.listen = l
	if o.addr, err = netip.ParseAddrPort(l.Addr().String()); err != nil {
		l.Close()
		return err
	}
	return nil
}

func (o *Overlay) loadPapers() error {
	p, err := papers.Load(o.cfg.Dir, o.key)
	if err != nil || p == nil {
		return err
	}
	return o.adopt(p)
}

// HandleCall sets the handler of calls of kind from neighbours. Before Run only.
func (o *Overlay) HandleCall(kind string, h Handler) { o.calls[kind] = h }

// HandleRouted sets the handler of routed calls of kind. Before Run only.
func (o *Overlay) HandleRouted(kind string, h Handler) { o.routed[kind] = h }

// HandleBulk sets the handler of bulk requests of kind. Before Run only.
func (o *Overlay) HandleBulk(kind string, h Handler) { o.bulk[kind] = h }

// OnLink sets the callback for links that begin and end. Before Run only.
func (o *Overlay) OnLink(f func(LinkEvent)) { o.onLink = f }

// OnHeartbeatMissed sets the callback for silent neighbours: 1, 2, ... missed, 0
// when it is heard again. Before Run only.
func (o *Overlay) OnHeartbeatMissed(f func(p peer.ID, missed int)) { o.onMissed = f }

// OnStanding sets the callback for when this node's certificate or the reader keys
// have changed. Before Run only.
func (o *Overlay) OnStanding(f func()) { o.onStanding = f }

// Refused is a word against a member that was just taken in.
type Refused struct {
	ID, By  peer.ID
	Demoted bool             // not revoked
	Said    []p2pnode.Record // what only a manager may sign, and no longer counts
}

// OnRefused sets the callback for when somebody was revoked or demoted. Before Run
// only.
func (o *Overlay) OnRefused(f func(Refused)) { o.onRefused = f }

// OnGossipKey sets the callback that is given the key that seals gossip from now on,
// after a revocation. Before Run only.
func (o *Overlay) OnGossipKey(f func(key []byte)) { o.onGossipKey = f }

// DomainSpec registers a kind of record.
type DomainSpec struct {
	Domain       p2pnode.Domain
	TTL          time.Duration // longest life; 0: no end
	Urgent       bool          // goes out at once, not with the next heartbeat
	Lean         bool          // not to those who are linked with the sender; with AntiEntropy only
	AntiEntropy  bool
	ManagersOnly bool
	// Proof, if set, is the signer's chain of certificates inside a body, and when
	// the record was made: a record that outlives its signer's own proves itself.
	Proof   func(body []byte) (chain [][]byte, at time.Time)
	Keep    bool                 // on disk, for a night without power
	Deliver func(p2pnode.Record) // what is new, own publications too; must not block
}

// Domain registers a domain. Before Run only.
func (o *Overlay) Domain(s DomainSpec) {
	spec := records.Spec{Domain: s.Domain, TTL: s.TTL, Urgent: s.Urgent, Lean: s.Lean, AntiEntropy: s.AntiEntropy, ManagersOnly: s.ManagersOnly}
	if s.Proof != nil {
		spec.Admit = o.admitProof(s.Proof)
	}
	o.records.Domain(spec)
	if s.Keep {
		o.kept = append(o.kept, s.Domain)
	}
	if s.ManagersOnly {
		o.privileged = append(o.privileged, s.Domain)
	}
	if s.Deliver != nil {
		o.deliver[s.Domain] = s.Deliver
	}
}

// ID is the node's identity.
func (o *Overlay) ID() peer.ID { return o.self }

// Key is the node's private key.
func (o *Overlay) Key() ed25519.PrivateKey { return o.key }

// Life is the life of this node process.
func (o *Overlay) Life() p2pnode.Life { return o.life }

// ListenAddr is host:port as listened on.
func (o *Overlay) ListenAddr() string { return o.addr.String() }

// Admitted is closed once the node has a certificate of its cluster.
func (o *Overlay) Admitted() <-chan struct{} { return o.admitted }

func (o *Overlay) isAdmitted() bool {
	select {
	case <-o.admitted:
		return true
	default:
		return false
	}
}

// Counters are refusals and drops by reason.
func (o *Overlay) Counters() map[string]uint64 {
	o.mu.Lock()
	out := o.records.Counters()
	o.mu.Unlock()
	o.countMu.Lock()
	defer o.countMu.Unlock()
	if out == nil {
		out = map[string]uint64{}
	}
	for k, v := range o.counts {
		out[k] += v
	}
	return out
}

func (o *Overlay) count(reason string) {
	o.countMu.Lock()
	defer o.countMu.Unlock()
	o.counts[reason]++
}

// SetPenalty makes routes avoid peers by added cost; doubtful ones get
// route.DoubtPenalty.
func (o *Overlay) SetPenalty(p map[peer.ID]int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if maps.Equal(o.penalty, p) {
		return
	}
	o.penalty = maps.Clone(p)
	o.dirtyLocked(coalesce)
}

// SetManaging says in the peer record whether this node manages.
func (o *Overlay) SetManaging(on bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.managing != on {
		o.managing = on
		o.publishPeerLocked()
	}
}

// call enqueues a callback; one goroutine runs them in order. It never blocks: a
// reader that is that slow loses events, counted.
func (o *Overlay) call(f func()) {
	select {
	case o.events <- f:
	default:
		o.count("callbacks-dropped")
	}
}
