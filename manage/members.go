package manage

import (
	"context"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
)

// Tokens are the admission tokens in force.
func (a *API) Tokens(context.Context) (p2pnode.TokensDoc, error) {
	doc := p2pnode.TokensDoc{Schema: p2pnode.Schema("tokens"), Tokens: []p2pnode.TokenDoc{}}
	if err := a.mayManage("list tokens"); err != nil {
		return doc, err
	}
	doc.Tokens = append(doc.Tokens, a.cfg.Cluster.Tokens()...)
	return doc, nil
}

// RemoveToken ends a token.
func (a *API) RemoveToken(_ context.Context, id string) error {
	if err := a.mayManage("remove a token"); err != nil {
		return err
	}
	return a.cfg.Cluster.RemoveToken(id)
}

// Revoke refuses a node's key for good. A node that is known no more may be named by
// its ID.
func (a *API) Revoke(_ context.Context, name string) (p2pnode.RevokedDoc, error) {
	doc := p2pnode.RevokedDoc{Schema: p2pnode.Schema("revoke"), Node: name}
	if err := a.mayManage("revoke a node"); err != nil {
		return doc, err
	}
	n, id, err := a.find(name)
	if err != nil {
		far, bad := peer.Decode(name)
		if bad != nil {
			return doc, err
		}
		n.ID, id = name, far
	}
	doc.ID = n.ID
	doc.Kept, err = a.cfg.Cluster.Revoke(id)
	if err == nil {
		a.cfg.Log.Warn().Str("node", name).Str("id", doc.ID).Msg("revoked by the operator")
	}
	return doc, err
}

// Forget takes a node that is gone off everybody's list. Only of one that may be gone
// for good it makes sense: others would be back at once.
func (a *API) Forget(_ context.Context, name string) (p2pnode.ForgottenDoc, error) {
	doc := p2pnode.ForgottenDoc{Schema: p2pnode.Schema("forget"), Node: name}
	if err := a.mayManage("forget a node"); err != nil {
		return doc, err
	}
	n, id, err := a.find(name)
	if err != nil {
		return doc, err
	}
	doc.Node, doc.ID, doc.Verdict = n.Name, n.ID, n.Verdict
	long := time.Since(n.Since) > forgetDoubt
	switch {
	case n.Verdict == p2pnode.Unreachable, n.Verdict == p2pnode.ExecDead, n.Verdict == p2pnode.Left, n.Verdict == p2pnode.IdentityChanged, n.Verdict == p2pnode.Doubtful && long:
		return doc, a.cfg.Cluster.Forget(id)
	case n.Verdict == p2pnode.Alive:
		return doc, &p2pnode.Error{
			Code: "node-alive", Text: fmt.Sprintf("cannot forget %s: it is alive", n.Name),
			Fix: fmt.Sprintf("to send it away, run p2pnode leave there; to refuse its key for good: p2pnode revoke %s", name),
		}
	}
	return doc, &p2pnode.Error{
		Code: "node-not-gone", Text: fmt.Sprintf("cannot forget %s: it is %s, and may be back in a moment", n.Name, n.Verdict),
		Fix: fmt.Sprintf("see p2pnode nodes why %s; one that is unreachable, exec-dead, left, identity-changed, or doubtful for a minute can be forgotten", name),
	}
}

// Tokens calls API.Tokens.
func (c *Client) Tokens(ctx context.Context) (p2pnode.TokensDoc, error) {
	return post[p2pnode.TokensDoc](ctx, c, "tokens", call{})
}

// RemoveToken calls API.RemoveToken.
func (c *Client) RemoveToken(ctx context.Context, id string) error {
	_, err := post[empty](ctx, c, "token-remove", call{ID: id})
	return err
}

// Forget calls API.Forget.
func (c *Client) Forget(ctx context.Context, node string) (p2pnode.ForgottenDoc, error) {
	return post[p2pnode.ForgottenDoc](ctx, c, "forget", call{Node: node})
}

// Revoke calls API.Revoke.
func (c *Client) Revoke(ctx context.Context, node string) (p2pnode.RevokedDoc, error) {
	return post[p2pnode.RevokedDoc](ctx, c, "revoke", call{Node: node})
}
