package main

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"p2pnode"
)

// unpack reads a bundle back with nothing but the standard tar.
func unpack(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	gz, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for r := tar.NewReader(gz); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out[h.Name] = string(raw)
	}
}

// With all of p2pnode dead a bundle holds what there is, says what it lacks, and
// gives no secret away.
func TestDebugBundleOfADeadHost(t *testing.T) {
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "b.tar.gz")
	config := filepath.Join(t.TempDir(), "p2pnode.yaml")
	for path, text := range map[string]string{
		config:                                     "services:\n  web: {command: [/srv/web, --password, HUNTER2ARG], env: {TOKEN: HUNTER2ENV}, check: {tcp: 'h:1', send: HUNTER2SEND}}\n  api: {command: [/srv/api], checks: {live: {tcp: 'h:1', send: HUNTER2APART}}}\nnotify:\n  - {webhook: 'https://h/HUNTER2HOOK'}\n",
		dir + "/node.key":                          "HUNTER2KEY",
		dir + "/cluster.json":                      "HUNTER2PAPERS",
		dir + "/exec/epoch.json":                   `{"epoch":"7"}`,
		dir + "/exec/desired.json":                 `{"stopped":{"web":true}}`,
		dir + "/exec/services/web.json":            `{"service":"web","pid":4194000}` + strings.Repeat(" ", 100),
		dir + "/exec/services/self.json":           `{"service":"self","pid":` + itoa(os.Getpid()) + `}`,
		dir + "/run/guard.json":                    `{"argv":["p2pnode","--config","` + config + `","--password","HUNTER2GUARD"]}`,
		dir + "/logs/web.log":                      strings.Repeat("old line HUNTER2OLD\n", 10000) + "password=HUNTER2LOG\nthe last line\n",
		dir + "/audit.log":                         `{"verb":"stop"}` + "\n",
		filepath.Join(dir, "logs", "db.log.1"):     "",
		filepath.Join(dir, "logs", "db.log.2"):     "rotated earlier",
		filepath.Join(dir, "logs", "web.2.log"):    "of a replica",
		filepath.Join(dir, "store.db.damaged-now"): "HUNTER2STORE",
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("P2PNODE_CONFIG", "")
	doc, err := writeBundle(t.Context(), dir, "", out, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(out); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	got := unpack(t, out)
	var all strings.Builder
	for name, text := range got {
		all.WriteString(text)
		if !slices.ContainsFunc(doc.Holds, func(f bundleFile) bool { return f.Name == name && f.Size == len(text) }) {
			t.Errorf("%s is in it and is not told", name)
		}
	}
	if i := strings.Index(strings.ReplaceAll(all.String(), "HUNTER2OLD", ""), "HUNTER2"); i >= 0 {
		t.Errorf("a secret is in it: %.60q", strings.ReplaceAll(all.String(), "HUNTER2OLD", "")[i:])
	}
	for name, want := range map[string]string{
		"about.json": `"data": "` + dir, "state/exec/desired.json": `"web":true`, "state/exec/services/web.json": `"pid":4194000`, "state/audit.log": "stop", "state/files.txt": "/node.key",
		"config/config.json": `"TOKEN": "[masked]"`, "logs/web.log": "the last line", "logs/db.log.1": "", "logs/web.2.log": "of a replica", "proc/meminfo": "MemTotal", "proc/disk.txt": "inodes", "state/started.txt": "--config " + config,
		"proc/" + itoa(os.Getpid()) + "/status": "Threads:",
	} {
		if text, ok := got[name]; !ok || !strings.Contains(text, want) {
			t.Errorf("%s: %v, %.300q, want %q", name, ok, text, want)
		}
	}
	if len(got["logs/web.log"]) > maxTail || !strings.HasPrefix(got["logs/web.log"], "old line") {
		t.Errorf("%d bytes of a log, from %.20q", len(got["logs/web.log"]), got["logs/web.log"])
	}
	if _, ok := got["logs/db.log.2"]; ok || !strings.Contains(got["state/files.txt"], "/logs/db.log.2") {
		t.Error("an earlier log is in it, or not told of")
	}
	lacks := strings.Join(doc.Lacks, "\n")
	for _, want := range []string{"live/exec: no p2pnode answers", "live/node: ", "proc/4194000: it is dead"} {
		if !strings.Contains(lacks, want) {
			t.Errorf("it does not say %q: %s", want, lacks)
		}
	}
	if _, err := writeBundle(t.Context(), dir, "", out, time.Now()); p2pnode.ExitCode(err) != p2pnode.ExitUsage {
		t.Errorf("over a file that is there: %v", err)
	}
	// Nothing at all is there: what can be told of the host is.
	doc, err = writeBundle(t.Context(), filepath.Join(dir, "none"), "", out+"2", time.Now())
	if err != nil || len(doc.Holds) < 5 {
		t.Errorf("of nothing: %v, %v", doc.Holds, err)
	}
}

func TestDebugBundleOfAWrongConfiguration(t *testing.T) {
	config, out := filepath.Join(t.TempDir(), "p.yaml"), filepath.Join(t.TempDir(), "b.tar.gz")
	if err := os.WriteFile(config, []byte("services:\n  web: {comand: [x], env: {A: HUNTER2}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := writeBundle(t.Context(), t.TempDir(), config, out, time.Now()); err != nil {
		t.Fatal(err)
	}
	if got := unpack(t, out)["config/problems.txt"]; !strings.Contains(got, "p.yaml:2") || strings.Contains(got, "HUNTER2") {
		t.Errorf("%q", got)
	}
}
