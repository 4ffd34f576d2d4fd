package exec

import (
	"os"
	"path/filepath"
	"testing"

	"p2pnode"
)

// The memory controller's count makes a SIGKILL an OOM kill, and nothing else does.
func TestAnOOMKillIsTold(t *testing.T) {
	const killed, calm = "low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\noom_group_kill 0\n", "low 0\noom 0\noom_kill 0\n"
	sigkill, code := p2pnode.Exit{Signal: "SIGKILL"}, p2pnode.Exit{Code: 1}
	for _, c := range []struct {
		name   string
		events string // "": the host has no memory controller there
		exit   p2pnode.Exit
		oom    bool
	}{
		{"killed", killed, sigkill, true},
		{"killed by somebody else", calm, sigkill, false},
		{"a child was killed, it ended by itself", killed, code, false},
		{"not counted here", "", sigkill, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := (&cgroups{base: t.TempDir()}).of("web")
			if err := os.Mkdir(g.path(3), 0o700); err != nil {
				t.Fatal(err)
			}
			if c.events != "" {
				if err := os.WriteFile(filepath.Join(g.path(3), "memory.events"), []byte(c.events), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := g.blame(3, c.exit); got.OOM != c.oom || got.Signal != c.exit.Signal || got.Code != c.exit.Code {
				t.Errorf("%+v, want oom %v", got, c.oom)
			}
			if g.blame(4, sigkill).OOM {
				t.Error("another life's group is blamed")
			}
			if (*cgroup)(nil).blame(3, sigkill).OOM {
				t.Error("without a group")
			}
		})
	}
}
