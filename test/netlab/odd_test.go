package netlab

import (
	"fmt"
	"net"
	"os/exec"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/bin"
	"p2pnode/test/history"
)

// Three hosts in a row that have nothing but IPv6: they find each other, an agent
// brings a node process back through its neighbour's door, stories spread.
func TestIPv6Only(t *testing.T) {
	names := []string{"a", "b", "c"}
	l := New(t, bin.P2pnode(t))
	l.IPv6 = true
	hosts := l.hosts(names, farFallback+service("web"))
	l.Wire("a", "b")
	l.Wire("b", "c")
	for i, h := range hosts {
		args := []string{"--listen", "[::]:7744", "--door", "[::]:7745"}
		if i > 0 {
			args = append(args, "--join", net.JoinHostPort(l.Addr(names[i], names[i-1]), "7744"))
		}
		h.Start(args...)
	}
	a, c := hosts[0], hosts[2]
	l.Must(30*time.Second, "one view", func() bool { return a.Sees(names...) && c.Sees(names...) })
	a.OK("agents", "launch", "--slo", "15s")
	l.Must(20*time.Second, "an agent on patrol", func() bool { return len(a.Agents()) > 0 })
	killNode(l, a, c)
	killWeb(l, a, c)
	l.Judge(history.Options{EndView: true})
}

// A stranger on the wire throws garbage at all three ports, as fast as he can. The
// processes that hear it stay the same ones, a service is repaired meanwhile, and
// nobody is accused of anything.
func TestGarbageOnAllPorts(t *testing.T) {
	names := []string{"a", "b"}
	l, hosts := mesh(t, bin.P2pnode(t), farFallback+service("web"), names...)
	a, b := hosts[0], hosts[1]
	l.Host("x")
	l.Wire("b", "x")
	target, roles := l.Addr("x", "b"), map[string]int{"node": b.Role("node"), "door": b.Role("door"), "": b.Exec()}
	throw := func(proto, port string) *exec.Cmd {
		return exec.Command("nsenter", "--net=/run/netns/"+l.space("x"), "--", "timeout", "5", "bash", "-c",
			fmt.Sprintf("n=0; while :; do head -c $((RANDOM %% 1400 + 1)) /dev/urandom >/dev/%s/%s/%s && n=$((n+1)); echo $n; done 2>/dev/null", proto, target, port))
	}
	type thrown struct {
		what string
		out  []byte
	}
	done := make(chan thrown)
	throws := [][2]string{{"tcp", "7744"}, {"udp", "7744"}, {"tcp", "7745"}}
	for _, p := range throws {
		go func() {
			out, _ := throw(p[0], p[1]).Output() // timeout ends it
			done <- thrown{p[0] + " " + p[1], out}
		}()
	}
	killWeb(l, a, b)
	for range throws {
		x := <-done
		n := len(x.out)
		t.Logf("%s: %d bytes of count", x.what, n)
		if n < 20 {
			t.Errorf("%s was hardly hit: this shows nothing", x.what)
		}
	}
	for role, pid := range map[string]int{"node": b.Role("node"), "door": b.Role("door"), "": b.Exec()} {
		if pid != roles[role] {
			t.Errorf("%q was %d, is %d", role, roles[role], pid)
		}
	}
	l.Judge(history.Options{EndView: true})
}

// A wire of a triangle breaks and mends every second. Nobody is restarted, nobody
// accused, and reports do not pile up.
func TestAFlappingWire(t *testing.T) {
	names := []string{"a", "b", "c"}
	l, hosts := mesh(t, bin.P2pnode(t), farFallback+service("web"), names...)
	a, b := hosts[0], hosts[1]
	a.OK("agents", "launch", "--slo", "15s")
	before := restarts(l)
	for range 10 {
		l.Cut("a", "b")
		time.Sleep(time.Second)
		l.Mend("a", "b")
		time.Sleep(time.Second)
	}
	l.Must(20*time.Second, "one view", func() bool { return a.Sees(names...) && b.Sees(names...) })
	if n := restarts(l) - before; n != 0 {
		t.Errorf("%d restarts", n)
	}
	web := webOf(hosts[2]) // a fault that the checker can accuse by
	hosts[2].Kill("web", p2pnode.ClassSignalled, web.PID)
	l.Must(10*time.Second, "its story", func() bool {
		_, ok := a.Incident("c", "web", verified)
		return ok
	})
	if n := len(a.Incidents()); n != 1 {
		t.Errorf("%d incidents, want the one of web: %+v", n, a.Incidents())
	}
	l.Judge(history.Options{EndView: true})
}
