// Package bin gives tests the real binary, and makes programs that run at once.
package bin

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// P2pnode is the path of a p2pnode binary: the one that P2PNODE_BIN names (as
// `make test` does, so that it is linked once), or one built for this test.
func P2pnode(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("P2PNODE_BIN"); path != "" {
		return path
	}
	return Build(t)
}

// Planted builds a binary that has the planted bugs of the build tag plantedbugs
// in it; the environment variable P2PNODE_PLANT switches one on.
func Planted(t testing.TB) string {
	t.Helper()
	return Build(t, "-tags=plantedbugs")
}

// At builds the binary of an earlier revision of this repository.
func At(t testing.TB, revision string) string {
	t.Helper()
	tree := t.TempDir()
	archive := exec.Command("sh", "-c", `git archive --format=tar "$0" | tar -x -C "$1"`, revision, tree)
	archive.Dir = Root(t)
	if out, err := archive.CombinedOutput(); err != nil {
		t.Fatalf("revision %s: %v\n%s", revision, err, out)
	}
	return build(t, tree)
}

// Build links cmd/p2pnode into the test's own folder with the given go build
// flags.
func Build(t testing.TB, flags ...string) string {
	t.Helper()
	return build(t, Root(t), flags...)
}

func build(t testing.TB, tree string, flags ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "p2pnode")
	args := append([]string{"build", "-buildvcs=auto", "-trimpath", "-o", path}, flags...)
	cmd := exec.Command("go", append(args, "./cmd/p2pnode")...)
	cmd.Dir = tree
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// Root is the folder of the module.
func Root(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(strings.TrimSpace(string(out)))
}
