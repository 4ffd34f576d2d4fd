package overlay

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/overlay/discover"
	"p2pnode/overlay/overlaypb"
	"p2pnode/overlay/papers"
)

// Kinds of routed calls that are the overlay's own.
const (
	kindAdmit   = "admit"
	kindPromote = "promote"
	kindPing    = "ping"
	kindReaders = "readers"
	kindRenew   = "renew"

	kindGossipKey = "gossip-key" // to a neighbour
)

// admit answers a request for admission that came in over hello: it decides, or
// carries it to a manager. from is where the joiner's connection came from.
func (o *Overlay) admit(ctx context.Context, request []byte, from netip.Addr) []byte {
	if len(request) > papers.MaxRequest {
		o.count(string(papers.RefusedDamaged))
		return papers.RefusalAnswer(papers.RefusedDamaged)
	}
	select {
	case o.admitting <- struct{}{}:
		defer func() { <-o.admitting }()
	default:
		o.count(ReasonCrowded)
		return papers.RefusalAnswer(papers.RefusedIssuer) // it tries again
	}
	ifs, err := o.cfg.Interfaces()
	msg := &overlaypb.Relayed{Request: request, Local: err == nil && discover.DirectPrivate(ifs, from), Address: from.String()}
	if o.Manages() {
		return o.grant(msg)
	}
	return o.relay(ctx, msg)
}

// grant is a manager's decision.
func (o *Overlay) grant(msg *overlaypb.Relayed) []byte {
	o.mu.Lock()
	now := o.clockLocked(time.Now())
	if o.dissolving {
		o.mu.Unlock()
		return papers.RefusalAnswer(papers.RefusedIssuer) // of two that ask each other one goes first
	}
	a, err := o.issuerLocked().Admit(msg.Request, msg.Local, now)
	if err == nil && a.Role != "" && !o.papers.Issued {
		next := *o.papers
		next.Issued = true
		o.papers, err = &next, next.Save(o.cfg.Dir)
	}
	if err == nil && a.Grant != nil {
		// The use is said before the certificate is out: one manager alone never
		// spends a use twice.
		err = o.sayGrantLocked(*a.Grant, a.Grant.Expires.Sub(now))
	}
	o.mu.Unlock()
	log := o.cfg.Log.With().Str("name", a.Request.Name).Str("id", a.Request.Joiner.String()).Str("address", msg.Address).Logger()
	switch {
	case err != nil:
		log.Error().Err(err).Msg("cannot admit")
		return papers.RefusalAnswer(papers.RefusedIssuer)
	case a.Refused != "":
		o.count(string(a.Refused))
		if a.Refused.Waits() {
			o.notePending(a.Request, msg.Address)
		}
		log.Warn().Str("reason", string(a.Refused)).Msg("admission refused")
	default:
		log.Info().Str("role", string(a.Role)).Msg("admitted")
	}
	return a.Answer
}

// Manages says whether this node may use a manager's verbs now.
func (o *Overlay) Manages() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.managesLocked(time.Now()) == nil
}

// relay carries a request to the nearest manager that answers.
func (o *Overlay) relay(ctx context.Context, msg *overlaypb.Relayed) []byte {
	for _, m := range o.managers() {
		ctx, cancel := context.WithTimeout(ctx, relayTime)
		answer, _, err := o.Route(ctx, m, kindAdmit, encode(msg))
		cancel()
		if err == nil {
			return answer
		}
		o.cfg.Log.Debug().Err(err).Str("manager", p2pnode.ShortID(m)).Msg("admission not carried")
	}
	o.count(string(papers.RefusedIssuer))
	return papers.RefusalAnswer(papers.RefusedIssuer)
}

// managers are the other members with a manager's role, nearest first.
func (o *Overlay) managers() []peer.ID {
	v := o.View()
	var out []peer.ID
	for id, p := range v.Peers {
		if id != o.self && p.Role == p2pnode.RoleManager && !p.Left {
			out = append(out, id)
		}
	}
	cost := func(id peer.ID) int {
		if c, ok := v.Table.Cost(o.self, id); ok {
			return c
		}
		return 1 << 30
	}
	slices.SortFunc(out, func(a, b peer.ID) int { return cmp.Or(cost(a)-cost(b), cmp.Compare(a, b)) })
	return out
}

// admitRelayed is the handler of a request that a member carried here. Whoever
// carries it vouches for where the joiner stands, and for nothing else.
func (o *Overlay) admitRelayed(_ context.Context, _ peer.ID, raw []byte) ([]byte, error) {
	var msg overlaypb.Relayed
	if err := decode(raw, &msg); err != nil || len(msg.Request) > papers.MaxRequest || len(msg.Address) > maxText {
		o.count(ReasonFrame)
		return nil, errFrame
	}
	if !o.Manages() {
		return nil, errors.New("not a manager")
	}
	return o.grant(&msg), nil
}

// readToken reads the configured token file; nil where there is none.
func (o *Overlay) readToken() (*papers.Token, error) {
	if o.cfg.TokenFile == "" {
		return nil, nil
	}
	tok, err := papers.ReadTokenFile(o.cfg.TokenFile)
	return &tok, err
}

// takeAdmission takes in what a joiner was given.
func (o *Overlay) takeAdmission(answer []byte, tok *papers.Token) error {
	p, err := papers.Accept(o.cfg.Dir, o.key, tok, answer)
	if err != nil {
		return err
	}
	if err := o.adopt(p); err != nil {
		return err
	}
	cert, _ := o.Certificate()
	o.cfg.Log.Info().Str("cluster", p.ID()).Str("role", string(cert.Role)).Msg("admitted to a cluster")
	o.standingChanged()
	return nil
}
