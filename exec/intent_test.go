package exec

import (
	"os"
	"os/user"
	"strings"
	"testing"
	"time"

	"p2pnode"
)

// What a person stopped stays stopped whatever dies in between, and ps says since
// when and by whom.
func TestAStopOutlivesEverybody(t *testing.T) {
	manual := service("manual", "part:sleep")
	manual.Manual = true
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:sleep"), service("db", "part:sleep"), manual}, Node: true, Door: true})
	db := h.await("db", p2pnode.StateUp)
	h.await("web", p2pnode.StateUp)
	if s := h.status("manual"); s.State != p2pnode.StateStopped || !strings.Contains(s.Why, "start: manual") || s.StoppedBy != "" {
		t.Errorf("manual: %+v", s)
	}
	before := time.Now()
	if res, err := h.c.Stop(t.Context(), "web", VerbOptions{}); err != nil || !res.OK {
		t.Fatalf("stop: %+v, %v", res, err)
	}
	if res, err := h.c.Start(t.Context(), "manual", VerbOptions{}); err != nil || !res.OK {
		t.Fatalf("start: %+v, %v", res, err)
	}
	after := time.Now()
	st, err := h.c.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range []int{st.PID, st.Door.PID, st.Node.PID, db.PID, h.status("manual").PID} {
		kill9(t, pid) // as a power cut does: nobody has time for anything
	}
	h.cmd.Wait()
	h.start()
	h.awaitNew("db", db.PID)
	h.await("manual", p2pnode.StateUp) // it was started by a person
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	s := h.status("web")
	if s.State != p2pnode.StateStopped || s.StoppedBy != me.Username || s.Why != "stopped by "+me.Username {
		t.Errorf("web: %+v, want stopped by %s", s, me.Username)
	}
	if s.StoppedAt.Before(before) || s.StoppedAt.After(after) || !s.Since.Equal(s.StoppedAt) {
		t.Errorf("stopped at %v, since %v; it was between %v and %v", s.StoppedAt, s.Since, before, after)
	}
	// Said again it is the first word that counts.
	if _, err := h.c.Stop(t.Context(), "web", VerbOptions{}); err != nil || !h.status("web").StoppedAt.Equal(s.StoppedAt) {
		t.Errorf("stopped twice: %+v, %v", h.status("web"), err)
	}
	if _, err := h.c.Start(t.Context(), "web", VerbOptions{}); err != nil {
		t.Fatal(err)
	}
	if s := h.await("web", p2pnode.StateUp); s.StoppedBy != "" || !s.StoppedAt.IsZero() {
		t.Errorf("started again: %+v", s)
	}
}

func TestWhyItIsDownInOnePhrase(t *testing.T) {
	off := service("off", "part:exit", "3")
	off.Recover = p2pnode.RecoverOff
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{off, service("loop", "part:exit", "4")}})
	if s := h.await("off", p2pnode.StateExited); s.Why != "ended: exit 3; not restarted: off" {
		t.Errorf("off: %q", s.Why)
	}
	if s := h.await("loop", p2pnode.StateBackoff); s.Why != "ended: exit 4" || s.NextTry.IsZero() {
		t.Errorf("loop: %q, next try %v", s.Why, s.NextTry)
	}
	if s := h.await("loop", p2pnode.StateCrashLooping); s.Why != "ended: exit 4; it keeps failing: one start a minute" || time.Until(s.NextTry) < slowLane/2 {
		t.Errorf("loop: %q, next try %v", s.Why, s.NextTry)
	}
}

func TestUsage(t *testing.T) {
	busy := p2pnode.ServiceSpec{Name: "busy", Command: []string{"/bin/sh", "-c", "(while :; do :; done) & wait"}}
	idle := service("idle", "part:sleep")
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{busy, idle}})
	h.await("busy", p2pnode.StateUp)
	h.await("idle", p2pnode.StateUp)
	var used map[string]p2pnode.Usage
	eventually(t, "the busy one has used 300 ms", func() bool {
		var err error
		if used, err = h.c.Usage(t.Context()); err != nil {
			t.Fatal(err)
		}
		return used["busy"].CPUMS >= 300
	})
	b, i := used["busy"], used["idle"]
	if b.Processes != 2 || b.CPUPercent <= i.CPUPercent || i.Processes != 1 {
		t.Errorf("busy %+v, idle %+v", b, i)
	}
	page := uint64(os.Getpagesize())
	for name, u := range used {
		if u.Memory < 50*page || u.Memory > 1<<30 {
			t.Errorf("%s uses %d bytes", name, u.Memory)
		}
	}
	if own := used[p2pnode.SelfExec]; own.Processes != 1 || own.CPUMS > 10000 {
		t.Errorf("exec itself: %+v", own)
	}
}
