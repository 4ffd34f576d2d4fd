package logs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
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

// lengthen goes on in a file as the keeper does.
func lengthen(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
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

// taken puts the first n bytes of one of the keeper's files into the log, and does no
// more: exec is killed there.
func taken(t *testing.T, l *Log, path string, n int) {
	t.Helper()
	s := snap(path)
	defer s.close()
	now := s.taking()
	now.Log = l.file.mark()
	l.noteTakings([]taking{now})
	l.take(s.section(0, int64(n)))
}

// A take that was cut short by a kill is gone on with: no line is missing and none is
// there twice, on disk and in memory.
func TestATakeThatWasCutShort(t *testing.T) {
	for _, c := range []struct {
		written int    // bytes of one\ntwo\n that are in the log
		more    string // what somebody else wrote there
		other   bool   // the note is of another file that had the inode's number
		want    string
	}{
		{0, "", false, "one\ntwo\n"},
		{2, "", false, "one\ntwo\n"},
		{4, "", false, "one\ntwo\n"},
		{8, "", false, "one\ntwo\n"},
		{8, " ", false, "one\ntwo\n one\ntwo\n"},
		{8, "", true, "one\ntwo\none\ntwo\n"},
	} {
		for _, rotated := range []bool{false, true} {
			t.Run(fmt.Sprintf("%+v rotated %v", c, rotated), func(t *testing.T) {
				dir := t.TempDir()
				knowsBirths(t, dir)
				away, log := AwayPath(dir, "web"), filepath.Join(dir, "web.log")
				put(t, log, "before\n")
				put(t, away, "one\ntwo\n")
				l := opened(t, dir)
				taken(t, l, away, c.written)
				l.take([]byte(c.more))
				if rotated {
					l.file.rotate()
				}
				if c.other {
					os.Rename(away, away+".old")
					put(t, away, "one\ntwo\n")
					raw := content(t, l.takingPath())
					was, _ := lookAt(away + ".old")
					now, _ := lookAt(away)
					put(t, l.takingPath(), strings.ReplaceAll(raw, fmt.Sprint(was.File), fmt.Sprint(now.File)))
					os.Remove(away + ".old")
				}
				l.Close()
				again := opened(t, dir)
				again.recall(Mark{})
				again.TakeAway()
				chain := again.file.files()
				defer chain.close()
				if got := string(chain.text(0, chain.size)); got != "before\n"+c.want {
					t.Errorf("%q, should be %q", got, "before\n"+c.want)
				}
				if got, want := again.ring.seq, strings.Count("before\n"+c.want, "\n"); got != uint64(want) {
					t.Errorf("%d lines in memory, should be %d", got, want)
				}
				if files, _ := filepath.Glob(filepath.Join(dir, "*away*")); len(files) != 0 {
					t.Errorf("left: %v", files)
				}
				if files, _ := filepath.Glob(filepath.Join(dir, ".*taking*")); len(files) != 0 {
					t.Errorf("left: %v", files)
				}
			})
		}
	}
}

// Exec is killed at each step of taking each of the three files; the keeper goes on in
// them, and gives the newest one the older one's name where it has more than they hold.
// The next exec has each line once and in order.
func TestATakeThatTheKeeperWentOnWith(t *testing.T) {
	text := map[string]string{"": "head\n", AwayOlder: "older\n", AwayNewest: "newest\n"}
	order := []string{"", AwayOlder, AwayNewest}
	for at, of := range order {
		for _, written := range []int{0, 3, len(text[of])} {
			for _, long := range []bool{false, true} {
				t.Run(fmt.Sprintf("%q after %d bytes, long %v", of, written, long), func(t *testing.T) {
					dir := t.TempDir()
					knowsBirths(t, dir)
					away := AwayPath(dir, "web")
					l := opened(t, dir)
					for _, suffix := range order {
						put(t, away+suffix, text[suffix])
					}
					for _, before := range order[:at] {
						l.take([]byte(text[before]))
						os.Remove(away + before)
					}
					taken(t, l, away+of, written)
					l.Close()

					// The keeper: a head of its own where there is none, then the end.
					want := ""
					if of != "" {
						put(t, away, "new head\n")
					}
					switch {
					case long && of == AwayNewest: // the newest was full
						os.Rename(away+AwayNewest, away+AwayOlder)
						put(t, away+AwayNewest, "new newest\n")
						want = "head\nolder\n" + text[of][:written] + "new head\n" + text[of][written:] + "new newest\n"
					case of == AwayNewest:
						lengthen(t, away+AwayNewest, "more\n")
						want = "head\nolder\n" + text[of][:written] + "new head\n" + text[of][written:] + "more\n"
					case long && of == AwayOlder: // dropped for the newest, which was full
						os.Rename(away+AwayNewest, away+AwayOlder)
						put(t, away+AwayNewest, "new newest\n")
						want = "head\n" + text[of][:written] + "new head\nnewest\nnew newest\n"
					case of == AwayOlder:
						want = "head\n" + text[of][:written] + "new head\n" + text[of][written:] + "newest\n"
					default:
						lengthen(t, away, "more\n")
						want = "head\nmore\nolder\nnewest\n"
					}
					again := opened(t, dir)
					again.TakeAway()
					if got := content(t, filepath.Join(dir, "web.log")); got != want {
						t.Errorf("%q, should be %q", got, want)
					}
					if files, _ := filepath.Glob(filepath.Join(dir, "*away*")); len(files) != 0 {
						t.Errorf("left: %v", files)
					}
				})
			}
		}
	}
}

// What was taken of a file that the keeper still writes to is known though the log has
// gone on when it lets go.
func TestATakeIsSettledBeforeTheLogGoesOn(t *testing.T) {
	dir := t.TempDir()
	knowsBirths(t, dir)
	away := AwayPath(dir, "web")
	put(t, away, "one\none\n")
	l := opened(t, dir)
	taken(t, l, away, 4)
	l.Close()
	f, err := os.OpenFile(away, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		t.Fatal(err)
	}
	again := opened(t, dir)
	again.TakeAway()
	again.TakeAway()
	again.take([]byte("meanwhile\n"))
	f.Close()
	again.TakeAway()
	if got := content(t, filepath.Join(dir, "web.log")); got != "one\nmeanwhile\none\n" {
		t.Errorf("%q", got)
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
