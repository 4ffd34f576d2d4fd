package exec

import (
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/need"
)

// killExec kills the daemon and starts it anew.
func (h *host) killExec() {
	h.t.Helper()
	st, err := h.c.Status(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	kill9(h.t, st.PID)
	h.cmd.Wait()
	eventually(h.t, "the old exec is gone", func() bool { return !alive(st.PID) })
	h.start()
}

// Real programs hide their marks: nginx renames its processes and so wipes the
// cookie. Each is adopted three times, once without its record, with the children that
// it had, and answers what it answered before.
func TestRealProgramsAreAdopted(t *testing.T) {
	dir := t.TempDir()
	web, redis := freeAddr(t), freeAddr(t)
	conf := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf("daemon off; worker_processes 2; pid %s/nginx.pid; error_log stderr; events {} http { access_log off; server { listen %s; location / { return 200 \"here\\n\"; } } }", dir, web)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, redisPort, _ := net.SplitHostPort(redis)
	for _, c := range []struct {
		name, pkg, addr string
		argv            []string
		first, ask      string // what is said once, and what is asked each time
		answer          string // what the last line of each answer is
		children        int
	}{
		{"nginx", "nginx-light", web, []string{"nginx", "-c", conf, "-e", "stderr"}, "", "GET / HTTP/1.0\r\n\r\n", "here", 2},
		{"redis", "redis-server", redis, []string{"redis-server", "--port", redisPort, "--save", "", "--dir", dir}, "SET life first\r\nQUIT\r\n", "PING\r\nGET life\r\nQUIT\r\n", "+PONG $5 first +OK", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			need.Program(t, c.argv[0], c.pkg)
			h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{{Name: c.name, Command: c.argv, StopGrace: time.Second}}, Door: true})
			was := h.await(c.name, p2pnode.StateUp)
			answers := func() bool { return strings.HasSuffix(saidTo(c.addr, c.ask), c.answer) }
			eventually(t, "it answers", func() bool { return saidTo(c.addr, c.ask) != "" })
			if c.first != "" {
				saidTo(c.addr, c.first)
			}
			eventually(t, "it answers as it should", answers)
			var children []int
			eventually(t, "it has its children", func() bool { children = childrenOf(was.PID); return len(children) == c.children })
			// The record alone must not be what adoption rests on.
			for _, lose := range []bool{false, true, false} {
				h.withoutExec(func() {
					if !answers() {
						t.Errorf("no exec is there: it says %q", saidTo(c.addr, c.ask))
					}
					if lose {
						if err := os.Remove(filepath.Join(stateDir(h.dir), "services", c.name+".json")); err != nil {
							t.Error(err)
						}
					}
				})
				now := h.await(c.name, p2pnode.StateUp)
				if now.PID != was.PID || !now.Adopted || !answers() {
					t.Fatalf("record lost %v: %+v, was %+v; it says %q", lose, now, was, saidTo(c.addr, c.ask))
				}
				if left := childrenOf(was.PID); !slices.Equal(left, children) {
					t.Errorf("record lost %v: its children were %v, now %v", lose, children, left)
				}
			}
			kill9(t, was.PID)
			h.awaitNew(c.name, was.PID)
			eventually(t, "the next life answers", func() bool { return saidTo(c.addr, c.ask) != "" })
			if left := slices.DeleteFunc(children, func(pid int) bool { return !alive(pid) }); len(left) > 0 {
				t.Errorf("of the dead life there are still %v", left)
			}
		})
	}
}

// saidTo says something on a connection of its own and returns all that is answered, as
// one line.
func saidTo(addr, what string) string {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return ""
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	fmt.Fprint(conn, what)
	raw, _ := io.ReadAll(conn)
	return strings.Join(strings.Fields(string(raw)), " ")
}

// Killed between fork and record: the copy is known by its lock alone.
func TestACopyWithoutRecordIsAdopted(t *testing.T) {
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:sleep")}})
	was := h.await("web", p2pnode.StateUp)
	st, err := openState(stateDir(h.dir), runDir(h.dir))
	if err != nil {
		t.Fatal(err)
	}
	rec, _ := st.get("web")
	rec.Starting, rec.PID, rec.Ticks = true, 0, 0
	if err := st.put(rec); err != nil {
		t.Fatal(err)
	}
	h.killExec()
	if now := h.await("web", p2pnode.StateUp); now.PID != was.PID || now.Incarnation != was.Incarnation {
		t.Fatalf("%+v, was %+v", now, was)
	}
}

// Somebody holds the lock who is not the service and is not seen as it: blocked,
// never a second copy; a person may force it.
func TestAHeldLockBlocksUntilForced(t *testing.T) {
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:sleep")}})
	h.await("web", p2pnode.StateUp)
	if _, err := h.c.Stop(t.Context(), "web", VerbOptions{}); err != nil {
		t.Fatal(err)
	}
	st, err := openState(stateDir(h.dir), runDir(h.dir))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(runDir(h.dir), "web."+st.identity()+".lock")
	lock, err := openLock(path)
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := takeLock(lock); !ok || err != nil {
		t.Fatal(ok, err)
	}
	// A holder that cannot be seen: the description is in a socket's queue.
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(pair[0])
	defer syscall.Close(pair[1])
	if err := syscall.Sendmsg(pair[0], []byte("x"), syscall.UnixRights(int(lock.Fd())), nil, 0); err != nil {
		t.Fatal(err)
	}
	lock.Close()
	res, err := h.c.Start(t.Context(), "web", VerbOptions{})
	if err != nil || res.OK || res.Services[0].State != p2pnode.StateBlocked {
		t.Fatalf("%+v, %v, want blocked", res, err)
	}
	if res, err = h.c.Start(t.Context(), "web", VerbOptions{Force: true}); err != nil || !res.OK {
		t.Fatalf("forced: %+v, %v", res, err)
	}
}

func TestKeepServicesLeavesThemForTheNext(t *testing.T) {
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:sleep")}})
	was := h.await("web", p2pnode.StateUp)
	if err := h.c.Shutdown(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	h.cmd.Wait()
	if !alive(was.PID) {
		t.Fatal("the service was stopped")
	}
	h.start()
	if now := h.await("web", p2pnode.StateUp); now.PID != was.PID {
		t.Errorf("%+v, was %+v", now, was)
	}
}

// An exec that an init starts takes over from one that was started by hand; a
// service does not notice.
func TestASupervisedExecTakesOver(t *testing.T) {
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:sleep")}, Old: true})
	was := h.await("web", p2pnode.StateUp)
	first := h.cmd
	h.cfg.Supervised = "yes"
	h.start()
	if err := first.Wait(); err == nil || first.ProcessState.ExitCode() != exitTakenOver {
		t.Errorf("the old exec ended with %v", err)
	}
	h.dial()
	if now := h.await("web", p2pnode.StateUp); now.PID != was.PID || !now.Adopted {
		t.Errorf("%+v, was %+v", now, was)
	}
}

// One that works here since a moment is not taken over, and whom the init started
// waits: it does not fail, ends in order when the init says so, and works as soon as
// there is room.
func TestASupervisedExecWaits(t *testing.T) {
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:sleep")}})
	was := h.await("web", p2pnode.StateUp)
	first := h.cmd
	h.cfg.Supervised = "yes"
	h.start()
	second, ended := h.cmd, make(chan error, 1)
	go func() { ended <- second.Wait() }()
	select {
	case err := <-ended:
		t.Fatalf("who was to wait ended: %v", err)
	case <-time.After(2 * time.Second):
	}
	second.Process.Signal(syscall.SIGTERM)
	if err := <-ended; err != nil {
		t.Errorf("who waited and was told to end: %v", err)
	}
	h.start()
	first.Process.Kill()
	first.Wait()
	h.dial()
	if now := h.await("web", p2pnode.StateUp); now.PID != was.PID || !now.Adopted {
		t.Errorf("%+v, was %+v", now, was)
	}
}
