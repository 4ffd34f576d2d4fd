// Command mttr makes the README's table of repair times from what BenchmarkMTTR
// kept, one file for each supervisor and fault.
//
//	go run ./test/score/mttr [-samples docs/mttr] [-readme README.md]
package main

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"p2pnode/test/score"
)

func main() {
	samples := flag.String("samples", "docs/mttr", "folder with the files of BenchmarkMTTR")
	readme := flag.String("readme", "README.md", "file whose table is renewed")
	flag.Parse()
	if err := run(*samples, *readme); err != nil {
		fmt.Fprintln(os.Stderr, "mttr:", err)
		os.Exit(1)
	}
}

const (
	begin = "<!-- made by make bench-mttr -->"
	end   = "<!-- end of bench-mttr -->"
)

func run(samples, readme string) error {
	all, err := load(samples)
	if err != nil {
		return err
	}
	text := table(all)
	fmt.Print(text)
	raw, err := os.ReadFile(readme)
	if err != nil {
		return err
	}
	head, rest, ok := strings.Cut(string(raw), begin+"\n")
	_, foot, closed := strings.Cut(rest, end)
	if !ok || !closed {
		return fmt.Errorf("%s has no place for the table: %s ... %s", readme, begin, end)
	}
	return os.WriteFile(readme, []byte(head+begin+"\n"+text+end+foot), 0o644)
}

func load(dir string) (all []score.Repair, err error) {
	files, _ := filepath.Glob(filepath.Join(dir, "*.json"))
	if len(files) == 0 {
		return nil, fmt.Errorf("no samples in %s: run make bench-mttr", dir)
	}
	for _, path := range files {
		var r score.Repair
		raw, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(raw, &r)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, r)
	}
	if err := order(all); err != nil {
		return nil, err
	}
	return all, nil
}

// The order of the table: fault by fault, ours first.
var (
	faults = []string{
		"kill -9", "kill -9 beside 2,000 processes", "kill -9 beside a flood of logs", "kill -9, a child holds stdout", "SIGSTOP", "deadlock",
		"binary missing for 6 s", "supervisor killed, then kill -9", "idle",
	}
	names = []string{
		"p2pnode, recover: local", "p2pnode", "p2pnode, another service prints 100 MB a second", "p2pnode, stop_grace: 0s", "p2pnode, watchdog: 300ms", "p2pnode, check",
		"daemontools", "runit", "s6", "supervisor", "monit",
	}
)

func order(all []score.Repair) error {
	for _, r := range all {
		if !slices.Contains(faults, r.Fault) || !slices.Contains(names, r.Contender) {
			return fmt.Errorf("%s under %q has no place in the table: name both in this program", r.Contender, r.Fault)
		}
	}
	rank := func(r score.Repair) int {
		return slices.Index(faults, r.Fault)*len(names) + slices.Index(names, r.Contender)
	}
	slices.SortFunc(all, func(a, b score.Repair) int { return rank(a) - rank(b) })
	return nil
}

func table(all []score.Repair) string {
	var b strings.Builder
	b.WriteString("| fault | supervisor | median | p95 | max | x bare fork+exec | n | never | second copies | goal |\n|---|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range all {
		if r.Fault == "idle" {
			continue
		}
		goal := verdict(r.Judge(alone(all, r)))
		fmt.Fprintf(&b, "| %s | %s (%s) | %s | %d | %s | %s | %s |\n", r.Fault, r.Contender, r.Config, figures(r), len(r.Samples), none(r.Never), none(r.Second), goal)
	}
	b.WriteString("\n| idle, 10 services | processes | RSS | PSS | anonymous | CPU | goal |\n|---|---|---|---|---|---|---|\n")
	for _, r := range all {
		for _, i := range r.Idle {
			name, goal := r.Contender, ""
			checks := r.Contender == "p2pnode, check"
			if i.Of != "all" {
				name += ": " + i.Of
				goal = verdict(i.Judge(checks))
			}
			cpu := fmt.Sprintf("%.2f ms/s", i.CPU)
			if checks && i.Of == "exec" && i.Bare > 0 {
				cpu += fmt.Sprintf(" (%.1f x bare questions: %.2f)", i.CPU/i.Bare, i.Bare)
			}
			fmt.Fprintf(&b, "| %s (%s) | %d | %.1f MiB | %.1f MiB | %.1f MiB | %s | %s |\n", name, r.Config, i.Processes, i.RSS, i.PSS, i.Anonymous, cpu, goal)
		}
	}
	b.WriteString("\n" + taken(all))
	return b.String()
}

func verdict(goal string, kept bool) string {
	switch {
	case goal == "":
		return ""
	case kept:
		return goal
	}
	return "**missed**: " + goal
}

// alone is what r's goal compares with.
func alone(all []score.Repair, r score.Repair) (out score.Repair) {
	beside := score.GoalOf(r).Beside
	for _, o := range all {
		if o.Fault == beside && (o.Contender == r.Contender || o.Contender == "p2pnode" && out.Contender == "") {
			out = o
		}
	}
	return out
}

// taken says when, of which revision and where the rows were measured: all at once, or
// some of them again.
func taken(all []score.Repair) string {
	rows := map[string]int{}
	for _, r := range all {
		rows[fmt.Sprintf("%s at %s on %s", r.At.Format(time.DateOnly), cmp.Or(r.Commit, "a revision that was not noted"), cmp.Or(r.Host, "a machine that was not noted"))]++
	}
	var out []string
	for _, where := range slices.Sorted(maps.Keys(rows)) {
		out = append(out, fmt.Sprintf("%s (%d measurements)", where, rows[where]))
	}
	return "Taken " + strings.Join(out, "; ") + ".\n"
}

func figures(r score.Repair) string {
	if len(r.Samples) == 0 {
		return "not mended | | |"
	}
	s := r.Samples
	text := fmt.Sprintf("%s | %s | %s |", score.Millis(s.At(0.5)), score.Millis(s.At(0.95)), score.Millis(s.At(1)))
	if r.Fault == "deadlock" || r.Fault == "binary missing for 6 s" { // most of it is waiting, by design
		return text
	}
	return text + fmt.Sprintf(" %.1f (of %s)", r.Times(), score.Millis(r.Floor.At(0.5)))
}

func none(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}
