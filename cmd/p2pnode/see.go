package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"p2pnode"
	"p2pnode/exec"
	"p2pnode/manage"
)

// withNode runs f with a client of this host's node process.
func (a *app) withNode(cmd *cobra.Command, f func(ctx context.Context, c *manage.Client) error) error {
	dir, err := clientDir(a.data)
	if err != nil {
		return err
	}
	client, err := manage.Dial(cmd.Context(), dir)
	if err != nil {
		return err
	}
	defer client.Close()
	return f(cmd.Context(), client)
}

func (a *app) statusCommand() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use: "status", Short: "Is all well here and in the cluster, as this node knows it", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for {
				doc, err := a.status(cmd)
				if err != nil {
					return err
				}
				if watch && a.color {
					a.printer().line("\x1b[H\x1b[2J%s", time.Now().Format(time.TimeOnly))
				}
				err = a.show(view{doc: doc, names: []string{map[bool]string{true: "ok", false: "not-ok"}[doc.OK]}, print: func(p *printer) { printStatus(p, doc) }})
				if err != nil {
					return err
				}
				if !watch && !doc.OK {
					return quietError(p2pnode.ExitUnhealthy)
				}
				if !watch {
					return nil
				}
				select {
				case <-cmd.Context().Done():
					return cmd.Context().Err()
				case <-time.After(time.Second):
				}
			}
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "again every second")
	return cmd
}

// status asks the node process, and where it does not answer exec alone: a host
// with a dead node process still has a status.
func (a *app) status(cmd *cobra.Command) (p2pnode.StatusDoc, error) {
	var doc p2pnode.StatusDoc
	err := a.withNode(cmd, func(ctx context.Context, c *manage.Client) (err error) {
		ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		doc, err = c.Status(ctx)
		return err
	})
	if err == nil || cmd.Context().Err() != nil {
		return doc, err
	}
	err = a.withExec(cmd, func(ctx context.Context, c *exec.Client) error {
		st, err := c.Status(ctx)
		if err != nil {
			return err
		}
		dir, err := clientDir(a.data)
		doc = localStatus(st, dir)
		return err
	})
	return doc, err
}

// localStatus is what exec alone, and the folder dir, can say.
func localStatus(st p2pnode.ExecStatus, dir string) p2pnode.StatusDoc {
	kept := loadPorts(dir)
	doc := p2pnode.StatusDoc{
		Schema:   p2pnode.Schema("status"),
		Node:     &p2pnode.StatusNode{Name: st.Node.Node, ID: ownID(dir), Data: dir, Door: kept.Door},
		Exec:     &p2pnode.StatusExec{PID: st.PID, Supervised: st.Supervised},
		Services: &p2pnode.StatusServices{Total: len(st.Services)}, Refusals: st.Refusals(nil),
	}
	if kept.Listen != "" {
		doc.Node.Listen = []string{kept.Listen}
	}
	for _, s := range st.Services {
		switch s.State {
		case p2pnode.StateUp:
			doc.Services.Up++
		case p2pnode.StateStopped, p2pnode.StateExited:
		default:
			doc.Services.Down++
		}
	}
	doc.Warnings = append(doc.Warnings, p2pnode.Warning{
		Code: "node-process-away", Severity: "critical",
		Text: "the node process does not answer (" + first(string(st.Node.State), "not started") + "): this host is alone, its services are kept alive by exec",
		Fix:  "p2pnode logs @node",
	})
	return doc
}

// healthDoc is `health -o json`.
type healthDoc struct {
	Schema string   `json:"schema"`
	OK     bool     `json:"ok"`
	Bad    []string `json:"bad,omitempty"`
}

func (a *app) healthCommand() *cobra.Command {
	return &cobra.Command{
		Use: "health", Short: "Do this host's own processes work (for container health checks)", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			doc := healthDoc{Schema: p2pnode.Schema("health")}
			err := a.withExec(cmd, func(ctx context.Context, c *exec.Client) error {
				st, err := c.Status(ctx)
				for _, s := range []p2pnode.ServiceStatus{st.Door, st.Node} {
					if s.Name != "" && s.State != p2pnode.StateUp {
						doc.Bad = append(doc.Bad, s.Name+" is "+string(s.State))
					}
				}
				return err
			})
			if err != nil {
				return err
			}
			doc.OK = len(doc.Bad) == 0
			err = a.show(view{doc: doc, print: func(p *printer) {
				p.line("%s", first(strings.Join(doc.Bad, ", "), "healthy"))
			}})
			if err == nil && !doc.OK {
				return quietError(p2pnode.ExitUnhealthy)
			}
			return err
		},
	}
}

func (a *app) nodesCommand() *cobra.Command {
	list := func(cmd *cobra.Command, _ []string) error {
		return a.withNode(cmd, func(ctx context.Context, c *manage.Client) error {
			doc, err := c.Nodes(ctx)
			if err != nil {
				return err
			}
			names := make([]string, len(doc.Nodes))
			for i, n := range doc.Nodes {
				names[i] = n.Name
			}
			return a.show(view{doc: doc, items: items(doc.Nodes), names: names, print: func(p *printer) { printNodes(p, doc.Nodes) }})
		})
	}
	cmd := &cobra.Command{Use: "nodes", Short: "The members, and what this node believes of each", Args: cobra.NoArgs, RunE: list}
	cmd.AddCommand(
		&cobra.Command{Use: "ls", Short: "The members", Args: cobra.NoArgs, RunE: list},
		&cobra.Command{
			Use: "show NODE", Short: "All that is known of one", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.withNode(cmd, func(ctx context.Context, c *manage.Client) error {
					doc, err := c.Node(ctx, args[0])
					if err != nil {
						return err
					}
					return a.show(view{doc: doc, items: items(doc.Nodes), names: args, print: func(p *printer) {
						for _, n := range doc.Nodes {
							printNode(p, n)
						}
					}})
				})
			},
		},
		&cobra.Command{
			Use: "why NODE", Short: "The evidence under its verdict, and what would change it", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.withNode(cmd, func(ctx context.Context, c *manage.Client) error {
					doc, err := c.Why(ctx, args[0])
					if err != nil {
						return err
					}
					return a.show(view{doc: doc, names: args, print: func(p *printer) { printWhy(p, doc) }})
				})
			},
		})
	return cmd
}

func (a *app) pathCommand() *cobra.Command {
	return &cobra.Command{
		Use: "path A B", Short: "The way that an agent at A would take to B", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(cmd, func(ctx context.Context, c *manage.Client) error {
				doc, err := c.Path(ctx, args[0], args[1])
				if err != nil {
					return err
				}
				var names []string
				for _, h := range doc.Hops {
					names = append(names, h.Node)
				}
				return a.show(view{doc: doc, names: names, print: func(p *printer) { printPath(p, doc) }})
			})
		},
	}
}

func (a *app) pingCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ping NODE", Short: "Send a message there and back, from node to node", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withNode(cmd, func(ctx context.Context, c *manage.Client) error {
				doc, err := c.Ping(ctx, args[0])
				if err != nil {
					return err
				}
				return a.show(view{doc: doc, names: doc.Trail, print: func(p *printer) {
					p.line("%s: %s by %s", args[0], millis(doc.RTT), strings.Join(doc.Trail, " > "))
				}})
			})
		},
	}
}

func (a *app) incidentsCommand() *cobra.Command {
	list := func(cmd *cobra.Command, _ []string) error {
		return a.withNode(cmd, func(ctx context.Context, c *manage.Client) error {
			doc, err := c.Incidents(ctx)
			if err != nil {
				return err
			}
			names := make([]string, len(doc.Incidents))
			for i, inc := range doc.Incidents {
				names[i] = inc.ID
			}
			return a.show(view{doc: doc, items: items(doc.Incidents), names: names, print: func(p *printer) { printIncidents(p, doc.Incidents) }})
		})
	}
	cmd := &cobra.Command{Use: "incidents", Short: "What failed and how it was repaired", Args: cobra.NoArgs, RunE: list}
	cmd.AddCommand(
		&cobra.Command{Use: "ls", Short: "All that this node knows of", Args: cobra.NoArgs, RunE: list},
		&cobra.Command{
			Use: "show ID", Short: "The story of one, with the last words of what died", Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				return a.withNode(cmd, func(ctx context.Context, c *manage.Client) error {
					doc, err := c.Incident(ctx, args[0])
					if err != nil {
						return err
					}
					members, err := c.Nodes(ctx)
					if err != nil {
						return err
					}
					names := map[string]string{}
					for _, n := range members.Nodes {
						names[n.ID] = n.Name
					}
					name := func(id string) string { return first(names[id], id) }
					return a.show(view{doc: doc, items: items(doc.Incidents), names: args, print: func(p *printer) {
						for _, i := range doc.Incidents {
							printIncident(p, telling{i, doc.Reports, time.Now()}, name)
						}
					}})
				})
			},
		})
	return cmd
}

// reportRow is a report with the name, as its writer knew it, of the node that it
// is about, as in all other documents. Whatever else names a node is an ID there,
// so that every node shows the same bytes.
type reportRow struct {
	p2pnode.Report
	Node   string `json:"node"`
	NodeID string `json:"node_id"`
}

func (a *app) reportsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "reports", Short: "The signed reports under the incidents", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withNode(cmd, func(ctx context.Context, c *manage.Client) error {
				doc, err := c.Reports(ctx)
				if err != nil {
					return err
				}
				rows, names := make([]reportRow, len(doc.Reports)), make([]string, len(doc.Reports))
				for i, r := range doc.Reports {
					rows[i] = reportRow{r, first(r.NodeName, r.Node), r.Node}
					names[i] = fmt.Sprintf("%s/%s/%d", r.Origin, r.Epoch, r.Seq)
				}
				all := struct {
					Schema  string      `json:"schema"`
					Reports []reportRow `json:"reports"`
				}{doc.Schema, rows}
				return a.show(view{doc: all, items: items(rows), names: names, print: func(p *printer) { printReports(p, doc.Reports) }})
			})
		},
	}
}
