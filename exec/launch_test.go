package exec

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/need"

	"golang.org/x/sys/unix"
)

// facts reads one line of a file in /proc/PID, by its first word.
func facts(t *testing.T, pid int, file, key string) string {
	t.Helper()
	raw, err := os.ReadFile(procPath(pid, file))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		if value, ok := strings.CutPrefix(line, key); ok {
			return strings.Join(strings.Fields(value), " ")
		}
	}
	return strings.TrimSpace(string(raw))
}

// What is declared of a process is what the kernel says of it, and nothing else
// is changed: not its pid, its session, its lock, nor exec itself.
func TestAProcessIsAsDeclared(t *testing.T) {
	full := service("full", "part:sleep")
	full.Umask, full.Nice, full.OOM = new(0o27), 3, new(321)
	full.Limits = p2pnode.Limits{NoFile: new(uint64(333)), Core: new(uint64(0)), Memory: new(uint64(1 << 33))}
	light := service("light", "part:sleep")
	light.Umask, light.Nice = new(0o77), 7
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{full, light, service("plain", "part:sleep")}})
	f, l, p := h.await("full", p2pnode.StateUp).PID, h.await("light", p2pnode.StateUp).PID, h.await("plain", p2pnode.StateUp).PID
	for _, c := range []struct{ what, got, want string }{
		{"umask", facts(t, f, "status", "Umask:"), "0027"},
		{"nofile", facts(t, f, "limits", "Max open files"), "333 333 files"},
		{"core", facts(t, f, "limits", "Max core file size"), "0 0 bytes"},
		{"memory", facts(t, f, "limits", "Max data size"), "8589934592 8589934592 bytes"},
		{"oom score", facts(t, f, "oom_score_adj", "\x00"), "321"},
		{"nice", niceOf(t, f), "3"},
		{"light's umask", facts(t, l, "status", "Umask:"), "0077"},
		{"light's nice", niceOf(t, l), "7"},
		{"plain's umask", facts(t, p, "status", "Umask:"), facts(t, os.Getpid(), "status", "Umask:")},
		{"plain's limits", facts(t, p, "limits", "Max open files"), facts(t, h.cmd.Process.Pid, "limits", "Max open files")},
		{"plain's nice", niceOf(t, p), niceOf(t, os.Getpid())},
		{"exec's umask", facts(t, h.cmd.Process.Pid, "status", "Umask:"), facts(t, os.Getpid(), "status", "Umask:")},
		{"exec's nice", niceOf(t, h.cmd.Process.Pid), niceOf(t, os.Getpid())},
		{"full's session", fmt.Sprint(sessionOf(t, f)), fmt.Sprint(f)},
		{"full's lock", fmt.Sprint(descriptorsOf(t, f, "full.")), fmt.Sprint(descriptorsOf(t, p, "plain."))},
	} {
		if c.got != c.want {
			t.Errorf("%s is %q, want %q", c.what, c.got, c.want)
		}
	}
	kill9(t, f)
	now := h.awaitNew("full", f)
	if got := facts(t, now.PID, "oom_score_adj", "\x00"); got != "321" {
		t.Errorf("the next life has the OOM score %q", got)
	}
}

func niceOf(t *testing.T, pid int) string {
	t.Helper()
	n, err := unix.Getpriority(unix.PRIO_PROCESS, pid)
	if err != nil {
		t.Fatal(err)
	}
	return strconv.Itoa(20 - n) // the raw call answers 20 - nice
}

func sessionOf(t *testing.T, pid int) int {
	t.Helper()
	st, err := readStat(pid)
	if err != nil {
		t.Fatal(err)
	}
	return st.session
}

// descriptorsOf are the numbers that pid has open, the one of its lock among them.
func descriptorsOf(t *testing.T, pid int, lock string) (out []int) {
	t.Helper()
	entries, err := os.ReadDir(procPath(pid, "fd"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		n, _ := strconv.Atoi(e.Name())
		link, _ := os.Readlink(procPath(pid, "fd/"+e.Name()))
		if n < 3 || strings.HasPrefix(filepath.Base(link), lock) {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

func TestPrivilegesAreDropped(t *testing.T) {
	need.Root(t, "services are started as another user")
	nobody, err := user.Lookup("nobody")
	need.Had(t, err)
	dropped := service("dropped", "part:sleep")
	dropped.User = "nobody"
	limited := dropped
	limited.Name, limited.Group, limited.Limits = "limited", "daemon", p2pnode.Limits{NoFile: new(uint64(77))}
	beyond := service("beyond", "part:sleep")
	beyond.Limits = p2pnode.Limits{NoFile: new(uint64(1 << 40))} // more than any kernel gives
	allowed := dropped
	allowed.Name, allowed.Gain = "allowed", true
	for _, s := range []*p2pnode.ServiceSpec{&dropped, &limited, &allowed} {
		s.Command = []string{"/bin/sleep", "1000"}
	}
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{dropped, limited, allowed, beyond, service("plain", "part:sleep")}})
	if s := h.await("beyond", p2pnode.StateMissing); !strings.Contains(s.Why, "limits: nofile is refused") {
		t.Errorf("beyond: %q", s.Why)
	}
	daemon, err := user.LookupGroup("daemon")
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct{ uid, gid, noNew string }{
		"dropped": {nobody.Uid, nobody.Gid, "1"}, "limited": {nobody.Uid, daemon.Gid, "1"}, "allowed": {nobody.Uid, nobody.Gid, "0"}, "plain": {"0", "0", "0"},
	} {
		pid := h.await(name, p2pnode.StateUp).PID
		uid, gid := facts(t, pid, "status", "Uid:"), facts(t, pid, "status", "Gid:")
		if uid != strings.TrimSpace(strings.Repeat(want.uid+" ", 4)) || gid != strings.TrimSpace(strings.Repeat(want.gid+" ", 4)) {
			t.Errorf("%s runs as %s, groups %s", name, uid, gid)
		}
		if got := facts(t, pid, "status", "NoNewPrivs:"); got != want.noNew {
			t.Errorf("%s: NoNewPrivs %s, want %s", name, got, want.noNew)
		}
		if groups := facts(t, pid, "status", "Groups:"); name != "plain" && strings.Contains(" "+groups+" ", " 0 ") {
			t.Errorf("%s kept root's group: %s", name, groups)
		}
	}
	if got := facts(t, h.cmd.Process.Pid, "status", "NoNewPrivs:"); got != "0" {
		t.Error("exec itself lost its rights")
	}
}

// What a launcher cannot do is said by ps, in words, and mended when it can.
func TestALauncherTellsWhatItCannotDo(t *testing.T) {
	program := filepath.Join(t.TempDir(), "later")
	if err := os.WriteFile(program, []byte("no program\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	web := p2pnode.ServiceSpec{Name: "web", Command: []string{program}, Limits: p2pnode.Limits{Core: new(uint64(0))}}
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{web}})
	s := h.await("web", p2pnode.StateMissing)
	if !strings.Contains(s.Why, "exec format error") {
		t.Errorf("why: %q", s.Why)
	}
	os.WriteFile(program+".new", []byte("#!/bin/sh\nexec sleep 1000\n"), 0o755)
	if err := os.Rename(program+".new", program); err != nil {
		t.Fatal(err)
	}
	h.await("web", p2pnode.StateUp)
}

func TestAnotherUserWantsRoot(t *testing.T) {
	if os.Geteuid() == 0 {
		onOwn := make(chan error, 1)
		go onOwnThread(func() { // only this thread becomes somebody else
			unix.RawSyscall(unix.SYS_SETRESUID, 65534, 65534, 65534)
			l := launch{uid: 65534, gid: 65534}
			onOwn <- l.become("root", "")
		})
		if err := <-onOwn; err == nil || !strings.Contains(err.Error(), "only root may start a service as \"root\"") {
			t.Errorf("%v", err)
		}
		return
	}
	l := launch{uid: os.Getuid(), gid: os.Getgid()}
	if err := l.become("root", ""); err == nil || !strings.Contains(err.Error(), "run p2pnode as root") {
		t.Errorf("%v", err)
	}
}

// A user and a group may be numbers that nobody has an entry for.
func TestANumberIsAUser(t *testing.T) {
	need.Root(t, "it starts services as other users")
	alone, both, named, never := service("alone", "part:sleep"), service("both", "part:sleep"), service("named", "part:sleep"), service("never", "part:sleep")
	alone.User, both.User, both.Group, named.User, never.User = "54321", "54321", "54322", "65534", "4294967295"
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{alone, both, named, never}})
	for service, want := range map[string][]string{
		"alone": {"54321", "54321", "54321", "/"}, "both": {"54321", "54322", "54321", "/"}, "named": {"65534", "65534", "nobody", "/nonexistent"},
	} {
		pid := h.await(service, p2pnode.StateUp).PID
		uid, gid, _ := strings.Cut(facts(t, pid, "status", "Uid:")+"|"+facts(t, pid, "status", "Gid:"), "|")
		got := []string{strings.Fields(uid)[0], strings.Fields(gid)[0], environ(t, pid, "USER"), environ(t, pid, "HOME")}
		if !slices.Equal(got, want) {
			t.Errorf("%s runs as %q, want %q", service, got, want)
		}
		if groups := facts(t, pid, "status", "Groups:"); service == "named" && groups != "65534" || service != "named" && groups != "54321" {
			t.Errorf("%s has the groups %s too", service, groups)
		}
	}
	if s := h.await("never", p2pnode.StateMissing); !strings.Contains(s.Why, "user 4294967295 is not known here") && !strings.Contains(s.Why, `user "4294967295" is not known here`) {
		t.Errorf("why: %q", s.Why)
	}
}

func TestEnvFiles(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "web.env")
	web := service("web", "part:sleep")
	web.EnvFile, web.Env = []string{file}, map[string]string{"B": "declared"}
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{web}})
	if s := h.await("web", p2pnode.StateMissing); !strings.Contains(s.Why, "web.env cannot be read") {
		t.Errorf("why: %q", s.Why)
	}
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("A='x y'\nB=file\n")
	was := h.await("web", p2pnode.StateUp)
	if a, b := environ(t, was.PID, "A"), environ(t, was.PID, "B"); a != "x y" || b != "declared" {
		t.Errorf("A=%q B=%q", a, b)
	}
	write("A=new\n")
	time.Sleep(freeLife) // a short first life is followed by a backoff
	kill9(t, was.PID)
	if a := environ(t, h.awaitNew("web", was.PID).PID, "A"); a != "new" {
		t.Errorf("the next life has A=%q", a)
	}
}

// A service's user who may write where its env_file lies must not have root read for it
// what it may not.
func TestEnvFileOverALink(t *testing.T) {
	need.Root(t, "it makes a link of another user")
	const nobody = 65534
	dir := t.TempDir()
	secret, file := filepath.Join(dir, "secret"), filepath.Join(dir, "web.env")
	err := errors.Join(os.WriteFile(secret, []byte("KEY=of-others\n"), 0o600), os.Symlink(secret, file), os.Lchown(file, nobody, nobody))
	if err != nil {
		t.Fatal(err)
	}
	if env, err := readEnvFiles([]string{file}); err == nil || !strings.Contains(err.Error(), "made a link on the way") {
		t.Errorf("read: %q, %v", env, err)
	}
	if err := os.Chown(secret, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	if env, err := readEnvFiles([]string{file}); err != nil || !slices.Equal(env, []string{"KEY=of-others"}) {
		t.Errorf("its own file: %q, %v", env, err)
	}
}

func TestParseEnv(t *testing.T) {
	got, err := parseEnv([]byte("# c\n\nA=1\n export B = 2 \nC=\"x\\ny \\\"z\\\"\"\nD='$A \\n'\nE=\nF=a=b # no comment\n"))
	want := []string{"A=1", "B=2", "C=x\ny \"z\"", `D=$A \n`, "E=", "F=a=b # no comment"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	for text, line := range map[string]string{"A=1\nnonsense\n": "2: ", "=x": "1: ", "A b=1": "1: ", "A=\"x": "1: A: the quote", "A=\x00": "1: A has a zero byte"} {
		if _, err := parseEnv([]byte(text)); err == nil || !strings.HasPrefix(err.Error(), line) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzParseEnv(f *testing.F) {
	f.Add([]byte("export A=\"x\\n\"\nB='y'\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		all, _ := parseEnv(raw)
		for _, kv := range all {
			if key, _, ok := strings.Cut(kv, "="); !ok || key == "" || strings.ContainsRune(kv, 0) {
				t.Fatalf("%q of %q", kv, raw)
			}
		}
	})
}

func TestBefore(t *testing.T) {
	dir := t.TempDir()
	mark := filepath.Join(dir, "mark")
	web := service("web", "part:sleep")
	web.Before = [][]string{{"/bin/sh", "-c", "echo first $P2PNODE_SERVICE >> " + mark}, {"/bin/sh", "-c", "test -e " + mark + ".go || { echo not yet; exit 3; }"}}
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{web}})
	s := h.await("web", p2pnode.StateBackoff)
	if !strings.Contains(s.Why, "failed: exit 3") {
		t.Errorf("why: %q", s.Why)
	}
	if err := os.WriteFile(mark+".go", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h.await("web", p2pnode.StateUp)
	if raw, _ := os.ReadFile(mark); !strings.HasPrefix(string(raw), "first web\n") {
		t.Errorf("the first one said %q", raw)
	}
	eventually(t, "its output is in the log", func() bool {
		raw, _ := os.ReadFile(filepath.Join(logDir(h.dir), "web.log"))
		return strings.Contains(string(raw), "not yet")
	})
}

// A program of before is ended by a stop, and is no copy of its service: an exec
// that comes after a killed one does not take it for that.
func TestBeforeIsNotTheService(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	web := service("web", "part:sleep")
	web.Before = [][]string{{"/bin/sh", "-c", "echo $$ > " + pidFile + "; exec sleep 1000"}}
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{web}})
	running := func(not int) (pid int) {
		eventually(t, "before runs", func() bool {
			raw, _ := os.ReadFile(pidFile)
			pid, _ = strconv.Atoi(strings.TrimSpace(string(raw)))
			return pid > 0 && pid != not
		})
		return pid
	}
	first := running(0)
	st, _ := h.c.Status(t.Context())
	kill9(t, st.PID)
	h.cmd.Wait()
	h.start()
	second := running(first)
	if alive(first) || h.status("web").State != p2pnode.StateStarting {
		t.Errorf("the first one lives: %v; web is %+v", alive(first), h.status("web"))
	}
	res, err := h.c.Stop(t.Context(), "web", VerbOptions{Timeout: 20 * time.Second})
	if err != nil || !res.OK {
		t.Fatalf("stop: %+v, %v", res, err)
	}
	eventually(t, "it ended with the stop", func() bool { return !alive(second) && h.status("web").State == p2pnode.StateStopped })
}
