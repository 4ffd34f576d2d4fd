package exec

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"p2pnode"

	"golang.org/x/sys/unix"
)

// A program that keeps a pid file, as a database does, is adopted and dies, or dies while
// no exec is there, and whoever is its parent then takes its time to take its status: it
// is started once to find its own number alive, not again and again. It is started in the
// end where nobody ever takes it. One that keeps no such file is back before.
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
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{db, service("web", "part:sleep")}})
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
	lived := func() (pid int) {
		eventually(t, "it has written its number down", func() bool {
			raw, _ := os.ReadFile(filepath.Join(dir, "pid"))
			pid = h.await("db", p2pnode.StateUp).PID
			return strings.TrimSpace(string(raw)) == strconv.Itoa(pid)
		})
		return pid
	}
	for _, c := range []struct {
		name string
		dies func(pid int)
	}{
		{"adopted", func(pid int) { h.killExec(); lived(); dies(pid) }},
		{"unseen", func(pid int) { h.withoutExec(func() { dies(pid) }) }},
	} {
		pid, before := lived(), refused()
		c.dies(pid)
		eventually(t, "it is started once", func() bool { return refused() > before })
		time.Sleep(500 * time.Millisecond) // it is tried again after 100 ms
		reap()
		if now := h.awaitNew("db", pid); refused() != before+1 || now.Restarts == 0 {
			t.Errorf("%s: %d starts saw the number of the dead one; %+v", c.name, refused()-before, now)
		}
	}
	h.killExec()
	web := h.await("web", p2pnode.StateUp).PID
	dies(web)
	h.awaitNew("web", web)
	if st, err := readStat(web); err != nil || st.state != 'Z' {
		t.Errorf("web waited for the number of the dead one: %v", err)
	}
	reap()
	pid, before := lived(), refused()
	h.killExec()
	lived()
	dies(pid)
	eventually(t, "it is started although nobody takes the status", func() bool { return refused() > before+1 })
	if !slices.Contains(zombies, pid) || h.status("db").PID == pid {
		t.Errorf("%v, %+v", zombies, h.status("db"))
	}
	reap()
	h.awaitNew("db", pid)
}
