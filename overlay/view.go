package overlay

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/overlay/overlaypb"
	"p2pnode/overlay/route"
)

// Link is a live link of this node.
type Link struct {
	RTT   time.Duration // 0: not measured yet
	Since time.Time
}

// View is an immutable picture of the cluster from here.
type View struct {
	Version uint64
	Self    peer.ID
	Peers   map[peer.ID]Peer // certified members, this node too
	Links   map[peer.ID]Link
	Table   *route.Table
}

// View is the newest snapshot.
func (o *Overlay) View() *View { return o.current.Load() }

// Changed is closed when there is a newer View than the one that is there now:
// take it before the View that you look at.
func (o *Overlay) Changed() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.changed
}

// dirtyLocked makes a new view at once if the last one is older than gap, else when
// it is: a fleet that starts sends records in bursts.
func (o *Overlay) dirtyLocked(gap time.Duration) {
	due := o.viewAt.Add(gap)
	if !due.After(time.Now()) {
		o.rebuildLocked()
		return
	}
	if o.viewDue.IsZero() || due.Before(o.viewDue) {
		o.viewDue = due
		o.wake()
	}
}

func (o *Overlay) wake() {
	select {
	case o.poke <- struct{}{}:
	default:
	}
}

func (o *Overlay) rebuildLocked() {
	o.viewAt, o.viewDue = time.Now(), time.Time{}
	o.view = o.buildLocked()
	o.current.Store(o.view)
	close(o.changed)
	o.changed = make(chan struct{})
}

func (o *Overlay) buildLocked() *View {
	now := time.Now()
	v := &View{Self: o.self, Peers: map[peer.ID]Peer{}, Links: map[peer.ID]Link{}}
	if o.view != nil {
		v.Version = o.view.Version + 1
	}
	said := map[peer.ID]uint64{}
	for _, r := range o.records.Records(now, p2pnode.DomainPeer) {
		if p, ok := o.peerLocked(r); ok {
			v.Peers[p.ID], said[p.ID] = p, r.Seq
		}
	}
	for _, r := range o.records.Records(now, p2pnode.DomainLeave) {
		var l overlaypb.LeaveRecord
		p, ok := v.Peers[r.Signer]
		// All records of a signer are numbered in one row, so that the order of
		// leaving and coming back does not depend on a boot number's file.
		if ok && decode(r.Body, &l) == nil && r.Seq > said[r.Signer] {
			p.Left, p.ForGood = true, l.ForGood
			v.Peers[r.Signer] = p
		}
	}
	var own []route.Edge
	for _, l := range o.links {
		if _, twice := v.Links[l.peer]; twice {
			continue
		}
		l = o.linkOfLocked(l.peer)
		l.mu.Lock()
		v.Links[l.peer] = Link{RTT: l.rtt, Since: l.since}
		l.mu.Unlock()
		own = append(own, route.Edge{Peer: l.peer, Class: o.classes[l.peer]})
	}
	all := []route.Links{{Of: o.self, Edges: own}}
	for _, r := range o.records.Records(now, p2pnode.DomainLink) {
		if r.Signer == o.self {
			continue // what is known here is newer than what was said
		}
		if links, err := route.DecodeLinks(r.Signer, r.Body); err == nil {
			all = append(all, links)
		}
	}
	v.Table = route.Build(o.self, all, o.penalty)
	return v
}
