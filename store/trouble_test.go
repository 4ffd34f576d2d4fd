package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"p2pnode"
)

// A file that another process holds stays where it is, however often it is tried;
// meanwhile the store works in memory, and writes when it gets the file.
func TestLockedFile(t *testing.T) {
	t.Parallel()
	cfg := config(t, 1)
	holder, stop := running(t, cfg)
	first := must(t, holder, 1)
	cfg2 := cfg
	cfg2.Key = key(2)
	s, _ := started(t, cfg2)
	if s.Trouble() == "" {
		t.Fatal("no trouble with a file that another one holds")
	}
	if _, err := s.Put(t.Context(), sample(3)); !errors.Is(err, ErrUnsaved) {
		t.Errorf("put without a disk: %v", err)
	}
	if n := lives(cfg.Path); n != 0 {
		t.Errorf("%d lives are counted as dead: the next but one would move a living store aside", n)
	}
	if second := must(t, holder, 2); second.Epoch != first.Epoch {
		t.Error("the holder lost its file")
	}
	stop()
	eventually(t, "the file is had, and what waited is in it", func() bool { return s.Trouble() == "" && count(s) == 3 })
}

// A folder in its place, no folder, no right to write: said, and worked around.
func TestUnusablePaths(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	missing := filepath.Join(dir, "none", "store.db")
	for name, path := range map[string]string{"a folder": dir, "no folder": missing} {
		s, _ := started(t, Config{Path: path, Key: key(1)})
		if s.Trouble() == "" {
			t.Errorf("%s was opened as a store", name)
		}
		r, err := s.Put(t.Context(), sample(1))
		if !errors.Is(err, ErrUnsaved) || r.Seq == 0 || count(s) != 1 {
			t.Errorf("%s: put says %v, %d reports", name, err, count(s))
		}
		if path == missing {
			if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the folder is there, and the report in it", func() bool { return s.Trouble() == "" })
			if must(t, s, 2); count(s) != 2 {
				t.Error("reports are lost")
			}
		}
	}
	if _, err := os.Stat(dir); err != nil {
		t.Error("a folder was moved aside")
	}
}

// A file that dies while it is written or read is replaced, and what was in it is
// there: also what nobody else has.
func TestDeadFileIsReplaced(t *testing.T) {
	for name, kill := range map[string]func(s *Store){
		"written": func(s *Store) { file(s).update(func(buckets) error { panic("as bbolt does on a torn page") }) },
		"read": func(s *Store) {
			file(s).dead.Store(true)
			s.mu.Lock()
			clear(s.cache)
			s.mu.Unlock()
			all(s)
		},
		"truncated": func(s *Store) {
			if err := os.Truncate(file(s).path, 8192); err != nil {
				panic(err)
			}
			s.mu.Lock()
			clear(s.cache)
			s.mu.Unlock()
			all(s)
		},
		"closed": func(s *Store) { file(s).db.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			s, stop := running(t, config(t, 1))
			first := must(t, s, 1)
			kill(s)
			second := must(t, s, 2)
			want := 2
			if name == "truncated" {
				want = 1
			}
			if second.Epoch == first.Epoch || count(s) != want {
				t.Errorf("%s after %s, %d here, want %d", identity(second), identity(first), count(s), want)
			}
			stop()
		})
	}
}

// A file that was deleted or replaced while it is open: what is written to it would
// be gone with this life.
func TestVanishedFile(t *testing.T) {
	for name, take := range map[string]func(path string) error{
		"deleted": os.Remove,
		"moved":   func(path string) error { return os.Rename(path, path+".elsewhere") },
		"replaced": func(path string) error {
			return errors.Join(os.Remove(path), os.WriteFile(path, []byte("garbage"), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(t, 1)
			s, stop := running(t, cfg)
			must(t, s, 1)
			if err := take(cfg.Path); err != nil {
				t.Fatal(err)
			}
			must(t, s, 2)
			stop()
			s, _ = running(t, cfg)
			if n := count(s); n != 2 {
				t.Errorf("%d of 2 acknowledged reports are in the new file", n)
			}
		})
	}
}

// A disk that fails is said; reports stay visible and spread, and are written when
// it works again, in one life and under one number each.
func TestFailingDisk(t *testing.T) {
	t.Parallel()
	for _, errno := range []error{syscall.EIO, syscall.ENOSPC, fmt.Errorf("file sync error: %s", syscall.EIO)} {
		t.Run(errno.Error(), func(t *testing.T) {
			cfg := config(t, 1)
			var stored []string
			cfg.Stored = func(r p2pnode.Report) { stored = append(stored, identity(r)) }
			s, stop := running(t, cfg)
			first := must(t, s, 1)
			d := file(s)
			broken := make(chan bool, 1)
			broken <- true
			isBroken := func() bool { b := <-broken; broken <- b; return b }
			d.fault = func() error {
				if isBroken() {
					return errno
				}
				return nil
			}
			var ids []string
			for n := 2; n < 5; n++ {
				r, err := s.Put(t.Context(), sample(n))
				if !errors.Is(err, ErrUnsaved) {
					t.Fatalf("a report was acknowledged and not written (%v)", err)
				}
				ids = append(ids, identity(r))
			}
			if s.Trouble() == "" || count(s) != 4 {
				t.Errorf("trouble %q, %d reports", s.Trouble(), count(s))
			}
			peer, _ := running(t, config(t, 2))
			if n, err := peer.Sync(t.Context(), "", neighbour(s)); n != 4 || err != nil {
				t.Errorf("a peer gets %d of 4, %v", n, err)
			}
			theirs := must(t, peer, 9)
			if n, err := s.Sync(t.Context(), "", neighbour(peer)); n != 1 || err != nil || count(s) != 5 {
				t.Errorf("with a broken disk %d is taken, %v", n, err)
			}
			<-broken
			broken <- false
			eventually(t, "the disk is used again", func() bool { return s.Trouble() == "" })
			last := must(t, s, 5)
			stop()
			s, _ = running(t, cfg)
			ids = append(ids, identity(first), identity(last), identity(theirs))
			slices.Sort(ids)
			var got []string
			for _, r := range all(s) {
				got = append(got, identity(r))
			}
			slices.Sort(got)
			slices.Sort(stored)
			if !slices.Equal(got, ids) || !slices.Equal(stored, ids) {
				t.Errorf("on disk %v\ntold    %v\nwant    %v", got, stored, ids)
			}
		})
	}
}

// A disk that hangs holds up nobody, and what it wrote after all is not there twice.
func TestHangingDisk(t *testing.T) {
	t.Parallel()
	cfg := config(t, 1)
	s, stop := running(t, cfg)
	must(t, s, 1)
	release := make(chan struct{})
	file(s).fault = func() error { <-release; return nil }
	began := time.Now()
	r, err := s.Put(t.Context(), sample(2))
	if took := time.Since(began); !errors.Is(err, ErrUnsaved) || took > slowAfter+time.Second {
		t.Errorf("put on a hanging disk: %v after %v", err, took)
	}
	began = time.Now()
	if _, err := s.Put(t.Context(), sample(3)); !errors.Is(err, ErrUnsaved) || time.Since(began) > time.Second {
		t.Errorf("the next put: %v after %v", err, time.Since(began))
	}
	if s.Trouble() == "" || count(s) != 3 {
		t.Errorf("trouble %q, %d reports", s.Trouble(), count(s))
	}
	close(release)
	eventually(t, "the disk answers", func() bool { return s.Trouble() == "" })
	must(t, s, 4)
	stop()
	s, _ = running(t, cfg)
	seen := map[string]int{}
	for _, r := range all(s) {
		seen[r.Incident]++
	}
	if len(seen) != 4 || seen["i-2"] != 1 || seen["i-3"] != 1 || !s.Reported(r.Incident, r.Phase) {
		t.Errorf("after the disk hung: %v", seen)
	}
}

// A disk that never answers again does not keep the process from ending.
func TestEndWithHangingDisk(t *testing.T) {
	t.Parallel()
	s, err := New(config(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	<-s.Ready()
	must(t, s, 1)
	release := make(chan struct{})
	defer close(release)
	file(s).fault = func() error { <-release; return nil }
	go s.Put(ctx, sample(2))
	time.Sleep(20 * time.Millisecond)
	cancel()
	select {
	case err := <-done:
		if err == nil {
			t.Error("reports that were not written are not said")
		}
	case <-time.After(finishTime + 2*time.Second):
		t.Fatal("the store does not end")
	}
}

// While the disk does not work memory is bounded, and own reports go before others'.
func TestUnsavedIsBounded(t *testing.T) {
	s, err := New(config(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	r := &runner{Store: s}
	var others []taken
	for n := range maxUnsaved {
		rep := sample(n)
		rep.Origin, rep.Epoch, rep.Seq, rep.Excerpt = id(2).String(), "e", uint64(n+1), nil
		raw, err := encodeReport(key(2), rep, nil)
		if err != nil {
			t.Fatal(err)
		}
		one, err := newTaken(raw)
		if err != nil {
			t.Fatal(err)
		}
		others = append(others, one)
	}
	done := make(chan error, 3)
	r.toMemory([]put{{others: others, done: done}})
	own := sample(1)
	r.toMemory([]put{{own: &own, done: done}})
	if len(s.unsaved) != maxUnsaved || s.waiting > maxWaiting {
		t.Errorf("%d reports of %d bytes in memory", len(s.unsaved), s.waiting)
	}
	if _, ok := s.unsaved[place{s.self, 1}]; !ok {
		t.Error("an own report found no room")
	}
	size := int64(0)
	for _, one := range s.unsaved {
		size += int64(len(one.packed))
	}
	if size != s.waiting {
		t.Errorf("%d bytes are counted as %d", size, s.waiting)
	}
}
