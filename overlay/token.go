package overlay

import (
	"time"

	"p2pnode"
	"p2pnode/overlay/papers"
)

// domainToken carries grants: what a token allows and who used it, each manager's
// word under the grant's ID.
const domainToken p2pnode.Domain = "token"

// CreateToken makes an admission token for role that works for uses nodes until
// ttl has passed. Managers only.
func (o *Overlay) CreateToken(role p2pnode.Role, ttl time.Duration, uses int) (p2pnode.TokenDoc, error) {
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.managesLocked(now); err != nil {
		return p2pnode.TokenDoc{}, err
	}
	if len(o.ledger.All(now)) >= maxTokens || len(o.ledger.Words(o.self)) >= maxGrants {
		return p2pnode.TokenDoc{}, &p2pnode.Error{Code: "too-many-tokens", Text: "too many tokens are in force, or were lately", Fix: "give one token more --uses"}
	}
	tok, g, err := papers.NewToken(o.papers.Root, role, ttl, uses, now)
	if err != nil {
		return p2pnode.TokenDoc{}, err
	}
	if err := o.sayGrantLocked(g, time.Until(g.Expires)); err != nil {
		return p2pnode.TokenDoc{}, err
	}
	doc := tokenDoc(g)
	doc.Token = tok.String()
	return doc, nil
}

func tokenDoc(g papers.Grant) p2pnode.TokenDoc {
	return p2pnode.TokenDoc{Schema: p2pnode.Schema("token"), ID: g.ID(), Role: g.Role, Uses: max(0, g.Uses-len(g.Used)), ExpiresAt: g.Expires}
}

// Tokens are the tokens in force, without their secrets; Uses is what is left.
func (o *Overlay) Tokens() []p2pnode.TokenDoc {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out []p2pnode.TokenDoc
	for _, g := range o.ledger.All(time.Now()) {
		out = append(out, tokenDoc(g))
	}
	return out
}

// RemoveToken ends a token. Managers only.
func (o *Overlay) RemoveToken(id string) error {
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.managesLocked(now); err != nil {
		return err
	}
	g, ok := o.ledger.End(o.self, id, now)
	if !ok {
		return &p2pnode.Error{Code: "unknown-token", Text: "there is no token " + id, Fix: "p2pnode token ls shows those in force"}
	}
	// It must outlast what other managers said of it before.
	return o.sayGrantLocked(g, papers.MaxTokenTTL)
}

// sayGrantLocked publishes this manager's word on a grant and keeps it.
func (o *Overlay) sayGrantLocked(g papers.Grant, ttl time.Duration) error {
	o.ledger.Set(o.self, g)
	if err := o.publishLocked(domainToken, g.ID(), papers.EncodeGrant(g), ttl); err != nil {
		return err
	}
	if err := papers.SaveGrants(o.cfg.Dir, o.ledger.Words(o.self)); err != nil {
		o.cfg.Log.Warn().Err(err).Msg("tokens not kept on disk")
	}
	return nil
}

// reviveGrants says again what this manager knew before it was restarted, also of
// tokens that it has ended: others may remember them as good.
func (o *Overlay) reviveGrants() {
	grants, err := papers.LoadGrants(o.cfg.Dir)
	if err != nil {
		o.cfg.Log.Warn().Err(err).Msg("tokens of the last life lost")
	}
	now := time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.managesLocked(now) != nil {
		return
	}
	for _, g := range grants {
		ttl := papers.MaxTokenTTL
		if now.Before(g.Expires) {
			ttl = g.Expires.Sub(now)
		}
		if err := o.sayGrantLocked(g, ttl); err != nil {
			o.cfg.Log.Warn().Err(err).Msg("a token of the last life is lost")
		}
	}
}

// takeGrantLocked reads a manager's word. This node's own come back from others
// after its disk was lost: they count where it has said nothing since.
func (o *Overlay) takeGrantLocked(r p2pnode.Record) {
	if r.Signer == o.self && o.ledger.Said(o.self, r.Key) {
		return
	}
	g, err := papers.DecodeGrant(r.Body)
	if err != nil || g.ID() != r.Key {
		o.count(ReasonFrame)
		return
	}
	o.ledger.Set(r.Signer, g)
}
