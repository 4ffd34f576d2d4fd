package keep

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/history"
	"p2pnode/test/score"
)

// Row 26: a host whose processes may open 64 files each, while somebody takes every
// connection that he gets to both of its sockets and says nothing. Its services live
// on, one that is killed is restarted, and neither exec nor door nor node process ends.
func TestFewDescriptors(t *testing.T) {
	const limit = 64
	h := newBehind(t, []string{"sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$@"`, limit), "few"}, func(victim, dir string) string {
		var services strings.Builder
		for i, port := range freePorts(t, 3) {
			fmt.Fprintf(&services, "  s%d: {command: [%s, -ledger, %s/s%d, -port, \"%d\"], check: {http: \"http://127.0.0.1:%d/\"}}\n", i, victim, dir, i, port, port)
		}
		return services.String()
	})
	h.Fleet.Must(20*time.Second, "all are up", func() bool { return len(h.pids("")) == 3 })
	before := h.pids("")
	exec, door, node := h.Exec(), h.Role("door"), h.Role("node")

	stop := make(chan struct{})
	held, done := make(chan int), make(chan struct{}, 2)
	for _, name := range []string{"exec.sock", "node.sock"} {
		go func() {
			defer func() { done <- struct{}{} }()
			crowd(filepath.Join(h.Dir, "run", name), 2*limit, held, stop)
		}()
	}
	callers := 0
	for range 2 {
		n := <-held
		if n < limit/4 {
			t.Fatalf("%d callers got in: this shows nothing", n)
		}
		callers += n
	}
	if most := max(descriptors(exec), descriptors(node)); most > limit {
		t.Errorf("%d descriptors are open, the limit is %d: this shows nothing", most, limit)
	}
	began := time.Now()
	h.Kill("s0", p2pnode.ClassSignalled, before["s0"])
	ledger := filepath.Join(h.Fleet.Dir, "s0")
	h.Fleet.Must(10*time.Second, "s0 was started again", func() bool { n, _ := starts(t, ledger); return n == 2 })
	took := time.Since(began)
	for range 3 {
		time.Sleep(time.Second) // longer than a stranger may stay silent
		if h.Exec() != exec || h.Role("door") != door || h.Role("node") != node {
			t.Fatalf("exec, door and node process were %d, %d, %d, now %d, %d, %d", exec, door, node, h.Exec(), h.Role("door"), h.Role("node"))
		}
	}
	close(stop)
	<-done
	<-done

	h.Fleet.Must(20*time.Second, "all are up again", func() bool { return len(h.pids("")) == 3 })
	h.startsOf([]string{"s0", "s1", "s2"}, map[string]int{"s0": 1})
	h.Fleet.Must(20*time.Second, "the story of s0 is told", func() bool {
		_, ok := h.Incident("solo", "s0", func(i p2pnode.Incident) bool { return i.State == p2pnode.IncidentRecovered })
		return ok
	})
	if h.Exec() != exec || h.Role("door") != door || h.Role("node") != node {
		t.Errorf("exec, door or node process was replaced")
	}
	score.Record(t, score.Figure{
		Row: "26", How: fmt.Sprintf("%d descriptors a process, %d silent callers", limit, callers),
		Text: fmt.Sprintf("a killed service is back after %s, nothing else was restarted", score.Millis(took)),
		N:    1, Chance: "1 kill while every descriptor that callers get is taken", Where: "one host", Kept: !t.Failed(),
	})
	h.Fleet.Judge(history.Options{EndView: true})
}

// crowd holds as many connections to a socket as it gets, up to n, and takes a new one
// for each that is closed, until stop. It sends how many it has after its first round.
func crowd(path string, n int, held chan<- int, stop <-chan struct{}) {
	conns := map[net.Conn]bool{}
	closed := make(chan net.Conn, n)
	defer func() {
		for c := range conns {
			c.Close()
		}
	}()
	for first := true; ; first = false {
		for len(conns) < n {
			c, err := net.DialTimeout("unix", path, 100*time.Millisecond)
			if err != nil {
				break
			}
			conns[c] = true
			go func() {
				c.Read(make([]byte, 1)) // nothing is said: it ends when the other side closes it
				closed <- c
			}()
		}
		if first {
			held <- len(conns)
		}
		select {
		case <-stop:
			return
		case c := <-closed:
			delete(conns, c)
			c.Close()
		case <-time.After(50 * time.Millisecond):
		}
	}
}
