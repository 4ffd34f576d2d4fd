package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"p2pnode"
)

// demoHost is one of the demo's hosts: a real exec, door, node process and web
// service with a folder and ports of their own.
type demoHost struct {
	name   string
	dir    string // data folder
	files  string // its config, history and output lie at files + suffix
	listen int
	door   int
	web    int
	cmd    *osexec.Cmd
	ended  chan struct{}
	gone   bool // killed for good
}

// demoConfig leaves every failure to agents for a minute: what is repaired
// sooner was repaired by one.
const demoConfig = `grace: {agent: 60s, node: 60s, node_stop: 60s}
services:
  web:
    command: [%q, demo-web, --port, "%d"]
    check: {http: "http://127.0.0.1:%d/", every: 200ms, timeout: 300ms, failures: 3}
    stop_grace: 0s
`

func (h *demoHost) configure(self string) error {
	if err := os.MkdirAll(h.dir, 0o700); err != nil {
		return err
	}
	return os.WriteFile(h.files+".yaml", fmt.Appendf(nil, demoConfig, self, h.web, h.web), 0o600)
}

// start runs the host on the demo's leash. Its output goes to a file that the
// demo names when something went wrong.
func (h *demoHost) start(self string, leash *os.File, args ...string) error {
	base := []string{
		"--data", h.dir, "--name", h.name, "--config", h.files + ".yaml", "--history", h.files + ".history.jsonl",
		"--listen", local(h.listen), "--door", local(h.door), "--leash", "3", "--supervised", "no",
	}
	out, err := os.OpenFile(h.files+".log", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	h.cmd = osexec.Command(self, append(base, args...)...)
	h.cmd.Stdout, h.cmd.Stderr = out, out
	h.cmd.ExtraFiles = []*os.File{leash}
	h.cmd.Env = demoEnv()
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := h.cmd.Start(); err != nil {
		return err
	}
	h.ended = make(chan struct{})
	go func() {
		h.cmd.Wait()
		close(h.ended)
	}()
	return nil
}

// demoEnv is the environment without settings of ours that the caller's shell
// may hold: the demo must not join his cluster.
func demoEnv() []string {
	var out []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, envPrefix) || strings.HasPrefix(kv, envPrefix+"PLANT") {
			out = append(out, kv)
		}
	}
	return out
}

func local(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

// cli runs a verb against this host's daemon, as an operator logged in there
// would, and reads its JSON into doc (nil: only its exit code counts).
func (h *demoHost) cli(ctx context.Context, doc any, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := osexec.CommandContext(ctx, "/proc/self/exe", append([]string{"--data", h.dir, "-o", "json"}, args...)...)
	cmd.Env = demoEnv()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err != nil && doc != nil && json.Unmarshal(out.Bytes(), doc) == nil {
		var failed p2pnode.ErrorDoc
		if json.Unmarshal(out.Bytes(), &failed) != nil || failed.Error == nil {
			return nil // an answer with a verdict in its exit code, such as status
		}
	}
	if err != nil {
		return fmt.Errorf("p2pnode %s on %s: %w: %s", strings.Join(args, " "), h.name, err, strings.TrimSpace(errs.String()))
	}
	if doc == nil {
		return nil
	}
	return json.Unmarshal(out.Bytes(), doc)
}

// nodes are the members as this host sees them, by name.
func (h *demoHost) nodes(ctx context.Context) map[string]p2pnode.NodeDoc {
	var doc p2pnode.NodesDoc
	if h.cli(ctx, &doc, "nodes") != nil {
		return nil
	}
	out := map[string]p2pnode.NodeDoc{}
	for _, n := range doc.Nodes {
		out[n.Name] = n
	}
	return out
}

// incident is the newest incident about node and service that was detected
// after since, as this host tells it.
func (h *demoHost) incident(ctx context.Context, node, service string, since time.Time) (p2pnode.Incident, bool) {
	var doc p2pnode.IncidentsDoc
	if h.cli(ctx, &doc, "incidents", "ls") != nil {
		return p2pnode.Incident{}, false
	}
	var found p2pnode.Incident
	for _, i := range doc.Incidents {
		if i.Node == node && i.Service == service && i.DetectedAt.After(since) && i.DetectedAt.After(found.DetectedAt) {
			found = i
		}
	}
	return found, found.ID != ""
}

// everything finds all processes of the host: exec and roles by folder, the
// service by port.
func (h *demoHost) everything() []process {
	return processes(func(argv []string) bool {
		web := len(argv) == 4 && argv[1] == "demo-web" && argv[3] == strconv.Itoa(h.web)
		for _, a := range argv[1:] {
			if a == h.dir || filepath.Dir(a) == h.dir {
				return true
			}
		}
		return web
	})
}

// killAll ends the host for good. It sweeps more than once: whatever is being
// started in the meantime dies too.
func (h *demoHost) killAll() bool {
	h.gone = true
	return until(5*time.Second, time.Millisecond, func() bool {
		left := h.everything()
		for _, p := range left {
			p.kill(syscall.SIGKILL)
		}
		return len(left) == 0
	})
}
