package node

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/agent"
	"p2pnode/gossip"
	"p2pnode/overlay"
	"p2pnode/overlay/route"
)

// believe runs gossip from admission on: before that there is no key and nobody
// to believe anything of.
func (n *Node) believe(ctx context.Context) error {
	if !n.awaitAdmission(ctx) {
		return nil
	}
	cluster, _ := n.overlay.Cluster()
	packets, err := n.env.Network.ListenPacket("udp", n.overlay.ListenAddr())
	if err != nil {
		return fmt.Errorf("cannot gossip: %w", err)
	}
	g, err := gossip.New(gossip.Config{
		Self: n.overlay.ID(), Name: n.cfg.Name, Life: n.overlay.Life(), Key: cluster.GossipKey,
		Packets: packets, Streams: streams{n.overlay}, Doors: gossipDoors{agentDoors{n.overlay, n.doors}}, Dial: n.env.Network.Dial,
		Publish: func(key string, body []byte, ttl time.Duration) error {
			return n.overlay.Publish(p2pnode.DomainObservation, key, body, ttl)
		},
		Log: n.cfg.Log, Metrics: n.cfg.Metrics,
	})
	if err != nil {
		packets.Close()
		return err
	}
	g.SetPeers(gossipPeers(n.overlay))
	for id := range n.overlay.View().Links { // links that began before there was anybody to tell
		g.Observe(gossip.Evidence{Kind: gossip.EvLinkUp, Peer: id, Life: n.overlay.View().Peers[id].Life})
	}
	n.belief.set(g)
	if now, ok := n.overlay.Cluster(); ok {
		g.SetKey(now.GossipKey) // it may have been rotated meanwhile
	}
	for _, r := range n.overlay.Records(p2pnode.DomainObservation) {
		g.OnRecord(r)
	}
	return runBoth(ctx, g.Run, func(ctx context.Context) error { return n.feedGossip(ctx, g) })
}

// onGossipKey hands gossip the key that seals from now on.
func (n *Node) onGossipKey(key []byte) {
	if g, ok := n.belief.get(); ok {
		g.SetKey(key)
	}
}

// streams opens memberlist's streams over the overlay.
type streams struct{ o *overlay.Overlay }

// Dial implements gossip.Streams.
func (s streams) Dial(ctx context.Context, to peer.ID) (net.Conn, error) {
	return s.o.GossipDial(ctx, to)
}

// feedGossip keeps gossip's list of members up to date and hands it the streams
// that members open.
func (n *Node) feedGossip(ctx context.Context, g *gossip.Gossip) error {
	for {
		changed := n.overlay.Changed()
		g.SetPeers(gossipPeers(n.overlay))
		if c, ok := n.overlay.Cluster(); ok {
			g.SetKey(c.GossipKey) // again, should the word of its rotation have been dropped
		}
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
				waiting = false
			case c := <-n.overlay.GossipAccept():
				g.AcceptStream(c.Peer, c.Conn)
			}
		}
	}
}

// gossipPeers is the certified membership as the overlay's records tell it.
func gossipPeers(o *overlay.Overlay) []gossip.Peer {
	view := o.View()
	out := make([]gossip.Peer, 0, len(view.Peers))
	for id, p := range view.Peers {
		if id == o.ID() {
			continue
		}
		_, routed := view.Table.Cost(o.ID(), id)
		out = append(out, gossip.Peer{
			ID: id, Name: p.Name, Life: p.Life, Addrs: addresses(p), Proven: p.Proven, Door: p.Door,
			Left: p.Left, Neighbours: view.Table.Around(id), Routed: routed, Said: p.Said, Ephemeral: p.Ephemeral, Twice: p.Twice,
		})
	}
	return out
}

// addresses are a peer's, the one where it last proved its key first.
func addresses(p overlay.Peer) []netip.AddrPort {
	var out []netip.AddrPort
	if p.Proven.IsValid() {
		out = append(out, p.Proven)
	}
	for _, text := range p.Addrs {
		if a, err := netip.ParseAddrPort(text); err == nil && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

func (n *Node) observeGossip(e gossip.Evidence) {
	if g, ok := n.belief.get(); ok {
		g.Observe(e)
	}
}

func (n *Node) onObservation(r p2pnode.Record) {
	if g, ok := n.belief.get(); ok {
		g.OnRecord(r)
	}
}

// onLink turns the begin and end of links into evidence. Only an end without a
// word is one of trouble.
func (n *Node) onLink(e overlay.LinkEvent) {
	kind := gossip.EvLinkClosed
	switch {
	case e.Up:
		kind = gossip.EvLinkUp
		select {
		case n.linkUp <- e.Peer:
		default: // a look at somebody's store is under way anyhow
		}
	case e.Cause == overlay.CauseLost || e.Cause == overlay.CauseSilent:
		kind = gossip.EvLinkLost
	}
	n.observeGossip(gossip.Evidence{Kind: kind, Peer: e.Peer, Life: e.Life})
}

func (n *Node) onHeartbeat(id peer.ID, missed int) {
	n.observeGossip(gossip.Evidence{Kind: gossip.EvMissed, Peer: id, Missed: missed})
}

// onPeerDeath is a door's word, brought by this host's own door, that a peer's
// node process has ended.
func (n *Node) onPeerDeath(e p2pnode.ExecEvent) {
	id, err := peer.Decode(e.Peer)
	if err != nil {
		return
	}
	n.observeGossip(gossip.Evidence{Kind: gossip.EvPeerDeath, Peer: id, Life: e.Life})
}

// watchBeliefs hands each new belief to agents and routes, and writes it down.
func (n *Node) watchBeliefs(ctx context.Context) error {
	g, ok := n.belief.wait(ctx)
	if !ok {
		return nil
	}
	told := map[peer.ID]p2pnode.Verdict{}
	brake, view := false, ""
	for {
		changed, members := g.Changed(), n.overlay.Changed()
		b := g.Beliefs()
		n.agents.OnBeliefs(agentBeliefs(b))
		n.overlay.SetPenalty(penalties(b))
		n.noteVerdicts(b, told)
		if b.Brake.On != brake {
			brake = b.Brake.On
			n.noteBrake(b.Brake)
		}
		if v := n.viewLine(b); fmt.Sprint(v) != view {
			view = fmt.Sprint(v)
			n.cfg.History.Record(p2pnode.HistoryEvent{Event: p2pnode.HistView, View: v})
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-members:
		}
	}
}

func agentBeliefs(b *gossip.Beliefs) agent.Beliefs {
	out := agent.Beliefs{Peers: make(map[peer.ID]agent.Belief, len(b.Peers)), Brake: b.Brake}
	for id, p := range b.Peers {
		out.Peers[id] = agent.Belief{Verdict: p.Verdict, Life: p.Life, Since: p.Since}
	}
	return out
}

// penalties make routes avoid those who may not carry anything on.
func penalties(b *gossip.Beliefs) map[peer.ID]int {
	out := map[peer.ID]int{}
	for id, p := range b.Peers {
		if p.Verdict != p2pnode.Alive {
			out[id] = route.DoubtPenalty
		}
	}
	return out
}

// verdictEvent is the fields of an event "verdict".
type verdictEvent struct {
	Target  string          `json:"target"`
	Verdict p2pnode.Verdict `json:"verdict"`
	Was     p2pnode.Verdict `json:"was,omitempty"`
	Life    string          `json:"life,omitempty"`
}

func (n *Node) noteVerdicts(b *gossip.Beliefs, told map[peer.ID]p2pnode.Verdict) {
	for id, p := range b.Peers {
		if told[id] == p.Verdict {
			continue
		}
		name := n.nameOf(id)
		n.cfg.History.Record(p2pnode.HistoryEvent{Event: p2pnode.HistVerdict, Target: name, Verdict: p.Verdict, Old: p.Life.String()})
		n.events.Add(time.Now(), n.cfg.Name, "verdict", verdictEvent{name, p.Verdict, told[id], p.Life.String()})
		told[id] = p.Verdict
	}
}

func (n *Node) noteBrake(b p2pnode.BrakeState) {
	word := map[bool]string{true: "on", false: "off"}[b.On]
	n.cfg.Log.Warn().Str("brake", word).Int("unreachable", b.Unreachable).Int("of", b.Of).Msg("brake")
	n.cfg.History.Record(p2pnode.HistoryEvent{Event: p2pnode.HistBrake, Reason: word})
	n.events.Add(time.Now(), n.cfg.Name, "brake", b)
	n.notify.Brake(b)
}

// viewLine is the whole view in one line: every member with its verdict.
func (n *Node) viewLine(b *gossip.Beliefs) []string {
	view := n.overlay.View()
	out := []string{n.cfg.Name + "=" + string(p2pnode.Alive)}
	for id := range view.Peers {
		if id != n.overlay.ID() {
			out = append(out, n.nameOf(id)+"="+string(n.verdict(b, id)))
		}
	}
	slices.Sort(out)
	return out
}

// verdict is what is believed of a member; one that gossip has not judged yet has
// just been certified, so somebody saw it.
func (n *Node) verdict(b *gossip.Beliefs, id peer.ID) p2pnode.Verdict {
	if p, ok := b.Peers[id]; ok {
		return p.Verdict
	}
	return p2pnode.Doubtful
}
