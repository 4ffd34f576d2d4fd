// Command p2pnode keeps the processes of a fleet alive without a master.
//
// One binary plays three parts. Without a verb it is exec, the execution service
// of this host: the first process, which starts the other two parts (`door`,
// `node`) and the declared services. With a verb it is a client of the daemon
// that runs on this host; see `p2pnode help`. `p2pnode demo` shows the whole
// story on one machine.
//
// It promises that the exit codes, flags, JSON fields and words that scripts see
// are only ever added to; that stdout carries data and stderr talk; and that
// every error says what could not be done, why, and what to type next.
//
// Read next: daemon.go (what runs where), options.go (flags, variables and the
// file), then package node for what a node process is made of.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"p2pnode"
	"p2pnode/exec"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == launchVerb { // on the way to a service: nothing else is set up
		fmt.Fprintln(os.Stderr, "p2pnode:", exec.Launch(os.Args[2:]))
		os.Exit(p2pnode.ExitFailed)
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// launchVerb makes this binary the launcher of a service.
const launchVerb = "launch"

// app is what every command of one invocation shares.
type app struct {
	stdout io.Writer
	stderr io.Writer
	color  bool
	format string // -o
	data   string // --data as given
	host   string // root folder of the host that is looked at
	trial  bool   // a daemon only reads its configuration
	told   bool   // the error is part of the document that is on stdout already
	ran    bool   // a command's own code was reached: what fails now is no usage error
}

// run is the whole program; it returns the exit code.
func run(args []string, stdout, stderr *os.File) int {
	a := &app{stdout: stdout, stderr: stderr, color: wantsColor(stdout), format: saidFormat(args), host: "/"}
	return a.run(args)
}

func (a *app) run(args []string) int {
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	// A client's Ctrl-C ends what it waits for; the roles of the daemon install
	// handlers of their own.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := root.ExecuteContext(ctx)
	if err == nil {
		return p2pnode.ExitOK
	}
	return a.fail(err, ctx.Err() != nil)
}

// fail says err once, for people on stderr and with -o json also on stdout, and
// returns the exit code for it.
func (a *app) fail(err error, interrupted bool) int {
	_, ok := errors.AsType[*p2pnode.Error](err)
	switch {
	case errors.Is(err, errQuiet):
		return p2pnode.ExitCode(err)
	case !ok && interrupted:
		return p2pnode.ExitInterrupted
	}
	doc := a.errorDoc(err)
	if len(doc.Errors) == 0 {
		a.tell("p2pnode: "+doc.Error.Text, doc.Error.Fix)
	}
	for i, e := range doc.Errors {
		fix := e.Fix
		if i+1 < len(doc.Errors) && doc.Errors[i+1].Fix == fix {
			fix = "" // once is enough
		}
		a.tell("p2pnode: "+e.Target+": "+e.Text, fix)
	}
	if a.json() && !a.told {
		writeJSON(a.stdout, doc, "")
	}
	return doc.Error.Exit
}

// tell says what could not be done, and on lines of its own the way out.
func (a *app) tell(text, fix string) {
	if fix != "" {
		text += "\n  " + strings.ReplaceAll(fix, "\n", "\n  ")
	}
	fmt.Fprintln(a.stderr, text)
}

// errorDoc is err as a document: of several targets, with each that failed.
func (a *app) errorDoc(err error) p2pnode.ErrorDoc {
	doc := p2pnode.ErrorDoc{Schema: p2pnode.Schema("error"), Error: a.asError(err)}
	if all, ok := errors.AsType[failures](err); ok && len(all) > 1 {
		for _, f := range all {
			doc.Errors = append(doc.Errors, p2pnode.TargetError{Target: f.target, Error: a.asError(f.err)})
		}
	}
	return doc
}

// asError is err with a code, and with the exit code that it means.
func (a *app) asError(err error) *p2pnode.Error {
	e, ok := errors.AsType[*p2pnode.Error](err)
	switch {
	case ok:
		said := *e
		e = &said
	case !a.ran:
		e = &p2pnode.Error{Code: "usage", Text: err.Error(), Fix: "see: p2pnode help", Exit: p2pnode.ExitUsage}
	case errors.Is(err, context.DeadlineExceeded):
		e = &p2pnode.Error{Code: "timeout", Text: "no answer in time: " + err.Error(), Exit: p2pnode.ExitTimeout}
	default:
		e = &p2pnode.Error{Code: "failed", Text: err.Error()}
	}
	e.Exit = p2pnode.ExitCode(e)
	return e
}

// errQuiet marks an answer that was printed in full and still is a failure
// (status of a sick node): the exit code says it, no sentence does.
var errQuiet = errors.New("not healthy")

// quietError carries the exit code of an answer that needs no sentence.
func quietError(exit int) error {
	return errors.Join(errQuiet, &p2pnode.Error{Code: "not-healthy", Text: "not healthy", Exit: exit})
}

// rootCommand builds the command tree.
func (a *app) rootCommand() *cobra.Command {
	root := a.daemonCommand()
	root.Use = "p2pnode"
	root.Short = "Keep the processes of a fleet alive without a master"
	root.SilenceUsage, root.SilenceErrors = true, true
	root.PersistentFlags().StringVar(&a.data, "data", "", "data folder `DIR` (P2PNODE_DATA; /var/lib/p2pnode for root)")
	root.PersistentFlags().StringVarP(&a.format, "output", "o", a.format, "output `FORMAT`: "+strings.Join(formats, ", ")+" (P2PNODE_OUTPUT)")
	root.PersistentFlags().Lookup("output").DefValue = formatTable
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return misused(cmd, "%v", err) })
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if !oneOf(a.format, formats...) {
			bad := a.format
			a.format = formatTable
			return usage("-o is %q, should be one of %s", bad, strings.Join(formats, ", "))
		}
		a.ran = true
		return nil
	}
	root.AddGroup(
		&cobra.Group{ID: "see", Title: "See:"},
		&cobra.Group{ID: "act", Title: "Act:"},
		&cobra.Group{ID: "host", Title: "This host:"},
		&cobra.Group{ID: "cluster", Title: "Cluster (manager):"},
	)
	a.addVerbs(root)
	return root
}

// addVerbs hangs every command below root.
func (a *app) addVerbs(root *cobra.Command) {
	group := func(id string, commands ...*cobra.Command) {
		for _, cmd := range commands {
			cmd.GroupID = id
			root.AddCommand(cmd)
		}
	}
	group("see",
		a.statusCommand(), a.nodesCommand(), a.psCommand(), a.logsCommand(), a.agentsCommand(), a.incidentsCommand(), a.reportsCommand(),
		a.eventsCommand(), a.pathCommand(), a.pingCommand(), a.waitCommand(), a.healthCommand(), a.doctorCommand(), a.debugCommand(), a.versionCommand(), a.configCommand(), a.importCommand(), a.demoCommand())
	group("act",
		a.verbCommand("start", "Start services; waits and says the outcome", (*exec.Client).Start),
		a.verbCommand("stop", "Stop services on purpose", (*exec.Client).Stop),
		a.verbCommand("restart", "Stop and start services", (*exec.Client).Restart),
		a.maintenanceCommand(), a.observeCommand(), a.reloadCommand(), a.joinCommand())
	group("host", a.runCommand(), a.serviceCommand(), a.shutdownCommand(), a.leaveCommand(), a.upgradeCommand())
	group("host", a.trustCommand())
	group("cluster", a.openCommand(), a.pendingCommand(), a.approveCommand())
	group("cluster", a.tokenCommand(), a.promoteCommand(), a.demoteCommand(), a.forgetCommand(), a.revokeCommand(), a.manageCommand())
	root.AddCommand(a.demoWebCommand(), a.doorCommand(), a.nodeCommand(), a.stateCheckCommand())
	for _, cmd := range root.Commands() {
		a.addCompletion(cmd)
	}
	root.SetCompletionCommandGroupID("see")
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		strict(cmd)
	}
}
