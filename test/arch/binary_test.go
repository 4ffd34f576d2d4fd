package arch

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"p2pnode/test/bin"
)

// maxBinary is the budget of the static binary, in bytes.
const maxBinary = 30 << 20

func TestBinaryIsSmallAndStatic(t *testing.T) {
	path := bin.Build(t, "-ldflags=-s -w")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("binary: %.1f MB of %d", float64(info.Size())/(1<<20), maxBinary>>20)
	if info.Size() > maxBinary {
		t.Errorf("the binary has %d bytes, the budget is %d", info.Size(), maxBinary)
	}
}

// One reachable reflect.Value.MethodByName or Method keeps every exported method
// of every type in the binary: some 5 MB. The linker marks such callers with
// <ReflectMethod> in its dependency dump.
func TestNoReflectMethodReachable(t *testing.T) {
	cmd := exec.Command("go", "build", "-o", filepath.Join(t.TempDir(), "p"), "-ldflags=-dumpdep", "./cmd/p2pnode")
	cmd.Dir = bin.Root(t)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%.2000s", err, out)
	}
	if !bytes.Contains(out, []byte("main.main ->")) {
		t.Fatal("the linker dumped no dependencies: this test would pass whatever is linked")
	}
	for line := range bytes.Lines(out) {
		if bytes.Contains(line, []byte("<ReflectMethod>")) {
			t.Errorf("reachable: %s", bytes.TrimSpace(line))
		}
	}
}
