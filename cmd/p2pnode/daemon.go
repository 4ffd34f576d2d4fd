package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"p2pnode"
	"p2pnode/exec"
	"p2pnode/manage/notify"
	"p2pnode/overlay/papers"
)

// daemonCommand is p2pnode without a verb: exec.
func (a *app) daemonCommand() *cobra.Command {
	o := &options{}
	var again bool
	cmd := &cobra.Command{
		Long: "p2pnode keeps the declared processes of this host alive, and those of its fleet.\n\nWithout a verb it runs in the foreground: alone, or with --join ADDR as a member of a cluster.",
		Args: noVerb,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.daemon(daemonStart{o: o, flags: cmd.Flags(), again: again})
		},
	}
	o.addFlags(cmd.Flags())
	addAgain(cmd.Flags(), &again)
	return cmd
}

// addAgain registers the flag with which a guard starts exec again: its own
// roles live and hold the ports, so those are not probed.
func addAgain(f *pflag.FlagSet, again *bool) {
	f.BoolVar(again, "again", false, "")
	f.MarkHidden("again")
}

// runCommand is `p2pnode run --service NAME -- CMD`: one service without a file.
func (a *app) runCommand() *cobra.Command {
	o := &options{}
	var again bool
	var service, cwd string
	cmd := &cobra.Command{
		Use: "run [flags] --service NAME -- CMD ARGS...", Short: "Keep one service alive, without a file",
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 0 || cmd.ArgsLenAtDash() != 0:
				return usage("no command after --, as in: p2pnode run --service web -- ./web --port 8080")
			case !p2pnode.ValidServiceName(service):
				return usage("--service is %q, should be a name of letters, digits, - and _", service)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if cwd == "" {
				var err error
				if cwd, err = os.Getwd(); err != nil {
					return err
				}
			}
			one := defaultSpec(service, cwd)
			one.Command, one.Ready = args, p2pnode.ReadyStarted
			self := []string{"run", "--service", service, "--cwd", cwd}
			return a.daemon(daemonStart{o: o, flags: cmd.Flags(), again: again, extra: &one, verb: self, tail: append([]string{"--"}, args...)})
		},
	}
	o.addFlags(cmd.Flags())
	addAgain(cmd.Flags(), &again)
	cmd.Flags().StringVar(&service, "service", "", "`NAME` of the service")
	cmd.Flags().StringVar(&cwd, "cwd", "", "folder in which it runs (default: this one)")
	return cmd
}

// daemonStart is what a person (or a guard) asked for.
type daemonStart struct {
	o     *options
	flags *pflag.FlagSet
	again bool
	began []settingDoc         // what the settings said
	extra *p2pnode.ServiceSpec // of `run`
	verb  []string             // argv that leads to this start again: before and
	tail  []string             // after the flags
}

// daemon is the exec role. Where another binary is to go on, this one's own work
// ends first.
func (a *app) daemon(s daemonStart) error {
	stop := false
	err := a.runExec(s, &stop)
	if next, ok := errors.AsType[*exec.Switch](err); ok {
		return next.Exec(stop)
	}
	return err
}

// runExec resolves what holds on this host, then hands over to package exec until a
// signal or a verb ends it; asked tells whether it was a signal.
func (a *app) runExec(s daemonStart, asked *bool) error {
	o := s.o
	if err := o.resolve(s.flags); err != nil {
		return err
	}
	s.began = o.settings(s.flags)
	services, err := s.services(o)
	if err != nil || a.trial {
		return err
	}
	dir, err := dataDir(a.data)
	if err != nil {
		return err
	}
	if err := makeDataDir(dir); err != nil {
		return err
	}
	if o.Ephemeral == "auto" {
		o.Ephemeral = map[bool]string{true: "yes", false: "no"}[passing(dir)]
	}
	if err := checkToken(dir, o.TokenFile); err != nil {
		return err
	}
	leash, err := openLeash(o.Leash)
	if err != nil {
		return err
	}
	stderr := newLossy(os.Stderr)
	defer stderr.Close()
	log := o.logger("exec", stderr)
	alive, _ := exec.ExecAlive(dir)
	chosen, notes, err := choosePorts(dir, o.Listen, o.Door, s.again || alive || nodeAlive(dir))
	if err != nil && chosen == (ports{}) {
		return err
	}
	if err != nil {
		log.Warn().Err(err).Msg("ports not kept on disk")
	}
	history, err := p2pnode.OpenHistory(o.History, o.Name, "exec")
	if err != nil {
		return fmt.Errorf("cannot open --history: %w", err)
	}
	defer history.Close()
	nameProcess("p2pnode")
	if !alive {
		a.greet(o, dir, chosen, notes)
		if err := notify.Save(dir, o.Notify); err != nil {
			log.Warn().Err(err).Msg("notify: nobody will be told")
		}
	}
	ctx, stop := daemonSignals(dir, log)
	defer func() {
		*asked = ctx.Err() != nil
		stop()
	}()
	stdout, flush := echo()
	defer flush()
	debug.SetGCPercent(50) // exec lives for ever and mostly sleeps: a megabyte less for a little of its CPU
	return exec.Run(ctx, exec.Config{
		Dir: dir, NodeName: o.Name, Version: versionDoc().Version, Built: built(), Services: services, Grace: o.Grace, ShutdownTimeout: o.ShutdownTimeout, Observe: o.Observe,
		Load:       func() (exec.Loaded, error) { return s.load(dir, log) },
		NodeArgv:   append([]string{"/proc/self/exe", "node"}, o.roleFlags(dir, chosen)...),
		DoorArgv:   append([]string{"/proc/self/exe", "door"}, o.roleFlags(dir, chosen)...),
		LaunchArgv: []string{"/proc/self/exe", launchVerb},
		SelfArgv:   s.selfArgv(dir, chosen),
		Supervised: o.Supervised, Leash: leash, Echo: stdout, RoleEcho: stderr, Log: log, History: history,
	})
}

// checkToken refuses a token file that cannot be used while it is still needed: a
// host that is a member already may have thrown it away.
func checkToken(dir, file string) error {
	if _, err := os.Stat(filepath.Join(dir, "cluster.json")); file == "" || err == nil {
		return nil
	}
	_, err := papers.ReadTokenFile(file)
	return err
}

// services are those of the file and the one of `run`.
func (s daemonStart) services(o *options) ([]p2pnode.ServiceSpec, error) {
	if s.extra == nil {
		return o.Services, nil
	}
	for _, have := range o.Services {
		if have.Name == s.extra.Name {
			return nil, usage("service %q is in %s too: give --service another name", have.Name, o.Config)
		}
	}
	return append(o.Services[:len(o.Services):len(o.Services)], *s.extra), nil
}

// load reads the file again, for reload. What the flags and variables said at
// the start still wins over it.
func (s daemonStart) load(dir string, log zerolog.Logger) (exec.Loaded, error) {
	fresh, flags := &options{}, pflag.NewFlagSet("reload", pflag.ContinueOnError)
	fresh.addFlags(flags)
	fresh.addData(flags)
	if s.o.Config != "" {
		if err := flags.Set("config", s.o.Config); err != nil {
			return exec.Loaded{}, err
		}
	}
	if err := fresh.resolve(flags); err != nil {
		return exec.Loaded{}, err
	}
	services, err := s.services(fresh)
	if err != nil {
		return exec.Loaded{}, err
	}
	if from := s.o.sources["observe"]; from == "flag" || from == "environment" {
		fresh.Observe = s.o.Observe
	}
	return exec.Loaded{Services: services, Grace: fresh.Grace, Observe: fresh.Observe, Later: s.later(fresh, flags), Applied: func() {
		if err := notify.Save(dir, fresh.Notify); err != nil {
			log.Warn().Err(err).Msg("notify: the sinks are as they were")
		}
	}}, nil
}

// later names the settings of the file that a reload does not apply and that are others
// than those with which p2pnode was started.
func (s daemonStart) later(fresh *options, flags *pflag.FlagSet) (out []string) {
	for _, now := range fresh.settings(flags) {
		i := slices.IndexFunc(s.began, func(was settingDoc) bool { return was.Name == now.Name })
		applied := now.Name == "observe" || strings.HasPrefix(now.Name, "grace.")
		if i < 0 || applied || s.began[i].Value == now.Value {
			continue
		}
		if from := s.began[i].Source; from != "flag" && from != "environment" {
			out = append(out, now.Name)
		}
	}
	return out
}

// roleFlags tells door and node what holds, flag by flag: nothing is read twice,
// and ps shows it.
func (o *options) roleFlags(dir string, p ports) []string {
	out := []string{"--data", dir, "--name", o.Name, "--listen", p.Listen, "--door", p.Door, "--log-level", o.LogLevel, "--log-format", o.LogFormat}
	add := func(flag string, values ...string) {
		for _, v := range values {
			if v != "" {
				out = append(out, "--"+flag, v)
			}
		}
	}
	add("join", o.Join...)
	add("advertise", o.Advertise...)
	add("deny-link", o.DenyLink...)
	add("token-file", o.TokenFile)
	add("history", o.History)
	add("metrics", o.Metrics)
	for _, k := range sortedKeys(o.Label) {
		add("label", k+"="+o.Label[k])
	}
	if o.Manager {
		out = append(out, "--manager")
	}
	if o.Ephemeral != "" {
		out = append(out, "--ephemeral", o.Ephemeral, "--forget-after", o.ForgetAfter.String())
	}
	return out
}

// selfArgv starts this exec again. Only what flags and variables said is in it:
// the file is read afresh.
func (s daemonStart) selfArgv(dir string, p ports) []string {
	only := *s.o
	said := func(flag string) bool { return s.o.sources[flag] == "flag" || s.o.sources[flag] == "environment" }
	for flag, clear := range map[string]func(){
		"join":       func() { only.Join = nil },
		"advertise":  func() { only.Advertise = nil },
		"deny-link":  func() { only.DenyLink = nil },
		"token-file": func() { only.TokenFile = "" },
		"history":    func() { only.History = "" },
		"metrics":    func() { only.Metrics = "" },
		"label":      func() { only.Label = nil },
		"manager":    func() { only.Manager = false },
		"ephemeral":  func() { only.Ephemeral = "" },
	} {
		if !said(flag) {
			clear()
		}
	}
	out := append([]string{"p2pnode"}, s.verb...)
	out = append(out, only.roleFlags(dir, p)...)
	out = append(out, "--again", "--supervised", s.o.Supervised)
	if s.o.Config != "" {
		out = append(out, "--config", s.o.Config)
	}
	if s.o.Observe && said("observe") {
		out = append(out, "--observe")
	}
	return append(out, s.tail...)
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

func (a *app) greet(o *options, dir string, p ports, notes []string) {
	fmt.Fprintf(a.stderr, "p2pnode: %s, listening on %s, door on %s, data in %s\n", o.Name, p.Listen, p.Door, dir)
	for _, n := range notes {
		fmt.Fprintf(a.stderr, "p2pnode: %s\n", n)
	}
	if o.Ephemeral == "yes" {
		fmt.Fprintf(a.stderr, "p2pnode: ephemeral: others forget this node when it has been gone for %v (--ephemeral no: they wait for it)\n", o.ForgetAfter)
	}
	if o.Observe {
		fmt.Fprintln(a.stderr, "p2pnode: observe only: it says what it would do and restarts nothing")
	}
}

// echo is where services' output is copied to: in a container what is not on
// the stdout of pid 1 is lost to its operator.
func echo() (to io.Writer, flush func()) {
	if os.Getpid() != 1 {
		return nil, func() {}
	}
	l := newLossy(os.Stdout)
	return l, l.Close
}

// nodeAlive reports whether a node process of dir serves its socket: then the
// ports are held by ourselves.
func nodeAlive(dir string) bool {
	conn, err := dialUnix(filepath.Join(dir, "run"), "node.sock")
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

func itoa(n int) string { return strconv.Itoa(n) }
