package inits

import (
	"slices"
	"strings"
	"testing"
)

// What a shell offers at Tab is what this host knows: members where a NODE is wanted,
// services for a TARGET, and nothing where there is nothing to say.
func TestCompletion(t *testing.T) {
	t.Parallel()
	h := newHost(t).Start(alone...)
	settled(h)
	offered := func(args ...string) (names []string) {
		for line := range strings.Lines(h.OK(append([]string{"__complete"}, args...)...)) {
			if !strings.HasPrefix(line, ":") { // how the shell is to go on
				names = append(names, strings.TrimSpace(line))
			}
		}
		return names
	}
	h.Fleet.Must(patience, "a node's name is offered", func() bool { return slices.Equal(offered("nodes", "why", ""), []string{"a"}) })
	for _, c := range []struct {
		args []string
		want []string
	}{
		{[]string{"ping", ""}, []string{"a"}},
		{[]string{"forget", ""}, []string{"a"}},
		{[]string{"path", "b", ""}, []string{"a"}},
		{[]string{"path", "a", ""}, nil},
		{[]string{"restart", "w"}, []string{"web"}},
		{[]string{"logs", ""}, []string{"web"}},
		{[]string{"logs", "a"}, []string{"a/"}},
		{[]string{"ping", "a", ""}, nil},
		{[]string{"incidents", "show", ""}, nil},
		{[]string{"status", ""}, nil},
	} {
		if got := offered(c.args...); !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.args, got, c.want)
		}
	}
}
