package exec

import (
	"testing"
	"time"

	"p2pnode/exec/check"
)

// The lines are those of hosts with v2 alone, v1 beside v2, and v1 alone.
func TestGroupsOfAProcess(t *testing.T) {
	for raw, want := range map[string]groups{
		"0::/user.slice/web.service\n":                       {v2: "/user.slice/web.service"},
		"4:cpu,cpuacct:/quota\n1:name=systemd:/x\n0::/own\n": {v2: "/own", cpu: "/quota"},
		"3:cpuset:/set\n2:cpu:/a:b\n":                        {v2: "/", cpu: "/a:b"},
		"0::/a name\n":                                       {v2: "/a name"},
		"torn":                                               {v2: "/"},
		"":                                                   {v2: "/"},
	} {
		if got := parseGroups(raw); got != want {
			t.Errorf("%q: %+v, want %+v", raw, got, want)
		}
	}
}

// What works while its quota is used up, or waits for a core, is busy; what does
// neither is not, whoever used the quota up.
func TestProgressUnderAQuota(t *testing.T) {
	const step = 500 * time.Millisecond
	then := time.Now()
	before := progress{cpu: time.Second, ran: time.Second, throttled: 10, at: then}
	now := func(cpu, ran time.Duration, throttled uint64, waits check.Waiting) progress {
		return progress{cpu: time.Second + cpu, ran: time.Second + ran, throttled: throttled, waits: waits, at: then.Add(step)}
	}
	ready := check.Waiting{7: "40", 8: "2"}
	waited := before
	waited.waits = ready
	for _, c := range []struct {
		name         string
		before, then progress
		busy         bool
	}{
		{"works, no quota", before, now(20*time.Millisecond, 0, 10, nil), true},
		{"idle, no quota", before, now(0, 0, 10, nil), false},
		{"works a little under its quota", before, now(0, 2*time.Millisecond, 15, nil), true},
		{"waited all the time under its quota", waited, now(0, 0, 15, check.Waiting{8: "2"}), true},
		{"was woken just now", before, now(0, 0, 15, ready), false},
		{"slept and was woken again", waited, now(0, 0, 15, check.Waiting{7: "41"}), false},
		{"was done with it", waited, now(0, 0, 15, nil), false},
		{"waits on a crowded host", waited, now(0, 0, 10, ready), true},
		{"hangs where others use the quota up", before, now(0, 400*time.Microsecond, 15, nil), false},
		{"never looked at", progress{}, now(time.Second, time.Second, 15, ready), false},
	} {
		if got := c.then.since(c.before) >= busyProgress; got != c.busy {
			t.Errorf("%s: busy %v, want %v", c.name, got, c.busy)
		}
	}
}
