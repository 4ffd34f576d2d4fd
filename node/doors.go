package node

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/agent"
	"p2pnode/exec/door"
	"p2pnode/gossip"
	"p2pnode/overlay"
)

// Doors knocks at the doors of hosts. want is the node that the door must belong
// to: its certificate has to say so.
type Doors interface {
	Status(ctx context.Context, addr string, want peer.ID) (door.Status, error)
	Recover(ctx context.Context, addr string, want peer.ID, req p2pnode.RecoverRequest) (p2pnode.RecoverAnswer, error)
}

// doorOf finds where a peer's door listens.
func doorOf(o *overlay.Overlay, id peer.ID) (string, error) {
	p, ok := o.View().Peers[id]
	if !ok || p.Door == "" {
		return "", fmt.Errorf("no door of %s is known", p2pnode.ShortID(id))
	}
	return doorAt(p), nil
}

// doorAt is where to knock for p from here. Its record names the door with the
// first of its host's addresses; on a host with several only the one over which
// there is, or was, a link is sure to lead there. An address that is none of the
// node's own was chosen by a person and stays.
func doorAt(p overlay.Peer) string {
	named, err := netip.ParseAddrPort(p.Door)
	if err != nil || !p.From.IsValid() {
		return p.Door
	}
	own := func(ip netip.Addr) bool {
		return slices.ContainsFunc(p.Addrs, func(a string) bool { at, err := netip.ParseAddrPort(a); return err == nil && at.Addr() == ip })
	}
	if !own(named.Addr()) || !own(p.From) {
		return p.Door
	}
	return netip.AddrPortFrom(p.From, named.Port()).String()
}

// agentDoors is what agents see of doors.
type agentDoors struct {
	o     *overlay.Overlay
	doors Doors
}

// Status implements agent.Doors.
func (d agentDoors) Status(ctx context.Context, target peer.ID) (agent.DoorWord, error) {
	addr, err := doorOf(d.o, target)
	if err != nil {
		return agent.DoorWord{}, err
	}
	s, err := d.doors.Status(ctx, addr, target)
	if err != nil {
		return agent.DoorWord{}, err
	}
	return agent.DoorWord{ExecAlive: s.ExecAlive, NodeAlive: s.NodeAlive, NodeState: string(s.NodeState), NodeLife: s.NodeLife}, nil
}

// Recover implements agent.Doors.
func (d agentDoors) Recover(ctx context.Context, target peer.ID, req p2pnode.RecoverRequest) (p2pnode.RecoverAnswer, error) {
	addr, err := doorOf(d.o, target)
	if err != nil {
		return p2pnode.RecoverAnswer{}, err
	}
	return d.doors.Recover(ctx, addr, target, req)
}

// gossipDoors is what the verdicts see of doors.
type gossipDoors struct{ agentDoors }

// Status implements gossip.Doors.
func (d gossipDoors) Status(ctx context.Context, target peer.ID) (gossip.DoorWord, error) {
	w, err := d.agentDoors.Status(ctx, target)
	return gossip.DoorWord{ExecAlive: w.ExecAlive, NodeAlive: w.NodeAlive, NodeState: w.NodeState, NodeLife: w.NodeLife}, err
}
