package door

import (
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"p2pnode"
	"p2pnode/exec"
	"p2pnode/exec/logs"
)

// kept is a real child that prints into a real FIFO, as exec hands it over.
func kept(t *testing.T, dir, script string) (exec.Kept, *osexec.Cmd) {
	t.Helper()
	path := filepath.Join(dir, "web.fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := osexec.Command("/bin/sh", "-c", script)
	cmd.Stdout = out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Process.Kill(); cmd.Wait() })
	cmd.Stdin = nil
	pidfd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in, "go")
	return exec.Kept{Service: "web", PID: cmd.Process.Pid, FIFO: os.NewFile(uintptr(fd), path), Pidfd: os.NewFile(uintptr(pidfd), "pidfd")}, cmd
}

func newTestKeeper(t *testing.T) (*keeper, string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "logs"), 0o700); err != nil {
		t.Fatal(err)
	}
	k := newKeeper(dir, func(p2pnode.Life) {}, zerolog.Nop())
	t.Cleanup(k.close)
	return k, dir
}

func away(dir string) string {
	raw, _ := os.ReadFile(logs.AwayPath(filepath.Join(dir, "logs"), "web"))
	return string(raw)
}

func TestKeeperReadsOnlyWhileExecIsAway(t *testing.T) {
	k, dir := newTestKeeper(t)
	x, cmd := kept(t, dir, "read a; echo one; read b")
	k.Keep(x)
	var fds [1]unix.PollFd
	fds[0] = unix.PollFd{Fd: int32(x.FIFO.Fd()), Events: unix.POLLIN}
	if n, err := unix.Poll(fds[:], 20000); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if away(dir) != "" {
		t.Fatal("it reads while exec is there")
	}
	if err := unix.SetNonblock(int(x.FIFO.Fd()), true); err != nil { // Fd made it blocking
		t.Fatal(err)
	}
	k.away()
	eventually(t, "it reads", func() bool { return away(dir) == "one\n" })
	held := k.Held()
	if len(held) != 1 || held[0].Service != "web" || held[0].PID != cmd.Process.Pid {
		t.Fatalf("%+v", held)
	}
	w, err := os.OpenFile(x.FIFO.Name(), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	fmt.Fprintln(w, "two")
	got := make([]byte, 64)
	if n, err := x.FIFO.Read(got); err != nil || string(got[:n]) != "two\n" {
		t.Errorf("given back, it holds %q, %v", got[:n], err)
	}
	// The second absence goes on in the same file.
	k.away()
	fmt.Fprintln(w, "three")
	eventually(t, "it reads again", func() bool { return away(dir) == "one\nthree\n" })
	if alive, known := k.alive("web"); !alive || !known {
		t.Error("a living process is called dead")
	}
	cmd.Process.Kill()
	cmd.Wait()
	if alive, known := k.alive("web"); alive || !known {
		t.Error("a dead process is called alive")
	}
	k.Drop("web")
	if _, known := k.alive("web"); known || len(k.Held()) != 0 {
		t.Error("it is still held")
	}
	if _, err := x.FIFO.Read(got); err == nil {
		t.Error("the FIFO is open after the drop")
	}
}

// A service that prints megabytes is never blocked, the files are bounded, and of
// what it printed the beginning and the end are kept.
func TestKeeperIsBounded(t *testing.T) {
	k, dir := newTestKeeper(t)
	const n = 3 << 20
	x, cmd := kept(t, dir, fmt.Sprintf("read a; echo first; head -c %d /dev/zero | tr '\\0' x; echo last", n))
	k.away()
	k.Keep(x) // kept while exec is away: read at once
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	var left int
	eventually(t, "the pipe is empty", func() bool {
		raw, err := x.FIFO.SyscallConn()
		if err != nil {
			return false
		}
		raw.Control(func(fd uintptr) { left, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
		return err == nil && left == 0
	})
	k.Held()
	part := func(suffix string) string {
		raw, err := os.ReadFile(logs.AwayPath(filepath.Join(dir, "logs"), "web") + suffix)
		if err != nil || len(raw) > maxAway+100 {
			t.Errorf("%s: %d bytes, %v", suffix, len(raw), err)
		}
		return string(raw)
	}
	head, older, newest := part(""), part(logs.AwayOlder), part(logs.AwayNewest)
	note := fmt.Sprintf("\n[%d bytes were dropped while exec was away]\n", n+len("first\nlast\n")-maxAway-len(older)-len(newest))
	if !strings.HasPrefix(head, "first\n") || !strings.HasSuffix(head, note) || !strings.HasSuffix(newest, "last\n") {
		t.Errorf("it begins %.20q and ends %q, %q", head, head[max(0, len(head)-80):], newest[max(0, len(newest)-20):])
	}
}

func TestKeeperWritesOnlyToRegularFiles(t *testing.T) {
	k, dir := newTestKeeper(t)
	other := filepath.Join(dir, "other")
	if err := os.Symlink(other, logs.AwayPath(filepath.Join(dir, "logs"), "web")); err != nil {
		t.Fatal(err)
	}
	x, cmd := kept(t, dir, "read a; head -c 1000000 /dev/zero")
	k.Keep(x)
	k.away()
	if err := cmd.Wait(); err != nil {
		t.Fatal("the service is blocked")
	}
	k.Held()
	if _, err := os.Stat(other); err == nil {
		t.Error("a symlink was followed")
	}
}

func TestKeeperHoldsABoundedNumber(t *testing.T) {
	k, _ := newTestKeeper(t)
	pair := func(name string) (exec.Kept, *os.File) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		w.Close()
		p, err := os.Open("/dev/null")
		if err != nil {
			t.Fatal(err)
		}
		return exec.Kept{Service: name, FIFO: r, Pidfd: p}, r
	}
	for i := range maxHeld {
		x, _ := pair(fmt.Sprint("s", i))
		k.Keep(x)
	}
	x, r := pair("one-more")
	k.Keep(x)
	if len(k.Held()) != maxHeld {
		t.Errorf("%d held", len(k.Held()))
	}
	if err := r.Close(); err == nil {
		t.Error("what is not held is not closed")
	}
	x, _ = pair("s0")
	k.Keep(x) // the same service again is a replacement
	if len(k.Held()) != maxHeld {
		t.Error("a replacement counts twice")
	}
}
