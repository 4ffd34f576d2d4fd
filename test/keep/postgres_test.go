package keep

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/history"
	"p2pnode/test/host"
	"p2pnode/test/need"
)

// database is a PostgreSQL of Debian's package in a folder of its own.
type database struct {
	t       testing.TB
	bin     string
	dir     string // data and socket
	as      *syscall.Credential
	service string // its section
}

func newDatabase(t testing.TB) *database {
	t.Helper()
	need.Root(t, "postgres wants a user of its own")
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/pgbench")
	if len(found) == 0 {
		need.Had(t, errors.New("no pgbench: apt-get install postgresql"))
	}
	who, err := user.Lookup("postgres")
	need.Had(t, err)
	uid, err := strconv.ParseUint(who.Uid, 10, 32)
	gid, errGroup := strconv.ParseUint(who.Gid, 10, 32)
	if err := errors.Join(err, errGroup); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "p2pnode-pg-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chown(dir, int(uid), -1); err != nil {
		t.Fatal(err)
	}
	d := &database{t: t, bin: filepath.Dir(found[len(found)-1]), dir: dir, as: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	d.must("initdb", "--no-sync", "--auth=trust", "--locale=C", "-D", dir+"/data")
	d.service = fmt.Sprintf("  db: {command: [%s/postgres, -D, %s/data, -k, %s, -c, listen_addresses=, -c, autovacuum=off, -c, fsync=off], user: postgres, cwd: %s, stop: {signal: INT}}\n", d.bin, dir, dir, dir)
	return d
}

// run is a program of the package, as the database's user.
func (d *database) run(name string, args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(d.bin, name), args...)
	cmd.Dir = d.dir
	cmd.Env = append(os.Environ(), "PGHOST="+d.dir, "PGUSER=postgres", "PGDATABASE=postgres")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: d.as}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (d *database) must(name string, args ...string) string {
	d.t.Helper()
	out, err := d.run(name, args...)
	if err != nil {
		d.t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return out
}

// tree is a process and its children with their names; those that serve a client are
// left out.
func tree(pid int) map[int]string {
	out := map[int]string{}
	for _, n := range append(host.Children(pid), pid) {
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", n))
		if title := strings.TrimRight(strings.ReplaceAll(string(cmdline), "\x00", " "), " "); title != "" && !strings.Contains(title, "[local]") {
			out[n] = title
		}
	}
	return out
}

// answers asks the database something.
func (d *database) answers() bool {
	out, err := d.run("psql", "-qAtc", "SELECT 1")
	return err == nil && out == "1\n"
}

// postmasters are those that run on the data folder: not their children, which look
// like them for a moment after each fork.
func (d *database) postmasters() (out []int) {
	found := map[int]uint64{}
	for _, pid := range processes() {
		raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if strings.HasPrefix(string(raw), d.bin+"/postgres\x00-D\x00"+d.dir+"/data\x00") {
			found[pid] = host.StartTicks(pid)
		}
	}
	for pid, ticks := range found {
		if _, child := found[host.Parent(pid)]; !child && host.Running(pid, ticks) {
			out = append(out, pid)
		}
	}
	return out
}

// children are the processes that a process has, with their start ticks.
func children(pid int) map[int]uint64 {
	out := map[int]uint64{}
	for _, n := range host.Children(pid) {
		out[n] = host.StartTicks(n)
	}
	return out
}

// TestPostmasterIsKilled: the postmaster dies while it has clients, one of them at work
// on something that never looks whether it still lives, and exec up to 10 ms before or
// after it. What the dead one left is ended before the next one starts, which would not
// start beside it (its shared memory is in use); there is never a second one, and every
// row that was acknowledged is there.
func TestPostmasterIsKilled(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	h := New(t, func(_, _ string) string { return d.service })
	h.Fleet.Must(30*time.Second, "the database answers", d.answers)
	d.must("psql", "-qc", "CREATE TABLE said (n int)")
	d.must("pgbench", "-i", "-s", "1", "-q")

	stop := make(chan struct{})
	var load sync.WaitGroup
	end := sync.OnceFunc(func() { close(stop); load.Wait() })
	t.Cleanup(end)
	repeat := func(f func(n int)) {
		load.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
					f(n)
				}
			}
		})
	}
	said, looks, most := 0, 0, 0
	repeat(func(int) { d.run("pgbench", "-n", "-c", "2", "-t", "1000") }) // until its server dies
	repeat(func(n int) {
		if _, err := d.run("psql", "-qc", fmt.Sprintf("INSERT INTO said VALUES (%d)", n)); err == nil {
			said++
		}
	})
	repeat(func(int) {
		looks, most = looks+1, max(most, len(d.postmasters()))
		time.Sleep(5 * time.Millisecond)
	})

	rng, left := dice(t), 0
	for round := range 5 {
		pid := h.pids("")["db"]
		go d.run("psql", "-qc", "DO $$ BEGIN LOOP END LOOP; END $$")
		h.Fleet.Must(20*time.Second, "a client keeps it busy", func() bool {
			for child := range children(pid) {
				if raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", child)); strings.Contains(string(raw), "[local] DO") {
					return true
				}
			}
			return false
		})
		of := children(pid)
		targets := []string{"db", p2pnode.SelfExec}
		if round%2 == 1 {
			targets = []string{p2pnode.SelfExec, "db"}
		}
		h.killInTurn(rng, targets)
		for child, ticks := range of {
			if host.Running(child, ticks) {
				left++
			}
		}
		h.recovered(round)
		h.Fleet.Must(30*time.Second, "the next one answers", d.answers)
		for child, ticks := range of {
			if host.Running(child, ticks) {
				t.Errorf("round %d: process %d of the dead postmaster %d still runs", round, child, pid)
			}
		}
		if t.Failed() {
			break
		}
	}
	end()
	there, err := strconv.Atoi(strings.TrimSpace(d.must("psql", "-qAtc", "SELECT count(DISTINCT n) FROM said")))
	if err != nil || there < said || said == 0 {
		t.Errorf("%d rows were acknowledged, %d are there, %v", said, there, err)
	}
	if most != 1 || looks < 20 {
		t.Errorf("at most %d postmasters in %d looks", most, looks)
	}
	if left == 0 {
		t.Error("no postmaster left anything behind: this shows nothing")
	}
	refused := 0 // by the number of a dead one: PID 1, to which it came when exec died, has not taken its status
	for _, line := range h.logged("db") {
		switch {
		case strings.Contains(line, "FATAL") && strings.Contains(line, "shared memory"):
			t.Errorf("one was started beside what another one had left: %s", line)
		case strings.Contains(line, "FATAL") && strings.Contains(line, "lock file"):
			refused++
		}
	}
	t.Logf("5 postmasters killed, %d of their processes lived on then; %d rows acknowledged, %d there; at most %d postmasters in %d looks; %d starts refused by the number of a dead one",
		left, said, there, most, looks, refused)
	h.Fleet.Judge(history.Options{})
}

// TestPostgresUnderKills: exec is killed three times while pgbench works, and once its
// record of the database is lost: the same processes go on, and every transaction is
// answered.
func TestPostgresUnderKills(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	h := New(t, func(_, _ string) string { return d.service })
	h.Fleet.Must(30*time.Second, "the database answers", d.answers)
	d.must("pgbench", "-i", "-s", "1", "-q")
	pid := h.pids("")["db"]
	before := tree(pid)

	type result struct {
		out string
		err error
	}
	done := make(chan result, 1)
	go func() {
		out, err := d.run("pgbench", "-n", "-c", "2", "-T", "4", "--max-tries=1")
		done <- result{out, err}
	}()
	for i := range 3 {
		time.Sleep(300 * time.Millisecond)
		old := h.Exec()
		h.Kill(p2pnode.SelfExec, p2pnode.ClassExecDead, old)
		if i == 1 { // nor must the record be what adoption rests on
			if err := os.Remove(filepath.Join(h.Dir, "exec", "services", "db.json")); err != nil {
				t.Error(err)
			}
		}
		h.Fleet.Must(20*time.Second, "exec is back and has the database", func() bool { now := h.Exec(); return now != 0 && now != old && h.pids("")["db"] == pid })
	}
	r := <-done
	if r.err != nil || !strings.Contains(r.out, "number of failed transactions: 0 ") {
		t.Errorf("pgbench: %v\n%s", r.err, r.out)
	}
	var after map[int]string
	if !host.Eventually(5*time.Second, func() bool { after = tree(pid); return fmt.Sprint(after) == fmt.Sprint(before) }) {
		t.Errorf("processes were %v, now %v", before, after)
	}
	for line := range strings.Lines(r.out) {
		if strings.HasPrefix(line, "number of transactions actually processed") || strings.HasPrefix(line, "number of failed") {
			t.Log(strings.TrimSpace(line))
		}
	}
	h.Fleet.Judge(history.Options{})
}
