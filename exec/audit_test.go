package exec

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"p2pnode"
)

func auditOf(t *testing.T, path string) (out []AuditEntry) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var e AuditEntry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatalf("%v in %q", err, lines.Text())
		}
		out = append(out, e)
	}
	return out
}

// Each act that needs a right is one line: who, by the kernel's word, what, and
// what came of it. Looking is none.
func TestEachPrivilegedActIsAudited(t *testing.T) {
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:sleep"), {Name: "gone", Command: []string{"/nowhere"}}}, Grace: longGrace})
	was := h.await("web", p2pnode.StateUp)
	until := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	_, err := h.c.Restart(t.Context(), "web", VerbOptions{})
	if err == nil {
		err = h.c.Maintenance(t.Context(), "web", until)
	}
	if err == nil {
		err = h.c.Observe(t.Context(), "web", true)
	}
	if err == nil {
		_, err = h.c.Start(t.Context(), "gone", VerbOptions{Force: true})
	}
	if err != nil {
		t.Fatal(err)
	}
	h.c.Stop(t.Context(), "nobody", VerbOptions{})
	h.c.Recover(t.Context(), p2pnode.RecoverRequest{Op: "x", Target: "web", Expected: was.Incarnation})
	h.c.Reload(t.Context(), true)
	if _, err := Dial(t.Context(), h.dir, RoleNode); err == nil {
		t.Fatal("a test may be a node process")
	}
	got := auditOf(t, AuditPath(h.dir))
	want := []AuditEntry{
		{Verb: "restart", Target: "web", Role: RoleCLI, Outcome: "ok"},
		{Verb: "maintenance", Target: "web", Role: RoleCLI, Outcome: "ok"},
		{Verb: "observe", Target: "web", Role: RoleCLI, Outcome: "ok"},
		{Verb: "start", Target: "gone", Role: RoleCLI, Outcome: "failed"},
		{Verb: "stop", Target: "nobody", Role: RoleCLI, Outcome: "failed"},
		{Verb: "recover", Target: "web", Role: RoleCLI, Outcome: "already-done"},
		{Verb: "reload", Role: RoleCLI, Outcome: "failed"},
		{Verb: "hello", Role: RoleNode, Outcome: "refused"},
	}
	if len(got) != len(want) {
		t.Fatalf("%d entries: %+v", len(got), got)
	}
	for i, w := range want {
		g := got[i]
		if g.Verb != w.Verb || g.Target != w.Target || g.Role != w.Role || g.Outcome != w.Outcome || g.PID != os.Getpid() || g.UID != os.Getuid() || g.At.IsZero() {
			t.Errorf("entry %d is %+v, want %+v by pid %d", i, g, w, os.Getpid())
		}
	}
	if got[1].With["until"] != until.Format(time.RFC3339) || got[2].With["on"] != true || got[3].With["force"] != true {
		t.Errorf("what was asked is not told: %v, %v, %v", got[1].With, got[2].With, got[3].With)
	}
}

// A restart that a peer asked for at the door names the peer's certificate, once,
// however often it asked.
func TestAPeersRestartIsAudited(t *testing.T) {
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:sleep")}, DoorPart: "push-door", NodePart: "mute-node", Grace: longGrace})
	was := h.await("web", p2pnode.StateUp)
	h.await(p2pnode.SelfNode, p2pnode.StateUp)
	door := h.await(p2pnode.SelfDoor, p2pnode.StateUp)
	time.Sleep(freeLife)
	kill9(t, was.PID)
	h.awaitNew("web", was.PID)
	var got []AuditEntry
	eventually(t, "it is written", func() bool { got = auditOf(t, AuditPath(h.dir)); return len(got) > 0 })
	if e := got[0]; len(got) != 1 || e.Verb != "recover" || e.Target != "web" || e.Outcome != "done" || e.Role != RoleDoor || e.PID != door.PID || e.Caller == "" || e.Agent != "pushy" {
		t.Errorf("%+v", got)
	}
}

// The file is bounded, and what the disk refuses is written when it has room.
func TestTheAuditLogIsBoundedAndPatient(t *testing.T) {
	dir := t.TempDir()
	a := NewAuditLog(filepath.Join(dir, "sub"))
	for range maxAuditWait + 10 {
		if a.Add(AuditEntry{Verb: "stop"}) == nil {
			t.Fatal("it was written into a folder that is not there")
		}
	}
	if err := os.Mkdir(filepath.Dir(a.path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := a.flush(); err != nil || len(auditOf(t, a.path)) != maxAuditWait {
		t.Fatalf("%d entries waited, %v", len(auditOf(t, a.path)), err)
	}
	text := string(make([]byte, maxAuditText))
	for range 2 * maxAudit / maxAuditText {
		if err := a.Add(AuditEntry{Verb: "stop", Text: text}); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{a.path, a.path + ".1"} {
		if info, err := os.Stat(path); err == nil && info.Size() > maxAudit+8*maxAuditText {
			t.Errorf("%s has %d bytes", path, info.Size())
		}
	}
	if _, err := os.Stat(a.path + ".1"); err != nil {
		t.Error("it was never turned over")
	}
}
