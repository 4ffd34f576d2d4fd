package logs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"p2pnode"
	"p2pnode/test/need"
)

func open(t *testing.T, change ...func(*Config)) *Log {
	t.Helper()
	dir := t.TempDir()
	cfg := Config{RunDir: dir, LogDir: filepath.Join(dir, "logs"), Service: "web"}
	for _, c := range change {
		c(&cfg)
	}
	l, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func begin(t *testing.T, l *Log, n uint64) string {
	t.Helper()
	path, err := l.Begin(p2pnode.Incarnation{Epoch: 7, N: n}, os.Geteuid(), os.Getegid())
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// sh runs a real process whose output is the FIFO.
func sh(t *testing.T, fifo, script string) {
	t.Helper()
	out, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
}

func lines(t *testing.T, l *Log, n int, since time.Time) (out []string) {
	t.Helper()
	if err := l.Query(t.Context(), n, since, false, func(_ time.Time, s string) bool { out = append(out, s); return true }); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestOrderAndLastWords(t *testing.T) {
	l := open(t)
	for run := range uint64(20) {
		fifo := begin(t, l, run+1)
		sh(t, fifo, "i=0; while [ $i -lt 300 ]; do echo out$i; echo err$i >&2; i=$((i+1)); done; printf 'last words'")
		l.Drain()
		e := l.Excerpt()
		if got := e.Lines[len(e.Lines)-1]; got != "last words" {
			t.Fatalf("run %d: the last line is %q", run, got)
		}
		if !slices.Equal(e.Lines[:3], []string{"out0", "err0", "out1"}) || e.Lines[10] != "..." || !e.Truncated {
			t.Fatalf("run %d: the first lines are %q", run, e.Lines[:11])
		}
		got := lines(t, l, 601, time.Time{})
		for i := range 300 {
			if got[2*i] != fmt.Sprint("out", i) || got[2*i+1] != fmt.Sprint("err", i) {
				t.Fatalf("run %d: line %d is %q, %q", run, i, got[2*i], got[2*i+1])
			}
		}
	}
	if entries, _ := filepath.Glob(filepath.Join(l.cfg.RunDir, "*.fifo")); len(entries) != 1 {
		t.Errorf("FIFOs of old incarnations are left: %q", entries)
	}
}

func TestFIFOIsPrivateAndBig(t *testing.T) {
	l := open(t)
	info, err := os.Stat(begin(t, l, 1))
	if err != nil || info.Mode() != os.ModeNamedPipe|0o600 {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	if n, err := unix.FcntlInt(l.FIFO().Fd(), unix.F_GETPIPE_SZ, 0); err != nil || n != pipeSize {
		t.Errorf("pipe of %d bytes, %v", n, err)
	}
}

func TestExcerptFitsAndMasks(t *testing.T) {
	numbered := func(from, to int, pad string) (out []string) {
		for i := from; i < to; i++ {
			out = append(out, fmt.Sprint(i, pad))
		}
		return out
	}
	for _, c := range []struct {
		name        string
		run         []string
		first, last string
		truncated   bool
	}{
		{"nothing", nil, "", "", false},
		{"fifty", numbered(0, 50, ""), "0", "49", false},
		{"fifty-one", numbered(0, 51, ""), "0", "50", true},
		{"many", numbered(0, 1000, ""), "0", "999", true},
		{"few but long", numbered(0, 30, strings.Repeat("x", 400)), "0" + strings.Repeat("x", 400), "29" + strings.Repeat("x", 400), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := cutExcerpt(c.run[:min(len(c.run), excerptFirst)], c.run, len(c.run))
			if size(e.Lines) > excerptBytes || e.Truncated != c.truncated || len(e.Lines) > excerptLines+excerptFirst+1 {
				t.Fatalf("%d bytes, %d lines, truncated %v", size(e.Lines), len(e.Lines), e.Truncated)
			}
			if len(c.run) > 0 && (e.Lines[0] != c.first || e.Lines[len(e.Lines)-1] != c.last) {
				t.Errorf("from %q to %q", e.Lines[0], e.Lines[len(e.Lines)-1])
			}
			seen := map[string]bool{}
			for _, s := range e.Lines {
				if seen[s] {
					t.Errorf("%q is quoted twice", s)
				}
				seen[s] = true
			}
		})
	}
	e := cutExcerpt(nil, []string{strings.Repeat("é", 5000)}, 1)
	if size(e.Lines) > excerptBytes || !e.Truncated || !utf8.ValidString(e.Lines[0]) || len(e.Lines[0]) < excerptBytes/2 {
		t.Errorf("one long line: %d bytes, truncated %v", size(e.Lines), e.Truncated)
	}
	e = cutExcerpt([]string{"token=first"}, append([]string{"token=first"}, append(numbered(0, 60, ""), "password=last")...), 62)
	if text := strings.Join(e.Lines, "\n"); strings.Contains(text, "first") || strings.Contains(text, "last") || e.Masked != 2 {
		t.Errorf("%d masked: %q", e.Masked, text)
	}
}

// An unfinished line counts: with 50 whole ones before it something is missing.
func TestExcerptCountsTheUnfinishedLine(t *testing.T) {
	l := open(t)
	sh(t, begin(t, l, 1), "i=0; while [ $i -lt 50 ]; do echo $i; i=$((i+1)); done; printf end")
	l.Drain()
	e := l.Excerpt()
	if !e.Truncated || e.Lines[0] != "0" || e.Lines[len(e.Lines)-1] != "end" {
		t.Errorf("%+v", e)
	}
}

// A huge line without an end costs neither memory nor what comes after it.
func TestHugeLineIsCut(t *testing.T) {
	l := open(t)
	sh(t, begin(t, l, 1), "head -c 64000000 /dev/zero | tr '\\0' x; echo; printf '\\377\\376 bad \\033[2J\\n'; echo after")
	l.Drain()
	got := lines(t, l, 3, time.Time{})
	if len(got[0]) != maxLine+len(" [line cut]") || !strings.HasSuffix(got[0], "x [line cut]") {
		t.Errorf("a huge line became %d bytes ending in %q", len(got[0]), got[0][len(got[0])-12:])
	}
	if want := "\uFFFD\uFFFD bad \uFFFD[2J"; got[1] != want || got[2] != "after" {
		t.Errorf("%q, %q", got[1], got[2])
	}
	for _, name := range []string{"web.log", "web.log.1"} {
		info, err := os.Stat(filepath.Join(l.cfg.LogDir, name))
		if err != nil || info.Size() > DefaultSize+readChunk {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}

func TestOnlyRegularFilesAreWritten(t *testing.T) {
	for name, place := range map[string]func(path, other string) error{
		"symlink": func(path, other string) error { return os.Symlink(other, path) },
		"fifo":    func(path, _ string) error { return unix.Mkfifo(path, 0o600) },
		"folder":  func(path, _ string) error { return os.Mkdir(path, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			l := open(t)
			other := filepath.Join(t.TempDir(), "other")
			if err := os.WriteFile(other, []byte("mine"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := place(filepath.Join(l.cfg.LogDir, "web.log"), other); err != nil {
				t.Fatal(err)
			}
			sh(t, begin(t, l, 1), "echo hello")
			l.Drain()
			if got := lines(t, l, 1, time.Now().Add(-time.Hour)); !slices.Equal(got, []string{"hello"}) {
				t.Errorf("in memory: %q", got)
			}
			if l.Dropped() != 6 {
				t.Errorf("%d bytes counted as dropped", l.Dropped())
			}
			if raw, _ := os.ReadFile(other); string(raw) != "mine" {
				t.Errorf("another's file has %q", raw)
			}
		})
	}
}

// A disk that refuses is counted and told, and used again when it has room.
func TestFullDiskIsCountedAndForgiven(t *testing.T) {
	var told []bool
	l := open(t, func(c *Config) { c.Refused = func(err error) { told = append(told, err != nil) } })
	path := filepath.Join(l.cfg.LogDir, "web.log")
	l.file.write([]byte("one\n"))
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	need.Had(t, err)
	l.file.f.Close()
	l.file.f = full
	l.file.write([]byte("lost\n"))
	l.file.write([]byte("two\n"))
	if raw, _ := os.ReadFile(path); string(raw) != "one\n\n[5 bytes were dropped: the disk was full or failed]\ntwo\n" || l.Dropped() != 5 {
		t.Errorf("file %q, dropped %d", raw, l.Dropped())
	}
	if !slices.Equal(told, []bool{true, false}) {
		t.Errorf("told %v, want a refusal and its end", told)
	}
}

// A service that prints no more is not the only one to notice that there is room.
func TestAFullDiskIsMendedWithoutAWriter(t *testing.T) {
	var refused error
	l := open(t, func(c *Config) { c.Refused = func(err error) { refused = err } })
	path := filepath.Join(l.cfg.LogDir, "web.log")
	if err := os.Mkdir(path, 0o700); err != nil { // nothing can be written there
		t.Fatal(err)
	}
	l.file.write([]byte("lost\n"))
	for range 2 { // each time: who hears of it asks for the next try
		if refused == nil {
			t.Fatal("a refusal was not told")
		}
		refused = nil
		l.Mend()
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	l.Mend()
	if raw, _ := os.ReadFile(path); refused != nil || !strings.Contains(string(raw), "[5 bytes were dropped") {
		t.Errorf("after there was room: %v, file %q", refused, raw)
	}
}

func TestFollowAndSince(t *testing.T) {
	l := open(t)
	fifo := begin(t, l, 1)
	sh(t, fifo, "echo old")
	l.Drain()
	mark := time.Now()
	got := make(chan string, 10)
	ended := make(chan error, 1)
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	go func() {
		ended <- l.Query(ctx, 0, mark, true, func(_ time.Time, s string) bool { got <- s; return s != "enough" })
	}()
	sh(t, fifo, "echo new; printf half")
	if s := <-got; s != "new" {
		t.Fatalf("followed %q", s)
	}
	// A new run ends the unfinished line of the old one.
	sh(t, begin(t, l, 2), "echo enough; echo more")
	if a, b := <-got, <-got; a != "half" || b != "enough" {
		t.Fatalf("followed %q, %q", a, b)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	go func() {
		ended <- l.Query(ctx, 1, time.Time{}, true, func(time.Time, string) bool { return true })
	}()
	l.Close()
	if err := <-ended; err != nil {
		t.Errorf("following a closed log ends with %v", err)
	}
}

func TestOlderLinesComeFromTheFiles(t *testing.T) {
	l := open(t)
	sh(t, begin(t, l, 1), "echo one; echo two; echo three")
	l.Close()
	again := open(t, func(c *Config) { *c = l.cfg })
	sh(t, begin(t, again, 2), "echo four")
	again.Drain()
	if got := lines(t, again, 3, time.Time{}); !slices.Equal(got, []string{"two", "three", "four"}) {
		t.Errorf("%q", got)
	}
}

// Adoption: what the last exec wrote comes first, then what the keeper wrote down,
// then the FIFO goes on.
func TestAdoptReadsTheAbsenceFirst(t *testing.T) {
	for _, given := range []bool{false, true} {
		l := open(t)
		fifo := begin(t, l, 1)
		w, err := os.OpenFile(fifo, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		fmt.Fprintln(w, "before")
		l.Drain()
		var r *os.File
		if given {
			if r, err = openFIFO(fifo); err != nil {
				t.Fatal(err)
			}
		}
		l.Close()
		away := AwayPath(l.cfg.LogDir, "web")
		if err := os.WriteFile(away, []byte("absent\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		again := open(t, func(c *Config) { *c = l.cfg })
		if err := again.Adopt(fifo, r, Mark{}); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(w, "after")
		again.Drain()
		if got := again.Excerpt().Lines; !slices.Equal(got, []string{"before", "absent", "after"}) {
			t.Errorf("kept reader %v: %q", given, got)
		}
		if _, err := os.Stat(away); err == nil {
			t.Error("SVC.away is left")
		}
	}
}

func TestAdoptRefusesWhatIsNoFIFO(t *testing.T) {
	l := open(t)
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if l.Adopt(path, nil, Mark{}) == nil {
		t.Error("a file was adopted as FIFO")
	}
	link := path + ".link"
	if err := os.Symlink(begin(t, l, 1), link); err != nil {
		t.Fatal(err)
	}
	if l.Adopt(link, nil, Mark{}) == nil {
		t.Error("a symlink was adopted as FIFO")
	}
}

func TestOwnFileAndEcho(t *testing.T) {
	own := filepath.Join(t.TempDir(), "own.log")
	if err := os.WriteFile(own, []byte("from its own file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var echo bytes.Buffer
	l := open(t, func(c *Config) { c.Echo = &echo })
	l.Follow(own)
	sh(t, begin(t, l, 1), "echo hello")
	l.Close()
	if got := l.Excerpt().Lines; !slices.Equal(got, []string{"hello", "from its own file"}) || echo.String() != "hello\n" {
		t.Errorf("%q, echo %q", got, echo.String())
	}
}

func FuzzRing(f *testing.F) {
	f.Add([]byte("a\nb\r\n\xff\n"), 1)
	f.Add(bytes.Repeat([]byte("x"), maxLine+1), 100)
	f.Fuzz(func(t *testing.T, data []byte, cut int) {
		cut = max(1, min(cut, len(data)))
		var r ring
		r.run(time.Time{})
		told := 0
		for part := range slices.Chunk(data, cut) {
			r.add(time.Time{}, part, func(line) { told++ })
		}
		if want := bytes.Count(data, []byte{'\n'}); told != want || r.seq != uint64(want) {
			t.Fatalf("%d lines told, seq %d, want %d", told, r.seq, want)
		}
		if len(r.partial) > maxLine || len(r.lines) > maxRingLines || r.bytes > maxRingBytes {
			t.Fatal("out of bounds")
		}
		for _, s := range r.ofRun() {
			if !utf8.ValidString(s) || strings.ContainsAny(s, "\n\x1b\x00") {
				t.Fatalf("unclean: %q", s)
			}
		}
	})
}

// What is printed during a query is not told twice.
func TestQueryBesideWrites(t *testing.T) {
	l := open(t)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for i := range maxRingLines {
			l.hand.Do(func() { l.take(fmt.Appendf(nil, "%d\n", i)) })
			time.Sleep(50 * time.Microsecond)
		}
	}()
	for over := false; !over; {
		select {
		case <-ended:
			over = true
		default:
		}
		for i, s := range lines(t, l, 100000, time.Time{}) {
			if s != fmt.Sprint(i) {
				t.Fatalf("line %d says %q", i, s)
			}
		}
	}
}

// slow is a busy host: each piece of output takes it longer than one may wish.
type slow struct{}

func (slow) Write(b []byte) (int, error) { time.Sleep(30 * time.Millisecond); return len(b), nil }

// Drain takes all that the pipe holds when it is called, however long that takes, and is
// not held up by a child that goes on printing.
func TestDrainTakesWhatIsThere(t *testing.T) {
	l := open(t, func(c *Config) { c.Echo = slow{} })
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	piece := []byte(strings.Repeat("x", 1023) + "\n")
	_, err = unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, pipeSize)
	need.Had(t, err)
	for range pipeSize / len(piece) {
		if _, err := w.Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	var prints sync.WaitGroup
	prints.Go(func() {
		for err := error(nil); err == nil; {
			_, err = w.Write(piece)
		}
	})
	l.mu.Lock()
	l.fifo = r
	l.mu.Unlock()
	l.Drain()
	l.mu.Lock()
	l.fifo = nil
	l.mu.Unlock()
	info, err := os.Stat(filepath.Join(l.cfg.LogDir, "web.log"))
	if err != nil || info.Size() < pipeSize || info.Size() > pipeSize+readChunk {
		t.Errorf("%d bytes were taken of %d, %v", info.Size(), pipeSize, err)
	}
	r.Close()
	prints.Wait()
	w.Close()
}
