// Package history judges what nodes did from what they wrote down: an offline
// checker over the JSONL files of --history and the faults that a harness put
// beside them.
//
// Check is pure: the same lines in any order of files give the same violations,
// each with the rule that it breaks and the lines' time. The demo, the
// simulation, the scripts and the network tests all end with it. A rule that
// needs ground truth (faults) is applied only where the history holds harness
// lines, so that an operator can run it over a production history too.
//
// A fault is matched with what followed by the incarnation (of a service) or the
// life (of a node process) that it hit: a second crash is not excused by the first.
//
// Read next: rules.go, one function per promise.
package history

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"p2pnode"
)

// Harness is the Proc of lines written by whoever injects faults.
const Harness = "harness"

// maxLine bounds one line of a history file, in bytes.
const maxLine = 1 << 20

// Violation is one broken promise.
type Violation struct {
	Rule string    // kebab-case name of the promise
	At   time.Time // of the line that breaks it
	Node string
	Text string
}

// String is one line for a test's output.
func (v Violation) String() string {
	return fmt.Sprintf("%s %s: %s: %s", v.At.Format("15:04:05.000"), v.Node, v.Rule, v.Text)
}

// Options say what a history is expected to hold.
type Options struct {
	// Gone names nodes that are dead for good at the end: they owe no view, hold no
	// report, and no view may call them alive.
	Gone []string
	// EndView demands what holds once a fleet has come to rest: the views of all
	// other nodes agree with the truth, they hold the same reports, every mission
	// and every fault is told. Off for histories that stop in the middle of things.
	EndView bool
	// At is when it had come to rest, if it was stopped after that; zero is the
	// end of the history.
	At time.Time
}

// Read decodes history lines from r. A torn last line, as a killed writer leaves
// it, is skipped; a broken line elsewhere is an error.
func Read(r io.Reader) ([]p2pnode.HistoryEvent, error) {
	var out []p2pnode.HistoryEvent
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	var torn error
	for n := 1; lines.Scan(); n++ {
		if torn != nil {
			return out, torn
		}
		var e p2pnode.HistoryEvent
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			torn = fmt.Errorf("line %d: %w", n, err)
			continue
		}
		out = append(out, e)
	}
	return out, lines.Err()
}

// ReadFiles reads all files that match the glob patterns and merges them by
// time. No match at all is an error: an empty history proves nothing.
func ReadFiles(patterns ...string) ([]p2pnode.HistoryEvent, error) {
	var all []p2pnode.HistoryEvent
	files := 0
	for _, p := range patterns {
		names, err := filepath.Glob(p)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			f, err := os.Open(name)
			if err != nil {
				return nil, err
			}
			events, err := Read(f)
			f.Close()
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			files++
			all = append(all, events...)
		}
	}
	if files == 0 {
		return nil, fmt.Errorf("no history file matches %q", patterns)
	}
	sortByTime(all)
	return all, nil
}

// Check applies every rule and returns what is broken, by time.
func Check(events []p2pnode.HistoryEvent, opt Options) []Violation {
	events = slices.Clone(events)
	sortByTime(events)
	p := newPast(events)
	var out []Violation
	for _, rule := range rules {
		out = append(out, rule(p, opt)...)
	}
	slices.SortStableFunc(out, func(a, b Violation) int { return a.At.Compare(b.At) })
	return out
}

// settling are the rules that hold only once a fleet has come to rest.
var settling = []string{"one-view", "stores-agree", "missions-told", "faults-reported"}

// MaySettle reports whether waiting can make all of them good: what breaks any
// other rule stays broken.
func MaySettle(all []Violation) bool {
	return !slices.ContainsFunc(all, func(v Violation) bool { return !slices.Contains(settling, v.Rule) })
}

func sortByTime(events []p2pnode.HistoryEvent) {
	slices.SortStableFunc(events, func(a, b p2pnode.HistoryEvent) int { return a.At.Compare(b.At) })
}
