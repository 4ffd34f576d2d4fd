package main

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"p2pnode"
)

// declared is one entry of services: before its replicas are unfolded.
type declared struct {
	at       *yaml.Node
	spec     p2pnode.ServiceSpec
	replicas int // 0: it does not say
}

// defaultSpec is a service that says nothing but its name.
func defaultSpec(name, cwd string) p2pnode.ServiceSpec {
	return p2pnode.ServiceSpec{
		Name: name, Cwd: cwd,
		StartWithin: p2pnode.DefaultStartWithin,
		Restart:     p2pnode.RestartAlways,
		Recover:     p2pnode.RecoverAgent,
		StopGrace:   p2pnode.DefaultStopGrace,
		StopSignal:  "TERM",
		StopTimeout: p2pnode.DefaultStopTimeout,
	}
}

func (r *reader) services(n *yaml.Node) []p2pnode.ServiceSpec {
	var all []declared
	r.each(n, "services", func(key, value *yaml.Node) {
		if !p2pnode.ValidServiceName(key.Value) || strings.Contains(key.Value, ".") {
			r.bad(key, "service name %q: letters, digits, - and _ only, at most 64", key.Value)
			return
		}
		all = append(all, r.service(key, value))
	})
	r.checkOrder(all)
	return unfold(all)
}

func (r *reader) service(key, n *yaml.Node) declared {
	name := key.Value
	where := "service " + name
	d := declared{at: key, spec: defaultSpec(name, r.dir)}
	s := &d.spec
	var shell, start, restart, recover, ready string
	r.fields(n, where, map[string]func(*yaml.Node){
		"command":        r.argv(where+": command", &s.Command),
		"shell":          r.text(where+": shell", &shell),
		"cwd":            r.folder(where+": cwd", &s.Cwd),
		"env":            r.pairs(where+": env", &s.Env),
		"env_file":       r.files(where+": env_file", &s.EnvFile),
		"before":         r.commands(where+": before", &s.Before),
		"user":           r.text(where+": user", &s.User),
		"group":          r.text(where+": group", &s.Group),
		"limits":         func(n *yaml.Node) { r.limits(n, where, &s.Limits) },
		"umask":          r.octal(where+": umask", &s.Umask),
		"nice":           r.number(where+": nice", &s.Nice, -20, 19),
		"oom_score":      r.optional(where+": oom_score", &s.OOM, -1000, 1000),
		"hang_dump":      r.flag(where+": hang_dump", &s.HangDump),
		"new_privileges": r.flag(where+": new_privileges", &s.Gain),
		"labels":         r.pairs(where+": labels", &s.Labels),
		"after":          r.texts(where+": after", &s.After),
		"requires":       r.texts(where+": requires", &s.Requires),
		"replicas":       r.number(where+": replicas", &d.replicas, 1, 256),
		"start":          r.oneOf(where+": start", &start, "auto", "manual"),
		"start_within":   r.duration(where+": start_within", &s.StartWithin, 0),
		"restart":        r.oneOf(where+": restart", &restart, "always", "on-failure", "no"),
		"recover":        r.oneOf(where+": recover", &recover, "agent", "local", "off"),
		"ready":          r.oneOf(where+": ready", &ready, "check", "notify", "started"),
		"watchdog":       r.duration(where+": watchdog", &s.Watchdog, 10*time.Millisecond),
		"stop_grace":     r.duration(where+": stop_grace", &s.StopGrace, 0),
		"stop":           func(n *yaml.Node) { r.stop(n, where, s) },
		"log":            func(n *yaml.Node) { r.log(n, where, s) },
		"log_file":       r.folder(where+": log_file", &s.LogFile),
		"check":          func(n *yaml.Node) { s.Check = r.checkOfAll(n, where+": check") },
		"checks":         func(n *yaml.Node) { s.Checks = r.checks(n, where+": checks") },
	})
	s.Manual = start == "manual"
	set(&s.Restart, restart)
	set(&s.Recover, recover)
	set(&s.Ready, ready)
	r.command(key, s, shell)
	r.readiness(key, s)
	r.retention(key, s)
	return d
}

func set[T ~string](into *T, value string) {
	if value != "" {
		*into = T(value)
	}
}

func (r *reader) command(key *yaml.Node, s *p2pnode.ServiceSpec, shell string) {
	switch {
	case shell != "" && s.Command != nil:
		r.bad(key, "service %s has both command and shell: keep one", s.Name)
	case shell != "":
		s.Command = []string{"/bin/sh", "-c", shell}
	case s.Command == nil:
		r.bad(key, "service %s has no command: add command: [program, argument] or shell: \"...\"", s.Name)
	}
}

// readiness fills in what makes the service ready: its check where it has one,
// else that it was started.
func (r *reader) readiness(key *yaml.Node, s *p2pnode.ServiceSpec) {
	switch {
	case s.Check != nil && s.Checks != nil:
		r.bad(key, "service %s has both check and checks: keep check, which asks for all at once, or checks, which asks for each", s.Name)
	case s.Ready == p2pnode.ReadyCheck && !s.Asked():
		r.bad(key, "service %s: ready: check needs a check", s.Name)
	case s.Checks != nil && s.Checks.Ready != nil && s.Ready != "" && s.Ready != p2pnode.ReadyCheck:
		r.bad(key, "service %s has both ready: %s and a check that says when it is ready: keep one", s.Name, s.Ready)
	case s.Ready == "" && s.Asked():
		s.Ready = p2pnode.ReadyCheck
	case s.Ready == "":
		s.Ready = p2pnode.ReadyStarted
	}
}

func (r *reader) folder(what string, into *string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		var path string
		r.text(what, &path)(n)
		if path != "" && !filepath.IsAbs(path) {
			path = filepath.Join(r.dir, path)
		}
		*into = path
	}
}

// stopSignals are the signals that ask a program to end.
var stopSignals = []string{"TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "WINCH", "KILL"}

func (r *reader) stop(n *yaml.Node, where string, s *p2pnode.ServiceSpec) {
	r.fields(n, where+": stop", map[string]func(*yaml.Node){
		"signal": func(n *yaml.Node) {
			plain := *n
			plain.Value = strings.TrimPrefix(strings.ToUpper(n.Value), "SIG")
			r.oneOf(where+": stop signal", &s.StopSignal, stopSignals...)(&plain)
		},
		"timeout": r.duration(where+": stop timeout", &s.StopTimeout, 0),
	})
}

// checkOrder refuses `after` and `requires` that name nothing, or that nobody could
// ever satisfy.
func (r *reader) checkOrder(all []declared) {
	byName := map[string]declared{}
	for _, d := range all {
		byName[d.spec.Name] = d
	}
	for _, d := range all {
		for _, before := range d.spec.Order() {
			if _, ok := byName[before]; !ok {
				key := "after"
				if slices.Contains(d.spec.Requires, before) {
					key = "requires"
				}
				hint := ""
				if near := nearest(before, slices.Collect(maps.Keys(byName))); near != "" {
					hint = fmt.Sprintf(", did you mean %q?", near)
				}
				r.bad(d.at, "service %s: %s names the unknown service %q%s", d.spec.Name, key, before, hint)
			}
		}
	}
	state := map[string]int{} // 1: on the path, 2: done
	for _, d := range all {
		if loop := findLoop(byName, state, d.spec.Name, nil); loop != nil {
			r.bad(d.at, "services wait for each other: %s", strings.Join(loop, " after "))
			return
		}
	}
}

func findLoop(all map[string]declared, state map[string]int, name string, path []string) []string {
	path = append(path, name)
	switch state[name] {
	case 1:
		return path[slices.Index(path, name):]
	case 2:
		return nil
	}
	state[name] = 1
	for _, before := range all[name].spec.Order() {
		if loop := findLoop(all, state, before, path); loop != nil {
			return loop
		}
	}
	state[name] = 2
	return nil
}
