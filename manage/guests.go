package manage

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
)

// Pending are those who lately asked to be let in without a token.
func (a *API) Pending(context.Context) (p2pnode.PendingDoc, error) {
	doc := p2pnode.PendingDoc{Schema: p2pnode.Schema("pending"), Pending: []p2pnode.PendingNode{}}
	if err := a.mayManage("list who waits"); err != nil {
		return doc, err
	}
	doc.Pending = append(doc.Pending, a.cfg.Cluster.Pending()...)
	return doc, nil
}

// Approve lets in the one that shows this code, or has this ID.
func (a *API) Approve(_ context.Context, code string) (p2pnode.PendingDoc, error) {
	doc := p2pnode.PendingDoc{Schema: p2pnode.Schema("approve")}
	if err := a.mayManage("approve a node"); err != nil {
		return doc, err
	}
	var codes []string
	for _, p := range a.cfg.Cluster.Pending() {
		codes = append(codes, p.Code)
		if p.Code == strings.ToLower(code) || p.ID == code {
			doc.Pending = append(doc.Pending, p)
		}
	}
	switch len(doc.Pending) {
	case 1:
	case 0:
		fix := "nobody waits; who does asks again every 15 s at least"
		if len(codes) > 0 {
			fix = "there are: " + strings.Join(codes, ", ") + "; see: p2pnode pending"
		}
		return doc, &p2pnode.Error{Code: "unknown-code", Text: fmt.Sprintf("nobody who waits shows the code %q", code), Fix: fix, Exit: p2pnode.ExitUsage}
	default:
		return doc, &p2pnode.Error{Code: "ambiguous-code", Text: fmt.Sprintf("%d nodes show the code %s: somebody wants to be mistaken", len(doc.Pending), code), Fix: "compare the IDs that p2pnode pending -o json and status on the new host show, and approve the ID", Exit: p2pnode.ExitNotPermitted}
	}
	id, err := peer.Decode(doc.Pending[0].ID)
	if err != nil {
		return doc, err
	}
	return doc, a.cfg.Cluster.Approve(id)
}

// Open lets neighbours in without a token until d has passed; 0 ends that.
func (a *API) Open(_ context.Context, d time.Duration) (p2pnode.OpenDoc, error) {
	doc := p2pnode.OpenDoc{Schema: p2pnode.Schema("open")}
	if err := a.mayManage("open the door"); err != nil {
		return doc, err
	}
	var err error
	doc.Until, err = a.cfg.Cluster.Open(d)
	return doc, err
}

// Trust takes the cluster that this host is in for the one that was meant.
func (a *API) Trust(_ context.Context, cluster string) error { return a.cfg.Cluster.Trust(cluster) }

// Pending calls API.Pending.
func (c *Client) Pending(ctx context.Context) (p2pnode.PendingDoc, error) {
	return post[p2pnode.PendingDoc](ctx, c, "pending", call{})
}

// Approve calls API.Approve.
func (c *Client) Approve(ctx context.Context, code string) (p2pnode.PendingDoc, error) {
	return post[p2pnode.PendingDoc](ctx, c, "approve", call{ID: code})
}

// Open calls API.Open.
func (c *Client) Open(ctx context.Context, d time.Duration) (p2pnode.OpenDoc, error) {
	return post[p2pnode.OpenDoc](ctx, c, "open", call{TTL: d})
}

// Trust calls API.Trust.
func (c *Client) Trust(ctx context.Context, cluster string) error {
	_, err := post[empty](ctx, c, "trust", call{ID: cluster})
	return err
}
