package history

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"p2pnode"
)

// story builds a history line by line; every line is a millisecond later.
type story struct {
	at    time.Time
	lines []p2pnode.HistoryEvent
}

func (s *story) add(e p2pnode.HistoryEvent) *story {
	if s.at.IsZero() {
		s.at = time.Unix(1_000_000, 0)
	}
	s.at = s.at.Add(time.Millisecond)
	e.At = s.at
	s.lines = append(s.lines, e)
	return s
}

func (s *story) fault(node, service string, class p2pnode.Class) *story {
	return s.add(p2pnode.HistoryEvent{Proc: Harness, Event: p2pnode.HistFault, Target: node, Service: service, Class: class})
}

func (s *story) exec(node, service string, fact p2pnode.HistoryFact, old, new string) *story {
	e := p2pnode.HistoryEvent{Node: node, Proc: "exec", Event: fact, Service: service, Old: old, New: new}
	if fact == p2pnode.HistStarted && old != "" {
		e.By = p2pnode.By{Kind: p2pnode.ByAgent, Node: node}
	}
	return s.add(e)
}

func (s *story) report(holder, id, node, service, old string, phase p2pnode.Phase) *story {
	return s.add(p2pnode.HistoryEvent{
		Node: holder, Proc: "node", Event: p2pnode.HistReport, Report: id, Target: node, Service: service, Old: old, Phase: phase,
		Incident: "i-" + node + service + old,
	})
}

// everywhere stores a report on both nodes.
func (s *story) everywhere(id, node, service, old string, phase p2pnode.Phase) *story {
	return s.report("a", id, node, service, old, phase).report("b", id, node, service, old, phase)
}

// again breaks web once more and repairs it in all but the report.
func (s *story) again() *story {
	return s.fault("a", "web", p2pnode.ClassSignalled).exec("a", "web", p2pnode.HistEnded, "1-2", "").
		exec("a", "web", p2pnode.HistLooked, "1-2", "").exec("a", "web", p2pnode.HistStarted, "1-2", "1-3")
}

func (s *story) verdict(node, target string, v p2pnode.Verdict) *story {
	return s.add(p2pnode.HistoryEvent{Node: node, Proc: "node", Event: p2pnode.HistVerdict, Target: target, Verdict: v})
}

func (s *story) hop(node, agent string, hop int) *story {
	return s.add(p2pnode.HistoryEvent{Node: node, Proc: "node", Event: p2pnode.HistHop, Agent: agent, Hop: hop, Incident: "i-aweb1-1"})
}

func (s *story) life(node, life string) *story {
	return s.add(p2pnode.HistoryEvent{Node: node, Proc: "node", Event: p2pnode.HistLife, New: life})
}

func (s *story) view(node string, view ...string) *story {
	return s.add(p2pnode.HistoryEvent{Node: node, Proc: "node", Event: p2pnode.HistView, View: view})
}

// repaired is the story as it should be: a service is killed and comes back.
func repaired() *story {
	return new(story).
		life("a", "1-aa").life("b", "1-bb").
		exec("a", "web", p2pnode.HistStarted, "", "1-1").
		view("a", "a=alive", "b=alive").
		fault("a", "web", p2pnode.ClassSignalled).
		exec("a", "web", p2pnode.HistEnded, "1-1", "").
		exec("a", "web", p2pnode.HistLooked, "1-1", "").
		exec("a", "web", p2pnode.HistStarted, "1-1", "1-2").
		everywhere("A/e/1", "a", "web", "1-1", p2pnode.PhaseActed).
		view("b", "a=alive", "b=alive")
}

func TestAGoodStoryBreaksNothing(t *testing.T) {
	if v := Check(repaired().lines, Options{EndView: true}); len(v) != 0 {
		t.Fatalf("%v", v)
	}
}

// Each planted lie is caught, by the rule that it breaks and by no other.
func TestEveryRuleCatchesItsLie(t *testing.T) {
	cases := []struct {
		rule string
		s    *story
	}{
		{"one-copy", repaired().exec("a", "web", p2pnode.HistLooked, "1-2", "").exec("a", "web", p2pnode.HistStarted, "1-2", "1-3")},
		{"one-copy", repaired().exec("a", "web", p2pnode.HistAdopted, "1-2", "").exec("a", "web", p2pnode.HistLooked, "1-2", "").
			exec("a", "web", p2pnode.HistStarted, "1-2", "1-3")},
		{"looked-before-acting", repaired().exec("a", "web", p2pnode.HistEnded, "1-2", "").exec("a", "web", p2pnode.HistStarted, "1-2", "1-3")},
		{"looked-before-acting", repaired().exec("a", "web", p2pnode.HistEnded, "1-2", "").exec("a", "web", p2pnode.HistLooked, "1-1", "").
			exec("a", "web", p2pnode.HistStarted, "1-2", "1-3")},
		{"incarnations-rise", repaired().exec("a", "web", p2pnode.HistEnded, "1-2", "").exec("a", "web", p2pnode.HistLooked, "1-2", "").
			exec("a", "web", p2pnode.HistStarted, "1-2", "1-2")},
		{"incarnations-rise", repaired().life("a", "2-ab").life("a", "2-cd")},
		{"healthy-left-alone", repaired().exec("b", "db", p2pnode.HistKilled, "9-1", "")},
		{"faults-reported", repaired().fault("b", "@node", p2pnode.ClassProcessDead)},
		{"faults-reported", repaired().again()}, // the first report is not the second failure's
		{"reports-have-faults", repaired().everywhere("B/e/1", "b", "db", "4-1", p2pnode.PhaseActed)},
		{"reports-have-faults", repaired().everywhere("A/e/2", "a", "web", "1-2", p2pnode.PhaseActed)}, // 1-2 was never hit
		{"reports-are-unique", repaired().report("b", "A/e/1", "a", "web", "1-1", p2pnode.PhaseFailed)},
		{"stores-agree", repaired().report("a", "A/e/2", "a", "web", "1-1", p2pnode.PhaseVerified)},
		{"one-view", repaired().view("b", "a=unreachable", "b=alive")},
		{"one-view", repaired().view("b", "b=alive")},
		{"healthy-left-alone", repaired().exec("a", "web", p2pnode.HistKilled, "1-2", "")},
		{"healthy-not-accused", repaired().verdict("b", "c", p2pnode.Unreachable)},
		{"claims-have-verdicts", repaired().verdict("b", "a", p2pnode.Doubtful).
			add(p2pnode.HistoryEvent{Node: "b", Event: p2pnode.HistClaimed, Target: "a", Agent: "x", Incident: "i-aweb1-1"})},
		{"agents-once", repaired().hop("a", "x", 1).hop("b", "x", 2).hop("b", "x", 2)},
		{"agents-once", repaired().wander(65)},
		{"missions-told", repaired().add(p2pnode.HistoryEvent{Node: "b", Event: p2pnode.HistClaimed, Target: "a", Incident: "i-other", Agent: "x"})},
		{"within-budget", loop(21)},
		{"brake-holds", repaired().add(p2pnode.HistoryEvent{Node: "a", Event: p2pnode.HistBrake, Reason: "on"}).
			add(p2pnode.HistoryEvent{Node: "a", Event: p2pnode.HistVerdict, Target: "c", Verdict: p2pnode.Unreachable}).
			add(p2pnode.HistoryEvent{Node: "a", Event: p2pnode.HistClaimed, Target: "c", Agent: "x", Attempt: 1, Incident: "i-aweb1-1"})},
		{"actor-is-named", repaired().exec("a", "web", p2pnode.HistEnded, "1-2", "").exec("a", "web", p2pnode.HistLooked, "1-2", "").
			add(p2pnode.HistoryEvent{Node: "a", Event: p2pnode.HistStarted, Service: "web", Old: "1-2", New: "1-3"})},
	}
	for _, c := range cases {
		got := Check(c.s.lines, Options{EndView: true})
		if len(got) != 1 || got[0].Rule != c.rule {
			t.Errorf("planted a break of %s, the checker says %v", c.rule, got)
		}
	}
}

// An agent may act on a verdict before its line is written, by as long as that takes.
func TestTheLineOfAVerdictMayComeLate(t *testing.T) {
	for late, want := range map[time.Duration]int{time.Millisecond: 0, 30 * time.Millisecond: 1} {
		s := repaired().verdict("b", "a", p2pnode.Alive)
		claim := p2pnode.HistoryEvent{At: s.lines[len(s.lines)-1].At.Add(time.Second), Node: "b", Event: p2pnode.HistClaimed, Target: "a", Agent: "x", Incident: "i-aweb1-1"}
		s.lines = append(s.lines, claim, p2pnode.HistoryEvent{At: claim.At.Add(late), Node: "b", Event: p2pnode.HistVerdict, Target: "a", Verdict: p2pnode.ProcessDead})
		broken := slices.DeleteFunc(Check(s.lines, Options{}), func(v Violation) bool { return v.Rule != "claims-have-verdicts" })
		if len(broken) != want {
			t.Errorf("%v late: %v", late, broken)
		}
	}
}

// wander has an agent make n hops for one errand.
func (s *story) wander(n int) *story {
	for i := range n {
		s.hop([]string{"a", "b"}[i%2], "x", i+1)
	}
	return s
}

// loop restarts a service n times, each time for a reason and told.
func loop(n int) *story {
	s := repaired()
	for i := 2; i <= n; i++ {
		old, next := fmt.Sprintf("1-%d", i), fmt.Sprintf("1-%d", i+1)
		s.fault("a", "web", p2pnode.ClassSignalled).exec("a", "web", p2pnode.HistEnded, old, "").
			exec("a", "web", p2pnode.HistLooked, old, "").exec("a", "web", p2pnode.HistStarted, old, next).
			everywhere("A/e/"+next, "a", "web", old, p2pnode.PhaseActed)
	}
	return s
}

// What breaks for good is told apart from what may still come to rest.
func TestOnlySomeRulesMaySettle(t *testing.T) {
	late := Check(repaired().view("b", "a=doubtful", "b=alive").lines, Options{EndView: true})
	if len(late) != 1 || !MaySettle(late) {
		t.Errorf("%v: a view may still change", late)
	}
	twice := Check(repaired().exec("a", "web", p2pnode.HistLooked, "1-2", "").exec("a", "web", p2pnode.HistStarted, "1-2", "1-3").lines, Options{})
	if len(twice) != 1 || MaySettle(twice) {
		t.Errorf("%v: a second copy stays one", twice)
	}
}

// A history that goes on after the fleet had come to rest is judged as of then.
func TestTheEndMayBeBeforeTheLastLine(t *testing.T) {
	s := repaired()
	rest := s.at
	s.view("b", "a=left", "b=alive")
	if v := Check(s.lines, Options{EndView: true, At: rest}); len(v) != 0 {
		t.Errorf("%v", v)
	}
	if v := Check(s.lines, Options{EndView: true}); len(v) != 1 {
		t.Errorf("%v: want the false view at the end", v)
	}
}

// A cut breaks nothing on a host: it accounts for what others believe, and for no
// act.
func TestACutExplainsNoAct(t *testing.T) {
	cut := p2pnode.HistoryEvent{Proc: Harness, Event: p2pnode.HistFault, Target: "b", Class: p2pnode.ClassUnreachable, Reason: Cut}
	s := repaired().add(cut).verdict("a", "b", p2pnode.Unreachable)
	if v := Check(s.lines, Options{EndView: true}); len(v) != 0 {
		t.Errorf("%v", v)
	}
	s.exec("b", "db", p2pnode.HistKilled, "9-1", "")
	if v := Check(s.lines, Options{EndView: true}); len(v) != 1 || v[0].Rule != "healthy-left-alone" {
		t.Errorf("%v: want healthy-left-alone", v)
	}
}

func TestNodesThatAreGoneOweNothing(t *testing.T) {
	s := repaired().fault("b", "", p2pnode.ClassUnreachable).fault("b", "@node", p2pnode.ClassProcessDead).view("a", "a=alive", "b=unreachable")
	if v := Check(s.lines, Options{EndView: true, Gone: []string{"b"}}); len(v) != 0 {
		t.Fatalf("%v", v)
	}
}

func TestReadSkipsATornTailOnly(t *testing.T) {
	good := `{"at":"2026-01-02T03:04:05Z","node":"a","event":"life","new":"1-1"}` + "\n"
	if got, err := Read(strings.NewReader(good + `{"at":"2026`)); err != nil || len(got) != 1 {
		t.Fatalf("%d lines, %v", len(got), err)
	}
	if _, err := Read(strings.NewReader("rubbish\n" + good)); err == nil {
		t.Fatal("a broken line in the middle went unnoticed")
	}
}

func TestReadFilesMergesByTime(t *testing.T) {
	dir := t.TempDir()
	for i, at := range []string{"05", "04"} {
		line := fmt.Sprintf(`{"at":"2026-01-02T03:04:%sZ","node":"n%d","event":"life"}`+"\n", at, i)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("n%d.jsonl", i)), []byte(line), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := ReadFiles(filepath.Join(dir, "*.jsonl"))
	if err != nil || len(got) != 2 || got[0].Node != "n1" {
		t.Fatalf("%v, %v", got, err)
	}
	if _, err := ReadFiles(filepath.Join(dir, "nothing*")); err == nil {
		t.Fatal("no files were taken as a good history")
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"node":"a","event":"started"}` + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		events, _ := Read(strings.NewReader(string(b)))
		Check(events, Options{EndView: true})
	})
}
