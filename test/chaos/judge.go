package chaos

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"p2pnode"
	"p2pnode/test/history"
	"p2pnode/test/host"
	"p2pnode/test/score"
)

const (
	// leastUp is the share of its container's time that a service must be up; how long a
	// container takes to start is the machine's, so each start has bootTime on top.
	leastUp  = 0.99
	bootTime = time.Second
	// settleTime is how long after the last fault everything must agree.
	settleTime = 60 * time.Second
)

// settle waits until everything agrees and says what does not.
func (f *Fleet) settle() {
	if !host.Eventually(settleTime, f.allAlive) {
		for _, b := range f.boxes {
			out, _ := b.CLI("nodes")
			f.violation("%v after the last fault %s does not see all of the fleet alive:\n%s", settleTime, b.Name, out)
		}
	}
	for _, b := range f.boxes {
		if !host.Eventually(settleTime, b.allAnswer) {
			out, _ := b.CLI("ps")
			f.violation("%v after the last fault not every service of %s answers:\n%s", settleTime, b.Name, out)
		}
	}
	var told map[string][]string
	if !host.Eventually(settleTime, func() bool { told = f.reports(); return len(told) == 1 }) {
		var who []string
		for text, names := range told {
			who = append(who, fmt.Sprintf("%v: %d bytes", names, len(text)))
			os.WriteFile(filepath.Join(f.dir, "reports."+names[0]), []byte(text), 0o600)
		}
		f.violation("%v after the last fault not all nodes hold the same reports: %v", settleTime, who)
	}
}

// reports are the different answers to `reports -o json`, and who gives each.
func (f *Fleet) reports() map[string][]string {
	out := map[string][]string{}
	for _, b := range f.boxes {
		text, code := b.CLI("reports", "-o", "json")
		if code != 0 {
			text = fmt.Sprintf("exit %d", code)
		}
		out[text] = append(out[text], b.Name)
	}
	return out
}

// judge reads what everybody wrote down. Faults that are still being told may be
// waited for until patience ends.
func (f *Fleet) judge(patience time.Duration) []p2pnode.HistoryEvent {
	var events []p2pnode.HistoryEvent
	var broken []history.Violation
	host.Eventually(patience, func() bool {
		var err error
		events, err = history.ReadFiles(filepath.Join(f.dir, "*.history.jsonl"), filepath.Join(f.dir, "*", "*.history.jsonl"))
		if err != nil {
			f.t.Fatal(err)
		}
		broken = slices.DeleteFunc(history.Check(events, history.Options{EndView: true}), func(v history.Violation) bool { return f.diedWithAll(v, events) })
		if len(broken) > 0 {
			time.Sleep(time.Second)
		}
		return len(broken) == 0
	})
	for _, v := range broken {
		f.violation("%s", v)
	}
	f.judgeLedgers(events)
	return events
}

// watching is how long an agent looks on, and says nothing yet, where it finds that
// its target came back by itself: three settle times of 3 s, and its way there.
const watching = 10 * time.Second

// diedWithAll reports whether a mission that had done nothing was under way when the
// whole fleet was killed: nobody was left who knew of it. One that had acted is owed:
// exec tells of its act.
func (f *Fleet) diedWithAll(v history.Violation, events []p2pnode.HistoryEvent) bool {
	if v.Rule != "missions-told" {
		return false
	}
	claim := slices.IndexFunc(events, func(e p2pnode.HistoryEvent) bool {
		return e.Event == p2pnode.HistClaimed && e.Node == v.Node && e.At.Equal(v.At)
	})
	acted := claim < 0 || slices.ContainsFunc(events, func(e p2pnode.HistoryEvent) bool {
		return e.Event == p2pnode.HistStarted && strings.HasPrefix(e.Op, events[claim].Incident+"/")
	})
	return !acted && slices.ContainsFunc(f.fleetDead, func(dying span) bool {
		return v.At.After(dying.from.Add(-watching)) && v.At.Before(dying.to)
	})
}

// judgeLedgers compares what the victims wrote with what exec says that it started:
// never a second copy, no start that exec does not know of.
func (f *Fleet) judgeLedgers(events []p2pnode.HistoryEvent) {
	for _, b := range f.boxes {
		for _, s := range services {
			raw, err := os.ReadFile(filepath.Join(b.folder, s+".ledger"))
			if err != nil {
				f.violation("%s/%s never started: %v", b.Name, s, err)
				continue
			}
			for line := range strings.Lines(string(raw)) {
				f.judgeStart(events, b.Name, s, strings.Fields(line))
			}
		}
	}
}

func (f *Fleet) judgeStart(events []p2pnode.HistoryEvent, node, service string, words []string) {
	if len(words) < 2 {
		f.violation("%s/%s: torn ledger: %v", node, service, words)
		return
	}
	pid, _ := strconv.Atoi(words[0])
	ns, _ := strconv.ParseInt(words[1], 10, 64)
	at := time.Unix(0, ns)
	if len(words) > 2 {
		f.violation("%s/%s: two copies lived at %s: pid %d started beside another one", node, service, at.Format("15:04:05.000"), pid)
	}
	near := func(e p2pnode.HistoryEvent) bool { return e.At.Sub(at).Abs() < 2*time.Second }
	known := slices.ContainsFunc(events, func(e p2pnode.HistoryEvent) bool {
		return e.Event == p2pnode.HistStarted && e.Node == node && e.Service == service && e.PID == pid && near(e)
	})
	killed := slices.ContainsFunc(events, func(e p2pnode.HistoryEvent) bool { // exec died before it could say so
		return e.Event == p2pnode.HistFault && e.Target == node && e.Service == "" && e.Class == p2pnode.ClassUnreachable && near(e)
	})
	if !known && !killed {
		f.violation("%s/%s: pid %d started at %s and exec does not say so", node, service, pid, at.Format("15:04:05.000"))
	}
}

// judgeAvailability sums up what the probers counted, and returns the worst share.
func (f *Fleet) judgeAvailability() (worst float64) {
	var up, total time.Duration
	worst, name := 1.0, ""
	var longest []string
	for _, b := range f.boxes {
		for _, p := range b.probers {
			u, all, outages := p.account()
			up, total = up+u, total+all
			share := 0.0
			if all > 0 {
				share = u.Seconds() / all.Seconds()
			}
			if share <= worst {
				worst, name = share, b.Name+"/"+p.service
			}
			if down := all - u; down > time.Duration((1-leastUp)*float64(all))+time.Duration(b.starts)*bootTime {
				f.violation("%s/%s was up %.2f %% of the %.0f s that its container ran", b.Name, p.service, 100*share, all.Seconds())
			}
			for _, o := range outages {
				if o.took > time.Second {
					longest = append(longest, fmt.Sprintf("%s %s/%s for %.2fs", o.from.Format("15:04:05.000"), b.Name, p.service, o.took.Seconds()))
				}
			}
		}
	}
	f.t.Logf("availability %.3f %% of %.0f service-seconds; worst %s with %.2f %%", 100*up.Seconds()/total.Seconds(), total.Seconds(), name, 100*worst)
	slices.Sort(longest)
	for _, l := range longest {
		f.t.Logf("  outage %s", l)
	}
	return worst
}

// figures prints how long repairs took, by kind, and files what the scorecard shows.
func (f *Fleet) figures(plan []Fault, worst float64) {
	made := map[Kind]int{}
	for _, fault := range plan {
		made[fault.Kind]++
	}
	for _, k := range slices.Sorted(maps.Keys(made)) {
		f.t.Logf("  %-9s made %3d  well again n=%-3d %s", k, made[k], len(f.repairs[k]), f.repairs[k].Text("p50", "p99"))
	}
	score.Record(f.t, score.Figure{
		Row: "13", How: "containers die at random", N: len(plan), Where: "containers", Kept: worst >= leastUp && len(f.violations) == 0,
		Text:   fmt.Sprintf("worst service up %.2f %%, %d violations; service back %s", 100*worst, len(f.violations), f.repairs[KillService].Text("p50", "p99")),
		Chance: fmt.Sprintf("%d faults of %d kinds", len(plan), len(made)),
	})
	if n := len(f.views); n > 0 {
		score.Record(f.t, score.Figure{
			Row: "12", How: "five containers", N: n, Where: "containers", Kept: f.views.At(1) <= 15*time.Second,
			Text: "one view " + f.views.Text("p50", "max"), Chance: fmt.Sprintf("%d kills of the whole fleet", n),
		})
	}
}

// spreading prints how long after a service's death its acted report was in the
// store of three other nodes (the time of the third line that says so): apart where
// the whole fleet was within reach at the time, and where it was not.
func (f *Fleet) spreading(events []p2pnode.HistoryEvent) {
	var whole, broken score.Samples
	away := map[string]bool{} // containers that something keeps from the others
	for i, e := range events {
		switch {
		case e.Event == p2pnode.HistHealed && !slices.Contains(services, e.Service):
			delete(away, e.Target)
		case e.Event != p2pnode.HistFault:
		case e.Service == "":
			away[e.Target] = true
		case slices.Contains(services, e.Service):
			took, ok := onThreeOthers(e, events[i:])
			switch {
			case !ok:
				f.t.Logf("  %s: %s/%s: no acted report on 3 other nodes", e.At.Format("15:04:05.000"), e.Target, e.Service)
			case len(away) > 0:
				broken = append(broken, took)
			default:
				whole = append(whole, took)
				if took > 2*time.Second {
					f.t.Logf("  %s: %s/%s: its acted report was %.1fs on its way", e.At.Format("15:04:05.000"), e.Target, e.Service, took.Seconds())
				}
			}
		}
	}
	f.t.Logf("acted report of a service stored on 3 other nodes: all within reach n=%d %s; some not n=%d %s",
		len(whole), whole.Text("p50", "p99"), len(broken), broken.Text("p50", "p99"))
}

func onThreeOthers(fault p2pnode.HistoryEvent, later []p2pnode.HistoryEvent) (time.Duration, bool) {
	holders, incident := map[string]bool{}, ""
	for _, e := range later {
		if e.Event != p2pnode.HistReport || e.Target != fault.Target || e.Service != fault.Service || e.Phase != p2pnode.PhaseActed {
			continue
		}
		if incident == "" {
			incident = e.Incident
		}
		if e.Incident == incident && e.Node != fault.Target {
			holders[e.Node] = true
		}
		if len(holders) == 3 {
			return e.At.Sub(fault.At), true
		}
	}
	return 0, false
}

// end stops every container in order: each ends with exit code 0 within the time
// that docker stop gives, and leaves no process.
func (f *Fleet) end() {
	for _, b := range f.boxes {
		b.stopLooking()
		b.down()
	}
	done := make(chan string)
	for _, b := range f.boxes {
		go func() {
			began := time.Now()
			_, err := docker("stop", b.container)
			code, _ := docker("inspect", "-f", "{{.State.ExitCode}}", b.container)
			switch took := time.Since(began); {
			case err != nil:
				done <- err.Error()
			case code != "0":
				done <- fmt.Sprintf("%s: docker stop ended it with exit code %s after %v", b.Name, code, took)
			default:
				done <- ""
			}
		}()
	}
	for range f.boxes {
		if text := <-done; text != "" {
			f.violation("%s", text)
		}
	}
}
