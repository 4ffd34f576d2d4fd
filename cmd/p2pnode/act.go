package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"p2pnode"
	"p2pnode/manage"
)

// done is what a verb without an answer of its own says.
func (a *app) done(verb, target, said string) error {
	return a.show(view{doc: setDoc{Schema: p2pnode.Schema(verb), Target: target, Result: said}, names: []string{target}, print: func(p *printer) { p.line("%s", said) }})
}

func (a *app) agentsCommand() *cobra.Command {
	list := func(cmd *cobra.Command, _ []string) error {
		return a.withNode(cmd, func(ctx context.Context, c *manage.Client) error {
			doc, err := c.Agents(ctx)
			if err != nil {
				return err
			}
			return a.showAgents(doc)
		})
	}
	cmd := &cobra.Command{Use: "agents", Short: "The recovery agents and where they are", Args: cobra.NoArgs, RunE: list}
	cmd.AddCommand(&cobra.Command{Use: "ls", Short: "All that this node knows of", Args: cobra.NoArgs, RunE: list},
		a.agentsShow(), a.agentsFollow(), a.agentsLaunch(), a.agentsRecall())
	return cmd
}

func (a *app) showAgents(doc p2pnode.AgentsDoc) error {
	names := make([]string, len(doc.Agents))
	for i, agent := range doc.Agents {
		names[i] = agent.ID
	}
	return a.show(view{doc: doc, items: items(doc.Agents), names: names, print: func(p *printer) { printAgents(p, doc) }})
}

// oneAgent finds the agent that id, or the start of one, names.
func oneAgent(doc p2pnode.AgentsDoc, id string) (p2pnode.AgentsDoc, error) {
	var found []p2pnode.AgentDoc
	var known []string
	for _, agent := range doc.Agents {
		known = append(known, agent.ID)
		if agent.ID == id {
			found = []p2pnode.AgentDoc{agent}
			break
		}
		if strings.HasPrefix(agent.ID, id) {
			found = append(found, agent)
		}
	}
	if len(found) != 1 {
		fix := "see: p2pnode agents ls"
		if near := nearest(id, known); near != "" {
			fix = "did you mean " + near + "? see: p2pnode agents ls"
		}
		return doc, &p2pnode.Error{Code: "unknown-agent", Text: "no agent is called " + id, Fix: fix, Exit: p2pnode.ExitUsage}
	}
	doc.Agents = found
	return doc, nil
}

func (a *app) agentsShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Where one agent is, why, and for whom", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(cmd, func(ctx context.Context, c *manage.Client) error {
				doc, err := c.Agents(ctx)
				if err == nil {
					doc, err = oneAgent(doc, args[0])
				}
				if err != nil {
					return err
				}
				return a.show(view{doc: doc, items: items(doc.Agents), names: args, print: func(p *printer) { printAgent(p, doc) }})
			})
		},
	}
}

func (a *app) agentsFollow() *cobra.Command {
	return &cobra.Command{
		Use: "follow [ID]", Short: "Say each move of an agent, or of all", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(cmd, func(ctx context.Context, c *manage.Client) error {
				at := map[string]string{}
				for {
					doc, err := c.Agents(ctx)
					if err == nil && len(args) > 0 {
						doc, err = oneAgent(doc, args[0])
					}
					if err != nil {
						return err
					}
					if err := a.moves(doc.Agents, at); err != nil {
						return err
					}
					select {
					case <-ctx.Done():
						return ctx.Err()
					case <-time.After(50 * time.Millisecond):
					}
				}
			})
		},
	}
}

// moves prints the agents that are elsewhere than at says, and notes where.
func (a *app) moves(agents []p2pnode.AgentDoc, at map[string]string) error {
	for _, agent := range agents {
		was := at[agent.ID]
		if was == agent.At {
			continue
		}
		at[agent.ID] = agent.At
		if a.json() {
			if err := writeJSON(a.stdout, agent, ""); err != nil {
				return err
			}
			continue
		}
		a.printer().line("%s  %s  %s > %s  (%s, hop %d)", time.Now().Format("15:04:05.000"), agent.ID, first(was, "?"), agent.At, agent.Kind, agent.Hops)
	}
	return nil
}

func (a *app) agentsLaunch() *cobra.Command {
	var slo time.Duration
	var confidence float64
	var on map[string]string
	cmd := &cobra.Command{
		Use: "launch --slo 15s", Short: "Order a population of agents: every node is visited within --slo", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if slo < time.Second || slo > 24*time.Hour {
				return usage("--slo is %s, should be from 1s to 24h", slo)
			}
			if confidence <= 0 || confidence >= 1 {
				return usage("--confidence is %g, should be between 0 and 1", confidence)
			}
			return a.withNode(cmd, func(ctx context.Context, c *manage.Client) error {
				order, err := c.Launch(ctx, slo, confidence, on)
				if err != nil {
					return err
				}
				doc := struct {
					Schema string `json:"schema"`
					p2pnode.OrderDoc
				}{p2pnode.Schema("order"), order}
				return a.show(view{doc: doc, names: []string{order.ID}, print: func(p *printer) {
					p.line("order %s: every node within %s; %s; it stands until: p2pnode agents recall %s", order.ID, order.SLO, count(order.Agents, "agent"), order.ID)
				}})
			})
		},
	}
	cmd.Flags().DurationVar(&slo, "slo", 15*time.Second, "visit every node at least this often")
	cmd.Flags().Float64Var(&confidence, "confidence", 0.99, "for this share of the visits")
	cmd.Flags().StringToStringVar(&on, "on", nil, "only nodes with this label, `K=V`")
	return cmd
}

func (a *app) agentsRecall() *cobra.Command {
	return &cobra.Command{
		Use: "recall [ORDER]", Short: "End an order, or all of them: its agents retire", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(cmd, func(ctx context.Context, c *manage.Client) error {
				id := first(args...)
				if err := c.Recall(ctx, id); err != nil {
					return err
				}
				return a.done("agents-recall", id, "recalled; the agents retire where they are")
			})
		},
	}
}

func (a *app) tokenCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Tokens that admit new nodes"}
	var role string
	var ttl time.Duration
	var uses int
	create := &cobra.Command{
		Use: "create", Short: "Make one; put it into a file for --token-file on the new host", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !oneOf(role, string(p2pnode.RoleWorker), string(p2pnode.RoleManager)) {
				return usage("--role is %q, should be worker or manager", role)
			}
			if ttl <= 0 || uses < 1 {
				return usage("--ttl and --uses should be more than 0")
			}
			return a.withNode(cmd, func(ctx context.Context, c *manage.Client) error {
				doc, err := c.CreateToken(ctx, p2pnode.Role(role), ttl, uses)
				if err != nil {
					return err
				}
				return a.show(view{doc: doc, names: []string{doc.Token}, print: func(p *printer) { p.line("%s", doc.Token) }})
			})
		},
	}
	create.Flags().StringVar(&role, "role", string(p2pnode.RoleWorker), "worker or manager")
	create.Flags().DurationVar(&ttl, "ttl", time.Hour, "admits nobody after this")
	create.Flags().IntVar(&uses, "uses", 1, "admits so many nodes")
	cmd.AddCommand(create, a.tokenList(), a.tokenRemove())
	return cmd
}

func (a *app) promoteCommand() *cobra.Command {
	return &cobra.Command{
		Use: "promote NODE", Short: "Make a member a manager: it may launch agents and reads everything", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(cmd, func(ctx context.Context, c *manage.Client) error {
				if err := c.Promote(ctx, args[0]); err != nil {
					return err
				}
				return a.done("promote", args[0], args[0]+" has a manager certificate; switch it on there with: p2pnode manage on")
			})
		},
	}
}

func (a *app) manageCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "manage", Short: "Use this node's manager certificate, or not"}
	sub := func(use, short, said string, on bool) *cobra.Command {
		return &cobra.Command{
			Use: use, Short: short, Args: cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return a.withNode(cmd, func(ctx context.Context, c *manage.Client) error {
					if err := c.Manage(ctx, on); err != nil {
						return err
					}
					return a.done("manage", use, said)
				})
			},
		}
	}
	cmd.AddCommand(sub("on", "This node manages", "this node manages now", true), sub("off", "It is a member like others", "this node manages no longer", false))
	return cmd
}

func (a *app) leaveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "leave", Short: "Leave the cluster for good; services go on", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withNode(cmd, func(ctx context.Context, c *manage.Client) error {
				if err := c.Leave(ctx); err != nil {
					return err
				}
				return a.done("leave", "host", "left the cluster; services go on, supervised by this host alone")
			})
		},
	}
}

func (a *app) joinCommand() *cobra.Command {
	return &cobra.Command{
		Use: "join ADDR", Short: "Try to reach the cluster at ADDR too", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(cmd, func(ctx context.Context, c *manage.Client) error {
				if err := c.Join(ctx, args[0]); err != nil {
					return err
				}
				return a.done("join", args[0], "tries "+args[0]+"; see: p2pnode nodes")
			})
		},
	}
}
