package overlay

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/overlay/overlaypb"
)

// lives are the lives of one member, in the order in which its peer records are
// numbered. Each process signs for one life, and numbers what it signs above all
// that it has heard under its own key. A life that is heard again, above another
// that had replaced it, has heard of that one; when that one answers, both are
// alive: two processes with one key, as with a cloned disk. No clock has a say in
// it. One return alone is no proof: a node whose boot number was lost outranks the
// record of a life that is long over, once.
type lives struct {
	now      p2pnode.Life
	before   []p2pnode.Life
	seq      uint64
	returned time.Time // when a replaced life was last heard again
	twice    time.Time // when two were last known to live
}

// note takes a record of life, numbered above all before it.
func (l *lives) note(now time.Time, life p2pnode.Life, seq uint64) {
	l.seq = seq
	if life == l.now {
		return
	}
	if i := slices.Index(l.before, life); i >= 0 {
		if !l.returned.IsZero() && now.Sub(l.returned) < returnsWithin {
			l.twice = now
		}
		l.before, l.returned = slices.Delete(l.before, i, i+1), now
	}
	if !l.now.IsZero() {
		l.before = append(l.before, l.now)
		l.before = l.before[max(0, len(l.before)-maxLives):]
	}
	l.now = life
}

// noteLifeLocked files which life signed a peer record that is newer than all before
// it: another member's, our own, or one that was signed with our key elsewhere.
func (o *Overlay) noteLifeLocked(r p2pnode.Record) {
	var m overlaypb.PeerRecord
	if decode(r.Body, &m) != nil {
		return
	}
	l := o.lives[r.Signer]
	if l == nil {
		l = &lives{}
		o.lives[r.Signer] = l
	}
	was := l.twice
	if r.Signer == o.self {
		for _, own := range o.records.Records(time.Now(), p2pnode.DomainPeer) {
			if own.Signer == o.self && own.Seq > l.seq && own.Seq < r.Seq {
				l.note(time.Now(), o.life, own.Seq) // it was said again meanwhile
			}
		}
	}
	l.note(time.Now(), p2pnode.Life{Boot: m.Boot, Nonce: m.Nonce}, r.Seq)
	if l.twice != was {
		o.dirtyLocked(hurry)
	}
}

// twiceLocked is when two processes with id's key were last known to live; zero:
// never.
func (o *Overlay) twiceLocked(id peer.ID) time.Time {
	if l := o.lives[id]; l != nil {
		return l.twice
	}
	return time.Time{}
}
