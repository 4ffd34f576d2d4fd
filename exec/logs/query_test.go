package logs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Lines that have no time are said to be left out where they may be young enough, and
// only there.
func TestLinesWithoutATimeAreSaid(t *testing.T) {
	start := time.Now()
	said := func(l *Log, since time.Time, want string) {
		t.Helper()
		if got := l.Untimed(since); (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	l := open(t)
	said(l, start.Add(-time.Hour), "")
	fifo := begin(t, l, 1)
	sh(t, fifo, "echo one; echo two")
	l.Drain()
	said(l, start.Add(-time.Hour), "")
	m := l.Mark()
	l.Close()

	again := open(t, func(c *Config) { *c = l.cfg })
	said(again, start, "lines from before") // of a service that was not running: in the file alone
	if err := again.Adopt(fifo, nil, m); err != nil {
		t.Fatal(err)
	}
	said(again, start, "lines from before") // read back into memory
	said(again, again.opened, "")
	said(again, time.Time{}, "")

	own := filepath.Join(t.TempDir(), "own.log")
	again.Follow(own)
	said(again, again.opened, "")
	if err := os.WriteFile(own, []byte("its own\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	said(again, again.opened, own)
	said(again, time.Now().Add(time.Minute), "")

	full := open(t)
	sh(t, begin(t, full, 1), "seq 5000")
	full.Drain()
	said(full, start, "lines from before")
	time.Sleep(10 * time.Millisecond)
	said(full, time.Now(), "")
}
