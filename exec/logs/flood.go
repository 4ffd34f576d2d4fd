package logs

import (
	"fmt"
	"sync/atomic"
	"time"
)

// flood bounds what one service may put on disk in a second. The first maxRate bytes
// of a second go into the file as they come. What a second has beyond that is in
// memory only (ring.go), but for its last floodTail bytes, which follow in the file
// when the second is over, after a line that counts what is missing between.
//
//	second:   |<-- maxRate -->|   left out, counted   |<-- floodTail -->|
//
// Log.mu guards it.
type flood struct {
	rate  int       // maxRate
	last  int       // floodTail
	began time.Time // of the second
	taken int       // bytes of it that are in the file
	tail  []byte    // what came after maxRate, in the end its last bytes
	out   int       // how much of the tail was dropped again
	timer *time.Timer
	total atomic.Uint64 // left out, ever; read without the lock
}

// full reports whether the second that goes on has had its share of the file.
func (f *flood) full() bool { return f.taken >= f.rate }

// turn begins a new second where the old one is over; the caller writes the tail.
func (f *flood) turn(now time.Time) (over bool) {
	if since := now.Sub(f.began); since >= 0 && since < time.Second {
		return false
	}
	f.began, f.taken = now, 0
	return true
}

// keep takes what came after maxRate.
func (f *flood) keep(data []byte) {
	f.tail = append(f.tail, data...)
	if more := len(f.tail) - 2*f.last; more > 0 { // room for twice, so that bytes move once
		more += f.last
		f.out += more
		f.tail = append(f.tail[:0], f.tail[more:]...)
	}
}

// end is what the file gets of a second that had too much; nil if it had not. The
// memory is let go.
func (f *flood) end() []byte {
	if f.timer != nil {
		f.timer.Stop()
		f.timer = nil
	}
	if len(f.tail) == 0 {
		return nil
	}
	if more := len(f.tail) - f.last; more > 0 {
		f.out += more
		f.tail = f.tail[more:]
	}
	var note []byte
	if f.out > 0 {
		note = fmt.Appendf(nil, "\n[%d bytes were left out: more than %d in one second]\n", f.out, f.rate)
	}
	data := append(note, f.tail...)
	f.total.Add(uint64(f.out))
	f.tail, f.out = nil, 0
	return data
}

// floodedLocked takes what a FIFO holds into memory alone, while the second that
// goes on has had its share of the file.
func (l *Log) floodedLocked(data []byte) {
	l.flood.keep(data)
	if l.flood.timer == nil {
		l.flood.timer = time.AfterFunc(time.Second, func() { // also where nothing more comes
			l.mu.Lock()
			defer l.mu.Unlock()
			l.endFloodLocked()
		})
	}
	l.noteLocked(data)
}

// endFloodLocked puts the end of a second that had too much into the file.
func (l *Log) endFloodLocked() {
	if data := l.flood.end(); data != nil && !l.closed {
		l.file.write(data)
	}
}

// LeftOut is how many bytes were kept out of the file, since they were too many in
// one second. It waits for nothing.
func (l *Log) LeftOut() uint64 {
	return l.flood.total.Load()
}
