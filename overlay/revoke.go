package overlay

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/overlay/overlaypb"
	"p2pnode/overlay/records"
)

// Revocation: a manager says that a key is refused for good. The record carries the
// manager's own certificates and is kept on disk by everybody, so that it counts
// when he is long gone. It also names what the revoked key had certified and what
// stays good: without that the first manager could never be revoked.

// refusedSpec is a domain of words against keys; before all others in anti-entropy.
func (o *Overlay) refusedSpec(d p2pnode.Domain, proof func([]byte) ([][]byte, time.Time)) records.Spec {
	return records.Spec{Domain: d, Urgent: true, AntiEntropy: true, MaxKeys: maxRevoked, Admit: o.admitProof(proof)}
}

// revokedProof is the signer's chain inside a revocation, and when it signed.
func revokedProof(body []byte) ([][]byte, time.Time) {
	var m overlaypb.RevokedRecord
	if decode(body, &m) != nil {
		return nil, time.Time{}
	}
	return m.Chain, time.Unix(m.At, 0)
}

// Revoked are the keys that are refused here. Not to be changed.
func (o *Overlay) Revoked() p2pnode.Revocations {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.revoked
}

// Revoke refuses a key for good, everywhere. Members that it had certified stay;
// kept are their names. Managers only.
func (o *Overlay) Revoke(id peer.ID) (kept []string, err error) {
	if kept, err = o.sayRevoked(id); err != nil {
		return nil, err
	}
	if err := o.rotateGossip(id); err != nil {
		return kept, &p2pnode.Error{
			Code: "gossip-key", Text: fmt.Sprintf("revoked, but gossip is sealed with the same key as before: %v", err), Fix: "mend that and run it again",
		}
	}
	return kept, nil
}

func (o *Overlay) sayRevoked(id peer.ID) (kept []string, err error) {
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.managesLocked(now); err != nil {
		return nil, err
	}
	if id == o.self {
		return nil, &p2pnode.Error{Code: "revoke-self", Text: "a manager cannot revoke itself", Fix: "run it on another manager; to go, run: p2pnode leave"}
	}
	marks, kept := o.certifiedLocked(id)
	if err := o.sayRefusedLocked(id, p2pnode.Revocation{At: now.Unix(), Kept: marks}); err != nil {
		return nil, err
	}
	o.rotateReaderLocked(now)
	return kept, nil
}

// certifiedLocked are the members that id has let in, and the marks by which they stay.
func (o *Overlay) certifiedLocked(id peer.ID) (marks []p2pnode.CertMark, names []string) {
	for member, c := range o.certs {
		if mark, ok := certifiedBy(c.cert, id); ok {
			marks = append(marks, mark)
			names = append(names, o.nameLocked(member))
		}
	}
	slices.SortFunc(marks, func(a, b p2pnode.CertMark) int { return slices.Compare(a[:], b[:]) })
	slices.Sort(names)
	return slices.Compact(marks), names
}

// repeatLocked says what id has said against others again, in this node's name: who
// comes later takes nothing from id any more.
func (o *Overlay) repeatLocked(id peer.ID) {
	now := time.Now()
	if o.managesLocked(now) != nil {
		return
	}
	for _, d := range []p2pnode.Domain{p2pnode.DomainRevoked, p2pnode.DomainDemoted} {
		for _, r := range o.records.Records(now, d) {
			subject, word, ok := readRefused(r)
			if !ok || r.Signer != id || subject == o.self || o.repeatedLocked(r.Domain, r.Key, now) {
				continue
			}
			if err := o.sayRefusedLocked(subject, word); err != nil {
				o.cfg.Log.Error().Err(err).Str("peer", o.nameLocked(subject)).Msg("what a former manager said against it is not repeated")
			}
		}
	}
}

// repeatedLocked reports whether a manager in force says it already.
func (o *Overlay) repeatedLocked(d p2pnode.Domain, key string, now time.Time) bool {
	return slices.ContainsFunc(o.records.Records(now, d), func(r p2pnode.Record) bool {
		return r.Key == key && (r.Signer == o.self || o.managerLocked(r.Signer))
	})
}

// certifiedBy is the mark of the certificate by which id let a member in.
func certifiedBy(c p2pnode.Certificate, id peer.ID) (p2pnode.CertMark, bool) {
	if c.ID == id {
		return p2pnode.CertMark{}, false
	}
	for i, der := range c.Chain[:max(0, len(c.Chain)-1)] {
		if issuer, err := p2pnode.SubjectOf(c.Chain[i+1]); err == nil && issuer == id {
			return p2pnode.MarkOfCert(der), true
		}
	}
	return p2pnode.CertMark{}, false
}

func (o *Overlay) nameLocked(id peer.ID) string {
	if p, ok := o.view.Peers[id]; ok {
		return p.Name
	}
	return p2pnode.ShortID(id)
}

// sayRefusedLocked publishes a word against id, in as many records as its marks need.
func (o *Overlay) sayRefusedLocked(id peer.ID, word p2pnode.Revocation) error {
	for n := 0; n == 0 || n*maxMarks < len(word.Kept); n++ {
		var kept []byte
		for _, k := range word.Kept[n*maxMarks : min(len(word.Kept), (n+1)*maxMarks)] {
			kept = append(kept, k[:]...)
		}
		domain, body := p2pnode.DomainRevoked, encode(&overlaypb.RevokedRecord{Subject: []byte(id), At: word.At, Chain: o.papers.Chain, Kept: kept})
		if word.Demoted {
			domain, body = p2pnode.DomainDemoted, encode(&overlaypb.DemotedRecord{Subject: []byte(id), At: word.At, Chain: o.papers.Chain, Kept: kept})
		}
		if err := o.publishLocked(domain, id.String()+"/"+strconv.Itoa(n), body, 0); err != nil {
			return err
		}
	}
	return nil
}

// readRefused reads a word against a key. A manager may demote itself, not revoke.
func readRefused(r p2pnode.Record) (subject peer.ID, word p2pnode.Revocation, ok bool) {
	var m interface {
		GetSubject() []byte
		GetAt() int64
		GetKept() []byte
	}
	switch r.Domain {
	case p2pnode.DomainDemoted:
		var d overlaypb.DemotedRecord
		if decode(r.Body, &d) != nil {
			return "", word, false
		}
		m, word.Demoted = &d, true
	default:
		var d overlaypb.RevokedRecord
		if decode(r.Body, &d) != nil {
			return "", word, false
		}
		m = &d
	}
	if len(m.GetKept())%len(p2pnode.CertMark{}) != 0 {
		return "", word, false
	}
	id, err := peer.IDFromBytes(m.GetSubject())
	for k := range slices.Chunk(m.GetKept(), len(p2pnode.CertMark{})) {
		word.Kept = append(word.Kept, p2pnode.CertMark(k))
	}
	word.At = m.GetAt()
	return id, word, err == nil && (word.Demoted || id != r.Signer)
}

// takeRefusedLocked carries out a word against a key: of one that was revoked nothing
// counts from here on, and nothing over its connections is heard; of one that was
// demoted what it said as a manager.
func (o *Overlay) takeRefusedLocked(r p2pnode.Record) {
	id, word, ok := readRefused(r)
	if !ok {
		o.count(ReasonFrame)
		return
	}
	o.revoked = o.revoked.With(id, word)
	what := map[bool]string{true: "demoted", false: "revoked"}[word.Demoted]
	o.cfg.Log.Warn().Str("peer", o.nameLocked(id)).Str("id", id.String()).Str("by", o.nameLocked(r.Signer)).Msg(what)
	if id == o.self {
		o.refusedSelfLocked(r.Signer)
	}
	var said []p2pnode.Record
	if cert, err := p2pnode.VerifyChain(o.papers.Root, o.certs[id].cert.Chain, o.revoked); err != nil || cert.Role != p2pnode.RoleManager {
		said = o.records.Forget(id, func(d p2pnode.Domain) bool { return slices.Contains(o.privileged, d) })
		o.ledger.Forget(id)
	}
	for member, c := range o.certs {
		cert, err := p2pnode.VerifyChain(o.papers.Root, c.cert.Chain, o.revoked)
		switch {
		case err == nil:
			o.certs[member] = certEntry{cert: cert, raw: c.raw}
		case member != o.self:
			o.expelLocked(member)
		}
	}
	o.keptDirty = true
	o.repeatLocked(id)
	o.resealLocked()
	if o.onRefused != nil {
		o.call(func() { o.onRefused(Refused{ID: id, By: r.Signer, Demoted: word.Demoted, Said: said}) })
	}
	o.dirtyLocked(hurry)
}

// refusedSelfLocked takes note of a word against this node's own key.
func (o *Overlay) refusedSelfLocked(by peer.ID) {
	cert, err := p2pnode.VerifyChain(o.papers.Root, o.papers.Chain, o.revoked)
	if err != nil {
		o.joinError = &p2pnode.Error{
			Code: ReasonRevoked, Exit: p2pnode.ExitNotPermitted, Text: fmt.Sprintf("this node's key was revoked by %s", o.nameLocked(by)),
			Fix: "as another node it may join: move node.key and cluster.json in the data folder away, then --token-file",
		}
		o.dropReadersLocked()
		o.standingChanged()
		return
	}
	o.cert = cert
	if cert.Role == p2pnode.RoleManager {
		return // it was promoted since
	}
	o.demotedBy = o.nameLocked(by)
	o.dropReadersLocked()
	o.standingChanged()
}

// expelLocked lets go of somebody who is no member any more. What it revoked while
// it was one stays.
func (o *Overlay) expelLocked(id peer.ID) {
	o.dropLocked(id, p2pnode.DomainRevoked, p2pnode.DomainDemoted)
	for _, c := range o.conns {
		if c.peer == id {
			o.work.Go(func() { c.conn.Close() })
		}
	}
}
