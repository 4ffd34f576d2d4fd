package exec

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"p2pnode"
)

// With successes: a service is up after so many good answers in a row, and not before:
// one whose check passes by turns never is.
func TestSuccessesInARowMakeItReady(t *testing.T) {
	dir := t.TempDir()
	asked := func(name string) int64 {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return 0
		}
		return info.Size()
	}
	checked := func(name, then string) p2pnode.ServiceSpec {
		s := service(name, "part:sleep")
		file := filepath.Join(dir, name)
		s.Check = &p2pnode.Check{
			Exec:  []string{"/bin/sh", "-c", "printf x >> " + file + "; " + then, file},
			Every: 50 * time.Millisecond, Timeout: 10 * time.Second, Good: 4,
		}
		return s
	}
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{
		checked("steady", "exit 0"),
		checked("swings", `exit $(($(wc -c < "$0") % 2))`),
	}})
	h.await("steady", p2pnode.StateUp)
	if n := asked("steady"); n < 4 {
		t.Errorf("up after %d good answers, 4 are wanted", n)
	}
	eventually(t, "the other is asked often", func() bool { return asked("swings") >= 12 })
	if s := h.status("swings"); s.State != p2pnode.StateStarting || s.Restarts != 0 {
		t.Errorf("whose check passes by turns is %s, after %d restarts", s.State, s.Restarts)
	}
}
