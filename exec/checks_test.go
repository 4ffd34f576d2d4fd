package exec

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"p2pnode"
)

// One real process with all three: a start far longer than its live check would stand,
// a readiness that comes and goes under the same pid while another one waits for it,
// and the end of what no longer lives.
func TestStartReadyAndLiveOfAProcess(t *testing.T) {
	dir := t.TempDir()
	touch := func(name string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	remove := func(name string) {
		t.Helper()
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	there := func(name string) *p2pnode.Check {
		return &p2pnode.Check{Exec: []string{"test", "-e", filepath.Join(dir, name)}, Every: 50 * time.Millisecond, Timeout: 10 * time.Second, Failures: 3}
	}
	api, web := service("api", "part:sleep"), service("web", "part:sleep")
	api.Checks = &p2pnode.Checks{Start: there("started"), Ready: there("ready"), Live: there("alive")}
	web.After = []string{"api"}
	touch("ready")
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{api, web}})

	pid := 0
	eventually(t, "it runs", func() bool { pid = h.status("api").PID; return pid != 0 })
	time.Sleep(time.Second) // many times what its live check needs to fail
	same := func(state p2pnode.ServiceState, which, check string) {
		t.Helper()
		s := h.status("api")
		if s.State != state || s.PID != pid || s.Restarts != 0 || s.Check == nil || s.Check.Which != which || s.Check.State != check {
			t.Errorf("%+v, check %+v; want %s, %s %s, of pid %d", s, s.Check, state, which, check, pid)
		}
	}
	waits := func() {
		t.Helper()
		if s := h.status("web"); s.PID != 0 || !strings.HasPrefix(s.Why, "waiting for api") {
			t.Errorf("web: %+v", s)
		}
	}
	same(p2pnode.StateStarting, p2pnode.CheckStart, "pending")
	if s := h.status("api"); s.Why != "its start check has not passed yet" {
		t.Errorf("why: %q", s.Why)
	}
	waits()

	remove("ready")
	touch("alive")
	touch("started")
	h.await("api", p2pnode.StateUnready)
	same(p2pnode.StateUnready, p2pnode.CheckReady, "failing")
	waits()
	touch("ready")
	h.await("api", p2pnode.StateUp)
	h.await("web", p2pnode.StateUp)
	same(p2pnode.StateUp, "", "passing")

	remove("started") // that was asked once
	remove("ready")
	h.await("api", p2pnode.StateUnready)
	time.Sleep(time.Second)
	same(p2pnode.StateUnready, p2pnode.CheckReady, "failing")
	touch("ready")
	h.await("api", p2pnode.StateUp)
	same(p2pnode.StateUp, "", "passing")

	touch("started")
	acted := h.actedOn("api")
	remove("alive")
	if e := acted(); e.Class != p2pnode.ClassCheckFailed || e.PID == pid {
		t.Errorf("%+v", e)
	}
	touch("alive")
	if s := h.await("api", p2pnode.StateUp); s.PID == pid || s.LastExit == nil || s.LastExit.Why != "live check: test: exit status 1 (3 times)" {
		t.Errorf("%+v, last exit %+v", s, s.LastExit)
	}
}

// READY, once said, counts for the whole life: what a check found and takes back is up
// again. And where a reload says that a service is ready when it is started, it is.
func TestReadinessBesideACheck(t *testing.T) {
	web := spec("web")
	web.Ready, web.Check = p2pnode.ReadyNotify, &p2pnode.Check{HTTP: "x", Every: time.Second, Timeout: time.Second, Failures: 2}
	w := newWorld(t, web)
	answer := func(err error) {
		w.pass(1200 * time.Millisecond)
		w.do(evChecked{name: "web", inc: w.running["web"], err: err})
	}
	w.do(evNotified{name: "web", ready: true})
	answer(nil)
	w.do(evMaintenance{"web", w.now.Add(time.Hour)})
	answer(fmt.Errorf("no"))
	answer(fmt.Errorf("no"))
	if s := w.p.svcs["web"]; s.state != p2pnode.StateHung {
		t.Fatalf("web is %s", s.state)
	}
	answer(nil)
	if s := w.p.svcs["web"]; s.state != p2pnode.StateUp || s.failure != nil {
		t.Errorf("web is %s, failure %v", s.state, s.failure)
	}

	web.Ready = p2pnode.ReadyCheck
	w = newWorld(t, web)
	web.Ready = p2pnode.ReadyStarted
	w.do(evReload{loaded: Loaded{Services: []p2pnode.ServiceSpec{web}, Grace: w.p.grace}})
	if s := w.p.svcs["web"]; s.state != p2pnode.StateUp || len(w.starts["web"]) != 1 {
		t.Errorf("web is %s after %d starts", s.state, len(w.starts["web"]))
	}
}
