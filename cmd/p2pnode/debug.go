package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"p2pnode"
	"p2pnode/exec"
	"p2pnode/manage"
)

func (a *app) debugCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "debug", Short: "What somebody who helps you wants to see"}
	cmd.AddCommand(a.debugBundle())
	return cmd
}

// bundleDoc is `debug bundle -o json`.
type bundleDoc struct {
	Schema string       `json:"schema"`
	File   string       `json:"file"`
	Holds  []bundleFile `json:"holds"`
	Lacks  []string     `json:"lacks"` // what could not be had, and why
}

func (a *app) debugBundle() *cobra.Command {
	var config string
	cmd := &cobra.Command{
		Use: "bundle [FILE]", Short: "Put state, configuration, logs and processes of this host into FILE.tar.gz, secrets masked", Args: cobra.MaximumNArgs(1),
		Long: "Works also where all processes of p2pnode are dead. Keys, tokens and certificates are never in it, values of env: neither; what looks like a secret in logs and command lines is masked. Look at it before you give it away.",
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := clientDir(a.data)
			if err != nil {
				return err
			}
			now := time.Now()
			path := first(first(args...), fmt.Sprintf("p2pnode-debug-%s-%s.tar.gz", hostName(), now.UTC().Format("20060102-150405")))
			doc, err := writeBundle(cmd.Context(), dir, config, path, now)
			if err != nil {
				return err
			}
			return a.show(view{doc: doc, items: items(doc.Holds), names: []string{path}, print: func(p *printer) { printBundle(p, doc) }})
		},
	}
	cmd.Flags().StringVar(&config, "config", "", "configuration `FILE` (default: the one that p2pnode was started with)")
	return cmd
}

func printBundle(p *printer, doc bundleDoc) {
	p.line("%s holds, readable by you alone:", doc.File)
	folders := map[string]int{}
	var order []string
	for _, f := range doc.Holds {
		folder, _, ok := strings.Cut(f.Name, "/")
		if !ok {
			folder = f.Name
		}
		if folders[folder] == 0 {
			order = append(order, folder)
		}
		folders[folder]++
	}
	for _, folder := range order {
		p.fact(folder, "%s", count(folders[folder], "file")+about[folder])
	}
	for _, text := range doc.Lacks {
		p.line("not in it: %s", text)
	}
	p.line("look at it before you give it away: tar tzf %s", doc.File)
}

// about says what each folder of a bundle is.
var about = map[string]string{
	"about.json": ": versions, host, time", "state": ": what exec remembers, the audit log, the list of files", "config": ": what was declared, values of env masked",
	"logs": ": the end of each log, secrets masked", "proc": ": processes and the host as the kernel sees them", "live": ": what the daemon answered",
}

// writeBundle gathers all that can be had. Only a bundle that cannot be written is
// an error.
func writeBundle(ctx context.Context, dir, config, path string, now time.Time) (bundleDoc, error) {
	b, err := newBundle(path, now)
	if err != nil {
		return bundleDoc{}, err
	}
	b.about(dir)
	argv := b.state(dir)
	b.config(first(config, configOf(argv)))
	b.logs(dir)
	b.proc(dir)
	b.live(ctx, dir)
	doc := bundleDoc{Schema: p2pnode.Schema("debug-bundle"), File: path, Lacks: some(b.lacks)}
	if err := b.close(); err != nil {
		os.Remove(path)
		return doc, fmt.Errorf("cannot write %s: %w", path, bare(err))
	}
	doc.Holds = b.files
	return doc, nil
}

func (b *bundle) about(dir string) {
	var u unix.Utsname
	unix.Uname(&u)
	text := func(raw [65]byte) string { return unix.ByteSliceToString(raw[:]) }
	b.json("about.json", struct {
		Version p2pnode.VersionDoc `json:"version"`
		At      time.Time          `json:"at"`
		Host    string             `json:"host"`
		Kernel  string             `json:"kernel"`
		UID     int                `json:"uid"`
		Dir     string             `json:"data"`
		PID1    string             `json:"pid1"`
	}{versionDoc(), b.now, text(u.Nodename), text(u.Release) + " " + text(u.Version), os.Geteuid(), dir, strings.TrimSpace(readSome("/proc/1/comm", 64))})
}

// configOf is the configuration that p2pnode was started with.
func configOf(argv []string) string {
	for i, arg := range argv {
		if value, ok := strings.CutPrefix(arg, "--config="); ok {
			return value
		}
		if arg == "--config" && i+1 < len(argv) {
			return argv[i+1]
		}
	}
	return first(os.Getenv(envName("config")))
}

// config tells what was declared. A file that is wrong is told by its problems and
// not as it stands: nobody knows where its secrets are.
func (b *bundle) config(path string) {
	if path == "" {
		b.lack("config", errors.New("p2pnode was started without a file, or nobody knows with which: name it with --config"))
		return
	}
	o, flags, err := loadConfig(path)
	if err != nil {
		b.text("config/problems.txt", err.Error())
		return
	}
	doc := configDoc{Schema: p2pnode.Schema("config"), Services: o.Services, Settings: o.settings(flags)}
	for i := range doc.Services {
		s := &doc.Services[i]
		env := map[string]string{}
		for k := range s.Env {
			env[k] = "[masked]"
		}
		s.Env = env
		// A secret is known by the option before it: both stand in one line.
		s.Command = oneLine(s.Command)
		for i := range s.Before {
			s.Before[i] = oneLine(s.Before[i])
		}
		for _, c := range s.EachCheck {
			c.Exec = oneLine(c.Exec)
			if c.Send != "" {
				c.Send = "[masked]"
			}
		}
	}
	b.json("config/config.json", doc)
}

func oneLine(argv []string) []string {
	if len(argv) == 0 {
		return nil
	}
	return []string{strings.Join(argv, " ")}
}

// live asks the daemon, where there is one.
func (b *bundle) live(ctx context.Context, dir string) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	client, err := exec.Dial(ctx, dir, exec.RoleCLI)
	if err != nil {
		b.lack("live/exec", err)
	} else {
		defer client.Close()
		keep(b, "live/ps.json", func() (p2pnode.ExecStatus, error) { return client.Status(ctx) })
		keep(b, "live/usage.json", func() (map[string]p2pnode.Usage, error) { return client.Usage(ctx) })
	}
	node, err := manage.Dial(ctx, dir)
	if err != nil {
		b.lack("live/node", err)
		return
	}
	defer node.Close()
	keep(b, "live/status.json", func() (any, error) { return node.Status(ctx) })
	keep(b, "live/nodes.json", func() (any, error) { return node.Nodes(ctx) })
	keep(b, "live/agents.json", func() (any, error) { return node.Agents(ctx) })
}

func keep[T any](b *bundle, name string, ask func() (T, error)) {
	doc, err := ask()
	if err != nil {
		b.lack(name, err)
		return
	}
	b.json(name, doc)
}

// guardOf is the part of run/guard.json that tells how p2pnode was started.
func guardOf(raw []byte) []string {
	var g struct {
		Argv []string `json:"argv"`
	}
	json.Unmarshal(raw, &g) // a damaged one tells nothing
	return g.Argv
}

// recordedPIDs are the processes that exec's records name.
func recordedPIDs(dir string) (out []int) {
	records, _ := filepath.Glob(filepath.Join(dir, "exec", "services", "*.json"))
	for _, path := range records {
		var rec struct {
			PID int `json:"pid"`
		}
		if json.Unmarshal([]byte(readSome(path, maxState)), &rec) == nil && rec.PID > 0 {
			out = append(out, rec.PID)
		}
	}
	return out
}
