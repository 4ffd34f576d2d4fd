package exec

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"p2pnode"
)

// A service is asked to end with the signal that it wants, and killed when its time is
// over.
func TestAStopIsAskedForByItsSignal(t *testing.T) {
	polite := p2pnode.ServiceSpec{
		Name: "polite", StopSignal: "USR1", StopTimeout: 20 * time.Second,
		Command: []string{"/bin/sh", "-c", "trap 'exit 7' USR1; trap 'exit 8' TERM; echo up; while :; do sleep 0.05; done"},
	}
	stubborn := p2pnode.ServiceSpec{
		Name: "stubborn", StopSignal: "INT", StopTimeout: 300 * time.Millisecond,
		Command: []string{"/bin/sh", "-c", "trap '' INT; trap 'exit 8' TERM; echo up; while :; do sleep 0.05; done"},
	}
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{polite, stubborn}})
	for _, c := range []struct {
		name string
		want p2pnode.Exit
	}{
		{"polite", p2pnode.Exit{Code: 7}},
		{"stubborn", p2pnode.Exit{Signal: "SIGKILL"}},
	} {
		h.await(c.name, p2pnode.StateUp)
		eventually(t, c.name+" has its traps", func() bool { return len(h.log(c.name)) > 0 })
		if res, err := h.c.Stop(t.Context(), c.name, VerbOptions{}); err != nil || !res.OK {
			t.Fatalf("stop: %+v, %v", res, err)
		}
		e := h.status(c.name).LastExit
		if e == nil || e.Code != c.want.Code || e.Signal != c.want.Signal {
			t.Errorf("%s ended by %+v, want %+v", c.name, e, c.want)
		}
	}
}

// Maintenance ends by itself: what failed in it stays down until then, and is started
// when its time is over.
func TestMaintenanceEnds(t *testing.T) {
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:sleep")}})
	was := h.await("web", p2pnode.StateUp)
	until := time.Now().Add(3 * time.Second)
	if err := h.c.Maintenance(t.Context(), "web", until); err != nil {
		t.Fatal(err)
	}
	kill9(t, was.PID)
	eventually(t, "it is down", func() bool { return h.status("web").PID == 0 })
	for time.Until(until) > 500*time.Millisecond {
		if s := h.status("web"); s.PID != 0 || s.MaintenanceUntil.IsZero() {
			t.Fatalf("in maintenance, and %+v", s)
		}
		time.Sleep(50 * time.Millisecond)
	}
	h.awaitNew("web", was.PID)
	if now := time.Now(); now.Before(until) {
		t.Errorf("it was started %s before its maintenance ended", until.Sub(now))
	}
	if s := h.status("web"); !s.MaintenanceUntil.IsZero() {
		t.Errorf("still in maintenance: %+v", s)
	}
}

// Twenty services whose checks never come back do not keep another one's from being
// asked each time that it is due.
func TestAHungCheckHoldsUpNoOther(t *testing.T) {
	var asked atomic.Int64
	quick := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer quick.Close()
	release := make(chan struct{})
	hung := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer hung.Close()
	defer close(release)
	check := func(s *httptest.Server, every time.Duration) *p2pnode.Check {
		return &p2pnode.Check{HTTP: s.URL + "/", Every: every, Timeout: 10 * time.Second, Failures: 100}
	}
	web := service("web", "part:sleep")
	web.Check = check(quick, 50*time.Millisecond)
	specs := []p2pnode.ServiceSpec{web}
	for i := range 20 {
		s := service("hung"+strconv.Itoa(i), "part:sleep")
		s.Check = check(hung, 50*time.Millisecond)
		specs = append(specs, s)
	}
	h := newHost(t, daemonConfig{Services: specs})
	h.await("web", p2pnode.StateUp)
	before := asked.Load()
	time.Sleep(3 * time.Second)
	if n := asked.Load() - before; n < 15 { // of 55
		t.Errorf("asked %d times in 3 s, it is due every 50 ms", n)
	}
	for _, spec := range specs[1:] {
		if s := h.status(spec.Name); s.State != p2pnode.StateStarting || s.Restarts > 0 || strings.Contains(s.Why, "fail") {
			t.Fatalf("%+v", s)
		}
	}
}

// A service that beats and never says that it is ready hangs in its start like one that is
// silent; one that has asked for more time keeps it, also over a stop.
func TestABeatIsNoReady(t *testing.T) {
	beat := spec("beat")
	beat.Watchdog, beat.Ready, beat.StartWithin = 300*time.Millisecond, p2pnode.ReadyNotify, 2*time.Second
	w := newWorld(t, beat)
	for w.last("beat", p2pnode.FactFailed).Class == "" && len(w.starts["beat"]) == 1 {
		w.do(evNotified{name: "beat", beat: true})
		w.pass(200 * time.Millisecond)
		if age := w.now.Sub(w.starts["beat"][0]); age > 3*time.Second {
			t.Fatalf("it beats for %s without a READY", age)
		}
	}
	if e := w.last("beat", p2pnode.FactFailed); e.Class != p2pnode.ClassHung || e.Detail != "not ready within 2s" {
		t.Errorf("it failed by %q: %s", e.Class, e.Detail)
	}

	slow := spec("slow")
	slow.Ready, slow.StartWithin = p2pnode.ReadyNotify, 2*time.Second
	w = newWorld(t, slow)
	w.do(evNotified{name: "slow", more: time.Minute})
	w.do(evFrozen{name: "slow", inc: w.running["slow"]})
	w.pass(time.Second)
	w.do(evThawed{name: "slow"})
	w.pass(50 * time.Second)
	if e := w.last("slow", p2pnode.FactFailed); e.Class != "" || len(w.starts["slow"]) != 1 {
		t.Errorf("it had asked for a minute, and failed by %q: %s", e.Class, e.Detail)
	}
	w.pass(20 * time.Second)
	if e := w.last("slow", p2pnode.FactFailed); e.Class != p2pnode.ClassHung {
		t.Errorf("its minute is over, and it failed by %q", e.Class)
	}
}
