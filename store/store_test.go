package store

import (
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.uber.org/goleak"

	"p2pnode"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func key(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(append(make([]byte, 31), seed))
}

func id(seed byte) peer.ID { return p2pnode.PeerID(key(seed).Public().(ed25519.PublicKey)) }

func readerPair(t testing.TB) (private, public []byte) {
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k.Bytes(), k.PublicKey().Bytes()
}

// started runs a store until the test ends or stop.
func started(t testing.TB, cfg Config) (s *Store, stop func()) {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var once sync.Once
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(stop)
	<-s.Ready()
	return s, stop
}

// running is started where the disk works.
func running(t testing.TB, cfg Config) (s *Store, stop func()) {
	t.Helper()
	s, stop = started(t, cfg)
	if s.Trouble() != "" {
		t.Fatal(s.Trouble())
	}
	return s, stop
}

func config(t testing.TB, seed byte) Config {
	return Config{Path: filepath.Join(t.TempDir(), "store.db"), Key: key(seed)}
}

func sample(n int) p2pnode.Report {
	return p2pnode.Report{
		At: time.Now().Add(time.Duration(n)*time.Second - time.Hour).UTC().Round(0), Phase: p2pnode.PhaseActed, Incident: fmt.Sprintf("i-%d", n), Kind: p2pnode.KindService,
		Node: "N", Service: "web", Class: p2pnode.ClassSignalled, By: p2pnode.By{Kind: p2pnode.ByAgent}, Exit: &p2pnode.Exit{Signal: "SIGKILL"},
		Excerpt: &p2pnode.Excerpt{Lines: []string{"last words", fmt.Sprint(n)}},
	}
}

func must(t testing.TB, s *Store, n int) p2pnode.Report {
	t.Helper()
	r, err := s.Put(t.Context(), sample(n))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func all(s *Store) []p2pnode.Report { return slices.Collect(s.All()) }

func count(s *Store) int { return len(all(s)) }

// identity is the key of a report.
func identity(r p2pnode.Report) string { return fmt.Sprintf("%s/%s/%d", r.Origin, r.Epoch, r.Seq) }

func placeOf(s *Store, r p2pnode.Report) place { return place{line{id1(r), r.Epoch}, r.Seq} }

func id1(r p2pnode.Report) peer.ID {
	p, err := peer.Decode(r.Origin)
	if err != nil {
		panic(err)
	}
	return p
}

// file is the disk under s.
func file(s *Store) *disk {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.disk
}

// eventually waits for what another goroutine does.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in 20 s: %s", what)
		}
	}
}

func TestPutIsThereAfterReopening(t *testing.T) {
	cfg := config(t, 1)
	private, public := readerPair(t)
	cfg.SealTo = public
	var stored []string
	cfg.Stored = func(r p2pnode.Report) { stored = append(stored, identity(r)) }
	s, stop := running(t, cfg)
	changed := s.Changed()
	a, b := must(t, s, 1), must(t, s, 2)
	if a.Seq != 1 || b.Seq != 2 || a.Epoch == "" || a.Origin != id(1).String() {
		t.Errorf("identities %s, %s", identity(a), identity(b))
	}
	select {
	case <-changed:
	default:
		t.Error("nobody was woken")
	}
	stop()
	if want := []string{identity(a), identity(b)}; !reflect.DeepEqual(stored, want) {
		t.Errorf("stored %v, want %v", stored, want)
	}

	s, _ = running(t, cfg)
	list := all(s)
	if len(list) != 2 || list[0].Excerpt == nil || !list[0].Excerpt.Sealed || len(list[0].Excerpt.Lines) != 0 || list[0].Excerpt.Why == "" {
		t.Fatalf("after reopening: %+v", list)
	}
	if err := s.SetReaders(private); err != nil {
		t.Fatal(err)
	}
	got := all(s)[1]
	if !reflect.DeepEqual(got.Excerpt, sample(2).Excerpt) {
		t.Errorf("excerpt %+v", got.Excerpt)
	}
	got.Excerpt = nil
	b.Excerpt = nil
	if !reflect.DeepEqual(got, b) {
		t.Errorf("got  %+v\nwant %+v", got, b)
	}
	if c := must(t, s, 3); c.Seq != 3 || c.Epoch != a.Epoch {
		t.Errorf("next is %s", identity(c))
	}
	if !s.Reported("i-1", p2pnode.PhaseActed) || s.Reported("i-1", p2pnode.PhaseVerified) || s.Reported("i-9", p2pnode.PhaseActed) {
		t.Error("Reported")
	}
	if one := slices.Collect(s.Incident("i-2")); len(one) != 1 || one[0].Incident != "i-2" {
		t.Errorf("incident i-2: %+v", one)
	}
}

func TestPutAfterTheEnd(t *testing.T) {
	s, stop := running(t, config(t, 1))
	must(t, s, 1)
	stop()
	if _, err := s.Put(t.Context(), sample(2)); !errors.Is(err, ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
	all(s)
	if n := s.ix.of(s.self).here.count(); n != 1 {
		t.Error("a closed file counts as a damaged report")
	}
}

// What an agent may come up with is cut, never refused: a report that cannot be
// kept would be tried for ever.
func TestTooLargeIsCut(t *testing.T) {
	cfg := config(t, 1)
	private, public := readerPair(t)
	cfg.SealTo = public
	s, _ := running(t, cfg)
	s.SetReaders(private)
	r := sample(1)
	r.Observed = strings.Repeat("x", maxReport) + "\x1b[2J\xff"
	r.Service = "we\nb" + strings.Repeat("ä", maxName)
	r.Trail = slices.Repeat([]string{strings.Repeat("t", 4*maxName)}, 2*maxTrail)
	r.Exit.Signal = strings.Repeat("S", maxReport)
	r.Excerpt.Lines = []string{"first", strings.Repeat("\x01", 4<<10), "the end"}
	if _, err := s.Put(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	got := all(s)[0]
	if !strings.HasPrefix(got.Observed, "xxx") || len(got.Observed) > maxPhrase || !strings.HasPrefix(got.Service, "we b") || len(got.Service) > maxName || len(got.Trail) != maxTrail {
		t.Errorf("cut to %+v", got)
	}
	if e := got.Excerpt; e == nil || !e.Truncated || len(e.Lines) == 0 || e.Lines[len(e.Lines)-1] != "the end" {
		t.Errorf("excerpt cut to %+v", e)
	}
	r.Excerpt = &p2pnode.Excerpt{Lines: []string{strings.Repeat("y", 5<<10) + "end"}}
	if e := fitExcerpt(p2pnode.Excerpt{Lines: []string{strings.Repeat("\x02", 8<<10) + "end"}}); !e.Truncated || !strings.HasSuffix(e.Lines[0], "end") {
		t.Errorf("one long line is cut to %q", e.Lines)
	}
	if _, err := s.Put(t.Context(), p2pnode.Report{At: time.Now()}); err == nil {
		t.Error("a report of no incident was taken")
	}
	if _, err := s.Put(t.Context(), p2pnode.Report{At: time.Now().AddDate(300, 0, 0), Incident: "i"}); err == nil {
		t.Error("a report of the far future was taken")
	}
	if r := must(t, s, 2); r.Seq != 2 {
		t.Errorf("a refused report used up a number: next is %d", r.Seq)
	}
}

// Many who put at once share commits.
func TestGroupCommit(t *testing.T) {
	s, _ := running(t, config(t, 1))
	must(t, s, 0)
	commits := 0
	file(s).fault = func() error { commits++; return nil }
	var wg sync.WaitGroup
	for n := range 200 {
		wg.Go(func() { must(t, s, n) })
	}
	wg.Wait()
	if n := count(s); n != 201 || commits > 100 {
		t.Errorf("%d reports in %d commits", n, commits)
	}
}

// Callers may change what All gave them.
func TestAllIsACopy(t *testing.T) {
	cfg := config(t, 1)
	private, public := readerPair(t)
	cfg.SealTo = public
	s, _ := running(t, cfg)
	must(t, s, 1)
	if err := s.SetReaders(private); err != nil {
		t.Fatal(err)
	}
	all(s)[0].Excerpt.Sealed = true
	if got := all(s)[0].Excerpt; got.Sealed || !slices.Equal(got.Lines, sample(1).Excerpt.Lines) {
		t.Errorf("excerpt %+v", got)
	}
}

// A cache that is too small for a scan still serves most of it.
func TestCacheIsBounded(t *testing.T) {
	s, _ := running(t, config(t, 1))
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range uint64(maxCached + 500) {
		s.rememberLocked(place{s.self, n}, decoded{})
	}
	if len(s.cache) != maxCached {
		t.Errorf("%d entries", len(s.cache))
	}
}

func TestSweep(t *testing.T) {
	cfg := config(t, 1)
	cfg.Keep = 30 * time.Minute
	s, stop := running(t, cfg)
	for n := range 60 {
		r := sample(n)
		r.At = r.At.Add(time.Duration(n) * time.Second) // up to two minutes after an hour ago
		if _, err := s.Put(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	s.mu.Lock()
	s.sweeps = true
	s.mu.Unlock()
	s.repair() // wakes Run; the file is well
	eventually(t, "only pinned reports are left", func() bool { return count(s) == pinnedActs })
	if s.Reported("i-3", p2pnode.PhaseActed) || !s.Reported("i-45", p2pnode.PhaseActed) {
		t.Error("phases are not what is left")
	}
	stop()
	s, _ = running(t, cfg)
	if n := count(s); n != pinnedActs || s.ix.of(s.self).floor() != 41 {
		t.Errorf("%d reports after reopening, floor %d", n, s.ix.of(s.self).floor())
	}
	if r := must(t, s, 99); r.Seq != 61 {
		t.Errorf("next is %d", r.Seq)
	}
	// Nobody gives back what was given up, and one range says so.
	q, _ := s.question(window{})
	known, ok := decodeSpans(q.Have[0].Spans, maxSpans)
	if len(q.Have) != 1 || !ok || !slices.Equal(known, spans{{1, 61}}) {
		t.Errorf("asked with %v", known)
	}
}

func BenchmarkPut(b *testing.B) {
	s, _ := running(b, config(b, 1))
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		must(b, s, n)
	}
}
