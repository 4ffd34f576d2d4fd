package gossip

import (
	"fmt"
	"io"
	"log"
	"net/netip"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
)

// swimName is a node's name to memberlist, one for each life: a name that came
// back on another port would be invisible for 40 s. All Ed25519 IDs begin alike,
// so the tail names them. again counts how often memberlist was made anew in one
// life.
func swimName(id peer.ID, life p2pnode.Life, again int) string {
	s := fmt.Sprintf("%s~%d", tail(id), life.Boot)
	if again > 0 {
		s += fmt.Sprintf(".%d", again)
	}
	return s
}

func tail(id peer.ID) string {
	s := id.String()
	return s[max(0, len(s)-16):]
}

// tailOf is the tail in a name of memberlist's.
func tailOf(name string) string {
	t, _, _ := strings.Cut(name, "~")
	return t
}

// startSWIM makes a memberlist. Its delegates only enqueue.
func (g *Gossip) startSWIM() error {
	transport := newSwimTransport(g)
	g.mu.Lock()
	g.swimTransport = transport
	g.mu.Unlock()
	cfg := memberlist.DefaultLANConfig()
	cfg.Name = swimName(g.cfg.Self, g.cfg.Life, g.again)
	cfg.Transport = transport
	cfg.EnableCompression = false
	cfg.RetransmitMult = 4
	cfg.UDPBufferSize = swimPacket
	cfg.Logger = log.New(io.Discard, "", 0)
	cfg.Events = swimEvents{g}
	cfg.Ping = swimPings{g}
	list, err := memberlist.Create(cfg)
	if err != nil {
		return fmt.Errorf("memberlist: %w", err)
	}
	g.mu.Lock()
	g.list, g.ownName, g.refuted = list, cfg.Name, 0
	g.mu.Unlock()
	return nil
}

// restartSWIM replaces a memberlist whose name is burnt: somebody called it dead in
// an incarnation that it cannot overtake, and the others will never hear of it under
// that name again.
func (g *Gossip) restartSWIM(now time.Time) {
	g.count("swim-death-forged")
	if now.Sub(g.againAt) < swimAgainEvery {
		return
	}
	g.againAt = now
	g.mu.Lock()
	old := g.list
	g.mu.Unlock()
	old.Shutdown()
	g.again++
	g.count("swim-restarted")
	g.cfg.Log.Warn().Msg("somebody gossips that this node is dead, in a number that cannot be refuted: it gossips on under a new name")
	if err := g.startSWIM(); err != nil {
		g.cfg.Log.Error().Err(err).Msg("gossip cannot start again")
		return
	}
	g.core.forgetSWIM() // the next tick meets all neighbours
}

// health is memberlist's score of this node itself; 0 is good.
func (g *Gossip) health() int {
	g.mu.Lock()
	list := g.list
	g.mu.Unlock()
	return list.GetHealthScore()
}

// swimNodes is how many nodes memberlist holds for alive: a hint, of which no
// verdict is made.
func (g *Gossip) swimNodes() int {
	g.mu.Lock()
	list := g.list
	g.mu.Unlock()
	if list == nil {
		return 0
	}
	return list.NumMembers()
}

// join makes memberlist meet a peer: that is how a split heals, since it never
// tries the dead again by itself.
func (g *Gossip) join(id peer.ID) {
	g.mu.Lock()
	p, ok := g.peers[id]
	list := g.list
	g.mu.Unlock()
	if !ok || list == nil || len(p.Addrs) == 0 {
		return
	}
	if _, err := list.Join([]string{swimName(p.ID, p.Life, 0) + "/" + p.Addrs[0].String()}); err != nil {
		g.cfg.Log.Debug().Err(err).Str("peer", p.Name).Msg("gossip could not meet a peer")
	}
}

// overhear reads our own outgoing gossip for suspicions that are ours, and for what
// our memberlist says of itself.
func (g *Gossip) overhear(b []byte) {
	for _, s := range overheard(b) {
		g.mu.Lock()
		own := g.ownName
		burnt := s.alive && s.Node == own && g.burntLocked(s.Incarnation)
		g.mu.Unlock()
		switch {
		case burnt:
			g.enqueue(swimBurnt{})
		case s.alive || s.From != own:
		default:
			if id, ok := g.peerNamed(s.Node); ok {
				g.enqueue(evSwim{id, swimSuspect})
			}
		}
	}
}

// burntLocked reports whether an incarnation that our memberlist gives itself shows
// that its name is of no use any more. An honest one counts refutations, a few in a
// life. One that jumps to the top answers a forged death; one that goes back has
// gone over the top.
func (g *Gossip) burntLocked(incarnation uint32) bool {
	if incarnation > swimBurntAt || incarnation < g.refuted {
		return true
	}
	g.refuted = incarnation
	return false
}

// swimBurnt: our name in memberlist is of no use any more.
type swimBurnt struct{}

// peerNamed finds the member whose present life has a name of memberlist's.
func (g *Gossip) peerNamed(name string) (peer.ID, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	id, ok := g.tails[tailOf(name)]
	if !ok {
		return "", false
	}
	base, _, _ := strings.Cut(name, ".")
	return id, base == swimName(id, g.peers[id].Life, 0)
}

// addrOf is where packets for a are sent: by name where it is known, since what
// memberlist has as an address is what somebody said.
func (g *Gossip) addrOf(a memberlist.Address) (netip.AddrPort, bool) {
	if id, ok := g.peerOf(a); ok {
		g.mu.Lock()
		defer g.mu.Unlock()
		if from, ok := g.from[id]; ok {
			return from, true
		}
		if addrs := g.peers[id].Addrs; len(addrs) > 0 {
			return addrs[0], true
		}
	}
	// An address of nobody that we know is not sent to: no reflection.
	return netip.AddrPort{}, false
}

func (g *Gossip) peerOf(a memberlist.Address) (peer.ID, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if id, ok := g.tails[tailOf(a.Name)]; ok && a.Name != "" {
		return id, true
	}
	ap, err := netip.ParseAddrPort(a.Addr)
	if err != nil {
		return "", false
	}
	id, ok := g.byAddr[ap]
	return id, ok
}

// swimEvents is memberlist's word on joins and deaths.
type swimEvents struct{ g *Gossip }

// NotifyJoin implements memberlist.EventDelegate.
func (e swimEvents) NotifyJoin(n *memberlist.Node) { e.note(n.Name, swimAlive) }

// NotifyLeave implements memberlist.EventDelegate.
func (e swimEvents) NotifyLeave(n *memberlist.Node) { e.note(n.Name, swimDead) }

// NotifyUpdate implements memberlist.EventDelegate.
func (e swimEvents) NotifyUpdate(*memberlist.Node) {}

// note does not take locks of ours that are held around calls of memberlist's: the
// name is resolved by the loop.
func (e swimEvents) note(name string, w swimWord) { e.g.enqueue(swimNamed{name, w}) }

// swimNamed is a word about somebody by name.
type swimNamed struct {
	name string
	what swimWord
}

// swimPings hears of answered pings.
type swimPings struct{ g *Gossip }

// AckPayload implements memberlist.PingDelegate.
func (swimPings) AckPayload() []byte { return nil }

// NotifyPingComplete implements memberlist.PingDelegate.
func (p swimPings) NotifyPingComplete(other *memberlist.Node, _ time.Duration, _ []byte) {
	p.g.enqueue(swimNamed{other.Name, swimAck})
}
