package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"p2pnode"
)

// What config check prints, to the letter: a file that is fine is, exit 0, whatever this
// host cannot give it; what it will not have is a warning each.
func TestConfigCheckWarns(t *testing.T) {
	const limited = `services:
  web:
    command: [web]
    limits: {cpu: 1.5, memory_total: 1G, nofile: 1024}
  worker:
    command: [worker]
    limits: {pids: 50}
`
	const noCPU = "service web: limits: cpu: no cgroup of this host holds it, so it is not started here"
	const noMemory = "service web: limits: memory_total: no cgroup of this host holds it, so it is not started here"
	const noPIDs = "service worker: limits: pids: no cgroup of this host holds it, so it is not started here"
	for _, c := range []struct {
		what, config string
		groups       []string // controllers of cgroup v1
		services     int
		warnings     []string
	}{
		{"nothing is asked of the host", "services:\n  web: {command: [web]}\n", nil, 1, nil},
		{"no services", "log_level: warn\n", nil, 0, nil},
		{"a host that holds all", limited, []string{"cpu", "memory", "pids"}, 2, nil},
		{"one that holds some", limited, []string{"cpu", "pids"}, 2, []string{noMemory}},
		{"one that holds none", limited, nil, 2, []string{noCPU, noMemory, noPIDs}},
		{"more time than there is", "services:\n  db: {command: [db], stop: {timeout: 90s}}\n", nil, 1, []string{"service db: stop: timeout: it is 1m30s, and when p2pnode or the host ends a service has 5.2s at most (shutdown_timeout: 8s, for all together)"}},
		{"less than all, and more than one has", "services:\n  db: {command: [db], stop: {timeout: 5300ms}}\n  web: {command: [web], stop: {timeout: 5200ms}}\n", nil, 2, []string{"service db: stop: timeout: it is 5.3s, and when p2pnode or the host ends a service has 5.2s at most (shutdown_timeout: 8s, for all together)"}},
		{"time for one, by the clock alone", "shutdown_timeout: 2m\nservices:\n  db: {command: [db], stop: {timeout: 90s}}\n", nil, 1, []string{"service db: stop: timeout: it is 1m30s, and when p2pnode or the host ends a service has 1m18s at most (shutdown_timeout: 2m0s, for all together)"}},
		{"time for both", "shutdown_timeout: 2m30s\nservices:\n  db: {command: [db], stop: {timeout: 90s}}\n  web: {command: [web], stop: {timeout: 9s}}\n", nil, 2, nil},
	} {
		host := t.TempDir()
		for _, controller := range c.groups {
			dir := filepath.Join(host, "sys/fs/cgroup", controller)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		file := filepath.Join(host, "p2pnode.yaml")
		if err := os.WriteFile(file, []byte(c.config), 0o644); err != nil {
			t.Fatal(err)
		}
		check := func(format string) (stdout string) {
			o, e := scratch(t), scratch(t)
			a := &app{stdout: o, stderr: e, format: format, host: host}
			if code := a.run([]string{"config", "check", file}); code != p2pnode.ExitOK || text(t, e) != "" {
				t.Errorf("%s: exit %d\n%s", c.what, code, text(t, e))
			}
			return text(t, o)
		}
		lines := []string{file + " is fine: " + count(c.services, "service")}
		for _, w := range c.warnings {
			lines = append(lines, "warning: "+w)
		}
		want := strings.Join(lines, "\n") + "\n"
		if got := check(formatTable); got != want {
			t.Errorf("%s:\n%swant\n%s", c.what, got, want)
		}
		var doc struct {
			OK       bool
			Services []string
			Warnings []string
		}
		if err := json.Unmarshal([]byte(check(formatJSON)), &doc); err != nil || !doc.OK || len(doc.Services) != c.services || strings.Join(doc.Warnings, "\n") != strings.Join(c.warnings, "\n") {
			t.Errorf("%s: %+v %v", c.what, doc, err)
		}
	}
}
