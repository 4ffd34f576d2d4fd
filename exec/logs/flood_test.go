package logs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// flooded prints n lines of 64 bytes through the FIFO and returns when all are read.
// The race detector makes reading slower than a flood: sizes are small.
func flooded(t *testing.T, l *Log, fifo string, n int) {
	t.Helper()
	out, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	var chunk bytes.Buffer
	for i := range n {
		fmt.Fprintf(&chunk, "%063d\n", i)
		if chunk.Len() >= 64<<10 || i == n-1 {
			if _, err := out.Write(chunk.Bytes()); err != nil {
				t.Fatal(err)
			}
			chunk.Reset()
		}
	}
	last := fmt.Sprintf("%063d", n-1)
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if got := lines(t, l, 1, time.Time{}); len(got) == 1 && got[0] == last {
			return
		}
	}
	t.Fatal("the last line is not in memory")
}

// Of a second that has too much the file has the first 10 MB and the last one, and
// what is missing between is counted; memory has the newest lines whatever comes.
func TestFloodIsBoundedOnDisk(t *testing.T) {
	l := open(t)
	l.flood.rate, l.flood.last = 128<<10, 64<<10 // so that a slow reader on a busy machine is flooded too
	fifo := begin(t, l, 1)
	const all = 10 << 20
	began := time.Now()
	flooded(t, l, fifo, all/64)
	seconds := int(time.Since(began)/time.Second) + 1
	l.Close()
	var text []byte
	for _, name := range []string{"web.log.1", "web.log"} {
		raw, _ := os.ReadFile(filepath.Join(l.cfg.LogDir, name)) // rotated only if there was much
		text = append(text, raw...)
	}
	kept := int64(len(text))
	if most := int64(seconds+1) * int64(l.flood.rate+l.flood.last+readChunk+128); kept > most {
		t.Errorf("%d bytes are on disk after %d s, at most %d should be", kept, seconds, most)
	}
	if !bytes.HasSuffix(text, fmt.Appendf(nil, "%063d\n", all/64-1)) {
		t.Errorf("the file ends with %q", text[max(0, len(text)-100):])
	}
	if out := l.LeftOut(); out == 0 || !strings.Contains(string(text), " bytes were left out: more than ") {
		t.Errorf("%d bytes are counted as left out", out)
	}
	if l.Dropped() != 0 {
		t.Errorf("%d bytes dropped by a disk that works", l.Dropped())
	}
}

// A flood that ends leaves nothing in memory that belongs on disk: the end of its
// last second is written though nothing more comes.
func TestFloodEndsOnDiskByItself(t *testing.T) {
	l := open(t)
	l.flood.rate, l.flood.last = 128<<10, 64<<10
	fifo := begin(t, l, 1)
	const n = 2 << 20 / 64
	flooded(t, l, fifo, n)
	want := fmt.Appendf(nil, "%063d\n", n-1)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		raw, _ := os.ReadFile(filepath.Join(l.cfg.LogDir, "web.log"))
		if bytes.HasSuffix(raw, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the file ends with %q", raw[max(0, len(raw)-100):])
		}
	}
}

// The arithmetic of one second, byte by byte.
func TestFloodCountsWhatItLeavesOut(t *testing.T) {
	f := flood{rate: maxRate, last: floodTail}
	now := time.Now()
	if !f.turn(now) || f.full() {
		t.Fatal("a first second is new and empty")
	}
	f.taken = maxRate
	if !f.full() || f.turn(now.Add(time.Second-1)) || !f.turn(now.Add(time.Second)) || f.full() {
		t.Error("a second ends after a second")
	}
	var all []byte
	for i := range 100 {
		part := bytes.Repeat([]byte{byte('a' + i%26)}, 50_001)
		all = append(all, part...)
		f.keep(part)
	}
	note, missing, tail := f.end()
	want := len(all) - floodTail
	if note != fmt.Sprintf("\n[%d bytes were left out: more than %d in one second]\n", want, maxRate) || missing != want || !bytes.Equal(tail, all[want:]) {
		t.Errorf("got %d bytes after %q, which means %d", len(tail), note, missing)
	}
	if _, _, more := f.end(); f.total.Load() != uint64(want) || more != nil {
		t.Errorf("counted %d", f.total.Load())
	}
}
