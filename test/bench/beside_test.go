package bench

import (
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/bin"
	"p2pnode/test/host"
	"p2pnode/test/score"
)

// besides are neighbours that are a nuisance, and how much longer than without them
// what is measured may take.
var besides = []struct {
	name, row, how string
	service        func(victim string) string // a line of the configuration
	what           string
	of             func(r repair) time.Duration
	longer         float64
}{
	{
		"crashing", "14", "beside 50 services that exit at once", func(string) string { return "  bad: {command: [\"false\"], replicas: 50}\n" },
		"noticed", func(r repair) time.Duration { return r.noticed }, 1.2,
	},
	{
		"flood", "29", "beside a service that prints 100 MB a second", func(victim string) string { return fmt.Sprintf(flood, victim) },
		"answering again", func(r repair) time.Duration { return r.took }, 2,
	},
}

// repair is a kill until the incident's detected_at, and until the service answers.
type repair struct{ noticed, took time.Duration }

// BenchmarkBeside: kill -9 of services alone on their host, and then beside others that
// are a nuisance. Budget: noticed and repaired not much later. Crash loops slow down
// after some seconds: the kills come at once.
func BenchmarkBeside(b *testing.B) {
	program, binary := bin.Victim(b), bin.P2pnode(b)
	for _, c := range besides {
		b.Run(c.name, func(b *testing.B) {
			f := host.NewFleet(b, binary)
			h, targets := many(b, f, program, "", services)
			config, err := os.ReadFile(h.Dir + ".yaml")
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				round := func(name string) (got score.Samples) {
					for _, r := range killEach(b, h, targets) {
						got = append(got, c.of(r))
					}
					report(b, name, got)
					return got
				}
				alone := round("alone-")
				time.Sleep(time.Until(targets[len(targets)-1].started.Add(11 * time.Second)))
				h.Configure(string(config) + c.service(program))
				h.OK("reload")
				beside := round("beside-")
				ratio := float64(beside.At(0.5)) / float64(alone.At(0.5))
				b.ReportMetric(ratio, "x-alone")
				score.Record(b, score.Figure{
					Row: c.row, How: "another service killed " + c.how, N: len(beside), Chance: fmt.Sprintf("%d kills, as many alone before", len(beside)), Where: "one host",
					Text: fmt.Sprintf("%s %s, alone p50 %s: %.2f x", c.what, beside.Text("p50", "max"), score.Millis(alone.At(0.5)), ratio), Kept: ratio <= c.longer,
				})
			}
		})
	}
}

// killEach kills all, one after the other, each after a good life.
func killEach(b *testing.B, h *host.Host, targets []*target) (out []repair) {
	b.Helper()
	var killed []time.Time
	for _, t := range targets {
		time.Sleep(time.Until(t.started.Add(11 * time.Second)))
		h.Fault(t.name, p2pnode.ClassSignalled, t.pid)
		began := time.Now()
		syscall.Kill(t.pid, syscall.SIGKILL)
		var r repair
		r.took, t.pid = untilOther(b, t.port, t.pid, began, 30*time.Second)
		t.started = time.Now()
		out, killed = append(out, r), append(killed, began)
		time.Sleep(100 * time.Millisecond)
	}
	for i, t := range targets {
		h.Fleet.Must(30*time.Second, "its story is told", func() bool {
			story, ok := h.Incident("solo", t.name, func(i p2pnode.Incident) bool { return true })
			out[i].noticed = story.DetectedAt.Sub(killed[i])
			return ok && out[i].noticed >= 0
		})
	}
	return out
}
