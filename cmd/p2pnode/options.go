package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v4"

	"p2pnode"
	"p2pnode/manage"
	"p2pnode/manage/notify"
	"p2pnode/overlay/discover"
	"p2pnode/overlay/keeper"
)

// options is all that a daemon can be told. Everything that is a flag is also a
// variable (P2PNODE_LOG_LEVEL) and a key of the file (log_level); the flag wins
// over the variable, the variable over the file, the file over the default.
type options struct {
	Join      []string
	Data      string // only where no command has --data itself: see addData
	Listen    string
	Door      string
	Advertise []string
	Config    string
	Name      string
	Label     map[string]string
	TokenFile string
	Manager   bool
	Observe   bool

	Supervised  string
	Ephemeral   string
	ForgetAfter time.Duration
	DenyLink    []string
	History     string
	Metrics     string
	Leash       int
	LogLevel    string
	LogFormat   string

	// The rest is said in the file only.
	Grace           p2pnode.Grace
	ShutdownTimeout time.Duration
	Services        []p2pnode.ServiceSpec
	Notify          []notify.Sink

	sources map[string]string // flag name -> flag | environment | file | default
}

const (
	defaultPort            = 7744
	defaultShutdownTimeout = 8 * time.Second
	envPrefix              = "P2PNODE_"

	// Below that an ephemeral node's own renewals could be late under load; above it
	// every node is forgotten.
	minForgetAfter = 10 * time.Second
	maxForgetAfter = 24 * time.Hour
)

// addFlags registers every daemon flag on f. --data is the root command's, since
// clients have it too.
func (o *options) addFlags(f *pflag.FlagSet) {
	f.StringSliceVar(&o.Join, "join", nil, "join the cluster of the node at `ADDR` (host, host:port, multiaddr, DNS name); retried for ever")
	f.StringVar(&o.Listen, "listen", fmt.Sprintf("0.0.0.0:%d", defaultPort), "`HOST:PORT` of the node: TCP for nodes, UDP for gossip; port 0 picks a free one and keeps it")
	f.StringVar(&o.Door, "door", "", "`HOST:PORT` of the door (default: --listen's host, next port)")
	f.StringSliceVar(&o.Advertise, "advertise", nil, "tell others this `HOST:PORT` of mapped ports")
	f.StringVar(&o.Config, "config", "", "read `FILE` (p2pnode.yaml)")
	f.StringVar(&o.Name, "name", "", "`NAME` of this node (default: the host's)")
	f.StringToStringVar(&o.Label, "label", nil, "a label of this node, `K=V`")
	f.StringVar(&o.TokenFile, "token-file", "", "admission token in `FILE`")
	f.BoolVar(&o.Manager, "manager", false, "use this node's manager certificate once it has one")
	f.BoolVar(&o.Observe, "observe", false, "say what would be done, restart nothing")
	f.StringVar(&o.Supervised, "supervised", "auto", "an init system restarts p2pnode: `auto|yes|no`")
	f.StringVar(&o.Ephemeral, "ephemeral", "auto", "this node's identity ends with its container or its memory, nobody waits for it: `auto|yes|no` (auto: a container without a volume for its data)")
	f.DurationVar(&o.ForgetAfter, "forget-after", time.Hour, "others forget this node, if it is ephemeral, when it has been gone for `TIME`")
	f.StringSliceVar(&o.DenyLink, "deny-link", nil, "no link to or from this `NODE|ADDR`")
	f.StringVar(&o.History, "history", "", "append what happens as JSON lines to `FILE`")
	f.StringVar(&o.Metrics, "metrics", "", "also answer Prometheus' /metrics on this loopback `HOST:PORT`")
	f.IntVar(&o.Leash, "leash", 0, "end everything when this descriptor `FD` is closed at its other end")
	f.StringVar(&o.LogLevel, "log-level", "info", "`LEVEL`: debug, info, warn, error")
	f.StringVar(&o.LogFormat, "log-format", "text", "`FORMAT`: text or json")
}

// addData adds --data to a flag set that no command owns, so that the key
// `data:` is known there too.
func (o *options) addData(f *pflag.FlagSet) { f.StringVar(&o.Data, "data", "", "data folder `DIR`") }

// keys of the file that are not spelled like their flag.
var fileKeys = map[string]string{"label": "labels"}

// notInFile are flags that make no sense as a key: the file's own path, a
// descriptor number, how a client prints, and what belongs to one start.
var notInFile = map[string]bool{"config": true, "leash": true, "help": true, "output": true, "service": true, "cwd": true, "again": true}

func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func fileKey(flag string) string {
	if k, ok := fileKeys[flag]; ok {
		return k
	}
	return strings.ReplaceAll(flag, "-", "_")
}

// resolve fills o from the variables and the file wherever f's flags say
// nothing, and validates what came out.
func (o *options) resolve(f *pflag.FlagSet) error {
	o.sources = map[string]string{}
	o.Grace, o.ShutdownTimeout = p2pnode.DefaultGrace(), defaultShutdownTimeout
	var failed error
	f.VisitAll(func(flag *pflag.Flag) {
		o.sources[flag.Name] = "default"
		if flag.Changed {
			o.sources[flag.Name] = "flag"
			return
		}
		value, ok := os.LookupEnv(envName(flag.Name))
		if !ok || flag.Name == "help" || value == "" {
			return
		}
		if err := flag.Value.Set(value); err != nil && failed == nil {
			failed = usage("%s is %q: %v", envName(flag.Name), value, err)
		}
		o.sources[flag.Name] = "environment"
	})
	if failed != nil {
		return failed
	}
	if o.Config != "" {
		if err := o.readFile(f); err != nil {
			return err
		}
	}
	return o.validate()
}

func (o *options) readFile(f *pflag.FlagSet) error {
	r, top, err := parseYAML(o.Config)
	if err != nil || top == nil {
		return err
	}
	known := map[string]func(*yaml.Node){
		"grace": func(n *yaml.Node) {
			r.fields(n, "grace", map[string]func(*yaml.Node){
				"agent":     r.duration("grace: agent", &o.Grace.Agent, 0),
				"node":      r.duration("grace: node", &o.Grace.Node, 0),
				"node_stop": r.duration("grace: node_stop", &o.Grace.NodeStop, 0),
			})
		},
		"shutdown_timeout": r.duration("shutdown_timeout", &o.ShutdownTimeout, 100*time.Millisecond),
		"services":         func(n *yaml.Node) { o.Services = r.services(n) },
		"notify":           func(n *yaml.Node) { o.Notify = r.sinks(n) },
	}
	f.VisitAll(func(flag *pflag.Flag) {
		if !notInFile[flag.Name] {
			known[fileKey(flag.Name)] = func(n *yaml.Node) { o.fromFile(r, flag, n) }
		}
	})
	r.fields(top, "the file", known)
	return r.err()
}

// fromFile sets flag to what the file says, unless something stronger spoke.
func (o *options) fromFile(r *reader, flag *pflag.Flag, n *yaml.Node) {
	key := fileKey(flag.Name)
	values := fileValues(r, flag, n)
	if values == nil || o.sources[flag.Name] != "default" {
		return
	}
	var err error
	if list, ok := flag.Value.(pflag.SliceValue); ok {
		err = list.Replace(values)
	} else {
		err = flag.Value.Set(strings.Join(values, ","))
	}
	if err != nil {
		r.bad(n, "%s: %v", key, err)
	}
	o.sources[flag.Name] = "file"
}

func fileValues(r *reader, flag *pflag.Flag, n *yaml.Node) []string {
	key := fileKey(flag.Name)
	if _, list := flag.Value.(pflag.SliceValue); list {
		var out []string
		r.texts(key, &out)(n)
		return out
	}
	if flag.Value.Type() == "stringToString" {
		var m map[string]string
		r.pairs(key, &m)(n)
		out := []string{}
		for k, v := range m {
			out = append(out, k+"="+v)
		}
		return out
	}
	var s string
	r.text(key, &s)(n)
	if flag.Name == "token-file" || flag.Name == "history" || flag.Name == "data" {
		r.folder(key, &s)(n)
	}
	return []string{s}
}

func (o *options) validate() error {
	switch {
	case !oneOf(o.Supervised, "auto", "yes", "no"):
		return usage("--supervised is %q, should be auto, yes or no", o.Supervised)
	case !oneOf(o.Ephemeral, "auto", "yes", "no"):
		return usage("--ephemeral is %q, should be auto, yes or no", o.Ephemeral)
	case o.ForgetAfter < minForgetAfter || o.ForgetAfter > maxForgetAfter:
		return usage("--forget-after is %v, should be between %v and %v", o.ForgetAfter, minForgetAfter, maxForgetAfter)
	case !oneOf(o.LogLevel, "debug", "info", "warn", "error"):
		return usage("--log-level is %q, should be debug, info, warn or error", o.LogLevel)
	case !oneOf(o.LogFormat, "text", "json"):
		return usage("--log-format is %q, should be text or json", o.LogFormat)
	case o.Name != "" && !p2pnode.ValidNodeName(o.Name):
		return usage("--name is %q: letters, digits, dot, - and _ only, at most 63", o.Name)
	}
	if host, port, err := net.SplitHostPort(o.Metrics); o.Metrics != "" && (err != nil || port == "" || !manage.IsLoopback(host)) {
		return usage("--metrics is %q, should be a loopback address like 127.0.0.1:9744: whoever reaches it may read", o.Metrics)
	}
	for _, j := range o.Join {
		if _, err := discover.ParseJoin(j); err != nil {
			return err
		}
	}
	if _, err := keeper.NewDeny(o.DenyLink); err != nil {
		return err
	}
	for k := range o.Label {
		if k == "" {
			return usage("a label has no name: say K=V")
		}
	}
	for _, path := range []*string{&o.TokenFile, &o.History, &o.Config} {
		if *path == "" {
			continue
		}
		abs, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = abs
	}
	if o.Name == "" {
		o.Name = hostName()
	}
	return nil
}

func oneOf(s string, allowed ...string) bool {
	return slices.Contains(allowed, s)
}

func hostName() string {
	name, err := os.Hostname()
	if short, _, ok := strings.Cut(name, "."); ok {
		name = short
	}
	if err != nil || !p2pnode.ValidNodeName(name) {
		return "node"
	}
	return name
}
