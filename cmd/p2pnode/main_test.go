package main

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"p2pnode"
)

// call runs the program in this process.
func call(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	o, e := scratch(t), scratch(t)
	code = run(args, o, e)
	return text(t, o), text(t, e), code
}

func scratch(t *testing.T) *os.File {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func text(t *testing.T, f *os.File) string {
	f.Seek(0, io.SeekStart)
	raw, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestExitCodes(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"version"}, p2pnode.ExitOK, ""},
		{[]string{"strat"}, p2pnode.ExitUsage, `did you mean "start"?`},
		{[]string{"--nosuch"}, p2pnode.ExitUsage, "unknown flag"},
		{[]string{"ps", "-o", "xml"}, p2pnode.ExitUsage, "should be one of table, wide"},
		{[]string{"nodes", "shwo"}, p2pnode.ExitUsage, `did you mean "show"?`},
		{[]string{"nodes", "show"}, p2pnode.ExitUsage, "usage: p2pnode nodes show NODE"},
		{[]string{"token"}, p2pnode.ExitUsage, "say one of: create"},
		{[]string{"maintenance"}, p2pnode.ExitUsage, "say one of: off, on"},
		{[]string{"ps", "extra"}, p2pnode.ExitUsage, "usage: p2pnode ps"},
		{[]string{"logs", "--since", "yesterday"}, p2pnode.ExitUsage, "10m"},
		{[]string{"run", "--service", "web"}, p2pnode.ExitUsage, "no command after --"},
		{[]string{"run", "--", "true"}, p2pnode.ExitUsage, "--service"},
		{[]string{"config", "check", dir + "/none.yaml"}, p2pnode.ExitUsage, "config init"},
		{[]string{"--config", dir + "/none.yaml", "config", "check"}, p2pnode.ExitUsage, "none.yaml"},
		{[]string{"demo", "--nodes", "2"}, p2pnode.ExitUsage, "from 5 to 9"},
		{[]string{"--data", dir, "--join", "http://x:y:z"}, p2pnode.ExitUsage, "http://x:y:z"},
		{[]string{"--data", dir, "--name", "a b"}, p2pnode.ExitUsage, "--name"},
		{[]string{"--data", dir, "--token-file", dir + "/none"}, p2pnode.ExitUsage, "none"},
		{[]string{"--data", dir, "--metrics", "0.0.0.0:9744"}, p2pnode.ExitUsage, "loopback"},
		{[]string{"--data", dir, "--leash", "99"}, p2pnode.ExitUsage, "no such descriptor"},
		{[]string{"--data", dir, "ps"}, p2pnode.ExitUnreachable, ""},
		{[]string{"--data", dir, "nodes"}, p2pnode.ExitUnreachable, ""},
		{[]string{"--data", dir, "status"}, p2pnode.ExitUnreachable, "answers"},
		{[]string{"--data", dir, "doctor"}, p2pnode.ExitUnhealthy, ""},
		{[]string{"--data", dir, "wait", "--for", "the-moon"}, p2pnode.ExitUsage, "nodes=N"},
		{[]string{"--data", dir, "wait", "--for", "ready", "--timeout", "100ms"}, p2pnode.ExitTimeout, "ready"},
	} {
		_, stderr, code := call(t, c.args...)
		if code != c.code || !strings.Contains(stderr, c.says) {
			t.Errorf("p2pnode %s: exit %d, want %d\n%s", strings.Join(c.args, " "), code, c.code, stderr)
		}
		_, _, asJSON := call(t, append([]string{"-o", "json"}, c.args...)...)
		if asJSON != c.code {
			t.Errorf("p2pnode %s: exit %d with -o json, %d without", strings.Join(c.args, " "), asJSON, c.code)
		}
	}
}

// An error in the line itself is told in the format that the line asks for,
// wherever it does.
func TestUsageErrorsAsJSON(t *testing.T) {
	for _, args := range [][]string{
		{"ps", "--nosuch", "-o", "json"},
		{"-o=json", "frob"},
		{"frob", "--output", "json"},
		{"token", "--output=json"},
		{"nodes", "show", "-ojson"},
		{"run", "--nosuch", "-o", "json", "--", "x", "-o", "table"},
	} {
		stdout, stderr, code := call(t, args...)
		var doc p2pnode.ErrorDoc
		if err := json.Unmarshal([]byte(stdout), &doc); err != nil || doc.Error.Code != "usage" || doc.Error.Fix == "" {
			t.Errorf("%v: stdout %q (%v)", args, stdout, err)
		}
		if code != p2pnode.ExitUsage || stderr == "" {
			t.Errorf("%v: exit %d, stderr %q", args, code, stderr)
		}
	}
	t.Setenv("P2PNODE_OUTPUT", "json")
	if stdout, _, _ := call(t, "version"); !strings.Contains(stdout, "p2pnode/version/v1") {
		t.Errorf("P2PNODE_OUTPUT=json version: %q", stdout)
	}
	if stdout, _, _ := call(t, "version", "-o", "table"); strings.Contains(stdout, "schema") {
		t.Errorf("the flag is weaker than the variable: %q", stdout)
	}
}

func TestClientFolder(t *testing.T) {
	t.Setenv("P2PNODE_DATA", "/d")
	for _, c := range []struct{ flag, socket, want string }{
		{"", "", "/d"}, {"/f", "", "/f"}, {"/f", "/s/run/node.sock", "/f"}, {"", "/s/run/node.sock", "/s"}, {"", "/s/run/exec.sock", "/s"}, {"", "/s/run", "/s"},
	} {
		t.Setenv("P2PNODE_SOCKET", c.socket)
		if got, err := clientDir(c.flag); err != nil || got != c.want {
			t.Errorf("--data %q, P2PNODE_SOCKET %q: %s, want %s (%v)", c.flag, c.socket, got, c.want, err)
		}
		if got, err := dataDir(c.flag); err != nil || got != first(c.flag, "/d") {
			t.Errorf("a daemon follows a socket: %s", got)
		}
	}
}

func TestIsSelf(t *testing.T) {
	for _, c := range []struct {
		node string
		want bool
	}{{"ash", true}, {"ash~wxyz", true}, {"12Dwxyz", true}, {"ash~", false}, {"ash~nope", false}, {"birch~wxyz", false}, {"birch", false}, {"", false}} {
		if got := isSelf(c.node, "ash", "12Dwxyz"); got != c.want {
			t.Errorf("isSelf(%q) = %v", c.node, got)
		}
	}
	if isSelf("", "ash", "") || isSelf("ash~x", "ash", "") {
		t.Error("a host without a key is anybody")
	}
}

func TestFlatEvent(t *testing.T) {
	at := time.Date(2026, 11, 23, 12, 0, 0, 5, time.UTC)
	e := p2pnode.EventDoc{Seq: 7, At: at, Node: "ash", Event: "report", Fields: json.RawMessage(`{"node":"id","at":"2026","phase":"acted","event":"report"}`)}
	want := `{"seq":7,"at":"2026-11-23T12:00:00.000000005Z","node":"ash","event":"report","report_at":"2026","report_node":"id","phase":"acted"}`
	if got := string(flat(e)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := string(flat(p2pnode.EventDoc{Seq: 1, At: at, Event: "gap"})); got != `{"seq":1,"at":"2026-11-23T12:00:00.000000005Z","event":"gap"}` {
		t.Error(got)
	}
}

// With the node process away a host still says who it is and where.
func TestLocalStatus(t *testing.T) {
	dir := t.TempDir()
	if _, err := p2pnode.LoadOrCreateKey(filepath.Join(dir, "node.key")); err != nil {
		t.Fatal(err)
	}
	if err := savePorts(dir, ports{"127.0.0.1:7", "127.0.0.1:8"}); err != nil {
		t.Fatal(err)
	}
	st := p2pnode.ExecStatus{
		PID: 7, Node: p2pnode.ServiceStatus{Node: "ash", State: p2pnode.StateFrozen},
		Services: []p2pnode.ServiceStatus{{State: p2pnode.StateUp}, {State: p2pnode.StateExited}, {State: p2pnode.StateBackoff}},
	}
	doc := localStatus(st, dir)
	n := doc.Node
	if doc.OK || n.Name != "ash" || n.ID != ownID(dir) || n.ID == "" || n.Listen[0] != "127.0.0.1:7" || n.Door != "127.0.0.1:8" || n.Data != dir {
		t.Errorf("%+v", n)
	}
	if *doc.Services != (p2pnode.StatusServices{Up: 1, Down: 1, Total: 3}) || len(doc.Warnings) != 1 || doc.Warnings[0].Severity != "critical" {
		t.Errorf("%+v %+v", doc.Services, doc.Warnings)
	}
	raw, err := json.Marshal(doc)
	for _, never := range []string{"cluster", "members", "brake", "refusals", "incidents", "agents"} {
		if err != nil || strings.Contains(string(raw), `"`+never+`"`) {
			t.Errorf("it says %s, which exec does not know: %s", never, raw)
		}
	}
}

func TestSince(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{"": {}, "10m": now.Add(-10 * time.Minute), "2026-11-23T11:00:00.5Z": now.Add(-time.Hour + time.Second/2)} {
		if got, err := parseSince(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v %v", text, got, err)
		}
	}
}

func TestErrorAsJSON(t *testing.T) {
	stdout, stderr, code := call(t, "--data", t.TempDir(), "-o", "json", "ps")
	var doc p2pnode.ErrorDoc
	if err := json.Unmarshal([]byte(stdout), &doc); err != nil || doc.Schema != "p2pnode/error/v1" || doc.Error.Code == "" || doc.Error.Text == "" {
		t.Errorf("stdout %q (%v)", stdout, err)
	}
	if code != p2pnode.ExitUnreachable || stderr == "" {
		t.Errorf("exit %d, stderr %q", code, stderr)
	}
}

func TestConfigInitIsValid(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p2pnode.yaml")
	if _, stderr, code := call(t, "config", "init", path); code != 0 {
		t.Fatal(stderr)
	}
	if stdout, stderr, code := call(t, "config", "check", path); code != 0 || !strings.Contains(stdout, "1 service") {
		t.Error(stdout, stderr)
	}
	if _, stderr, code := call(t, "config", "init", path); code != p2pnode.ExitFailed || !strings.Contains(stderr, "left as it is") {
		t.Errorf("init over a file: exit %d, %s", code, stderr)
	}
}

func TestTable(t *testing.T) {
	var b strings.Builder
	p := &printer{w: &b, color: true}
	p.table([]string{"a", "b"}, [][]cell{{c("längerer"), {"x", good}}, {c(""), c("y")}})
	want := "\x1b[2mA\x1b[0m         \x1b[2mB\x1b[0m\nlängerer  \x1b[32mx\x1b[0m\n-         y\n"
	if b.String() != want {
		t.Errorf("got %q\nwant %q", b.String(), want)
	}
}
