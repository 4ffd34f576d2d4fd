package gossip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"google.golang.org/protobuf/proto"

	"p2pnode"
	"p2pnode/gossip/gossippb"
)

// Doors asks the door of a host.
type Doors interface {
	Status(ctx context.Context, target peer.ID) (DoorWord, error)
}

// Config of a Gossip.
type Config struct {
	Self peer.ID
	Name string
	Life p2pnode.Life
	// Key is the cluster's gossip key, 32 bytes. A wrong one makes a node deaf.
	Key []byte
	// Packets is the node's UDP socket, on its TCP port's number. Gossip closes it.
	Packets net.PacketConn
	Streams Streams
	Doors   Doors
	// Dial is for verdict dials: does the port refuse?
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Publish spreads a signed observation; key names the subject.
	Publish func(key string, body []byte, ttl time.Duration) error
	Log     zerolog.Logger
	Metrics prometheus.Registerer // nil: none
}

// EvidenceKind is what an Evidence says.
type EvidenceKind string

// The kinds of evidence that others bring.
const (
	EvLinkUp     EvidenceKind = "link-up"
	EvLinkLost   EvidenceKind = "link-lost"   // without a good-bye
	EvLinkClosed EvidenceKind = "link-closed" // on purpose: no suspicion
	EvMissed     EvidenceKind = "missed"      // Missed heartbeats on the link; 0: heard again
	EvPeerDeath  EvidenceKind = "peer-death"  // a door's notice: Life has ended
)

// Evidence is an observation that somebody else in the process made.
type Evidence struct {
	Kind   EvidenceKind
	Peer   peer.ID
	Life   p2pnode.Life
	Missed int
}

// Belief is what is believed of one member.
type Belief struct {
	Verdict p2pnode.Verdict
	Since   time.Time
	Life    p2pnode.Life
}

// Beliefs is an immutable snapshot.
type Beliefs struct {
	Version uint64
	Peers   map[peer.ID]Belief // all members but this node
	Brake   p2pnode.BrakeState
}

// Gossip runs the core, memberlist and the packets around them.
type Gossip struct {
	cfg     Config
	keys    atomic.Pointer[keyring]
	in      chan any
	beliefs atomic.Pointer[Beliefs]
	work    sync.WaitGroup
	busy    chan struct{}
	ctx     context.Context

	core          *core // owned by Run's loop; Why asks the loop
	swimTransport *swimTransport
	again         int       // memberlists made anew in this life
	againAt       time.Time // the last one
	rotation      rotation

	mu      sync.Mutex
	changed chan struct{}
	peers   map[peer.ID]Peer
	tails   map[string]peer.ID
	byAddr  map[netip.AddrPort]peer.ID
	list    *memberlist.Memberlist
	ownName string
	refuted uint32 // the highest incarnation that our memberlist has said of itself
	heard   map[peer.ID]time.Time
	from    map[peer.ID]netip.AddrPort // where a member's packets come from: of its addresses the one that has a way to here
	bursts  map[uint64]probing         // by probe number
	counts  map[string]uint64
	replies int // probes answered in this second
	second  int64
}

// New prepares a Gossip; it starts nothing.
func New(cfg Config) (*Gossip, error) {
	s, err := newSealer(cfg.Key, cfg.Self)
	if err != nil {
		return nil, fmt.Errorf("gossip: %w", err)
	}
	g := &Gossip{
		cfg: cfg, in: make(chan any, inputQueue), busy: make(chan struct{}, maxWork), core: newCore(cfg.Self),
		changed: make(chan struct{}), peers: map[peer.ID]Peer{}, tails: map[string]peer.ID{}, byAddr: map[netip.AddrPort]peer.ID{},
		heard: map[peer.ID]time.Time{}, from: map[peer.ID]netip.AddrPort{}, bursts: map[uint64]probing{}, counts: map[string]uint64{},
	}
	g.keys.Store(&keyring{use: s, open: []*sealer{s}})
	g.beliefs.Store(&Beliefs{Peers: map[peer.ID]Belief{}})
	if cfg.Metrics != nil {
		cfg.Metrics.MustRegister(collector{g})
	}
	return g, nil
}

// Beliefs is the newest snapshot.
func (g *Gossip) Beliefs() *Beliefs { return g.beliefs.Load() }

// Changed is closed when there are newer Beliefs than those that are there now.
func (g *Gossip) Changed() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.changed
}

// Counters are refusals and drops by reason.
func (g *Gossip) Counters() map[string]uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.counts)
}

func (g *Gossip) count(reason string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.counts[reason]++
}

func (g *Gossip) enqueue(ev any) {
	select {
	case g.in <- ev:
	default:
		g.count("input-dropped")
	}
}

// SetPeers is the certified membership, this node left out or not. The whole list,
// each time.
func (g *Gossip) SetPeers(peers []Peer) {
	g.mu.Lock()
	clear(g.peers)
	clear(g.tails)
	clear(g.byAddr)
	for _, p := range peers {
		if p.ID == g.cfg.Self {
			continue
		}
		g.peers[p.ID] = p
		g.tails[tail(p.ID)] = p.ID
		for _, a := range p.Addrs {
			g.byAddr[a] = p.ID
		}
		if !slices.Contains(p.Addrs, g.from[p.ID]) {
			delete(g.from, p.ID)
		}
	}
	g.mu.Unlock()
	g.enqueue(evPeers{slices.Clone(peers)})
}

// Observe takes evidence in.
func (g *Gossip) Observe(e Evidence) {
	switch e.Kind {
	case EvLinkUp:
		g.enqueue(evLink{peer: e.Peer, up: true})
	case EvLinkLost:
		g.enqueue(evLink{peer: e.Peer, lost: true})
	case EvLinkClosed:
		g.enqueue(evLink{peer: e.Peer})
	case EvMissed:
		g.enqueue(evMissed{e.Peer, e.Missed})
	case EvPeerDeath:
		g.enqueue(evDeath{e.Peer, e.Life})
	}
}

// OnRecord takes a signed observation of a member in.
func (g *Gossip) OnRecord(r p2pnode.Record) {
	if r.Domain != p2pnode.DomainObservation || r.Signer == g.cfg.Self {
		return
	}
	ev, err := decodeObservation(r)
	if err != nil {
		g.count("observation-damaged")
		return
	}
	g.enqueue(ev)
}

var errObservation = errors.New("damaged observation")

func decodeObservation(r p2pnode.Record) (evClaim, error) {
	var m gossippb.Observation
	if err := proto.Unmarshal(r.Body, &m); err != nil {
		return evClaim{}, errors.Join(errObservation, err)
	}
	switch kind(m.Kind) {
	case kindSilent, kindProcessDead, kindExecDead, kindHung, kindFine, kindHeard:
	default:
		return evClaim{}, fmt.Errorf("%w: kind %.20q", errObservation, m.Kind)
	}
	if len(m.Subject) != senderSize || string(m.Subject) == string(r.Signer) {
		return evClaim{}, fmt.Errorf("%w: subject", errObservation)
	}
	return evClaim{
		witness: r.Signer, subject: peer.ID(m.Subject), kind: kind(m.Kind),
		life: p2pnode.Life{Boot: m.Boot, Nonce: m.Nonce}, expires: r.Expires,
	}, nil
}

// AcceptStream hands a gossip stream that a member opened to memberlist.
func (g *Gossip) AcceptStream(from peer.ID, c net.Conn) {
	g.mu.Lock()
	t := g.swimTransport
	_, member := g.peers[from]
	g.mu.Unlock()
	if t == nil || !member || !t.stream(c) {
		g.count("streams-dropped")
		c.Close()
	}
}

// Run judges until ctx ends. It closes Packets.
func (g *Gossip) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g.ctx = ctx
	if err := g.startSWIM(); err != nil {
		g.cfg.Packets.Close()
		return err
	}
	g.work.Go(g.read)
	g.loop(ctx)
	cancel()
	g.mu.Lock()
	list := g.list
	g.mu.Unlock()
	list.Shutdown()
	g.cfg.Packets.Close()
	g.work.Wait()
	return nil
}

func (g *Gossip) loop(ctx context.Context) {
	timer := time.NewTimer(tickEvery)
	defer timer.Stop()
	last, pace := time.Now(), tickEvery
	for {
		var evs []any
		select {
		case <-ctx.Done():
			return
		case ev := <-g.in:
			evs = append(evs, ev)
		case <-timer.C:
		}
		now := time.Now()
		for _, ev := range evs {
			g.take(now, ev)
		}
		if now.Sub(last) >= pace {
			// It may be late by as much as before, whatever the pace.
			g.step(now, evTick{late: now.Sub(last)-pace > lateTick-tickEvery, health: g.health()})
			g.turnKey(now)
			last = now
		}
		pace = g.core.pace()
		timer.Reset(max(0, last.Add(pace).Sub(now)))
		g.publishBeliefs(now)
	}
}

// whyAsked is a question of Why to the loop.
type whyAsked struct {
	id    peer.ID
	reply chan whyAnswer
}

type whyAnswer struct {
	doc p2pnode.WhyDoc
	ok  bool
}

func (g *Gossip) take(now time.Time, ev any) {
	switch e := ev.(type) {
	case evKey:
		g.takeKey(now, e.key)
	case swimBurnt:
		g.restartSWIM(now)
	case swimNamed:
		if id, ok := g.peerNamed(e.name); ok {
			g.step(now, evSwim{id, e.what})
		}
	case whyAsked:
		doc, ok := g.core.why(now, e.id)
		e.reply <- whyAnswer{doc, ok}
	default:
		g.step(now, ev)
	}
}

func (g *Gossip) step(now time.Time, ev event) {
	defer g.alarm(g.core.swimWrong, g.core.forgotten)
	for _, e := range g.core.step(now, ev) {
		switch e := e.(type) {
		case effBurst:
			g.do(func() { g.enqueue(g.burst(e.peer)) }, func() { g.enqueue(evBurst{peer: e.peer, void: true}) })
		case effKnock:
			g.do(func() { g.knock(e.peer) }, func() { g.enqueue(evKnock{peer: e.peer, void: true}) })
		case effDial:
			g.do(func() { g.verdictDial(e.peer) }, func() { g.enqueue(evDial{peer: e.peer, void: true}) })
		case effJoin:
			g.do(func() { g.join(e.peer) }, func() {})
		case effPublish:
			g.publish(e)
		}
	}
}

// alarm counts what the core refused since wrong and forgotten were read. A death
// that memberlist announced of a peer with a live link is somebody's lie, or our
// own lateness.
func (g *Gossip) alarm(wrong, forgotten uint64) {
	if n := g.core.swimWrong - wrong; n > 0 {
		g.count("swim-deaths-refuted-by-links")
		g.cfg.Log.Warn().Msg("gossip announced the death of a peer whose link is alive")
	}
	if g.core.forgotten > forgotten {
		g.count("claims-forgotten")
	}
}

// do runs f beside the loop; with too much under way it does not, and otherwise is
// called instead.
func (g *Gossip) do(f, otherwise func()) {
	select {
	case g.busy <- struct{}{}:
		g.work.Go(func() {
			defer func() { <-g.busy }()
			f()
		})
	default:
		g.count("work-dropped")
		otherwise()
	}
}

func (g *Gossip) publish(e effPublish) {
	body, err := proto.Marshal(&gossippb.Observation{Subject: []byte(e.subject), Kind: string(e.kind), Boot: e.life.Boot, Nonce: e.life.Nonce})
	if err == nil {
		err = g.cfg.Publish(tail(e.subject), body, claimTTL)
	}
	if err != nil {
		g.cfg.Log.Debug().Err(err).Msg("observation not published")
	}
}

func (g *Gossip) knock(id peer.ID) {
	ctx, cancel := context.WithTimeout(g.ctx, knockTime)
	defer cancel()
	w, err := g.cfg.Doors.Status(ctx, id)
	g.enqueue(evKnock{peer: id, word: w, err: err != nil, refused: errors.Is(err, syscall.ECONNREFUSED)})
}

// verdictDial asks the kernel of the host whether the node's port is shut. It goes
// only to where the peer last proved its key.
func (g *Gossip) verdictDial(id peer.ID) {
	g.mu.Lock()
	addr := g.peers[id].Proven
	g.mu.Unlock()
	ctx, cancel := context.WithTimeout(g.ctx, dialTime)
	defer cancel()
	c, err := g.cfg.Dial(ctx, "tcp", addr.String())
	if err == nil {
		c.Close()
	}
	g.enqueue(evDial{peer: id, refused: errors.Is(err, syscall.ECONNREFUSED), open: err == nil})
}

// probing is a burst under way.
type probing struct {
	of       peer.ID
	answered chan struct{}
}

// burst sends five probes 50 ms apart and reports whether any was answered: at
// 20 % loss all five are lost in 0.6 of 100 bursts. One that took much longer than
// it should shows that this process is short of time, and nothing of the peer.
func (g *Gossip) burst(id peer.ID) evBurst {
	began := time.Now()
	g.mu.Lock()
	addrs := g.peers[id].Addrs
	answered := make(chan struct{}, burstProbes)
	g.counts["bursts"]++
	base := g.counts["bursts"]
	g.bursts[base] = probing{id, answered}
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		delete(g.bursts, base)
		g.mu.Unlock()
	}()
	var number [8]byte
	binary.BigEndian.PutUint64(number[:], base)
	wait := burstGap
	for i := range burstProbes {
		for _, a := range addrs {
			g.write(g.keys.Load().seal(packetProbe, number[:]), a)
		}
		if i == burstProbes-1 {
			wait = burstWait
		}
		select {
		case <-answered:
			return evBurst{peer: id, answered: true}
		case <-g.ctx.Done():
			return evBurst{peer: id, void: true} // our end is nobody's silence
		case <-time.After(wait):
		}
	}
	if time.Since(began) > (burstProbes-1)*burstGap+burstWait+burstLate {
		g.count("bursts-late")
		return evBurst{peer: id, void: true}
	}
	return evBurst{peer: id}
}

// write sends a sealed packet; an address that cannot be sent to loses it.
func (g *Gossip) write(b []byte, to netip.AddrPort) {
	if _, err := g.cfg.Packets.WriteTo(b, net.UDPAddrFromAddrPort(to)); err != nil {
		g.count("packets-unsent")
	}
}

// read takes packets off the socket until it is closed.
func (g *Gossip) read() {
	buf := make([]byte, maxPacket+1)
	for {
		n, from, err := g.cfg.Packets.ReadFrom(buf)
		if err != nil {
			if g.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			continue // an ICMP error of an earlier packet shows up here
		}
		g.packet(buf[:n], from)
	}
}

func (g *Gossip) packet(b []byte, from net.Addr) {
	k, id, payload, err := g.keys.Load().opens(b)
	if r, ok := errors.AsType[refused](err); ok {
		g.count(r.reason)
		return
	}
	if !g.hear(id, from) {
		g.count(reasonSender)
		return
	}
	switch {
	case k == packetSWIM:
		if !g.transport().packet(payload, from) {
			g.count("packets-dropped")
		}
	case k == packetProbe && len(payload) == 8 && g.mayAnswer():
		if to, err := netip.ParseAddrPort(from.String()); err == nil {
			g.write(g.keys.Load().seal(packetAck, payload), netip.AddrPortFrom(to.Addr().Unmap(), to.Port()))
		}
	case k == packetAck && len(payload) == 8:
		g.mu.Lock()
		p := g.bursts[binary.BigEndian.Uint64(payload)]
		g.mu.Unlock()
		if p.of != id {
			return // somebody else has that address now, and says nothing of who had it
		}
		select {
		case p.answered <- struct{}{}:
		default:
		}
	}
}

func (g *Gossip) transport() *swimTransport {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.swimTransport
}

// hear notes that a member sent something, five times a second at most; false for
// strangers.
func (g *Gossip) hear(id peer.ID, from net.Addr) bool {
	now := time.Now()
	g.mu.Lock()
	p, member := g.peers[id]
	if ap, err := netip.ParseAddrPort(from.String()); member && err == nil {
		if ap = netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()); slices.Contains(p.Addrs, ap) {
			g.from[id] = ap
		}
	}
	due := member && now.Sub(g.heard[id]) >= heardEvery
	if due {
		g.heard[id] = now
	}
	g.mu.Unlock()
	if due {
		g.enqueue(evHeard{id})
	}
	return member
}

// mayAnswer bounds how many probes are answered in a second.
func (g *Gossip) mayAnswer() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now := time.Now().Unix(); now != g.second {
		g.second, g.replies = now, 0
	}
	g.replies++
	if g.replies > probesPerSec {
		g.counts["probes-unanswered"]++
		return false
	}
	return true
}

// publishBeliefs makes a new snapshot if the core's beliefs changed.
func (g *Gossip) publishBeliefs(now time.Time) {
	if !g.core.changed {
		return
	}
	g.core.changed = false
	g.core.version++
	next := &Beliefs{Version: g.core.version, Peers: make(map[peer.ID]Belief, len(g.core.peers)), Brake: g.core.brake(now)}
	for id, s := range g.core.peers {
		next.Peers[id] = Belief{Verdict: s.verdict, Since: s.since, Life: s.Life}
	}
	g.beliefs.Store(next)
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.changed)
	g.changed = make(chan struct{})
}
