package logs

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"p2pnode/test/need"

	"golang.org/x/sys/unix"
)

// What a service prints goes from the pipe into the file by the kernel's hand, and
// is in memory too; a file that somebody cut goes on where it ends now.
func TestOutputIsMovedIntoTheFile(t *testing.T) {
	l := open(t)
	fifo := begin(t, l, 1)
	path := filepath.Join(l.cfg.LogDir, "web.log")
	sh(t, fifo, "echo one")
	l.Drain()
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	sh(t, fifo, "echo two; echo three")
	l.Drain()
	if raw, _ := os.ReadFile(path); string(raw) != "two\nthree\n" {
		t.Errorf("file %q", raw)
	}
	if got := lines(t, l, 10, time.Time{}); !slices.Equal(got, []string{"one", "two", "three"}) {
		t.Errorf("memory %q", got)
	}
}

// Where the kernel cannot move, reading and writing does; what the disk refuses
// is counted, and the service is not held up.
func TestOutputThatCannotBeMovedIsRead(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	need.Had(t, err)
	l := open(t)
	fifo := begin(t, l, 1)
	l.hand.Do(func() {
		l.file.f.Close()
		l.file.f = full
	})
	sh(t, fifo, "echo lost")
	l.Drain()
	sh(t, fifo, "echo kept")
	l.Drain()
	raw, _ := os.ReadFile(filepath.Join(l.cfg.LogDir, "web.log"))
	if l.Dropped() != 5 || !strings.HasSuffix(string(raw), "\nkept\n") {
		t.Errorf("dropped %d, file %q", l.Dropped(), raw)
	}
	if got := l.Excerpt().Lines; !slices.Equal(got, []string{"lost", "kept"}) {
		t.Errorf("memory %q", got)
	}
}

// A log's way from the pipe to file and memory, line by line and in bulk.
func BenchmarkPull(b *testing.B) {
	for _, c := range []struct {
		name  string
		bytes int
	}{{"line", 80}, {"bulk", 32 << 10}} {
		b.Run(c.name, func(b *testing.B) {
			l, err := Open(Config{RunDir: b.TempDir(), LogDir: b.TempDir(), Service: "web"})
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			r, w, err := os.Pipe()
			if err != nil {
				b.Fatal(err)
			}
			defer r.Close()
			defer w.Close()
			text := []byte(strings.Repeat("x", c.bytes-1) + "\n")
			unix.SetNonblock(int(r.Fd()), true)
			l.fifo = r
			defer func() { l.fifo = nil }()
			b.ReportAllocs()
			b.SetBytes(int64(c.bytes))
			for b.Loop() {
				if _, err := w.Write(text); err != nil {
					b.Fatal(err)
				}
				if _, err := l.pull(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
