// Command card runs the rows of the scorecard that exist, prints the table, writes
// docs/SCORECARD.md and renews the README's table. It fails if a promise was broken.
//
//	go run ./test/score/card [-only 1,2,36]
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"p2pnode/test/score"
)

func main() {
	only := flag.String("only", "", "rows to run, by comma; the others keep what docs/SCORECARD.json says of them")
	render := flag.Bool("render", false, "run nothing, make the tables from docs/SCORECARD.json")
	flag.Parse()
	if *render {
		*only = "none"
	}
	if err := run(*only); err != nil {
		fmt.Fprintln(os.Stderr, "card:", err)
		os.Exit(1)
	}
}

const (
	kept  = "docs/SCORECARD.json"
	table = "docs/SCORECARD.md"
)

// outcome is what became of one row.
type outcome struct {
	Row     string         `json:"row"`
	State   string         `json:"state"` // kept | broken | failed | cannot-run | nothing-yet
	Why     string         `json:"why,omitempty"`
	Tests   int            `json:"tests"` // that passed for it
	At      string         `json:"at,omitempty"`
	Commit  string         `json:"commit,omitempty"` // that was measured
	Figures []score.Figure `json:"figures,omitempty"`
}

func run(only string) error {
	all := load()
	wanted := strings.Split(only, ",")
	for _, row := range score.Rows {
		if only != "" && !slices.Contains(wanted, row.ID) {
			continue
		}
		o, err := try(row)
		if err != nil {
			return err
		}
		all[row.ID] = o
		fmt.Println(line(row, o))
		if err := save(all); err != nil { // a run that is cut short keeps what it has
			return err
		}
	}
	if err := write(all); err != nil {
		return err
	}
	count := tally(all)
	fmt.Println(summary(count))
	if n := count["broken"] + count["failed"]; n > 0 {
		return fmt.Errorf("%d rows are broken", n)
	}
	return nil
}

func load() map[string]outcome {
	var list []outcome
	raw, _ := os.ReadFile(kept)
	json.Unmarshal(raw, &list)
	out := map[string]outcome{}
	for _, o := range list {
		out[o.Row] = o
	}
	return out
}

func save(all map[string]outcome) error {
	var list []outcome
	for _, row := range score.Rows {
		if o, ok := all[row.ID]; ok {
			list = append(list, o)
		}
	}
	raw, err := json.MarshalIndent(list, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(kept, append(raw, '\n'), 0o644)
}

// try runs one row's tests.
func try(row score.Row) (outcome, error) {
	o := outcome{Row: row.ID, State: "nothing-yet", Why: row.Wants, At: time.Now().UTC().Format("2006-01-02"), Commit: score.Commit()}
	scratch, err := os.MkdirTemp("", "p2pnode-score-")
	if err != nil {
		return o, err
	}
	defer os.RemoveAll(scratch)
	figures, skips := filepath.Join(scratch, "figures"), filepath.Join(scratch, "skips")
	for _, r := range row.Runs {
		if _, err := os.Stat(r.Pkg); err != nil {
			o.Why = "no " + r.Pkg + " yet"
			continue
		}
		passed, failed := goTest(r, row.Env, figures, skips)
		o.Tests += len(passed)
		state, why := "kept", ""
		if missing := unmatched(r, passed); failed != "" {
			state, why = "failed", failed
		} else if missing != "" {
			state, why = "cannot-run", skipped(skips, r, missing)
		}
		if slices.Index(worse, state) > slices.Index(worse, o.State) {
			o.State, o.Why = state, why
		}
	}
	for _, f := range figuresOf(figures) {
		if f.Row != row.ID {
			continue
		}
		if o.Figures = append(o.Figures, f); !f.Kept {
			o.State = "broken" // also where the test says so itself by failing
		}
	}
	return o, nil
}

// worse orders the states of a row by what they hide: of several runs the worst counts.
var worse = []string{"nothing-yet", "kept", "cannot-run", "failed"}

var (
	passLine  = regexp.MustCompile(`(?m)^ *--- PASS: (\S+)`)
	benchLine = regexp.MustCompile(`(?m)^(Benchmark\S+)\s+\d+\s.*ns/op`)
)

// goTest runs one command and lists the tests that passed; failed is what it said
// last where one did not.
func goTest(r score.Run, env []string, figures, skips string) (passed []string, failed string) {
	args := []string{"test", "-count=1", "-timeout=30m", "-v"}
	line := passLine
	if r.Times != "" {
		args = append(args, "-run=^$", "-bench="+r.Test, "-benchtime="+r.Times)
		line = benchLine
	} else {
		args = append(args, "-run="+r.Test)
	}
	cmd := exec.Command("go", append(args, r.Pkg)...)
	cmd.Env = append(append(os.Environ(), "P2PNODE_SCORE="+figures, "P2PNODE_SKIPS="+skips), env...)
	out, err := cmd.CombinedOutput()
	text := string(out)
	for _, m := range line.FindAllStringSubmatch(text, -1) {
		passed = append(passed, m[1])
	}
	if err != nil {
		failed = lastWords(text)
	}
	return passed, failed
}

// unmatched is the first alternative of a run's pattern for which no test passed: one
// that was renamed or skipped must not hide behind the others.
func unmatched(r score.Run, passed []string) string {
	for alternative := range strings.SplitSeq(r.Test, "|") {
		want := regexp.MustCompile(strings.ReplaceAll(alternative, "/", ".*/.*"))
		if !slices.ContainsFunc(passed, want.MatchString) {
			return alternative
		}
	}
	return ""
}

func lastWords(text string) string {
	var words []string
	for l := range strings.Lines(text) {
		if l = strings.TrimSpace(l); strings.Contains(l, "_test.go:") || strings.Contains(l, "panic:") || strings.Contains(l, "not within") {
			words = append(words, l)
		}
	}
	if len(words) == 0 {
		return "the test failed"
	}
	return words[max(0, len(words)-1)]
}

func skipped(path string, r score.Run, missing string) string {
	raw, _ := os.ReadFile(path)
	if text := strings.TrimSpace(string(raw)); text != "" {
		return strings.Split(text, "\n")[0]
	}
	return fmt.Sprintf("no test %s in %s", missing, r.Pkg)
}

func figuresOf(path string) (out []score.Figure) {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var fig score.Figure
		if json.Unmarshal(lines.Bytes(), &fig) == nil {
			out = append(out, fig)
		}
	}
	return out
}
