package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"p2pnode"
	"p2pnode/exec"
)

// upgradeDoc is what upgrade says with -o json.
type upgradeDoc struct {
	Schema string `json:"schema"`
	OK     bool   `json:"ok"`
	DryRun bool   `json:"dry_run,omitempty"`
	p2pnode.UpgradePlan
	State p2pnode.UpgradeState  `json:"state,omitempty"`
	Text  string                `json:"text,omitempty"`
	Steps []p2pnode.UpgradeStep `json:"steps"`
}

// upgradeCommand is `p2pnode upgrade [FILE]`.
func (a *app) upgradeCommand() *cobra.Command {
	var req exec.UpgradeRequest
	var timeout time.Duration
	cmd := &cobra.Command{
		Use: "upgrade [FILE]", Short: "Put a new binary under the running services",
		Long: "Put a new binary in the place of this host's p2pnode; services run on, untouched.\n\n" +
			"FILE is tried first: it must be able to read the state and the configuration of this\n" +
			"host. Then it is installed where the running one was started from (which is kept as\n" +
			".prev), and exec, door and node process go over to it, one after the other. Should one\n" +
			"of them not live, the old binary is put back. Without FILE the installed file is\n" +
			"taken as it is now, as a package manager has put it there.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				path, err := filepath.Abs(args[0])
				if err != nil {
					return err
				}
				req.File = path
			}
			dir, err := clientDir(a.data)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			doc := upgradeDoc{Schema: p2pnode.Schema("upgrade"), DryRun: req.DryRun, Steps: []p2pnode.UpgradeStep{}}
			if err := a.withExec(cmd, func(_ context.Context, client *exec.Client) (err error) {
				doc.UpgradePlan, err = client.Upgrade(ctx, req)
				return err
			}); err != nil {
				return err
			}
			a.tellPlan(doc)
			if doc.BeganAt.IsZero() {
				doc.OK = true
			} else if err := a.followUpgrade(ctx, dir, &doc); err != nil {
				return err
			}
			err = a.show(view{doc: doc, names: []string{doc.To}, print: func(p *printer) { p.line("%s", outcome(doc)) }})
			if err == nil && !doc.OK {
				return quietError(p2pnode.ExitFailed)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&req.DryRun, "dry-run", false, "only try FILE against this host's state and configuration")
	cmd.Flags().DurationVar(&req.Settle, "settle", 2*time.Second, "each process must live this long before the next one is replaced")
	cmd.Flags().DurationVar(&timeout, "timeout", 2*time.Minute, "wait at most this long; the upgrade goes on")
	return cmd
}

// tellPlan says, while it goes on, what was found out and done so far.
func (a *app) tellPlan(doc upgradeDoc) {
	if doc.Same {
		return
	}
	fmt.Fprintf(a.stderr, "%s can read the state of this host (%d processes, tried in %.0f ms)\n", doc.To, doc.Services, doc.Trial)
	if !doc.DryRun {
		fmt.Fprintf(a.stderr, "installed as %s; the old one is %s\n", doc.Target, doc.Previous)
	}
}

func outcome(doc upgradeDoc) string {
	switch {
	case doc.Same:
		return "that binary runs already (" + doc.From + "): nothing to do"
	case doc.DryRun:
		return doc.To + " could take the place of " + doc.From + ": nothing was changed"
	case !doc.OK:
		return "failed: " + doc.Text
	}
	return doc.From + " -> " + doc.To + ": exec, door and node process are replaced"
}

// followUpgrade waits for the outcome; exec is another image after a moment, so each
// look is a connection of its own.
func (a *app) followUpgrade(ctx context.Context, dir string, doc *upgradeDoc) error {
	var last error
	for {
		u, err := upgradeNow(ctx, dir)
		if err == nil && u != nil && u.BeganAt.Equal(doc.BeganAt) {
			for _, s := range u.Steps[min(len(doc.Steps), len(u.Steps)):] {
				a.tellStep(s)
			}
			doc.State, doc.Text, doc.Steps = u.State, u.Text, u.Steps
			if u.State == p2pnode.UpgradeDone || u.State == p2pnode.UpgradeFailed {
				doc.OK = u.State == p2pnode.UpgradeDone
				return nil
			}
		}
		last = err
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			text := "the upgrade is not through yet"
			if last != nil {
				text += ", and exec does not answer"
			}
			return &p2pnode.Error{
				Code: "timeout", Text: text, Exit: p2pnode.ExitTimeout,
				Fix: "see: p2pnode ps --all; an exec that hangs may be killed (kill -9): its services live on, and the old binary comes back",
			}
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (a *app) tellStep(s p2pnode.UpgradeStep) {
	if s.OldPID == s.PID {
		fmt.Fprintf(a.stderr, "%s: replaced in place, pid %d, %.0f ms\n", s.Name, s.PID, s.TookMS)
		return
	}
	fmt.Fprintf(a.stderr, "%s: pid %d -> %d, %.0f ms\n", s.Name, s.OldPID, s.PID, s.TookMS)
}

func upgradeNow(ctx context.Context, dir string) (*p2pnode.Upgrade, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	client, err := exec.Dial(ctx, dir, exec.RoleCLI)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	st, err := client.Status(ctx)
	return st.Upgrade, err
}

// stateCheckCommand is what exec asks of a binary that is to take its place: read
// the state folder, and the configuration as the given command line would.
func (a *app) stateCheckCommand() *cobra.Command {
	return &cobra.Command{
		Use: "state-check -- ARGV...", Hidden: true, Args: cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			dir, err := dataDir(a.data)
			if err != nil {
				return err
			}
			said := exec.CheckState(dir, versionDoc().Version)
			other := &app{stdout: io.Discard, stderr: io.Discard, format: formatTable, trial: true}
			root := other.rootCommand()
			root.SetArgs(args)
			root.SetOut(io.Discard)
			root.SetErr(io.Discard)
			if err := root.Execute(); err != nil {
				said.Problems = append(said.Problems, "cannot take its configuration: "+err.Error())
			}
			return writeJSON(a.stdout, said, "")
		},
	}
}
