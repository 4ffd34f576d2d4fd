package overlay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	manet "github.com/multiformats/go-multiaddr/net"

	"p2pnode"
	"p2pnode/overlay/overlaypb"
)

// Bulk asks any member that can be reached, over a stream of its own; answers may
// have up to 4 MiB.
func (o *Overlay) Bulk(ctx context.Context, id peer.ID, kind string, req []byte) ([]byte, error) {
	s, err := o.stream(ctx, id, protoBulk)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	stop := context.AfterFunc(ctx, func() { s.Reset() })
	defer stop()
	if deadline, ok := ctx.Deadline(); ok {
		s.SetDeadline(deadline)
	}
	var a overlaypb.BulkReply
	if err := writeFrame(s, &overlaypb.BulkRequest{Kind: kind, Body: req}, maxBulkRequest); err != nil {
		return nil, err
	}
	if err := readFrame(s, &a, maxBulkAnswer); err != nil {
		return nil, err
	}
	if a.Error != "" {
		return nil, &remoteError{a.Error}
	}
	return a.Body, nil
}

const bulkTime = 30 * time.Second

func (o *Overlay) serveBulk(c *connection, s network.Stream) {
	defer s.Close()
	s.SetDeadline(time.Now().Add(bulkTime))
	var req overlaypb.BulkRequest
	if err := readFrame(s, &req, maxBulkRequest); err != nil {
		o.count(ReasonFrame)
		s.Reset()
		return
	}
	h := o.bulk[req.Kind]
	if h == nil {
		o.count(ReasonUnknownKind)
		writeFrame(s, &overlaypb.BulkReply{Error: ReasonUnknownKind}, maxBulkAnswer)
		return
	}
	if !o.beginBulk(c.peer) {
		o.count(ReasonCrowded)
		writeFrame(s, &overlaypb.BulkReply{Error: ReasonCrowded}, maxBulkAnswer)
		return
	}
	defer o.endBulk(c.peer)
	ctx, cancel := context.WithTimeout(o.ctx, bulkTime)
	defer cancel()
	body, err := h(ctx, c.peer, req.Body)
	a := &overlaypb.BulkReply{Body: body}
	if err != nil {
		a.Body, a.Error = nil, err.Error()
	}
	if err := writeFrame(s, a, maxBulkAnswer); err != nil {
		s.Reset()
	}
}

func (o *Overlay) beginBulk(p peer.ID) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.bulkBusy[p] >= maxBulkPerPeer {
		return false
	}
	o.bulkBusy[p]++
	return true
}

func (o *Overlay) endBulk(p peer.ID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.bulkBusy[p]--; o.bulkBusy[p] == 0 {
		delete(o.bulkBusy, p)
	}
}

// GossipConn is a gossip stream that a member opened.
type GossipConn struct {
	net.Conn
	Peer peer.ID
}

// GossipDial opens a gossip stream to a member.
func (o *Overlay) GossipDial(ctx context.Context, id peer.ID) (net.Conn, error) {
	s, err := o.stream(ctx, id, protoGossip)
	if err != nil {
		return nil, err
	}
	return streamConn{s}, nil
}

// GossipAccept gives the gossip streams that members open. A reader that is slow
// loses them, counted.
func (o *Overlay) GossipAccept() <-chan GossipConn { return o.gossip }

func (o *Overlay) serveGossip(c *connection, s network.Stream) {
	select {
	case o.gossip <- GossipConn{streamConn{s}, c.peer}:
	default:
		o.count("gossip-streams-dropped")
		s.Reset()
	}
}

// streamConn makes a net.Conn of a stream.
type streamConn struct{ network.Stream }

// LocalAddr implements net.Conn.
func (s streamConn) LocalAddr() net.Addr {
	a, err := manet.ToNetAddr(s.Conn().LocalMultiaddr())
	if err != nil {
		return &net.TCPAddr{}
	}
	return a
}

// RemoteAddr implements net.Conn.
func (s streamConn) RemoteAddr() net.Addr {
	a, err := manet.ToNetAddr(s.Conn().RemoteMultiaddr())
	if err != nil {
		return &net.TCPAddr{}
	}
	return a
}

// stream opens a stream of protocol id to a member, over a connection that is
// there or a new one.
func (o *Overlay) stream(ctx context.Context, p peer.ID, id protocol.ID) (network.Stream, error) {
	c, err := o.reach(ctx, p)
	if err != nil {
		return nil, err
	}
	s, err := c.conn.NewStream(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p2pnode.ShortID(p), err)
	}
	c.touch()
	return s, o.open(c, id, s)
}

func (c *connection) touch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used = time.Now()
}

// reach is a connection with p over which hello has passed.
func (o *Overlay) reach(ctx context.Context, p peer.ID) (*connection, error) {
	if p == o.self {
		return nil, errors.New("that is this node itself")
	}
	o.mu.Lock()
	var have *connection
	for _, c := range o.conns {
		if _, ok := c.certificate(); ok && c.peer == p && !c.conn.IsClosed() {
			have = c
			break
		}
	}
	peerAddrs := o.view.Peers[p].Addrs
	o.mu.Unlock()
	if have != nil {
		return have, nil
	}
	_, addrs, err := o.resolve(ctx, p, peerAddrs)
	if err != nil {
		return nil, err
	}
	c, err := o.dial(ctx, p, addrs)
	if err != nil {
		return nil, err
	}
	if _, err := o.sayHello(ctx, c, false, nil); err != nil {
		c.conn.Close()
		return nil, err
	}
	return c, nil
}
