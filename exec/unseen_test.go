package exec

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/exec/logs"
	"p2pnode/test/need"

	"golang.org/x/sys/unix"
)

// withoutExec kills exec, does what is given, and starts exec anew.
func (h *host) withoutExec(do func()) {
	h.t.Helper()
	st, err := h.c.Status(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	kill9(h.t, st.PID)
	h.cmd.Wait()
	eventually(h.t, "the old exec is gone", func() bool { return !alive(st.PID) })
	do()
	h.start()
}

// A service that dies while no exec is there is not less of a story: how it ended,
// what it printed last, and its next life is told.
func TestADeathThatNoExecSawIsTold(t *testing.T) {
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:say")}, Door: true})
	was := h.await("web", p2pnode.StateUp)
	h.await(p2pnode.SelfDoor, p2pnode.StateUp)
	eventually(t, "it listens", func() bool { return len(h.log("web")) > 0 })
	eventually(t, "the door holds what must outlive exec", func() bool { return holdsFIFO(h.status(p2pnode.SelfDoor).PID, "web-") })
	h.withoutExec(func() {
		if err := syscall.Kill(was.PID, syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the service is dead", func() bool { return !alive(was.PID) })
	})
	events, err := h.c.Events(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	failed := awaitEvent(t, events, p2pnode.FactFailed, "web")
	if failed.Exit == nil || failed.Exit.Unknown || failed.Exit.Code != 7 {
		t.Errorf("exit %+v, want code 7", failed.Exit)
	}
	if failed.Excerpt == nil || !slices.Contains(failed.Excerpt.Lines, "last words") || !strings.HasPrefix(failed.Excerpt.Lines[0], "hello") {
		t.Errorf("excerpt %+v lacks what it printed", failed.Excerpt)
	}
	h.awaitNew("web", was.PID)
	var text []string
	eventually(t, "the next life is told why", func() bool {
		text = h.log("web")
		return slices.Contains(text, "hello, last 7")
	})
	if want := []string{"hello, last", "last words", "hello, last 7"}; !slices.Equal(trimmed(text), want) {
		t.Errorf("log %q, want %q", text, want)
	}
}

// Exec is killed again and again and nobody has heard of anything yet: the next one
// still tells of each repair, not of the last alone, with the words of each life.
func TestRepairsThatNobodyHeardOfAreAllTold(t *testing.T) {
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:say")}})
	pid := h.await("web", p2pnode.StateUp).PID
	for lives := range 3 {
		eventually(t, "it listens", func() bool { return len(h.log("web")) > lives })
		h.withoutExec(func() { kill9(t, pid) })
		pid = h.awaitNew("web", pid).PID
	}
	h.withoutExec(func() {})
	events, err := h.c.Events(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	var targets []string
	for range 3 {
		ev := awaitEvent(t, events, p2pnode.FactActed, "web")
		if ev.Excerpt == nil || len(ev.Excerpt.Lines) == 0 || !strings.HasPrefix(ev.Excerpt.Lines[len(ev.Excerpt.Lines)-1], "hello") {
			t.Errorf("%s: excerpt %+v lacks what that life printed", ev.Target, ev.Excerpt)
		}
		if ev.New == "" || ev.New == ev.Target || ev.DetectedAt.IsZero() || ev.Class == "" {
			t.Errorf("%+v", ev)
		}
		targets = append(targets, ev.Target)
	}
	if slices.Sort(targets); len(slices.Compact(targets)) != 3 {
		t.Errorf("told of %v", targets)
	}
}

// A keeper that comes when adoption is through is not too late: what it wrote is
// part of the log.
func TestALateKeeperIsHeard(t *testing.T) {
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:sleep")}, Door: true})
	h.await("web", p2pnode.StateUp)
	door := h.await(p2pnode.SelfDoor, p2pnode.StateUp)
	h.withoutExec(func() {
		if err := syscall.Kill(door.PID, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	})
	h.await("web", p2pnode.StateUp)
	if err := os.WriteFile(logs.AwayPath(logDir(h.dir), "web"), []byte("late\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(door.PID, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is in the log", func() bool { return slices.Contains(h.log("web"), "late") })
}

// An exec that is killed in the middle of a start has not handed the new life's output
// to the keeper, which holds that of the life before. The next exec reads on where the
// new life writes.
func TestTheKeeperHoldsTheOutputOfTheLifeBefore(t *testing.T) {
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:say")}, Door: true})
	was := h.await("web", p2pnode.StateUp)
	h.await(p2pnode.SelfDoor, p2pnode.StateUp)
	eventually(t, "it has said hello", func() bool { return len(h.log("web")) > 0 })
	eventually(t, "the door holds the first life's output", func() bool { return holdsFIFO(h.status(p2pnode.SelfDoor).PID, "web-") })
	if err := os.WriteFile(filepath.Join(h.dir, "keeper-full"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	kill9(t, was.PID)
	now := h.awaitNew("web", was.PID)
	eventually(t, "the new life has said hello", func() bool { return len(h.log("web")) > 1 })
	h.killExec()
	if s := h.await("web", p2pnode.StateUp); s.PID != now.PID || !s.Adopted {
		t.Fatalf("%+v, was %+v", s, now)
	}
	if err := syscall.Kill(now.PID, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	h.awaitNew("web", now.PID)
	var text []string
	eventually(t, "the third life has said hello", func() bool { text = trimmed(h.log("web")); return slices.Contains(text, "hello, last 7") })
	if want := []string{"hello, last", "hello, last SIGKILL", "last words", "hello, last 7"}; !slices.Equal(text, want) {
		t.Errorf("log %q, want %q", text, want)
	}
}

func trimmed(lines []string) (out []string) {
	for _, l := range lines {
		out = append(out, strings.TrimSpace(l))
	}
	return out
}

func (h *host) log(name string) (out []string) {
	h.t.Helper()
	lines, err := h.c.Logs(h.t.Context(), LogQuery{Services: []string{name}, Lines: 100000})
	if err != nil {
		return nil
	}
	for l := range lines {
		out = append(out, l.Text)
	}
	return out
}

// holdsFIFO reports whether pid has a FIFO of the given beginning open.
func holdsFIFO(pid int, begins string) bool {
	fds, _ := filepath.Glob(procPath(pid, "fd/*"))
	return slices.ContainsFunc(fds, func(fd string) bool {
		to, _ := os.Readlink(fd)
		return strings.HasSuffix(to, ".fifo") && strings.HasPrefix(filepath.Base(to), begins)
	})
}

// The kernel tells how an adopted process ended, also while its new parent has not
// taken its status.
func TestTheExitOfAnAdoptedProcessIsKnown(t *testing.T) {
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:say")}})
	was := h.await("web", p2pnode.StateUp)
	eventually(t, "it listens", func() bool { return len(h.log("web")) > 0 })
	h.killExec()
	if now := h.await("web", p2pnode.StateUp); now.PID != was.PID || !now.Adopted {
		t.Fatalf("%+v, was %+v", now, was)
	}
	if err := syscall.Kill(was.PID, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	now := h.awaitNew("web", was.PID)
	if now.LastExit == nil || now.LastExit.Unknown || now.LastExit.Code != 7 {
		t.Errorf("last exit %+v, want code 7", now.LastExit)
	}
	kill9(t, now.PID)
	if next := h.awaitNew("web", now.PID); next.LastExit == nil || next.LastExit.Signal != "SIGKILL" {
		t.Errorf("last exit %+v, want SIGKILL", next.LastExit)
	}
}

// The main process dies while no exec is there; what it left, in a session of its
// own, with lock and cookie or with the cookie alone, is neither taken for the
// service nor left beside the next copy.
func TestWhatADeadMainProcessLeftIsNotTheService(t *testing.T) {
	for _, part := range []string{"family", "shy-family"} {
		t.Run(part, func(t *testing.T) {
			h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:"+part)}, NoCgroups: true})
			was := h.await("web", p2pnode.StateUp)
			var children []int
			eventually(t, "it has a child", func() bool { children = childrenOf(was.PID); return len(children) == 1 && copiesOf(h, "web") == 2 })
			h.withoutExec(func() { kill9(t, was.PID) })
			now := h.awaitNew("web", was.PID)
			if now.PID == children[0] || now.Adopted {
				t.Errorf("the child %d was taken for the service: %+v", children[0], now)
			}
			if alive(children[0]) {
				t.Errorf("%d of the dead life goes on beside the new copy", children[0])
			}
		})
	}
}

// A harness that is killed while exec is dead leaves nothing behind either.
func TestTheLeashEndsEverythingWithoutExec(t *testing.T) {
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:tree")}, Node: true, Door: true, Guard: true})
	web := h.await("web", p2pnode.StateUp).PID
	pids := []int{web, h.await(p2pnode.SelfNode, p2pnode.StateUp).PID, h.await(p2pnode.SelfDoor, p2pnode.StateUp).PID}
	eventually(t, "it has a child", func() bool { return len(childrenOf(web)) == 1 })
	pids = append(pids, childrenOf(web)...)
	st, err := h.c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	kill9(t, st.PID)
	h.cmd.Wait()
	h.end.Close()
	h.leash.Close()
	began := time.Now()
	eventually(t, "everything ends with the leash", func() bool { return !slices.ContainsFunc(pids, alive) })
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("it took %v", took)
	}
}

// What a person wants and the disk refuses is said, and is written down as soon
// as there is room, without anybody asking again.
func TestIntentThatCouldNotBeWrittenIsWrittenLater(t *testing.T) {
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:sleep"), service("other", "part:sleep")}})
	h.await("web", p2pnode.StateUp)
	aside := filepath.Join(h.dir, "aside")
	if err := os.Rename(stateDir(h.dir), aside); err != nil { // every write in it fails now
		t.Fatal(err)
	}
	res, err := h.c.Stop(t.Context(), "web", VerbOptions{})
	if err != nil || !res.OK || !strings.Contains(res.Services[0].Text, "could not be written down") {
		t.Errorf("stop: %+v, %v", res, err)
	}
	until := time.Now().Add(time.Hour)
	if err := h.c.Maintenance(t.Context(), "other", until); asError(err).Code != "not-written" {
		t.Errorf("maintenance: %v", err)
	}
	degraded := func() (disk []string) {
		st, err := h.c.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return slices.DeleteFunc(st.Degraded, func(s string) bool { return !strings.HasPrefix(s, "disk: ") })
	}
	if d := degraded(); len(d) != 1 {
		t.Errorf("degraded %q, want one word on the disk", d)
	}
	if err := os.Rename(aside, stateDir(h.dir)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it comes back by itself", func() bool { return len(degraded()) == 0 })
	h.killExec()
	h.await("other", p2pnode.StateUp)
	if s := h.status("web"); s.State != p2pnode.StateStopped {
		t.Errorf("web is %s after a restart of exec, a person stopped it", s.State)
	}
	if s := h.status("other"); !s.MaintenanceUntil.Equal(until) {
		t.Errorf("maintenance until %v, want %v", s.MaintenanceUntil, until)
	}
}

// A debugger holds a program that misses its heartbeats: it is left alone as long
// as it is held, and not longer.
func TestATracedProcessIsLeftAlone(t *testing.T) {
	beat := service("beat", "part:beat")
	beat.Ready, beat.Watchdog = p2pnode.ReadyNotify, 300*time.Millisecond
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{beat}})
	was := h.await("beat", p2pnode.StateUp)
	release := seize(t, was.PID)
	time.Sleep(time.Second) // several deadlines go by
	if now := h.status("beat"); now.PID != was.PID || !alive(was.PID) {
		t.Fatalf("a traced process was killed: %+v, was %+v", now, was)
	}
	release()
	h.awaitNewPID("beat", was.PID)
}

func (h *host) awaitNewPID(name string, old int) {
	h.t.Helper()
	eventually(h.t, name+" was replaced", func() bool { s := h.status(name); return s.PID != 0 && s.PID != old })
}

// seize makes this test the tracer of pid until release is called.
func seize(t *testing.T, pid int) (release func()) {
	t.Helper()
	begun, over, done := make(chan error), make(chan struct{}), make(chan struct{})
	go func() { // ptrace belongs to a thread; it dies with this goroutine
		defer close(done)
		runtime.LockOSThread()
		err := unix.PtraceSeize(pid)
		begun <- err
		if err != nil {
			return
		}
		<-over
		if unix.PtraceInterrupt(pid) == nil {
			unix.Wait4(pid, nil, unix.WALL, nil)
			unix.PtraceDetach(pid)
		}
	}()
	if err := <-begun; err != nil {
		need.Had(t, fmt.Errorf("ptrace is not allowed here: %w", err))
	}
	return func() { close(over); <-done }
}

// A life prints something, kills exec and ends, all before exec has written down that
// it runs: what it printed is in the log, and in nobody else's story.
func TestALifeThatWasNeverWrittenDownKeepsItsWords(t *testing.T) {
	for name, begin := range map[string]func(h *host, pid int){
		"after a crash":        func(h *host, pid int) { kill9(h.t, pid) },
		"when a person starts": func(h *host, _ int) { h.c.Restart(h.t.Context(), "web", VerbOptions{NoWait: true}) },
	} {
		t.Run(name, func(t *testing.T) {
			calm := filepath.Join(t.TempDir(), "calm")
			web := service("web")
			web.Command = []string{"sh", "-c", `if [ -e "$1" ]; then echo "a calm life"; exec sleep 1000; fi; : >"$1"; echo "a short life"; kill -9 $PPID`, "web", calm}
			if err := os.WriteFile(calm, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{web}, Door: true, SlowRecord: true})
			was := h.await("web", p2pnode.StateUp)
			h.await(p2pnode.SelfDoor, p2pnode.StateUp)
			eventually(t, "it has begun", func() bool { return len(h.log("web")) == 1 })
			eventually(t, "the door holds what must outlive exec", func() bool { return holdsFIFO(h.status(p2pnode.SelfDoor).PID, "web-") })
			if err := os.Remove(calm); err != nil {
				t.Fatal(err)
			}
			begin(h, was.PID)
			h.cmd.Wait()
			eventually(t, "both lives are over", func() bool { _, err := os.Stat(calm); return err == nil && !alive(was.PID) })
			h.start()
			events, err := h.c.Events(t.Context(), 0)
			if err != nil {
				t.Fatal(err)
			}
			if name == "after a crash" {
				ev := awaitEvent(t, events, p2pnode.FactActed, "web")
				if ev.Target != was.Incarnation || ev.Excerpt == nil || !slices.Equal(trimmed(ev.Excerpt.Lines), []string{"a calm life"}) {
					t.Errorf("%s: %+v, excerpt %+v", was.Incarnation, ev, ev.Excerpt)
				}
			}
			h.awaitNew("web", was.PID)
			want := []string{"a calm life", "a short life", "a calm life"}
			eventually(t, "the log has all lives", func() bool { return len(trimmed(h.log("web"))) >= len(want) })
			if got := trimmed(h.log("web")); !slices.Equal(got, want) {
				t.Errorf("log %q, want %q", got, want)
			}
		})
	}
}

// The door dies with exec, again and again: that is no way around its budget.
func TestTheDoorsPastOutlivesExec(t *testing.T) {
	h := newHost(t, daemonConfig{Door: true})
	pid := h.await(p2pnode.SelfDoor, p2pnode.StateUp).PID
	for n := range 2 {
		h.withoutExec(func() { kill9(t, pid) })
		now := h.awaitNew(p2pnode.SelfDoor, pid)
		if now.Restarts != n+1 {
			t.Errorf("%d restarts after %d", now.Restarts, n+1)
		}
		pid = now.PID
	}
	st, err := openState(stateDir(h.dir), runDir(h.dir))
	if err != nil {
		t.Fatal(err)
	}
	if rec, ok := st.get(p2pnode.SelfDoor); !ok || len(rec.Starts) != 3 {
		t.Errorf("its budget: %v", rec.Starts)
	}
}

// Exec dies in the middle of a start, again and again: that is no way around the budget
// of what it was to start either.
func TestAStartThatWasCutShortCounts(t *testing.T) {
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:sleep")}})
	pid := h.await("web", p2pnode.StateUp).PID
	st, err := openState(stateDir(h.dir), runDir(h.dir))
	if err != nil {
		t.Fatal(err)
	}
	for n := range 2 {
		h.withoutExec(func() {
			kill9(t, pid)
			eventually(t, "it is dead", func() bool { return !alive(pid) })
			rec, ok := st.get("web")
			if !ok {
				t.Fatal("no record")
			}
			rec.Inc, rec.Starting, rec.PID, rec.Ticks = rec.Inc.Next(), true, 0, 0
			rec.Starts, rec.Restarts = append(rec.Starts, time.Now()), rec.Restarts+1
			if err := st.put(rec); err != nil {
				t.Fatal(err)
			}
		})
		now := h.awaitNew("web", pid)
		if rec, ok := st.get("web"); !ok || len(rec.Starts) != 2*n+3 || now.Restarts != n+1 {
			t.Errorf("its budget: %v, %d restarts after %d", rec.Starts, now.Restarts, n+1)
		}
		pid = now.PID
	}
}
