package logs

import (
	"testing"
	"time"
)

// An excerpt is asked for between a death and the next start: it takes 50 ms at most,
// however much was printed and whatever the mask finds in it.
func TestAnExcerptIsQuick(t *testing.T) {
	l := open(t)
	sh(t, begin(t, l, 1), "yes 'Authorization: Bearer abcdefghijklmnopqrstuvwxyz0123456789 password=hunter2 https://u:p@host/ AKIAABCDEFGHIJKLMNOP' | head -n 40000")
	l.Drain()
	best := time.Hour
	for range 20 {
		began := time.Now()
		if e := l.Excerpt(); e.Masked == 0 || !e.Truncated {
			t.Fatalf("%+v", e)
		}
		best = min(best, time.Since(began))
	}
	t.Logf("an excerpt takes %v", best)
	if best > 50*time.Millisecond {
		t.Errorf("an excerpt takes %v, want 50 ms at most", best)
	}
}
