package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"p2pnode"
	"p2pnode/manage"
)

func (a *app) tokenList() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Short: "Tokens in force", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withNode(cmd, func(ctx context.Context, c *manage.Client) error {
				doc, err := c.Tokens(ctx)
				if err != nil {
					return err
				}
				ids := make([]string, len(doc.Tokens))
				for i, t := range doc.Tokens {
					ids[i] = t.ID
				}
				return a.show(view{doc: doc, items: items(doc.Tokens), names: ids, print: func(p *printer) {
					for _, t := range doc.Tokens {
						p.line("%s  %s, %s left, until %s", t.ID, t.Role, count(t.Uses, "use"), t.ExpiresAt.Local().Format(time.DateTime))
					}
				}})
			})
		},
	}
}

func (a *app) tokenRemove() *cobra.Command {
	return &cobra.Command{
		Use: "rm ID", Short: "End a token: it admits nobody any more", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(cmd, func(ctx context.Context, c *manage.Client) error {
				if err := c.RemoveToken(ctx, args[0]); err != nil {
					return err
				}
				return a.done("token-rm", args[0], args[0]+" admits nobody any more")
			})
		},
	}
}

func (a *app) demoteCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "demote NODE", Short: "Make a manager a worker: its certificate gives it nothing more, anywhere", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(cmd, func(ctx context.Context, c *manage.Client) error {
				doc, err := c.Demote(ctx, args[0], force)
				if err != nil {
					return err
				}
				return a.show(view{doc: doc, names: []string{doc.ID}, print: func(p *printer) {
					if doc.Was != p2pnode.RoleManager {
						p.line("%s is a worker already", doc.Node)
						return
					}
					p.line("%s is a worker from here on; it cannot read what is reported from now on", doc.Node)
					p.line("root.key makes managers all the same: if it is on %s, move it away (p2pnode status there says so)", doc.Node)
					if len(doc.Kept) > 0 {
						p.line("members that it had let in stay: %s", strings.Join(doc.Kept, ", "))
					}
				}})
			})
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also the last manager that answers")
	return cmd
}

func (a *app) revokeCommand() *cobra.Command {
	return &cobra.Command{
		Use: "revoke NODE", Short: "Refuse a node's key for good, everywhere; there is no way back", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(cmd, func(ctx context.Context, c *manage.Client) error {
				doc, err := c.Revoke(ctx, args[0])
				if err != nil {
					return err
				}
				return a.show(view{doc: doc, names: []string{doc.ID}, print: func(p *printer) {
					p.line("%s is refused from here on; its services go on, supervised by that host alone", args[0])
					if len(doc.Kept) > 0 {
						p.line("members that it had let in stay: %s; revoke those that you do not know", strings.Join(doc.Kept, ", "))
					}
				}})
			})
		},
	}
}

func (a *app) forgetCommand() *cobra.Command {
	return &cobra.Command{
		Use: "forget NODE", Short: "Take a node that is not expected back off all lists; it may come back all the same", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(cmd, func(ctx context.Context, c *manage.Client) error {
				doc, err := c.Forget(ctx, args[0])
				if err != nil {
					return err
				}
				return a.show(view{doc: doc, names: []string{doc.Node}, print: func(p *printer) {
					p.line("%s is not expected back; if it comes, it is a member again", doc.Node)
				}})
			})
		},
	}
}
