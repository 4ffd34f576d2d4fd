package overlay

import (
	"cmp"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/overlay/route"
)

// linkChangedLocked makes our link record due, as soon as its pace allows.
func (o *Overlay) linkChangedLocked(now time.Time) {
	due := o.linkPace.due(now)
	if o.linkDue.IsZero() || due.Before(o.linkDue) {
		o.linkDue = due
	}
	if !due.After(now) {
		o.publishLinksLocked(now)
		return
	}
	o.wake()
}

func (o *Overlay) publishLinksLocked(now time.Time) {
	o.linkPace.spend(now)
	o.linkDue = time.Time{}
	var edges []route.Edge
	for _, l := range o.links {
		if !slices.ContainsFunc(edges, func(e route.Edge) bool { return e.Peer == l.peer }) {
			edges = append(edges, route.Edge{Peer: l.peer, Class: o.classes[l.peer]})
		}
	}
	if o.papers == nil || o.closing {
		return
	}
	slices.SortFunc(edges, func(a, b route.Edge) int { return cmp.Compare(a.Peer, b.Peer) })
	if err := o.publishLocked(p2pnode.DomainLink, "", route.EncodeLinks(edges), linkTTL); err != nil {
		o.cfg.Log.Error().Err(err).Msg("cannot publish own links")
	}
}

// classMovedLocked follows a measurement and reports whether the link's class is
// another now.
func (o *Overlay) classMovedLocked(p peer.ID, rtt time.Duration) bool {
	old, known := o.classes[p]
	now := route.Classify(rtt)
	if known {
		now = old.Follow(rtt)
	}
	o.classes[p] = now
	return !known && now != 0 || known && now != old
}
