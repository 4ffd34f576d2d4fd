package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"p2pnode"
)

// reader walks a configuration file's nodes and gathers every problem with its
// line, so that one run of `config check` shows all of them.
type reader struct {
	path     string // as the person wrote it: errors begin with it
	dir      string // relative folders in the file are relative to this
	problems []problem
}

// problem is what is wrong in one line.
type problem struct {
	line int
	text string
}

// maxConfig is far above any sensible file; it keeps a mistaken
// `--config /dev/zero` from filling memory.
const maxConfig = 4 << 20

// parseYAML reads the file at path up to its top mapping; an empty file gives
// nil.
func parseYAML(path string) (*reader, *yaml.Node, error) {
	raw, err := readConfigFile(path)
	if err != nil {
		return nil, nil, &p2pnode.Error{
			Code: "config-unreadable", Exit: p2pnode.ExitUsage,
			Text: fmt.Sprintf("cannot read configuration %s: %v", path, bare(err)),
			Fix:  "check --config, or write a first file with: p2pnode config init " + path,
		}
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, nil, err
	}
	r := &reader{path: path, dir: filepath.Dir(abs)}
	var doc yaml.Node
	if !hasContent(string(raw)) {
		return r, nil, nil
	}
	if err := yaml.Load(raw, &doc); err != nil {
		line, text := yamlError(err)
		r.problems = append(r.problems, problem{line, text})
		return r, nil, r.err()
	}
	if len(doc.Content) == 0 {
		return r, nil, nil
	}
	return r, doc.Content[0], nil
}

// readConfigFile reads a file of a size that a person may have written.
func readConfigFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case info.Size() > maxConfig:
		return nil, fmt.Errorf("it has %d bytes", info.Size())
	case !info.Mode().IsRegular():
		return nil, errors.New("it is not a file")
	}
	return os.ReadFile(path)
}

// hasContent reports whether text is more than comments: the parser calls a file
// without a document an error, a person does not.
func hasContent(text string) bool {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			return true
		}
	}
	return false
}

// bare strips the operation and path from err where the sentence around it says
// them already.
func bare(err error) error {
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Err
	}
	return err
}

func yamlError(err error) (line int, text string) {
	if e, ok := errors.AsType[*yaml.LoadError](err); ok {
		return max(1, e.Mark.Line), e.Message
	}
	return 1, err.Error()
}

// err is nil, or all problems in one error.
func (r *reader) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	slices.SortStableFunc(r.problems, func(a, b problem) int { return a.line - b.line })
	lines := make([]string, len(r.problems))
	for i, p := range r.problems {
		lines[i] = fmt.Sprintf("%s:%d: %s", r.path, p.line, p.text)
	}
	return &p2pnode.Error{
		Code: "config-invalid", Text: strings.Join(lines, "\n"), Exit: p2pnode.ExitUsage,
		Fix: "correct it, then: p2pnode config check " + r.path + " (all keys: p2pnode config schema)",
	}
}

func (r *reader) bad(n *yaml.Node, format string, args ...any) {
	r.problems = append(r.problems, problem{max(1, n.Line), fmt.Sprintf(format, args...)})
}

// fields hands each key of mapping n to its setter and complains about the ones
// that nobody knows.
func (r *reader) fields(n *yaml.Node, where string, known map[string]func(*yaml.Node)) {
	r.each(n, where, func(key, value *yaml.Node) {
		set, ok := known[key.Value]
		if !ok {
			hint := ", known are " + strings.Join(sortedKeys(known), ", ")
			if near := nearest(key.Value, sortedKeys(known)); near != "" {
				hint = fmt.Sprintf(", did you mean %q?", near)
			}
			r.bad(key, "unknown key %q in %s%s", key.Value, where, hint)
			return
		}
		if isNull(value) {
			return
		}
		set(value)
	})
}

// each calls f for every pair of mapping n in the file's order.
func (r *reader) each(n *yaml.Node, where string, f func(key, value *yaml.Node)) {
	n = target(n)
	if n.Kind != yaml.MappingNode {
		if !isNull(n) {
			r.bad(n, "%s should be a mapping (key: value lines)", where)
		}
		return
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if at, dup := seen[key.Value]; dup {
			r.bad(key, "key %q in %s is there twice (first in line %d)", key.Value, where, at)
			continue
		}
		seen[key.Value] = key.Line
		f(key, target(n.Content[i+1]))
	}
}

func target(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode && n.Alias != nil {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

func (r *reader) text(what string, into *string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		if n.Kind != yaml.ScalarNode {
			r.bad(n, "%s should be a text", what)
			return
		}
		*into = n.Value
	}
}

func (r *reader) oneOf(what string, into *string, allowed ...string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		if n.Kind != yaml.ScalarNode || !slices.Contains(allowed, n.Value) {
			hint := ""
			if near := nearest(n.Value, slices.Clone(allowed)); near != "" {
				hint = fmt.Sprintf(" (did you mean %q?)", near)
			}
			r.bad(n, "%s is %q, should be one of %s%s", what, n.Value, strings.Join(allowed, ", "), hint)
			return
		}
		*into = n.Value
	}
}

func (r *reader) number(what string, into *int, low, high int) func(*yaml.Node) {
	return func(n *yaml.Node) {
		v, err := strconv.Atoi(n.Value)
		if n.Kind != yaml.ScalarNode || err != nil || v < low || v > high {
			r.bad(n, "%s is %q, should be a number from %d to %d", what, n.Value, low, high)
			return
		}
		*into = v
	}
}

// duration accepts Go's notation; low keeps a typo from making a busy loop.
func (r *reader) duration(what string, into *time.Duration, low time.Duration) func(*yaml.Node) {
	return func(n *yaml.Node) {
		v, err := time.ParseDuration(n.Value)
		switch {
		case n.Kind != yaml.ScalarNode || err != nil:
			hint := ""
			if _, e := strconv.ParseFloat(n.Value, 64); e == nil {
				hint = fmt.Sprintf(": say the unit, %ss or %sms", n.Value, n.Value)
			}
			r.bad(n, "%s is %q, should be a duration like 500ms, 10s or 1m%s", what, n.Value, hint)
		case v < low:
			r.bad(n, "%s is %s, should be at least %s", what, v, low)
		default:
			*into = v
		}
	}
}

// texts accepts a sequence of texts, or one text for a sequence of one.
func (r *reader) texts(what string, into *[]string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		if n.Kind == yaml.ScalarNode {
			*into = []string{n.Value}
			return
		}
		if n.Kind != yaml.SequenceNode {
			r.bad(n, "%s should be a list like [a, b]", what)
			return
		}
		out := make([]string, 0, len(n.Content))
		for _, c := range n.Content {
			c = target(c)
			if c.Kind != yaml.ScalarNode || isNull(c) {
				r.bad(c, "%s should have texts only", what)
				return
			}
			out = append(out, c.Value)
		}
		*into = out
	}
}

// argv accepts a sequence only: a command in one text would need a shell to cut
// it up, and that is what `shell:` is for.
func (r *reader) argv(what string, into *[]string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		if n.Kind == yaml.ScalarNode {
			r.bad(n, "%s should be a list like [%s]; for a line with shell syntax use shell:", what, strings.Join(strings.Fields(n.Value), ", "))
			return
		}
		r.texts(what, into)(n)
		if len(*into) == 0 || (*into)[0] == "" {
			r.bad(n, "%s is empty", what)
		}
	}
}

func (r *reader) pairs(what string, into *map[string]string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		out := map[string]string{}
		r.each(n, what, func(key, value *yaml.Node) {
			if value.Kind != yaml.ScalarNode {
				r.bad(value, "%s: the value of %q should be a text", what, key.Value)
				return
			}
			out[key.Value] = value.Value
		})
		*into = out
	}
}
