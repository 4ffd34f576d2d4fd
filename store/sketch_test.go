package store

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"pgregory.net/rapid"

	"p2pnode"
)

// drawReport is one of few reports, so that they meet in incidents and things.
func drawReport(t *rapid.T) (p2pnode.Report, line) {
	l := line{peer.ID(rapid.SampledFrom([]string{"A", "B", "C"}).Draw(t, "origin")), "e"}
	service := rapid.SampledFrom([]string{"", "web", "db"}).Draw(t, "service")
	r := p2pnode.Report{
		Seq: rapid.Uint64Range(1, 40).Draw(t, "seq"), Node: rapid.SampledFrom([]string{"N", "M"}).Draw(t, "node"), Service: service,
		Phase: rapid.SampledFrom(append(phases[1:len(phases):len(phases)], "later")).Draw(t, "phase"),
		Held:  rapid.SampledFrom([]p2pnode.Held{"", p2pnode.HeldObserve, p2pnode.HeldBudget}).Draw(t, "held"),
	}
	// What a report says follows from its identity: the same one is the same.
	r.At = time.Unix(1000+int64(r.Seq%7), 0)
	r.Incident = fmt.Sprint(r.Node, r.Service, r.Seq%5)
	if r.Phase == p2pnode.PhaseActed && r.Seq%2 == 0 {
		r.RecoveredAt = r.At
	}
	return r, l
}

func shelfOf(reports map[place]p2pnode.Report) *shelf {
	sh := newShelf()
	for p, r := range reports {
		k := sketchOf(r)
		k.size, k.line = 100+uint32(r.Seq), sh.number(p.l)
		sh.add([]sketch{k})
	}
	return sh
}

func drawReports(t *rapid.T, what string) map[place]p2pnode.Report {
	out := map[place]p2pnode.Report{}
	for range rapid.IntRange(0, 40).Draw(t, what) {
		r, l := drawReport(t)
		if _, twice := out[place{l, r.Seq}]; !twice {
			out[place{l, r.Seq}] = r
		}
	}
	return out
}

// In whatever order sketches come and go, the shelf is sorted and knows what is
// open.
func TestShelf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		reports := drawReports(t, "reports")
		sh := shelfOf(reports)
		for p := range reports {
			if rapid.IntRange(0, 3).Draw(t, "drop") == 0 {
				sh.drop(setOf([]place{p}))
				delete(reports, p)
			}
		}
		if len(sh.list) != len(reports) || !slices.IsSortedFunc(sh.list, sh.compare) {
			t.Fatalf("%d sketches of %d reports, sorted %v", len(sh.list), len(reports), slices.IsSortedFunc(sh.list, sh.compare))
		}
		size := int64(0)
		for p := range reports {
			size += 100 + int64(p.seq)
		}
		if sh.bytes != size {
			t.Fatalf("%d bytes, want %d", sh.bytes, size)
		}
		open := numbers(sh.open)
		sh.restateAll()
		if again := numbers(sh.open); !reflect.DeepEqual(open, again) {
			t.Fatalf("open %v, counted anew %v", open, again)
		}
	})
}

func numbers(m map[uint64]struct{}) (out []uint64) {
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func TestStories(t *testing.T) {
	const observed, refused, acted, verified, failed = 1, 2, 3, 4, 5
	for _, c := range []struct {
		name string
		list []sketch
		open bool
	}{
		{"seen", []sketch{{phase: observed}}, true},
		{"only watched", []sketch{{phase: observed, flags: flagWatched}}, false},
		{"refused by a budget", []sketch{{phase: observed, flags: flagWatched}, {phase: refused}}, true},
		{"refused on purpose", []sketch{{phase: observed}, {phase: refused, flags: flagWatched}}, false},
		{"on its way", []sketch{{phase: observed}, {phase: acted}}, true},
		{"done", []sketch{{phase: acted, flags: flagRecovered}}, false},
		{"verified first", []sketch{{phase: verified}, {phase: acted}}, false},
		{"failed", []sketch{{phase: acted, at: 1, flags: flagRecovered}, {phase: failed, at: 2}}, false},
		{"failed, then tried", []sketch{{phase: failed, at: 1}, {phase: acted, at: 2}}, true},
		{"of a later version", []sketch{{phase: 0}}, true},
	} {
		sh := newShelf()
		n := sh.number(line{"A", "e"})
		for i := range c.list {
			c.list[i].line, c.list[i].seq, c.list[i].incident = n, uint64(i+1), 7
		}
		sh.add(c.list)
		if open := len(sh.open) == 1; open != c.open {
			t.Errorf("%s: open %v", c.name, open)
		}
	}
}

func TestNewestFirst(t *testing.T) {
	sh := newShelf()
	n := sh.number(line{"A", "e"})
	for i := range 6 {
		k := sketch{at: int64(i), seq: uint64(i + 1), incident: uint64(i), line: n, phase: phaseVerified}
		if i == 2 {
			k.phase = 1
		}
		sh.add([]sketch{k})
	}
	var got []int64
	for k := range sh.newestFirst() {
		got = append(got, k.at)
	}
	if want := []int64{2, 5, 4, 3, 1, 0}; !slices.Equal(got, want) {
		t.Errorf("order %v, want the open one and then %v", got, want)
	}
}

func TestRecent(t *testing.T) {
	sh := newShelf()
	n := sh.number(line{"A", "e"})
	for i := range 10 {
		phase := uint8(phaseVerified)
		if i == 0 {
			phase = 1 // the oldest is open
		}
		sh.add([]sketch{
			{at: int64(2 * i), seq: uint64(2*i + 1), incident: uint64(i), line: n, phase: phase},
			{at: int64(2*i + 1), seq: uint64(2*i + 2), incident: uint64(i), line: n, phase: phase},
		})
	}
	places, more := sh.recent(3)
	var got []uint64
	for _, p := range places {
		got = append(got, p.seq)
	}
	if want := []uint64{1, 2, 15, 16, 17, 18, 19, 20}; !slices.Equal(got, want) || more != 6 {
		t.Errorf("recent %v and %d more, want %v and 6", got, more, want)
	}
	if n := sh.since(time.Unix(0, 16)); n != 2 {
		t.Errorf("%d since, want 2", n)
	}
}

// kept is what stays of a set.
func kept(all map[place]p2pnode.Report, now time.Time, keep time.Duration, most int64) map[place]p2pnode.Report {
	out := map[place]p2pnode.Report{}
	maps.Copy(out, all)
	for _, p := range shelfOf(all).victims(now, keep, most) {
		delete(out, p)
	}
	return out
}

// Age: in whatever order stores sweep and meet, they end with the same set.
func TestSweepAndMergeCommute(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawReports(t, "a"), drawReports(t, "b")
		now := time.Unix(1000+rapid.Int64Range(0, 10).Draw(t, "now"), 0)
		union := map[place]p2pnode.Report{}
		for _, m := range []map[place]p2pnode.Report{b, a} {
			maps.Copy(union, m)
		}
		for p := range union {
			if _, ok := a[p]; !ok {
				union[p] = b[p]
			} else {
				b[p] = a[p] // one identity is one report
			}
		}
		most := int64(1 << 30)
		met := kept(a, now, 3*time.Second, most)
		maps.Copy(met, kept(b, now, 3*time.Second, most))
		met = kept(met, now, 3*time.Second, most)
		want := kept(union, now, 3*time.Second, most)
		// Nothing stays in one that the other gave up for its age or size, but what an
		// early sweep could not know to be pinned.
		for p := range met {
			if _, ok := want[p]; !ok {
				t.Fatalf("%v stays only where it was swept early", p)
			}
		}
	})
}

func TestVictims(t *testing.T) {
	at := func(n int) time.Time { return time.Unix(int64(n), 0) }
	l := line{"A", "e"}
	add := func(sh *shelf, l line, n int, node, service, incident string, phase p2pnode.Phase) {
		k := sketchOf(p2pnode.Report{Seq: uint64(n), At: at(n), Node: node, Service: service, Incident: incident, Phase: phase})
		k.line, k.size = sh.number(l), 100
		sh.add([]sketch{k})
	}
	sh := newShelf()
	for n := 1; n <= 60; n++ {
		add(sh, l, 2*n, "N", "web", fmt.Sprint("i", n), p2pnode.PhaseActed)
		add(sh, l, 2*n+1, "N", "web", fmt.Sprint("i", n), p2pnode.PhaseVerified)
	}
	goes := sh.victims(at(1e6), time.Hour, 1<<30)
	if len(goes) != 2*(60-pinnedActs) {
		t.Errorf("%d go, want all but the %d newest repairs with their endings", len(goes), pinnedActs)
	}
	for _, p := range goes {
		if p.seq > 2*(60-pinnedActs)+1 {
			t.Errorf("%d goes", p.seq)
		}
	}

	// A flood of one origin pushes out its own reports only.
	sh = newShelf()
	for n := 1; n <= 1000; n++ {
		add(sh, line{"flood", "e"}, n, fmt.Sprint("N", n), "", fmt.Sprint("f", n), p2pnode.PhaseObserved)
	}
	for n := 1; n <= 100; n++ {
		add(sh, line{"quiet", "e"}, n, "Q", fmt.Sprint("s", n), fmt.Sprint("q", n), p2pnode.PhaseObserved)
	}
	byOrigin := map[peer.ID]int{}
	for _, p := range sh.victims(at(0), time.Hour, 50_000) {
		byOrigin[p.l.origin]++
	}
	if byOrigin["quiet"] != 0 || byOrigin["flood"] != 600 {
		t.Errorf("victims %v, want 600 of the flood", byOrigin)
	}
}
