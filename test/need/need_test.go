package need

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestChild is what TestMissingDocker runs, in a process without Docker on its PATH.
func TestChild(t *testing.T) {
	if os.Getenv("P2PNODE_NEED_CHILD") == "" {
		return // by itself it shows nothing
	}
	Docker(t)
}

// Where Docker is missing a person's run skips, says so and counts it; CI fails.
func TestMissingDocker(t *testing.T) {
	empty, skips := t.TempDir(), filepath.Join(t.TempDir(), "skips")
	run := func(ci string) (string, error) {
		cmd := exec.Command("/proc/self/exe", "-test.run", "^TestChild$", "-test.v")
		cmd.Env = []string{"PATH=" + empty, "P2PNODE_NEED_CHILD=1", "P2PNODE_SKIPS=" + skips, "CI=" + ci}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := run("")
	if err != nil || !strings.Contains(out, "SKIPPED: docker is not installed: apt-get install docker.io") {
		t.Errorf("a person's run: %v\n%s", err, out)
	}
	if raw, _ := os.ReadFile(skips); string(raw) != "TestChild: docker is not installed: apt-get install docker.io\n" {
		t.Errorf("counted: %q", raw)
	}
	if out, err = run("true"); err == nil || !strings.Contains(out, "CI must run this: docker is not installed") {
		t.Errorf("under CI: %v\n%s", err, out)
	}
}
