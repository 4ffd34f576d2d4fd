package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"p2pnode"
	"p2pnode/exec"
)

// defaultConfig is the file that the config verbs mean when none is named.
const defaultConfig = "p2pnode.yaml"

// configDoc is `config show -o json`.
type configDoc struct {
	Schema   string                `json:"schema"`
	Settings []settingDoc          `json:"settings"`
	Services []p2pnode.ServiceSpec `json:"services,omitempty"`
}

type settingDoc struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Source string `json:"source"` // flag | environment | file | default
}

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Check, show or begin a configuration file"}
	var file string
	cmd.PersistentFlags().StringVar(&file, "config", "", "`FILE` in place of the argument")
	cmd.AddCommand(a.configCheck(&file), a.configShow(&file), a.configInit(&file), a.configSchema())
	return cmd
}

func (a *app) configCheck(file *string) *cobra.Command {
	return &cobra.Command{
		Use: "check [FILE]", Short: "Say what is wrong with FILE (p2pnode.yaml), with line numbers", Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			o, _, err := loadConfig(configPath(args, *file))
			if err != nil {
				return err
			}
			doc := struct {
				Schema   string   `json:"schema"`
				OK       bool     `json:"ok"`
				File     string   `json:"file"`
				Services []string `json:"services"`
				Warnings []string `json:"warnings,omitempty"`
			}{p2pnode.Schema("config-check"), true, o.Config, serviceNames(o.Services), o.warnings(a.host)}
			return a.show(view{doc: doc, names: doc.Services, print: func(p *printer) {
				p.line("%s is fine: %s", o.Config, count(len(o.Services), "service"))
				for _, w := range doc.Warnings {
					p.line("%s %s", p.paint(cell{"warning:", unsure}), w)
				}
			}})
		},
	}
}

// warnings are what the file says and will not have: limits that this host, whose root
// folder is host, cannot hold, while another one may; a time to stop that a shutdown does
// not leave; and logs that may be larger than their disk.
func (o *options) warnings(host string) (out []string) {
	for _, s := range o.Services {
		for _, key := range exec.Unheld(host, s) {
			out = append(out, fmt.Sprintf("service %s: limits: %s: no cgroup of this host holds it, so it is not started here", s.Name, key))
		}
		// The default is longer too, and nobody's wish.
		if has := exec.ServiceTime(o.ShutdownTimeout); s.StopTimeout != p2pnode.DefaultStopTimeout && s.StopTimeout > has {
			out = append(out, fmt.Sprintf("service %s: stop: timeout: it is %s, and when p2pnode or the host ends a service has %s at most (shutdown_timeout: %s, for all together)", s.Name, s.StopTimeout, has, o.ShutdownTimeout))
		}
	}
	if dir, err := dataDir(o.Data); err == nil {
		out = append(out, tooMuchLog(o.Services, dir)...)
	}
	return out
}

// configPath is the file that is meant: the argument, --config, the variable, or
// the one in this folder.
func configPath(args []string, flag string) string {
	return first(first(args...), flag, os.Getenv(envName("config")), defaultConfig)
}

// loadConfig resolves the options as a daemon with this file would.
func loadConfig(path string) (*options, *pflag.FlagSet, error) {
	o, flags := &options{}, pflag.NewFlagSet("config", pflag.ContinueOnError)
	o.addFlags(flags)
	o.addData(flags)
	if path != "" {
		if err := flags.Set("config", path); err != nil {
			return nil, nil, err
		}
	}
	return o, flags, o.resolve(flags)
}

func serviceNames(specs []p2pnode.ServiceSpec) []string {
	out := make([]string, len(specs))
	for i, s := range specs {
		out[i] = s.Name
	}
	return out
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (a *app) configShow(file *string) *cobra.Command {
	return &cobra.Command{
		Use: "show [FILE]", Short: "What would hold with FILE, and where each setting comes from", Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			path := configPath(args, *file)
			if _, err := os.Stat(path); path == defaultConfig && errors.Is(err, fs.ErrNotExist) {
				path = "" // nobody named one: what flags, variables and defaults say
			}
			o, flags, err := loadConfig(path)
			if err != nil {
				return err
			}
			doc := configDoc{Schema: p2pnode.Schema("config"), Services: o.Services, Settings: o.settings(flags)}
			return a.show(view{doc: doc, names: serviceNames(o.Services), print: func(p *printer) { printConfig(p, doc) }})
		},
	}
}

// settings lists every setting with its value and source. The file's own three
// come last.
func (o *options) settings(flags *pflag.FlagSet) []settingDoc {
	var out []settingDoc
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Name != "leash" {
			out = append(out, settingDoc{fileKey(f.Name), strings.Trim(f.Value.String(), "[]"), o.sources[f.Name]})
		}
	})
	source := func(changed bool) string {
		if changed {
			return "file"
		}
		return "default"
	}
	d := p2pnode.DefaultGrace()
	return append(out,
		settingDoc{"grace.agent", o.Grace.Agent.String(), source(o.Grace.Agent != d.Agent)},
		settingDoc{"grace.node", o.Grace.Node.String(), source(o.Grace.Node != d.Node)},
		settingDoc{"grace.node_stop", o.Grace.NodeStop.String(), source(o.Grace.NodeStop != d.NodeStop)},
		settingDoc{"shutdown_timeout", o.ShutdownTimeout.String(), source(o.ShutdownTimeout != defaultShutdownTimeout)})
}

func printConfig(p *printer, doc configDoc) {
	var rows [][]cell
	for _, s := range doc.Settings {
		rows = append(rows, []cell{c(s.Name), c(s.Value), {s.Source, faint}})
	}
	p.table([]string{"setting", "value", "from"}, rows)
	if len(doc.Services) == 0 {
		return
	}
	p.line("")
	rows = nil
	for _, s := range doc.Services {
		rows = append(rows, []cell{c(s.Name), c(strings.Join(s.Command, " ")), c(string(s.Ready)), c(string(s.Recover)), c(strings.Join(s.Order(), ","))})
	}
	p.table([]string{"service", "command", "ready", "recover", "after"}, rows)
}

// sampleConfig is what `config init` writes: it is valid as it stands.
const sampleConfig = `# yaml-language-server: $schema=p2pnode.schema.json
# The line above has an editor complete and check the keys of this file, once
# the schema is beside it: p2pnode config schema > p2pnode.schema.json
#
# p2pnode.yaml: what runs on this host. Check it with: p2pnode config check
# Start it with: p2pnode --config p2pnode.yaml

# join: [kestrel.lan]            # any node of the cluster; without it this host founds one
# labels: {site: home}

# notify:                        # this host tells what happens in the whole fleet
#   - {run: [/usr/local/bin/page], on: [opened, recovered, failed, brake, degraded]}
#   - {webhook: "https://..."}

services:
  hello:
    shell: "while :; do date; sleep 10; done"
    # command: [./web, --port, "8080"]                # instead of shell: no shell in between
    # check: {http: "http://127.0.0.1:8080/"}         # or tcp: ADDR | grpc: ADDR | unix: PATH | exec: [...] | file: PATH
    # checks: {start: {tcp: ADDR}, ready: {http: URL}, live: {http: URL}}   # instead of check: each for itself
    # cwd: /srv/web                                   # else this file's folder
    # env: {MODE: prod}
    # env_file: web.env                               # KEY=VALUE lines, read at each start
    # before: [./migrate, --once]                     # must end well before each start
    # user: www                                       # wants root; group: GROUP, new_privileges: false
    # limits: {nofile: 65536, core: 0, memory: 2G}
    # umask: 027
    # nice: 5
    # oom_score: 500
    # labels: {tier: web}
    # after: [db]                                     # start once db is ready
    # requires: [db]                                  # that too, and begin anew whenever db does
    # replicas: 1                                     # web.1, web.2 ...; {i} in its texts is the number
    # start: auto                                     # auto | manual
    # start_within: 60s                               # no failed check counts before this or the first success
    # ready: check                                    # check | notify | started
    # watchdog: 1s                                    # it says sd_notify WATCHDOG=1 at least this often
    # restart: always                                 # always | on-failure | no
    # recover: agent                                  # agent | local | off (watch and report only)
    # stop_grace: 5s                                  # a SIGSTOP that lasts longer is a failure
    # hang_dump: false                                # a hung Go program prints its stacks (SIGQUIT) before it is killed
    # stop: {signal: TERM, timeout: 10s}
    # log_file: /var/log/web.log                      # where the program logs by itself
    # log: file                                       # its output goes there too, or to logs/web.out (default: capture)
    # log: {size: 8M, keep: 1}                        # rotated at this size, and so many rotated files are kept
`

func (a *app) configInit(file *string) *cobra.Command {
	return &cobra.Command{
		Use: "init [FILE]", Short: "Write a first configuration to FILE (p2pnode.yaml)", Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			path := configPath(args, *file)
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
			if errors.Is(err, fs.ErrExist) {
				return &p2pnode.Error{Code: "exists", Text: fmt.Sprintf("%s is there already and was left as it is", path), Fix: "name another file: p2pnode config init FILE"}
			}
			if err != nil {
				return fmt.Errorf("cannot write %s: %w", path, bare(err))
			}
			_, err = f.WriteString(sampleConfig)
			if err := errors.Join(err, f.Close()); err != nil {
				return fmt.Errorf("cannot write %s: %w", path, err)
			}
			doc := struct {
				Schema string `json:"schema"`
				File   string `json:"file"`
			}{p2pnode.Schema("config-init"), path}
			return a.show(view{doc: doc, names: []string{path}, print: func(p *printer) {
				p.line("wrote %s; next: p2pnode --config %s", path, path)
			}})
		},
	}
}
