package chaos

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"p2pnode"
	kept "p2pnode/exec"
	"p2pnode/test/bin"
	"p2pnode/test/host"
	"p2pnode/test/score"
)

// Row 26: containers with few pids and with little memory. What has no room is tried
// again, with patience, and said; exec lives on, and when there is room all runs.
func TestScarce(t *testing.T) {
	f := New(t, bin.P2pnode(t))
	t.Run("pids", f.fewPids)
	t.Run("memory", f.littleMemory)
}

// scarce starts a container with services and little of something.
func (f *Fleet) scarce(name, services string, flags ...string) *Box {
	f.t.Helper()
	b := &Box{Name: name, fleet: f, container: f.run + "-" + name, folder: filepath.Join(f.dir, name)}
	f.must(os.Mkdir(b.folder, 0o700))
	f.must(os.WriteFile(filepath.Join(b.folder, "p2pnode.yaml"), []byte("services:\n"+services), 0o600))
	f.docker(slices.Concat([]string{"run", "-d", "--name", b.container, "--label", label + "=" + f.run, "--network", f.run, "-v", b.folder + ":/chaos"}, flags,
		[]string{f.image, "--config", "/chaos/p2pnode.yaml", "--ephemeral", "no", "--listen", "127.0.0.1:0"})...)
	f.must(b.started())
	f.t.Cleanup(func() {
		if f.t.Failed() {
			out, _ := exec.Command("docker", "logs", "--tail", "300", b.container).CombinedOutput()
			f.t.Logf("%s: %s %s", name, f.docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", b.container), out)
		}
	})
	return b
}

// status asks exec from outside: inside there may be no room to ask.
func (b *Box) status() (st p2pnode.ExecStatus) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := kept.Dial(ctx, fmt.Sprintf("/proc/%d/root/var/lib/p2pnode", b.PID()), kept.RoleCLI)
	if err != nil {
		return st
	}
	defer c.Close()
	st, _ = c.Status(ctx)
	return st
}

// roles are the pids of door and node process.
func (b *Box) roles() [2][]int {
	return [2][]int{b.find(p2pnode.SelfDoor), b.find(p2pnode.SelfNode)}
}

// signed is how often a service was started, by its own word.
func (b *Box) signed(name string) int {
	raw, _ := os.ReadFile(filepath.Join(b.folder, name+".ledger"))
	return strings.Count(string(raw), "\n")
}

// scarceFor is how long a container stays short of something.
const scarceFor = 30 * time.Second

// A pids limit with room for half of what is to run: who comes first has it. exec, which
// is PID 1, lives on, whoever does not.
func (f *Fleet) fewPids(t *testing.T) {
	const limit, n = 48, 10
	var services strings.Builder
	for i := range n {
		fmt.Fprintf(&services, "  s%d: {command: [/victim, -port, \"%d\", -ledger, /chaos/s%d.ledger]}\n", i, firstPort+i, i)
	}
	b := f.scarce("pids", services.String(), "--pids-limit", fmt.Sprint(limit))
	exec, start := b.PID(), host.StartTicks(b.PID())
	// What it has it keeps: who takes the last pid before it has its threads ends it, in
	// some runs and not in others.
	f.eventually(time.Minute, "exec answers", func() bool { return b.status().PID != 0 || !host.Running(exec, start) })
	if n := threads(exec); n < execThreads {
		t.Fatalf("exec begins with %d threads, and may want %d when there is no room", n, execThreads)
	}
	for end := time.Now().Add(scarceFor); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if !host.Running(exec, start) {
			t.Fatal("exec has ended")
		}
	}
	up, most := 0, 0
	st := b.status()
	for _, s := range append(st.Services, st.Door, st.Node) {
		most = max(most, b.signed(s.Name), s.Restarts)
		if s.State == p2pnode.StateUp {
			up++
		} else if s.Why == "" {
			t.Errorf("ps does not say why %s is down: %+v", s.Name, s)
		}
	}
	if up == 0 || up == n+2 || most > 20 {
		t.Errorf("%d of %d are up, and one was started %d times", up, n+2, most)
	}
	f.docker("update", "--pids-limit", "200", b.container)
	f.eventually(3*time.Minute, "all run once there is room", func() bool {
		st := b.status()
		return len(st.Services) == n && !slices.ContainsFunc(append(st.Services, st.Door, st.Node), func(s p2pnode.ServiceStatus) bool { return s.State != p2pnode.StateUp })
	})
	score.Record(t, score.Figure{
		Row: "26", How: fmt.Sprintf("a pids limit of %d", limit), N: 1, Where: "containers", Kept: !t.Failed(),
		Text:   fmt.Sprintf("%d of %d have room; exec lives on and says why the others are down, which were tried at most %d times; all run once there is room", up, n+2, most),
		Chance: fmt.Sprintf("%d that have no room for %v", n+2-up, scarceFor),
	})
}

// execThreads are what exec may want at once: ten more than a Go process begins with.
const execThreads = 14

func threads(pid int) int {
	all, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	return len(all)
}

// A memory limit, and a service that takes all that it gets.
func (f *Fleet) littleMemory(t *testing.T) {
	const limit = "64m"
	b := f.scarce("memory", `  web: {command: [/victim, -port, "8080", -ledger, /chaos/web.ledger]}
  db: {command: [/victim, -port, "8081", -ledger, /chaos/db.ledger]}
  greedy: {command: [/victim, -port, "8082", -ledger, /chaos/greedy.ledger, -fill, "200"]}
`, "--memory", limit, "--memory-swap", limit)
	f.eventually(time.Minute, "the greedy one was killed twice", func() bool { return b.signed("greedy") > 2 })
	roles, web, db := b.roles(), b.find("web"), b.find("db")
	if len(roles[0]) != 1 || len(roles[1]) != 1 || len(web) != 1 || len(db) != 1 {
		t.Fatalf("door and node process are %v, web %v, db %v", roles, web, db)
	}
	for end := time.Now().Add(scarceFor); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if now := b.roles(); !slices.EqualFunc(now[:], roles[:], slices.Equal) || !slices.Equal(b.find("web"), web) || !slices.Equal(b.find("db"), db) {
			t.Fatalf("door and node process were %v, now %v; web %v, now %v; db %v, now %v", roles, now, web, b.find("web"), db, b.find("db"))
		}
	}
	starts := b.signed("greedy")
	var last *p2pnode.Exit
	for _, s := range b.status().Services {
		if s.Name == "greedy" {
			last = s.LastExit
		}
	}
	// Five failures within a minute, and then it is tried once a minute.
	if last == nil || last.Signal != "SIGKILL" || starts > 7 {
		t.Errorf("the greedy one was started %d times, and ended with %+v", starts, last)
	}
	score.Record(t, score.Figure{
		Row: "26", How: "64 MiB of memory", N: starts, Where: "containers", Kept: !t.Failed(),
		Text:   fmt.Sprintf("a service that takes 200 MiB was started %d times; nothing else was touched", starts),
		Chance: fmt.Sprintf("%d kills for want of memory", starts),
	})
}
