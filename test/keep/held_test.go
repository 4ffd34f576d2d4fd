package keep

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/history"
	"p2pnode/test/host"
	"p2pnode/test/need"
)

// freePorts are ports of 127.0.0.1 that nobody listens on.
func freePorts(t testing.TB, n int) (out []int) {
	t.Helper()
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		out = append(out, l.Addr().(*net.TCPAddr).Port)
	}
	return out
}

// startsOf are the starts of each service by its own ledger, which must be none but
// the first; but for those that more names.
func (h *Host) startsOf(names []string, more map[string]int) {
	h.T.Helper()
	for _, name := range names {
		n, second := starts(h.T, filepath.Join(h.Fleet.Dir, name))
		if n != 1+more[name] || second != 0 {
			h.T.Errorf("%s: %d starts, %d of them second copies; want %d", name, n, second, 1+more[name])
		}
	}
}

// deadlock makes a service hang and waits until another process of it answers.
func (h *Host) deadlock(name string, port int) {
	h.T.Helper()
	pid := service(h.status(), name).PID
	if pid <= 0 {
		h.T.Fatalf("%s does not run", name)
	}
	h.Fault(name, p2pnode.ClassHung, pid)
	if err := syscall.Kill(pid, syscall.SIGUSR1); err != nil {
		h.T.Fatal(err)
	}
	h.Fleet.Must(45*time.Second, "the deadlocked service is restarted", func() bool {
		s := service(h.status(), name)
		return s.State == p2pnode.StateUp && s.PID != pid && host.Get(fmt.Sprintf("http://127.0.0.1:%d/", port)) != ""
	})
}

// TestAFrozenHostIsNotHung: everything of a host stands still, exec too, for 0.6 and
// for 3 s: heartbeats and answers are late when it goes on, and nothing is restarted
// for it. A real deadlock after that is.
func TestAFrozenHostIsNotHung(t *testing.T) {
	g := freezer(t)
	ports := freePorts(t, 2)
	h := newBehind(t, g.entered(), func(victim, dir string) string {
		return fmt.Sprintf(`  beating: {command: [%[1]s, -ledger, %[2]s/beating], watchdog: 1s}
  asked: {command: [%[1]s, -ledger, %[2]s/asked, -port, "%[3]d"], check: {http: "http://127.0.0.1:%[3]d/", every: 200ms, timeout: 1s, failures: 1}}
  touching: {shell: "echo x >> %[2]s/touching; while :; do touch %[2]s/beat; sleep 0.1; done", check: {file: %[2]s/beat, newer: 1500ms, every: 500ms, failures: 1}}
  deaf: {command: [%[1]s, -ledger, %[2]s/deaf, -port, "%[4]d"], check: {http: "http://127.0.0.1:%[4]d/", every: 300ms, timeout: 300ms}}
`, victim, dir, ports[0], ports[1])
	})
	t.Cleanup(func() { g.freeze(false) })
	h.Fleet.Must(20*time.Second, "all are up", func() bool { return len(h.pids("")) == 4 })
	before := h.pids("")
	for _, d := range []time.Duration{600 * time.Millisecond, 3 * time.Second, 600 * time.Millisecond, 3 * time.Second} {
		g.freeze(true)
		time.Sleep(d)
		g.freeze(false)
		time.Sleep(1500 * time.Millisecond) // a deadline of each passes
		h.Fleet.Must(10*time.Second, "all are up again", func() bool { return len(h.pids("")) == 4 })
	}
	for name, pid := range h.pids("") {
		if before[name] != pid {
			t.Errorf("%s: pid %d, then %d", name, before[name], pid)
		}
	}
	h.deadlock("deaf", ports[1])
	h.startsOf([]string{"beating", "asked", "touching", "deaf"}, map[string]int{"deaf": 1})
	h.Fleet.Judge(history.Options{})
}

// TestAThrottledServiceIsNotHung: one at a tenth of a core with twelve clients, one
// at a hundredth, both too slow for their checks, are left to work. Two that are
// really deadlocked beside them, one of them in the group whose tenth is used up, are
// restarted.
func TestAThrottledServiceIsNotHung(t *testing.T) {
	tenth, hundredth := quota(t, 10), quota(t, 1)
	ports := freePorts(t, 4)
	h := New(t, func(victim, dir string) string {
		var b strings.Builder
		for i, s := range []struct{ name, work string }{{"busy", "20ms"}, {"slow", "20ms"}, {"deaf", "0s"}, {"jammed", "0s"}} {
			fmt.Fprintf(&b, "  %[1]s: {command: [%[2]s, -ledger, %[3]s/%[1]s, -port, \"%[4]d\", -work, %[5]s], check: {http: \"http://127.0.0.1:%[4]d/\", every: 500ms, timeout: 500ms}}\n",
				s.name, victim, dir, ports[i], s.work)
		}
		return b.String()
	})
	h.Fleet.Must(20*time.Second, "all are up", func() bool { return len(h.pids("")) == 4 })
	before := h.pids("")
	tenth.hold(before["busy"])
	hundredth.hold(before["slow"])
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	for range 12 {
		go client(ctx, ports[0])
	}
	began := time.Now()
	for _, name := range []string{"busy", "slow"} {
		h.Fleet.Must(20*time.Second, name+" is too slow for its check, and said to be busy", func() bool {
			s := service(h.status(), name)
			return s.State == p2pnode.StateUnready && strings.HasPrefix(s.Why, "busy, not hung")
		})
	}
	tenth.hold(before["jammed"])
	h.deadlock("jammed", ports[3])
	h.deadlock("deaf", ports[2])
	time.Sleep(time.Until(began.Add(8 * time.Second))) // several rounds of three bad answers
	stop()
	tenth.lift()
	hundredth.lift()
	h.Fleet.Must(20*time.Second, "all are up again", func() bool { return len(h.pids("")) == 4 })
	h.startsOf([]string{"busy", "slow", "deaf", "jammed"}, map[string]int{"deaf": 1, "jammed": 1})
	h.Fleet.Judge(history.Options{})
}

// client asks again and again.
func client(ctx context.Context, port int) {
	for ctx.Err() == nil {
		c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
		if err != nil {
			continue
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: victim\r\n\r\n")
		bufio.NewReader(c).ReadString('\n')
		c.Close()
	}
}

// group is a cgroup of the test's own.
type group struct {
	t   testing.TB
	dir string
	max string // file of the quota, and what lifts it
	off string
}

// newGroup makes one under root; it is removed when what was in it has ended.
func newGroup(t testing.TB, root string) (group, error) {
	dir, err := os.MkdirTemp(root, "held-")
	if err != nil {
		return group{}, err
	}
	t.Cleanup(func() {
		if !host.Eventually(5*time.Second, func() bool { removeGroups(dir); return syscall.Access(dir, 0) != nil }) {
			t.Errorf("%s cannot be removed", dir)
		}
	})
	return group{t: t, dir: dir}, nil
}

func removeGroups(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			removeGroups(filepath.Join(dir, e.Name()))
		}
	}
	syscall.Rmdir(dir)
}

func (g group) write(file, text string) {
	g.t.Helper()
	if err := os.WriteFile(filepath.Join(g.dir, file), []byte(text), 0); err != nil {
		g.t.Fatal(err)
	}
}

func (g group) hold(pid int) { g.t.Helper(); g.write("cgroup.procs", fmt.Sprint(pid)) }

// entered is what, before a program's argv, runs it in the group.
func (g group) entered() []string {
	return []string{"/bin/sh", "-c", "echo $$ > " + g.dir + "/cgroup.procs && exec \"$@\"", "sh"}
}

func (g group) lift() { g.t.Helper(); g.write(g.max, g.off) }

// freezer is a group of cgroup v2 that can be frozen with all that is under it.
func freezer(t testing.TB) group {
	t.Helper()
	need.Root(t, "a cgroup is wanted")
	var err error
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err = os.Stat(filepath.Join(root, "cgroup.controllers")); err != nil {
			continue // no tree of v2
		}
		g, failed := newGroup(t, root)
		need.Had(t, failed)
		return g
	}
	need.Had(t, err)
	return group{}
}

// freeze stops or lets go, and waits until the kernel says that it is so.
func (g group) freeze(on bool) {
	g.t.Helper()
	value := map[bool]string{true: "1", false: "0"}[on]
	g.write("cgroup.freeze", value)
	if !host.Eventually(10*time.Second, func() bool {
		raw, _ := os.ReadFile(filepath.Join(g.dir, "cgroup.events"))
		return strings.Contains(string(raw), "frozen "+value)
	}) {
		g.t.Fatalf("not within 10 s: frozen %s", value)
	}
}

// quota is a group that may use percent of a core, by the CPU controller of cgroup v1
// or v2.
func quota(t testing.TB, percent int) group {
	t.Helper()
	need.Root(t, "a cgroup with the CPU controller is wanted")
	const period = 100_000 // microseconds
	if _, err := os.Stat("/sys/fs/cgroup/cpu/cgroup.procs"); err == nil {
		g, err := newGroup(t, "/sys/fs/cgroup/cpu")
		need.Had(t, err)
		g.max, g.off = "cpu.cfs_quota_us", "-1"
		g.write(g.max, fmt.Sprint(percent*period/100))
		return g
	}
	os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+cpu"), 0)
	g, err := newGroup(t, "/sys/fs/cgroup")
	need.Had(t, err)
	g.max, g.off = "cpu.max", "max"
	_, err = os.Stat(filepath.Join(g.dir, g.max))
	need.Had(t, err)
	g.write(g.max, fmt.Sprint(percent*period/100, " ", period))
	return g
}
