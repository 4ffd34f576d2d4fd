package store

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"p2pnode"
)

const writerPath = "P2PNODE_TEST_WRITER"

// TestWriter is the process that TestKilledWhileWriting kills: it says each report
// once Put has returned.
func TestWriter(t *testing.T) {
	path := os.Getenv(writerPath)
	if path == "" {
		t.Skip("the other half of TestKilledWhileWriting")
	}
	s, _ := running(t, Config{Path: path, Key: key(1)})
	for n := 0; ; n++ {
		r, err := s.Put(t.Context(), sample(n))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("acked " + identity(r))
	}
}

// What was acknowledged is there after a kill -9 at any moment, under its number,
// and no number is given twice.
func TestKilledWhileWriting(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	acked := map[string]bool{}
	for life := range 4 {
		for _, id := range killedWriter(t, path, 5+9*life) {
			if acked[id] {
				t.Fatalf("%s was given twice", id)
			}
			acked[id] = true
		}
		s, stop := running(t, Config{Path: path, Key: key(1)})
		here := map[string]bool{}
		for _, r := range all(s) {
			here[identity(r)] = true
		}
		for id := range acked {
			if !here[id] {
				t.Errorf("life %d: %s was acknowledged and is lost", life, id)
			}
		}
		if aside, _ := filepath.Glob(path + ".damaged-*"); len(aside) > 0 {
			t.Errorf("life %d: a sound file was moved aside", life)
		}
		stop()
	}
}

// killedWriter is what a writer acknowledged before it was killed after n reports.
func killedWriter(t *testing.T, path string, n int) (acked []string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestWriter$")
	cmd.Env = append(os.Environ(), writerPath+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if id, ok := strings.CutPrefix(lines.Text(), "acked "); ok {
			acked = append(acked, id)
		}
		if len(acked) == n {
			cmd.Process.Kill()
		}
	}
	cmd.Wait()
	if len(acked) < n {
		t.Fatalf("the writer ended by itself after %d reports", len(acked))
	}
	return acked
}

func TestEnvironmentIsNoDamage(t *testing.T) {
	for _, err := range []error{
		bolterrors.ErrTimeout,
		&os.PathError{Op: "open", Path: "store.db", Err: syscall.EACCES},
		fmt.Errorf("file resize error: %s", syscall.ENOSPC),
		fmt.Errorf("file sync error: %s", syscall.EIO),
	} {
		if !environment(err) {
			t.Errorf("%v is held against the file", err)
		}
	}
	for _, err := range []error{errDamaged, bolterrors.ErrInvalid, bolterrors.ErrChecksum, errors.New("file size too small 12"), &os.PathError{Op: "write", Path: "store.db", Err: syscall.EFBIG}} {
		if environment(err) {
			t.Errorf("%v is not held against the file", err)
		}
	}
}

// A flipped bit in the file is noticed at the next start, and fetched again.
func TestFlippedBitIsFetchedAgain(t *testing.T) {
	for _, where := range []string{"at rest", "while open"} {
		t.Run(where, func(t *testing.T) {
			cfg := config(t, 1)
			a, stop := running(t, cfg)
			r := must(t, a, 1)
			b, _ := running(t, config(t, 2))
			if n, err := b.Sync(t.Context(), "", neighbour(a)); n != 1 || err != nil {
				t.Fatal(n, err)
			}
			flip(t, a, r)
			if where == "at rest" {
				stop()
				a, _ = running(t, cfg)
			}
			if count(a) != 0 {
				t.Error("damaged data was served")
			}
			if raw, _ := a.HandleBulk(t.Context(), "x", asked(t)); len(raw) > 100 {
				t.Error("damaged data was handed on")
			}
			select {
			case <-a.Wake():
			default:
				t.Error("nobody was told to fetch it")
			}
			if n, err := a.Sync(t.Context(), "", neighbour(b)); n != 1 || err != nil || count(a) != 1 {
				t.Errorf("fetched %d (%v)", n, err)
			}
			if next := must(t, a, 2); next.Seq != r.Seq+1 {
				t.Errorf("number %d given again", next.Seq)
			}
		})
	}
}

// flip changes a bit of a report where it rests.
func flip(t *testing.T, s *Store, r p2pnode.Report) {
	t.Helper()
	err := file(s).update(func(b buckets) error {
		k := reportKey(placeOf(s, r))
		v := bytes.Clone(b.reports.Get(k))
		v[len(v)/2] ^= 4
		return b.reports.Put(k, v)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A key that is lost without a trace must not free its number for another report:
// peers hold the first one. And it is wanted again.
func TestLostKeyIsFetchedAgain(t *testing.T) {
	cfg := config(t, 1)
	s, stop := running(t, cfg)
	first := must(t, s, 1)
	lost := must(t, s, 2)
	b, _ := running(t, config(t, 2))
	if n, err := b.Sync(t.Context(), "", neighbour(s)); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	err := file(s).update(func(b buckets) error {
		return errors.Join(b.reports.Delete(reportKey(placeOf(s, lost))), b.reports.Delete(reportKey(placeOf(s, first))))
	})
	if err != nil {
		t.Fatal(err)
	}
	stop()
	s, _ = running(t, cfg)
	if r := must(t, s, 3); r.Seq != lost.Seq+1 || r.Epoch != lost.Epoch {
		t.Errorf("after %s comes %s", identity(lost), identity(r))
	}
	if n, err := s.Sync(t.Context(), "", neighbour(b)); n != 2 || err != nil || count(s) != 3 {
		t.Errorf("%d fetched, %d here, %v", n, count(s), err)
	}
}

// Whatever is done to the file, the store runs, serves nothing wrong, and takes new
// reports; and what can be found in the wreck is there.
func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	cfg := config(t, 1)
	s, stop := running(t, cfg)
	for n := range 50 {
		must(t, s, n)
	}
	want := map[string]string{}
	for _, r := range all(s) {
		want[identity(r)] = r.Incident
	}
	stop()
	good, err := os.ReadFile(cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	rng := mrand.New(mrand.NewPCG(7, 7))
	damages := map[string]func() []byte{
		"empty":     func() []byte { return nil },
		"text":      func() []byte { return []byte("not a database, but long enough to be looked at") },
		"truncated": func() []byte { return good[:len(good)-20<<10] },
		"one page":  func() []byte { return good[:4096] },
		"no heads":  func() []byte { return append(make([]byte, 8192), good[8192:]...) },
	}
	for i := range 60 {
		damages[fmt.Sprintf("flips %d", i)] = func() []byte {
			b := bytes.Clone(good)
			for range 20 {
				b[rng.IntN(len(b))] ^= byte(1 + rng.IntN(255))
			}
			return b
		}
	}
	left, replaced := 0, 0
	for name, damage := range damages {
		path := filepath.Join(t.TempDir(), "store.db")
		if err := os.WriteFile(path, damage(), 0o600); err != nil {
			t.Fatal(err)
		}
		s, stop := running(t, Config{Path: path, Key: key(1)})
		n := 0
		for r := range s.All() {
			if want[identity(r)] != r.Incident {
				t.Errorf("%s: wrong data served: %+v", name, r)
			}
			n++
		}
		if name == "no heads" && n != len(want) {
			t.Errorf("%d of %d reports were found in a file whose first pages are gone", n, len(want))
		}
		if r := must(t, s, 99); want[identity(r)] != "" {
			t.Errorf("%s: number %s is given again", name, identity(r))
		}
		stop()
		left += n
		if aside, _ := filepath.Glob(path + ".damaged-*"); len(aside) > 0 {
			replaced++
		}
	}
	t.Logf("%d files damaged, %d of them replaced, %d of %d reports left", len(damages), replaced, left, len(damages)*len(want))
}

// A page that says that it goes on for billions of others, or an element of it that it
// is billions of bytes long, fills no memory: nothing is lost, and nobody waits.
func TestPagesThatEndBeyondTheFile(t *testing.T) {
	t.Parallel()
	cfg := config(t, 1)
	s, stop := running(t, cfg)
	for n := range 50 {
		must(t, s, n)
	}
	stop()
	good, err := os.ReadFile(cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	const page, overflow, element = 4096, 12, 16
	for n := 4; n < 2*len(good)/page; n++ {
		at := n / 2 * page
		path := filepath.Join(t.TempDir(), "store.db")
		bad := bytes.Clone(good)
		if n%2 == 0 {
			bad[at+overflow+3] |= 0x40
		} else {
			bad[at+element+15] |= 0x20 // of the first one: its value's length, in a leaf
		}
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		s, stop := running(t, Config{Path: path, Key: key(1)})
		if n := count(s); n != 50 {
			t.Errorf("page %d: %d of 50 reports are left", at/page, n)
		}
		if _, err := s.Put(t.Context(), sample(99)); err != nil || s.Trouble() != "" {
			t.Errorf("page %d: %v, %s", at/page, err, s.Trouble())
		}
		stop()
	}
}

// No bucket rests inside another's page, where bbolt would read it from the heap: not
// in a new file, and not in one of an earlier revision once it was written.
func TestBucketsHavePagesOfTheirOwn(t *testing.T) {
	inline := func(path string) (n int) {
		db, err := bbolt.Open(path, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if err := db.View(func(tx *bbolt.Tx) error {
			return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
				if b.Root() == 0 {
					n++
				}
				return nil
			})
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	cfg := config(t, 1)
	s, stop := running(t, cfg)
	first := must(t, s, 1)
	stop()
	if n := inline(cfg.Path); n != 0 {
		t.Errorf("%d buckets of a new file are inside another's page", n)
	}
	db, err := bbolt.Open(cfg.Path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error { return b.DeleteBucket(keyApart) })
	})
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if inline(cfg.Path) == 0 {
		t.Fatal("nothing is as an earlier revision left it")
	}
	s, stop = running(t, cfg)
	if r := must(t, s, 2); r.Epoch != first.Epoch || r.Seq != 2 || count(s) != 2 {
		t.Errorf("%s follows %s, %d are here", identity(r), identity(first), count(s))
	}
	stop()
	if n := inline(cfg.Path); n != 0 {
		t.Errorf("%d buckets of an earlier revision's file are still inside another's page", n)
	}
}

// A file that kills two lives in a row while it is opened is not opened again; what
// can be read of it is there all the same.
func TestDeadlyFileIsMovedAside(t *testing.T) {
	cfg := config(t, 1)
	s, stop := running(t, cfg)
	first := must(t, s, 1)
	stop()
	if lives(cfg.Path) != 0 {
		t.Error("a life that opened the file well is counted")
	}
	for n := range 2 {
		mark(cfg.Path)
		if lives(cfg.Path) != n+1 {
			t.Fatalf("%d lives counted, were %d", lives(cfg.Path), n+1)
		}
	}
	s, stop = running(t, cfg)
	if r := must(t, s, 2); r.Epoch == first.Epoch || r.Seq != 1 {
		t.Errorf("the old file is in use: %s after %s", identity(r), identity(first))
	}
	if n := count(s); n != 2 || lives(cfg.Path) != 0 {
		t.Errorf("%d reports, want the old one and the new one; %d lives counted", n, lives(cfg.Path))
	}
	stop()
	mark(cfg.Path)
	mark(cfg.Path)
	running(t, cfg)
	if aside, _ := filepath.Glob(cfg.Path + ".damaged-*"); len(aside) != 1 {
		t.Errorf("aside: %v; several would fill the disk", aside)
	}
}

// A store of another cluster is nobody's business here.
func TestForeignFiles(t *testing.T) {
	cfg := config(t, 1)
	cfg.Cluster = "ours"
	s, stop := running(t, cfg)
	must(t, s, 1)
	stop()
	cfg.Cluster = "theirs"
	s, stop = running(t, cfg)
	if n := count(s); n != 0 {
		t.Errorf("%d reports of another cluster", n)
	}
	must(t, s, 2)
	stop()
	if aside, _ := filepath.Glob(cfg.Path + ".foreign-*"); len(aside) != 1 {
		t.Errorf("aside: %v", aside)
	}

	// Somebody else's bbolt file is not written to.
	other := filepath.Join(t.TempDir(), "store.db")
	db, err := bbolt.Open(other, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("accounts")); return err }); err != nil {
		t.Fatal(err)
	}
	db.Close()
	before, _ := os.ReadFile(other)
	s, _ = running(t, Config{Path: other, Key: key(1)})
	must(t, s, 1)
	aside, _ := filepath.Glob(other + ".foreign-*")
	if len(aside) != 1 {
		t.Fatalf("aside: %v", aside)
	}
	if after, _ := os.ReadFile(aside[0]); !bytes.Equal(before, after) {
		t.Error("somebody else's file was changed")
	}
}

// A copy of the file that is put back knows less than the fleet: its numbers are
// not used again.
func TestOldCopyPutBack(t *testing.T) {
	cfg := config(t, 1)
	s, stop := running(t, cfg)
	must(t, s, 1)
	stop()
	backup, err := os.ReadFile(cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	s, stop = running(t, cfg)
	after := must(t, s, 2)
	stop()
	t.Run("as another file", func(t *testing.T) {
		copied := cfg
		copied.Path = filepath.Join(t.TempDir(), "store.db")
		if err := os.WriteFile(copied.Path, backup, 0o600); err != nil {
			t.Fatal(err)
		}
		s, _ := running(t, copied)
		if r := must(t, s, 3); identity(r) == identity(after) {
			t.Errorf("%s is given twice", identity(r))
		}
	})
	t.Run("in place", func(t *testing.T) {
		s, _ := running(t, cfg)
		peer, _ := running(t, config(t, 2))
		if n, err := peer.Sync(t.Context(), "", neighbour(s)); n != 2 || err != nil {
			t.Fatal(n, err)
		}
		old, err := os.OpenFile(cfg.Path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		old.WriteAt(backup, 0)
		old.Close()
		rolled, _ := New(cfg)
		o, err := openOrReplace(filepath.Join(t.TempDir(), "x.db"), "", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer o.disk.close()
		r := &runner{Store: rolled}
		rolled.self, rolled.next = line{id(1), after.Epoch}, after.Seq
		rolled.ix.of(rolled.self).here.add(1)
		var others []taken
		for got := range peer.All() {
			raw, err := peer.raw(placeOf(peer, got))
			if err != nil {
				t.Fatal(err)
			}
			one, err := newTaken(raw)
			if err != nil {
				t.Fatal(err)
			}
			others = append(others, one)
		}
		r.sign([]put{{others: others}})
		if rolled.self.epoch == after.Epoch {
			t.Error("a peer holds what this life has not reported, and its numbers go on")
		}
	})
}

// Damage that only a write meets is no reason to write nothing for ever.
func TestDamagedFreeListIsReplaced(t *testing.T) {
	s, _ := running(t, config(t, 1))
	first := must(t, s, 1)
	err := file(s).update(func(buckets) error {
		return &os.PathError{Op: "write", Path: "store.db", Err: syscall.EFBIG}
	})
	if !errors.Is(err, errDamaged) {
		t.Errorf("a write petabytes away says %v", err)
	}
	if r := must(t, s, 2); r.Epoch == first.Epoch || count(s) != 2 {
		t.Errorf("%s after %s, %d here", identity(r), identity(first), count(s))
	}
}
