package keep

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/bin"
	"p2pnode/test/host"
	"p2pnode/test/need"
)

// account is somebody who is not root, has no entry anywhere, and runs p2pnode.
type account struct {
	t     *testing.T
	uid   uint32
	home  string
	bin   string
	leash *os.File
	found []string // files of that number from before
}

func newAccount(t *testing.T) *account {
	t.Helper()
	need.Root(t, "it becomes another user")
	dir, err := os.MkdirTemp("", "p2pnode-user-")
	if err != nil {
		t.Fatal(err)
	}
	leashed, leash, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	u := &account{t: t, uid: 60000 + uint32(os.Getpid()%5000), home: filepath.Join(dir, "home"), bin: filepath.Join(dir, "p2pnode"), leash: leashed}
	u.found = u.strays()
	t.Cleanup(func() {
		leash.Close()
		leashed.Close()
		if !host.Eventually(10*time.Second, func() bool { return len(u.processes()) == 0 }) {
			t.Errorf("left: %v", u.processes())
		}
		os.RemoveAll(dir)
	})
	bin.Copy(t, bin.P2pnode(t), u.bin, "")
	bin.Copy(t, victims(t), filepath.Join(dir, "victim"), "")
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(u.home, 0o700), os.Chown(u.home, int(u.uid), int(u.uid))); err != nil {
		t.Fatal(err)
	}
	return u
}

// command runs p2pnode as a login of that user would.
func (u *account) command(args ...string) *exec.Cmd {
	cmd := exec.Command(u.bin, args...)
	cmd.Dir = u.home
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + u.home, "XDG_STATE_HOME=" + u.home + "/state", "NO_COLOR=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: u.uid, Gid: u.uid}, Setsid: true}
	return cmd
}

func (u *account) run(args ...string) (out string, code int) {
	u.t.Helper()
	cmd := u.command(args...)
	raw, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		u.t.Fatalf("%q: %v", args, err)
	}
	return string(raw), cmd.ProcessState.ExitCode()
}

func (u *account) ok(args ...string) string {
	u.t.Helper()
	out, code := u.run(args...)
	if code != 0 {
		u.t.Fatalf("p2pnode %q: exit %d\n%s", args, code, out)
	}
	return out
}

// service is one of ps.
func (u *account) service(name string) p2pnode.ServiceStatus {
	u.t.Helper()
	var d p2pnode.PSDoc
	out, _ := u.run("ps", "--all", "-o", "json")
	json.Unmarshal([]byte(out), &d)
	for _, s := range d.Services {
		if s.Name == name {
			return s
		}
	}
	return p2pnode.ServiceStatus{}
}

// becomes waits for a life of a service that is none of these.
func (u *account) becomes(name string, was ...int) (pid int) {
	u.t.Helper()
	if !host.Eventually(time.Minute, func() bool {
		s := u.service(name)
		pid = s.PID
		if slices.Contains(was, pid) {
			return false
		}
		return s.State == p2pnode.StateUp && pid != 0
	}) {
		u.t.Fatalf("%s is not up: %+v", name, u.service(name))
	}
	return pid
}

// processes are all that run as that user, by the kernel.
func (u *account) processes() (pids []string) {
	all, _ := filepath.Glob("/proc/[0-9]*/status")
	for _, path := range all {
		raw, _ := os.ReadFile(path)
		if bytes.Contains(raw, fmt.Appendf(nil, "\nUid:\t%d\t", u.uid)) && !bytes.Contains(raw, []byte("\nState:\tZ")) {
			pids = append(pids, filepath.Base(filepath.Dir(path)))
		}
	}
	return pids
}

// strays are files of that user where he is not at home.
func (u *account) strays() (out []string) {
	for _, root := range []string{"/tmp", "/var", "/run", "/dev/shm", "/etc", "/home", "/root"} {
		filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || path == u.home {
				return fs.SkipDir
			}
			if info, err := d.Info(); err == nil && info.Sys().(*syscall.Stat_t).Uid == u.uid && !slices.Contains(u.found, path) {
				out = append(out, path)
			}
			return nil
		})
	}
	return out
}

// A whole day of a p2pnode that is nobody's root: all is as docs/OPERATIONS.md says,
// but for services of other users, which it refuses by name; it writes in its own
// folder alone.
func TestWithoutRoot(t *testing.T) {
	t.Parallel()
	u := newAccount(t)
	config, port := filepath.Join(u.home, "p2pnode.yaml"), freePorts(t, 1)[0]
	web := fmt.Sprintf("services:\n  web: {command: [%s/victim, -port, \"%d\", -ledger, %s/web, -say, good morning], check: {http: \"http://127.0.0.1:%d/\"}}\n", filepath.Dir(u.bin), port, u.home, port)
	write := func(text string) {
		if err := errors.Join(os.WriteFile(config, []byte(text), 0o600), os.Chown(config, int(u.uid), int(u.uid))); err != nil {
			t.Fatal(err)
		}
	}
	write(web)
	daemon := u.command("--config", config, "--listen", "127.0.0.1:0", "--door", "127.0.0.1:0", "--leash", "3")
	daemon.ExtraFiles = []*os.File{u.leash}
	log := &bytes.Buffer{}
	daemon.Stdout, daemon.Stderr = log, log
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	first := u.becomes("web")
	for _, role := range []string{p2pnode.SelfDoor, p2pnode.SelfNode} {
		u.becomes(role)
	}
	if n := len(u.processes()); n != 4 {
		t.Errorf("%d processes of this user, want exec, door, node process and web", n)
	}
	u.ok("wait", "--for", "ready")
	var st p2pnode.StatusDoc
	if out := u.ok("status", "-o", "json"); json.Unmarshal([]byte(out), &st) != nil || !st.OK || st.Node.Data != filepath.Join(u.home, "state", "p2pnode") {
		t.Errorf("status: %s", out)
	}

	if err := syscall.Kill(first, syscall.SIGUSR2); err != nil { // it prints a word and dies
		t.Fatal(err)
	}
	second := u.becomes("web", first)
	word, err := os.ReadFile(filepath.Join(u.home, "web.word"))
	if out := u.ok("logs", "web"); err != nil || !strings.Contains(out, "last word "+string(word)) || strings.Count(out, "good morning") != 2 {
		t.Errorf("logs of a service that died with the word %q: %s", word, out)
	}
	if s := u.service("web"); s.Restarts != 1 || s.LastExit == nil || s.LastExit.Signal != "SIGKILL" {
		t.Errorf("ps of a service that was killed: %+v", s)
	}

	write(web + "  other: {command: [sleep, \"1000\"], user: daemon}\n")
	u.ok("reload")
	if out, code := u.run("start", "other"); code != 1 || !strings.Contains(out, fmt.Sprintf("p2pnode runs as uid %d and only root may start a service as \"daemon\"", u.uid)) {
		t.Errorf("start of another user's service: exit %d, %s", code, out)
	}
	if s := u.service("other"); s.State != p2pnode.StateMissing || s.PID != 0 || !strings.Contains(s.Why, "only root") {
		t.Errorf("ps of another user's service: %+v", s)
	}
	write(web)
	u.ok("reload")

	daemon.Process.Kill()
	daemon.Wait()
	u.becomes(p2pnode.SelfExec, daemon.Process.Pid)
	if now := u.becomes("web"); now != second {
		t.Errorf("web is %d under the next exec, was %d", now, second)
	}
	u.ok("stop", "web")
	if s := u.service("web"); s.State != p2pnode.StateStopped || host.Running(second, host.StartTicks(second)) {
		t.Errorf("ps of a service that was stopped: %+v", s)
	}
	u.ok("start", "web")
	u.becomes("web", first, second)
	bundle := filepath.Join(u.home, "bundle.tgz")
	u.ok("debug", "bundle", bundle)
	if info, err := os.Stat(bundle); err != nil || info.Mode().Perm() != 0o600 || info.Size() == 0 {
		t.Errorf("the bundle: %v %v", info, err)
	}
	u.ok("shutdown")
	if !host.Eventually(time.Minute, func() bool { return len(u.processes()) == 0 }) {
		t.Errorf("left after shutdown: %v", u.processes())
	}
	if left := u.strays(); len(left) > 0 {
		t.Errorf("it wrote outside its folder: %q", left)
	}
	if t.Failed() {
		t.Logf("it said: %s", log)
	}
}
