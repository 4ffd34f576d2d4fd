// Package disk does things to a disk that may not answer: a frozen file system, a
// network file system whose server is gone, a journal that stalls. A call into the
// kernel that hangs there cannot be ended, so it is left to a goroutine of its own, and
// who asked for it goes on without.
//
// It promises:
//
//   - A Hand does one thing at a time, in the order in which it began them.
//   - Try returns once something lasts for Patience; while the disk hangs at once. One
//     goroutine of a Hand waits for the disk, not one for each call.
//
// Tests hand it functions that wait for a channel.
//
// Read next: Hand.
package disk

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Patience is how long a disk may take until it counts as hanging. A busy one answers
// within it; a start that meets a disk which has just begun to hang takes it a few times.
const Patience = 300 * time.Millisecond

// Little is how long something is waited for that is most likely to hang too.
const Little = 50 * time.Millisecond

// ErrHangs is what is said of a disk that does not answer.
var ErrHangs = errors.New("the disk does not answer")

// Hand does one thing to a disk at a time. The zero value is ready.
type Hand struct {
	// Turned is told that the disk hangs, and that it does no longer. It must not block.
	Turned func(hangs bool)
	// Back is called when a disk that hung goes on, before Try works again, until it
	// returns false: what was put aside meanwhile is done there.
	Back func() (more bool)

	mu    sync.Mutex
	work  chan struct{} // closed when what is done now is done; nil: nothing
	began time.Time     // that
	hangs bool
}

// Try has f done and waits for that; false if the disk does not answer. f may be
// done all the same then, later: what it touches is its own.
func (h *Hand) Try(f func()) (done bool) {
	late := time.NewTimer(Patience)
	defer late.Stop()
	return h.do(f, late)
}

// Do has f done however long it takes.
func (h *Hand) Do(f func()) { h.do(f, nil) }

func (h *Hand) do(f func(), late *time.Timer) (done bool) {
	var over <-chan time.Time
	if late != nil {
		over = late.C
	}
	for {
		h.mu.Lock()
		if h.hangs && late != nil {
			h.mu.Unlock()
			return false
		}
		work, mine := h.work, h.work == nil
		if mine {
			work = make(chan struct{})
			h.work, h.began = work, time.Now()
			go h.run(f)
		}
		h.mu.Unlock()
		for waits := true; waits; {
			select {
			case <-work:
				if mine {
					return true
				}
				waits = false
			case <-over:
				left := h.overdue(work)
				if left == 0 {
					return false
				}
				late.Reset(left)
			}
		}
	}
}

// overdue notes that the disk hangs if work has lasted for Patience; else it returns how
// long to wait on: who queues behind many that end in time has seen none hang.
func (h *Hand) overdue(work chan struct{}) (left time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.work != work {
		return Patience // it is done, as work says
	}
	if left = Patience - time.Since(h.began); left > 0 {
		return left
	}
	h.turnLocked(true)
	return 0
}

func (h *Hand) turnLocked(hangs bool) {
	if h.hangs == hangs {
		return
	}
	h.hangs = hangs
	if h.Turned != nil {
		h.Turned(hangs)
	}
}

// run does f, and after a disk that hung what was put aside.
func (h *Hand) run(f func()) {
	f()
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.hangs {
		h.mu.Unlock()
		more := h.Back != nil && h.Back()
		h.mu.Lock()
		if !more {
			h.turnLocked(false)
		}
	}
	close(h.work)
	h.work = nil
}

// Hangs reports whether the disk is known not to answer.
func (h *Hand) Hangs() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.hangs
}

// Got is what f returns, done by h; false if the disk does not answer.
func Got[T any](h *Hand, f func() T) (v T, done bool) {
	got := make(chan T, 1)
	if !h.Try(func() { got <- f() }) {
		return v, false
	}
	return <-got, true
}

// Within returns what f does within patience, or ErrHangs; what f returns later is
// undone by late, if that is not nil.
func Within[T any](patience time.Duration, f func() (T, error), late func(T)) (T, error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), patience, ErrHangs)
	defer cancel()
	return Unless(ctx, f, late)
}

// Unless returns what f does unless ctx ends before, or the cause of that; what f returns
// later is undone by late, if that is not nil.
func Unless[T any](ctx context.Context, f func() (T, error), late func(T)) (v T, err error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
	}
	if late != nil {
		go func() {
			if r := <-done; r.err == nil {
				late(r.v)
			}
		}()
	}
	return v, context.Cause(ctx)
}
