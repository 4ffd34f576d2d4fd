package store

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/test/score"
)

const (
	largePath = "P2PNODE_TEST_LARGE"
	largeSize = 100_000
)

// makeLarge is a store of a hundred origins with two reports for each incident, some
// of them open, as large as real ones.
func makeLarge(b *testing.B, path string, public []byte) {
	b.Helper()
	o, err := openOrReplace(path, "", nil)
	if err != nil {
		b.Fatal(err)
	}
	seal, err := newSealKey(public)
	if err != nil {
		b.Fatal(err)
	}
	var keep []taken
	began := time.Now().Add(-6 * 24 * time.Hour)
	for n := range largeSize {
		seed := byte(100 + n/2%100)
		r := sample(0)
		r.At = began.Add(time.Duration(n) * 5 * time.Second)
		r.Incident, r.Node, r.Service = p2pnode.IncidentID("n", "web", fmt.Sprint(n/2)), id(seed).String(), fmt.Sprint("web", n%7)
		r.Origin, r.Epoch, r.Seq = id(seed).String(), "epoch", uint64(n/200*2+n%2+1)
		r.Observed, r.Action, r.Result = "the process was killed by SIGKILL", "restarted web", "answers again"
		r.Excerpt = nil
		if n%2 == 1 {
			r.Phase = p2pnode.PhaseVerified
		} else if r.Excerpt = (&p2pnode.Excerpt{Lines: []string{strings.Repeat("a line of a log that is neither short nor long ", 20)}}); n%5000 == 0 {
			r.Phase = p2pnode.PhaseObserved
		}
		if n%5000 == 1 {
			r.Incident = "i-other" + fmt.Sprint(n)
		}
		raw, err := encodeReport(key(seed), r, seal)
		if err != nil {
			b.Fatal(err)
		}
		t, err := newTaken(raw)
		if err != nil {
			b.Fatal(err)
		}
		if keep = append(keep, t); len(keep) == 2000 || n == largeSize-1 {
			if err := o.disk.commit(change{keep: keep}); err != nil {
				b.Fatal(err)
			}
			keep = nil
		}
	}
	if err := o.disk.close(); err != nil {
		b.Fatal(err)
	}
}

// anonymous is this process's memory that is no file's, in MB.
func anonymous(t testing.TB) float64 {
	f, err := os.Open("/proc/self/smaps_rollup")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var kb float64
		if n, _ := fmt.Sscanf(lines.Text(), "Anonymous: %f kB", &kb); n == 1 {
			return kb / 1024
		}
	}
	t.Fatal("no Anonymous in smaps_rollup")
	return 0
}

// TestLargeChild is the process that BenchmarkLarge looks at.
func TestLargeChild(t *testing.T) {
	path := os.Getenv(largePath)
	if path == "" {
		t.Skip("the other half of BenchmarkLarge")
	}
	small, stop := running(t, Config{Path: filepath.Join(t.TempDir(), "small.db"), Key: key(1)})
	must(t, small, 1)
	debug.FreeOSMemory()
	before := anonymous(t)
	stop()
	began := time.Now()
	s, _ := running(t, Config{Path: path, Key: key(1)})
	opened := time.Since(began)
	began = time.Now()
	open, _ := s.Counts(time.Now().Add(-24 * time.Hour))
	counted := time.Since(began)
	began = time.Now()
	list, more := s.Recent(0)
	n := 0
	for range list {
		n++
	}
	listed := time.Since(began)
	began = time.Now()
	all := 0
	for range s.All() {
		all++
	}
	whole := time.Since(began)
	if all != largeSize || open != largeSize/5000 || more == 0 {
		t.Errorf("%d reports, %d open, %d more", all, open, more)
	}
	file(s).relax() // as the store does by itself within a minute
	after := anonymous(t)
	fmt.Printf("measured: opened in %v; status counts in %v; the list of %d reports in %v; all %d verified in %v; anonymous %.1f MB, an empty store %.1f MB, so %+.1f MB\n",
		opened.Round(time.Millisecond), counted.Round(time.Microsecond), n, listed.Round(time.Millisecond), all, whole.Round(time.Millisecond), after, before, after-before)
}

// BenchmarkLarge: what a node with 100,000 reports costs, and how a late manager
// comes by them.
func BenchmarkLarge(b *testing.B) {
	dir := b.TempDir()
	path := filepath.Join(dir, "large.db")
	private, public := readerPair(b)
	makeLarge(b, path, public)
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^TestLargeChild$")
	cmd.Env = append(os.Environ(), largePath+"="+path)
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	b.Logf("%d reports in a file of %d MB\n%s", largeSize, info.Size()>>20, out)
	var more float64
	if _, rest, ok := strings.Cut(string(out), "so +"); ok {
		fmt.Sscanf(rest, "%f", &more)
	}
	if more == 0 {
		b.Error("the other half did not measure its memory")
	}

	old, stopOld := running(b, Config{Path: path, Key: key(1)})
	for b.Loop() {
		late, stop := running(b, Config{Path: filepath.Join(b.TempDir(), "late.db"), Key: key(2)})
		if err := late.SetReaders(private); err != nil {
			b.Fatal(err)
		}
		began, first, questions := time.Now(), time.Duration(0), 0
		bulk := func(ctx context.Context, _ peer.ID, req []byte) ([]byte, error) {
			if questions++; questions == 3 {
				list, _ := late.Recent(20)
				n, open := 0, 0
				for r := range list {
					if n++; r.Phase == p2pnode.PhaseObserved {
						open++
					}
				}
				if first = time.Since(began); open != largeSize/5000 || n < 40 {
					b.Errorf("the first view: %d reports, %d open incidents", n, open)
				}
			}
			return old.HandleBulk(ctx, peer.ID(fmt.Sprint(questions)), req)
		}
		n, err := late.Sync(b.Context(), "", bulk)
		if err != nil || n != largeSize {
			b.Fatalf("%d reports, %v", n, err)
		}
		b.ReportMetric(first.Seconds(), "s-to-first-view")
		all := time.Since(began)
		b.ReportMetric(all.Seconds(), "s-to-all")
		score.Record(b, score.Figure{
			Row: "32", How: "the store alone, 100 origins",
			Text: fmt.Sprintf("first view %s, all of it %s, +%.1f MB anonymous after reading all of it", score.Millis(first), score.Millis(all), more), N: 1,
			Chance: fmt.Sprintf("%d reports, %d incidents open", largeSize, largeSize/5000), Where: "one process and one beside it",
			Kept: first <= 2*time.Second && all <= 5*time.Minute && more <= 20,
		})
		stop()
	}
	stopOld()
}
