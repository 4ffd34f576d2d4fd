// Package host runs real p2pnode hosts for tests and looks at them from outside:
// their pids by /proc, their services by asking them, their words through the
// CLI of any other host.
//
// Every host is on a leash: when the test's process dies, however it dies, all
// that it started ends too. All histories land in one folder, and Judge ends a
// test with the offline checker over them.
package host

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/manage"
	"p2pnode/test/history"
)

// Fleet is the hosts of one test.
type Fleet struct {
	T       testing.TB
	Bin     string
	Dir     string   // scratch; DIR of host x is Dir/x
	Env     []string // added to every host's environment
	Config  string   // p2pnode.yaml of every host that has none of its own; %PORT% is the host's web port
	leash   *os.File // write end: closing it ends everything
	leashed *os.File
	harness *p2pnode.History

	mu    sync.Mutex
	hosts map[string]*Host
}

// Host is one p2pnode (exec, door, node) with its own folder.
type Host struct {
	Fleet  *Fleet
	Name   string
	Dir    string
	Prefix []string // argv put before the binary, to enter a namespace
	Bin    string   // its binary, where it is not the fleet's; both have the same file name
	Web    int      // port of its web service, on 127.0.0.1 of its network
	cmd    *exec.Cmd
	output *os.File
}

// NewFleet prepares an empty fleet that runs binary.
func NewFleet(t testing.TB, binary string) *Fleet {
	t.Helper()
	// Unix socket paths are short: the test's own TempDir may be too deep.
	dir, err := os.MkdirTemp("", "p2pnode-test-")
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	f := &Fleet{T: t, Bin: binary, Dir: dir, leash: w, leashed: r, hosts: map[string]*Host{}}
	if f.harness, err = p2pnode.OpenHistory(f.HistoryFile("harness"), "", history.Harness); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.close)
	return f
}

func (f *Fleet) close() {
	f.leash.Close()
	for _, h := range f.hosts {
		h.reap()
	}
	f.leashed.Close()
	f.harness.Close()
	if left := f.Processes(""); !Eventually(5*time.Second, func() bool { left = f.Processes(""); return len(left) == 0 }) {
		f.T.Errorf("processes left 5 s after the leash was cut: %v", left)
	}
	if f.T.Failed() || os.Getenv("KEEP_HISTORY") != "" {
		f.T.Logf("kept for reading: %s", f.Dir)
		return
	}
	os.RemoveAll(f.Dir)
}

// HistoryFile is where name's history goes.
func (f *Fleet) HistoryFile(name string) string { return filepath.Join(f.Dir, name+".history.jsonl") }

// Add makes a host without starting it.
func (f *Fleet) Add(name string) *Host {
	f.T.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	h := &Host{Fleet: f, Name: name, Dir: filepath.Join(f.Dir, name)}
	if err := os.MkdirAll(h.Dir, 0o700); err != nil {
		f.T.Fatal(err)
	}
	f.hosts[name] = h
	return h
}

// Configure writes the host's p2pnode.yaml.
func (h *Host) Configure(yaml string) *Host {
	h.Fleet.T.Helper()
	if err := os.WriteFile(h.configFile(), []byte(yaml), 0o600); err != nil {
		h.Fleet.T.Fatal(err)
	}
	return h
}

func (h *Host) configFile() string { return h.Dir + ".yaml" }

// Start runs p2pnode with args beside the ones that every test host gets.
func (h *Host) Start(args ...string) *Host {
	h.Fleet.T.Helper()
	cmd := h.Daemon(args...)
	out, err := os.OpenFile(h.Dir+".log", os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		h.Fleet.T.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = out, out
	// A session of its own: whoever runs the tests may have a terminal, a daemon has none.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		h.Fleet.T.Fatalf("cannot start %s: %v", h.Name, err)
	}
	h.cmd, h.output = cmd, out
	return h
}

// Daemon is the command that Start runs, for whoever starts it in another way; the
// leash is its descriptor 3.
func (h *Host) Daemon(args ...string) *exec.Cmd {
	base := []string{"--data", h.Dir, "--name", h.Name, "--history", h.Fleet.HistoryFile(h.Name), "--leash", "3", "--supervised", "no"}
	if _, err := os.Stat(h.configFile()); err == nil {
		base = append(base, "--config", h.configFile())
	}
	cmd := h.command(append(base, args...)...)
	cmd.ExtraFiles = []*os.File{h.Fleet.leashed}
	return cmd
}

// PID is exec's.
func (h *Host) PID() int { return h.cmd.Process.Pid }

// Wait waits for the end of exec and returns its exit code.
func (h *Host) Wait() int {
	err := h.cmd.Wait()
	h.cmd = nil
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return e.ExitCode()
	}
	return 0
}

// reap waits for an exec whose leash was cut; one that takes too long is killed,
// and what it leaves is found by the caller.
func (h *Host) reap() {
	if h.cmd != nil {
		late := time.AfterFunc(10*time.Second, func() { h.cmd.Process.Kill() })
		h.cmd.Wait()
		late.Stop()
	}
	if h.output != nil {
		h.output.Close()
	}
}

func (h *Host) command(args ...string) *exec.Cmd {
	argv := append(append([]string{}, h.Prefix...), cmp.Or(h.Bin, h.Fleet.Bin))
	argv = append(argv, args...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), h.Fleet.Env...)
	cmd.Env = append(cmd.Env, "NO_COLOR=1", "P2PNODE_DATA="+h.Dir)
	return cmd
}

// Run runs a CLI command against the host's daemon.
func (h *Host) Run(args ...string) (stdout, stderr string, code int) {
	cmd := h.command(args...)
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err := cmd.Run()
	if x, ok := errors.AsType[*exec.ExitError](err); ok {
		code = x.ExitCode()
	} else if err != nil {
		h.Fleet.T.Fatalf("%v: %v", args, err)
	}
	return o.String(), e.String(), code
}

// OK runs a CLI command that must succeed and returns its stdout.
func (h *Host) OK(args ...string) string {
	h.Fleet.T.Helper()
	out, errs, code := h.Run(args...)
	if code != 0 {
		h.Fleet.T.Fatalf("%s: p2pnode %s: exit %d\n%s%s", h.Name, strings.Join(args, " "), code, out, errs)
	}
	return out
}

// JSON runs a CLI command with -o json and decodes what it prints into v; false
// if it failed or printed something else.
func (h *Host) JSON(v any, args ...string) bool {
	out, _, _ := h.Run(append(args, "-o", "json")...)
	return json.Unmarshal([]byte(out), v) == nil
}

// Agents are the roaming agents as this host's node process tells it, asked without
// a process of its own: where an agent is changes by the second.
func (h *Host) Agents() []p2pnode.AgentDoc {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c, err := manage.Dial(ctx, h.Dir)
	if err != nil {
		return nil
	}
	defer c.Close()
	doc, err := c.Agents(ctx)
	if err != nil {
		return nil
	}
	return doc.Agents
}

// Metric is a counter or gauge of the host's node process, by its whole name with
// labels as /metrics writes it; -1 if it cannot say.
func (h *Host) Metric(name string) float64 {
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(h.Dir, "run", "node.sock"))
		},
	}}
	resp, err := client.Get("http://p2pnode/metrics")
	if err != nil {
		return -1
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			if v, err := strconv.ParseFloat(value, 64); err == nil {
				return v
			}
		}
	}
	return -1
}

// Nodes are the members as this host sees them, by name; nil if it cannot say.
func (h *Host) Nodes() map[string]p2pnode.NodeDoc {
	var d p2pnode.NodesDoc
	if !h.JSON(&d, "nodes") {
		return nil
	}
	out := map[string]p2pnode.NodeDoc{}
	for _, n := range d.Nodes {
		out[n.Name] = n
	}
	return out
}

// Sees reports whether this host believes all of names to be alive.
func (h *Host) Sees(names ...string) bool {
	nodes := h.Nodes()
	for _, n := range names {
		if nodes[n].Verdict != p2pnode.Alive {
			return false
		}
	}
	return len(names) > 0
}

// Incidents are the incidents that this host knows of.
func (h *Host) Incidents() []p2pnode.Incident {
	var d p2pnode.IncidentsDoc
	h.JSON(&d, "incidents", "ls")
	return d.Incidents
}

// Incident is the newest one about node and service ("" for the node process)
// that keep accepts.
func (h *Host) Incident(node, service string, keep func(p2pnode.Incident) bool) (found p2pnode.Incident, ok bool) {
	for _, i := range h.Incidents() {
		if i.Node == node && i.Service == service && keep(i) && !i.DetectedAt.Before(found.DetectedAt) {
			found, ok = i, true
		}
	}
	return found, ok
}

// Fault writes down, before it is made, a fault of service ("" for the whole
// host, @node for the node process) on the host.
func (h *Host) Fault(service string, class p2pnode.Class, pid int) {
	h.Fleet.harness.Record(p2pnode.HistoryEvent{Event: p2pnode.HistFault, Target: h.Name, Service: service, Class: class, PID: pid})
}

// CutOff writes down that wires of these hosts are about to be cut: nothing on
// them breaks.
func (f *Fleet) CutOff(names ...string) {
	for _, name := range names {
		f.harness.Record(p2pnode.HistoryEvent{Event: p2pnode.HistFault, Target: name, Class: p2pnode.ClassUnreachable, Reason: history.Cut})
	}
}

// Kill sends SIGKILL to pid and proves from outside that the process is gone.
func (h *Host) Kill(service string, class p2pnode.Class, pid int) {
	h.Fleet.T.Helper()
	if pid <= 1 {
		h.Fleet.T.Fatalf("%s: no pid for %s", h.Name, service)
	}
	h.Fault(service, class, pid)
	start := StartTicks(pid)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		h.Fleet.T.Fatalf("kill %d: %v", pid, err)
	}
	if !Eventually(2*time.Second, func() bool { return !Running(pid, start) }) {
		h.Fleet.T.Fatalf("pid %d of %s outlived its SIGKILL", pid, service)
	}
}

// Gone kills everything of the host at once: services first in the list are no
// different from roles, the whole host is dead for good.
func (h *Host) Gone() {
	h.Fleet.T.Helper()
	h.Fault("", p2pnode.ClassUnreachable, h.PID())
	// More than one sweep: what is being started while we kill is killed too.
	ok := Eventually(5*time.Second, func() bool {
		pids := h.Fleet.Processes(h.Dir)
		for _, p := range pids {
			syscall.Kill(p, syscall.SIGKILL)
		}
		return len(pids) == 0
	})
	h.cmd.Wait()
	h.cmd = nil
	if !ok {
		h.Fleet.T.Fatalf("%s could not be killed for good", h.Name)
	}
}

// Role is the pid of the host's node process or door, found by its command line;
// 0 if there is none.
func (h *Host) Role(role string) int {
	for _, pid := range h.Fleet.Processes(h.Dir) {
		argv := cmdline(pid)
		if len(argv) > 1 && argv[1] == role {
			return pid
		}
	}
	return 0
}

// Exec is the pid of the host's exec service, also of one that was started again
// after the first; 0 if there is none. It is the one that runs without a role.
func (h *Host) Exec() int {
	for _, pid := range h.Fleet.Processes(h.Dir) {
		argv := cmdline(pid)
		if len(argv) > 1 && strings.HasPrefix(argv[1], "--") && strings.HasSuffix(argv[0], filepath.Base(h.Fleet.Bin)) {
			return pid
		}
	}
	return 0
}

// Processes are the pids whose command line or environment names dir (or any
// folder of the fleet, for ""), and the services that an exec on it started: their
// cookie names device and inode of exec's own folder.
func (f *Fleet) Processes(dir string) []int {
	cookies := cookiesOf(dir)
	if dir == "" {
		dir = f.Dir
		for _, h := range f.hosts {
			cookies = append(cookies, cookiesOf(h.Dir)...)
		}
	}
	var out []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		marked := slices.ContainsFunc(cookies, func(c string) bool { return bytes.Contains(env, []byte(c)) })
		if marked || names(raw, dir) || names(env, dir) {
			out = append(out, pid)
		}
	}
	return out
}

func cookiesOf(dir string) []string {
	info, err := os.Stat(filepath.Join(dir, "exec"))
	if err != nil {
		return nil
	}
	st := info.Sys().(*syscall.Stat_t)
	return []string{fmt.Sprintf("P2PNODE_COOKIE=%x.%x.", st.Dev, st.Ino)}
}

// names reports whether text has dir as a whole path or a parent of one.
func names(text []byte, dir string) bool {
	for rest := text; ; {
		_, after, ok := bytes.Cut(rest, []byte(dir))
		if !ok {
			return false
		}
		if len(after) == 0 || after[0] == 0 || after[0] == '/' || after[0] == '.' {
			return true
		}
		rest = after
	}
}

func cmdline(pid int) []string {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.Split(strings.TrimRight(string(raw), "\x00"), "\x00")
}

// StartTicks is field 22 of /proc/PID/stat: with the pid it names a process for
// good. 0 if there is none.
func StartTicks(pid int) uint64 { return statOf(pid).ticks }

// Running reports whether the process (pid, start) runs: it exists and is no
// zombie.
func Running(pid int, start uint64) bool {
	s := statOf(pid)
	return s.state != "" && s.state != "Z" && s.state != "X" && s.ticks == start
}

// Parent is the parent of a process; 0 if there is none.
func Parent(pid int) int { return statOf(pid).parent }

// CPU is the user and system time of a process, in steps of 10 ms; 0 if there is none.
func CPU(pid int) time.Duration { return statOf(pid).cpu }

// Children are the processes that a process, by any of its threads, started and has not
// reaped.
func Children(pid int) (out []int) {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		raw, _ := os.ReadFile(list)
		for field := range strings.FieldsSeq(string(raw)) {
			if n, err := strconv.Atoi(field); err == nil {
				out = append(out, n)
			}
		}
	}
	return out
}

// stat is what /proc/PID/stat says of a process at one moment.
type stat struct {
	state  string // "" if there is none
	parent int
	cpu    time.Duration
	ticks  uint64
}

func statOf(pid int) (s stat) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return s
	}
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	if len(fields) < 20 {
		return s
	}
	s.state = fields[0]
	s.parent, _ = strconv.Atoi(fields[1])
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	s.cpu = time.Duration(user+system) * 10 * time.Millisecond
	s.ticks, _ = strconv.ParseUint(fields[19], 10, 64)
	return s
}

// Eventually asks cond every 5 ms until it holds or timeout has passed.
func Eventually(timeout time.Duration, cond func() bool) bool {
	for deadline := time.Now().Add(timeout); ; {
		if cond() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Must waits for cond and fails the test with what if it does not come.
func (f *Fleet) Must(timeout time.Duration, what string, cond func() bool) {
	f.T.Helper()
	if !Eventually(timeout, cond) {
		f.T.Fatalf("not within %v: %s", timeout, what)
	}
}

// Get asks url once, on a connection of its own; "" if there is no good answer
// within 200 ms.
func Get(url string) string {
	client := http.Client{Timeout: 200 * time.Millisecond, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil || resp.StatusCode != http.StatusOK {
		return ""
	}
	return strings.TrimSpace(string(body))
}

// Judge ends a test: the offline checker over all histories of the fleet. What
// holds only once a fleet has come to rest may take its time.
func (f *Fleet) Judge(opt history.Options) {
	f.T.Helper()
	for _, v := range f.Violations(opt, restPatience) {
		f.T.Errorf("history: %s", v)
	}
}

// restPatience is how long a fleet may take to come to rest at the end of a test.
const restPatience = 20 * time.Second

// Violations are what the offline checker finds; patience is for the rules that
// hold at rest only.
func (f *Fleet) Violations(opt history.Options, patience time.Duration) (out []history.Violation) {
	f.T.Helper()
	lines := 0
	Eventually(patience, func() bool {
		events, err := history.ReadFiles(f.HistoryFile("*"))
		if err != nil {
			f.T.Fatal(err)
		}
		lines, out = len(events), history.Check(events, opt)
		return !history.MaySettle(out) || len(out) == 0
	})
	f.T.Logf("history: %d lines judged", lines)
	return out
}

// Within is a context of the test that ends after d.
func (f *Fleet) Within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	f.T.Cleanup(cancel)
	return ctx
}
