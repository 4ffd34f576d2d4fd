package node

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode/overlay"
)

// links is the agents' view of the ground that they walk on: links and routes,
// and nothing that could dial.
type links struct{ o *overlay.Overlay }

// Next implements agent.Links.
func (l links) Next(dst peer.ID) (next, second peer.ID, ok bool) { return l.o.View().Table.Next(dst) }

// Neighbours implements agent.Links: those with a live link, whatever the flooded
// records still say.
func (l links) Neighbours() []peer.ID {
	view := l.o.View()
	out := make([]peer.ID, 0, len(view.Links))
	for id := range view.Links {
		out = append(out, id)
	}
	return out
}

// NeighboursOf implements agent.Links. It answers for the dead too: that is where
// a mission to them ends.
func (l links) NeighboursOf(id peer.ID) []peer.ID { return l.o.View().Table.Around(id) }

// Cost implements agent.Links.
func (l links) Cost(from, to peer.ID) (int, bool) { return l.o.View().Table.Cost(from, to) }

// RTT implements agent.Links.
func (l links) RTT(neighbour peer.ID) time.Duration { return l.o.View().Links[neighbour].RTT }

// Members implements agent.Links.
func (l links) Members() []peer.ID {
	view := l.o.View()
	out := []peer.ID{l.o.ID()}
	for id, p := range view.Peers {
		if !p.Left && id != l.o.ID() {
			out = append(out, id)
		}
	}
	return out
}

// Forgotten implements agent.Links.
func (l links) Forgotten(id peer.ID) bool {
	_, ok := l.o.Forgotten(id)
	return ok
}

// Kinds of calls between nodes.
const (
	callAgent = "agent" // a travelling agent, to a neighbour
	callStore = "store" // anti-entropy of reports, in bulk
)

// carry hands agents over to neighbours.
type carry struct{ o *overlay.Overlay }

// Call implements agent.Carry.
func (c carry) Call(ctx context.Context, neighbour peer.ID, req []byte) ([]byte, error) {
	return c.o.Call(ctx, neighbour, callAgent, req)
}
