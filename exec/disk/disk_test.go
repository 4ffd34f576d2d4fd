package disk

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"p2pnode/test/bubble"
)

// A disk that does not answer holds up the first caller for Patience and the others for
// nothing; when it goes on what was put aside comes first.
func TestAHangingDiskIsNotWaitedFor(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var turned []bool
		var did []string
		aside := 2
		h := Hand{
			Turned: func(hangs bool) { turned = append(turned, hangs) },
			Back: func() bool {
				if aside == 0 {
					return false
				}
				aside--
				did = append(did, "aside")
				return true
			},
		}
		if !h.Try(func() { did = append(did, "first") }) || h.Hangs() {
			t.Fatal("a disk that works was not waited for")
		}
		block := make(chan struct{})
		began := time.Now()
		if h.Try(func() { <-block; did = append(did, "late") }) || time.Since(began) != Patience || !h.Hangs() {
			t.Fatalf("after %v: %v", time.Since(began), h.Hangs())
		}
		if h.Try(func() { did = append(did, "never") }) || time.Since(began) != Patience {
			t.Fatalf("the second waited %v", time.Since(began)-Patience)
		}
		waited := make(chan struct{})
		go func() {
			defer close(waited)
			h.Do(func() { did = append(did, "patient") })
		}()
		synctest.Wait()
		close(block)
		<-waited
		if want := []string{"first", "late", "aside", "aside", "patient"}; !slices.Equal(did, want) {
			t.Errorf("did %q, want %q", did, want)
		}
		if !slices.Equal(turned, []bool{true, false}) || !h.Try(func() {}) {
			t.Errorf("turned %v", turned)
		}
	})
}

// Who waits for another's work that ends in time is served then, and a slow disk that
// answers within Patience does not hang.
func TestASlowDiskIsWaitedFor(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var h Hand
		go h.Try(func() { time.Sleep(Patience - 2) })
		synctest.Wait()
		if !h.Try(func() { time.Sleep(1 * time.Nanosecond) }) || h.Hangs() {
			t.Error("it counts as hanging")
		}
	})
}

func TestWhatComesTooLateIsUndone(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var undone atomic.Int64
		late := func(n int64) { undone.Add(n) }
		if v, err := Within(Patience, func() (int64, error) { return 3, nil }, late); v != 3 || err != nil {
			t.Errorf("%d, %v", v, err)
		}
		wrong := errors.New("wrong")
		if _, err := Within(Patience, func() (int64, error) { return 3, wrong }, late); err != wrong {
			t.Error(err)
		}
		v, err := Within(Patience, func() (int64, error) { time.Sleep(2 * Patience); return 4, nil }, late)
		if v != 0 || err != ErrHangs {
			t.Errorf("%d, %v", v, err)
		}
		time.Sleep(2 * Patience)
		if undone.Load() != 4 {
			t.Errorf("undone: %d", undone.Load())
		}
	})
}

// Who queues behind many that end in time waits for its turn, however long that takes.
func TestALongQueueIsNoHangingDisk(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var h Hand
		var done atomic.Int64
		for range 5 {
			go func() {
				if h.Try(func() { time.Sleep(Patience / 2) }) {
					done.Add(1)
				}
			}()
		}
		time.Sleep(3 * Patience)
		if done.Load() != 5 || h.Hangs() {
			t.Errorf("%d of 5 are done, it hangs: %v", done.Load(), h.Hangs())
		}
	})
}
