package manage

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/exec"
)

func TestActsAreInTheAuditLog(t *testing.T) {
	w := healthy()
	a, c := serve(t, w)
	ctx := t.Context()
	c.Status(ctx)
	c.Agents(ctx)
	c.Launch(ctx, 15*time.Second, 0.99, map[string]string{"site": "home"})
	c.CreateToken(ctx, p2pnode.RoleWorker, time.Hour, 1)
	c.Promote(ctx, "cedar")
	c.Promote(ctx, "nobody")
	w.standing.Role = p2pnode.RoleWorker
	c.Recall(ctx, "o-1")
	raw, err := os.ReadFile(filepath.Join(a.cfg.Data, "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	var got []exec.AuditEntry
	for line := range bytes.Lines(raw) {
		var e exec.AuditEntry
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		if e.PID != os.Getpid() || e.UID != os.Getuid() || time.Since(e.At) > time.Minute || e.Role != "cli" {
			t.Errorf("who or when: %s", line)
		}
		got = append(got, e)
	}
	want := []exec.AuditEntry{
		{Verb: "launch", Outcome: "ok"},
		{Verb: "token", Outcome: "ok"},
		{Verb: "promote", Target: "cedar", Outcome: "ok"},
		{Verb: "promote", Target: "nobody", Outcome: "failed"},
		{Verb: "recall", Target: "o-1", Outcome: "refused"},
	}
	if len(got) != len(want) {
		t.Fatalf("%d entries, want %d\n%s", len(got), len(want), raw)
	}
	for k, e := range want {
		if got[k].Verb != e.Verb || got[k].Target != e.Target || got[k].Outcome != e.Outcome || (got[k].Text == "") != (e.Outcome == "ok") {
			t.Errorf("%+v, want %+v", got[k], e)
		}
	}
	if got[0].With["slo"] != "15s" || got[1].With["ttl"] != "1h0m0s" || got[1].With["role"] != "worker" {
		t.Errorf("%v %v", got[0].With, got[1].With)
	}
	if strings.Contains(string(raw), "secret") {
		t.Error("the token itself is in the audit log")
	}
}

// A verb that nobody called harmless is an act.
func TestUnknownVerbsAreActs(t *testing.T) {
	for _, verb := range []string{"launch", "recall", "token", "promote", "manage", "leave", "join", "some-new-verb"} {
		if reading[verb] {
			t.Errorf("%s only reads?", verb)
		}
	}
}
