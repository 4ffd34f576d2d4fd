package overlay

import (
	"testing"
	"time"

	"p2pnode"
)

// Which rows of lives prove that two live with one key.
func TestTwoProcessesWithOneKeyAreKnown(t *testing.T) {
	a, b, c := p2pnode.Life{Boot: 1, Nonce: 7}, p2pnode.Life{Boot: 2, Nonce: 3}, p2pnode.Life{Boot: 3, Nonce: 5}
	for name, x := range map[string]struct {
		row  []p2pnode.Life
		step time.Duration
		want bool
	}{
		"one life says it again":              {[]p2pnode.Life{a, a, a}, time.Second, false},
		"restarts":                            {[]p2pnode.Life{a, b, c}, time.Second, false},
		"a boot number was lost":              {[]p2pnode.Life{a, b, a, a}, time.Second, false},
		"and then it was restarted":           {[]p2pnode.Life{a, b, a, c}, time.Second, false},
		"a clone, and each answers the other": {[]p2pnode.Life{a, b, a, b}, time.Second, true},
		"three of them":                       {[]p2pnode.Life{a, b, c, a, b}, time.Second, true},
		"two mishaps, long apart":             {[]p2pnode.Life{a, b, a, b}, returnsWithin, false},
	} {
		l, now := &lives{}, time.Unix(1_700_000_000, 0)
		for i, life := range x.row {
			l.note(now, life, uint64(i))
			now = now.Add(x.step)
		}
		if got := !l.twice.IsZero(); got != x.want {
			t.Errorf("%s: twice %v", name, got)
		}
	}
	l := &lives{}
	for i := range uint64(100) {
		l.note(time.Unix(0, 0), p2pnode.Life{Boot: i + 1, Nonce: i}, i)
	}
	if len(l.before) > maxLives {
		t.Errorf("%d lives are remembered", len(l.before))
	}
}
