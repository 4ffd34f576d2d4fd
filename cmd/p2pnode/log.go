package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// logger writes to w in the format that was asked for. part names the role on
// every line.
func (o *options) logger(part string, w io.Writer) zerolog.Logger {
	if o.LogFormat == "text" {
		w = zerolog.ConsoleWriter{Out: w, NoColor: !wantsColor(os.Stderr), TimeFormat: time.StampMilli}
	}
	zerolog.TimeFieldFormat = time.RFC3339Nano
	level, err := zerolog.ParseLevel(o.LogLevel)
	if err != nil {
		level = zerolog.InfoLevel
	}
	return zerolog.New(w).Level(level).With().Timestamp().Str("part", part).Logger()
}

// lossy passes writes on without ever waiting for their end: a terminal that was
// stopped with Ctrl-S, a full pipe or a terminal that went away (EIO) must not
// stop what keeps services alive. What does not fit is dropped and counted in a
// line of its own.
type lossy struct {
	queue chan []byte
	done  chan struct{}

	mu      sync.Mutex
	dropped int
	closed  bool
}

// lossyLines is how many writes wait at most.
const lossyLines = 1024

func newLossy(to io.Writer) *lossy {
	l := &lossy{queue: make(chan []byte, lossyLines), done: make(chan struct{})}
	go func() {
		defer close(l.done)
		for b := range l.queue {
			to.Write(b)
		}
	}()
	return l
}

// Write implements io.Writer; it cannot fail.
func (l *lossy) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return len(b), nil
	}
	text := bytes.Clone(b)
	if l.dropped > 0 {
		text = append(fmt.Appendf(nil, "p2pnode: %d writes were dropped: nobody took them\n", l.dropped), text...)
	}
	select {
	case l.queue <- text:
		l.dropped = 0
	default:
		l.dropped++
	}
	return len(b), nil
}

// Close lets what is queued be written, for a moment at most.
func (l *lossy) Close() {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.queue)
	}
	l.mu.Unlock()
	select {
	case <-l.done:
	case <-time.After(200 * time.Millisecond):
	}
}
