package store

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"p2pnode/test/need"
)

// smallDisk is a real file system of that many bytes.
func smallDisk(t *testing.T, bytes string) string {
	t.Helper()
	need.Root(t, "it mounts a small disk")
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+bytes); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

// fill takes what is left of a disk; the result gives it back.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	chunk := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(chunk)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	return func() { os.Remove(path) }
}

// A disk that is full: while the store is open, and before it is opened.
func TestFullDisk(t *testing.T) {
	dir := smallDisk(t, "2m")
	cfg := Config{Path: filepath.Join(dir, "store.db"), Key: key(1)}
	s, stop := running(t, cfg)
	must(t, s, 0)
	free := fill(t, dir)
	n := 1
	for s.Trouble() == "" {
		if n++; n > 2000 {
			t.Fatal("a full disk is not noticed")
		}
		if _, err := s.Put(t.Context(), sample(n)); err != nil && !errors.Is(err, ErrUnsaved) {
			t.Fatal(err)
		}
	}
	t.Logf("full after %d reports: %s", n, s.Trouble())
	free()
	eventually(t, "reports are written again", func() bool { return s.Trouble() == "" })
	stop()
	s, stop = running(t, cfg)
	want := count(s)
	if want != n {
		t.Errorf("%d reports of %d after the disk was full", want, n)
	}
	stop()

	free = fill(t, dir)
	s, stop = started(t, cfg)
	if got := count(s); got != want {
		t.Errorf("%d reports of %d are read from a full disk", got, want)
	}
	stop()
	if aside, _ := filepath.Glob(cfg.Path + ".damaged-*"); len(aside) > 0 {
		t.Errorf("a sound file was moved aside: %v", aside)
	}
	free()

	// No file yet, and no room for one.
	cfg.Path = filepath.Join(dir, "new.db")
	free = fill(t, dir)
	s, _ = started(t, cfg)
	if _, err := s.Put(t.Context(), sample(1)); !errors.Is(err, ErrUnsaved) || !strings.Contains(s.Trouble(), "no space") {
		t.Errorf("without room for a file: %v, trouble %q", err, s.Trouble())
	}
	free()
	eventually(t, "there is room, and the report is written", func() bool { return s.Trouble() == "" && count(s) == 1 })
}

// A file system that becomes read-only is read, and written again when it is back.
func TestReadOnlyDisk(t *testing.T) {
	dir := smallDisk(t, "4m")
	cfg := Config{Path: filepath.Join(dir, "store.db"), Key: key(1)}
	s, stop := running(t, cfg)
	must(t, s, 1)
	stop()
	remount := func(flags uintptr) {
		t.Helper()
		if err := syscall.Mount("", dir, "", syscall.MS_REMOUNT|flags, "size=4m"); err != nil {
			t.Fatal(err)
		}
	}
	remount(syscall.MS_RDONLY)
	s, stop = started(t, cfg)
	if count(s) != 1 || s.Trouble() == "" {
		t.Errorf("%d reports on a read-only disk, trouble %q", count(s), s.Trouble())
	}
	if _, err := s.Put(t.Context(), sample(2)); !errors.Is(err, ErrUnsaved) {
		t.Errorf("put on a read-only disk: %v", err)
	}
	remount(0)
	eventually(t, "the disk is written again", func() bool { return s.Trouble() == "" })
	must(t, s, 3)
	stop()
	if s, _ = running(t, cfg); count(s) != 3 {
		t.Errorf("%d reports", count(s))
	}
}

// A device whose fsync fails, though it took the writes: a loop device over a file
// system that is full.
func TestFailingDevice(t *testing.T) {
	need.Program(t, "mkfs.ext4", "e2fsprogs")
	under := smallDisk(t, "24m")
	image := filepath.Join(under, "image")
	dir := t.TempDir()
	steps := [][]string{
		{"truncate", "-s", "64m", image},
		{"mkfs.ext4", "-q", "-O", "^has_journal", "-E", "lazy_itable_init=1,nodiscard", image},
		{"mount", "-o", "loop,errors=continue", image, dir},
	}
	for _, step := range steps {
		if out, err := exec.Command(step[0], step[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", step, err, out)
		}
	}
	t.Cleanup(func() { exec.Command("umount", "-l", dir).Run() })
	cfg := Config{Path: filepath.Join(dir, "store.db"), Key: key(1)}
	s, stop := running(t, cfg)
	acked := 0
	must(t, s, 0)
	free := fill(t, under)
	for n := 1; s.Trouble() == ""; n++ {
		if n > 5000 {
			t.Fatal("a failing device is not noticed")
		}
		if _, err := s.Put(t.Context(), sample(n)); err == nil {
			acked++
		}
	}
	t.Logf("after %d reports: %s", acked, s.Trouble())
	here := count(s)
	free()
	eventually(t, "the device is written again", func() bool { return s.Trouble() == "" })
	must(t, s, 9999)
	stop()
	if s, _ = running(t, cfg); count(s) != here+1 {
		t.Errorf("%d reports are there, want %d", count(s), here+1)
	}
}
