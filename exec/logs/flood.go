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
// A disk that hangs takes nothing: what comes meanwhile is kept like what comes after
// maxRate.
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
	hangs bool          // the disk
	total atomic.Uint64 // left out, ever; read without the lock
	hung  atomic.Uint64 // likewise while the disk hung
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

// end is what the file gets of a second that had too much, nil if it had not, and
// before it a line that says how many bytes are missing there. The memory is let go.
func (f *flood) end() (note string, missing int, tail []byte) {
	if f.timer != nil {
		f.timer.Stop()
		f.timer = nil
	}
	if len(f.tail) == 0 {
		return "", 0, nil
	}
	if more := len(f.tail) - f.last; more > 0 {
		f.out += more
		f.tail = f.tail[more:]
	}
	switch {
	case f.out > 0 && f.hangs:
		note = fmt.Sprintf("\n[%d bytes were dropped: the disk did not answer]\n", f.out)
		f.hung.Add(uint64(f.out))
	case f.out > 0:
		note = fmt.Sprintf("\n[%d bytes were left out: more than %d in one second]\n", f.out, f.rate)
		f.total.Add(uint64(f.out))
	}
	missing, tail = f.out, f.tail
	f.tail, f.out = nil, 0
	return note, missing, tail
}

// flooded takes what a FIFO held into memory alone, while the second that goes on has
// had its share of the file, or the disk hangs.
func (l *Log) flooded(data []byte) {
	l.mu.Lock()
	l.flood.keep(data)
	if l.flood.timer == nil {
		l.flood.timer = time.AfterFunc(time.Second, func() { // also where nothing more comes
			l.hand.Try(func() { l.endFlood() })
		})
	}
	l.mu.Unlock()
	l.note(data, 0)
}

// endFlood puts the end of a second that had too much, or what was kept while the disk
// hung, into the file; false if there is none. Done by the hand.
func (l *Log) endFlood() (more bool) {
	l.mu.Lock()
	note, missing, tail := l.flood.end()
	l.mu.Unlock()
	if tail == nil {
		return false
	}
	if missing > 0 {
		l.file.say(note, missing)
	}
	l.file.write(tail)
	return true
}

// LeftOut is how many bytes were kept out of the file, since they were too many in
// one second. It waits for nothing.
func (l *Log) LeftOut() uint64 {
	return l.flood.total.Load()
}
