// Package inits tests a host from below: what starts p2pnode, which signals it gets,
// and who starts it again. Terminals, runit, s6 and systemd are real: runit and s6
// supervise beside the test, systemd is PID 1 of namespaces (root), and of a kernel in
// user mode where its cgroups matter, or the end of the whole host. What each row of "Signals" in docs/OPERATIONS.md
// says is asserted here from outside: pids, exit codes, /proc.
//
// Run it with P2PNODE_BIN set, as `make test` does. Read next: package
// p2pnode/test/chaos for p2pnode as PID 1 of a container.
package inits

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"p2pnode"
	kept "p2pnode/exec"
	"p2pnode/test/bin"
	"p2pnode/test/host"
)

// config has one service and no grace that a test would have to wait for.
const config = `grace: {node: 100ms, node_stop: 1s}
services:
  web:
    command: [sleep, "100000"]
    ready: started
`

// alone are the flags of a host that founds a cluster at once and meets nobody.
var alone = []string{"--listen", "127.0.0.1:0"}

// patience is for what takes milliseconds on a machine that has nothing else to do.
const patience = time.Minute

func newHost(t *testing.T) *host.Host {
	t.Helper()
	return host.NewFleet(t, bin.P2pnode(t)).Add("a").Configure(config)
}

// pids are the processes of a host that are up, as exec has them: asked without a
// process of its own for each look.
type pids struct{ exec, door, node, web int }

func (p pids) whole() bool { return p.exec != 0 && p.door != 0 && p.node != 0 && p.web != 0 }

func look(h *host.Host) (out pids) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c, err := kept.Dial(ctx, h.Dir, kept.RoleCLI)
	if err != nil {
		return pids{}
	}
	defer c.Close()
	st, err := c.Status(ctx)
	if err != nil {
		return pids{}
	}
	out.exec = st.PID
	for _, s := range append(st.Services, st.Door, st.Node) {
		pid := map[string]*int{p2pnode.SelfDoor: &out.door, p2pnode.SelfNode: &out.node, "web": &out.web}[s.Name]
		if pid != nil && s.State == p2pnode.StateUp && host.Running(s.PID, host.StartTicks(s.PID)) {
			*pid = s.PID
		}
	}
	return out
}

// settled waits until all of the host runs.
func settled(h *host.Host) pids {
	h.Fleet.T.Helper()
	return becomes(h, "all of the host runs", func(pids) bool { return true })
}

// becomes waits until the host's processes are as ok wants them.
func becomes(h *host.Host, what string, ok func(pids) bool) (now pids) {
	h.Fleet.T.Helper()
	if !host.Eventually(patience, func() bool { now = look(h); return now.whole() && ok(now) }) {
		h.Fleet.T.Fatalf("not within %v: %s: %+v", patience, what, now)
	}
	return now
}

// empty waits until nothing of the host is left.
func empty(h *host.Host, when string) {
	h.Fleet.T.Helper()
	var left []int
	if !host.Eventually(patience, func() bool { left = h.Fleet.Processes(h.Dir); return len(left) == 0 }) {
		h.Fleet.T.Fatalf("left %s: %v", when, left)
	}
}

// execs counts the execs that work or wait in the host's folder: zombies are none.
func execs(h *host.Host) (out []int) {
	for _, pid := range h.Fleet.Processes(h.Dir) {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		argv := strings.Split(string(raw), "\x00")
		if err == nil && len(argv) > 1 && strings.HasPrefix(argv[1], "--") && strings.HasSuffix(argv[0], "p2pnode") {
			out = append(out, pid)
		}
	}
	return out
}

// stays looks for longer than a guard waits before it starts an exec: what holds
// now is to hold all that time.
func stays(t *testing.T, what string, holds func() bool) {
	t.Helper()
	if host.Eventually(1500*time.Millisecond, func() bool { return !holds() }) {
		t.Errorf("not for long: %s", what)
	}
}
