// Package arch holds the architecture's rules as tests: who may import whom,
// what the binary may link, how large it may be.
package arch

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"p2pnode/test/bin"
)

// pkg is what `go list -json` says of a package of ours.
type pkg struct {
	ImportPath string
	Imports    []string
	Deps       []string
	Doc        string
	Dir        string

	GoFiles, TestGoFiles, XTestGoFiles []string
}

const module = "p2pnode"

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Deps,Doc,GoFiles,TestGoFiles,XTestGoFiles,Dir", "./...")
	cmd.Dir = bin.Root(t)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); d.More(); {
		var p pkg
		if err := d.Decode(&p); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 10 {
		t.Fatalf("go list found %d packages only: the rules would hold of nothing", len(all))
	}
	return all
}

// family is the top-level folder of an import path of ours: "overlay" for
// p2pnode/overlay/route, "root" for p2pnode itself, "" for foreign ones.
func family(path string) string {
	if path == module {
		return "root"
	}
	rest, ok := strings.CutPrefix(path, module+"/")
	if !ok {
		return ""
	}
	head, _, _ := strings.Cut(rest, "/")
	return head
}

// layers say what each family may import of ours, and why the others may not.
var layers = map[string]struct {
	may []string
	why string
}{
	"root":    {nil, "the vocabulary knows nobody"},
	"overlay": {[]string{"root"}, "the five domains meet in node only, so each can be read, tested and replaced alone"},
	"gossip":  {[]string{"root"}, "as overlay"},
	"agent":   {[]string{"root"}, "as overlay"},
	"exec":    {[]string{"root"}, "as overlay; and exec must stay small, it is PID 1 in a container"},
	"store":   {[]string{"root"}, "as overlay"},
	"manage":  {[]string{"root", "overlay", "gossip", "agent", "exec", "store"}, "managing reads the domains, nothing below reads it"},
	"node":    {[]string{"root", "overlay", "gossip", "agent", "exec", "store", "manage"}, "the composition root as a library"},
	"cmd":     {[]string{"root", "overlay", "gossip", "agent", "exec", "store", "manage", "node", "test"}, "flags, signals, subcommands; the demo judges itself with test/history"},
}

func TestArrows(t *testing.T) {
	for _, p := range list(t) {
		from := family(p.ImportPath)
		rule, ok := layers[from]
		if !ok {
			if from != "test" {
				t.Errorf("%s is in no layer: give it one here, with the reason", p.ImportPath)
			}
			continue
		}
		for _, imp := range p.Imports {
			to := family(imp)
			if to == "" || to == from || slices.Contains(rule.may, to) {
				continue
			}
			t.Errorf("%s imports %s: %s", p.ImportPath, imp, rule.why)
		}
	}
}

// foreign libraries that only some families may touch.
var quarantine = []struct {
	prefix string
	except []string // import paths with that prefix which all may use
	may    []string
	why    string
}{
	{"github.com/hashicorp/memberlist", nil, []string{"gossip"}, "whoever holds its key is trusted fully there: it stays behind one door"},
	{"github.com/libp2p/", []string{"github.com/libp2p/go-libp2p/core/peer"}, []string{"overlay", "node"}, "the rest of the program speaks of peers, not of libp2p"},
	{"go.etcd.io/bbolt", nil, []string{"store"}, "it panics on damaged files: one package guards against that"},
	{"github.com/spf13/cobra", nil, []string{"cmd"}, "a command line belongs to cmd"},
	{"text/template", nil, nil, "switches the linker's dead-code elimination off: +5 MB"},
	{"html/template", nil, nil, "as text/template"},
}

func TestQuarantine(t *testing.T) {
	for _, p := range list(t) {
		from := family(p.ImportPath)
		for _, imp := range p.Imports {
			for _, q := range quarantine {
				if from == "test" || !strings.HasPrefix(imp, q.prefix) || slices.Contains(q.except, imp) || slices.Contains(q.may, from) {
					continue
				}
				t.Errorf("%s imports %s: %s", p.ImportPath, imp, q.why)
			}
		}
	}
}

// Exec and the door outlive the network's troubles because they do not link its
// libraries, whatever a refactoring does three packages away.
func TestExecLinksNoNetwork(t *testing.T) {
	banned := []string{
		"github.com/hashicorp/memberlist", "github.com/libp2p/go-libp2p/p2p", "go.etcd.io/bbolt",
		module + "/overlay", module + "/gossip", module + "/agent", module + "/store",
	}
	seen := 0
	for _, p := range list(t) {
		if family(p.ImportPath) != "exec" {
			continue
		}
		seen++
		for _, dep := range p.Deps {
			for _, b := range banned {
				if strings.HasPrefix(dep, b) {
					t.Errorf("%s links %s", p.ImportPath, dep)
				}
			}
		}
	}
	if seen < 2 {
		t.Fatalf("%d packages of exec seen", seen)
	}
}

func TestEveryPackagePromisesSomething(t *testing.T) {
	for _, p := range list(t) {
		if len(p.GoFiles) > 0 && p.Doc == "" && !strings.HasSuffix(p.ImportPath, "pb") {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

// A bubble that package bubble did not make crashes in the race detector now and
// then, which looks like anything but what it is.
func TestBubblesSurviveTheRaceDetector(t *testing.T) {
	bubbles := 0
	for _, p := range list(t) {
		for _, f := range slices.Concat(p.GoFiles, p.TestGoFiles, p.XTestGoFiles) {
			raw, err := os.ReadFile(filepath.Join(p.Dir, f))
			if err != nil {
				t.Fatal(err)
			}
			bubbles += bytes.Count(raw, []byte("\tbubble.Test(t, "))
			if p.ImportPath != module+"/test/bubble" && bytes.Contains(raw, []byte("\tsynctest.Test(t, ")) {
				t.Errorf("%s/%s calls synctest.Test: call bubble.Test", p.ImportPath, f)
			}
		}
	}
	if bubbles < 10 {
		t.Fatalf("%d bubbles seen", bubbles)
	}
}

// Pure cores take time as an argument, draw no randomness of their own, start
// nothing and touch no file or socket.
func TestCoresArePure(t *testing.T) {
	banned := []string{"time.Now(", "time.Since(", "time.After", "time.Sleep(", "time.NewT", "os.", "net.Dial", "rand.Read(", "rand.IntN(", "rand.Float64(", "rand.N("}
	cores := 0
	for _, p := range list(t) {
		for _, f := range p.GoFiles {
			if f != "core.go" && !strings.HasPrefix(f, "core_") {
				continue
			}
			cores++
			raw, err := os.ReadFile(filepath.Join(p.Dir, f))
			if err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(bytes.NewReader(raw))
			for n := 1; lines.Scan(); n++ {
				line := strings.TrimSpace(lines.Text())
				if strings.HasPrefix(line, "//") {
					continue
				}
				for _, b := range banned {
					if strings.Contains(" "+line, " "+b) || strings.Contains(line, "("+b) {
						t.Errorf("%s/%s:%d: %q in a pure core", p.ImportPath, f, n, b)
					}
				}
				if strings.HasPrefix(line, "go ") {
					t.Errorf("%s/%s:%d: a goroutine in a pure core", p.ImportPath, f, n)
				}
			}
		}
	}
	if cores < 3 {
		t.Fatalf("%d cores seen", cores)
	}
}
