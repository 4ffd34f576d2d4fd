package logs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"p2pnode/exec/disk"
)

// hanging makes the disk of l hang until the returned function is called.
func hanging(t *testing.T, l *Log) (goOn func()) {
	t.Helper()
	block, hung := make(chan struct{}), make(chan struct{})
	go l.hand.Do(func() { close(hung); <-block })
	<-hung
	return func() { close(block) }
}

func logged(t *testing.T, l *Log) string {
	t.Helper()
	var all []byte
	for _, name := range []string{"web.log.1", "web.log"} {
		raw, _ := os.ReadFile(filepath.Join(l.cfg.LogDir, name))
		all = append(all, raw...)
	}
	return string(all)
}

// While the disk hangs a service may print and end and the next one begin, and memory
// has its last words; the disk gets all of it once it goes on, in the order of printing.
func TestADiskThatHangsHoldsNobodyUp(t *testing.T) {
	told := make(chan error, 10)
	l := open(t, func(c *Config) { c.Refused = func(err error) { told <- err } })
	fifo := begin(t, l, 1)
	sh(t, fifo, "echo before")
	l.Drain()
	goOn := hanging(t, l)
	began := time.Now()
	sh(t, fifo, "echo while; head -c 600000 /dev/zero | tr '\\0' x; echo; printf 'last words'")
	l.Drain()
	if got := l.Excerpt().Lines; got[len(got)-1] != "last words" {
		t.Errorf("the last line is %.100q", got[len(got)-1])
	}
	fifo = begin(t, l, 2)
	sh(t, fifo, "echo next")
	l.Drain()
	if got := lines(t, l, 5, time.Time{}); !slices.Equal(got[len(got)-2:], []string{"last words", "next"}) {
		t.Errorf("memory ends with %.100q", got)
	}
	if m := l.Mark(); m != (Mark{}) {
		t.Errorf("the run began at %v, where nothing is", m)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	if err := <-told; err != disk.ErrHangs {
		t.Errorf("told %v", err)
	}
	goOn()
	if err := <-told; err != nil {
		t.Errorf("in the end told %v", err)
	}
	sh(t, fifo, "echo after")
	l.Drain()
	want := "before\nwhile\n" + strings.Repeat("x", 600000) + "\nlast words\nnext\nafter\n"
	if got := logged(t, l); got != want {
		t.Errorf("the file has %d bytes, want %d, and ends with %q", len(got), len(want), got[max(0, len(got)-60):])
	}
	if l.Dropped() != 0 || l.LeftOut() != 0 {
		t.Errorf("dropped %d, left out %d", l.Dropped(), l.LeftOut())
	}
}

// What memory cannot keep of a long hang is dropped and counted, in the file too.
func TestALongHangIsCounted(t *testing.T) {
	l := open(t)
	fifo := begin(t, l, 1)
	goOn := hanging(t, l)
	const all = 8 << 20
	flooded(t, l, fifo, all/64)
	goOn()
	l.hand.Do(func() {})
	text := logged(t, l)
	note := fmt.Sprintf("\n[%d bytes were dropped: the disk did not answer]\n", l.Dropped())
	if !strings.HasPrefix(text, note) || len(text)-len(note)+int(l.Dropped()) != all {
		t.Errorf("%d bytes dropped, %d in the file, which begins with %.100q", l.Dropped(), len(text), text)
	}
	if !bytes.HasSuffix([]byte(text), fmt.Appendf(nil, "%063d\n", all/64-1)) {
		t.Errorf("the file ends with %q", text[max(0, len(text)-100):])
	}
}

// A disk that hangs does not keep a Log from being closed, nor past lines that memory
// has from being shown.
func TestALogOnAHangingDiskIsClosed(t *testing.T) {
	l := open(t)
	fifo := begin(t, l, 1)
	goOn := hanging(t, l)
	sh(t, fifo, "echo hello")
	got := lines(t, l, 10, time.Time{})
	if len(got) == 0 || !strings.Contains(got[0], disk.ErrHangs.Error()) {
		t.Errorf("shown: %q", got)
	}
	l.Close()
	goOn()
	l.hand.Do(func() {})
	if text := logged(t, l); text != "hello\n" {
		t.Errorf("the file has %q", text)
	}
}
