package script

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

// document runs a CLI command with -o json and holds what it prints against the
// interface: the schema's name, every key that is named after --, and nothing
// that pretends to know (null, "").
//
//	document NAME SCHEMA ARGS... -- KEY...
//
// A KEY is a path like node.listen or services[].check.state; [] means every
// element, of which there must be one. KEY=VALUE also holds the value against
// VALUE in one element; KEY? wants it in one element only; !KEY must not be there.
func (s *story) document(ts *testscript.TestScript, a *actor, args []string) {
	end := slices.Index(args, "--")
	if end < 2 {
		ts.Fatalf("usage: document HOST SCHEMA ARGS... -- KEY...")
	}
	code := filepath.Join(s.fleet.Dir, "code")
	line := []string{"NO_COLOR=1", "CODE=" + code, "P2PNODE_DATA=" + a.Dir, "sh", "-c", `"$0" "$@"; echo $? >"$CODE"`, s.fleet.Bin}
	ts.Check(ts.Exec("env", append(append(line, args[1:end]...), "-o", "json")...))
	out := ts.ReadFile("stdout")
	var doc map[string]any
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
		raw, _ := os.ReadFile(code)
		ts.Fatalf("%v prints no document: %v, exit %s\n%s", args[1:end], err, raw, out)
	}
	if want := "p2pnode/" + args[0] + "/v1"; doc["schema"] != want {
		ts.Fatalf("%v: schema %v, want %s", args[1:end], doc["schema"], want)
	}
	for _, path := range faked("", doc) {
		ts.Fatalf("%v: %s has a value that says nothing\n%s", args[1:end], path, out)
	}
	for _, key := range args[end+1:] {
		if problem := held(doc, key); problem != "" {
			ts.Fatalf("%v: %s\n%s", args[1:end], problem, out)
		}
	}
}

// faked finds null and "" anywhere in v, but for a line of a log, which may be
// empty.
func faked(path string, v any) (out []string) {
	switch v := v.(type) {
	case nil:
		return []string{path}
	case string:
		if v == "" && !strings.Contains(path, "lines") && !strings.HasSuffix(path, ".value") {
			return []string{path}
		}
	case []any:
		for i, x := range v {
			out = append(out, faked(fmt.Sprintf("%s[%d]", path, i), x)...)
		}
	case map[string]any:
		for k, x := range v {
			out = append(out, faked(path+"."+k, x)...)
		}
	}
	return out
}

// held is "" if doc has key as it should, else what is wrong.
func held(doc any, key string) string {
	key, absent := strings.CutPrefix(key, "!")
	key, want, valued := strings.Cut(key, "=")
	key, once := strings.CutSuffix(key, "?") // before the =
	found := []any{doc}
	for step := range strings.SplitSeq(key, ".") {
		name, each := strings.CutSuffix(step, "[]")
		var next []any
		for _, v := range found {
			m, ok := v.(map[string]any)
			x, there := m[name]
			if !ok || !there {
				if absent || once {
					continue
				}
				return key + " is missing"
			}
			list, isList := x.([]any)
			switch {
			case !each:
				next = append(next, x)
			case !isList || len(list) == 0:
				return key + " has no elements"
			default:
				next = append(next, list...)
			}
		}
		found = next
	}
	if once && len(found) == 0 {
		return key + " is nowhere"
	}
	if absent && len(found) > 0 {
		return key + " is there"
	}
	if valued && !slices.ContainsFunc(found, func(v any) bool { return fmt.Sprint(v) == want }) {
		return fmt.Sprintf("%s is %v, want %s", key, found, want)
	}
	return ""
}
