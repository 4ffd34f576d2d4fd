package main

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"time"
)

// A reader that does not read must not stop the writer; what came through before
// and after is whole, and the loss is said.
func TestLossyNeverWaits(t *testing.T) {
	r, w := io.Pipe()
	l := newLossy(w)
	for range lossyLines + 100 {
		l.Write([]byte("line\n")) // would hang here
	}
	var got bytes.Buffer
	read := make(chan struct{})
	go func() {
		defer close(read)
		io.Copy(&got, r)
	}()
	if !until(5*time.Second, time.Millisecond, func() bool { return len(l.queue) == 0 }) {
		t.Fatal("it does not drain")
	}
	l.Write([]byte("last\n"))
	l.Close()
	w.Close()
	<-read
	if text := got.String(); !strings.Contains(text, "writes were dropped") || !strings.HasSuffix(text, "last\n") || strings.Count(text, "line\n") < lossyLines {
		t.Errorf("%d bytes, ending %q", len(text), text[max(0, len(text)-80):])
	}
	l.Write([]byte("after the end\n"))
}
