// Command mttr makes the README's table of repair times from what BenchmarkMTTR
// kept, one file for each supervisor and fault.
//
//	go run ./test/score/mttr [-samples bin/mttr] [-readme README.md]
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"p2pnode/test/score"
)

func main() {
	samples := flag.String("samples", "bin/mttr", "folder with the files of BenchmarkMTTR")
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
	slices.SortFunc(all, func(a, b score.Repair) int { return rank(a) - rank(b) })
	return all, nil
}

// The order of the table: fault by fault, ours first.
var (
	faults = []string{"kill -9", "kill -9 beside 2,000 processes", "kill -9, a child holds stdout", "SIGSTOP", "deadlock", "binary missing for 6 s", "supervisor killed, then kill -9", "idle"}
	names  = []string{"p2pnode, recover: local", "p2pnode", "p2pnode, stop_grace: 0s", "p2pnode, watchdog: 300ms", "p2pnode, check", "daemontools", "runit", "s6", "supervisor", "monit"}
)

func rank(r score.Repair) int {
	return slices.Index(faults, r.Fault)*100 + slices.Index(names, r.Contender)
}

func table(all []score.Repair) string {
	var b strings.Builder
	b.WriteString("| fault | supervisor | median | p95 | p99 | x bare fork+exec | n | never | second copies |\n|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range all {
		if r.Fault == "idle" {
			continue
		}
		fmt.Fprintf(&b, "| %s | %s (%s) | %s | %d | %s | %s |\n", r.Fault, r.Contender, r.Config, figures(r), len(r.Samples), none(r.Never), none(r.Second))
	}
	b.WriteString("\n| idle, 10 services | processes | RSS | PSS | anonymous | CPU |\n|---|---|---|---|---|---|\n")
	for _, r := range all {
		for _, i := range r.Idle {
			name := r.Contender
			if i.Of != "all" {
				name += ": " + i.Of
			}
			fmt.Fprintf(&b, "| %s (%s) | %d | %.1f MiB | %.1f MiB | %.1f MiB | %.2f ms/s |\n", name, r.Config, i.Processes, i.RSS, i.PSS, i.Anonymous, i.CPU)
		}
	}
	return b.String()
}

func figures(r score.Repair) string {
	if len(r.Samples) == 0 {
		return "not mended | | |"
	}
	s := r.Samples
	if r.Fault == "deadlock" || r.Fault == "binary missing for 6 s" { // most of it is waiting, by design
		return fmt.Sprintf("%s | %s | %s |", score.Millis(s.At(0.5)), score.Millis(s.At(0.95)), score.Millis(s.At(0.99)))
	}
	ratio := float64(s.At(0.5)) / float64(max(r.Floor.At(0.5), time.Microsecond))
	return fmt.Sprintf("%s | %s | %s | %.1f (of %s)", score.Millis(s.At(0.5)), score.Millis(s.At(0.95)), score.Millis(s.At(0.99)), ratio, score.Millis(r.Floor.At(0.5)))
}

func none(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}
