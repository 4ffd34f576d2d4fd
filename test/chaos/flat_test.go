package chaos

import (
	"testing"
	"time"
)

// What grows is found, what only swings is not, and of what was hardly seen nothing
// is said.
func TestMeterFindsWhatGrows(t *testing.T) {
	began := time.Now()
	ended := began.Add(2 * time.Minute)
	m := &meter{at: map[string]map[gauge][]reading{}}
	for i := range 120 {
		at := began.Add(time.Duration(i) * time.Second)
		m.add("a/node", gaugeFDs, at, 40+float64(i))               // one a second is lost
		m.add("b/node", gaugeFDs, at, 40+float64(i%15))            // links come and go
		m.add("c/node", gaugeAnonymous, at, 20<<10+300*float64(i)) // 300 KiB a second
		m.add("d/node", gaugeAnonymous, at, 20<<10+40*float64(i))  // it has not settled yet
		if i > 118 {
			m.add("e/node", gaugeThreads, at, 1e6)
		}
	}
	grew := m.judge(began, ended, t.Logf)
	if len(grew) != 2 || grew[0][:6] != "a/node" || grew[1][:6] != "c/node" {
		t.Errorf("%q", grew)
	}
}
