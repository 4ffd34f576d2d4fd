package inits

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p2pnode/test/host"
	"p2pnode/test/need"
)

// systemdInit is the init that a machine boots.
const systemdInit = "/lib/systemd/systemd"

// bootScript is PID 1 until that is systemd: it makes a root folder of this host's
// /usr and nothing else, without a unit that would start anything.
//
//go:embed testdata/boot.sh
var bootScript string

// groupMark begins the names of cgroups of machines, before the test's pid.
const groupMark = "p2pnode-inits-"

// machine is a systemd as PID 1 of namespaces of its own (processes, mounts, network,
// IPC, host name, cgroups), with files that are gone when it ends. It ends with the
// test, however that one ends: the death of its PID 1 is that of all in it.
type machine struct {
	t     *testing.T
	init  *exec.Cmd
	group string // its cgroup
	root  string // its root folder, seen from here
	space string // its pid namespace
	words string // file that has what its PID 1 says
}

// boot returns when systemd says that all is started.
func boot(t *testing.T) *machine {
	t.Helper()
	need.Root(t, "a systemd is PID 1 of namespaces of its own")
	need.Program(t, systemdInit, "systemd")
	need.Program(t, "nsenter", "util-linux")
	dir := t.TempDir()
	m := &machine{t: t, group: newGroup(t), words: filepath.Join(dir, "words")}
	group, err := os.Open(m.group)
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	words, err := os.Create(m.words)
	if err != nil {
		t.Fatal(err)
	}
	defer words.Close()
	// Its cgroup namespace begins where it is when it makes one: it is born there.
	m.init = exec.Command("unshare", "--cgroup", "sh", "-ec", bootScript, "boot", dir, systemdInit)
	m.init.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "container=p2pnode"}
	m.init.Stdout, m.init.Stderr = words, words
	m.init.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWNET,
		UseCgroupFD: true, CgroupFD: int(group.Fd()), Setsid: true, Pdeathsig: syscall.SIGKILL,
	}
	if err = m.init.Start(); errors.Is(err, syscall.EPERM) {
		need.Had(t, fmt.Errorf("no namespaces may be made here: %w", err))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.end)
	m.root = fmt.Sprintf("/proc/%d/root", m.init.Process.Pid)
	m.space, _ = os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", m.init.Process.Pid))
	if !host.Eventually(patience, func() bool { out, _ := m.in("systemctl", "is-system-running"); return out == "running" }) {
		t.Fatal("systemd does not boot")
	}
	return m
}

// end kills all of it and removes its cgroups.
func (m *machine) end() {
	if m.t.Failed() {
		for _, path := range []string{m.words, m.file("/dev/kmsg"), m.file(daemonLog)} {
			raw, _ := os.ReadFile(path)
			m.t.Logf("%s:\n%s", path, raw[max(0, len(raw)-8000):])
		}
	}
	m.init.Process.Kill()
	m.init.Wait() // not before all others of its namespace have ended
	if !host.Eventually(5*time.Second, func() bool { return removeGroup(m.group) }) {
		m.t.Errorf("left: %s", m.group)
	}
}

// newGroup makes a cgroup for a machine of this test process, and removes those whose
// test was killed.
func newGroup(t *testing.T) string {
	t.Helper()
	roots := slices.DeleteFunc([]string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}, func(root string) bool {
		var fs unix.Statfs_t
		return unix.Statfs(root, &fs) != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC
	})
	if len(roots) == 0 {
		need.Had(t, errors.New("no cgroup v2 is mounted here"))
	}
	left, _ := filepath.Glob(filepath.Join(roots[0], groupMark+"*"))
	for _, group := range left {
		pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(group), groupMark))
		if err == nil && syscall.Kill(pid, 0) == syscall.ESRCH {
			removeGroup(group)
		}
	}
	group := filepath.Join(roots[0], groupMark+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(group, 0o755); err != nil {
		need.Had(t, err)
	}
	return group
}

// removeGroup ends what is in a cgroup and takes it away, those below it first.
func removeGroup(group string) bool {
	os.WriteFile(filepath.Join(group, "cgroup.kill"), []byte("1"), 0)
	var dirs []string
	filepath.WalkDir(group, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	for _, dir := range slices.Backward(dirs) {
		os.Remove(dir)
	}
	_, err := os.Stat(group)
	return os.IsNotExist(err)
}

// file is a file of the machine, seen from here.
func (m *machine) file(path string) string { return m.root + path }

// has reports whether the machine has a file.
func (m *machine) has(path string) bool {
	_, err := os.Lstat(m.file(path))
	return err == nil
}

func (m *machine) read(path string) string {
	m.t.Helper()
	raw, err := os.ReadFile(m.file(path))
	if err != nil {
		m.t.Fatal(err)
	}
	return string(raw)
}

func (m *machine) write(path, text string) {
	m.t.Helper()
	err := os.MkdirAll(filepath.Dir(m.file(path)), 0o755)
	if err == nil {
		err = os.WriteFile(m.file(path), []byte(text), 0o644)
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// in runs a program in the machine, as a person who is logged in there would.
func (m *machine) in(argv ...string) (out string, code int) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	enter := []string{"--target", strconv.Itoa(m.init.Process.Pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--"}
	cmd := exec.CommandContext(ctx, "nsenter", append(enter, argv...)...)
	cmd.Env = m.init.Env[:1]
	raw, err := cmd.CombinedOutput()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		code = e.ExitCode()
	} else if err != nil {
		m.t.Fatalf("%q: %v", argv, err)
	}
	return strings.TrimSpace(string(raw)), code
}

// ok runs a program in the machine that must succeed.
func (m *machine) ok(argv ...string) string {
	m.t.Helper()
	out, code := m.in(argv...)
	if code != 0 {
		m.t.Fatalf("%q: exit %d\n%s", argv, code, out)
	}
	return out
}

// processes are all of the machine but its PID 1, with what they run, by this host's
// /proc.
func (m *machine) processes() map[int][]string {
	out := map[int][]string{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == m.init.Process.Pid {
			continue
		}
		if space, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid)); space != m.space || !host.Running(pid, host.StartTicks(pid)) {
			continue
		}
		raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		out[pid] = strings.Split(strings.TrimRight(string(raw), "\x00"), "\x00")
	}
	return out
}

// inner is the number that a process has in the machine: the last one of NSpid.
func inner(pid int) string {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "NSpid:" {
			return f[len(f)-1]
		}
	}
	return ""
}

// listens reports whether somebody in the machine listens on a port of 127.0.0.1.
func (m *machine) listens(port int) bool {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/tcp", m.init.Process.Pid))
	return strings.Contains(string(raw), fmt.Sprintf(": 0100007F:%04X 00000000:0000 0A ", port))
}
