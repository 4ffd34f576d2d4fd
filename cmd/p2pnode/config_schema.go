package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"p2pnode"
	"p2pnode/exec/logs"
)

// The schema is for editors, which complete and check keys with it; what a daemon
// takes is decided by the reader. A test holds the two against each other.

// schema is one JSON Schema (draft 2020-12) object.
type schema map[string]any

func (a *app) configSchema() *cobra.Command {
	return &cobra.Command{
		Use: "schema", Short: "The JSON Schema of p2pnode.yaml, for editors", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if a.format == formatJSONL {
				return writeJSON(a.stdout, fileSchema(), "")
			}
			return writeJSON(a.stdout, fileSchema(), "  ")
		},
	}
}

// typed is a schema of one type with a sentence about it.
func typed(kind, about string) schema { return schema{"type": kind, "description": about} }

func span(about string) schema {
	return schema{"type": "string", "pattern": `^[0-9.]+(ns|us|µs|ms|s|m|h)([0-9.]+(ns|us|µs|ms|s|m|h))*$|^0$`, "description": about}
}

func amount(about string) schema {
	return schema{"type": []string{"integer", "string"}, "pattern": `^[0-9.]+([KMGTkmgt]i?[Bb]?)?$|^unlimited$`, "description": about}
}

func choice(about string, allowed ...string) schema {
	return schema{"enum": allowed, "description": about}
}

func listOf(about string, alone bool) schema {
	list := schema{"type": "array", "items": schema{"type": []string{"string", "number", "boolean"}}, "description": about}
	if !alone {
		return list
	}
	return schema{"anyOf": []schema{list, {"type": "string"}}, "description": about}
}

func number(about string, low, high int) schema {
	return schema{"type": "integer", "minimum": low, "maximum": high, "description": about}
}

func pairs(about string) schema {
	return schema{"type": "object", "additionalProperties": schema{"type": []string{"string", "number", "boolean"}}, "description": about}
}

// object is a mapping that has these keys and no others.
func object(about string, keys schema) schema {
	return schema{"type": "object", "additionalProperties": false, "properties": keys, "description": about}
}

func fileSchema() schema {
	keys := schema{
		"grace": object("how long exec leaves a failure to agents before it acts alone", schema{
			"agent": span("no agent claims a service (50ms)"), "node": span("the node process is dead (1s)"), "node_stop": span("the node process is stopped (10s)"),
		}),
		"shutdown_timeout": span("an orderly stop of everything takes at most this long (8s)"),
		"notify":           schema{"type": "array", "description": "who is told", "items": sinkSchema()},
		"services": schema{
			"type": "object", "description": "what runs on this host, by name", "additionalProperties": false,
			"patternProperties": schema{`^[A-Za-z0-9_-]{1,64}$`: serviceSchema()},
		},
	}
	o, flags := &options{}, pflag.NewFlagSet("schema", pflag.ContinueOnError)
	o.addFlags(flags)
	o.addData(flags)
	flags.VisitAll(func(f *pflag.Flag) {
		if !notInFile[f.Name] {
			keys[fileKey(f.Name)] = flagSchema(f)
		}
	})
	out := object("what p2pnode runs on a host, and how", keys)
	out["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	out["schema"], out["title"] = p2pnode.Schema("config-schema"), "p2pnode.yaml"
	return out
}

func sinkSchema() schema {
	out := object("a program of this host or a webhook", schema{
		"run":     listOf("program and arguments; it reads the notice as JSON on its stdin", false),
		"webhook": typed("string", "URL; the notice is POSTed as JSON"),
		"on":      schema{"anyOf": []schema{{"type": "array", "items": schema{"enum": eventNames()}}, {"enum": eventNames()}}, "description": "of what (all)"},
	})
	out["oneOf"] = []schema{{"required": []string{"run"}}, {"required": []string{"webhook"}}}
	return out
}

// flagSchema is the key that a flag of the daemon is in the file.
func flagSchema(f *pflag.Flag) schema {
	_, about := pflag.UnquoteUsage(f)
	if _, list := f.Value.(pflag.SliceValue); list {
		return listOf(about, true)
	}
	switch f.Value.Type() {
	case "bool":
		return typed("boolean", about)
	case "stringToString":
		return pairs(about)
	}
	return typed("string", about)
}

func serviceSchema() schema {
	out := object("one service", schema{
		"command":  listOf("program and arguments, no shell in between", false),
		"shell":    typed("string", "a line for /bin/sh, instead of command"),
		"cwd":      typed("string", "folder in which it runs (default: this file's)"),
		"env":      pairs("added to its environment"),
		"env_file": listOf("files of KEY=VALUE lines, read at each start; env wins", true),
		"before":   listOf("program and arguments, or a list of such, that must end well before it is started", false),
		"user":     typed("string", "runs as this user, with his groups, and gains no privileges"),
		"group":    typed("string", "runs with this group instead of the user's own"),
		"limits": object("what it may use", schema{
			"nofile": amount("open descriptors of each process"), "core": amount("bytes of a core dump (0: none)"),
			"memory": amount("bytes of private memory of each process, like 512M"),
			"pids":   amount("processes and threads of all of it"),
			"cpu":    schema{"anyOf": []schema{{"type": "number", "minimum": 0.01}, {"const": "unlimited"}}, "description": "cores that all of it may use together, like 0.5"},

			"memory_total": amount("bytes of RAM that all of it may use together, like 2G"),
		}),
		"umask":          schema{"type": []string{"string", "integer"}, "pattern": "^(0o)?[0-7]{1,4}$", "description": "octal, like 022"},
		"nice":           number("-20 runs first, 19 last; below 0 wants root", -20, 19),
		"oom_score":      number("-1000: never killed for want of memory; 1000: first; below p2pnode's own wants root", -1000, 1000),
		"hang_dump":      typed("boolean", "SIGQUIT, and two seconds, before it is killed because it hangs: a Go program prints its stacks (false)"),
		"new_privileges": typed("boolean", "with user or group: setuid and setcap programs may raise it again (false)"),
		"labels":         pairs("for TARGET K=V"),
		"after":          listOf("started once these are ready", true),
		"requires":       listOf("started once these are ready, stopped before they are, and begun anew with each new life of theirs", true),
		"replicas":       number("so many of it: web.1, web.2 ...; {i} in its texts is the number", 1, 256),
		"start":          choice("start: manual waits for p2pnode start", "auto", "manual"),
		"start_within":   span("no failed check counts before this or the first success; with ready: notify the longest start (60s)"),
		"restart":        choice("when it is started again", "always", "on-failure", "no"),
		"recover":        choice("who restarts it: an agent, this host's exec at once, or nobody", "agent", "local", "off"),
		"ready":          choice("what makes it ready", "check", "notify", "started"),
		"watchdog":       span("it says sd_notify WATCHDOG=1 at least this often"),
		"stop_grace":     span("a SIGSTOP that lasts longer is a failure (5s)"),
		"stop":           object("how it is asked to end", schema{"signal": choice("first this signal", stopSignals...), "timeout": span("then it is killed (10s)")}),
		"log":            logSchema(),
		"log_file":       typed("string", "where the program logs by itself, besides stdout and stderr; with log: file where its output goes (default logs/SVC.out in the data folder)"),
		"check":          checkSchema(),
		"checks":         checksSchema(),
	})
	out["oneOf"] = []schema{{"required": []string{"command"}}, {"required": []string{"shell"}}}
	out["not"] = schema{"required": []string{"check", "checks"}}
	return out
}

// logSchema is where output goes, alone or with how much of it is kept.
func logSchema() schema {
	to := func(about string) schema { return choice(about, "capture", "file") }
	about := "where its output goes: read, bounded and rotated by p2pnode (capture, the default), or straight to log_file (file)"
	return schema{"anyOf": []schema{to(about), object("that, and how much of it is kept", schema{
		"to":   to(about),
		"size": schema{"type": []string{"integer", "string"}, "pattern": `^[0-9.]+([KMGTkmgt]i?[Bb]?)?$`, "description": "bytes of a file when it is rotated, 1M to 64G (8M)"},
		"keep": number("rotated files that are kept; .1 is the newest (1)", logs.MinKeep, logs.MaxKeep),
	})}, "description": "where its output goes, and how much of it is kept"}
}

// checkSchema is the check that asks for all at once.
func checkSchema() schema {
	out := questionSchema("a question that it must answer: whether it has started, is ready and lives")
	out["properties"].(schema)["on_failure"] = choice("bad answers make it hung, so that it is restarted, or only unready", "restart", "unready")
	return out
}

func checksSchema() schema {
	out := object("instead of check: questions apart", schema{
		p2pnode.CheckStart: questionSchema("until its first success; the others are not asked before; without one within start_within it is restarted"),
		p2pnode.CheckReady: questionSchema("bad answers make it unready, good ones ready again; it is never restarted for them"),
		p2pnode.CheckLive:  questionSchema("bad answers make it hung: it is restarted"),
	})
	out["minProperties"] = 1
	return out
}

func questionSchema(about string) schema {
	out := object(about, schema{
		"http": typed("string", "URL; 2xx and 3xx are good"),
		"tcp":  typed("string", "HOST:PORT; something must come back"), "send": typed("string", "written to tcp or unix"), "expect": typed("string", "must come back from tcp or unix"),
		"exec":    listOf("a program; exit 0 is good", false),
		"unix":    typed("string", "path of a socket; something must come back"),
		"status":  schema{"anyOf": []schema{{"type": []string{"integer", "string"}}, {"type": "array", "items": schema{"type": []string{"integer", "string"}}}}, "description": "good answers to http, like 204 or 200-299"},
		"body":    typed("string", "must be in the first 64 KiB of http's answer"),
		"grpc":    typed("string", "HOST:PORT; grpc.health.v1, without TLS, must say SERVING"),
		"service": typed("string", "that grpc is asked about (the whole server)"),
		"file":    typed("string", "path of a file that the service touches"),
		"newer":   span("file is at most this old (10s)"),
		"every":   span("between two questions (1s)"), "timeout": span("for one answer (1s)"),
		"jitter":    span("a question comes up to this much later than every (a tenth of it; 0: never)"),
		"failures":  number("bad answers in a row that are a failure (3)", 1, 1000),
		"successes": number("good answers in a row that are a success, at its start and after failures (1)", 1, 1000),
	})
	out["oneOf"] = []schema{{"required": []string{"http"}}, {"required": []string{"tcp"}}, {"required": []string{"exec"}}, {"required": []string{"unix"}}, {"required": []string{"grpc"}}, {"required": []string{"file"}}}
	return out
}
