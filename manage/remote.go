package manage

import (
	"context"
	"errors"
	"fmt"

	"p2pnode"
	"p2pnode/exec"
)

// Act has services of another host started, stopped or restarted.
func (a *API) Act(ctx context.Context, verb, node, target string, options exec.VerbOptions) (exec.VerbResult, error) {
	if err := a.mayManage(verb + " services of other hosts"); err != nil {
		return exec.VerbResult{}, err
	}
	n, id, err := a.find(node)
	if err != nil {
		return exec.VerbResult{}, err
	}
	res, err := a.cfg.Remote.Act(ctx, id, verb, target, options)
	if e, ok := errors.AsType[*p2pnode.Error](err); ok {
		said := *e
		said.Text = fmt.Sprintf("%s refuses to %s %q: %s", n.Name, verb, target, e.Text)
		return res, &said
	}
	if err != nil {
		return res, &p2pnode.Error{Code: "no-answer", Text: fmt.Sprintf("cannot %s %q on %s: %v", verb, target, n.Name, err), Fix: "see: p2pnode nodes why " + n.Name}
	}
	return res, nil
}

// Act calls API.Act.
func (c *Client) Act(ctx context.Context, verb, node, target string, options exec.VerbOptions) (exec.VerbResult, error) {
	return post[exec.VerbResult](ctx, c, "act", call{Node: node, Act: verb, Target: target, Options: &options})
}
