package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"p2pnode"
)

// The output formats.
const (
	formatTable = "table"
	formatWide  = "wide"
	formatJSON  = "json"
	formatJSONL = "jsonl"
	formatName  = "name"
)

// formats are all that -o takes.
var formats = []string{formatTable, formatWide, formatJSON, formatJSONL, formatName}

// saidFormat is the format that a command line asks for, or else P2PNODE_OUTPUT,
// read before the line is parsed: an error in it is to be told in that format
// too, wherever -o stands.
func saidFormat(args []string) string {
	said := first(os.Getenv(envName("output")), formatTable)
	for i, arg := range args {
		switch {
		case arg == "--":
			return said
		case (arg == "-o" || arg == "--output") && i+1 < len(args):
			said = args[i+1]
		case strings.HasPrefix(arg, "--output="):
			said = strings.TrimPrefix(arg, "--output=")
		case strings.HasPrefix(arg, "-o") && len(arg) > 2:
			said = strings.TrimPrefix(arg[2:], "=")
		}
	}
	return said
}

// view is one command's answer in every format: doc for json, items for jsonl,
// names for name, print for people.
type view struct {
	doc   any
	items []any
	names []string
	print func(p *printer)
}

// printer writes for people. Colours are there only where a person looks: a
// terminal, and no NO_COLOR.
type printer struct {
	w     io.Writer
	wide  bool
	color bool
}

func (a *app) printer() *printer {
	return &printer{w: a.stdout, wide: a.format == formatWide, color: a.color}
}

func (a *app) json() bool { return a.format == formatJSON || a.format == formatJSONL }

// show prints v in the format that was asked for.
func (a *app) show(v view) error {
	switch a.format {
	case formatJSON:
		return writeJSON(a.stdout, v.doc, "  ")
	case formatJSONL:
		items := v.items
		if items == nil {
			items = []any{v.doc}
		}
		for _, item := range items {
			if err := writeJSON(a.stdout, item, ""); err != nil {
				return err
			}
		}
		return nil
	case formatName:
		for _, n := range v.names {
			if _, err := fmt.Fprintln(a.stdout, n); err != nil {
				return err
			}
		}
		return nil
	}
	v.print(a.printer())
	return nil
}

func writeJSON(w io.Writer, v any, indent string) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", indent)
	return enc.Encode(v)
}

// items makes jsonl lines of a slice.
func items[T any](list []T) []any {
	out := make([]any, len(list))
	for i, v := range list {
		out[i] = v
	}
	return out
}

func (p *printer) line(format string, args ...any) { fmt.Fprintf(p.w, format+"\n", args...) }

// hue is a colour of a cell.
type hue string

const (
	plain  hue = ""
	good   hue = "32"
	bad    hue = "31"
	unsure hue = "33"
	faint  hue = "2"
)

// cell is one field of a table.
type cell struct {
	text string
	hue  hue
}

func c(text string) cell { return cell{text: text} }

func (p *printer) paint(c cell) string {
	if !p.color || c.hue == plain || c.text == "" {
		return c.text
	}
	return "\x1b[" + string(c.hue) + "m" + c.text + "\x1b[0m"
}

// table prints rows under head, columns as wide as their widest cell. An empty
// cell is shown as a dash so that columns can be cut by awk.
func (p *printer) table(head []string, rows [][]cell) {
	all := make([][]cell, 0, len(rows)+1)
	top := make([]cell, len(head))
	for i, h := range head {
		top[i] = cell{strings.ToUpper(h), faint}
	}
	all = append(append(all, top), rows...)
	width := make([]int, len(head))
	for _, row := range all {
		for i := range row {
			if row[i].text == "" {
				row[i].text = "-"
			}
			width[i] = max(width[i], utf8.RuneCountInString(row[i].text))
		}
	}
	for _, row := range all {
		var b strings.Builder
		for i, cell := range row {
			b.WriteString(p.paint(cell))
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell.text)+2))
			}
		}
		p.line("%s", strings.TrimRight(b.String(), " "))
	}
}

// fact prints one "name  value" line of a page about a single thing; an empty
// value is left out.
func (p *printer) fact(name, format string, args ...any) {
	if text := fmt.Sprintf(format, args...); text != "" {
		p.line("%s%s", p.paint(cell{fmt.Sprintf("%-11s ", name), faint}), text)
	}
}

// ago is how long since t, in one unit.
func ago(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return short(time.Since(t))
}

// short is d in the unit that a person would choose.
func short(d time.Duration) string {
	switch d = d.Abs(); {
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// millis is a measured time for people; "" where it was not measured.
func millis(ms float64) string {
	switch {
	case ms <= 0:
		return ""
	case ms < 10:
		return fmt.Sprintf("%.1f ms", ms)
	case ms < 10000:
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.1f s", ms/1000)
}

func labelText(labels map[string]string) string {
	var parts []string
	for _, k := range sortedKeys(labels) {
		parts = append(parts, k+"="+labels[k])
	}
	return strings.Join(parts, ",")
}

func verdictCell(v p2pnode.Verdict) cell {
	switch v {
	case p2pnode.Alive:
		return cell{string(v), good}
	case p2pnode.Doubtful:
		return cell{string(v), unsure}
	case p2pnode.Left:
		return cell{string(v), faint}
	}
	return cell{string(v), bad}
}

func stateCell(s p2pnode.ServiceState) cell {
	switch s {
	case p2pnode.StateUp:
		return cell{string(s), good}
	case p2pnode.StateStarting, p2pnode.StateStopping, p2pnode.StateBackoff:
		return cell{string(s), unsure}
	case p2pnode.StateStopped, p2pnode.StateExited:
		return cell{string(s), faint}
	}
	return cell{string(s), bad}
}

func incidentCell(s p2pnode.IncidentState) cell {
	switch s {
	case p2pnode.IncidentRecovered:
		return cell{string(s), good}
	case p2pnode.IncidentOpen, p2pnode.IncidentActing, p2pnode.IncidentObserved:
		return cell{string(s), unsure}
	}
	return cell{string(s), bad}
}

// wantsColor reports whether f shows colours to a person.
func wantsColor(f *os.File) bool {
	if os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	return isTerminal(f)
}
