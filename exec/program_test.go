package exec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/exec/check"
	"p2pnode/test/need"
)

// withProgram is a service with a check that runs script, whose failures restart nobody.
func withProgram(name, script string) p2pnode.ServiceSpec {
	s := service(name, "part:sleep")
	s.Check = &p2pnode.Check{Exec: []string{"/bin/sh", "-c", script}, Every: 100 * time.Millisecond, Timeout: 300 * time.Millisecond, Failures: 3, Unready: true}
	return s
}

// processesWith are the processes that have word as an argument; ended ones have none.
func processesWith(word string) (out []int) {
	for _, pid := range allPIDs() {
		raw, _ := os.ReadFile(procPath(pid, "cmdline"))
		if bytes.Contains(raw, []byte("\x00"+word+"\x00")) {
			out = append(out, pid)
		}
	}
	return out
}

// zombiesOf are the ended children of pid whose status nobody has taken.
func zombiesOf(pid int) (out []string) {
	for _, child := range childrenOf(pid) {
		if st, err := readStat(child); err == nil && st.state == 'Z' {
			out = append(out, fmt.Sprintf("%d of session %d", child, st.session))
		}
	}
	return out
}

// What a check's program starts ends with it, and nothing of it stays in the list of
// processes: what moved to another group or session, what its parent left, what its
// parent waits for, and what ended by itself.
func TestNothingOfACheckIsLeft(t *testing.T) {
	dir := t.TempDir()
	word := func(i int) string { return fmt.Sprintf("7%d%03d", os.Getpid(), i) }
	scripts := []string{
		"timeout 5000 sleep %s",
		"timeout 5000 sleep %s & exit 0",
		"timeout 5000 sleep %s & exit 1",
		"timeout 0.2 sleep %s & exit 0",
		"setsid sleep %s",
		"setsid sleep %s & exit 0",
		"setsid sh -c 'sleep %s & exit 0' & exit 0",
		"setsid timeout 5000 sleep %s & setsid true & wait",
		"trap '' TERM; sleep %s & exec 2>&- >&-; exit 0",
	}
	var services []p2pnode.ServiceSpec
	for i, script := range scripts {
		count := filepath.Join(dir, fmt.Sprint(i))
		services = append(services, withProgram(fmt.Sprint("s", i), "echo >>"+count+"; "+fmt.Sprintf(script, word(i))))
	}
	h := newHost(t, daemonConfig{Services: services})
	t.Cleanup(func() {
		for i := range scripts {
			for _, pid := range processesWith(word(i)) {
				st, _ := readStat(pid)
				t.Logf("left: %s: %+v", scripts[i], st)
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	})
	for i, script := range scripts {
		eventually(t, script+" was asked four times", func() bool {
			raw, _ := os.ReadFile(filepath.Join(dir, fmt.Sprint(i)))
			return len(raw) >= 4
		})
	}
	for i := range services {
		services[i].Check = nil
	}
	h.reload(services...)
	for i, script := range scripts {
		eventually(t, script+": nothing is left", func() bool { return len(processesWith(word(i))) == 0 })
	}
	eventually(t, "no zombie is left", func() bool { return len(zombiesOf(h.cmd.Process.Pid)) == 0 })
	for _, s := range services {
		if now := h.status(s.Name); now.PID == 0 || now.Restarts != 0 {
			t.Errorf("%+v", now)
		}
	}
}

// What an exit says, and what becomes of the answer when time is over or somebody
// holds the pipe.
func TestProgram(t *testing.T) {
	dir := t.TempDir()
	st, err := openState(dir, dir)
	if err != nil {
		t.Fatal(err)
	}
	r := runner{programs: newPrograms(st)}
	ask := func(timeout time.Duration, argv ...string) error {
		l := launch{env: os.Environ()}
		return check.Ask(t.Context(), p2pnode.Check{Exec: argv, Timeout: timeout}, func(ctx context.Context, argv []string) error {
			l, err := l.checking(argv)
			if err != nil {
				return err
			}
			return r.runProgram(ctx, l)
		})
	}
	sh := func(script string) error { return ask(20*time.Second, "/bin/sh", "-c", script) }
	if err := sh("exit 0"); err != nil {
		t.Error(err)
	}
	if err := sh("echo the disk is full >&2; exit 3"); err == nil || err.Error() != "/bin/sh: exit status 3: the disk is full" {
		t.Error(err)
	}
	if err := sh("kill -9 $$"); err == nil || err.Error() != "/bin/sh: SIGKILL" {
		t.Error(err)
	}
	if err := sh("yes | head -c 100000; exit 1"); err == nil {
		t.Error("exit status 1 is good")
	} else if len(err.Error()) > 1000 {
		t.Errorf("an error of %d bytes", len(err.Error()))
	}
	if err := ask(time.Second, "/nonexistent"); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no such program: %v", err)
	}
	pidFile := filepath.Join(t.TempDir(), "pid")
	gone := func() {
		t.Helper()
		raw, err := os.ReadFile(pidFile)
		if err != nil {
			t.Fatal(err)
		}
		pid, _ := strconv.Atoi(strings.TrimSpace(string(raw)))
		if pid == 0 || alive(pid) {
			t.Errorf("process %q is left behind", raw)
		}
	}
	if err := ask(500*time.Millisecond, "/bin/sh", "-c", "sleep 300 & echo $! > "+pidFile+"; wait"); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	gone()
	if err := sh("echo $$ > " + pidFile + "; exec 1>&- 2>&-"); err != nil {
		t.Error(err)
	}
	gone()
}

// A check's program is who its service is, also in an exec that adopted it, and has
// nothing by which it would be taken for a process of it.
func TestACheckRunsAsItsService(t *testing.T) {
	dir, err := os.MkdirTemp("", "check")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	t.Setenv("P2PNODE_SECRET", "exec's own")
	t.Setenv("WATCHDOG_USEC", "1")
	envFile := filepath.Join(dir, "env")
	if err := os.WriteFile(envFile, []byte("FROM=file"), 0o644); err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(dir, "look")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n{ id -u; id -g; id -G; pwd; umask; grep NoNewPrivs /proc/self/status; env; } > $OUT.new && echo good > /dev/stderr && mv -f $OUT.new $OUT\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	web := withProgram("web", "")
	web.Check.Exec, web.Check.Timeout = []string{"./look"}, 10*time.Second
	web.Command, web.Cwd, web.EnvFile = []string{"/bin/sleep", "1000"}, dir, []string{envFile}
	web.Umask, web.Watchdog, web.StartWithin = new(0o27), time.Hour, time.Minute
	web.Env = map[string]string{"OUT": filepath.Join(dir, "as-self"), "DECLARED": "yes"}
	services := []p2pnode.ServiceSpec{web}
	self, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	who := map[string]*user.User{"as-self": self}
	if os.Getuid() == 0 {
		nobody, err := user.Lookup("nobody")
		need.Had(t, err)
		other := web
		other.Name, other.User = "other", "nobody"
		other.Env = map[string]string{"OUT": filepath.Join(dir, "as-other"), "DECLARED": "yes"}
		services, who["as-other"] = append(services, other), nobody
	}
	h := newHost(t, daemonConfig{Services: services})
	look := func() {
		t.Helper()
		for name, u := range who {
			var said []byte
			eventually(t, name+" says who it is", func() bool {
				said, err = os.ReadFile(filepath.Join(dir, name))
				return err == nil
			})
			lines := strings.Split(strings.TrimSpace(string(said)), "\n")
			noNew := "0"
			if name == "as-other" {
				noNew = "1"
			}
			want := []string{u.Uid, u.Gid, dir, "0027", "NoNewPrivs:\t" + noNew}
			if got := slices.Delete(slices.Clone(lines[:6]), 2, 3); !slices.Equal(got, want) {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
			if groups := strings.Fields(lines[2]); name == "as-other" && slices.Contains(groups, "0") {
				t.Errorf("%s is in the groups %v", name, groups)
			}
			env := lines[6:]
			for key, want := range map[string]string{
				"FROM": "file", "DECLARED": "yes", "P2PNODE_SERVICE": strings.Replace(strings.TrimPrefix(name, "as-"), "self", "web", 1), "P2PNODE_SECRET": "",
				"P2PNODE_COOKIE": "", "NOTIFY_SOCKET": "", "WATCHDOG_USEC": "",
			} {
				if got := envValue(env, key); got != want {
					t.Errorf("%s has %s=%q, want %q", name, key, got, want)
				}
			}
		}
	}
	look()
	if os.Getuid() == 0 {
		kill9(t, h.cmd.Process.Pid)
		h.cmd.Wait()
		for name := range who {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		h.start()
		look()
		if s := h.status("other"); !s.Adopted || s.Restarts != 0 {
			t.Errorf("%+v", s)
		}
	}
}
