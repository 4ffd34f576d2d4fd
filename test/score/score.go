// Package score collects the figures that tests and benchmarks measure, so that one
// command makes docs/SCORECARD.md and the README's table from a single run.
//
// A test says Record; the line goes to its log and, where P2PNODE_SCORE names a
// file, is appended there as JSON. The card itself is made by test/score/card.
//
// Read next: rows.go, then card/main.go.
package score

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"p2pnode"
)

// Figure is one measured answer to a row of the scorecard.
type Figure struct {
	Row    string `json:"row"`             // its number, or a letter for a budget that is no fault
	How    string `json:"how,omitempty"`   // under which conditions, if there is more than one set
	Text   string `json:"figure"`          // "p50 2.3 ms, p99 4 ms"
	N      int    `json:"n"`               // samples
	Chance string `json:"chance"`          // what could have gone wrong: "100 kills", "12 suspicions raised"
	Where  string `json:"where,omitempty"` // simulation, host, namespaces, containers
	Kept   bool   `json:"kept"`            // the promise held
}

// Record keeps a figure. One without a chance to fail proves nothing and fails its
// test.
func Record(t testing.TB, f Figure) {
	t.Helper()
	t.Logf("row %s %s: %s (n=%d, %s, %s) kept=%v", f.Row, f.How, f.Text, f.N, f.Chance, f.Where, f.Kept)
	if f.N == 0 || f.Chance == "" {
		t.Errorf("row %s: a figure without a chance to fail", f.Row)
	}
	path := os.Getenv("P2PNODE_SCORE")
	if path == "" {
		return
	}
	line, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := out.Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
}

// Samples of one measurement, in the order in which they were taken.
type Samples []time.Duration

// At is the sample at quantile q, from 0 to 1; 0 where there is none.
func (s Samples) At(q float64) time.Duration {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// Text is the given quantiles in words: p50, p95, p99, max.
func (s Samples) Text(quantiles ...string) string {
	var out []string
	for _, name := range quantiles {
		out = append(out, name+" "+Millis(s.At(quantileOf(name))))
	}
	return strings.Join(out, ", ")
}

func quantileOf(name string) float64 {
	if name == "max" {
		return 1
	}
	var n int
	fmt.Sscanf(name, "p%d", &n)
	return float64(n) / 100
}

// Millis is a duration as a person reads it.
func Millis(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d >= time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d >= 10*time.Millisecond:
		return fmt.Sprintf("%.0f ms", p2pnode.Milliseconds(d))
	}
	return fmt.Sprintf("%.1f ms", p2pnode.Milliseconds(d))
}
