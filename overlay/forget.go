package overlay

import (
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/overlay/overlaypb"
	"p2pnode/overlay/records"
)

// How members are forgotten. A peer record lapses when its signer has not renewed it
// for a day, an ephemeral member's after an hour; a manager may say earlier that a
// node is not expected back. Its key stays good: whatever it signs afterwards makes
// it a member again, and a node that hears that it was forgotten signs at once.

// former is a member that was forgotten.
type former struct {
	at   time.Time
	name string
}

var errForgotten = fmt.Errorf("%w: it is not expected back", p2pnode.ErrCertificate)

// forgottenSpec is the domain of what is forgotten; ahead of peer records in
// anti-entropy. It need not live longer than a peer record could.
func (o *Overlay) forgottenSpec() records.Spec {
	return records.Spec{
		Domain: p2pnode.DomainForgotten, TTL: peerTTL, Urgent: true, AntiEntropy: true, MaxKeys: maxForgotten, Admit: o.admitProof(forgottenProof),
	}
}

func forgottenProof(body []byte) ([][]byte, time.Time) {
	var m overlaypb.ForgottenRecord
	if decode(body, &m) != nil {
		return nil, time.Time{}
	}
	return m.Chain, time.Unix(m.At, 0)
}

// Forget takes a node off everybody's list: it is not expected back. Managers only.
func (o *Overlay) Forget(id peer.ID) error {
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.managesLocked(now); err != nil {
		return err
	}
	r, ok := o.records.Get(now, p2pnode.DomainPeer, id, "")
	if id == o.self || !ok {
		return &p2pnode.Error{Code: "unknown-node", Text: fmt.Sprintf("%s is no other member", o.nameLocked(id)), Fix: "p2pnode nodes lists them", Exit: p2pnode.ExitUsage}
	}
	m := &overlaypb.ForgottenRecord{Subject: []byte(id), Seq: r.Seq, At: now.Unix(), Chain: o.papers.Chain}
	return o.publishLocked(p2pnode.DomainForgotten, id.String(), encode(m), 0)
}

// takeForgottenLocked carries out what a manager said of a member.
func (o *Overlay) takeForgottenLocked(r p2pnode.Record) {
	id, seq, ok := readForgotten(r)
	if !ok {
		o.count(ReasonFrame)
		return
	}
	if id == o.self { // we are back: whoever hears this record hears that one, too
		o.records.Raise(seq)
		o.publishPeerLocked()
		return
	}
	o.forgotten[id] = max(o.forgotten[id], seq)
	have, known := o.records.Get(time.Now(), p2pnode.DomainPeer, id, "")
	if known && have.Seq > seq {
		return // it has spoken since
	}
	o.cfg.Log.Info().Str("peer", o.nameLocked(id)).Str("id", id.String()).Str("by", o.nameLocked(r.Signer)).Msg("forgotten: not expected back")
	o.goneLocked(id, o.nameLocked(id))
	o.dropLocked(id, append(o.kept[:len(o.kept):len(o.kept)], domainToken)...)
	o.dirtyLocked(hurry)
}

// recallForgottenLocked: some of what was forgotten could not come back any more.
func (o *Overlay) recallForgottenLocked(now time.Time) {
	clear(o.forgotten)
	for _, r := range o.records.Records(now, p2pnode.DomainForgotten) {
		if id, seq, ok := readForgotten(r); ok {
			o.forgotten[id] = max(o.forgotten[id], seq)
		}
	}
}

func readForgotten(r p2pnode.Record) (id peer.ID, seq uint64, ok bool) {
	var m overlaypb.ForgottenRecord
	if decode(r.Body, &m) != nil {
		return "", 0, false
	}
	id, err := peer.IDFromBytes(m.Subject)
	return id, m.Seq, err == nil && id != r.Signer
}

// forgottenLocked reports whether a peer record is one that does not count any more.
func (o *Overlay) forgottenLocked(r p2pnode.Record) bool {
	seq, ok := o.forgotten[r.Signer]
	return ok && r.Seq <= seq
}

// lapseLocked lets go of a member that has not renewed its record in time. The
// memory of that record stays: a copy that comes late is known for what it is.
func (o *Overlay) lapseLocked(id peer.ID) {
	if id == o.self {
		return
	}
	for _, c := range o.conns {
		if c.peer == id {
			return // it is here, and will say so
		}
	}
	o.cfg.Log.Info().Str("peer", o.nameLocked(id)).Str("id", id.String()).Msg("gone for so long that it is forgotten")
	o.goneLocked(id, o.nameLocked(id))
	o.dropLocked(id, append(o.kept[:len(o.kept):len(o.kept)], domainToken, p2pnode.DomainPeer)...)
}

// dropLocked forgets a peer, but for what it said in the domains to keep.
func (o *Overlay) dropLocked(id peer.ID, keep ...p2pnode.Domain) {
	delete(o.certs, id)
	delete(o.lives, id)
	delete(o.proven, id)
	delete(o.from, id)
	delete(o.classes, id)
	o.records.Forget(id, func(d p2pnode.Domain) bool { return !slices.Contains(keep, d) })
	o.book.Remove(id)
	o.keptDirty = true
}

// goneLocked remembers that a node was a member, for those who tell its end.
func (o *Overlay) goneLocked(id peer.ID, name string) {
	if len(o.gone) >= maxGone {
		oldest := id
		for p, g := range o.gone {
			if oldest == id || g.at.Before(o.gone[oldest].at) {
				oldest = p
			}
		}
		delete(o.gone, oldest)
	}
	o.gone[id] = former{time.Now(), name}
}

// Forgotten reports whether id is not expected back: its record lapsed in this life of
// the node, or a manager said so. name is what it was called.
func (o *Overlay) Forgotten(id peer.ID) (name string, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	g, ok := o.gone[id]
	return g.name, ok
}

// peerTTL is how long this node's record counts when it is not renewed.
func (o *Overlay) peerTTL() time.Duration {
	if o.cfg.Ephemeral > 0 {
		return o.cfg.Ephemeral
	}
	return peerTTL
}
