package exec

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pnode"
)

var longGrace = p2pnode.Grace{Agent: time.Minute, Node: time.Minute, NodeStop: time.Minute}

func TestAnAgentRecoversAKilledService(t *testing.T) {
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:sleep")}, Grace: longGrace, Node: true, Door: true})
	first := h.await("web", p2pnode.StateUp)
	h.await(p2pnode.SelfNode, p2pnode.StateUp)
	events, err := h.c.Events(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(freeLife) // a first life this long is followed by a start at once
	began := time.Now()
	kill9(t, first.PID)
	acted := awaitEvent(t, events, p2pnode.FactActed, "web")
	t.Logf("kill -9 -> started again by an agent: %v after the kill; detected %v, looked %v", acted.StartedAt.Sub(began), acted.DetectedAt.Sub(began), acted.VerifiedAt.Sub(began))
	if acted.By.Kind != p2pnode.ByAgent || acted.By.Agent != "resident" || acted.By.Node != "self" || acted.By.Fallback {
		t.Errorf("by = %+v, want the node process's agent", acted.By)
	}
	if acted.Target != first.Incarnation || acted.New == first.Incarnation || acted.Exit == nil || acted.Exit.Signal != "SIGKILL" {
		t.Errorf("event %+v does not tell what happened", acted)
	}
	if now := h.awaitNew("web", first.PID); now.Incarnation != acted.New {
		t.Errorf("incarnation %s runs, %s was announced", now.Incarnation, acted.New)
	}
	if acted.Excerpt == nil || len(acted.Excerpt.Lines) == 0 || !strings.Contains(acted.Excerpt.Lines[0], "incarnation") {
		t.Errorf("excerpt %+v lacks the last words", acted.Excerpt)
	}
}

func awaitEvent(t *testing.T, events <-chan p2pnode.ExecEvent, fact p2pnode.ExecFact, name string) p2pnode.ExecEvent {
	t.Helper()
	timeout := time.After(15 * time.Second)
	for {
		select {
		case ev, ok := <-events:
			if !ok {
				t.Fatal("events ended")
			}
			if ev.Event == fact && ev.Service == name {
				return ev
			}
		case <-timeout:
			t.Fatalf("no %s of %s within 15 s", fact, name)
		}
	}
}

func TestExecActsAloneWhenNobodyClaims(t *testing.T) {
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:sleep")}, Grace: longGrace})
	first := h.await("web", p2pnode.StateUp)
	events, _ := h.c.Events(t.Context(), 0)
	kill9(t, first.PID) // no node process is connected: the grace of a minute does not hold
	acted := awaitEvent(t, events, p2pnode.FactActed, "web")
	if acted.By.Kind != p2pnode.ByExec || !acted.By.Fallback {
		t.Errorf("by = %+v, want exec as the fallback", acted.By)
	}
}

func TestKilledExecThreeTimesAdoptsOneCopy(t *testing.T) {
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("a", "part:sleep"), service("b", "part:tree")}, Grace: longGrace, Node: true, Door: true})
	a, b := h.await("a", p2pnode.StateUp), h.await("b", p2pnode.StateUp)
	h.await(p2pnode.SelfDoor, p2pnode.StateUp)
	node := h.await(p2pnode.SelfNode, p2pnode.StateUp)
	for round := range 3 {
		st, err := h.c.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		kill9(t, st.PID)
		if round == 0 {
			h.cmd.Wait()
		}
		eventually(t, "the old exec is gone", func() bool { return !alive(st.PID) })
		h.start()
		for _, was := range []p2pnode.ServiceStatus{a, b, node} {
			now := h.await(was.Name, p2pnode.StateUp)
			if now.PID != was.PID || now.Incarnation != was.Incarnation || !now.Adopted {
				t.Fatalf("round %d: %s is %+v, was %+v", round, was.Name, now, was)
			}
		}
		if n := copiesOf(h, "a"); n != 1 {
			t.Fatalf("round %d: %d copies of a", round, n)
		}
	}
	// The next fault is still repaired: an adopted one that dies.
	kill9(t, a.PID)
	h.awaitNew("a", a.PID)
}

func TestHumanIntentBeatsHealing(t *testing.T) {
	off := service("off", "part:sleep")
	off.Recover = p2pnode.RecoverOff
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{off, service("kept", "part:sleep"), service("watched", "part:sleep")}})
	names := []string{"off", "kept", "watched"}
	if err := h.c.Maintenance(t.Context(), "kept", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := h.c.Observe(t.Context(), "watched", true); err != nil {
		t.Fatal(err)
	}
	events, err := h.c.Events(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]p2pnode.Refusal{"off": p2pnode.RefusedOff, "kept": p2pnode.RefusedMaintenance, "watched": p2pnode.RefusedObserve}
	for _, name := range names {
		was := h.await(name, p2pnode.StateUp)
		kill9(t, was.PID)
		if ev := awaitEvent(t, events, p2pnode.FactFailed, name); string(ev.Held) != string(want[name]) {
			t.Errorf("%s: held %q, want %q", name, ev.Held, want[name])
		}
		ans, err := h.c.Recover(t.Context(), p2pnode.RecoverRequest{Op: "op-" + name, Target: name, Expected: was.Incarnation})
		if err != nil || ans.Outcome != p2pnode.OutcomeRefused || ans.Reason != want[name] {
			t.Errorf("%s: answer %+v, %v", name, ans, err)
		}
		if s := h.status(name); s.State != p2pnode.StateExited || s.PID != 0 {
			t.Errorf("%s: %+v", name, s)
		}
	}
	// The end of the hold brings it back, and nothing else did.
	if err := h.c.Maintenance(t.Context(), "kept", time.Time{}); err != nil {
		t.Fatal(err)
	}
	h.await("kept", p2pnode.StateUp)
}

func TestRecoverNamesItsTarget(t *testing.T) {
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:sleep")}})
	web := h.await("web", p2pnode.StateUp)
	for _, c := range []struct {
		target, expected string
		reason           p2pnode.Refusal
	}{
		{"web", web.Incarnation, p2pnode.RefusedHealthy},
		{"web", "", p2pnode.RefusedStale},
		{"web", "1-1", p2pnode.RefusedStale},
		{"web", "nonsense", p2pnode.RefusedStale},
		{"nothing", "1-1", p2pnode.RefusedUnknown},
		{p2pnode.SelfExec, "", p2pnode.RefusedHealthy},
	} {
		ans, err := h.c.Recover(t.Context(), p2pnode.RecoverRequest{Op: c.target + c.expected, Target: c.target, Expected: c.expected})
		if err != nil || ans.Outcome != p2pnode.OutcomeRefused || ans.Reason != c.reason {
			t.Errorf("recover %s %q: %+v, %v, want %s", c.target, c.expected, ans, err, c.reason)
		}
	}
	if _, err := h.c.RecoverFor(t.Context(), "someone", p2pnode.RecoverRequest{Target: "web"}); p2pnode.ExitCode(err) != p2pnode.ExitNotPermitted {
		t.Errorf("a client played the door: %v", err)
	}
	if _, err := Dial(t.Context(), h.dir, RoleNode); p2pnode.ExitCode(err) != p2pnode.ExitNotPermitted {
		t.Errorf("a client played the node process: %v", err)
	}
}

func TestStoppedServiceIsReplacedAtOnceWithoutGrace(t *testing.T) {
	web := service("web", "part:sleep")
	web.StopGrace = 0
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{web}})
	was := h.await("web", p2pnode.StateUp)
	events, _ := h.c.Events(t.Context(), 0)
	began := time.Now()
	syscall.Kill(was.PID, syscall.SIGSTOP)
	failed := awaitEvent(t, events, p2pnode.FactFailed, "web")
	if failed.Class != p2pnode.ClassFrozen {
		t.Errorf("class %q, want frozen", failed.Class)
	}
	t.Logf("SIGSTOP -> said after %v", failed.At.Sub(began))
	if now := h.awaitNew("web", was.PID); alive(was.PID) {
		t.Errorf("%d runs beside %d", now.PID, was.PID)
	}
}

func TestFrozenServiceWakesByItself(t *testing.T) {
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:sleep")}})
	was := h.await("web", p2pnode.StateUp)
	syscall.Kill(was.PID, syscall.SIGSTOP)
	h.await("web", p2pnode.StateFrozen)
	syscall.Kill(was.PID, syscall.SIGCONT)
	if now := h.await("web", p2pnode.StateUp); now.PID != was.PID {
		t.Errorf("it was restarted: %+v", now)
	}
}

func TestLeftoversDieBeforeTheNextLife(t *testing.T) {
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:tree")}})
	was := h.await("web", p2pnode.StateUp)
	eventually(t, "the grandchild runs", func() bool { return copiesOf(h, "web") == 2 })
	old := childrenOf(was.PID)
	kill9(t, was.PID)
	h.awaitNew("web", was.PID)
	for _, pid := range old {
		if alive(pid) {
			t.Errorf("grandchild %d of the old life runs on", pid)
		}
	}
	eventually(t, "two processes, no more", func() bool { return copiesOf(h, "web") == 2 })
}

func TestStopKillsTheStubbornAndStays(t *testing.T) {
	web := service("web", "part:stubborn")
	web.StopTimeout = 100 * time.Millisecond
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{web}})
	was := h.await("web", p2pnode.StateUp)
	res, err := h.c.Stop(t.Context(), "web", VerbOptions{})
	if err != nil || !res.OK || alive(was.PID) {
		t.Fatalf("stop: %+v, %v", res, err)
	}
	st, _ := h.c.Status(t.Context())
	kill9(t, st.PID)
	h.cmd.Wait()
	h.start()
	time.Sleep(2 * adoptedPoll)
	if s := h.status("web"); s.State != p2pnode.StateStopped {
		t.Errorf("after a restart of exec: %+v, want stopped", s)
	}
	if res, err := h.c.Start(t.Context(), "web", VerbOptions{}); err != nil || !res.OK || res.Services[0].PID == 0 {
		t.Errorf("start: %+v, %v", res, err)
	}
	if _, err := h.c.Start(t.Context(), "wbe", VerbOptions{}); err == nil || !strings.Contains(err.Error(), "web") {
		t.Errorf("an unknown service gives %v, want the names that exist", err)
	}
}

func TestMissingProgramIsTriedWhenItIsThere(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "later")
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{{Name: "web", Command: []string{program, "part:sleep"}, StopGrace: time.Second}}})
	h.await("web", p2pnode.StateMissing)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	h.await("web", p2pnode.StateUp)
	if took := time.Since(began); took > soonThere {
		t.Errorf("there -> up: %v", took)
	}
}

func TestLeashEndsEverything(t *testing.T) {
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:tree")}, Node: true, Door: true})
	pids := []int{h.await("web", p2pnode.StateUp).PID, h.await(p2pnode.SelfNode, p2pnode.StateUp).PID, h.await(p2pnode.SelfDoor, p2pnode.StateUp).PID}
	pids = append(pids, childrenOf(pids[0])...)
	h.end.Close()
	h.leash.Close()
	eventually(t, "everything ends with the leash", func() bool {
		return !slices.ContainsFunc(pids, alive)
	})
}

func TestASecondDaemonIsRefused(t *testing.T) {
	h := newHost(t, daemonConfig{})
	err := Run(t.Context(), Config{Dir: h.dir, Supervised: "no"})
	if e := asError(err); e == nil || e.Code != "already-running" || !strings.Contains(e.Text, "pid") {
		t.Errorf("got %v", err)
	}
}

func TestTheGuardStartsExecAgain(t *testing.T) {
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:sleep")}, Node: true, Door: true, Guard: true})
	web, node := h.await("web", p2pnode.StateUp), h.await(p2pnode.SelfNode, p2pnode.StateUp)
	st, _ := h.c.Status(t.Context())
	kill9(t, st.PID)
	h.cmd.Wait()
	began := time.Now()
	eventually(t, "another exec", func() bool { ok, pid := ExecAlive(h.dir); return ok && pid != st.PID })
	t.Logf("exec back after %v", time.Since(began))
	h.dial()
	if now := h.await("web", p2pnode.StateUp); now.PID != web.PID || !now.Adopted {
		t.Errorf("web %+v, was %+v", now, web)
	}
	if now := h.await(p2pnode.SelfNode, p2pnode.StateUp); now.PID != node.PID {
		t.Errorf("node process %+v, was %+v", now, node)
	}
	// The new exec is no child of its guard: the end of the node process's tree
	// must not be its end.
	kill9(t, node.PID)
	h.awaitNew(p2pnode.SelfNode, node.PID)
	if err := h.c.Shutdown(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "shutdown ends all", func() bool { ok, _ := ExecAlive(h.dir); return !ok && !alive(web.PID) })
}

func TestANodeDeathIsToldToTheDoorAndMended(t *testing.T) {
	h := newHost(t, daemonConfig{Node: true, Door: true, Grace: p2pnode.Grace{Agent: time.Second, Node: 100 * time.Millisecond, NodeStop: time.Minute}})
	was := h.await(p2pnode.SelfNode, p2pnode.StateUp)
	h.await(p2pnode.SelfDoor, p2pnode.StateUp)
	st, _ := h.c.Status(t.Context())
	time.Sleep(200 * time.Millisecond) // the door attaches as the keeper
	kill9(t, was.PID)
	h.awaitNew(p2pnode.SelfNode, was.PID)
	eventually(t, "the door spreads the life that ended", func() bool {
		raw, _ := os.ReadFile(filepath.Join(h.dir, "spread"))
		return string(raw) == st.NodeLife.String()
	})
	ans, err := h.c.Recover(t.Context(), p2pnode.RecoverRequest{Op: "late", Target: p2pnode.SelfNode, Expected: st.NodeLife.String()})
	if err != nil || ans.Outcome != p2pnode.OutcomeAlreadyDone {
		t.Errorf("a late recover: %+v, %v", ans, err)
	}
}

func TestChecksAndHeartbeats(t *testing.T) {
	addr := freeAddr(t)
	deaf := service("deaf", "part:deaf", addr)
	deaf.Check = &p2pnode.Check{HTTP: "http://" + addr, Every: 50 * time.Millisecond, Timeout: 100 * time.Millisecond, Failures: 3}
	beat := service("beat", "part:beat")
	beat.Ready, beat.Watchdog = p2pnode.ReadyNotify, 300*time.Millisecond
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{deaf, beat}})
	events, err := h.c.Events(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	pids, seen := map[string]int{}, map[string]bool{} // of the first life of each: beat goes on hanging in each
	for len(seen) < 2 {
		ev := <-events
		switch {
		case ev.Event == p2pnode.FactUp && pids[ev.Service] == 0:
			pids[ev.Service] = ev.PID
		case ev.Event == p2pnode.FactFailed && !seen[ev.Service]:
			seen[ev.Service] = true
			if ev.Class != p2pnode.ClassHung || ev.PID != pids[ev.Service] {
				t.Errorf("%s: class %q pid %d, want hung %d", ev.Service, ev.Class, ev.PID, pids[ev.Service])
			}
		}
	}
	for name, pid := range pids {
		eventually(t, name+" was replaced", func() bool { s := h.status(name); return s.Restarts > 0 && !alive(pid) })
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// The clean-up after an orderly stop must not take the copy that is started next
// for a leftover.
func TestRestartByAPersonLeavesTheNewCopyAlone(t *testing.T) {
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:sleep")}})
	h.await("web", p2pnode.StateUp)
	for range 5 {
		before := h.status("web")
		res, err := h.c.Restart(t.Context(), "web", VerbOptions{})
		if err != nil || !res.OK {
			t.Fatalf("restart: %+v, %v", res, err)
		}
		now := h.await("web", p2pnode.StateUp)
		time.Sleep(60 * time.Millisecond) // longer than the clean-up takes
		if s := h.status("web"); s.PID != now.PID || s.Restarts != before.Restarts+1 || s.State != p2pnode.StateUp {
			t.Fatalf("after a restart of pid %d: %+v, then %+v", before.PID, now, s)
		}
	}
}

// A start that is given up while the life before ends, by a stop or a shutdown, does not
// say of that life that the kernel holds it.
func TestAStartThatIsGivenUpBlamesNobody(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	st, err := readStat(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	old, ok := watchPID(cmd.Process.Pid, st.ticks)
	if !ok {
		t.Fatal("cannot watch it")
	}
	defer old.close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = (&runner{}).endOld(ctx, startJob{old: old})
	if cannot, ok := errors.AsType[*cannotRun](err); !ok || cannot.kind != startBroken {
		t.Errorf("%v", err)
	}
}
