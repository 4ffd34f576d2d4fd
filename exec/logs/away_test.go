package logs

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"p2pnode/test/need"

	"golang.org/x/sys/unix"
)

func opened(t *testing.T, dir string) *Log {
	t.Helper()
	l, err := Open(Config{RunDir: dir, LogDir: dir, Service: "web"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func bornAt(t *testing.T, path string) int64 {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return born(f)
}

// knowsBirths skips where a file system does not tell when a file was made.
func knowsBirths(t *testing.T, dir string) {
	t.Helper()
	path := filepath.Join(dir, "born")
	put(t, path, "")
	if m, err := lookAt(path); err != nil || m.Born == 0 {
		need.Had(t, fmt.Errorf("the file system of %s does not tell when a file was made", dir))
	}
	os.Remove(path)
}

// A take that was cut short by a kill is done again from its beginning: no line is
// missing and none is there twice.
func TestATakeThatWasCutShort(t *testing.T) {
	for written, left := range map[string]bool{"": true, "one\n": true, "one\ntwo\n": true, "one\ntwo\n ": false} {
		dir := t.TempDir()
		away, log := AwayPath(dir, "web"), filepath.Join(dir, "web.log")
		put(t, log, "before\n")
		put(t, away, "one\ntwo\n")
		info, err := os.Stat(away)
		if err != nil {
			t.Fatal(err)
		}
		l := opened(t, dir)
		note := taking{From: Mark{File: inodeOf(info.Sys()), At: info.Size()}, Born: bornAt(t, away), Time: info.ModTime().UnixNano(), Log: l.file.mark()}
		if !left {
			note.Time++ // another file with the same number: nothing of it is in the log
		}
		raw, err := json.Marshal(note)
		if err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(dir, ".web.away.taking"), string(raw))
		l.take([]byte(written))
		l.TakeAway()
		want := "before\none\ntwo\n"
		if !left {
			want = "before\n" + written + "one\ntwo\n"
		}
		if got := content(t, log); got != want {
			t.Errorf("after %q: %q", written, got)
		}
		if files, _ := filepath.Glob(filepath.Join(dir, "*away*")); len(files) != 0 {
			t.Errorf("left: %v", files)
		}
		if files, _ := filepath.Glob(filepath.Join(dir, ".*taking")); len(files) != 0 {
			t.Errorf("left: %v", files)
		}
	}
}

// An exec that was killed after it took all of a file, and before it removed it: the
// keeper goes on in that file, and the next exec has its first half already.
func TestATakeThatTheKeeperWentOnWith(t *testing.T) {
	for name, c := range map[string]struct {
		born int64 // beside the file's own
		want string
	}{
		"the same file":              {0, "before\none\ntwo\nthree\n"},
		"another of the same number": {1, "before\none\ntwo\none\ntwo\nthree\n"},
	} {
		dir := t.TempDir()
		away := AwayPath(dir, "web")
		put(t, filepath.Join(dir, "web.log"), "before\n")
		f, err := os.Create(away)
		if err != nil {
			t.Fatal(err)
		}
		f.WriteString("one\ntwo\n")
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if born(f) == 0 {
			need.Had(t, fmt.Errorf("the file system of %s does not tell when a file was made", dir))
		}
		l := opened(t, dir)
		raw, err := json.Marshal(taking{From: Mark{File: inodeOf(info.Sys()), At: info.Size()}, Born: born(f) + c.born, Time: info.ModTime().UnixNano(), Log: l.file.mark()})
		if err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(dir, ".web.away.taking"), string(raw))
		l.take([]byte("one\ntwo\n"))
		f.WriteString("three\n")
		f.Close()
		l.TakeAway()
		if got := content(t, filepath.Join(dir, "web.log")); got != c.want {
			t.Errorf("%s: %q, should be %q", name, got, c.want)
		}
	}
}

// What the keeper still writes to is not taken from under its hands.
func TestAFileThatIsWrittenToIsLeft(t *testing.T) {
	dir := t.TempDir()
	away := AwayPath(dir, "web")
	put(t, away, "one\n")
	f, err := os.OpenFile(away, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		t.Fatal(err)
	}
	l := opened(t, dir)
	l.TakeAway()
	if content(t, away) != "one\n" {
		t.Error("it was taken")
	}
	f.Close()
	l.TakeAway()
	if got := content(t, filepath.Join(dir, "web.log")); got != "one\n" {
		t.Errorf("the log: %q", got)
	}
}

// A run that is over is told from the files, by where it began and where the next
// one did.
func TestAnExcerptOfARunThatIsOver(t *testing.T) {
	dir := t.TempDir()
	l := opened(t, dir)
	l.take([]byte("older\n"))
	from := l.file.mark()
	l.take([]byte("hello\nlast word"))
	to := l.file.mark()
	l.take([]byte("next\n"))
	e := l.ExcerptOf(from, to)
	if len(e.Lines) != 2 || e.Lines[0] != "hello" || e.Lines[1] != "last word" || e.Truncated {
		t.Errorf("%+v", e)
	}
	if e := l.ExcerptOf(to, to); len(e.Lines) != 0 {
		t.Errorf("a run that said nothing: %+v", e)
	}
	if e := l.ExcerptOf(Mark{}, Mark{}); len(e.Lines) != 0 {
		t.Errorf("no place: %+v", e)
	}
	if e := l.ExcerptOf(Mark{File: 1, At: 7}, to); len(e.Lines) != 3 {
		t.Errorf("rotated in between: %+v", e)
	}
}
