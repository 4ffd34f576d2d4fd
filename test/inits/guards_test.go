package inits

import (
	"context"
	"os/exec"
	"strings"
	"testing"

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
