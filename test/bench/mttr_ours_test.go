package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/manage"
	"p2pnode/test/bin"
	"p2pnode/test/host"

	pexec "p2pnode/exec"
)

// ours are the ways to run p2pnode that are measured: what `config init` writes,
// and each setting that a goal names.
func ours() []contender {
	return []contender{
		our("p2pnode", "as `config init` writes it", "", faultKill, faultCrowd, faultChild, faultMissing, faultSupervisor, faultNone),
		our("p2pnode, another service prints 100 MB a second", "as `config init` writes it", "", faultFlood),
		our("p2pnode, recover: local", "`recover: local`", "recover: local", faultKill, faultCrowd),
		our("p2pnode, stop_grace: 0s", "`stop_grace: 0s`", "stop_grace: 0s", faultStop),
		our("p2pnode, watchdog: 300ms", "`watchdog: 300ms`", "watchdog: 300ms", faultDeadlock),
		our("p2pnode, check", "an http check at its defaults", `check: {http: "http://127.0.0.1:PORT/"}`, faultDeadlock, faultNone),
	}
}

// flood prints a line of 100 kB each millisecond.
const flood = "  flood: {command: [%q, -count, 1ms, -wide, \"100000\"]}\n"

// our is p2pnode with services that have one more line than `config init` writes.
func our(name, config, more string, faults ...fault) contender {
	return contender{
		name: name, config: config, ours: true, faults: faults, ready: func(*testing.B) {},
		start: func(b *testing.B, dir string, ts []*target) *supervisor {
			data, file := filepath.Join(dir, "data"), filepath.Join(dir, "p2pnode.yaml")
			yaml := initial(b, file) + declare(more, ts)
			if slices.ContainsFunc(faults, func(f fault) bool { return f.name == faultFlood.name }) {
				yaml += fmt.Sprintf(flood, bin.Victim(b))
			}
			if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
				b.Fatal(err)
			}
			leash, cut, err := os.Pipe()
			if err != nil {
				b.Fatal(err)
			}
			program, out := bin.P2pnode(b), logFile(b, dir)
			again := func() *exec.Cmd {
				cmd := exec.Command(program, append([]string{"--data", data, "--config", file, "--leash", "3"}, loopback...)...)
				cmd.Env = mark(dir)
				cmd.ExtraFiles, cmd.Stdout, cmd.Stderr = []*os.File{leash}, out, out
				cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
				if err := cmd.Start(); err != nil {
					b.Fatal(err)
				}
				return cmd
			}
			s := &supervisor{again: again, cmd: again()}
			s.pids = func() []int { return execOf(data) }
			s.more = func() []int {
				return slices.DeleteFunc(marked(dir), func(pid int) bool { return argument(pid, 1) != "door" && argument(pid, 1) != "node" })
			}
			s.agent = func(b *testing.B) int { return byAgent(b, data) }
			s.stop = func() {
				cut.Close()
				s.cmd.Wait()
				leash.Close()
				if !host.Eventually(10*time.Second, func() bool { return len(marked(dir)) == 0 }) {
					b.Errorf("processes of %s are left: %v", dir, marked(dir))
				}
			}
			poll(b, time.Now(), 15*time.Second, "the node process is up", func() bool {
				c, err := manage.Dial(b.Context(), data)
				if err != nil {
					return false
				}
				defer c.Close()
				doc, err := c.Nodes(b.Context())
				return err == nil && len(doc.Nodes) > 0
			})
			return s
		},
	}
}

// initial is what `config init` writes into file, up to its services.
func initial(b *testing.B, file string) string {
	b.Helper()
	if out, err := exec.Command(bin.P2pnode(b), "config", "init", file).CombinedOutput(); err != nil {
		b.Fatalf("config init: %v: %s", err, out)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	head, _, ok := strings.Cut(string(raw), "\nservices:\n")
	if !ok {
		b.Fatalf("config init writes no services:\n%s", raw)
	}
	return head + "\nservices:\n"
}

func declare(more string, ts []*target) string {
	var yaml strings.Builder
	for _, t := range ts {
		fmt.Fprintf(&yaml, "  %s:\n    command: [\"%s\"]\n", t.name, strings.Join(t.argv, `", "`))
		if more != "" {
			fmt.Fprintf(&yaml, "    %s\n", strings.ReplaceAll(more, "PORT", fmt.Sprint(t.port)))
		}
	}
	return yaml.String()
}

// execOf is the exec of a data folder, by its lock.
func execOf(data string) (out []int) {
	if alive, pid := pexec.ExecAlive(data); alive {
		out = append(out, pid)
	}
	return out
}

// byAgent counts incidents that an agent mended.
func byAgent(b *testing.B, data string) (n int) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 5*time.Second)
	defer cancel()
	c, err := manage.Dial(ctx, data)
	if err != nil {
		b.Error(err)
		return 0
	}
	defer c.Close()
	doc, err := c.Incidents(ctx)
	if err != nil {
		b.Error(err)
	}
	for _, i := range doc.Incidents {
		if i.By.Kind == p2pnode.ByAgent && !i.By.Fallback {
			n++
		}
	}
	return n
}

// logFile takes what a supervisor says.
func logFile(b *testing.B, dir string) *os.File {
	b.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { f.Close() })
	return f
}
