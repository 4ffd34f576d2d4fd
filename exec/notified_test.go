package exec

import (
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/exec/notify"
	"p2pnode/test/bin"
	"p2pnode/test/need"

	"golang.org/x/sys/unix"
)

// A service of another user, and one in a folder with a long name, are heard too.
func TestEveryServiceIsHeard(t *testing.T) {
	ready := service("beat", "part:ready")
	ready.Ready = p2pnode.ReadyNotify
	t.Run("long folder", func(t *testing.T) {
		h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{ready}, Deep: true})
		was := h.await("beat", p2pnode.StateUp)
		if was.StatusText != "serving" {
			t.Errorf("it says %q of itself, not what it said", was.StatusText)
		}
		h.killExec()
		if now := h.await("beat", p2pnode.StateUp); now.PID != was.PID {
			t.Errorf("%+v, was %+v", now, was)
		}
	})
	t.Run("other user", func(t *testing.T) {
		need.Root(t, "a service runs as another user")
		other := ready
		other.User = "nobody"
		other.Command = append([]string{programFor(t)}, other.Command[1:]...)
		h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{other}})
		h.await("beat", p2pnode.StateUp)
	})
}

// programFor is a copy of the test binary that every user may run.
func programFor(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "p2pnode")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "part")
	bin.Copy(t, "/proc/self/exe", path, "")
	return path
}

// A program that goes to the background names its child with its last word. The child
// is the service then: its first process's end is no failure, its own is; it is adopted,
// and ends when the service is stopped. Of other processes it names none.
func TestAServiceGoesToTheBackground(t *testing.T) {
	spec := service("daemon", "part:background", "1", strconv.Itoa(os.Getpid()))
	spec.Ready = p2pnode.ReadyNotify
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{spec}, Door: true})
	for round := range 5 {
		was := h.await("daemon", p2pnode.StateUp)
		if st, err := readStat(was.PID); err != nil || st.session != was.PID || was.PID == os.Getpid() {
			t.Fatalf("its main process is %d (%v): not the child in the background", was.PID, err)
		}
		if was.Restarts != round {
			t.Fatalf("%d restarts after %d kills: the end of its first process counted", was.Restarts, round)
		}
		h.killExec()
		if now := h.await("daemon", p2pnode.StateUp); now.PID != was.PID || now.Restarts != round {
			t.Fatalf("adopted %d with %d restarts, was %d with %d", now.PID, now.Restarts, was.PID, round)
		}
		time.Sleep(freeLife) // or the next one waits
		kill9(t, was.PID)
		now := h.awaitNew("daemon", was.PID)
		if now.LastExit == nil || now.LastExit.Signal != "SIGKILL" {
			t.Fatalf("it ended by %+v", now.LastExit)
		}
	}
	last := h.await("daemon", p2pnode.StateUp)
	if _, err := h.c.Stop(t.Context(), "daemon", VerbOptions{}); err != nil {
		t.Fatal(err)
	}
	if alive(last.PID) {
		t.Errorf("%d lives after the stop", last.PID)
	}
}

// An abstract name is reached by everybody: a stranger is not heard.
func TestAStrangerIsNotHeard(t *testing.T) {
	ready := service("deaf", "part:sleep")
	ready.Ready = p2pnode.ReadyNotify
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{ready}, Deep: true})
	pid := 0
	eventually(t, "it runs", func() bool { pid = h.status("deaf").PID; return pid != 0 })
	socket := environ(t, pid, "NOTIFY_SOCKET")
	if !strings.HasPrefix(socket, "@") {
		t.Fatalf("NOTIFY_SOCKET is %q", socket)
	}
	notifyAs(t, socket, "READY=1")
	notifyAs(t, socket, "READY=1")
	if s := h.status("deaf"); s.State != p2pnode.StateStarting {
		t.Errorf("a stranger made it %s", s.State)
	}
}

// Another user writes a service's cookie into his environment: it makes him nobody's
// process. What the service starts as that user, in another session, is its own.
func TestACookieIsNoPass(t *testing.T) {
	id := identity{folder: "7-7.1", service: "web"}
	run := func(env ...string) int {
		cmd := osexec.Command("/bin/sh", "-c", "setsid sleep 100 & echo; wait")
		cmd.Env = append(os.Environ(), env...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		out, err := cmd.StdoutPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			for _, child := range childrenOf(cmd.Process.Pid) {
				unix.Kill(child, unix.SIGKILL)
			}
			cmd.Wait()
		})
		out.Read(make([]byte, 1)) // the child is there
		return cmd.Process.Pid
	}
	web, forged := run(), run(id.cookie(p2pnode.Incarnation{N: 1}))
	k := &kid{id: id, proc: &process{pid: web}}
	r := &runner{}
	for name, c := range map[string]struct {
		pid, uid int
		want     bool
	}{
		"itself":                  {web, 4711, true},
		"its child":               {childrenOf(web)[0], 4711, true},
		"cookie, of another user": {forged, 4711, false},
		"cookie, of its user":     {forged, os.Getuid(), true},
		"of its user, no cookie":  {os.Getpid(), os.Getuid(), false},
	} {
		if got := r.speaksFor(k, notify.Message{PID: c.pid, UID: c.uid}); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// A service that is to say when it is ready and does not, within start_within, hangs in
// its start and is started anew. One that asks for more time gets it, and owes nothing
// more once it is ready.
func TestAStartHasAnEnd(t *testing.T) {
	silent, late := service("silent", "part:sleep"), service("late", "part:late")
	for _, s := range []*p2pnode.ServiceSpec{&silent, &late} {
		s.Ready, s.StartWithin = p2pnode.ReadyNotify, 2500*time.Millisecond
	}
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{silent, late}})
	pid := 0
	eventually(t, "it runs", func() bool { pid = h.status("silent").PID; return pid != 0 })
	acted := h.actedOn("silent")
	if e := acted(); e.Class != p2pnode.ClassHung || e.PID == pid {
		t.Errorf("it was restarted for %q", e.Class)
	}
	was := h.await("late", p2pnode.StateUp)
	time.Sleep(3 * time.Second) // longer than a start may take
	if now := h.status("late"); now.State != p2pnode.StateUp || now.PID != was.PID || now.Restarts != 0 {
		t.Errorf("it had asked for more time, and is %+v", now)
	}
}

// Who waits for a service that is not ready hears what it has not done.
func TestNotReadySaysWhy(t *testing.T) {
	silent, failing := service("silent", "part:sleep"), service("failing", "part:sleep")
	silent.Ready = p2pnode.ReadyNotify
	failing.Check, failing.StartWithin = &p2pnode.Check{Exec: []string{"false"}, Every: time.Hour, Timeout: time.Second, Failures: 3}, time.Hour
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{silent, failing}})
	for name, why := range map[string]string{"silent": "it has not said READY=1 yet", "failing": "its check has not passed yet"} {
		eventually(t, name+" runs", func() bool { return h.status(name).PID != 0 })
		if s := h.status(name); s.State != p2pnode.StateStarting || s.Why != why {
			t.Errorf("%s: %+v", name, s)
		}
	}
}
