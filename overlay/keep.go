package overlay

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	ma "github.com/multiformats/go-multiaddr"

	"p2pnode/overlay/discover"
	"p2pnode/overlay/keeper"
)

// stepLocked hands an event to the link keeper and carries out what it wants.
func (o *Overlay) stepLocked(ev keeper.Event) {
	if o.closing {
		return
	}
	now := time.Now()
	effects := o.keeper.Step(now, ev)
	switch ev.(type) {
	case keeper.Up, keeper.Down:
		o.movedAt = now
	}
	if len(effects) > 0 {
		o.movedAt = now
	}
	for _, e := range effects {
		switch e := e.(type) {
		case keeper.Dial:
			o.work.Go(func() { o.dialLink(e) })
		case keeper.Close:
			if l := o.links[e.Conn]; l != nil {
				o.work.Go(func() { o.closeLink(l, e.Cause) })
			}
		case keeper.Protect:
			// A connection with a link is never trimmed: see trim.
		}
	}
}

func (o *Overlay) deniedCandidate(c keeper.Candidate) bool {
	return o.deny.Match(c.ID, c.Name, c.Addrs...)
}

// closeLink ends a link on purpose and says so, so that nobody suspects anything.
func (o *Overlay) closeLink(l *link, cause string) {
	o.part(l, byeClosed, cause)
}

// dialLink is one attempt of the keeper to have a link.
func (o *Overlay) dialLink(e keeper.Dial) {
	ctx, cancel := context.WithTimeout(o.ctx, dialTime+helloTime)
	defer cancel()
	id, err := o.linkWith(ctx, e.Peer, e.Addrs)
	if errors.Is(err, errItself) && !literal(e.Addrs) {
		id = "" // a name may lead to others tomorrow
	}
	if err != nil {
		o.cfg.Log.Debug().Err(err).Strs("addrs", e.Addrs).Msg("no link")
		r, refused := errors.AsType[*refusedError](err)
		if refused && (e.Peer == "" && r.reason == ReasonForeign || r.reason == ReasonRevoked) {
			o.noteTrouble(err, e.Addrs)
		}
		if refused && e.Peer == "" && r.reason == ReasonForeign {
			o.dissolve(e.Addrs)
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if err == nil && e.Peer == "" {
		o.joinError = nil
	}
	o.stepLocked(keeper.Dialled{Key: e.Key, Peer: id, OK: err == nil})
}

// linkWith has a link with whoever is meant: id, or the first that answers at addrs
// and is of use. who is who answered, also when that was not wanted.
func (o *Overlay) linkWith(ctx context.Context, id peer.ID, addrs []string) (who peer.ID, err error) {
	return o.firstOf(ctx, id, addrs, o.openLink)
}

// openLink dials, says hello and opens the link's stream.
func (o *Overlay) openLink(ctx context.Context, id peer.ID, addrs []string) error {
	c, err := o.dial(ctx, id, addrs)
	if err != nil {
		return err
	}
	if _, err := o.sayHello(ctx, c, true, nil); err != nil {
		if _, answered := errors.AsType[*refusedError](err); !answered {
			o.drop(c)
		}
		return err
	}
	s, err := c.conn.NewStream(ctx)
	if err != nil {
		return err
	}
	if err := o.open(c, protoLink, s); err != nil {
		return err
	}
	o.startLink(c, s, true)
	return nil
}

// dial gives a connection with id: one that is there, or a new one.
func (o *Overlay) dial(ctx context.Context, id peer.ID, addrs []string) (*connection, error) {
	select {
	case <-o.running: // papers from disk make a member before Run has begun
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var mas []ma.Multiaddr
	for _, a := range addrs {
		if m := multiaddr(a); m != nil {
			mas = append(mas, m)
		}
	}
	ps := o.stack.swarm.Peerstore()
	ps.ClearAddrs(id)
	ps.AddAddrs(id, mas, peerstore.TempAddrTTL)
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	// Forced, so that a failed dial does not forbid the next one for seconds: the
	// keeper has a backoff of its own.
	conn, err := o.stack.swarm.DialPeer(network.WithForceDirectDial(ctx, "p2pnode"), id)
	if err != nil {
		return nil, dialReason(err)
	}
	c := o.connectionOf(conn)
	if c == nil {
		return nil, network.ErrReset
	}
	if conn.Stat().Direction == network.DirOutbound && c.addr.IsValid() {
		o.mu.Lock()
		o.proven[id] = c.addr
		o.mu.Unlock()
	}
	return c, nil
}

// candidatesLocked is everybody to whom a link may be had.
func (o *Overlay) candidatesLocked() []keeper.Candidate {
	var out []keeper.Candidate
	for id, p := range o.view.Peers {
		if id == o.self || p.Left {
			continue
		}
		_, reachable := o.view.Table.Hops(o.self, id)
		out = append(out, keeper.Candidate{
			ID: id, Name: p.Name, Addrs: p.Addrs, Subnet: subnetOf(p.Addrs), Lost: !reachable,
			Degree: len(o.view.Table.Neighbours(id)),
		})
	}
	for _, e := range o.book.Entries() {
		if _, known := o.view.Peers[e.ID]; !known && e.ID != o.self {
			out = append(out, keeper.Candidate{ID: e.ID, Name: e.Name, Addrs: e.Addrs, Subnet: subnetOf(e.Addrs)})
		}
	}
	for _, f := range o.seen {
		if _, known := o.view.Peers[f.id]; !known {
			out = append(out, keeper.Candidate{ID: f.id, Addrs: f.addrs, Subnet: subnetOf(f.addrs)})
		}
	}
	for _, h := range o.hints {
		out = append(out, keeper.Candidate{Addrs: []string{h}, Join: true})
	}
	return out
}

func subnetOf(addrs []string) netip.Prefix {
	for _, a := range addrs {
		if ap, err := netip.ParseAddrPort(a); err == nil {
			return discover.Subnet(ap.Addr())
		}
	}
	return netip.Prefix{}
}

// drop closes a connection over which nothing is heard. The kernel may keep one
// open for a quarter of an hour whose address is gone; as long as it is there every
// dial to that peer gets it instead of a new one.
func (o *Overlay) drop(c *connection) {
	o.mu.Lock()
	delete(o.conns, c.conn.ID())
	o.mu.Unlock()
	o.work.Go(func() { c.conn.Close() })
}

// trimForEver trims until ctx ends, also while this node is not a member yet.
func (o *Overlay) trimForEver(ctx context.Context) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			o.trim(now)
		}
	}
}

// trim closes connections that carry nothing: without it the overlay would creep
// to a full mesh, since gossip opens streams to random members. Those that show no
// certificate in time are closed whatever they carry.
func (o *Overlay) trim(now time.Time) {
	o.mu.Lock()
	linked := map[*connection]bool{}
	for _, l := range o.links {
		linked[l.conn] = true
	}
	var idle []*connection
	for _, c := range o.conns {
		if linked[c] {
			continue
		}
		if _, passed := c.certificate(); !passed && now.Sub(c.opened) > strangerTime {
			o.count(ReasonNoHello)
			idle = append(idle, c)
			continue
		}
		c.mu.Lock()
		if len(c.conn.GetStreams()) > 0 {
			c.used = now
		} else if now.Sub(c.used) > idleTime {
			idle = append(idle, c)
		}
		c.mu.Unlock()
	}
	o.mu.Unlock()
	for _, c := range idle {
		c.conn.Close()
	}
}

// connectionOf is what is kept of a libp2p connection; it is made on first sight.
func (o *Overlay) connectionOf(conn network.Conn) *connection {
	o.mu.Lock()
	defer o.mu.Unlock()
	if c := o.conns[conn.ID()]; c != nil {
		return c
	}
	if o.closing || conn.IsClosed() {
		return nil
	}
	c := newConnection(conn)
	o.conns[conn.ID()] = c
	return c
}

// notifiee hears of connections that begin and end.
type notifiee struct{ o *Overlay }

// Connected implements network.Notifiee.
func (n notifiee) Connected(_ network.Network, c network.Conn) { n.o.connectionOf(c) }

// Disconnected implements network.Notifiee. The links over the connection hear of
// it by their readers.
func (n notifiee) Disconnected(_ network.Network, c network.Conn) {
	n.o.mu.Lock()
	defer n.o.mu.Unlock()
	delete(n.o.conns, c.ID())
}

// Listen implements network.Notifiee.
func (notifiee) Listen(network.Network, ma.Multiaddr) {}

// ListenClose implements network.Notifiee.
func (notifiee) ListenClose(network.Network, ma.Multiaddr) {}
