package exec

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"p2pnode"
)

// Ten services whose checks begin at different moments are asked in one go before
// long, each of them at its period; one that fails keeps its own time.
func TestQuestionsAreAskedTogether(t *testing.T) {
	var specs []p2pnode.ServiceSpec
	for i := range 10 {
		specs = append(specs, p2pnode.ServiceSpec{Name: fmt.Sprint("s", i), Command: []string{"x"}, Check: &p2pnode.Check{HTTP: "http://127.0.0.1/"}})
	}
	p := newPolicy(1, p2pnode.Grace{}, false)
	now := epoch0
	for _, s := range specs {
		p.add(now, s)
	}
	bad := "s3"
	asked, wakes := map[string][]time.Time{}, []time.Time{}
	var queue []event
	answer := func(effects []effect) {
		questions := false
		for _, e := range effects {
			switch e := e.(type) {
			case effStart:
				queue = append(queue, evStarted{name: e.name, inc: e.inc, pid: 1, looked: now})
			case effCheck:
				questions = true
				asked[e.name] = append(asked[e.name], now)
				ev := evChecked{name: e.name, inc: e.inc}
				if len(asked[e.name]) > 20 && e.name == bad && len(asked[e.name])%2 == 0 {
					ev.err = errors.New("bad")
				}
				queue = append(queue, ev)
			}
		}
		if questions {
			wakes = append(wakes, now)
		}
	}
	answer(p.step(now, evBoot{}))
	for end := epoch0.Add(time.Minute); now.Before(end); {
		for len(queue) > 0 {
			ev := queue[0]
			queue = queue[1:]
			if _, first := ev.(evStarted); first {
				now = now.Add(37 * time.Millisecond) // they do not start at the same moment
			}
			answer(p.step(now, ev))
		}
		now = p.next()
		answer(p.step(now, evTick{}))
	}
	late := 0
	for _, at := range wakes {
		if at.After(epoch0.Add(30 * time.Second)) {
			late++
		}
	}
	if late > 3*30 {
		t.Errorf("%d wakes in the last 30 s for ten services asked each second", late)
	}
	for name, times := range asked {
		for i := 12; i < len(times); i++ {
			if gap := times[i].Sub(times[i-1]); gap < 700*time.Millisecond || gap > 1200*time.Millisecond {
				t.Errorf("%s was asked %v after the question before", name, gap)
			}
		}
		if len(times) < 50 {
			t.Errorf("%s was asked %d times in a minute", name, len(times))
		}
	}
}
