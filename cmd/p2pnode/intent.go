package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"p2pnode"
	"p2pnode/exec"
)

// What a person wants beats every repair: exec keeps it, on disk, also while the
// node process is dead.

func (a *app) maintenanceCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "maintenance", Short: "Leave something alone for a while: nothing restarts it"}
	var ttl time.Duration
	on := &cobra.Command{
		Use: "on TARGET", Short: "Begin (--ttl 1h)", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if ttl <= 0 || ttl > exec.MaxMaintenance {
				return usage("--ttl is %s, should be more than 0 and at most 720h", ttl)
			}
			until := time.Now().Add(ttl)
			doc := setDoc{Target: args[0], On: new(true), Until: until, Result: "maintenance until " + until.Format(time.DateTime)}
			return a.setAside(cmd, doc, exec.Aside{On: true, For: ttl}, func(ctx context.Context, client *exec.Client, target string) error {
				return client.Maintenance(ctx, target, until)
			})
		},
	}
	on.Flags().DurationVar(&ttl, "ttl", time.Hour, "ends by itself after this long")
	off := &cobra.Command{
		Use: "off TARGET", Short: "End", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			doc := setDoc{Target: args[0], On: new(false), Result: "maintenance is over"}
			return a.setAside(cmd, doc, exec.Aside{}, func(ctx context.Context, client *exec.Client, target string) error {
				return client.Maintenance(ctx, target, time.Time{})
			})
		},
	}
	cmd.AddCommand(on, off)
	return cmd
}

func (a *app) observeCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "observe", Short: "Say what would be done, restart nothing"}
	sub := func(use, short, said string, on bool) *cobra.Command {
		return &cobra.Command{
			Use: use + " TARGET", Short: short, Args: cobra.ExactArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				doc := setDoc{Target: args[0], On: new(on), Result: said}
				return a.setAside(cmd, doc, exec.Aside{On: on}, func(ctx context.Context, client *exec.Client, target string) error {
					return client.Observe(ctx, target, on)
				})
			},
		}
	}
	cmd.AddCommand(sub("on", "Begin", "observe only", true), sub("off", "End", "acts again", false))
	return cmd
}

// setDoc is what a verb without an answer of its own says with -o json.
type setDoc struct {
	Schema string    `json:"schema"`
	Target string    `json:"target"`
	On     *bool     `json:"on,omitempty"`   // maintenance, observe
	Until  time.Time `json:"until,omitzero"` // maintenance
	Result string    `json:"result"`
}

// setAside has something left alone, or not any more: by do on this host, else as set
// says.
func (a *app) setAside(cmd *cobra.Command, doc setDoc, set exec.Aside, do func(ctx context.Context, client *exec.Client, target string) error) error {
	name := cmd.Parent().Name()
	doc.Schema = p2pnode.Schema(name)
	return a.withExec(cmd, func(ctx context.Context, client *exec.Client) error {
		here := func(client *exec.Client, ctx context.Context, target string, _ exec.VerbOptions) (exec.VerbResult, error) {
			return exec.VerbResult{OK: true}, do(ctx, client, target)
		}
		if _, err := a.act(ctx, client, name, doc.Target, here, exec.VerbOptions{Aside: &set}); err != nil {
			return err
		}
		return a.show(view{doc: doc, names: []string{doc.Target}, print: func(p *printer) { p.line("%s: %s", doc.Target, doc.Result) }})
	})
}
