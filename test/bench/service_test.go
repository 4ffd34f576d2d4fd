package bench

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/bin"
	"p2pnode/test/history"
	"p2pnode/test/host"
	"p2pnode/test/score"
)

// services is how many victims one host runs: exec's policy lets a service fail
// again at once only after ten good seconds, so they are killed in turn.
const services = 25

// target is one victim and the process that answers for it.
type target struct {
	name    string
	program string
	argv    []string
	port    int
	pid     int
	started time.Time
}

// many starts a host alone with victims as its services.
func many(b *testing.B, f *host.Fleet, program, grace string, n int) (*host.Host, []*target) {
	b.Helper()
	var (
		yaml strings.Builder
		out  []*target
	)
	yaml.WriteString(grace + "services:\n")
	for i := range n {
		t := &target{name: fmt.Sprintf("web%d", i), port: freePort(b)}
		out = append(out, t)
		fmt.Fprintf(&yaml, "  %s:\n    command: [%s, -port, \"%d\"]\n    check: {http: \"http://127.0.0.1:%d/\"}\n", t.name, program, t.port, t.port)
	}
	h := f.Add("solo").Configure(yaml.String())
	h.Start(loopback...)
	f.Must(15*time.Second, "the node process is up", func() bool { return h.Sees("solo") })
	for _, t := range out {
		_, t.pid = untilOther(b, t.port, 0, time.Now(), 15*time.Second)
		t.started = time.Now()
	}
	return h, out
}

// BenchmarkServiceRepair: kill -9 of a service until it answers again, by the
// resident agent. Budget: p50 <= 10 ms, p99 <= 50 ms.
func BenchmarkServiceRepair(b *testing.B) {
	program, binary := bin.Victim(b), bin.P2pnode(b)
	for _, fallback := range fallbacks {
		b.Run(fallback.name, func(b *testing.B) {
			f := host.NewFleet(b, binary)
			h, targets := many(b, f, program, fallback.yaml, services)
			var got score.Samples
			for i := 0; b.Loop(); i++ {
				t := targets[i%len(targets)]
				time.Sleep(time.Until(t.started.Add(11 * time.Second)))
				h.Fault(t.name, p2pnode.ClassSignalled, t.pid)
				began := time.Now()
				syscall.Kill(t.pid, syscall.SIGKILL)
				var took time.Duration
				took, t.pid = untilOther(b, t.port, t.pid, began, 30*time.Second)
				t.started = time.Now()
				got = append(got, took)
			}
			f.Must(30*time.Second, "every repair is told", func() bool { return len(h.Incidents()) >= min(len(got), services) })
			for _, i := range h.Incidents() {
				if i.By.Kind != p2pnode.ByAgent || i.By.Fallback {
					b.Errorf("incident %s was repaired by %+v", i.ID, i.By)
				}
			}
			bare := floor(b, program, len(got))
			report(b, "", got)
			report(b, "floor-", bare)
			ratio := float64(got.At(0.5)) / float64(bare.At(0.5))
			b.ReportMetric(ratio, "x-floor")
			p50 := within(b, "p50", got.At(0.5), 10*time.Millisecond)
			p99 := within(b, "p99", got.At(0.99), 50*time.Millisecond)
			score.Record(b, score.Figure{
				Row: "1", How: fallback.how, Text: fmt.Sprintf("%s; %.1f x a bare fork+exec loop (p50 %s)", got.Text("p50", "p99"), ratio, score.Millis(bare.At(0.5))),
				N: len(got), Chance: fmt.Sprintf("%d kills", len(got)), Where: "one host, 25 services", Kept: p50 && p99,
			})
			f.Judge(history.Options{})
		})
	}
}

// BenchmarkExecKilled: kill -9 of exec under ten services: they live on, another
// exec knows them all, and the next crash is repaired. Budget: back <= 2 s.
func BenchmarkExecKilled(b *testing.B) {
	program, binary := bin.Victim(b), bin.P2pnode(b)
	f := host.NewFleet(b, binary)
	h, targets := many(b, f, program, "", 10)
	var back, next score.Samples
	touched := 0
	for i := 0; b.Loop(); i++ {
		time.Sleep(time.Until(targets[0].started.Add(11 * time.Second)))
		old := h.Exec() // only now: just after a kill there may be two, of which one gives way
		began := time.Now()
		h.Kill(p2pnode.SelfExec, p2pnode.ClassExecDead, old)
		back = append(back, poll(b, began, 10*time.Second, "another exec knows all services as up", func() bool {
			var d p2pnode.PSDoc
			up := 0
			if pid := h.Exec(); pid != 0 && pid != old && h.JSON(&d, "ps") {
				for _, s := range d.Services {
					if s.State == p2pnode.StateUp {
						up++
					}
				}
			}
			return up == len(targets)
		}))
		for _, t := range targets {
			if pid := ask(t.port); pid != t.pid {
				touched++
			}
		}
		t := targets[i%len(targets)]
		h.Fault(t.name, p2pnode.ClassSignalled, t.pid)
		began = time.Now()
		syscall.Kill(t.pid, syscall.SIGKILL)
		var took time.Duration
		took, t.pid = untilOther(b, t.port, t.pid, began, 30*time.Second)
		targets[0].started = time.Now()
		next = append(next, took)
	}
	report(b, "", back)
	report(b, "next-", next)
	ok := within(b, "max", back.At(1), 2*time.Second) && touched == 0
	if touched > 0 {
		b.Errorf("%d services were touched", touched)
	}
	score.Record(b, score.Figure{
		Row: "3", Text: fmt.Sprintf("exec back and all adopted: %s; services touched: %d; the next crash repaired: %s", back.Text("p50", "max"), touched, next.Text("p50", "max")),
		N: len(back), Chance: fmt.Sprintf("%d kills of exec under 10 services", len(back)), Where: "one host", Kept: ok,
	})
	f.Judge(history.Options{})
}

// BenchmarkFrozen: SIGSTOP of a service with stop_grace 0 until it answers again.
// Budget: 20 ms.
func BenchmarkFrozen(b *testing.B) {
	program, binary := bin.Victim(b), bin.P2pnode(b)
	f := host.NewFleet(b, binary)
	port := freePort(b)
	h := f.Add("solo").Configure(fmt.Sprintf("grace: {agent: 60s, node: 60s}\nservices:\n  web:\n    command: [%s, -port, \"%d\"]\n    check: {http: \"http://127.0.0.1:%[2]d/\"}\n    stop_grace: 0s\n", program, port))
	h.Start(loopback...)
	f.Must(15*time.Second, "the node process is up", func() bool { return h.Sees("solo") })
	_, pid := untilOther(b, port, 0, time.Now(), 15*time.Second)
	var got score.Samples
	for b.Loop() {
		time.Sleep(11 * time.Second)
		h.Fault("web", p2pnode.ClassFrozen, pid)
		began := time.Now()
		syscall.Kill(pid, syscall.SIGSTOP)
		var took time.Duration
		took, pid = untilOther(b, port, pid, began, 30*time.Second)
		got = append(got, took)
	}
	report(b, "", got)
	score.Record(b, score.Figure{
		Row: "C", How: "SIGSTOP, stop_grace 0", Text: got.Text("p50", "max"), N: len(got), Chance: fmt.Sprintf("%d stops", len(got)),
		Where: "one host", Kept: within(b, "p50", got.At(0.5), 20*time.Millisecond),
	})
	f.Judge(history.Options{})
}

// BenchmarkDeadlock: the port stays open, nothing answers; an http check at its
// defaults, until it answers again. Budget: median <= 4 s. The fault comes at any
// moment between two questions: right after the last repair is right after everybody
// was asked, the longest wait of all.
func BenchmarkDeadlock(b *testing.B) {
	program, binary := bin.Victim(b), bin.P2pnode(b)
	f := host.NewFleet(b, binary)
	h, targets := many(b, f, program, "grace: {agent: 60s, node: 60s}\n", 10)
	var got score.Samples
	for i := 0; b.Loop(); i++ {
		t := targets[i%len(targets)]
		time.Sleep(time.Until(t.started.Add(11 * time.Second)))
		anyMoment()
		h.Fault(t.name, p2pnode.ClassHung, t.pid)
		began := time.Now()
		syscall.Kill(t.pid, syscall.SIGUSR1)
		var took time.Duration
		took, t.pid = untilOther(b, t.port, t.pid, began, 30*time.Second)
		t.started = time.Now()
		got = append(got, took)
	}
	report(b, "", got)
	score.Record(b, score.Figure{
		Row: "D", How: "deadlock, http check at its defaults", Text: got.Text("p50", "max"), N: len(got),
		Chance: fmt.Sprintf("%d deadlocks beside 9 healthy services", len(got)), Where: "one host", Kept: within(b, "p50", got.At(0.5), 4*time.Second),
	})
	f.Judge(history.Options{})
}
