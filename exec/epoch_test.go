package exec

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"p2pnode"
)

// The state of a folder is lost or damaged while its services run: one copy of
// each is there afterwards, the one that ran where its epoch can still be told.
func TestLostStateMakesNoSecondCopy(t *testing.T) {
	for _, c := range []struct {
		name string
		lose func(dir string) error
		same bool // the process lives on
	}{
		{"epoch removed", func(dir string) error { return os.Remove(filepath.Join(stateDir(dir), "epoch.json")) }, true},
		{"epoch torn", func(dir string) error {
			return os.WriteFile(filepath.Join(stateDir(dir), "epoch.json"), []byte(`{"epo`), 0o600)
		}, true},
		{"epoch empty", func(dir string) error { return os.WriteFile(filepath.Join(stateDir(dir), "epoch.json"), nil, 0o600) }, true},
		{"record torn", func(dir string) error {
			return os.WriteFile(filepath.Join(stateDir(dir), "services", "web.json"), []byte(`{"service":"w`), 0o600)
		}, true},
		{"all removed", func(dir string) error {
			other := filepath.Join(dir, "other") // there before the old one goes: its inode is another
			return errors.Join(os.Mkdir(other, 0o700), os.RemoveAll(stateDir(dir)), os.Rename(other, stateDir(dir)))
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:sleep")}})
			was := h.await("web", p2pnode.StateUp)
			h.withoutExec(func() {
				if err := c.lose(h.dir); err != nil {
					t.Fatal(err)
				}
			})
			now := h.await("web", p2pnode.StateUp)
			if same := now.PID == was.PID; same != c.same || alive(was.PID) != c.same {
				t.Errorf("pid %d, was %d, which lives: %v", now.PID, was.PID, alive(was.PID))
			}
			if n := h.programs(); n != 1 {
				t.Errorf("%d copies", n)
			}
			if c.same && now.Incarnation != was.Incarnation {
				t.Errorf("incarnation %s, was %s", now.Incarnation, was.Incarnation)
			}
		})
	}
}

// programs counts the processes that print into this host's run folder, whatever
// marks they carry: one for each service.
func (h *host) programs() (n int) {
	for _, pid := range allPIDs() {
		to, err := os.Readlink(procPath(pid, "fd/1"))
		if err == nil && filepath.Dir(to) == runDir(h.dir) && alive(pid) {
			n++
		}
	}
	return n
}
