// Package bubble runs a test in a testing/synctest bubble in such a way that it
// survives the race detector.
package bubble

import (
	"runtime"
	"testing"
	"testing/synctest"
)

// Test is synctest.Test. Under the race detector the process goes on with a
// single P from then on: a timer that is armed for an instant already reached
// runs on the goroutine that arms it, and all timers of a bubble share one
// context of the detector, which two threads at once corrupt (Go 1.26.8,
// runtime/time.go, unlockAndRun). The crash is a SIGSEGV or a failed CHECK in
// ThreadSanitizer, in one of three runs of package overlay on two cores.
// Races are found all the same: the detector goes by happens-before, not by
// what really ran at once.
func Test(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	if RaceDetector {
		runtime.GOMAXPROCS(1)
	}
	synctest.Test(t, f)
}
