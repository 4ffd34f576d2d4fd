package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"p2pnode/manage"
)

func (a *app) pendingCommand() *cobra.Command {
	return &cobra.Command{
		Use: "pending", Short: "Who asks to be let in without a token", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withNode(cmd, func(ctx context.Context, c *manage.Client) error {
				doc, err := c.Pending(ctx)
				if err != nil {
					return err
				}
				codes := make([]string, len(doc.Pending))
				for i, p := range doc.Pending {
					codes[i] = p.Code
				}
				return a.show(view{doc: doc, items: items(doc.Pending), names: codes, print: func(p *printer) {
					for _, n := range doc.Pending {
						p.line("%s  %s at %s, since %s", n.Code, n.Name, n.Address, n.Since.Local().Format(time.DateTime))
					}
				}})
			})
		},
	}
}

func (a *app) approveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "approve CODE", Short: "Let a node in that waits: compare the code with the one that it shows", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(cmd, func(ctx context.Context, c *manage.Client) error {
				doc, err := c.Approve(ctx, args[0])
				if err != nil {
					return err
				}
				return a.show(view{doc: doc, items: items(doc.Pending), names: args, print: func(p *printer) {
					p.line("%s at %s may come in: it asks again within 15 s", doc.Pending[0].Name, doc.Pending[0].Address)
				}})
			})
		},
	}
}

func (a *app) openCommand() *cobra.Command {
	return &cobra.Command{
		Use: "open DURATION|off", Short: "Let hosts on local networks in without a token for a while, e.g. 15m", Args: cobra.ExactArgs(1), ValidArgs: []string{"15m", "off"},
		RunE: func(cmd *cobra.Command, args []string) error {
			var d time.Duration
			if args[0] != "off" {
				var err error
				if d, err = time.ParseDuration(args[0]); err != nil || d <= 0 {
					return usage("%q is no time to be open for, should be like 15m, or off", args[0])
				}
			}
			return a.withNode(cmd, func(ctx context.Context, c *manage.Client) error {
				doc, err := c.Open(ctx, d)
				if err != nil {
					return err
				}
				return a.show(view{doc: doc, print: func(p *printer) {
					if doc.Until.IsZero() {
						p.line("nobody is let in any more without a token or an approval")
						return
					}
					p.line("hosts on local networks are let in without a token until %s", doc.Until.Local().Format(time.DateTime))
				}})
			})
		},
	}
}

func (a *app) trustCommand() *cobra.Command {
	return &cobra.Command{
		Use: "trust CODE", Short: "Trust this host's cluster; CODE is cluster.id of `p2pnode status` on a manager", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(cmd, func(ctx context.Context, c *manage.Client) error {
				if err := c.Trust(ctx, args[0]); err != nil {
					return err
				}
				return a.done("trust", args[0], "this host trusts the managers of cluster "+args[0])
			})
		},
	}
}
