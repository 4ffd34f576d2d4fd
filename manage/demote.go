package manage

import (
	"context"
	"fmt"

	"p2pnode"
)

// Demote makes a manager a worker. The last manager that answers goes only by force:
// nobody could make another one.
func (a *API) Demote(_ context.Context, name string, force bool) (p2pnode.DemotedDoc, error) {
	doc := p2pnode.DemotedDoc{Schema: p2pnode.Schema("demote"), Node: name}
	if err := a.mayManage("demote a node"); err != nil {
		return doc, err
	}
	n, id, err := a.find(name)
	if err != nil {
		return doc, err
	}
	doc.Node, doc.ID, doc.Was = n.Name, n.ID, n.Role
	if n.Role != p2pnode.RoleManager {
		return doc, nil // who is none needs nothing
	}
	if left := a.managersBut(n.ID); len(left) == 0 && !force {
		return doc, &p2pnode.Error{
			Code: "last-manager", Exit: p2pnode.ExitFailed,
			Text: fmt.Sprintf("%s is the last manager that answers: without one nobody can launch agents, let nodes in or revoke them, or read excerpts", n.Name),
			Fix:  "make another one first with: p2pnode promote NODE, or say --force",
		}
	}
	if doc.Kept, err = a.cfg.Cluster.Demote(id); err == nil {
		a.cfg.Log.Warn().Str("node", n.Name).Str("id", doc.ID).Msg("demoted by the operator")
	}
	return doc, err
}

// managersBut are the living managers without one.
func (a *API) managersBut(id string) (names []string) {
	for _, n := range a.cfg.Fleet.Nodes() {
		if n.Role == p2pnode.RoleManager && n.Verdict == p2pnode.Alive && n.ID != id {
			names = append(names, n.Name)
		}
	}
	return names
}

// Demote calls API.Demote.
func (c *Client) Demote(ctx context.Context, node string, force bool) (p2pnode.DemotedDoc, error) {
	return post[p2pnode.DemotedDoc](ctx, c, "demote", call{Node: node, Force: force})
}
