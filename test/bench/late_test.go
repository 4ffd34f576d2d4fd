package bench

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/overlay/papers"
	"p2pnode/store"
	"p2pnode/test/bin"
	"p2pnode/test/host"
	"p2pnode/test/score"
)

const (
	manyReports = 100_000
	openOnes    = 20 // incidents that nobody has ended
)

// fill gives the store of a host that is down so many reports of its own: two of
// each incident, but for some that are open.
func fill(b *testing.B, dir string) {
	b.Helper()
	key, err := p2pnode.LoadKey(filepath.Join(dir, "node.key"))
	if err != nil {
		b.Fatal(err)
	}
	cluster, err := papers.Load(dir, key)
	if err != nil {
		b.Fatal(err)
	}
	s, err := store.New(store.Config{
		Path: filepath.Join(dir, "store.db"), Key: key, Cluster: cluster.ID(), SealTo: cluster.Reader,
		Chain: func() [][]byte { return cluster.Chain },
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	var work, running sync.WaitGroup
	running.Go(func() {
		if err := s.Run(ctx); err != nil {
			b.Error(err)
		}
	})
	<-s.Ready()
	self, began := p2pnode.PeerID(key.Public().(ed25519.PublicKey)).String(), time.Now().Add(-6*24*time.Hour)
	numbers := make(chan int)
	for range 512 { // the store writes what waits together
		work.Go(func() {
			for n := range numbers {
				if _, err := s.Put(ctx, oneOf(self, began, n)); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for n := range manyReports {
		numbers <- n
	}
	close(numbers)
	work.Wait()
	stop()
	running.Wait()
}

// oneOf is the n-th report.
func oneOf(self string, began time.Time, n int) p2pnode.Report {
	const each = manyReports / openOnes
	service := fmt.Sprint("web", n/2%500)
	r := p2pnode.Report{
		Incident: p2pnode.IncidentID(self, service, fmt.Sprint("7-", n/2)), Node: self, Service: service, Class: p2pnode.ClassSignalled,
		Kind: p2pnode.KindService, Old: fmt.Sprint("7-", n/2), At: began.Add(time.Duration(n) * 5 * time.Second), Phase: p2pnode.PhaseObserved,
		Observed: "killed by SIGKILL", Excerpt: &p2pnode.Excerpt{Lines: []string{strings.Repeat("a line of a log ", 12)}},
	}
	if n%2 == 0 {
		return r
	}
	r.At, r.Excerpt, r.Phase = r.At.Add(-4*time.Second), nil, p2pnode.PhaseVerified
	if n%each == each-1 {
		r.Phase = p2pnode.PhaseObserved
	}
	return r
}

// damage flips a byte in n reports of a store's file, picked by chance.
func damage(b *testing.B, path string, n int) {
	b.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	var at []int
	for i := 0; ; {
		next := bytes.Index(raw[i:], []byte("p2r1"))
		if next < 0 {
			break
		}
		at, i = append(at, i+next), i+next+4
	}
	if len(at) < manyReports {
		b.Fatalf("%d reports found in the file", len(at))
	}
	for _, i := range rand.Perm(len(at))[:n] {
		raw[at[i]+100] ^= 0x10
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		b.Fatal(err)
	}
}

// metric is a number that the host at that metrics port tells of itself.
func metric(port int, name string) (n int) {
	for line := range strings.Lines(host.Get(fmt.Sprintf("http://127.0.0.1:%d/metrics", port))) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			var f float64
			fmt.Sscan(rest, &f)
			n = int(f)
		}
	}
	return n
}

func held(port int) int { return metric(port, "p2pnode_store_reports") }

// readable reports whether the last words in some incident can be read.
func readable(d p2pnode.IncidentsDoc) bool {
	return slices.ContainsFunc(d.Incidents, func(i p2pnode.Incident) bool { return i.Excerpt != nil && len(i.Excerpt.Lines) > 0 })
}

// anonymousOf is the memory of pid that is no file's, in MB.
func anonymousOf(pid int) float64 {
	_, anon := memory(pid)
	return anon
}

// BenchmarkLateManager: a host joins a cluster with 100,000 reports and is promoted:
// what it sees of them, and when it has all. Then it loses some to flipped bits in
// its file and gets them back. Budgets: 2 s, 5 min, 30 s, +20 MB.
func BenchmarkLateManager(b *testing.B) {
	binary := bin.P2pnode(b)
	for b.Loop() {
		f := host.NewFleet(b, binary)
		old := five(b, f, []string{"old"}, "")[0]
		old.Gone()
		fill(b, old.Dir)
		old.Start(loopback...)
		f.Must(30*time.Second, "old is back", func() bool { return old.Sees("old") })
		var s p2pnode.StatusDoc
		old.JSON(&s, "status")

		late, port := f.Add("late").Configure("services: {}\n"), freePort(b)
		args := append(loopback[:len(loopback):len(loopback)], "--metrics", fmt.Sprintf("127.0.0.1:%d", port))
		began := time.Now()
		late.Start(append(args, "--join", s.Node.Listen[0])...)
		joined := poll(b, began, 20*time.Second, "late is a member", func() bool { _, n := self(late); return n == 2 })
		empty := anonymousOf(late.Role("node"))
		var open, listed int
		view := poll(b, began, 60*time.Second, "late lists what is open", func() bool {
			var d p2pnode.IncidentsDoc
			if !late.JSON(&d, "incidents", "ls") {
				return false
			}
			open, listed = 0, len(d.Incidents)
			for _, i := range d.Incidents {
				if i.State == p2pnode.IncidentOpen {
					open++
				}
			}
			return open >= openOnes
		})
		all := poll(b, began, 5*time.Minute, "late has all", func() bool { return held(port) >= manyReports })
		old.OK("promote", "late")
		f.Must(20*time.Second, "late reads what is sealed", func() bool {
			var d p2pnode.IncidentsDoc
			return late.JSON(&d, "incidents", "ls") && readable(d)
		})
		time.Sleep(75 * time.Second) // the store gives back once a minute what it took
		more := anonymousOf(late.Role("node")) - empty

		late.Gone()
		const spoiled = 20
		damage(b, filepath.Join(late.Dir, "store.db"), spoiled)
		began = time.Now()
		late.Start(args...)
		healed := poll(b, began, 2*time.Minute, "late has all again", func() bool { return held(port) >= manyReports })
		seen := metric(port, "p2pnode_store_damaged_reports_total")
		if seen < spoiled {
			b.Errorf("%d damaged reports were noticed, %d were spoiled", seen, spoiled)
		}
		b.ReportMetric(view.Seconds(), "s-to-first-view")
		b.ReportMetric(all.Seconds(), "s-to-all")
		b.ReportMetric(healed.Seconds(), "s-to-healed")
		score.Record(b, score.Figure{
			Row: "32", How: "real processes", N: 1,
			Text:   fmt.Sprintf("a host that starts and joins lists %d incidents and all %d open ones after %s (a member after %s), holds all after %s, +%.1f MB anonymous", listed, open, score.Millis(view), score.Millis(joined), score.Millis(all), more),
			Chance: fmt.Sprintf("%d reports", manyReports), Where: "two hosts on loopback", Kept: view-joined <= 2*time.Second && all <= 5*time.Minute && more <= 20,
		})
		score.Record(b, score.Figure{
			Row: "32", How: "real processes, then bits flipped in its file", N: 1, Text: fmt.Sprintf("damaged reports back from a peer %s after the start", score.Millis(healed)),
			Chance: fmt.Sprintf("a bit flipped in each of %d of %d reports, %d noticed", spoiled, manyReports, seen), Where: "two hosts on loopback", Kept: healed <= 30*time.Second,
		})
	}
}
