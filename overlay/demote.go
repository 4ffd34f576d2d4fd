package overlay

import (
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/overlay/overlaypb"
)

// Demotion: a manager goes on as a worker. Its certificates stay what they are; what
// changes is what everybody makes of those that began until the demotion (see
// p2pnode.Revocation), so that it needs nothing new and is cut off from nobody. Like a
// revocation the record proves itself and is kept on disk.

// demotedProof is the signer's chain inside a demotion, and when it signed.
func demotedProof(body []byte) ([][]byte, time.Time) {
	var m overlaypb.DemotedRecord
	if decode(body, &m) != nil {
		return nil, time.Time{}
	}
	return m.Chain, time.Unix(m.At, 0)
}

// Demote makes a manager a worker, everywhere. Members that it had certified stay; kept
// are their names. Managers only; a manager may demote itself.
func (o *Overlay) Demote(id peer.ID) (kept []string, err error) {
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.managesLocked(now); err != nil {
		return nil, err
	}
	c, ok := o.certs[id]
	if !ok || c.cert.Role != p2pnode.RoleManager {
		return nil, &p2pnode.Error{Code: "no-manager", Text: fmt.Sprintf("%s is no manager", o.nameLocked(id)), Fix: "p2pnode nodes lists them with their roles"}
	}
	marks, kept := o.certifiedLocked(id)
	if id == o.self && len(marks) > maxMarks {
		// Its own second record would not count after the first.
		return nil, &p2pnode.Error{Code: "demote-self", Text: fmt.Sprintf("this manager has let in %d members, too many to demote itself", len(marks)), Fix: "run it on another manager"}
	}
	// By a clock that is behind it would touch nothing.
	at := max(now.Unix(), c.cert.From.Unix())
	if err := o.sayRefusedLocked(id, p2pnode.Revocation{At: at, Demoted: true, Kept: marks}); err != nil {
		return nil, err
	}
	o.rotateReaderLocked(now)
	return kept, nil
}

// afterDemotionLocked is a time to certify id at so that the certificate counts, although
// it was demoted before.
func (o *Overlay) afterDemotionLocked(id peer.ID, now time.Time) time.Time {
	what, ok := o.revoked[id]
	if !ok {
		return now
	}
	// Certificates begin an hour before they are issued.
	if least := time.Unix(what.At, 0).Add(time.Hour + time.Second); now.Before(least) {
		return least
	}
	return now
}

// DemotedBy names who took this node's privilege; "" where nobody did, or it was
// promoted since.
func (o *Overlay) DemotedBy() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.cert.Role == p2pnode.RoleManager {
		return ""
	}
	return o.demotedBy
}
