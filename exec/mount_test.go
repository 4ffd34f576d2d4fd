package exec

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/need"

	"golang.org/x/sys/unix"
)

// hang puts a mount on dir whose server never answers, until back is called: who looks
// at what is in there waits.
func hang(t *testing.T, dir string) (back func()) {
	t.Helper()
	server, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	need.Had(t, err)
	need.Had(t, unix.Mount("silent", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40755,user_id=0,group_id=0", server.Fd())))
	back = func() {
		unix.Unmount(dir, unix.MNT_DETACH)
		server.Close()
	}
	t.Cleanup(back)
	return back
}

// threadsOf counts the threads of a process.
func threadsOf(pid int) int { return len(namesIn(procPath(pid, "task"))) }

// A service waits for a file on a mount whose server is gone: exec serves the others,
// spends one thread on it, goes on when the mount is back, and ends while it is not.
func TestAMountThatHangsHoldsNobody(t *testing.T) {
	need.Root(t, "it mounts something")
	dir := t.TempDir()
	mount := filepath.Join(dir, "mount")
	if err := os.Mkdir(mount, 0o755); err != nil {
		t.Fatal(err)
	}
	web := service("web", "part:sleep")
	web.EnvFile = []string{filepath.Join(mount, "env")}
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{web, service("other", "part:sleep")}})
	h.await("web", p2pnode.StateMissing)
	other, exec := h.await("other", p2pnode.StateUp).PID, h.cmd.Process.Pid
	back := hang(t, mount)
	threads := threadsOf(exec)
	for range 20 {
		time.Sleep(worldEvery)
		if h.status("other").PID != other {
			t.Fatal("exec does not answer")
		}
	}
	if n := threadsOf(exec); n > threads+10 {
		t.Errorf("%d threads, and there were %d", n, threads)
	}
	kill9(t, other)
	h.awaitNew("other", other)
	back()
	if err := os.WriteFile(web.EnvFile[0], []byte("A=b"), 0o600); err != nil {
		t.Fatal(err)
	}
	pid := h.await("web", p2pnode.StateUp).PID
	hang(t, mount)
	kill9(t, pid)
	eventually(t, "it is to be started again", func() bool { s := h.status("web"); return s.PID == 0 && s.State != p2pnode.StateUp })
	h.cmd.Process.Signal(unix.SIGTERM)
	eventually(t, "exec has ended", func() bool { return !alive(exec) })
}
