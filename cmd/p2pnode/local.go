package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"p2pnode"
	"p2pnode/exec"
	"p2pnode/manage"
)

// withExec runs f with a connection to this host's exec.
func (a *app) withExec(cmd *cobra.Command, f func(ctx context.Context, c *exec.Client) error) error {
	dir, err := clientDir(a.data)
	if err != nil {
		return err
	}
	dial, cancel := context.WithTimeout(cmd.Context(), 5*time.Second)
	defer cancel()
	client, err := exec.Dial(dial, dir, exec.RoleCLI)
	if err != nil {
		return err
	}
	defer client.Close()
	return f(cmd.Context(), client)
}

func (a *app) psCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use: "ps", Short: "This host's services, as its exec sees them", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withExec(cmd, func(ctx context.Context, client *exec.Client) error {
				st, err := client.Status(ctx)
				if err != nil {
					return err
				}
				rows := st.Services
				if all {
					rows = append(ownProcesses(st), rows...)
				}
				// What they use is told where it is known: an exec of an older version knows
				// no such question.
				if used, err := client.Usage(ctx); err == nil {
					for i := range rows {
						if u, ok := used[rows[i].Name]; ok {
							rows[i].Usage = &u
						}
					}
				}
				doc := psDoc{p2pnode.Schema("ps"), psRows(rows)}
				names := make([]string, len(rows))
				for i, s := range rows {
					names[i] = s.Name
				}
				return a.show(view{doc: doc, items: items(doc.Services), names: names, print: func(p *printer) { printPS(p, rows) }})
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "also p2pnode's own processes: @exec, @door, @node")
	return cmd
}

// psDoc is a p2pnode.PSDoc whose rows leave out what nobody counts.
type psDoc struct {
	Schema   string  `json:"schema"`
	Services []psRow `json:"services"`
}

type psRow struct {
	p2pnode.ServiceStatus
	Restarts *int `json:"restarts,omitempty"`
}

func psRows(services []p2pnode.ServiceStatus) []psRow {
	out := make([]psRow, len(services))
	for i, s := range services {
		if s.Labels == nil {
			s.Labels = map[string]string{}
		}
		out[i] = psRow{s, &s.Restarts}
		if s.Name == p2pnode.SelfExec {
			out[i].Restarts = nil // exec counts its children's
		}
	}
	return out
}

// ownProcesses are exec, door and node as rows of ps. Those that are not run
// here (no node process was asked for) are left out.
func ownProcesses(st p2pnode.ExecStatus) []p2pnode.ServiceStatus {
	out := []p2pnode.ServiceStatus{{Node: st.Node.Node, Name: p2pnode.SelfExec, State: p2pnode.StateUp, PID: st.PID, Since: startedAt(st.PID)}}
	for _, s := range []p2pnode.ServiceStatus{st.Door, st.Node} {
		if s.Name != "" {
			out = append(out, s)
		}
	}
	return out
}

func printPS(p *printer, services []p2pnode.ServiceStatus) {
	if len(services) == 0 {
		p.line("no services are declared here; start with: p2pnode config init")
		return
	}
	head := []string{"service", "state", "pid", "restarts", "since", "cpu", "memory", "note"}
	if p.wide {
		head = append(head, "incarnation", "recover", "labels", "last exit")
	}
	var rows [][]cell
	for _, s := range services {
		pid := ""
		if s.PID != 0 {
			pid = itoa(s.PID)
		}
		restarts := itoa(s.Restarts)
		if s.Name == p2pnode.SelfExec {
			restarts = ""
		}
		row := []cell{c(s.Name), stateCell(s.State), c(pid), c(restarts), c(ago(s.Since)), c(cpuText(s.Usage)), c(memoryText(s.Usage)), c(psNote(s))}
		if p.wide {
			row = append(row, c(s.Incarnation), c(string(s.Recover)), c(labelText(s.Labels)), c(exitText(s.LastExit)))
		}
		rows = append(rows, row)
	}
	p.table(head, rows)
}

// psNote is what a person should know of a service beyond its state.
func psNote(s p2pnode.ServiceStatus) string {
	var notes []string
	if !s.MaintenanceUntil.IsZero() {
		notes = append(notes, "maintenance for "+short(max(0, time.Until(s.MaintenanceUntil))))
	}
	if s.Observe {
		notes = append(notes, "observe only")
	}
	if s.Adopted {
		notes = append(notes, "adopted")
	}
	if s.Why != "" {
		notes = append(notes, s.Why)
	}
	if s.Check != nil && s.Check.State == "failing" && !strings.HasSuffix(s.Why, s.Check.LastError) {
		notes = append(notes, strings.TrimSpace(s.Check.Which+" check")+": "+s.Check.LastError)
	}
	if !s.NextTry.IsZero() && s.State != p2pnode.StateUp {
		next := "next try is due"
		if left := time.Until(s.NextTry); left > 0 {
			next = "next try in " + short(left)
		}
		notes = append(notes, next)
	}
	if lost := s.LogDropped + s.LogLeftOut; lost > 0 {
		notes = append(notes, fmt.Sprintf("%.1f MB of its output are not in its log", max(0.1, float64(lost)/1e6)))
	}
	return strings.Join(notes, "; ")
}

func cpuText(u *p2pnode.Usage) string {
	if u == nil {
		return ""
	}
	return fmt.Sprintf("%.1f%%", u.CPUPercent)
}

func memoryText(u *p2pnode.Usage) string {
	switch {
	case u == nil:
		return ""
	case u.Memory < 10<<30:
		return fmt.Sprintf("%.0fM", float64(u.Memory)/(1<<20))
	}
	return fmt.Sprintf("%.1fG", float64(u.Memory)/(1<<30))
}

func exitText(e *p2pnode.Exit) string {
	switch {
	case e == nil:
		return ""
	case e.OOM:
		return "killed: out of memory"
	case e.Signal != "":
		return e.Signal
	case e.Unknown:
		return "unknown"
	}
	return fmt.Sprintf("exit %d", e.Code)
}

// verb is one of start, stop, restart.
type verb func(c *exec.Client, ctx context.Context, target string, opt exec.VerbOptions) (exec.VerbResult, error)

// verbDoc is what start, stop and restart say with -o json.
type verbDoc struct {
	Schema string `json:"schema"`
	exec.VerbResult
	Error  *p2pnode.Error        `json:"error,omitempty"`  // of a target about which services say nothing: of the first
	Errors []p2pnode.TargetError `json:"errors,omitempty"` // of each of them, where there are several
}

func (a *app) verbCommand(name, short string, do verb) *cobra.Command {
	var opt exec.VerbOptions
	cmd := &cobra.Command{
		Use: name + " TARGET...", Short: short, Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withExec(cmd, func(ctx context.Context, client *exec.Client) error {
				all := verbDoc{Schema: p2pnode.Schema(name)}
				all.OK = true
				// All at once: --timeout is the time for all of them.
				got, errs := make([]exec.VerbResult, len(args)), make([]error, len(args))
				var asked sync.WaitGroup
				for i, arg := range args {
					asked.Go(func() { got[i], errs[i] = a.act(ctx, client, name, arg, do, opt) })
				}
				asked.Wait()
				var failed failures // what became of the other targets is shown all the same
				for i := range args {
					if errs[i] != nil {
						failed = append(failed, failure{args[i], errs[i]})
					}
					all.OK = all.OK && errs[i] == nil && got[i].OK
					all.Services = append(all.Services, got[i].Services...)
				}
				if len(failed) == 0 {
					return a.showOutcome(all)
				}
				if len(all.Services) > 0 {
					if a.format == formatJSON { // one document
						doc := a.errorDoc(failed)
						all.Error, all.Errors, a.told = doc.Error, doc.Errors, true
					}
					a.showOutcome(all)
				}
				return failed
			})
		},
	}
	cmd.Flags().BoolVar(&opt.NoWait, "no-wait", false, "do not wait for the outcome")
	cmd.Flags().DurationVar(&opt.Timeout, "timeout", 60*time.Second, "wait at most this long")
	if name != "stop" {
		cmd.Flags().BoolVar(&opt.Force, "force", false, "also where something says that a copy still lives")
	}
	return cmd
}

// failure is the error of one target of several.
type failure struct {
	target string
	err    error
}

// failures are those of all targets that failed, in the order in which they were named;
// the exit code is that of the first.
type failures []failure

func (f failures) Error() string { return f[0].err.Error() }
func (f failures) Unwrap() error { return f[0].err }

// act has services started, stopped, restarted or set aside, here or on the host that
// arg names.
func (a *app) act(ctx context.Context, client *exec.Client, name, arg string, do verb, opt exec.VerbOptions) (exec.VerbResult, error) {
	target, err := a.localTarget(ctx, client, arg)
	if e, ok := errors.AsType[*p2pnode.Error](err); ok && e.Code == otherHost {
		node, service, _ := strings.Cut(arg, "/")
		dir, err := clientDir(a.data)
		if err != nil {
			return exec.VerbResult{}, err
		}
		c, err := manage.Dial(ctx, dir)
		if err != nil {
			return exec.VerbResult{}, err
		}
		defer c.Close()
		return c.Act(ctx, name, node, service, opt)
	}
	if err != nil {
		return exec.VerbResult{}, err
	}
	return do(client, ctx, target, opt)
}

func (a *app) showOutcome(doc verbDoc) error {
	var names []string
	for _, s := range doc.Services {
		names = append(names, s.Name)
	}
	err := a.show(view{doc: doc, items: items(doc.Services), names: names, print: func(p *printer) {
		for _, s := range doc.Services {
			text := s.Text
			if text == "" {
				text = string(s.State)
				if s.PID != 0 {
					text += fmt.Sprintf(", pid %d", s.PID)
				}
			}
			state := cell{s.Name, good}
			if !s.OK {
				state.hue = bad
			}
			p.line("%s: %s", p.paint(state), text)
		}
	}})
	if err != nil || doc.OK {
		return err
	}
	if slices.ContainsFunc(doc.Services, func(s exec.ServiceResult) bool { return !s.OK && !s.TimedOut }) {
		return quietError(p2pnode.ExitFailed)
	}
	return quietError(p2pnode.ExitTimeout)
}

func (a *app) reloadCommand() *cobra.Command {
	var dry bool
	cmd := &cobra.Command{
		Use: "reload", Short: "Read the configuration again; only what changed is restarted", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withExec(cmd, func(ctx context.Context, client *exec.Client) error {
				got, err := client.Reload(ctx, dry)
				if err != nil {
					return err
				}
				doc := struct {
					Schema  string   `json:"schema"`
					DryRun  bool     `json:"dry_run"`
					Added   []string `json:"added"`
					Removed []string `json:"removed"`
					Changed []string `json:"changed"`
					Updated []string `json:"updated"`
					Kept    []string `json:"kept"`
					Later   []string `json:"later"`
				}{p2pnode.Schema("reload"), dry, some(got.Added), some(got.Removed), some(got.Changed), some(got.Updated), some(got.Kept), some(got.Later)}
				return a.show(view{doc: doc, names: slices.Concat(got.Added, got.Removed, got.Changed, got.Updated), print: func(p *printer) {
					if len(got.Added)+len(got.Removed)+len(got.Changed)+len(got.Updated)+len(got.Later) == 0 {
						p.line("nothing changed")
					}
					p.fact("added", "%s", strings.Join(got.Added, ", "))
					p.fact("removed", "%s", strings.Join(got.Removed, ", "))
					p.fact("restarted", "%s", strings.Join(got.Changed, ", "))
					p.fact("updated", "%s", strings.Join(got.Updated, ", "))
					p.fact("stays", "%s", strings.Join(got.Kept, ", "))
					if len(got.Later) > 0 {
						p.fact("not yet", "%s: when p2pnode is started anew (services live on: p2pnode shutdown --keep-services)", strings.Join(got.Later, ", "))
					}
				}})
			})
		},
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "say what would change, change nothing")
	return cmd
}

func some(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func (a *app) shutdownCommand() *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use: "shutdown", Short: "Stop the daemon and its services, in order", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withExec(cmd, func(ctx context.Context, client *exec.Client) error {
				if err := client.Shutdown(ctx, keep); err != nil {
					return err
				}
				select {
				case <-client.Done():
				case <-ctx.Done():
					return ctx.Err()
				}
				said := "stopped"
				if keep {
					said = "stopped; its services go on"
				}
				return a.show(view{doc: setDoc{Schema: p2pnode.Schema("shutdown"), Target: "host", Result: said}, print: func(p *printer) { p.line("%s", said) }})
			})
		},
	}
	cmd.Flags().BoolVar(&keep, "keep-services", false, "leave the services running; the next start adopts them")
	return cmd
}
