package main

import (
	"fmt"
	"os"
	"strings"

	"p2pnode/test/score"
)

// words say what each state means to a reader.
var words = map[string]string{
	"kept": "kept", "broken": "**BROKEN**", "failed": "**FAILED**",
	"cannot-run": "**cannot run here**", "nothing-yet": "nothing shows it yet", "not-run": "**not run for this card**",
}

func line(row score.Row, o outcome) string {
	return fmt.Sprintf("%-3s %-12s %s: %s", row.ID, o.State, row.Fault, figureText(o, "; "))
}

// figureText is what was measured, or why nothing was.
func figureText(o outcome, sep string) string {
	var out []string
	for _, f := range o.Figures {
		text := f.Text
		if f.How != "" {
			text = f.How + ": " + text
		}
		if !f.Kept {
			text += " (over the budget)"
		}
		out = append(out, text)
	}
	switch {
	case len(out) > 0:
		return strings.Join(out, sep)
	case o.State == "kept":
		return fmt.Sprintf("%d tests pass", o.Tests)
	}
	return o.Why
}

func chances(o outcome) (n, chance string) {
	var ns, cs []string
	for _, f := range o.Figures {
		ns = append(ns, fmt.Sprint(f.N))
		cs = append(cs, strings.TrimSuffix(f.Chance+"; "+f.Where, "; "))
	}
	if len(ns) == 0 && o.Tests > 0 {
		return fmt.Sprint(o.Tests), "tests"
	}
	return strings.Join(ns, "<br>"), strings.Join(cs, "<br>")
}

func tally(all map[string]outcome) map[string]int {
	count := map[string]int{}
	for _, row := range score.Rows {
		count[stateOf(row, all).State]++
	}
	return count
}

// stateOf is what is known of a row: one that has tests and was not run is not one
// that nothing shows.
func stateOf(row score.Row, all map[string]outcome) outcome {
	o := all[row.ID]
	switch {
	case o.State != "":
	case len(row.Runs) > 0:
		o.State = "not-run"
	default:
		o.State, o.Why = "nothing-yet", row.Wants
	}
	return o
}

func summary(count map[string]int) string {
	return fmt.Sprintf("%d rows: %d kept, %d broken, %d failed, %d cannot run here, %d not run for this card, %d that nothing shows yet",
		len(score.Rows), count["kept"], count["broken"], count["failed"], count["cannot-run"], count["not-run"], count["nothing-yet"])
}

func write(all map[string]outcome) error {
	var b strings.Builder
	b.WriteString("# Scorecard\n\nWhat must survive, and what was seen. Made by `make scorecard`; do not edit.\n\n")
	fmt.Fprintf(&b, "%s. %s. A figure without chances to fail proves nothing, so they are beside it. Letters are budgets that are no fault.\n\n", summary(tally(all)), score.Host())
	b.WriteString("| # | what happens | promise | | measured | n | chances | shown by | not shown | commit |\n|---|---|---|---|---|---|---|---|---|---|\n")
	for _, row := range score.Rows {
		o := stateOf(row, all)
		n, chance := chances(o)
		text := figureText(o, "<br>")
		wants := row.Wants
		if o.State == "nothing-yet" {
			text, wants = "", strings.TrimSpace(o.Why)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s | %s | %s | %s |\n", row.ID, row.Fault, row.Promise, words[o.State], cell(text), n, chance, commands(row), wants, o.Commit)
	}
	if err := os.WriteFile(table, []byte(b.String()), 0o644); err != nil {
		return err
	}
	return readme(all)
}

// cell keeps a text from breaking the table.
func cell(text string) string {
	return strings.ReplaceAll(strings.ReplaceAll(text, "|", "\\|"), "\n", " ")
}

func commands(row score.Row) string {
	var out []string
	for _, r := range row.Runs {
		out = append(out, fmt.Sprintf("`%s %s`", strings.TrimPrefix(r.Pkg, "./"), cell(r.Test)))
	}
	return strings.Join(out, "<br>")
}

// The README's table stands between these lines.
const (
	begin = "<!-- made by make scorecard -->"
	end   = "<!-- end -->"
)

func readme(all map[string]outcome) error {
	raw, err := os.ReadFile("README.md")
	if err != nil {
		return err
	}
	head, rest, ok1 := strings.Cut(string(raw), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		return fmt.Errorf("README.md has no place for the table (%s)", begin)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\nOn %s. Yours: run the command.\n\n| what happens | promise | measured | n | command |\n|---|---|---|---|---|\n", begin, score.Host())
	for _, id := range score.Headline {
		for _, row := range score.Rows {
			o, known := all[id]
			if row.ID != id || !known {
				continue
			}
			n, _ := chances(o)
			text := figureText(o, "<br>")
			if o.State != "kept" {
				text = words[o.State] + ": " + text
			}
			fmt.Fprintf(&b, "| %s | %s | %s | %s | `make scorecard ROWS=%s` |\n", row.Fault, row.Promise, cell(text), n, id)
		}
	}
	b.WriteString("\n" + end)
	return os.WriteFile("README.md", []byte(head+b.String()+tail), 0o644)
}
