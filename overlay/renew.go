package overlay

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode/overlay/papers"
)

// Certificates end; nobody has to think of it. papers.RenewBefore ahead every node asks
// for a new one: the host that has the root's key makes its own, the others ask the
// managers in turn. A certificate lasts no longer than the ones above it, so that a
// fleet whose root key is kept elsewhere needs it back once a year (status says when).

// tendCertificateLocked asks for a new certificate when the end of this one is near.
func (o *Overlay) tendCertificateLocked(now time.Time) {
	if o.papers == nil || o.clockLocked(now).Before(o.cert.Until.Add(-papers.RenewBefore)) || now.Sub(o.renewAsked) < renewEvery {
		return
	}
	o.renewAsked = now
	o.work.Go(o.renew)
}

// renew gets a certificate from the root's key, or from the first manager that gives one.
func (o *Overlay) renew() {
	err := o.changePapers(func(p *papers.Cluster) (*papers.Cluster, error) {
		return p.RenewByRoot(o.cfg.Dir, o.key, o.cert, o.clockLocked(time.Now()))
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = o.askRenewal()
	}
	renewed, _ := o.Certificate()
	if err != nil {
		o.cfg.Log.Warn().Err(err).Time("until", renewed.Until).Msg("certificate not renewed; it is tried again")
		return
	}
	o.cfg.Log.Info().Time("until", renewed.Until).Msg("certificate renewed")
	o.mu.Lock()
	o.publishPeerLocked()
	o.mu.Unlock()
	o.standingChanged()
}

func (o *Overlay) askRenewal() error {
	req, err := papers.NewRequest(o.key, o.cfg.Name, nil)
	if err != nil {
		return err
	}
	err = errors.New("no manager could be asked")
	for _, m := range o.managers() {
		answer, asked := o.askOne(m, req)
		if asked != nil {
			err = fmt.Errorf("%s: %w", o.nameOf(m), asked)
			continue
		}
		bad := o.changePapers(func(p *papers.Cluster) (*papers.Cluster, error) {
			return p.AcceptRenewal(o.cfg.Dir, o.key, o.cert, answer)
		})
		if bad == nil {
			return nil
		}
		o.count(ReasonRenewal)
		err = fmt.Errorf("%s: %w", o.nameOf(m), bad)
	}
	return err
}

func (o *Overlay) askOne(m peer.ID, req []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(o.ctx, relayTime)
	defer cancel()
	answer, _, err := o.Route(ctx, m, kindRenew, req)
	return answer, err
}

func (o *Overlay) nameOf(id peer.ID) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.nameLocked(id)
}

// giveRenewal is the handler of a member's request for a new certificate: it gets what
// it has, for longer. The request is signed by the member itself.
func (o *Overlay) giveRenewal(_ context.Context, from peer.ID, raw []byte) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.managesLocked(time.Now()); err != nil {
		return nil, err
	}
	now := o.clockLocked(time.Now())
	old, ok := o.certs[from]
	if !ok {
		return nil, errNotMember
	}
	if now.Before(old.cert.Until.Add(-papers.RenewBefore)) {
		return nil, fmt.Errorf("it is good until %s", old.cert.Until.Format(time.DateOnly))
	}
	answer, err := o.issuerLocked().Renewal(raw, old.cert, now)
	if err != nil {
		o.count(ReasonRenewal)
		return nil, err
	}
	o.cfg.Log.Info().Str("peer", o.nameLocked(from)).Str("role", string(old.cert.Role)).Msg("certificate renewed")
	return answer, nil
}
