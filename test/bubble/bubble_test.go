package bubble

import (
	"sync"
	"testing"
	"time"
)

// With synctest.Test in the place of Test this crashes under the race detector
// within a second on two cores, in each of ten runs.
func TestManyTimersOfTheSameInstant(t *testing.T) {
	Test(t, func(t *testing.T) {
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 20_000 {
					<-time.NewTimer(0).C
				}
			})
		}
		all.Wait()
	})
}
