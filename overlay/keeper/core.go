package keeper

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Config is what a Core is made of.
type Config struct {
	Self peer.ID
	// Dialled and Most; 0: the defaults in limits.go.
	Dialled, Most int
	// Denied, if set, says whom not to have links with; of a candidate that is
	// known by address alone it sees the address.
	Denied func(Candidate) bool
	// Rand, which must be set, shuffles and jitters. Give it a seed of its own per node: nodes that
	// share one dial in step.
	Rand *rand.Rand
}

// Candidate is somebody to have a link with.
type Candidate struct {
	ID    peer.ID // "" for an address whose owner is not known yet
	Name  string
	Addrs []string
	// Subnet is the network that it is in; the zero Prefix: unknown.
	Subnet netip.Prefix
	// Join marks an address that the operator gave: tried first, and at short
	// intervals until it has answered once.
	Join bool
	// Lost marks a member to which there is no route.
	Lost bool
	// Degree is how many links it has, as far as known; 0: unknown.
	Degree int
}

// Key names the candidate: its ID, or its first address.
func (c Candidate) Key() string {
	if c.ID != "" {
		return string(c.ID)
	}
	if len(c.Addrs) == 0 {
		return ""
	}
	return "addr " + c.Addrs[0]
}

// Event is what happened; see the types below.
type Event interface{ event() }

type (
	// Known replaces the whole list of candidates. What is known of their failures
	// is kept.
	Known struct{ List []Candidate }
	// Up is a connection over which both sides have said hello. Conn is the
	// caller's name for it, never used twice.
	Up struct {
		Conn     uint64
		Peer     peer.ID
		Name     string
		Addr     string // the other end's address, for the deny list
		Outbound bool   // dialled by this node
	}
	// Down is the end of a connection that was Up.
	Down struct{ Conn uint64 }
	// RTT is a measurement on the links with a peer.
	RTT struct {
		Peer peer.ID
		RTT  time.Duration
	}
	// Dialled is what became of a Dial: OK after hello (report Up as well). Peer
	// says who answered, also when that was not wanted (oneself, for instance).
	Dialled struct {
		Key  string
		Peer peer.ID
		OK   bool
	}
	// Tick is the passing of time; four a second are enough.
	Tick struct{}
)

func (Known) event()   {}
func (Up) event()      {}
func (Down) event()    {}
func (RTT) event()     {}
func (Dialled) event() {}
func (Tick) event()    {}

// Effect is what is to be done; see the types below.
type Effect interface{ effect() }

type (
	// Dial asks for a connection and hello; answer it with Dialled.
	Dial struct {
		Key   string
		Peer  peer.ID // "" if not known
		Addrs []string
	}
	// Close asks for the end of a connection. Cause is one of the Cause constants.
	Close struct {
		Conn  uint64
		Peer  peer.ID
		Cause string
	}
	// Protect asks to keep a connection from being trimmed as idle.
	Protect struct {
		Conn uint64
		Peer peer.ID
	}
)

func (Dial) effect()    {}
func (Close) effect()   {}
func (Protect) effect() {}

// Causes of Close.
const (
	CauseDenied    = "denied"
	CauseDuplicate = "duplicate"
	CauseTuned     = "nearer link found"
	CauseShed      = "too many links"
)

// target is a candidate and what came of dialling it.
type target struct {
	Candidate
	fails    int
	next     time.Time // not before
	tried    time.Time
	dialling time.Time // set: a dial is under way since then
	landed   bool      // ... and was reported as done; its Up is to come
	answered peer.ID   // who answered at a bare address
	itself   bool
}

// conn is a connection that is up.
type conn struct {
	id       uint64
	peer     peer.ID
	outbound bool
	since    time.Time
	closing  bool
}

// Core decides; see the package comment. Not safe for concurrent use.
type Core struct {
	cfg     Config
	targets map[string]*target
	order   []*target // targets by name
	conns   map[uint64]*conn
	live    map[peer.ID]int // connections of each peer that are meant to stay
	rtt     map[peer.ID]time.Duration
	banned  map[peer.ID]bool // said a name that is denied
	out     []Effect

	nextProbe, nextTune, nextShed time.Time
	crowded                       time.Time // since when there are too many links
	trial                         peer.ID   // the last link dialled in search of a nearer one
}

// New makes a Core that knows nobody.
func New(cfg Config) *Core {
	cfg.Dialled = cmp.Or(cfg.Dialled, DefaultDialled)
	cfg.Most = cmp.Or(cfg.Most, DefaultMost)
	return &Core{cfg: cfg, targets: map[string]*target{}, conns: map[uint64]*conn{}, live: map[peer.ID]int{}, rtt: map[peer.ID]time.Duration{}, banned: map[peer.ID]bool{}}
}

// Step takes in one event and says what to do now.
func (c *Core) Step(now time.Time, ev Event) []Effect {
	c.out = nil
	switch ev := ev.(type) {
	case Known:
		c.known(now, ev.List)
	case Up:
		c.up(now, ev)
	case Down:
		c.down(now, ev)
	case RTT:
		if c.linked(ev.Peer) {
			c.rtt[ev.Peer] = ev.RTT
		}
		return nil
	case Dialled:
		c.dialled(now, ev)
	case Tick:
	}
	c.plan(now)
	return c.out
}

func (c *Core) known(now time.Time, list []Candidate) {
	old := c.targets
	c.targets = make(map[string]*target, len(list))
	for _, cand := range list {
		k := cand.Key()
		if k == "" || cand.ID == c.cfg.Self || len(c.targets) >= maxKnown {
			continue
		}
		t := old[k]
		if t == nil {
			t = &target{}
		}
		if t.Lost && !cand.Lost {
			// Somebody has a link with it: what failed before the cut ended says nothing.
			t.fails, t.next = 0, now.Add(c.jitter(retryLost))
		}
		t.Candidate = cand
		c.targets[k] = t
	}
	c.order = slices.SortedFunc(maps.Values(c.targets), func(a, b *target) int { return cmp.Compare(a.Key(), b.Key()) })
}

func (c *Core) up(now time.Time, ev Up) {
	if c.conns[ev.Conn] != nil {
		return
	}
	cn := &conn{id: ev.Conn, peer: ev.Peer, outbound: ev.Outbound, since: now}
	c.conns[ev.Conn] = cn
	c.live[ev.Peer]++
	c.arrived(ev.Peer)
	who := Candidate{ID: ev.Peer, Name: ev.Name, Addrs: []string{ev.Addr}}
	if ev.Peer == c.cfg.Self || c.denied(who) {
		if len(c.banned) >= maxKnown {
			clear(c.banned)
		}
		c.banned[ev.Peer] = true
		c.close(cn, CauseDenied)
		return
	}
	c.out = append(c.out, Protect{Conn: ev.Conn, Peer: ev.Peer})
}

// arrived ends the dials of a peer that are done but for its Up.
func (c *Core) arrived(p peer.ID) {
	for _, t := range c.targets {
		if t.landed && (t.ID == p || t.answered == p) {
			t.dialling, t.landed = time.Time{}, false
		}
	}
}

func (c *Core) down(now time.Time, ev Down) {
	cn := c.conns[ev.Conn]
	if cn == nil {
		return
	}
	delete(c.conns, ev.Conn)
	if !cn.closing {
		c.unlive(cn.peer)
	}
	if c.linked(cn.peer) {
		return
	}
	delete(c.rtt, cn.peer)
	for _, t := range c.targets {
		if t.ID != cn.peer && t.answered != cn.peer || cn.closing {
			continue
		}
		if now.Sub(cn.since) < provenAfter {
			c.failed(now, t)
			continue
		}
		t.fails, t.next = 0, now.Add(c.jitter(retryLost))
	}
}

func (c *Core) dialled(now time.Time, ev Dialled) {
	t := c.targets[ev.Key]
	if t == nil {
		return
	}
	asked := !t.dialling.IsZero() // else it was counted as overdue
	t.dialling, t.landed = time.Time{}, false
	if ev.Peer != "" {
		t.answered = ev.Peer
		t.itself = ev.Peer == c.cfg.Self
	}
	switch {
	case ev.OK && !c.linked(ev.Peer):
		t.dialling, t.landed = now, true // its Up is still on the way
	case ev.OK:
	case asked:
		c.failed(now, t)
	}
}

// failed puts a candidate off. The bound is lower where waiting means being
// alone.
func (c *Core) failed(now time.Time, t *target) {
	t.fails++
	wait := backoffMost
	if t.fails < 12 {
		wait = min(backoffMost, backoffFirst<<(t.fails-1))
	}
	if t.Join && t.answered == "" {
		wait = min(wait, backoffAlone)
	}
	t.next = now.Add(c.jitter(wait))
}

// jitter is d give or take a quarter.
func (c *Core) jitter(d time.Duration) time.Duration {
	return d*3/4 + time.Duration(c.cfg.Rand.Int64N(int64(d/2)+1))
}

func (c *Core) close(cn *conn, cause string) {
	cn.closing = true
	c.unlive(cn.peer)
	c.out = append(c.out, Close{Conn: cn.id, Peer: cn.peer, Cause: cause})
}

func (c *Core) denied(cand Candidate) bool { return c.cfg.Denied != nil && c.cfg.Denied(cand) }

// linked reports whether a link with p is up and meant to stay.
func (c *Core) linked(p peer.ID) bool { return c.live[p] > 0 }

func (c *Core) unlive(p peer.ID) {
	if c.live[p]--; c.live[p] == 0 {
		delete(c.live, p)
	}
}

// standing lists the connections that are meant to stay, oldest first.
func (c *Core) standing() []*conn {
	var out []*conn
	for _, cn := range c.conns {
		if !cn.closing {
			out = append(out, cn)
		}
	}
	slices.SortFunc(out, func(a, b *conn) int { return cmp.Or(a.since.Compare(b.since), cmp.Compare(a.id, b.id)) })
	return out
}
