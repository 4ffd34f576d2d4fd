package bench

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/bin"
	"p2pnode/test/history"
	"p2pnode/test/host"
	"p2pnode/test/netlab"
	"p2pnode/test/score"
)

// BenchmarkNodeRepair: kill -9 of a node process until the one that a peer's agent
// had started gives its first correct answer to a poller outside. Budget: p50 <=
// 300 ms, max <= 1 s.
func BenchmarkNodeRepair(b *testing.B) {
	binary := bin.P2pnode(b)
	for _, fallback := range fallbacks {
		b.Run(fallback.name, func(b *testing.B) {
			f := host.NewFleet(b, binary)
			hosts := five(b, f, []string{"a", "b", "c", "d", "e"}, fallback.yaml)
			hosts[0].OK("agents", "launch", "--slo", "15s")
			var got score.Samples
			for i := 0; b.Loop(); i++ {
				target, witness := hosts[i%len(hosts)], hosts[(i+1)%len(hosts)]
				// A life of more than 10 s has a clean slate: the five die in turn.
				time.Sleep(2 * time.Second)
				old, own := target.Role("node"), p2pnode.NodeDoc{}
				f.Must(5*time.Second, target.Name+" answers", func() bool { own, _ = self(target); return own.Life != "" })
				life := own.Life
				target.Fault(p2pnode.SelfNode, p2pnode.ClassProcessDead, old)
				began := time.Now()
				syscall.Kill(old, syscall.SIGKILL)
				got = append(got, poll(b, began, 30*time.Second, target.Name+" answers again", func() bool {
					n, _ := self(target)
					return n.Life != "" && n.Life != life
				}))
				f.Must(30*time.Second, "the repair is verified", func() bool {
					in, ok := witness.Incident(target.Name, "", func(in p2pnode.Incident) bool { return in.OldIncarnation == life && !in.VerifiedAt.IsZero() })
					if ok && (in.By.Kind != p2pnode.ByAgent || in.By.Node == target.Name || in.By.Fallback) {
						b.Errorf("%s was repaired by %+v", target.Name, in.By)
					}
					return ok
				})
			}
			report(b, "", got)
			p50 := within(b, "p50", got.At(0.5), 300*time.Millisecond)
			worst := within(b, "max", got.At(1), time.Second)
			score.Record(b, score.Figure{
				Row: "2", How: fallback.how, Text: got.Text("p50", "max"), N: len(got), Chance: fmt.Sprintf("%d kills", len(got)),
				Where: "five hosts on loopback", Kept: p50 && worst,
			})
			f.Judge(history.Options{EndView: true})
		})
	}
}

// BenchmarkJoin: five nodes on loopback; from the start of the last one until
// all five see five alive. Budget: 1 s.
func BenchmarkJoin(b *testing.B) {
	binary := bin.P2pnode(b)
	var got score.Samples
	for b.Loop() {
		f := host.NewFleet(b, binary)
		hosts := five(b, f, []string{"a", "b", "c", "d"}, "")
		var s p2pnode.StatusDoc
		hosts[0].JSON(&s, "status")
		last := f.Add("e").Configure("services: {}\n")
		began := time.Now()
		last.Start(append(loopback[:len(loopback):len(loopback)], "--join", s.Node.Listen[0])...)
		all := append(hosts, last)
		got = append(got, poll(b, began, 20*time.Second, "all five see five alive", func() bool {
			for _, h := range all {
				if _, alive := self(h); alive != len(all) {
					return false
				}
			}
			return true
		}))
		f.Judge(history.Options{EndView: true})
	}
	report(b, "", got)
	score.Record(b, score.Figure{
		Row: "J", Text: got.Text("p50", "max"), N: len(got), Chance: fmt.Sprintf("%d fleets of five", len(got)),
		Where: "five hosts on loopback", Kept: within(b, "max", got.At(1), time.Second),
	})
}

// BenchmarkIdle prints what an idle host of five costs, by role: PSS, anonymous
// memory, CPU, and what goes over its wires. Each host stands in a network
// namespace of its own, wired with all others: that is how bytes have an owner.
func BenchmarkIdle(b *testing.B) {
	l := netlab.New(b, bin.P2pnode(b))
	names := []string{"a", "b", "c", "d", "e"}
	var hosts []*host.Host
	for i, name := range names {
		hosts = append(hosts, l.Host(name).Configure("services: {}\n"))
		for _, other := range names[:i] {
			l.Wire(other, name)
		}
	}
	for i, h := range hosts {
		args := []string{"--listen", "0.0.0.0:7744", "--door", "0.0.0.0:7745"}
		if i > 0 {
			args = append(args, "--join", l.Addr(h.Name, "a"))
		}
		h.Start(args...)
		l.Must(20*time.Second, h.Name+" is a member", func() bool { return h.Sees(names[:i+1]...) })
	}
	hosts[0].OK("agents", "launch", "--slo", "15s")
	time.Sleep(20 * time.Second)
	h := hosts[2]
	roles := []string{"exec", "door", "node"}
	pids := map[string]int{"exec": h.Exec(), "door": h.Role("door"), "node": h.Role("node")}
	for b.Loop() {
		const window = 30 * time.Second
		before := map[string]time.Duration{}
		for _, role := range roles {
			before[role] = host.CPU(pids[role])
		}
		in, out := traffic(pids["node"])
		time.Sleep(window)
		inAfter, outAfter := traffic(pids["node"])
		var pss, share float64
		var text []string
		for _, role := range roles {
			p, anon := memory(pids[role])
			c := float64(host.CPU(pids[role])-before[role]) / float64(window) * 100
			b.ReportMetric(p, role+"-pss-MiB")
			b.ReportMetric(anon, role+"-anon-MiB")
			b.ReportMetric(c, role+"-cpu-%")
			text = append(text, fmt.Sprintf("%s %.1f MiB (%.1f anonymous), %.2f %% of a core", role, p, anon, c))
			pss, share = pss+p, share+c
		}
		kin, kout := float64(inAfter-in)/window.Seconds()/1000, float64(outAfter-out)/window.Seconds()/1000
		b.ReportMetric(kin, "in-kB/s")
		b.ReportMetric(kout, "out-kB/s")
		// Printed, and judged on the card: a busy neighbour on a shared machine must not
		// turn a test red.
		kept := pss <= 40 && share <= 0.8 && kin <= 5 && kout <= 5
		score.Record(b, score.Figure{
			Row: "I", Text: fmt.Sprintf("PSS %.1f MiB, %.2f %% of a core, %.1f kB/s in, %.1f out: %s", pss, share, kin, kout, strings.Join(text, "; ")),
			N: 1, Chance: fmt.Sprintf("%v watched", window), Where: "five hosts in namespaces, agents on patrol", Kept: kept,
		})
	}
}

// traffic are the bytes that came in and went out in the network namespace of pid,
// loopback aside.
func traffic(pid int) (in, out int64) {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", pid))
	for line := range strings.Lines(string(raw)) {
		name, rest, ok := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		if !ok || strings.TrimSpace(name) == "lo" || len(fields) < 9 {
			continue
		}
		rx, _ := strconv.ParseInt(fields[0], 10, 64)
		tx, _ := strconv.ParseInt(fields[8], 10, 64)
		in, out = in+rx, out+tx
	}
	return in, out
}

// memory is PSS and anonymous memory of pid, in MiB.
func memory(pid int) (pss, anon float64) {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	for line := range strings.Lines(string(raw)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		kb, _ := strconv.ParseFloat(fields[1], 64)
		switch fields[0] {
		case "Pss:":
			pss = kb / 1024
		case "Anonymous:":
			anon = kb / 1024
		}
	}
	return pss, anon
}
