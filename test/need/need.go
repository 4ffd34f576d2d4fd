// Package need names what a test wants from the machine. Where it is missing
// the test is skipped, out loud and counted, for a person; under CI it fails.
//
// Every skip appends one line to the file that P2PNODE_SKIPS names; `make test`
// prints and counts them.
package need

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"testing"
)

// Program demands that name is on PATH; pkg is the Debian package that has it.
func Program(t testing.TB, name, pkg string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		missing(t, fmt.Sprintf("%s is not installed: apt-get install %s", name, pkg))
	}
}

// Root demands that the test runs as root; why says what for.
func Root(t testing.TB, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "not root: "+why)
	}
}

// Docker demands a Docker Engine that can be talked to.
func Docker(t testing.TB) {
	t.Helper()
	Program(t, "docker", "docker.io")
	if out, err := exec.Command("docker", "version", "-f", "{{.Server.Version}}").CombinedOutput(); err != nil {
		missing(t, fmt.Sprintf("no Docker Engine answers: %s", bytes.TrimSpace(out)))
	}
}

// Had demands that something could be had; err says why not.
func Had(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		missing(t, err.Error())
	}
}

func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("CI must run this: %s", what)
	}
	if path := os.Getenv("P2PNODE_SKIPS"); path != "" {
		if f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600); err == nil {
			fmt.Fprintf(f, "%s: %s\n", t.Name(), what)
			f.Close()
		}
	}
	t.Skipf("SKIPPED: %s", what)
}
