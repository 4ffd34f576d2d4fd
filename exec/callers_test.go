package exec

import (
	"fmt"
	osexec "os/exec"
	"sync"
	"testing"
	"time"

	"p2pnode"
)

// Twenty callers say at once that a service is dead: it is restarted once, and each
// of them is told of that one restart. Five more hang up before they are answered:
// that changes nothing.
func TestTwentyCallersMakeOneRestart(t *testing.T) {
	web := service("web", "part:sleep")
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{web}, NodePart: "mute-node", Grace: longGrace})
	h.await(p2pnode.SelfNode, p2pnode.StateUp)
	was := h.await("web", p2pnode.StateUp)
	time.Sleep(freeLife) // no backoff stands before the start
	st, err := readStat(was.PID)
	if err != nil {
		t.Fatal(err)
	}
	p, ok := watchPID(was.PID, st.ticks)
	if !ok {
		t.Fatal("web is not there")
	}
	defer p.close()
	kill9(t, was.PID)
	p.wait() // all its threads: before that exec would truly say that it lives

	answers := make([]p2pnode.RecoverAnswer, 20)
	var callers sync.WaitGroup
	for i := range len(answers) + 5 {
		c, err := Dial(t.Context(), h.dir, RoleCLI)
		if err != nil {
			t.Fatal(err)
		}
		req := p2pnode.RecoverRequest{Op: fmt.Sprint("caller ", i), Target: "web", Expected: was.Incarnation}
		if i >= len(answers) {
			callers.Go(func() { c.Recover(t.Context(), req) })
			callers.Go(func() { c.Close() })
			continue
		}
		callers.Go(func() {
			defer c.Close()
			eventually(t, "a final answer", func() bool {
				ans, err := c.Recover(t.Context(), req)
				answers[i] = ans
				return err == nil && ans.Outcome != p2pnode.OutcomeBusy
			})
		})
	}
	callers.Wait()
	now := h.awaitNew("web", was.PID)
	done := 0
	for i, ans := range answers {
		switch {
		case ans.Outcome == p2pnode.OutcomeDone:
			done++
		case ans.Outcome != p2pnode.OutcomeAlreadyDone:
			t.Errorf("caller %d: %+v", i, ans)
		}
		if ans.New != now.Incarnation || ans.Old != was.Incarnation {
			t.Errorf("caller %d was told of %s -> %s, it was %s -> %s", i, ans.Old, ans.New, was.Incarnation, now.Incarnation)
		}
	}
	if done > 1 { // none: exec itself was first
		t.Errorf("%d callers were told that they restarted it", done)
	}
	time.Sleep(100 * time.Millisecond) // a second restart would come now
	if again := h.status("web"); again.PID != now.PID || again.Restarts != 1 {
		t.Errorf("%d restarts, pid %d then %d", again.Restarts, now.PID, again.PID)
	}
}

// Who asked is killed in the middle: the process is forked and its start not through.
// The start goes on, once, and whoever asks the same again is told of it.
func TestACallerThatIsKilledChangesNothing(t *testing.T) {
	web := service("web", "part:sleep")
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{web}, NodePart: "mute-node", Grace: longGrace, SlowRecord: true})
	h.await(p2pnode.SelfNode, p2pnode.StateUp)
	was := h.await("web", p2pnode.StateUp)
	time.Sleep(freeLife) // no backoff stands before the start
	kill9(t, was.PID)
	eventually(t, "exec knows of the death", func() bool { return h.status("web").PID == 0 })
	caller := osexec.Command("/proc/self/exe", "part:caller", h.dir, "op", "web", was.Incarnation)
	if err := caller.Start(); err != nil {
		t.Fatal(err)
	}
	h.await("web", p2pnode.StateStarting)
	kill9(t, caller.Process.Pid)
	caller.Wait()
	if s := h.status("web"); s.State != p2pnode.StateStarting || s.PID != 0 {
		t.Fatalf("the caller did not die in the middle: %+v", s)
	}
	ans, err := h.c.Recover(t.Context(), p2pnode.RecoverRequest{Op: "op", Target: "web", Expected: was.Incarnation})
	now := h.awaitNew("web", was.PID)
	if err != nil || ans.Outcome != p2pnode.OutcomeDone || ans.New != now.Incarnation || ans.PID != now.PID {
		t.Errorf("the same question again: %+v, %v; it is %+v", ans, err, now)
	}
	h.await("web", p2pnode.StateUp)
	if n := copiesOf(h, "web"); n != 1 || now.Restarts != 1 || h.status("web").PID != now.PID {
		t.Errorf("%d copies after %d restarts", n, now.Restarts)
	}
}
