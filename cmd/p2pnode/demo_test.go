package main

import (
	"fmt"
	"net/http"
	"os"
	osexec "os/exec"
	"syscall"
	"testing"
	"time"

	"p2pnode"
)

// TestMain lets this test binary be the program itself, for tests that need it
// as another process.
func TestMain(m *testing.M) {
	if os.Getenv("P2PNODE_TEST_MAIN") != "" {
		main()
	}
	os.Exit(m.Run())
}

func startWeb(t *testing.T) (port int, p process) {
	t.Helper()
	port, err := pickPort("127.0.0.1", 1)
	if err != nil {
		t.Fatal(err)
	}
	cmd := osexec.Command("/proc/self/exe", "demo-web", "--port", itoa(port))
	cmd.Env = append(os.Environ(), "P2PNODE_TEST_MAIN=1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if !until(5*time.Second, time.Millisecond, func() bool { return answer(port, time.Second) != 0 }) {
		t.Fatal("demo-web does not answer")
	}
	_, start, _ := stat(cmd.Process.Pid)
	return port, process{cmd.Process.Pid, start}
}

func TestOutsideSeesCopiesAndFaults(t *testing.T) {
	port, p := startWeb(t)
	if got := webCopies(port); len(got) != 1 || got[0] != p {
		t.Fatalf("copies %v, want %v", got, p)
	}
	if age := p.age(); age < 0 || age > 10*time.Second {
		t.Errorf("a process just started is %v old", age)
	}
	if got := answer(port, time.Second); got != p.pid {
		t.Errorf("answer says pid %d, want %d", got, p.pid)
	}
	p.kill(syscall.SIGSTOP)
	if !until(time.Second, time.Millisecond, p.stopped) || answer(port, 30*time.Millisecond) != 0 {
		t.Error("a stopped process is not seen as stopped")
	}
	p.kill(syscall.SIGCONT)
	resp, err := http.Post(fmt.Sprintf("http://127.0.0.1:%d/deadlock", port), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if answer(port, 50*time.Millisecond) != 0 || !p.running() {
		t.Error("a deadlocked service answers, or is gone")
	}
	p.kill(syscall.SIGKILL)
	if !until(time.Second, time.Millisecond, func() bool { return !p.running() }) {
		t.Error("a killed process is seen as running")
	}
	if got := webCopies(port); len(got) != 0 {
		t.Errorf("copies after the kill: %v", got)
	}
}

func TestFarTarget(t *testing.T) {
	d := &demo{}
	for _, name := range demoNames[:5] {
		d.hosts = append(d.hosts, &demoHost{name: name})
	}
	for _, c := range []struct {
		agents []string
		want   string
	}{
		{nil, ""},
		{[]string{"ash"}, "elm"},
		{[]string{"ash", "birch"}, "elm"},
		{[]string{"cedar"}, "fir"},
		{[]string{"ash", "cedar"}, ""},
		{[]string{"elm", "fir"}, "birch"},
	} {
		got := ""
		if h := d.farTarget(c.agents); h != nil {
			got = h.name
		}
		if got != c.want {
			t.Errorf("agents on %v: target %q, want %q", c.agents, got, c.want)
		}
	}
}

func TestResting(t *testing.T) {
	w, now := whereabouts{}, time.Now()
	dead := func(name string) bool { return name == "elm" }
	see := func(after time.Duration, docs ...p2pnode.AgentDoc) []string {
		return w.resting(docs, dead, now.Add(after))
	}
	a, b := p2pnode.AgentDoc{ID: "a", Kind: "patrol", At: "ash", Hops: 1}, p2pnode.AgentDoc{ID: "b", Kind: "patrol", At: "birch", Hops: 4}
	if got := see(0, a, b); got != nil {
		t.Errorf("agents that were there before count as just arrived: %v", got)
	}
	a.At, a.Hops = "fir", 2
	if got := see(time.Second, a, b); got != nil {
		t.Errorf("one of two has arrived: %v", got)
	}
	b.Hops = 6 // away and back between two looks
	if got := see(1100*time.Millisecond, a, b); len(got) != 2 || got[0] != "fir" || got[1] != "birch" {
		t.Errorf("both have arrived: %v", got)
	}
	busy := b
	busy.Kind = "mission"
	if got := see(1100*time.Millisecond, a, busy); got != nil {
		t.Errorf("one is busy: %v", got)
	}
	if got := see(time.Second+justArrived+time.Millisecond, a, b); got != nil {
		t.Errorf("one may be about to leave: %v", got)
	}
	b.At = "elm"
	if got := see(1200*time.Millisecond, a, b); got != nil {
		t.Errorf("one is on a dead host: %v", got)
	}
}
