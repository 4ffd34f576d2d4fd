// Package planted proves that the judges can see: bugs that are planted in test
// builds (build tag plantedbugs, switched on by P2PNODE_PLANT) must turn them red,
// each for its own reason, and the same judges are green with nothing planted.
package planted

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"p2pnode/test/bin"
	"p2pnode/test/need"
	"p2pnode/test/score"
)

// judge is a test that must turn red with a bug planted, and green without one.
type judge struct {
	pkg, run string
	says     string // its reason, a regular expression: the checker's rule, or the assertion's own words
}

func sim(run, says string) judge    { return judge{"./test/sim", "^" + run + "$", says} }
func netlab(run, says string) judge { return judge{"./test/netlab", "^" + run + "$", says} }
func script(story, says string) judge {
	return judge{"./test/script", "^TestStories$/^" + story + "$", says}
}

func rule(name string) string  { return ": " + name + ": " }        // as the checker prints a broken one
func late(what string) string  { return `not within \S+: ` + what } // as waits in vain are printed
func fails(test string) string { return "--- FAIL: " + test }       // the whole test is about it

// none is where a bug has no judge, and why.
func none(why string) judge { return judge{says: why} }

const (
	noExec  = "exec's code does not run in a bubble"
	oneCore = "only in its core's own table"
)

// bug is one that can be planted, with its judges on each level: whole nodes in a
// bubble, real hosts in namespaces, and one more: real hosts in a script, or the
// package's own core under its event queue.
type bug struct {
	name, what           string
	simulated, real, own judge
}

var bugs = []bug{
	{"report-dropped", "a report is not kept", sim("TestSmallFleet", rule("faults-reported")), netlab("TestOneOfEach", rule("faults-reported")), judge{}},
	{"reports-not-fetched", "nobody asks others for reports", sim("TestSmallFleet", rule("stores-agree")), netlab("TestOneOfEach", rule("stores-agree")), judge{}},
	{"order-ignored", "no node makes agents for a standing order", sim("TestSmallFleet", late("agents on patrol")), netlab("TestOneOfEach", late("an agent on patrol")), judge{}},
	{"boot-repeats", "the next life has the last one's number", sim("TestSmallFleet", rule("incarnations-rise")), netlab("TestOneOfEach", rule("incarnations-rise")), judge{}},
	{"stay-after-ack", "the sender keeps the agent that it has sent", sim("TestSmallFleet", late("each agent is in one place")), none("in those seconds an agent need not walk"), judge{"./agent", "^TestAfterTheAckNothingIsLeft$", fails("TestAfterTheAckNothingIsLeft")}},
	{"brake-off", "an unreachable node is somebody to go to", sim("TestPartitionHeals", rule("brake-holds")), netlab("TestCutInHalves", rule("claims-have-verdicts")), judge{}},
	{"drop-brake", "the brake is never on", sim("TestPartitionHeals", "the brake is off"), netlab("TestCutInHalves", late("the brake is on everywhere")), judge{}},
	{"never-forgiven", "who was unreachable once stays so", sim("TestPartitionHeals", late("one view again")), netlab("TestCutInHalves", late("one view")), judge{}},
	{"forget-to-meet", "neighbours that the failure detector lost stay lost", sim("TestPartitionHeals", late("every failure detector knows all again")), netlab("TestCutInHalves", late("every failure detector knows all again")), judge{}},
	{"one-witness", "one witness of silence is enough, whoever objects", sim("TestOneWitnessIsNone", rule("healthy-not-accused")), netlab("TestOneWireIsNoHost", rule("healthy-not-accused")), judge{}},
	{"act-on-doubt", "a doubt is enough to go", sim("TestOneWitnessIsNone", rule("claims-have-verdicts")), netlab("TestOneWireIsNoHost", rule("claims-have-verdicts")), judge{}},
	{"story-without-end", "nobody tells how a story ended", sim("TestHandsOffANodeProcess", late("the story has an end")), netlab("TestHandsOffANodeProcess", late("the story has an end")), judge{"./agent", "^TestEveryStoryEnds$", fails("TestEveryStoryEnds")}},
	{"claim-without-lapse", "whoever says \"I go\" is believed for ever", sim("TestCarrierDiesOnItsWay", late("somebody else went")), netlab("TestCarrierDiesOnItsWay", late("somebody else went")), judge{"./agent", "^TestCarriersDie$", fails("TestCarriersDie")}},

	{"incarnation-repeats", "a restarted service keeps its incarnation", none(noExec), netlab("TestOneOfEach", rule("incarnations-rise")), script("story1_service_crash", "knows no story of a web")},
	{"act-without-verify", "exec restarts without a look of its own", none(noExec), netlab("TestOneOfEach", rule("looked-before-acting")), script("story1_service_crash", rule("looked-before-acting"))},
	{"noop-recover", "exec says done and does nothing", none(noExec), netlab("TestOneOfEach", late("web of c runs again")), script("story1_service_crash", "not within")},
	{"no-cookie-scan", "a child that hides is not looked for", none(noExec), netlab("TestAHiddenChildIsFound", "children live"), judge{}},
	{"budget-off", "a crash loop is restarted at once, for ever", none(noExec), netlab("TestCrashLoopKeepsItsBudget", rule("within-budget")), judge{"./exec", "^TestCrashLoop", fails("TestCrashLoop")}},

	{"believe-swim", "memberlist's word needs no look", none(oneCore), none("wants a forger with the gossip key"), judge{"./gossip", "TestVerdictTable", `--- FAIL: TestVerdictTable/SWIM_suspicion_alone`}},
	{"refusals-stay", "a host's last refusals outweigh its silence", none(oneCore), none("a last breath cannot be timed"), judge{"./gossip", "^TestVerdictTable$", fails(`TestVerdictTable/\S*they_refused`)}},
	{"handoff-taken-twice", "a handoff that is sent again is taken again", none(oneCore), none("a lost acknowledgement cannot be timed"), judge{"./agent", "^TestHandoffIsTakenOnce$", fails("TestHandoffIsTakenOnce")}},
}

// judges are the test binaries with the bugs in them, built once, and what their
// runs came to.
type judges struct {
	t        *testing.T
	dir      string
	plain    string // the program itself
	binaries map[string]string
	lanes    map[string]chan struct{} // how many of a package run at once
}

// lane bounds what runs side by side: hosts in namespaces mostly wait, a bubble
// takes a whole core.
func newJudges(t *testing.T) *judges {
	j := &judges{t: t, dir: t.TempDir(), plain: bin.Planted(t), binaries: map[string]string{}, lanes: map[string]chan struct{}{}}
	busy, waiting := make(chan struct{}, 1), make(chan struct{}, 4)
	for _, b := range bugs {
		for _, c := range []judge{b.simulated, b.real, b.own} {
			if c.pkg == "" || j.binaries[c.pkg] != "" {
				continue
			}
			j.binaries[c.pkg] = j.build(c.pkg)
			if j.lanes[c.pkg] = busy; c.pkg == "./test/netlab" || c.pkg == "./test/script" {
				j.lanes[c.pkg] = waiting
			}
		}
	}
	return j
}

func (j *judges) build(pkg string) string {
	path := filepath.Join(j.dir, strings.ReplaceAll(strings.TrimPrefix(pkg, "./"), "/", "-")+".test")
	cmd := exec.Command("go", "test", "-c", "-tags=plantedbugs", "-o", path, pkg)
	cmd.Dir = bin.Root(j.t)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		j.t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// trial is a judge's run with one bug planted, "" for none.
type trial struct {
	judge
	plant string
	took  time.Duration
	again bool // the first run was green
	red   bool
	out   string
	err   error
}

// caught: red, and for the reason that it should.
func (r *trial) caught() bool { return r.red && regexp.MustCompile(r.says).MatchString(r.out) }

func (r *trial) String() string {
	text := fmt.Sprintf("%s %s: %s, %.0f s", filepath.Base(r.pkg), strings.Trim(r.run, "^$"), strings.Trim(regexp.MustCompile(r.says).FindString(r.out), ": "), r.took.Seconds())
	if r.again {
		text += ", in a second run"
	}
	return text
}

func (j *judges) try(r *trial, tmp string) {
	j.lanes[r.pkg] <- struct{}{}
	defer func() { <-j.lanes[r.pkg] }()
	began := time.Now()
	cmd := exec.Command(j.binaries[r.pkg], "-test.count=1", "-test.timeout=5m", "-test.v", "-test.run", r.run)
	cmd.Dir = filepath.Join(bin.Root(j.t), r.pkg)
	cmd.Env = append(os.Environ(), "P2PNODE_PLANT="+r.plant, "P2PNODE_BIN="+j.plain, "P2PNODE_SCORE=", "KEEP_HISTORY=", "TMPDIR="+tmp)
	raw, err := cmd.CombinedOutput()
	r.out, r.red, r.took = string(raw), err != nil, time.Since(began)
	if strings.Contains(r.out, "no tests to run") || !strings.Contains(r.out, "=== RUN") {
		r.err = fmt.Errorf("no test %s in %s", r.run, r.pkg)
	}
}

// Every bug that is planted turns its judges red, for the reason that it should;
// with nothing planted the same judges are green. PLANTS names some by comma.
func TestEveryPlantedBugIsCaught(t *testing.T) {
	need.Root(t, "network namespaces")
	j := newJudges(t)
	only := strings.Split(os.Getenv("PLANTS"), ",")
	var all []*trial
	control := map[judge]*trial{} // by package and test
	rows := map[string][]*trial{}
	for _, b := range bugs {
		if only[0] != "" && !slices.Contains(only, b.name) {
			continue
		}
		for _, c := range []judge{b.simulated, b.real, b.own} {
			if c.pkg == "" {
				rows[b.name] = append(rows[b.name], nil)
				continue
			}
			r := &trial{judge: c, plant: b.name}
			all, rows[b.name] = append(all, r), append(rows[b.name], r)
			if key := (judge{pkg: c.pkg, run: c.run}); control[key] == nil {
				control[key] = &trial{judge: c}
				all = append(all, control[key])
			}
		}
	}
	// The long ones first: nobody waits for them alone at the end.
	slices.SortStableFunc(all, func(a, b *trial) int { return longest(b) - longest(a) })
	var runs sync.WaitGroup
	for _, r := range all {
		tmp := t.TempDir()
		runs.Go(func() {
			j.try(r, tmp)
			// A judge of real hosts may miss the moment that a bug needs, such as a death
			// between two messages, where the machine is busy: it looks once more.
			if r.plant != "" && r.err == nil && !r.red {
				r.again = true
				j.try(r, tmp)
			}
		})
	}
	runs.Wait()
	j.judged(rows, control)
}

func longest(r *trial) int {
	return slices.Index([]string{"^TestHandsOffANodeProcess$", "^TestCutInHalves$"}, r.run)
}

// judged fails the test for every bug that went unnoticed and every judge that is
// red without one, and prints the table.
func (j *judges) judged(rows map[string][]*trial, control map[judge]*trial) {
	for key, r := range control {
		if r.err != nil || r.red {
			j.t.Errorf("%s %s is red with nothing planted: %v\n%s", key.pkg, key.run, r.err, tail(r.out))
		}
	}
	table := []string{"bug | what it does | simulation | namespaces | script, or the package's own test"}
	both, caught := 0, 0
	for _, b := range bugs {
		if rows[b.name] == nil {
			continue
		}
		cells := []string{b.name, b.what}
		seen := 0
		for i, r := range rows[b.name] {
			switch {
			case r == nil:
				cells = append(cells, strings.TrimSpace("- "+[]judge{b.simulated, b.real, b.own}[i].says))
			case r.err == nil && r.caught():
				seen |= 1 << i
				cells = append(cells, r.String())
			default:
				cells = append(cells, "MISSED by "+r.run)
				j.t.Errorf("%s went unnoticed by %s %s (red %v, %v), want %q\n%s", b.name, r.pkg, r.run, r.red, r.err, r.says, tail(r.out))
			}
		}
		if seen != 0 {
			caught++
		}
		if seen&3 == 3 {
			both++
		}
		table = append(table, strings.Join(cells, " | "))
	}
	j.t.Logf("planted bugs, and %d judges that are green without one:\n%s", len(control), strings.Join(table, "\n"))
	score.Record(j.t, score.Figure{
		Row: "P", Text: fmt.Sprintf("%d of %d bugs caught, %d of them by simulation and by real hosts", caught, len(rows), both),
		N: len(rows), Chance: fmt.Sprintf("%d judges, all green with nothing planted, red for their own reason", len(control)), Where: "simulation and namespaces", Kept: !j.t.Failed(),
	})
}

func tail(out string) string { return out[max(0, len(out)-1500):] }
