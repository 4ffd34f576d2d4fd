package chaos

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/bin"
	"p2pnode/test/score"
)

func TestMain(m *testing.M) {
	if code, is := Janitor(); is {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// length of the chaos, and its seed: DURATION and SEED of `make soak`.
func length(t *testing.T) time.Duration {
	text := os.Getenv("DURATION")
	if text == "" {
		return 2 * time.Minute
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("DURATION is %q: %v", text, err)
	}
	return d
}

func seed(t *testing.T) uint64 {
	text := os.Getenv("SEED")
	if text == "" {
		return rand.Uint64N(1 << 32)
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("SEED is %q: %v", text, err)
	}
	return n
}

// Five containers, and everything that can be killed, stopped, cut off and filled
// up, at random: nothing that is promised breaks.
func TestChaos(t *testing.T) {
	seed, length := seed(t), length(t)
	t.Logf("again with: SEED=%d DURATION=%v", seed, length)
	f := New(t, bin.P2pnode(t))
	f.Start(len(names))
	plan := Plan(seed, len(f.boxes), len(services), length)
	meter, began := f.meter(), time.Now()
	f.play(plan)
	f.settle()
	meter.stop()
	for _, text := range meter.judge(began, time.Now(), t.Logf) {
		f.violation("%s", text)
	}
	events := f.judge(settleTime)
	worst := f.judgeAvailability()
	f.end()
	f.figures(plan, worst)
	f.spreading(events)
	f.t.Logf("history: %d lines judged; %d violations", len(events), len(f.violations))
	for _, v := range f.violations {
		t.Error(v)
	}
}

// The same seed gives the same faults; all kinds come; nothing is asked of exec
// that its restart policy refuses.
func TestPlan(t *testing.T) {
	one := Plan(7, 5, 3, 10*time.Minute)
	if !slices.Equal(one, Plan(7, 5, 3, 10*time.Minute)) {
		t.Fatal("the same seed gives other faults")
	}
	if slices.Equal(one, Plan(8, 5, 3, 10*time.Minute)) {
		t.Fatal("another seed gives the same faults")
	}
	made := map[Kind]int{}
	for _, f := range one {
		made[f.Kind]++
	}
	for _, m := range mix {
		if made[m.kind] == 0 {
			t.Errorf("no fault of kind %s in 10 min: %v", m.kind, made)
		}
	}
	if made[KillFleet] == 0 || len(one) < 150 {
		t.Errorf("%d faults in 10 min: %v", len(one), made)
	}
	for seed := range uint64(50) {
		kills := map[target][]time.Duration{}
		for _, f := range Plan(seed, 5, 3, 30*time.Minute) {
			if f.Kind != KillService && f.Kind != FillDisk {
				continue
			}
			k := target{f.Box, services[f.Service]}
			kills[k] = append(kills[k], f.At)
			if n := len(kills[k]); n > 4 && f.At-kills[k][n-5] < time.Minute {
				t.Fatalf("seed %d: %v is killed five times in a minute", seed, k)
			}
		}
	}
}

// The acted report of a repair, and the last words of what died, are readable on
// three other nodes within 2 s.
func TestStoryOnThreeOthers(t *testing.T) {
	f := New(t, bin.P2pnode(t))
	f.Start(len(names))
	var all score.Samples
	for i, victim := range f.boxes {
		began := time.Now()
		victim.killService(KillService, services[0])
		readers := slices.Concat(f.boxes[i+1:], f.boxes[:i])[:3]
		f.eventually(10*time.Second, "three others read what "+victim.Name+" reported", func() bool {
			return !slices.ContainsFunc(readers, func(b *Box) bool { return !b.reads(victim.Name, services[0], began) })
		})
		all = append(all, time.Since(began))
	}
	score.Record(t, score.Figure{
		Row: "13", How: "acted report with excerpt, readable on 3 other nodes", Text: all.Text("p50", "max"), N: len(all),
		Chance: fmt.Sprintf("%d kills", len(all)), Where: "containers", Kept: all.At(1) <= 2*time.Second,
	})
	if all.At(1) > 2*time.Second {
		t.Errorf("it took %v", all.At(1))
	}
	for _, v := range f.violations {
		t.Error(v)
	}
}

// reads reports whether this node tells of a repair since began, with an excerpt
// that it can read.
func (b *Box) reads(node, service string, began time.Time) bool {
	var d p2pnode.IncidentsDoc
	b.JSON(&d, "incidents", "ls")
	return slices.ContainsFunc(d.Incidents, func(i p2pnode.Incident) bool {
		return i.Node == node && i.Service == service && !i.DetectedAt.Before(began) && !i.RecoveredAt.IsZero() &&
			i.Excerpt != nil && slices.Contains(i.Excerpt.Lines, "last words of "+service+" on "+node)
	})
}
