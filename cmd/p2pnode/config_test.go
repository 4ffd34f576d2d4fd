package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"p2pnode"
)

// resolve is what a daemon would make of args and a file.
func resolve(t *testing.T, file string, args ...string) (*options, error) {
	t.Helper()
	o, flags := &options{}, pflag.NewFlagSet("test", pflag.ContinueOnError)
	o.addFlags(flags)
	o.addData(flags)
	if file != "" {
		path := filepath.Join(t.TempDir(), "p2pnode.yaml")
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", path)
	}
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return o, o.resolve(flags)
}

func TestPrecedence(t *testing.T) {
	const file = "log_level: error\nname: fromfile\njoin: [a, 'b:1']\nlabels: {site: home}\ndeny_link: x\n"
	t.Setenv("P2PNODE_LOG_LEVEL", "warn")
	t.Setenv("P2PNODE_NAME", "fromenv")
	t.Setenv("P2PNODE_JOIN", "c,d")
	o, err := resolve(t, file, "--name", "fromflag")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ what, got, want, source string }{
		{"name", o.Name, "fromflag", "flag"},
		{"log-level", o.LogLevel, "warn", "environment"},
		{"join", strings.Join(o.Join, " "), "c d", "environment"},
		{"label", o.Label["site"], "home", "file"},
		{"deny-link", strings.Join(o.DenyLink, " "), "x", "file"},
		{"listen", o.Listen, "0.0.0.0:7744", "default"},
	} {
		if c.got != c.want || o.sources[c.what] != c.source {
			t.Errorf("%s = %q from %s, want %q from %s", c.what, c.got, o.sources[c.what], c.want, c.source)
		}
	}
	if o.Grace != p2pnode.DefaultGrace() || o.ShutdownTimeout != 8*time.Second {
		t.Errorf("defaults: grace %v, shutdown %v", o.Grace, o.ShutdownTimeout)
	}
}

func TestServices(t *testing.T) {
	o, err := resolve(t, `
grace: {agent: 60s, node: 2s}
services:
  db:
    shell: "exec postgres"
    replicas: 2
  cache:
    shell: "exec redis"
    replicas: 2
  web:
    command: [./web, --port, 8080]
    check: {http: "http://127.0.0.1:8080/", every: 200ms}
    cwd: site
    env: {MODE: prod, N: 3}
    after: [db]
    requires: [cache]
    recover: local
    watchdog: 300ms
    stop_grace: 0s
    stop: {signal: sigint, timeout: 3s}
`)
	if err != nil {
		t.Fatal(err)
	}
	if o.Grace != (p2pnode.Grace{Agent: time.Minute, Node: 2 * time.Second, NodeStop: 10 * time.Second}) {
		t.Errorf("grace %+v", o.Grace)
	}
	if got := serviceNames(o.Services); !slices.Equal(got, []string{"db.1", "db.2", "cache.1", "cache.2", "web"}) {
		t.Fatalf("services %v", got)
	}
	db, web := o.Services[0], o.Services[4]
	if !slices.Equal(db.Command, []string{"/bin/sh", "-c", "exec postgres"}) || db.Ready != p2pnode.ReadyStarted ||
		db.StopGrace != 5*time.Second || db.StopSignal != "TERM" || db.StopTimeout != 10*time.Second ||
		db.StartWithin != time.Minute || db.Restart != p2pnode.RestartAlways || db.Recover != p2pnode.RecoverAgent {
		t.Errorf("db: %+v", db)
	}
	if !slices.Equal(web.Command, []string{"./web", "--port", "8080"}) || web.Ready != p2pnode.ReadyCheck ||
		!slices.Equal(web.After, []string{"db.1", "db.2"}) || !slices.Equal(web.Requires, []string{"cache.1", "cache.2"}) || web.Env["N"] != "3" || web.Recover != p2pnode.RecoverLocal ||
		web.StopGrace != 0 || web.StopSignal != "INT" || web.StopTimeout != 3*time.Second || web.Watchdog != 300*time.Millisecond {
		t.Errorf("web: %+v", web)
	}
	if filepath.Base(web.Cwd) != "site" || !filepath.IsAbs(web.Cwd) {
		t.Errorf("cwd %q should be below the file's folder", web.Cwd)
	}
	if c := web.Check; c.Every != 200*time.Millisecond || c.Timeout != time.Second || c.Failures != 3 {
		t.Errorf("check %+v", c)
	}
}

// Each of the three is a check like the one for all, with its own defaults, folders and
// replica's number.
func TestChecksApart(t *testing.T) {
	o, err := resolve(t, `
services:
  api:
    shell: x
    replicas: 2
    checks:
      start: {tcp: "127.0.0.1:808{i}", every: 200ms}
      ready: {unix: "run/api.{i}.sock", jitter: 0s, successes: 2}
      live: {http: "http://127.0.0.1:808{i}/healthz", every: 5s, jitter: 1s}
  web: {shell: x, after: [api], ready: notify, checks: {live: {file: alive}}}
`)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range o.Services[:2] {
		n := fmt.Sprint(i + 1)
		c := s.Checks
		if c.Start.TCP != "127.0.0.1:808"+n || c.Live.HTTP != "http://127.0.0.1:808"+n+"/healthz" || !filepath.IsAbs(c.Ready.Unix) || filepath.Base(c.Ready.Unix) != "api."+n+".sock" {
			t.Errorf("%s asks %+v, %+v, %+v", s.Name, c.Start, c.Ready, c.Live)
		}
		if c.Start.Jitter != 20*time.Millisecond || c.Ready.Jitter != 0 || c.Live.Jitter != time.Second || c.Live.Every != 5*time.Second || c.Ready.Good != 2 || c.Start.Failures != 3 || s.Ready != p2pnode.ReadyCheck {
			t.Errorf("%s asks %+v, %+v, %+v", s.Name, c.Start, c.Ready, c.Live)
		}
	}
	if web := o.Services[2]; web.Ready != p2pnode.ReadyNotify || web.Checks.Start != nil || web.Checks.Live.Newer != 10*time.Second {
		t.Errorf("web: %+v", web.Checks.Live)
	}
}

func TestBadConfig(t *testing.T) {
	for _, c := range []struct{ file, want string }{
		{"services:\n  web:\n    comand: [a]\n", `p2pnode.yaml:3: unknown key "comand" in service web, did you mean "command"?`},
		{"servces: {}\n", `:1: unknown key "servces" in the file, did you mean "services"?`},
		{"a: b: c\n", "p2pnode.yaml:1: "},
		{"services:\n  web: {}\n", `:2: service web has no command`},
		{"services:\n  web: {command: ./web --x}\n", `should be a list like [./web, --x]`},
		{"services:\n  web: {command: [a], shell: b}\n", `both command and shell`},
		{"services:\n  'we b': {shell: b}\n", `:2: service name "we b"`},
		{"services:\n  a: {shell: x, after: [b]}\n  b: {shell: x, after: [a]}\n", "wait for each other: a after b after a"},
		{"services:\n  a: {shell: x, requires: [wep]}\n  web: {shell: x}\n", `requires names the unknown service "wep", did you mean "web"?`},
		{"services:\n  a: {shell: x, requires: [b]}\n  b: {shell: x, after: [a]}\n", `wait for each other`},
		{"services:\n  a: {shell: x, after: [wep]}\n  web: {shell: x}\n", `unknown service "wep", did you mean "web"?`},
		{"services:\n  a: {shell: x, stop_grace: 5}\n", "say the unit, 5s or 5ms"},
		{"services:\n  a: {shell: x, recover: agents}\n", `should be one of agent, local, off (did you mean "agent"?)`},
		{"services:\n  a: {shell: x, check: {http: nonsense}}\n", "should be a URL"},
		{"services:\n  a: {shell: x, check: {tcp: 'h:1', unix: /x}}\n", "exactly one of http, tcp, exec, unix, grpc, file"},
		{"services:\n  a: {shell: x, ready: check}\n", "ready: check needs a check"},
		{"services:\n  a: {shell: x, check: {tcp: 'h:1'}, checks: {live: {tcp: 'h:1'}}}\n", ":2: service a has both check and checks: keep check, "},
		{"services:\n  a:\n    shell: x\n    checks: {}\n", ":4: service a: checks asks nothing: add start, ready or live"},
		{"services:\n  a: {shell: x, checks: {live: }}\n", "checks asks nothing"},
		{"services:\n  a: {shell: x, checks: {redy: {tcp: 'h:1'}}}\n", `unknown key "redy" in service a: checks, did you mean "ready"?`},
		{"services:\n  a: {shell: x, checks: {live: {tpc: 'h:1'}}}\n", `unknown key "tpc" in service a: checks: live, did you mean "tcp"?`},
		{"services:\n  a: {shell: x, checks: {live: {}}}\n", "service a: checks: live should have exactly one of http"},
		{"services:\n  a: {shell: x, checks: {live: {tcp: 'h:1', on_failure: unready}}}\n", "service a: checks: live: on_failure belongs to check: of checks, ready makes it unready"},
		{"services:\n  a: {shell: x, ready: notify, checks: {ready: {tcp: 'h:1'}}}\n", "both ready: notify and a check that says when it is ready"},
		{"services:\n  a: {shell: x, check: {tcp: 'h:1', jitter: 2s}}\n", "jitter is 2s, should be at most every, which is 1s"},
		{"services:\n  a: {shell: x, check: {tcp: 'h:1', jitter: 0.1}}\n", "say the unit"},
		{"services:\n  a: {shell: x}\n  a: {shell: y}\n", "there twice"},
		{"services:\n  a: {shell: x, limits: {nofile: 64K}}\n", `nofile is "64K", should be a number or unlimited`},
		{"services:\n  a: {shell: x, limits: {memory: lots}}\n", `memory is "lots", should be bytes like 512M or 2G`},
		{"services:\n  a: {shell: x, limits: {cpu: 50%}}\n", `cpu is "50%", should be cores like 0.5, 0.01 or more, or unlimited`},
		{"services:\n  a: {shell: x, limits: {cpu: 0.005}}\n", `cpu is "0.005": the kernel knows no quota below 1 ms, which is 0.01 cores`},
		{"services:\n  a: {shell: x, limits: {cpu: 0}}\n", `cpu is "0", should be cores like 0.5, 0.01 or more, or unlimited`},
		{"services:\n  a: {shell: x, limits: {memry: 1G}}\n", `did you mean "memory"`},
		{"services:\n  a: {shell: x, log: fil}\n", `did you mean "file"?`},
		{"services:\n  a: {shell: x, log: [file]}\n", "should be one of capture, file"},
		{"services:\n  a: {shell: x, log: {sise: 1M}}\n", `unknown key "sise" in service a: log, did you mean "size"?`},
		{"services:\n  a: {shell: x, log: {to: fil}}\n", `service a: log: to is "fil", should be one of capture, file (did you mean "file"?)`},
		{"services:\n  a: {shell: x, log: {size: much}}\n", `service a: log: size is "much", should be bytes like 512M or 2G`},
		{"services:\n  a: {shell: x, log: {size: 64K}}\n", `service a: log: size is "64K", should be 1 MiB or more: that much may come at once`},
		{"services:\n  a: {shell: x, log: {size: unlimited}}\n", `size is "unlimited", should be 64 GiB or less, since a log must not fill its disk: keep: says how many files of it there may be`},
		{"services:\n  a: {shell: x, log: {keep: 0}}\n", "service a: log: keep is 0, should be 1 or more: what was printed just before a file was full is in the one before"},
		{"services:\n  a: {shell: x, log: {keep: 101}}\n", `log: keep is "101", should be a number from 1 to 100`},
		{"services:\n  a: {shell: x, log: {to: file, keep: 2}, log_file: /var/log/a}\n", "log: size and keep are for files that p2pnode rotates, and /var/log/a is not one: rotate it yourself, or leave log_file out"},
		{"services:\n  a: {shell: x, umask: 89}\n", "should be octal like 022"},
		{"services:\n  a: {shell: x, nice: 20}\n", "a number from -20 to 19"},
		{"services:\n  a: {shell: x, oom_score: -1001}\n", "a number from -1000 to 1000"},
		{"services:\n  a: {shell: x, before: ./migrate --once}\n", "should be a list like [./migrate, --once]"},
		{"services:\n  a: {shell: x, before: [[a], []]}\n", "before is empty"},
		{"services:\n  a: {shell: x, new_privileges: perhaps}\n", "should be true or false"},
		{"services:\n  a: {shell: x, check: {http: 'http://x/', status: 2xx}}\n", `status is "2xx", should be like 204 or 200-299`},
		{"services:\n  a: {shell: x, check: {tcp: 'h:1', body: x}}\n", "status and body belong to http"},
		{"services:\n  a: {shell: x, check: {grpc: h}}\n", `grpc is "h", should be HOST:PORT`},
		{"services:\n  a: {shell: x, check: {file: h, on_failure: kill}}\n", "should be one of restart, unready"},
		{"services: [a]\n", "services should be a mapping"},
		{"log_level: loud\n", "--log-level is \"loud\""},
		{"name: 'a/b'\n", "--name is"},
		{"observe: perhaps\n", "observe"},
		{"leash: 3\n", `unknown key "leash"`},
		{"shutdown_timeout: 1ms\n", "at least 100ms"},
		{"notify: {run: [a]}\n", "notify should be a list"},
		{"notify:\n  - {run: [a], webhook: 'http://x/'}\n", "p2pnode.yaml:2: notify: an entry should have run or webhook"},
		{"notify:\n  - {run: [a], on: [open]}\n", `on is "open", should be one of opened`},
		{"notify:\n  - {webhook: 'ftp://x/'}\n", "should be a URL"},
		{"notify:\n  - {webook: 'http://x/'}\n", `did you mean "webhook"`},
	} {
		_, err := resolve(t, c.file)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q\n got %v\nwant %s", c.file, err, c.want)
			continue
		}
		if p2pnode.ExitCode(err) != p2pnode.ExitUsage {
			t.Errorf("%q: exit %d", c.file, p2pnode.ExitCode(err))
		}
	}
}

func TestUnreadableConfig(t *testing.T) {
	for _, path := range []string{"/nonexistent/p2pnode.yaml", t.TempDir(), "/dev/zero"} {
		o, flags := &options{}, pflag.NewFlagSet("test", pflag.ContinueOnError)
		o.addFlags(flags)
		flags.Set("config", path)
		if err := o.resolve(flags); p2pnode.ExitCode(err) != p2pnode.ExitUsage || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestEmptyConfigIsFine(t *testing.T) {
	for _, file := range []string{"# nothing\n", "services:\n", "---\n"} {
		if o, err := resolve(t, file); err != nil || len(o.Services) != 0 {
			t.Errorf("%q: %v", file, err)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add("services:\n  web: {command: [a], check: {http: 'http://x/'}, stop: {signal: HUP}}\n")
	f.Add(sampleConfig)
	f.Add("a: &x [b]\nc: *x\n<<: {d: e}\n")
	f.Add("services: {a: {replicas: 256, after: [a]}}")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		path := filepath.Join(dir, "p2pnode.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Skip(err)
		}
		o, flags := &options{}, pflag.NewFlagSet("test", pflag.ContinueOnError)
		o.addFlags(flags)
		flags.Set("config", path)
		err := o.resolve(flags)
		if err != nil && p2pnode.ExitCode(err) != p2pnode.ExitUsage {
			t.Errorf("%q: %v has exit code %d", text, err, p2pnode.ExitCode(err))
		}
		for _, s := range o.Services {
			if err == nil && (!p2pnode.ValidServiceName(s.Name) || len(s.Command) == 0 || s.Ready == "") {
				t.Errorf("%q: accepted %+v", text, s)
			}
		}
	})
}

func TestNearest(t *testing.T) {
	for _, c := range []struct{ word, want string }{{"strat", "start"}, {"statsu", "status"}, {"xyz", ""}, {"ps", "ps"}} {
		if got := nearest(c.word, []string{"start", "stop", "status", "ps", "restart"}); got != c.want {
			t.Errorf("nearest(%q) = %q, want %q", c.word, got, c.want)
		}
	}
}

// What editors are told and what the daemon takes is the same, key by key.
func TestSchemaSaysWhatTheReaderTakes(t *testing.T) {
	var walk func(at string, s schema)
	known := map[string]bool{}
	walk = func(at string, s schema) {
		keys, _ := s["properties"].(schema)
		for key, below := range keys {
			known[at+key] = true
			if sub, ok := below.(schema); ok {
				walk(at+key+".", sub)
			}
		}
		if some, ok := s["anyOf"].([]schema); ok {
			for _, sub := range some {
				walk(at, sub)
			}
		}
		if sub, ok := s["items"].(schema); ok {
			walk(strings.TrimSuffix(at, ".")+"[].", sub)
		}
		if some, ok := s["patternProperties"].(schema); ok {
			for _, sub := range some {
				walk(at+"X.", sub.(schema))
			}
		}
	}
	walk("", fileSchema())
	if len(known) < 40 {
		t.Fatalf("only %d keys in the schema", len(known))
	}
	taken := map[string]bool{}
	for key := range known {
		parts := strings.Split(key, ".")
		text := "[1]" // a list fits nothing wholly, so the reader gets to every key
		for _, p := range slices.Backward(parts) {
			if plain, list := strings.CutSuffix(p, "[]"); list {
				p, text = plain, "["+text+"]"
			}
			text = "{" + p + ": " + text + "}"
		}
		_, err := resolve(t, text)
		taken[key] = err == nil || !strings.Contains(err.Error(), "unknown key")
		if !taken[key] {
			t.Errorf("the schema has %s, the reader says %v", key, err)
		}
	}
	// The other way: where no key is near the reader lists those it knows.
	for where, text := range map[string]string{
		"": "Q", "notify[].": "{notify: [Q]}", "grace.": "{grace: Q}", "services.X.": "{services: {X: Q}}", "services.X.limits.": "{services: {X: {limits: Q}}}", "services.X.stop.": "{services: {X: {stop: Q}}}", "services.X.log.": "{services: {X: {log: Q}}}", "services.X.check.": "{services: {X: {check: Q}}}", "services.X.checks.": "{services: {X: {checks: Q}}}",
	} {
		_, err := resolve(t, strings.ReplaceAll(text, "Q", "{qqqqqqqqqqqqqq: 1}"))
		_, list, _ := strings.Cut(err.Error(), "known are ")
		list, _, _ = strings.Cut(list, "\n")
		list, _, _ = strings.Cut(list, ";")
		keys := strings.Split(list, ", ")
		if len(keys) < 2 {
			t.Errorf("%q: %v", text, err)
		}
		for _, key := range keys {
			if !known[where+key] {
				t.Errorf("the reader takes %s%s, the schema does not say so", where, key)
			}
		}
	}
}

// The schema is a file too, for editors that want one: yaml-language-server and
// others take its path.
func TestTheSchemaInDeployIsThisOne(t *testing.T) {
	raw, err := os.ReadFile("../../deploy/p2pnode.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var now strings.Builder
	if err := writeJSON(&now, fileSchema(), "  "); err != nil {
		t.Fatal(err)
	}
	if string(raw) != now.String() {
		t.Error("deploy/p2pnode.schema.json is not what p2pnode config schema says: make schema")
	}
}

// What config init writes begins with the line by which editors find the schema, in the
// file that the next lines say how to make.
func TestTheSampleNamesItsSchema(t *testing.T) {
	name, ok := strings.CutPrefix(strings.SplitN(sampleConfig, "\n", 2)[0], "# yaml-language-server: $schema=")
	if !ok || !strings.Contains(sampleConfig, "p2pnode config schema > "+name+"\n") {
		t.Errorf("it begins %.200q", sampleConfig)
	}
}

// What config init writes names every key of a service, so that nobody needs to
// look elsewhere for them.
func TestTheSampleNamesEveryKeyOfAService(t *testing.T) {
	services := fileSchema()["properties"].(schema)["services"].(schema)["patternProperties"].(schema)
	for _, s := range services {
		for key := range s.(schema)["properties"].(schema) {
			if !strings.Contains(sampleConfig, key+":") {
				t.Errorf("%s is not in what config init writes", key)
			}
		}
	}
}
