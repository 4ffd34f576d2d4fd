package notify

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"p2pnode"
)

// start runs a Notifier with sinks until the test ends.
func start(t *testing.T, sinks ...Sink) (*Notifier, string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Save(dir, sinks); err != nil {
		t.Fatal(err)
	}
	n := New(Config{Dir: dir, Node: "ash", Log: zerolog.Nop()})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			t.Error("Run does not end")
		}
	})
	return n, dir
}

func now(state p2pnode.IncidentState) p2pnode.Incident {
	i := failure(1, 0, state)
	i.DetectedAt = time.Now()
	return i
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func TestProgramReadsTheNotice(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	n, _ := start(t, Sink{Run: []string{"/bin/sh", "-c", `{ echo "$P2PNODE_EVENT ${P2PNODE_COOKIE:-none}"; cat; } >"$0.new" && mv "$0.new" "$0"`, out}, On: []Event{Opened}})
	t.Setenv("P2PNODE_COOKIE", "mine")
	n.Brake(p2pnode.BrakeState{On: true}) // not asked for
	n.Incident(now(p2pnode.IncidentOpen))
	var raw []byte
	eventually(t, "the program ran", func() bool { raw, _ = os.ReadFile(out); return len(raw) > 0 })
	head, body, _ := strings.Cut(string(raw), "\n")
	var notice Notice
	if err := json.Unmarshal([]byte(body), &notice); err != nil || head != "opened none" {
		t.Fatalf("%v: %s", err, raw)
	}
	if notice.Schema != "p2pnode/notice/v1" || notice.Event != Opened || notice.Incident.Service != "web" || notice.Text != "web on cedar failed: exited" {
		t.Errorf("%+v", notice)
	}
}

func TestWebhookIsTriedAgain(t *testing.T) {
	var tries atomic.Int32
	bodies := make(chan []byte, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		if tries.Add(1) == 1 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		bodies <- raw
	}))
	defer server.Close()
	n, _ := start(t, Sink{Webhook: server.URL + "/hook"})
	n.Incident(now(p2pnode.IncidentOpen))
	select {
	case raw := <-bodies:
		if !strings.Contains(string(raw), `"event":"opened"`) {
			t.Errorf("%s", raw)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("not tried again")
	}
}

// A program that hangs holds up neither those who have news nor other sinks.
func TestNeverInTheWay(t *testing.T) {
	var got atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { got.Add(1) }))
	defer server.Close()
	n, _ := start(t, Sink{Run: []string{"/bin/sleep", "60"}}, Sink{Webhook: server.URL, On: []Event{Brake}})
	began := time.Now()
	for k := range 10 * maxQueue {
		n.Brake(p2pnode.BrakeState{On: k%2 == 0})
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("telling took %v", took)
	}
	eventually(t, "the other sink hears", func() bool { return got.Load() > 0 })
	eventually(t, "what did not fit is counted", func() bool { return n.Counters()["notify-dropped"] > 0 })
}

func TestSinksFollowTheConfiguration(t *testing.T) {
	first, second := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	touch := func(path string) Sink { return Sink{Run: []string{"/bin/sh", "-c", `cat >"$0"`, path}} }
	n, dir := start(t, touch(first))
	n.Brake(p2pnode.BrakeState{On: true})
	eventually(t, "the first one runs", func() bool { _, err := os.Stat(first); return err == nil })
	if err := Save(dir, []Sink{touch(second)}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the second one runs", func() bool {
		n.Brake(p2pnode.BrakeState{})
		_, err := os.Stat(second)
		return err == nil
	})
}

func TestSecretsStayOut(t *testing.T) {
	err := post(t.Context(), "http://127.0.0.1:1/secret", nil)
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v", err)
	}
}
