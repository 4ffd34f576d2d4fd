package exec

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"p2pnode"

	"golang.org/x/sys/unix"
)

// A program that keeps a pid file, as a database does, is adopted and dies, or dies while
// no exec is there, and whoever is its parent then takes its time to take its status: it
// is not started to find its own number alive. It is started in the end where nobody ever
// takes it.
func TestANumberThatAnInitHoldsIsWaitedFor(t *testing.T) {
	dir := t.TempDir()
	db := p2pnode.ServiceSpec{
		Name: "db", StopGrace: p2pnode.DefaultStopGrace, Cwd: dir,
		Command: []string{"sh", "-c", "kill -0 $(cat pid) 2>/dev/null && { echo $$ >>refused; exit 1; }; echo $$ >pid; exec sleep 1000"},
	}
	refused := func() int {
		raw, _ := os.ReadFile(filepath.Join(dir, "refused"))
		return len(strings.Fields(string(raw)))
	}
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{db}})
	// This process is the slow init, of what loses its exec now.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	var zombies []int
	reap := func() {
		for _, pid := range zombies {
			unix.Wait4(pid, nil, 0, nil)
		}
		zombies = nil
	}
	defer reap()
	dies := func(pid int) {
		kill9(t, pid)
		zombies = append(zombies, pid)
		eventually(t, "it is a zombie of this process", func() bool {
			st, err := readStat(pid)
			return err == nil && st.state == 'Z' && st.ppid == os.Getpid()
		})
	}
	lived := func() int { return h.await("db", p2pnode.StateUp).PID }
	for _, c := range []struct {
		name string
		dies func(pid int)
	}{
		{"adopted", func(pid int) { h.killExec(); lived(); dies(pid) }},
		{"unseen", func(pid int) { h.withoutExec(func() { dies(pid) }) }},
	} {
		pid := lived()
		c.dies(pid)
		time.Sleep(300 * time.Millisecond)
		reap()
		if now := h.awaitNew("db", pid); refused() > 0 || now.Restarts == 0 {
			t.Errorf("%s: %d starts saw the number of the dead one; %+v", c.name, refused(), now)
		}
	}
	pid := lived()
	h.killExec()
	lived()
	dies(pid)
	eventually(t, "it is started although nobody takes the status", func() bool { return refused() > 0 })
	if !slices.Contains(zombies, pid) || h.status("db").PID == pid {
		t.Errorf("%v, %+v", zombies, h.status("db"))
	}
	reap()
	h.awaitNew("db", pid)
}
