package exec

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/need"

	"golang.org/x/sys/unix"
)

// With log: file the output goes straight to a file, which nobody reads on its way: it is
// complete with exec dead, its end is in the excerpt and in the log, and it makes room at
// a start.
func TestOutputGoesToAFile(t *testing.T) {
	spec := p2pnode.ServiceSpec{Name: "web", Log: p2pnode.LogFile, LogSize: 1 << 20, LogKeep: 2, Command: []string{"/bin/sh", "-c", "echo one; while :; do echo more; sleep 0.02; done"}}
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{spec}, Door: true})
	path := filepath.Join(logDir(h.dir), "web.out")
	was := h.await("web", p2pnode.StateUp)
	if to, err := os.Readlink(procPath(was.PID, "fd/1")); err != nil || to != path {
		t.Fatalf("it writes to %s (%v), not to %s", to, err, path)
	}
	lines := func() int { raw, _ := os.ReadFile(path); return strings.Count(string(raw), "more\n") }
	h.withoutExec(func() {
		before := lines()
		eventually(t, "it writes on with exec dead", func() bool { return lines() > before+5 })
	})
	if now := h.await("web", p2pnode.StateUp); now.PID != was.PID {
		t.Fatalf("%d was not adopted, now %d", was.PID, now.PID)
	}
	if !slices.Contains(h.log("web"), "one") {
		t.Errorf("its log does not show what it wrote: %q", h.log("web"))
	}
	acted := h.actedOn("web")
	time.Sleep(freeLife)
	kill9(t, was.PID)
	if e := acted(); e.Excerpt == nil || !slices.Contains(e.Excerpt.Lines, "more") {
		t.Errorf("its last words are not in the excerpt: %+v", e.Excerpt)
	}
	if err := os.WriteFile(path+".7", nil, 0o600); err != nil { // of a larger keep, beyond a number that is free
		t.Fatal(err)
	}
	for n := range 3 {
		now := h.await("web", p2pnode.StateUp)
		if err := os.Truncate(path, spec.LogSize+int64(n)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(freeLife)
		kill9(t, now.PID)
		h.awaitNew("web", now.PID)
	}
	for name, want := range map[string]int64{"": 0, ".1": spec.LogSize + 2, ".2": spec.LogSize + 1} {
		if info, err := os.Stat(path + name); err != nil || info.Size() < want || info.Size() > want+10000 {
			t.Errorf("it made no room as it should: %s has %v, %v", path+name, info, err)
		}
	}
	for _, beyond := range []string{".3", ".7"} {
		if _, err := os.Stat(path + beyond); err == nil {
			t.Errorf("more is kept than is said: %s", beyond)
		}
	}
}

// A file that the service's user may not write is none that he writes through exec, by
// whatever link; one of his own is his.
func TestOutputIsTheUsersOwn(t *testing.T) {
	need.Root(t, "files of two users are wanted")
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil { // other tests may have taken it away
		t.Fatal(err)
	}
	dir := t.TempDir()
	for d := dir; d != "/"; d = filepath.Dir(d) {
		if info, err := os.Stat(d); err == nil && info.Mode().Perm()&1 == 0 {
			os.Chmod(d, info.Mode().Perm()|0o711)
		}
	}
	his, secret := filepath.Join(dir, "his"), filepath.Join(dir, "secret")
	if err := os.Mkdir(his, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(secret, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const nobody = 65534
	if err := os.Chown(his, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	l := launch{as: &credentials{UID: nobody, GID: nobody, Groups: []uint32{4711}}}
	its := p2pnode.ServiceSpec{LogFile: "not ours"}
	link := filepath.Join(his, "link")
	if err := os.Symlink(secret, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{link, secret} {
		if fd, err := openOutput(its, path, l); err == nil {
			t.Errorf("%s was opened for a stranger: %d", path, fd)
		}
	}
	own := filepath.Join(his, "own.log")
	fd, err := openOutput(its, own, l)
	if err != nil {
		t.Fatal(err)
	}
	os.NewFile(uintptr(fd), own).Close()
	if info, err := os.Stat(own); err != nil || info.Sys().(*syscall.Stat_t).Uid != nobody {
		t.Errorf("%s is not his: %v", own, err)
	}
	// Nor with the groups that exec itself has, but with his.
	ofGroup := func(name string, gid int) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.WriteFile(path, nil, 0o660), os.Chmod(path, 0o660), os.Chown(path, 0, gid)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if fd, err := openOutput(its, ofGroup("roots", os.Getgid()), l); err == nil {
		t.Errorf("a file of exec's own group was opened for a stranger: %d", fd)
	}
	if fd, err = openOutput(its, ofGroup("groups", 4711), l); err != nil {
		t.Errorf("a file of a group of his: %v", err)
	} else {
		unix.Close(fd)
	}
	for range 10 {
		if _, err := os.ReadFile(secret); err != nil {
			t.Errorf("this process is still somebody else: %v", err)
		}
	}
	if is, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err != nil || is != 1 {
		t.Errorf("what may be read of this process is %d, %v", is, err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(fifo, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if _, err := openOutput(its, fifo, launch{}); err == nil {
		t.Error("a FIFO was taken for a file")
	}
}

// What a reload says of where a service is heard and where its output goes holds from its
// next start on.
func TestAReloadMovesTheEars(t *testing.T) {
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:ready")}})
	was := h.await("web", p2pnode.StateUp)
	heard := service("web", "part:ready")
	heard.Ready, heard.StartWithin, heard.Log = p2pnode.ReadyNotify, 10*time.Second, p2pnode.LogFile
	h.reload(heard)
	now := h.awaitNew("web", was.PID)
	if now.StatusText != "serving" {
		t.Errorf("it says %q of itself", now.StatusText)
	}
	if to, _ := os.Readlink(procPath(now.PID, "fd/1")); !strings.HasSuffix(to, "web.out") {
		t.Errorf("its output goes to %s", to)
	}
}

// What cannot be run for its folder's sake says so, and not that its program is at fault.
func TestAFolderThatItsUserMayNotEnter(t *testing.T) {
	need.Root(t, "two users are wanted")
	dir := filepath.Join(t.TempDir(), "closed")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	const nobody = 65534
	for cwd, want := range map[string]string{
		dir:                           "cannot enter the folder that it runs in: " + dir + ": permission denied",
		filepath.Join(dir, "nowhere"): "cannot enter the folder that it runs in: ",
		"/":                           "cannot run web: permission denied",
	} {
		err := whyNot(launch{argv: []string{"web"}, cwd: cwd, as: &credentials{UID: nobody, GID: nobody}}, syscall.EACCES)
		if !strings.HasPrefix(err.Error(), want) {
			t.Errorf("in %s: %v, want %s", cwd, err, want)
		}
	}
	if _, err := os.ReadDir(dir); err != nil {
		t.Errorf("this thread is still somebody else: %v", err)
	}
}
