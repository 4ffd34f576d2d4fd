package check

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"p2pnode"

	"golang.org/x/sys/unix"
)

// Exec is a subreaper: what a check's program leaves behind comes to it, a zombie
// for each question if nobody takes its status.
func TestAProgramsOrphansAreReaped(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	defer unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	for range 5 {
		if err := Ask(t.Context(), p2pnode.Check{Exec: []string{"/bin/sh", "-c", "sleep 100 & sleep 100 & exit 0"}, Timeout: 5 * time.Second}); err != nil {
			t.Fatal(err)
		}
	}
	for _, pid := range Tree(os.Getpid())[1:] {
		raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		t.Errorf("left behind: %.60s", strings.TrimSpace(string(raw)))
	}
}
