package score

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What measuring writes itself makes no other revision of a tree, whatever else changes
// does, and it is the same from a folder below.
func TestCommitOfAChangedTree(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if name := Commit(); name != "" {
		t.Errorf("%q, outside of any tree", name)
	}
	write := func(path, text string) {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, path), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	all := []string{"docs/SCORECARD.json", "docs/SCORECARD.md", "docs/mttr/a.json", "README.md", "test/bench/main.go"}
	for _, path := range all {
		write(path, "one")
	}
	for _, args := range [][]string{{"init", "-q"}, {"add", "."}, {"-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false", "commit", "-q", "-m", "one"}} {
		if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
	}
	whole := Commit()
	if len(whole) != 9 {
		t.Fatalf("%q is no revision", whole)
	}
	t.Chdir(filepath.Join(dir, "test", "bench"))
	for _, path := range all {
		write(path, "two")
		want := whole
		if strings.HasPrefix(path, "test/") {
			want += " and changes"
		}
		if name := Commit(); name != want {
			t.Errorf("with %s changed: %q, want %q", path, name, want)
		}
	}
}
