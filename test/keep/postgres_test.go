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
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	out := map[int]string{}
	for _, field := range append(strings.Fields(string(raw)), strconv.Itoa(pid)) {
		if n, err := strconv.Atoi(field); err == nil {
			cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", n))
			if title := strings.TrimRight(strings.ReplaceAll(string(cmdline), "\x00", " "), " "); title != "" && !strings.Contains(title, "[local]") {
				out[n] = title
			}
		}
	}
	return out
}

// TestPostgresUnderKills: exec is killed three times while pgbench works: the same
// processes go on, and every transaction is answered.
func TestPostgresUnderKills(t *testing.T) {
	t.Parallel()
	d := newDatabase(t)
	h := New(t, func(_, _ string) string { return d.service })
	h.Fleet.Must(30*time.Second, "the database answers", func() bool { _, err := d.run("pg_isready"); return err == nil })
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
	for range 3 {
		time.Sleep(300 * time.Millisecond)
		old := h.Exec()
		h.Kill(p2pnode.SelfExec, p2pnode.ClassExecDead, old)
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
