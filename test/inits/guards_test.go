package inits

import (
	"context"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/host"
)

// Where an init does not start exec again the two guards of the host do, sometimes
// both at once. The exec that comes too late ends: one that waited for its turn, as
// that of an init does, would start everything again after a shutdown.
func TestTheOtherGuardsExecEnds(t *testing.T) {
	t.Parallel()
	h := newHost(t).Start(append(alone, "--supervised", "yes")...)
	was := settled(h)
	d := h.Daemon(append(alone, "--supervised", "yes")...)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	late := exec.CommandContext(ctx, d.Path, d.Args[1:]...)
	late.Env, late.ExtraFiles = append(d.Env, "P2PNODE_GUARDED=1"), d.ExtraFiles
	out, err := late.CombinedOutput()
	if late.ProcessState.ExitCode() != 1 || !strings.Contains(string(out), "another p2pnode") {
		t.Errorf("it ends with %v: %s", err, out)
	}
	if now := becomes(h, "all is as it was", func(pids) bool { return true }); now != was || !host.Running(was.exec, host.StartTicks(was.exec)) {
		t.Errorf("%+v, was %+v", now, was)
	}
}

// A host that has met nobody has no peer whose agent could come: its exec does not wait
// for one.
func TestALonelyNodeProcessIsBackAtOnce(t *testing.T) {
	t.Parallel()
	h := newHost(t).Configure(strings.Replace(config, "node: 100ms", "node: 1h", 1)).Start(alone...)
	was := settled(h)
	for range 2 {
		began := time.Now()
		h.Kill(p2pnode.SelfNode, p2pnode.ClassProcessDead, was.node)
		was = becomes(h, "the node process is back", func(p pids) bool { return p.node != was.node && p == pids{was.exec, was.door, p.node, was.web} })
		t.Logf("back after %v", time.Since(began).Round(time.Millisecond))
	}
}

// Where an init is said to start exec again and does not, a guard does: after ten
// seconds, that the init has first.
func TestAnInitThatStartsNothing(t *testing.T) {
	t.Parallel()
	h := newHost(t).Start(append(alone, "--supervised", "yes")...)
	was := settled(h)
	for range 2 { // the exec that a guard started has another parent, and still an init
		began := time.Now()
		if err := syscall.Kill(was.exec, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		was = becomes(h, "exec is back, alone", func(p pids) bool { return p.exec != was.exec && p == pids{p.exec, was.door, was.node, was.web} })
		if took := time.Since(began); took < 10*time.Second {
			t.Errorf("exec was back after %v: its init had no time", took)
		}
		if all := execs(h); !slices.Equal(all, []int{was.exec}) {
			t.Errorf("execs: %v, want %d alone", all, was.exec)
		}
	}
	h.OK("shutdown")
	empty(h, "after shutdown")
}
