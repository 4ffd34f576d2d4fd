package exec

import (
	"strings"
	"testing"

	"p2pnode"
)

// What ends at once was never up, whatever its start looked like: who asked for it is
// told how it ended. A job that did its work is no failure.
func TestAnOrderTellsOfWhatEndsAtOnce(t *testing.T) {
	shell := func(name, script string, restart p2pnode.RestartPolicy) p2pnode.ServiceSpec {
		return p2pnode.ServiceSpec{Name: name, Command: []string{"/bin/sh", "-c", script}, Restart: restart, Manual: true}
	}
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{
		shell("broken", "exit 3", p2pnode.RestartAlways),
		shell("wrong", "kill -SEGV $$", p2pnode.RestartNo),
		shell("job", "exit 0", p2pnode.RestartOnFailure),
		shell("good", "exec sleep 1000", p2pnode.RestartAlways),
	}})
	for _, c := range []struct {
		name, says string
		ok         bool
	}{
		{"broken", "ended: exit 3", false},
		{"wrong", "ended by SIGSEGV; its restart policy leaves it so", false},
		{"job", "ended: exit 0; its restart policy leaves it so", true},
		{"good", "up", true},
	} {
		for what, order := range map[string]func() (VerbResult, error){
			"start":   func() (VerbResult, error) { return h.c.Start(t.Context(), c.name, VerbOptions{}) },
			"restart": func() (VerbResult, error) { return h.c.Restart(t.Context(), c.name, VerbOptions{}) },
		} {
			res, err := order()
			if err != nil || len(res.Services) != 1 {
				t.Fatalf("%s %s: %+v, %v", what, c.name, res, err)
			}
			if got := res.Services[0]; res.OK != c.ok || !strings.HasPrefix(got.Text, c.says) {
				t.Errorf("%s %s: %v, %q; want %v, %q", what, c.name, res.OK, got.Text, c.ok, c.says)
			}
			if _, err := h.c.Stop(t.Context(), c.name, VerbOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
}
