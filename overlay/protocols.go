package overlay

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	mss "github.com/multiformats/go-multistream"

	"p2pnode"
)

// The protocols. The table below is all that a node answers to.
const (
	protoHello  protocol.ID = "/p2pnode/hello/1"
	protoLink   protocol.ID = "/p2pnode/link/1"
	protoBulk   protocol.ID = "/p2pnode/bulk/1"
	protoGossip protocol.ID = "/p2pnode/gossip/1"
)

// protocolRule says who may open a protocol.
type protocolRule struct {
	id protocol.ID
	// open to connections that have not shown a certificate
	stranger bool
	// open to members of these roles
	roles []p2pnode.Role
	serve func(o *Overlay, c *connection, s network.Stream)
}

// protocols is the table protocol x role. A protocol that is not here does not
// exist; a role that is not in a row is refused.
func protocols() []protocolRule {
	members := []p2pnode.Role{p2pnode.RoleWorker, p2pnode.RoleManager}
	return []protocolRule{
		{id: protoHello, stranger: true, roles: members, serve: (*Overlay).serveHello},
		{id: protoLink, roles: members, serve: (*Overlay).serveLink},
		{id: protoBulk, roles: members, serve: (*Overlay).serveBulk},
		{id: protoGossip, roles: members, serve: (*Overlay).serveGossip},
	}
}

// allows reports whether a connection with certificate cert (ok false: none shown)
// may open the protocol.
func (r protocolRule) allows(cert p2pnode.Certificate, ok bool) bool {
	if !ok {
		return r.stranger
	}
	return slices.Contains(r.roles, cert.Role)
}

// muxer negotiates what the table registers.
func muxer(rules []protocolRule) *mss.MultistreamMuxer[protocol.ID] {
	m := mss.NewMultistreamMuxer[protocol.ID]()
	for _, r := range rules {
		m.AddHandler(r.id, nil)
	}
	return m
}

// accept is the swarm's handler of incoming streams; it runs on a goroutine of
// its own per stream.
func (o *Overlay) accept(s network.Stream) {
	c := o.connectionOf(s.Conn())
	if c == nil || !o.begin() {
		s.Reset()
		return
	}
	defer o.work.Done()
	if len(s.Conn().GetStreams()) > maxStreamsPerCon {
		o.count(ReasonStreams)
		s.Reset()
		return
	}
	s.SetDeadline(time.Now().Add(helloTime))
	id, _, err := o.mux.Negotiate(s)
	if err != nil {
		o.count(ReasonProtocol)
		s.Reset()
		return
	}
	var rule protocolRule
	for _, r := range o.rules {
		if r.id == id {
			rule = r
		}
	}
	if rule.serve == nil {
		o.count(ReasonProtocol)
		s.Reset()
		return
	}
	if !rule.stranger {
		c.waitHello(gateTime)
	}
	if cert, ok := c.certificate(); !rule.allows(cert, ok) {
		o.count(ReasonGate)
		s.Reset()
		return
	}
	s.SetDeadline(time.Time{})
	rule.serve(o, c, s)
}

// begin counts a piece of work that Run waits for, unless Run is about to end.
func (o *Overlay) begin() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closing {
		return false
	}
	o.work.Add(1)
	return true
}

// open opens a stream of protocol id on connection c.
func (o *Overlay) open(c *connection, id protocol.ID, s network.Stream) error {
	s.SetDeadline(time.Now().Add(helloTime))
	if err := mss.SelectProtoOrFail(id, s); err != nil {
		s.Reset()
		return err
	}
	s.SetDeadline(time.Time{})
	return nil
}
