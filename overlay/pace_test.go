package overlay

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestPaceOfLinkRecords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p pace
		now := time.Unix(1000, 0)
		var said []time.Time
		for range rapid.IntRange(1, 200).Draw(t, "changes") {
			now = now.Add(time.Duration(rapid.IntRange(0, 3000).Draw(t, "ms")) * time.Millisecond)
			due := p.due(now)
			if due.Before(now) || due.Sub(now) > holdDown+coalesce {
				t.Fatalf("due in %v", due.Sub(now))
			}
			now = due
			p.spend(now)
			said = append(said, now)
		}
		for i := range said {
			for j := i + 1; j < len(said); j++ {
				n, window := j-i+1, said[j].Sub(said[i])
				if allowed := linkBurst + float64(window)/float64(holdDown) + 1e-6; float64(n) > allowed {
					t.Fatalf("%d in %v", n, window)
				}
			}
		}
	})
	// After a quiet time the first one goes at once, whatever was before.
	var p pace
	now := time.Unix(1000, 0)
	for range 10 {
		now = p.due(now)
		p.spend(now)
	}
	if quiet := now.Add(linkBurst * holdDown); !p.due(quiet).Equal(quiet) {
		t.Errorf("held down after a quiet time")
	}
}
