package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"p2pnode"
	"p2pnode/exec"
	"p2pnode/manage"
)

// waitPause is how often a condition is looked at.
const waitPause = 50 * time.Millisecond

// condition reports whether something holds, and how it stands if not. An error
// means that it cannot be asked now, which may pass.
type condition func(ctx context.Context, dir string) (ok bool, stand string, err error)

func (a *app) waitCommand() *cobra.Command {
	var conds []string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "wait --for COND", Short: "Wait until ready, nodes=N, services=up, settled or incident=ID", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(conds) == 0 {
				return usage("no --for: say ready, nodes=N, services=up, settled or incident=ID")
			}
			dir, err := clientDir(a.data)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			for _, text := range conds {
				cond, err := parseCondition(text)
				if err != nil {
					return err
				}
				if err := await(ctx, dir, text, timeout, cond); err != nil {
					if cmd.Context().Err() != nil {
						return cmd.Context().Err()
					}
					return err
				}
			}
			return a.done("wait", strings.Join(conds, ","), strings.Join(conds, ", ")+": yes")
		},
	}
	cmd.Flags().StringArrayVar(&conds, "for", nil, "`COND`: ready, nodes=N, services=up, settled, incident=ID; may be given again")
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "give up after this long (exit 6)")
	return cmd
}

func await(ctx context.Context, dir, text string, timeout time.Duration, cond condition) error {
	last := "the daemon does not answer"
	for {
		ok, stand, err := cond(ctx, dir)
		switch {
		case ok && err == nil:
			return nil
		case err == nil:
			last = stand
		case ctx.Err() == nil:
			last = err.Error()
		}
		select {
		case <-ctx.Done():
			return &p2pnode.Error{Code: "timeout", Text: fmt.Sprintf("%s did not come true within %s: %s", text, timeout, last), Fix: "see: p2pnode status", Exit: p2pnode.ExitTimeout}
		case <-time.After(waitPause):
		}
	}
}

func parseCondition(text string) (condition, error) {
	name, value, _ := strings.Cut(text, "=")
	switch {
	case text == "ready":
		return ready(), nil
	case text == "services=up":
		return servicesUp, nil
	case text == "settled":
		return settled(), nil
	case name == "incident" && value != "":
		return incidentThere(value), nil
	case name == "nodes":
		if n, err := strconv.Atoi(value); err == nil && n > 0 {
			return nodesAlive(n), nil
		}
	}
	return nil, usage("--for is %q, should be ready, nodes=N, services=up, settled or incident=ID", text)
}

// asking runs f with a client of the node process.
func asking(f func(ctx context.Context, c *manage.Client) (bool, string, error)) condition {
	return func(ctx context.Context, dir string) (bool, string, error) {
		c, err := manage.Dial(ctx, dir)
		if err != nil {
			return false, "", err
		}
		defer c.Close()
		return f(ctx, c)
	}
}

// ready: the node process is a member of a cluster.
func ready() condition {
	return asking(func(ctx context.Context, c *manage.Client) (bool, string, error) {
		doc, err := c.Status(ctx)
		return doc.Cluster != nil, "no cluster has been joined yet", err
	})
}

func nodesAlive(want int) condition {
	return asking(func(ctx context.Context, c *manage.Client) (bool, string, error) {
		doc, err := c.Nodes(ctx)
		alive := 0
		for _, n := range doc.Nodes {
			if n.Verdict == p2pnode.Alive {
				alive++
			}
		}
		return alive == want, fmt.Sprintf("%d are alive", alive), err
	})
}

func servicesUp(ctx context.Context, dir string) (bool, string, error) {
	c, err := exec.Dial(ctx, dir, exec.RoleCLI)
	if err != nil {
		return false, "", err
	}
	defer c.Close()
	st, err := c.Status(ctx)
	var down []string
	for _, s := range st.Services {
		if s.State != p2pnode.StateUp && s.State != p2pnode.StateStopped {
			down = append(down, s.Name+" is "+string(s.State))
		}
	}
	return len(down) == 0, strings.Join(down, ", "), err
}

// settled: nothing is being repaired, and every repair was looked at again.
func settled() condition {
	return asking(func(ctx context.Context, c *manage.Client) (bool, string, error) {
		doc, err := c.Incidents(ctx)
		var going []string
		for _, i := range doc.Incidents {
			open := i.State == p2pnode.IncidentOpen || i.State == p2pnode.IncidentActing
			if open || i.State == p2pnode.IncidentRecovered && i.VerifiedAt.IsZero() {
				going = append(going, fmt.Sprintf("%s (%s) is %s", i.ID, thing(i.Node, i.Service), i.State))
			}
		}
		return len(going) == 0, strings.Join(going, ", "), err
	})
}

func incidentThere(id string) condition {
	return asking(func(ctx context.Context, c *manage.Client) (bool, string, error) {
		doc, err := c.Incidents(ctx)
		for _, i := range doc.Incidents {
			if i.ID == id {
				return true, "", err
			}
		}
		return false, "no such incident is known", err
	})
}
