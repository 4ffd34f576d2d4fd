package exec

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/need"

	"golang.org/x/sys/unix"
)

// mountPoint is a folder to mount something on.
func mountPoint(t *testing.T) string {
	t.Helper()
	need.Root(t, "it mounts something")
	dir := filepath.Join(t.TempDir(), "mount")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

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

// holdReader puts a mount on dir whose server takes a first question and never answers
// it: who asked, once asked is closed, does not die of SIGKILL.
func holdReader(t *testing.T, dir string) (asked chan struct{}) {
	t.Helper()
	server, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	need.Had(t, err)
	need.Had(t, unix.Mount("silent", dir, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40755,user_id=0,group_id=0", server)))
	t.Cleanup(func() {
		unix.Unmount(dir, unix.MNT_DETACH)
		unix.Close(server)
	})
	ask, answer := make([]byte, 1<<16), make([]byte, 80) // FUSE_INIT: a header of 16, then its version and no wishes
	if _, err = unix.Read(server, ask); err != nil {
		t.Fatal(err)
	}
	ne := binary.NativeEndian
	ne.PutUint32(answer, uint32(len(answer)))
	copy(answer[8:16], ask[8:16])
	ne.PutUint32(answer[16:], 7)
	ne.PutUint32(answer[20:], 31)
	ne.PutUint32(answer[36:], 4096) // at most in one write
	if _, err = unix.Write(server, answer); err != nil {
		t.Fatal(err)
	}
	asked = make(chan struct{})
	go func() {
		unix.Read(server, ask)
		close(asked)
	}()
	return asked
}

// threadsOf counts the threads of a process.
func threadsOf(pid int) int { return len(namesIn(procPath(pid, "task"))) }

// A service waits for a file on a mount whose server is gone: exec serves the others,
// spends one thread on it, goes on when the mount is back, and ends while it is not.
func TestAMountThatHangsHoldsNobody(t *testing.T) {
	mount := mountPoint(t)
	web := service("web", "part:sleep")
	web.EnvFile = []string{filepath.Join(mount, "env")}
	writes := service("writes", "part:sleep")
	writes.LogFile, writes.StopGrace = filepath.Join(mount, "writes.log"), 100*time.Millisecond
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{web, writes, service("other", "part:sleep")}})
	h.await("web", p2pnode.StateMissing)
	other, exec := h.await("other", p2pnode.StateUp).PID, h.cmd.Process.Pid
	itself := h.await("writes", p2pnode.StateUp).PID
	back := hang(t, mount)
	threads := threadsOf(exec)
	for range 20 {
		time.Sleep(worldEvery)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		_, err := h.c.Status(ctx)
		cancel()
		if err != nil {
			t.Fatalf("exec does not answer: %v", err)
		}
	}
	if n := threadsOf(exec); n > threads+10 {
		t.Errorf("%d threads, and there were %d", n, threads)
	}
	unix.Kill(itself, unix.SIGSTOP) // what it wrote last is on the mount
	h.awaitNew("writes", itself)
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

// A shutdown does not wait for what the kernel does not let die: what stops after it is
// asked, and has its time.
func TestAShutdownPassesWhatAMountHolds(t *testing.T) {
	mount := mountPoint(t)
	wrote := filepath.Join(filepath.Dir(mount), "wrote")
	front := p2pnode.ServiceSpec{Name: "front", Command: []string{"/bin/cat", filepath.Join(mount, "file")}, After: []string{"db"}, StopTimeout: 200 * time.Millisecond}
	db := p2pnode.ServiceSpec{Name: "db", Command: []string{"/bin/sh", "-c", "trap 'sleep 0.5; echo all of it >" + wrote + "; exit' TERM; while :; do sleep 0.05; done"}, StopTimeout: time.Minute}
	asked := holdReader(t, mount)
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{front, db}})
	held, exec := h.await("front", p2pnode.StateUp).PID, h.cmd.Process.Pid
	<-asked
	h.cmd.Process.Signal(unix.SIGTERM)
	eventually(t, "exec has ended", func() bool { return !alive(exec) })
	if !alive(held) {
		t.Error("it was not held")
	}
	if raw, err := os.ReadFile(wrote); err != nil || string(raw) != "all of it\n" {
		t.Errorf("what stops after it wrote %q %v", raw, err)
	}
}

// Checks whose file, program or socket is on a mount that hangs fail in their time, say
// why, spend a thread each, hold up no start, are forgotten for other ones, and pass
// when the mount is back.
func TestACheckOnAMountThatHangs(t *testing.T) {
	mount := mountPoint(t)
	program := filepath.Join(mount, "program")
	if err := os.WriteFile(program, []byte("#!/bin/sh\nexit 0\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	onIt := func(name string, c p2pnode.Check) p2pnode.ServiceSpec {
		s := service(name, "part:sleep")
		c.Every, c.Timeout, c.Failures, c.Unready = 100*time.Millisecond, 100*time.Millisecond, 3, true
		s.Check = &c
		return s
	}
	services := []p2pnode.ServiceSpec{
		onIt("file", p2pnode.Check{File: program, Newer: time.Hour}),
		onIt("folder", p2pnode.Check{Exec: []string{"/bin/true"}}),
		onIt("program", p2pnode.Check{Exec: []string{program}}),
	}
	services[1].Cwd, services[2].StartWithin = mount, time.Second
	h := newHost(t, daemonConfig{Services: services[:2]})
	h.await("folder", p2pnode.StateUp)
	file, exec := h.await("file", p2pnode.StateUp).PID, h.cmd.Process.Pid
	threads := threadsOf(exec)
	back := hang(t, mount)
	h.reload(services...)
	for _, s := range services {
		if now := h.await(s.Name, p2pnode.StateUnready); !strings.Contains(now.Check.LastError, "does a mount hang?") {
			t.Errorf("%s: %+v", s.Name, now.Check)
		}
	}
	time.Sleep(2 * time.Second) // twenty questions of one, were they put
	if n := threadsOf(exec); n > threads+10 {
		t.Errorf("%d threads, and there were %d", n, threads)
	}
	other := onIt("file", p2pnode.Check{File: h.dir, Newer: time.Hour})
	h.reload(other, services[1], services[2])
	h.await("file", p2pnode.StateUp)
	kill9(t, file)
	h.awaitNew("file", file)
	back()
	for _, s := range services[1:] {
		if now := h.await(s.Name, p2pnode.StateUp); now.Restarts != 0 {
			t.Errorf("%+v", now)
		}
	}
	h.reload(services[0])
	eventually(t, "the other ones are gone", func() bool { return h.status("program").Name+h.status("folder").Name == "" })
	hang(t, mount)
	h.cmd.Process.Signal(unix.SIGTERM)
	eventually(t, "exec has ended", func() bool { return !alive(exec) })
}
