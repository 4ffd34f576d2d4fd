package logs

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// written is all that the files of a log have.
func written(l *Log) string {
	c := l.file.files()
	defer c.close()
	return string(c.text(0, c.size))
}

// filesOf are the files that are there.
func filesOf(t *testing.T, dir string) (out []string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "web.log*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		out = append(out, filepath.Base(p))
	}
	return out
}

// A log has at most its size and as many files as are kept, the newest lines are in
// them, and what is said anew holds at once.
func TestSizeAndKeep(t *testing.T) {
	dir := t.TempDir()
	l := opened(t, dir)
	l.Retain(1000, 3)
	n := 0
	say := func(lines int) {
		for range lines {
			l.hand.Do(func() { l.take(fmt.Appendf(nil, "%099d\n", n)) })
			n++
		}
	}
	sizes := func(want ...int64) {
		t.Helper()
		for i, size := range want {
			if info, err := os.Stat(numbered(l.file.path, i)); err != nil || info.Size() != size {
				t.Errorf("file %d of %v: %v, %v", i, want, info, err)
			}
		}
		if got := filesOf(t, dir); len(got) != len(want) {
			t.Errorf("%v, should be %d", got, len(want))
		}
	}
	say(100)
	sizes(100, 1100, 1100, 1100) // the line that is over its size goes with it
	again := opened(t, dir)      // which nobody has told how many there may be
	if got := lines(t, again, 1000, time.Time{}); len(got) != 34 || got[0] != fmt.Sprintf("%099d", 66) || got[33] != fmt.Sprintf("%099d", 99) {
		t.Errorf("%d lines in the files: %q", len(got), got)
	}
	l.Retain(2000, 2)
	awaitFiles(t, dir, 3)
	say(21)
	sizes(100, 2100, 1100)
	again = opened(t, dir)
	again.Retain(0, 0)
	awaitFiles(t, dir, 2)
}

func awaitFiles(t *testing.T, dir string, n int) {
	t.Helper()
	for range 1000 {
		if len(filesOf(t, dir)) == n {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("%v, should be %d files", filesOf(t, dir), n)
}

// A rotation that is cut short by a kill at any of its steps, and then another one: all
// lines but those of the oldest file are there, once and in order, and that went once.
func TestARotationThatWasCutShort(t *testing.T) {
	const keep = 4
	for cut := 0; cut <= keep; cut++ {
		dir := t.TempDir()
		l := opened(t, dir)
		l.Retain(1<<20, keep)
		text := ""
		for n := range keep + 1 { // as full as it may be
			line := fmt.Sprintf("of file %d\n", n)
			text += line
			l.hand.Do(func() {
				l.take([]byte(line))
				if n < keep {
					l.file.rotate()
				}
			})
		}
		if got := written(l); got != text {
			t.Fatalf("%q, should be %q", got, text)
		}
		l.Close()
		for _, n := range steps(l.file.path, keep)[:cut] {
			if err := os.Rename(numbered(l.file.path, n-1), numbered(l.file.path, n)); err != nil {
				t.Fatal(err)
			}
		}
		if cut > 0 {
			_, text, _ = strings.Cut(text, "\n") // its place was taken
		}
		again := opened(t, dir)
		again.Retain(1<<20, keep)
		if got := written(again); got != text {
			t.Errorf("cut after %d steps: %q, should be %q", cut, got, text)
		}
		again.hand.Do(func() {
			again.take([]byte("after\n"))
			again.file.rotate()
			again.take([]byte("rotated\n"))
		})
		want := text + "after\nrotated\n"
		if cut == 0 || cut == keep { // no number is left out
			_, want, _ = strings.Cut(want, "\n")
		}
		if got := written(again); got != want {
			t.Errorf("cut after %d steps and rotated: %q, should be %q", cut, got, want)
		}
		if got := filesOf(t, dir); len(got) != keep+1 {
			t.Errorf("cut after %d steps and rotated: %v", cut, got)
		}
	}
}

// A file that cannot be given on is not written over, and the log that cannot be rotated
// for it grows to twice its size before it is cut.
func TestARotationThatIsRefused(t *testing.T) {
	l := opened(t, t.TempDir())
	l.Retain(1000, 3)
	say := func(lines int) {
		for range lines {
			l.hand.Do(func() { l.take(fmt.Appendf(nil, "%099d\n", 1)) })
		}
	}
	say(22) // two files full, and 0 bytes in the third
	if err := os.MkdirAll(filepath.Join(numbered(l.file.path, 3), "somebody's"), 0o700); err != nil {
		t.Fatal(err)
	}
	before, _ := os.ReadFile(numbered(l.file.path, 2))
	size := func(n int) int64 {
		info, err := os.Stat(numbered(l.file.path, n))
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	say(20)
	if after, _ := os.ReadFile(numbered(l.file.path, 2)); len(before) == 0 || string(after) != string(before) || size(0) != 2000 {
		t.Errorf("refused: %d bytes were in .2, %d are, %d in the log", len(before), len(after), size(0))
	}
	if say(1); size(0) != 0 {
		t.Errorf("twice its size and not cut: %d", size(0))
	}
}

// A log whose exec is killed over and over, most often in a rotation, has what is kept of
// it without a gap and without a repetition.
func TestARotatedLogOutlivesKills(t *testing.T) {
	if dir := os.Getenv("LOGS_TEST_WRITER"); dir != "" {
		numberLines(dir)
		return
	}
	const keep, size = 6, 400
	dir := t.TempDir()
	kills, cutShort := 60, 0
	for range kills {
		cmd := exec.Command(os.Args[0], "-test.run=^TestARotatedLogOutlivesKills$")
		cmd.Env = append(os.Environ(), "LOGS_TEST_WRITER="+dir, "GOCOVERDIR="+t.TempDir())
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(5000)) * time.Microsecond)
		cmd.Process.Kill()
		cmd.Wait()

		c := chainOf(filepath.Join(dir, "web.log"), keep)
		text := strings.Split(string(c.text(0, c.size)), "\n")
		for i, p := range c.parts {
			if i > 0 && p.n != c.parts[i-1].n-1 {
				cutShort++
			}
		}
		c.close()
		for i := 1; i < len(text)-1; i++ {
			was, err := strconv.Atoi(text[i-1])
			now, bad := strconv.Atoi(text[i])
			if err != nil || bad != nil || now != was+1 {
				t.Fatalf("line %q after %q", text[i], text[i-1])
			}
		}
		if len(text) < keep*size/10 {
			t.Fatalf("only %d lines are left: %v", len(text), filesOf(t, dir))
		}
	}
	t.Logf("%d kills, of which %d in a rotation", kills, cutShort)
	if cutShort == 0 {
		t.Error("no kill came between two steps: this shows nothing")
	}
}

// numberLines goes on with a log of numbered lines until it is killed.
func numberLines(dir string) {
	l, err := Open(Config{RunDir: dir, LogDir: dir, Service: "web"})
	if err != nil {
		panic(err)
	}
	l.Retain(400, 6)
	next := 0
	l.hand.Do(func() {
		text := strings.TrimSuffix(written(l), "\n")
		if last := text[strings.LastIndexByte(text, '\n')+1:]; last != "" {
			n, _ := strconv.Atoi(last)
			next = n + 1
		}
	})
	for first := true; ; next++ {
		l.hand.Do(func() { l.take(fmt.Appendf(nil, "%09d\n", next)) })
		if first && next > 400 {
			first = false
			fmt.Println("goes on")
		}
	}
}

// What was read of a log in whatever files, by whatever steps, is what is in them: lines
// that go over a rotation, chunks that end anywhere, a last line without an end.
func FuzzChain(f *testing.F) {
	f.Add([]byte("a\nb\n\nccc\r\nd"), uint64(1), 3, 1)
	f.Add([]byte("\n\n\n"), uint64(7), 100, 2)
	f.Add(append(bytes.Repeat([]byte("x"), readChunk-1), "\nb\n"...), uint64(3), 5, 0)
	dice := rand.New(rand.NewPCG(1, 2))
	for seed := range uint64(300) {
		text := make([]byte, dice.IntN(40))
		for i := range text {
			text[i] = "\nab"[dice.IntN(3)]
		}
		f.Add(text, seed, dice.IntN(12), dice.IntN(6))
	}
	f.Fuzz(func(t *testing.T, text []byte, seed uint64, n, skip int) {
		n, skip = n%1000, skip%1000
		if n < 0 || skip < 0 || len(text) > 1<<20 {
			return
		}
		path := filepath.Join(t.TempDir(), "web.log")
		dice := rand.New(rand.NewPCG(seed, 0))
		const keep = 4
		rest := text
		for i := keep; i >= 0; i-- {
			size := len(rest)
			if i > 0 {
				size = dice.IntN(len(rest) + 1)
			}
			if dice.IntN(5) > 0 || i == 0 { // else a number is left out
				put(t, numbered(path, i), string(rest[:size]))
				rest = rest[size:]
			}
		}
		var want []string
		var all ring
		all.add(time.Time{}, text, func(l line) { want = append(want, l.text) })
		if len(all.partial) > 0 {
			want = append(want, all.newline(time.Time{}).text)
		}
		want = want[:max(0, len(want)-skip)]
		want = want[max(0, len(want)-n):]
		var got []string
		c := chainOf(path, keep)
		if c.size != int64(len(text)) || !bytes.Equal(c.text(0, c.size), text) {
			t.Fatalf("%d bytes of %d", c.size, len(text))
		}
		c.older(t.Context(), n, skip, func(s string) bool { got = append(got, s); return true })
		if !slices.Equal(got, want) {
			t.Fatalf("the %d lines before the last %d of %.200q: %.200q, should be %.200q", n, skip, text, got, want)
		}
	})
}

// A place is one in a file, not in whatever has its inode's number by now.
func TestAPlaceIsOfOneFile(t *testing.T) {
	dir := t.TempDir()
	knowsBirths(t, dir)
	l := opened(t, dir)
	l.take([]byte("before\n"))
	m := l.file.mark()
	l.take([]byte("the run\n"))
	l.Close()
	for _, c := range []struct {
		born, first int64
		want        []string
	}{{0, 0, []string{"the run"}}, {-m.Born, 0, []string{"the run"}}, {1, 0, []string{"before", "the run"}}} {
		again := opened(t, dir)
		from := m
		from.Born += c.born
		again.recall(from)
		if got := again.Excerpt().Lines; !slices.Equal(got, c.want) {
			t.Errorf("born %+d: the run is %q, should be %q", c.born, got, c.want)
		}
	}
}

// A run that goes over rotations is told whole, from where it began to where the next one
// did.
func TestARunOverSeveralFiles(t *testing.T) {
	dir := t.TempDir()
	l := opened(t, dir)
	l.Retain(40, 9)
	var marks []Mark
	for run := range 5 {
		marks = append(marks, l.file.mark())
		for i := range 12 {
			l.take(fmt.Appendf(nil, "run %d line %d\n", run, i))
		}
	}
	e := l.ExcerptOf(marks[2], marks[3])
	if len(e.Lines) != 12 || e.Lines[0] != "run 2 line 0" || e.Lines[11] != "run 2 line 11" || e.Truncated {
		t.Errorf("%+v", e)
	}
	again := opened(t, dir)
	again.recall(marks[4])
	if got := again.Excerpt(); len(got.Lines) != 12 || got.Lines[0] != "run 4 line 0" {
		t.Errorf("%+v", got)
	}
	if e := l.ExcerptOf(Mark{}, marks[0]); len(e.Lines) != 0 {
		t.Errorf("of a file that has gone: %+v", e)
	}
	if got := l.ExcerptOf(marks[0], marks[4]); len(got.Lines) == 0 {
		t.Errorf("a run whose beginning has gone: %+v", got)
	}
}

// Whoever follows a log is told each line of the past once, also where it ends with the
// beginning of another one.
func TestThePastOfAFollowedLogIsToldOnce(t *testing.T) {
	dir := t.TempDir()
	l := opened(t, dir)
	l.hand.Do(func() { l.take([]byte("a\nb\n")) })
	l.Close()
	again := opened(t, dir)
	fifo := begin(t, again, 1)
	sh(t, fifo, "echo c; printf half")
	again.Drain()
	var got []string
	again.Query(t.Context(), 10, time.Time{}, true, func(_ time.Time, s string) bool {
		if got = append(got, s); s == "c" {
			again.Close()
		}
		return true
	})
	if !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("%q", got)
	}
}

// However large files are, and however much is asked for, a query holds a buffer and a
// line.
func TestAQueryHoldsLittle(t *testing.T) {
	dir := t.TempDir()
	text := strings.Repeat(strings.Repeat("x", 99)+"\n", 10000)
	for n := range 4 {
		f, err := os.Create(numbered(filepath.Join(dir, "web.log"), n))
		if err != nil {
			t.Fatal(err)
		}
		for range 16 {
			f.WriteString(text)
		}
		f.Close()
	}
	l := opened(t, dir)
	var m runtime.MemStats
	held := func() uint64 { runtime.GC(); runtime.ReadMemStats(&m); return m.HeapAlloc }
	before, most, n := held(), uint64(0), 0
	began := time.Now()
	l.Query(t.Context(), 1<<30, time.Time{}, false, func(time.Time, string) bool {
		if n++; n%100000 == 0 {
			most = max(most, held())
		}
		return true
	})
	t.Logf("%d lines in %v, %d KiB held", n, time.Since(began), (max(most, before)-before)>>10)
	if n != 640000 || most > before+4<<20 {
		t.Errorf("%d lines, %d bytes are held, %d before", n, most, before)
	}
	began = time.Now()
	if got := lines(t, l, 5, time.Time{}); len(got) != 5 || time.Since(began) > time.Second {
		t.Errorf("%d of the newest lines, in %v", len(got), time.Since(began))
	}
}

// Who reads slowly is told all that was there when he asked, though rotations have taken
// it away meanwhile; where too many ask at once, how much he missed.
func TestASlowReader(t *testing.T) {
	for _, many := range []bool{false, true} {
		dir := t.TempDir()
		l := opened(t, dir)
		l.Retain(30, 3)
		say := func(n int) { l.hand.Do(func() { l.take(fmt.Appendf(nil, "line %010d\n", n)) }) }
		for n := range 12 {
			say(n)
		}
		asked := opened(t, dir) // without memory
		if many {
			held.Add(maxHeld)
		}
		var got []string
		asked.Query(t.Context(), 1000, time.Time{}, false, func(_ time.Time, text string) bool {
			got = append(got, text)
			if len(got) == 1 {
				for n := range 12 {
					say(100 + n)
				}
			}
			return true
		})
		if many {
			held.Add(-maxHeld)
		}
		text := strings.Join(got, "\n")
		switch {
		case !many && (len(got) < 6 || !strings.HasSuffix(text, fmt.Sprintf("line %010d", 11)) || strings.Contains(text, "gone")):
			t.Errorf("he was told %q", got)
		case many && strings.Count(text, "[32 bytes were gone before they could be shown]") < 2:
			t.Errorf("of many, he was told %q", got)
		}
		if n := held.Load(); n != 0 {
			t.Errorf("%d files are still held", n)
		}
	}
}
