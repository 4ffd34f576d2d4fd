package logs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Killed in the middle of a line, exec is followed by another one: the line is
// whole, the run has all its lines, those of the run before are not among them.
func TestTheNextExecRemembersTheRun(t *testing.T) {
	l := open(t)
	sh(t, begin(t, l, 1), "echo of another run; printf no-end")
	l.Drain()
	fifo := begin(t, l, 2)
	sh(t, fifo, "echo one; printf tw")
	l.Drain()
	m := l.Mark()
	l.Close()
	if err := os.WriteFile(AwayPath(l.cfg.LogDir, "web"), []byte("o\nthree\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	again := open(t, func(c *Config) { *c = l.cfg })
	if err := again.Adopt(fifo, nil, m); err != nil {
		t.Fatal(err)
	}
	if got := again.Excerpt().Lines; !slices.Equal(got, []string{"one", "two", "three"}) {
		t.Errorf("the run is %q", got)
	}
	if got := lines(t, again, 10, time.Time{}); !slices.Equal(got, []string{"of another run", "no-end", "one", "two", "three"}) {
		t.Errorf("the log is %q", got)
	}
	if again.Mark() != m {
		t.Errorf("the run began at %v, now at %v", m, again.Mark())
	}
}

// A run that is longer than memory keeps its first lines across an exec's death,
// wherever its file has gone by then.
func TestTheFirstLinesOfALongRunAreRemembered(t *testing.T) {
	for _, rotated := range []bool{false, true} {
		l := open(t)
		l.mu.Lock()
		l.file.write([]byte("of another run\n"))
		l.mu.Unlock()
		begin(t, l, 1)
		m := l.Mark()
		var text strings.Builder
		for i := range 60000 {
			fmt.Fprintf(&text, "line %d of many\n", i)
		}
		l.mu.Lock()
		l.file.write([]byte(text.String()))
		if rotated {
			l.file.rotate()
			l.file.write([]byte("in the next file\n"))
		}
		l.mu.Unlock()
		l.Close()
		again := open(t, func(c *Config) { *c = l.cfg })
		again.recall(m)
		got := again.Excerpt().Lines
		want := "line 59999 of many"
		if rotated {
			want = "in the next file"
		}
		if got[0] != "line 0 of many" || got[9] != "line 9 of many" || got[len(got)-1] != want {
			t.Errorf("rotated %v: %q", rotated, got)
		}
		if slices.Contains(got, "of another run") {
			t.Errorf("rotated %v: a line of another run is in the excerpt", rotated)
		}
	}
}

// All three files of a long absence come back in their order, and go.
func TestALongAbsenceComesBackInOrder(t *testing.T) {
	l := open(t)
	away := AwayPath(l.cfg.LogDir, "web")
	for suffix, text := range map[string]string{"": "head\n", AwayOlder: "older\n", AwayNewest: "newest\n"} {
		if err := os.WriteFile(away+suffix, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l.TakeAway()
	if got := lines(t, l, 10, time.Time{}); !slices.Equal(got, []string{"head", "older", "newest"}) {
		t.Errorf("%q", got)
	}
	if left, _ := filepath.Glob(away + "*"); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}
