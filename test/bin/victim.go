package bin

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Victim is the path of test/victim, built for this test.
func Victim(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "victim")
	cmd := exec.Command("go", "build", "-o", path, "./test/victim")
	cmd.Dir = Root(t)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build ./test/victim: %v\n%s", err, out)
	}
	return path
}
