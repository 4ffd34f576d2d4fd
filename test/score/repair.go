package score

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Repair is how one supervisor took one fault, again and again: what BenchmarkMTTR
// keeps and the README's table is made of.
type Repair struct {
	Contender string     `json:"contender"`
	Config    string     `json:"config"`
	Fault     string     `json:"fault"`
	Samples   Samples    `json:"samples_ns,omitempty"` // from the fault to the next answer, in order
	Floor     Samples    `json:"floor_ns,omitempty"`   // a bare fork+exec loop in the same minutes
	Never     int        `json:"never,omitempty"`      // faults that nothing was done about within the limit
	Second    int        `json:"second_copies"`        // starts beside a living copy
	ByAgent   int        `json:"by_agent,omitempty"`   // repairs that an agent decided
	Idle      []IdleCost `json:"idle,omitempty"`
	At        time.Time  `json:"at"`
	Commit    string     `json:"commit"`
	Host      string     `json:"host"`
}

// IdleCost is what processes of a supervisor cost while nothing happens.
type IdleCost struct {
	Of        string  `json:"of"` // "exec", or all of it
	Processes int     `json:"processes"`
	RSS       float64 `json:"rss_mib"`
	PSS       float64 `json:"pss_mib"`
	Anonymous float64 `json:"anonymous_mib"`
	CPU       float64 `json:"cpu_ms_per_s"`
	Bare      float64 `json:"bare_questions_ms_per_s"` // an http question a second to each service, by system calls alone, in the same minutes
}

// Times is the median as a multiple of the floor's.
func (r Repair) Times() float64 {
	return float64(r.Samples.At(0.5)) / float64(max(r.Floor.At(0.5), time.Microsecond))
}

// Goal is what is wanted of p2pnode under one fault; what is zero is not asked.
type Goal struct {
	contender, fault string

	Median, P95, Max time.Duration
	Times            float64 // the floor's median
	Beside           string  // the same contender's fault that the next two compare with
	Later            time.Duration
	Longer           float64
}

var goals = []Goal{
	{contender: "p2pnode, recover: local", fault: "kill -9", Median: 6 * time.Millisecond, Times: 2, Max: 50 * time.Millisecond},
	{contender: "p2pnode", fault: "kill -9", Median: 10 * time.Millisecond, Times: 3, Max: 50 * time.Millisecond},
	{contender: "p2pnode", fault: "kill -9 beside 2,000 processes", Beside: "kill -9", Later: 3 * time.Millisecond},
	{contender: "p2pnode, recover: local", fault: "kill -9 beside 2,000 processes", Beside: "kill -9", Later: 3 * time.Millisecond},
	{contender: "p2pnode, another service prints 100 MB a second", fault: "kill -9 beside a flood of logs", Beside: "kill -9", Longer: 2},
	{contender: "p2pnode, stop_grace: 0s", fault: "SIGSTOP", Median: 10 * time.Millisecond, P95: 20 * time.Millisecond},
	{contender: "p2pnode, watchdog: 300ms", fault: "deadlock", Median: 300 * time.Millisecond, P95: 380 * time.Millisecond},
	{contender: "p2pnode, check", fault: "deadlock", Median: 4 * time.Second},
	{contender: "p2pnode", fault: "binary missing for 6 s", Max: 300 * time.Millisecond},
}

// Of an exec with ten services and nothing to do.
const (
	goalRSS       = 24.0 // MiB
	goalAnonymous = 8.0
	goalCPU       = 0.1 // ms/s
	goalCPUChecks = 1.5 // with ten http checks a second
)

// GoalOf is the goal for r's contender and fault; a zero one where there is none.
func GoalOf(r Repair) Goal {
	i := slices.IndexFunc(goals, func(g Goal) bool { return g.contender == r.Contender && g.fault == r.Fault })
	if i < 0 {
		return Goal{}
	}
	return goals[i]
}

// Judge says what was wanted of r and whether that holds; alone is the repair that its
// goal compares with, of the same contender or, where that has none, of p2pnode. Text is
// empty where there is no goal.
func (r Repair) Judge(alone Repair) (text string, kept bool) {
	g := GoalOf(r)
	var out []string
	kept = r.Never == 0 && r.Second == 0 && len(r.Samples) > 0
	want := func(holds bool, format string, args ...any) {
		out, kept = append(out, fmt.Sprintf(format, args...)), kept && holds
	}
	if g.Median > 0 {
		want(r.Samples.At(0.5) <= g.Median, "median %s", Millis(g.Median))
	}
	if g.P95 > 0 {
		want(r.Samples.At(0.95) <= g.P95, "p95 %s", Millis(g.P95))
	}
	if g.Max > 0 {
		want(r.Samples.At(1) <= g.Max, "max %s", Millis(g.Max))
	}
	if g.Times > 0 {
		want(r.Times() <= g.Times, "%g x", g.Times)
	}
	if g.Later > 0 {
		want(len(alone.Samples) > 0 && r.Samples.At(0.5)-alone.Samples.At(0.5) <= g.Later, "+%s", Millis(g.Later))
	}
	if g.Longer > 0 {
		want(len(alone.Samples) > 0 && float64(r.Samples.At(0.5)) <= g.Longer*float64(alone.Samples.At(0.5)), "%g x alone", g.Longer)
	}
	return strings.Join(out, ", "), kept
}

// Judge says what is wanted of an idle exec of ours, and whether it holds. Checks: it
// asks ten http questions a second. Text is empty where there is no goal.
func (c IdleCost) Judge(checks bool) (text string, kept bool) {
	if c.Of != "exec" {
		return "", true
	}
	cpu := goalCPU
	if checks {
		cpu = goalCPUChecks
	}
	return fmt.Sprintf("RSS %g, anonymous %g, CPU %g", goalRSS, goalAnonymous, cpu), c.RSS <= goalRSS && c.Anonymous <= goalAnonymous && c.CPU <= cpu
}
