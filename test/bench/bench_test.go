// Package bench measures repair from outside: a poller that knows nothing of
// p2pnode asks the victim every half millisecond until it answers with another
// pid. Each figure is printed beside a bare fork+exec loop of the same victim
// in the same run, as a ratio; all samples are printed.
//
//	go test -run '^$' -bench . -benchtime 100x ./test/bench
//
// Figures of a shared machine are noisy: quote medians and ratios.
//
// Read next: service_test.go.
package bench

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/manage"
	"p2pnode/test/host"
	"p2pnode/test/score"
)

// fallbacks are the two settings under which every row that an agent must win is
// measured: exec's own hand far away, and the defaults.
var fallbacks = []struct{ name, how, yaml string }{
	{"fallback=60s", "exec's own hand 60 s away", "grace: {agent: 60s, node: 60s}\n"},
	{"fallback=default", "defaults", ""},
}

// ask puts one request to the victim; 0 if there is no good answer.
func ask(port int) int {
	c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), 100*time.Millisecond)
	if err != nil {
		return 0
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(100 * time.Millisecond))
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: victim\r\n\r\n")
	lines := bufio.NewScanner(c)
	for last := ""; ; last = lines.Text() {
		if !lines.Scan() {
			pid, _ := strconv.Atoi(last)
			return pid
		}
	}
}

// untilOther polls until another pid than old answers and returns since when it
// took; it fails the benchmark after limit.
func untilOther(b *testing.B, port, old int, since time.Time, limit time.Duration) (time.Duration, int) {
	b.Helper()
	for {
		if pid := ask(port); pid != 0 && pid != old {
			return time.Since(since), pid
		}
		if time.Since(since) > limit {
			b.Fatalf("no answer from a new process %v after the fault", limit)
		}
		time.Sleep(500 * time.Microsecond)
	}
}

func freePort(b *testing.B) int {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// report prints quantiles, n and every sample.
func report(b *testing.B, prefix string, s score.Samples) {
	b.Helper()
	for name, q := range map[string]float64{"p50": 0.5, "p99": 0.99, "max": 1} {
		b.ReportMetric(p2pnode.Milliseconds(s.At(q)), prefix+name+"-ms")
	}
	b.Logf("%sn=%d p50=%v p99=%v max=%v all=%v", prefix, len(s), s.At(0.5), s.At(0.99), s.At(1), s)
}

// within fails the benchmark when a figure misses its budget.
func within(b *testing.B, what string, got, budget time.Duration) bool {
	b.Helper()
	if got > budget {
		b.Errorf("%s: %v, the budget is %v", what, got, budget)
	}
	return got <= budget
}

// floor is what the kernel takes: a loop that waits for its child and starts it
// again, polled like everything else.
func floor(b *testing.B, program string, n int) score.Samples {
	b.Helper()
	port := freePort(b)
	start := func() *exec.Cmd {
		cmd := exec.Command(program, "-port", strconv.Itoa(port))
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		return cmd
	}
	cmd := start()
	_, pid := untilOther(b, port, 0, time.Now(), 5*time.Second)
	var out score.Samples
	for range n {
		began := time.Now()
		syscall.Kill(pid, syscall.SIGKILL)
		cmd.Wait()
		cmd = start()
		var took time.Duration
		took, pid = untilOther(b, port, pid, began, 5*time.Second)
		out = append(out, took)
	}
	cmd.Process.Kill()
	cmd.Wait()
	return out
}

// self asks the node process of h once, on a connection of its own, who it is.
func self(h *host.Host) (p2pnode.NodeDoc, int) {
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	c, err := manage.Dial(ctx, h.Dir)
	if err != nil {
		return p2pnode.NodeDoc{}, 0
	}
	defer c.Close()
	doc, err := c.Nodes(ctx)
	alive, own := 0, p2pnode.NodeDoc{}
	for _, n := range doc.Nodes {
		if n.Verdict == p2pnode.Alive {
			alive++
		}
		if n.Self {
			own = n
		}
	}
	if err != nil {
		return p2pnode.NodeDoc{}, 0
	}
	return own, alive
}

// poll asks cond every half millisecond and returns how long it took since began.
func poll(b *testing.B, began time.Time, limit time.Duration, what string, cond func() bool) time.Duration {
	b.Helper()
	for !cond() {
		if time.Since(began) > limit {
			b.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(500 * time.Microsecond)
	}
	return time.Since(began)
}

// loopback are the flags of a host that shares this machine with others.
var loopback = []string{"--listen", "127.0.0.1:0", "--door", "127.0.0.1:0"}

// five starts a fleet on loopback, the first one founding, and waits until all
// see all.
func five(b *testing.B, f *host.Fleet, names []string, grace string) []*host.Host {
	b.Helper()
	var hosts []*host.Host
	addr := ""
	for _, n := range names {
		h := f.Add(n).Configure(grace + "services: {}\n")
		args := loopback
		if addr != "" {
			args = append(args[:len(args):len(args)], "--join", addr)
		}
		h.Start(args...)
		f.Must(15*time.Second, n+" is up", func() bool {
			var s p2pnode.StatusDoc
			if !h.JSON(&s, "status") || s.Node == nil || len(s.Node.Listen) == 0 {
				return false
			}
			if addr == "" {
				addr = s.Node.Listen[0]
			}
			return true
		})
		hosts = append(hosts, h)
	}
	for _, h := range hosts {
		f.Must(15*time.Second, h.Name+" sees all", func() bool { return h.Sees(names...) })
	}
	return hosts
}
