package overlay

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/overlay/overlaypb"
	"p2pnode/overlay/papers"
)

// Who asks to be let in without a token reaches some member, which carries the request
// to some manager. What managers know and decide of it are therefore records: any of
// them lists who waits, any of them approves, any of them lets in.

const (
	keyOpen = "open"
	keyAsks = "asks/"
	keyMay  = "may/"
)

// sayAdmissionLocked dates m by this node's clock, or by m.At if that is later: managers'
// clocks differ, and a word that was said in the knowledge of another one comes after it.
func (o *Overlay) sayAdmissionLocked(key string, m *overlaypb.AdmissionRecord, ttl time.Duration) error {
	m.At = max(m.At, time.Now().UnixMilli())
	return o.publishLocked(p2pnode.DomainAdmission, key, encode(m), ttl)
}

// guestsLocked are the living words on admission.
func (o *Overlay) guestsLocked(f func(r p2pnode.Record, m *overlaypb.AdmissionRecord)) {
	for _, r := range o.records.Records(time.Now(), p2pnode.DomainAdmission) {
		var m overlaypb.AdmissionRecord
		if decode(r.Body, &m) == nil {
			f(r, &m)
		}
	}
}

// Open lets peers on loopback or a directly connected private subnet in without a token
// until d has passed; 0 ends that, whoever began it. Managers only.
func (o *Overlay) Open(d time.Duration) (until time.Time, err error) {
	if d < 0 || d > maxOpen || d > 0 && d < time.Second {
		return until, &p2pnode.Error{Code: "bad-duration", Exit: p2pnode.ExitUsage, Text: fmt.Sprintf("the door opens for 1s to %s, not %s", maxOpen, d), Fix: "p2pnode open 15m"}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.managesLocked(time.Now()); err != nil {
		return until, err
	}
	// The newest word counts also when its time is over: it outlasts those before it.
	_, newest := o.openLocked()
	if err := o.sayAdmissionLocked(keyOpen, &overlaypb.AdmissionRecord{OpenMs: d.Milliseconds(), At: newest + 1}, maxOpen); err != nil {
		return until, err
	}
	return o.openUntilLocked(), nil
}

// OpenUntil is when the door that a manager opened closes; zero: it is closed. The
// window after the cluster's birth is not meant.
func (o *Overlay) OpenUntil() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.openUntilLocked()
}

func (o *Overlay) openUntilLocked() time.Time {
	until, _ := o.openLocked()
	if !until.After(time.Now()) {
		return time.Time{}
	}
	return until
}

// openLocked is the newest word on the open door: until when, also where that is over,
// and how it is dated.
func (o *Overlay) openLocked() (until time.Time, newest int64) {
	o.guestsLocked(func(r p2pnode.Record, m *overlaypb.AdmissionRecord) {
		if r.Key == keyOpen && m.At > newest {
			newest, until = m.At, r.Expires.Add(time.Duration(m.OpenMs)*time.Millisecond-maxOpen)
		}
	})
	return until, newest
}

// notePending lists a stranger, for all managers, unless too many are listed. What the
// member that carried the request says of its address ends up on terminals.
func (o *Overlay) notePending(req papers.Request, address string) {
	if _, err := netip.ParseAddr(address); err != nil {
		address = ""
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	key, now := keyAsks+req.Joiner.String(), time.Now()
	m := &overlaypb.AdmissionRecord{Joiner: []byte(req.Joiner), Name: req.Name, Address: address, Since: now.UnixMilli()}
	listed, said := 0, false
	o.guestsLocked(func(r p2pnode.Record, old *overlaypb.AdmissionRecord) {
		switch {
		case r.Key == key:
			m.Since = min(m.Since, old.Since)
			said = said || r.Signer == o.self && now.Sub(time.UnixMilli(old.At)) < pendingSay
		case r.Signer == o.self && old.Since > 0:
			listed++
		}
	})
	if said {
		return
	}
	if listed >= maxPending {
		o.count(ReasonPending)
		return
	}
	if err := o.sayAdmissionLocked(key, m, pendingTTL); err != nil {
		o.cfg.Log.Warn().Err(err).Msg("who asks to be let in is not listed")
	}
}

// Pending are those who lately asked to be let in without a token and were not,
// oldest first.
func (o *Overlay) Pending() []p2pnode.PendingNode {
	o.mu.Lock()
	defer o.mu.Unlock()
	byID := map[peer.ID]p2pnode.PendingNode{}
	o.guestsLocked(func(_ p2pnode.Record, m *overlaypb.AdmissionRecord) {
		id, err := peer.IDFromBytes(m.Joiner)
		if err != nil || m.Since == 0 || !presentable(m) || o.memberLocked(id) || o.approvedLocked(id) {
			return
		}
		p := p2pnode.PendingNode{Code: papers.Code(id), ID: id.String(), Name: m.Name, Address: m.Address, Since: time.UnixMilli(m.Since)}
		if old, twice := byID[id]; twice && old.Since.Before(p.Since) {
			p.Since = old.Since
		}
		byID[id] = p
	})
	var out []p2pnode.PendingNode
	for _, p := range byID {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b p2pnode.PendingNode) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Code, b.Code))
	})
	return out
}

// presentable reports whether a stranger's name and address may be shown.
func presentable(m *overlaypb.AdmissionRecord) bool {
	_, err := netip.ParseAddr(m.Address)
	return p2pnode.ValidNodeName(m.Name) && (err == nil || m.Address == "")
}

// Approve lets one who waits come in as a worker. Managers only.
func (o *Overlay) Approve(id peer.ID) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.managesLocked(time.Now()); err != nil {
		return err
	}
	return o.sayAdmissionLocked(keyMay+id.String(), &overlaypb.AdmissionRecord{Joiner: []byte(id)}, approvedTTL)
}

func (o *Overlay) approvedLocked(id peer.ID) (may bool) {
	o.guestsLocked(func(r p2pnode.Record, m *overlaypb.AdmissionRecord) {
		may = may || r.Key == keyMay+id.String() && peer.ID(m.Joiner) == id
	})
	return may
}

// Trust says that the person at this host wants to be in this cluster and no other:
// from here on its managers are trusted as if a token had pinned it.
func (o *Overlay) Trust(cluster string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.papers == nil:
		return errNotMember
	case o.papers.ID() != cluster:
		return &p2pnode.Error{
			Code: "foreign-cluster", Exit: p2pnode.ExitNotPermitted, Text: fmt.Sprintf("this host is in cluster %s, not in %q", o.papers.ID(), cluster),
			Fix: "compare with cluster.id of p2pnode status on a manager; to be in that cluster: p2pnode leave, then --join with a token",
		}
	case o.papers.Trusted:
		return nil
	}
	next := *o.papers
	next.Trusted = true
	if err := next.Save(o.cfg.Dir); err != nil {
		return err
	}
	o.papers = &next
	return nil
}
