package exec

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"p2pnode"
)

// The new binary has its name, and then the disk fails: the old one is put back, and
// where that fails, too, it is said what the next start would be of.
func TestInstallOnAFailingDisk(t *testing.T) {
	for name, c := range map[string]struct {
		before func(in *installation) error
		said   string
		old    bool
	}{
		"put back": {func(*installation) error { return nil }, "the old binary is back", true},
		"not put back": {func(in *installation) error {
			return os.Remove(in.previous())
		}, "cannot be put back", false},
	} {
		in := &installation{target: filepath.Join(t.TempDir(), "p2pnode")}
		in.staged = in.target + ".new"
		if err := os.WriteFile(in.staged, []byte("new"), 0o755); err != nil {
			t.Fatal(err)
		}
		in.sync = func(string) error { return errors.Join(c.before(in), syscall.EIO) }
		err := in.install()
		e, _ := errors.AsType[*p2pnode.Error](err)
		if e == nil || e.Code != "cannot-install" || !strings.Contains(e.Text, c.said) || e.Fix == "" {
			t.Errorf("%s: %v", name, err)
		}
		if there, err := os.ReadFile(in.target); err != nil || (string(there) != "new") != c.old {
			t.Errorf("%s: the installed binary has %d bytes, %v", name, len(there), err)
		}
		in.discard()
	}
}
