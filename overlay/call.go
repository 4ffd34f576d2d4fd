package overlay

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/overlay/overlaypb"
)

// ErrNoLink means that a call's neighbour is none (any more).
var ErrNoLink = errors.New("no link with this node")

// ErrNoRoute means that the routing table knows no way.
var ErrNoRoute = errors.New("no route")

// Call asks a neighbour over the link and waits for its answer.
func (o *Overlay) Call(ctx context.Context, neighbour peer.ID, kind string, req []byte) ([]byte, error) {
	o.mu.Lock()
	l := o.linkOfLocked(neighbour)
	o.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("%s: %w", p2pnode.ShortID(neighbour), ErrNoLink)
	}
	return o.callLink(ctx, l, kind, req)
}

// remoteError is what a handler on the other side said; the transport worked.
type remoteError struct{ text string }

func (e *remoteError) Error() string { return e.text }

func (o *Overlay) callLink(ctx context.Context, l *link, kind string, req []byte) ([]byte, error) {
	ch := make(chan *overlaypb.Reply, 1)
	l.mu.Lock()
	l.callID++
	id := l.callID
	l.waiting[id] = ch
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.waiting, id)
		l.mu.Unlock()
	}()
	if !l.send(&overlaypb.Frame{Body: &overlaypb.Frame_Call{Call: &overlaypb.Call{Id: id, Kind: kind, Body: req}}}) {
		return nil, fmt.Errorf("%s: the link takes no more: %w", p2pnode.ShortID(l.peer), ErrNoLink)
	}
	select {
	case r := <-ch:
		if r.Error != "" {
			return nil, &remoteError{r.Error}
		}
		return r.Body, nil
	case <-l.done:
		return nil, fmt.Errorf("%s: the link ended: %w", p2pnode.ShortID(l.peer), ErrNoLink)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// takeCall answers a neighbour's call on a goroutine of its own; more than
// maxCallsPerLink at a time are refused.
func (o *Overlay) takeCall(l *link, c *overlaypb.Call) {
	reply := func(body []byte, err error) {
		r := &overlaypb.Reply{Id: c.Id, Body: body}
		if err != nil {
			r.Body, r.Error = nil, err.Error()
		}
		if !l.send(&overlaypb.Frame{Body: &overlaypb.Frame_Reply{Reply: r}}) {
			o.count("replies-dropped")
		}
	}
	h := o.calls[c.Kind]
	if h == nil || len(c.Kind) > maxKind {
		o.count(ReasonUnknownKind)
		reply(nil, errors.New(ReasonUnknownKind))
		return
	}
	select {
	case l.busy <- struct{}{}:
	default:
		o.count(ReasonCrowded)
		reply(nil, errors.New(ReasonCrowded))
		return
	}
	o.work.Go(func() {
		defer func() { <-l.busy }()
		reply(h(o.ctx, l.peer, c.Body))
	})
}

// Route carries a call to dst along the routing table, hop by hop, each node
// deciding by its own table, and brings the answer back. trail is the way that it
// took: this node first, dst last.
func (o *Overlay) Route(ctx context.Context, dst peer.ID, kind string, req []byte) (body []byte, trail []peer.ID, err error) {
	m := &overlaypb.Routed{Origin: []byte(o.self), Destination: []byte(dst), Kind: kind, Body: req, Trail: [][]byte{[]byte(o.self)}}
	reply, err := o.carry(ctx, m)
	if err != nil {
		return nil, nil, err
	}
	for _, t := range reply.Trail {
		trail = append(trail, peer.ID(t))
	}
	if reply.Error != "" {
		return nil, trail, &remoteError{reply.Error}
	}
	return reply.Body, trail, nil
}

// takeRouted is a routed call on its way through this node.
func (o *Overlay) takeRouted(ctx context.Context, _ peer.ID, raw []byte) ([]byte, error) {
	var m overlaypb.Routed
	if err := decode(raw, &m); err != nil {
		return nil, err
	}
	if len(m.Trail) == 0 || len(m.Trail) > maxTrail || len(m.Kind) > maxKind {
		o.count(ReasonFrame)
		return nil, errFrame
	}
	if slices.ContainsFunc(m.Trail, func(t []byte) bool { return peer.ID(t) == o.self }) {
		o.count(ReasonLoop)
		return nil, errors.New(ReasonLoop)
	}
	m.Trail = append(m.Trail, []byte(o.self))
	reply, err := o.carry(ctx, &m)
	if err != nil {
		return nil, err
	}
	return encode(reply), nil
}

// carry answers m here, or hands it to the next hop; when that one fails, to the
// second choice.
func (o *Overlay) carry(ctx context.Context, m *overlaypb.Routed) (*overlaypb.RoutedReply, error) {
	if peer.ID(m.Destination) == o.self {
		return o.arrive(ctx, m), nil
	}
	var visited []peer.ID
	for _, t := range m.Trail {
		visited = append(visited, peer.ID(t))
	}
	dst, raw := peer.ID(m.Destination), encode(m)
	last := error(ErrNoRoute)
	for range 3 {
		table := o.View().Table
		next, ok := table.Avoiding(dst, visited...)
		if !ok {
			break
		}
		visited = append(visited, next)
		_, another := table.Avoiding(dst, visited...)
		reply, err := o.hop(ctx, next, raw, another)
		if err == nil {
			return reply, nil
		}
		last = err
		if ctx.Err() != nil {
			break
		}
	}
	o.count(ReasonNoRoute)
	return nil, fmt.Errorf("to %s: %w", p2pnode.ShortID(dst), last)
}

// hop asks one neighbour to carry on; where there is another way it gets only
// hopTime.
func (o *Overlay) hop(ctx context.Context, next peer.ID, raw []byte, another bool) (*overlaypb.RoutedReply, error) {
	if another {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, hopTime)
		defer cancel()
	}
	body, err := o.Call(ctx, next, kindRoute, raw)
	if err != nil {
		return nil, err
	}
	var reply overlaypb.RoutedReply
	if err := decode(body, &reply); err != nil {
		return nil, err
	}
	return &reply, nil
}

func (o *Overlay) arrive(ctx context.Context, m *overlaypb.Routed) *overlaypb.RoutedReply {
	reply := &overlaypb.RoutedReply{Trail: m.Trail}
	h := o.routed[m.Kind]
	origin := peer.ID(m.Origin)
	o.mu.Lock()
	member := o.memberLocked(origin)
	o.mu.Unlock()
	switch {
	case h == nil:
		o.count(ReasonUnknownKind)
		reply.Error = ReasonUnknownKind
	case !member || !slices.Equal(m.Trail[0], m.Origin):
		o.count(ReasonStranger)
		reply.Error = ReasonStranger
	default:
		body, err := h(ctx, origin, m.Body)
		reply.Body = body
		if err != nil {
			reply.Body, reply.Error = nil, err.Error()
		}
	}
	return reply
}
