package exec

import (
	"slices"
	"testing"

	"p2pnode"
)

// Most programs take the first of two variables of one name. What the file says, and
// then what its user has, stands in place of exec's own.
func TestOfTwoVariablesTheLastIsMeant(t *testing.T) {
	own := []string{"HOME=/root", "PATH=/bin", "TZ=UTC"}
	for name, c := range map[string]struct {
		spec p2pnode.ServiceSpec
		said []string // by the file, as envOf adds it
		want []string
	}{
		"the file's":               {p2pnode.ServiceSpec{}, []string{"TZ=CET", "HOME=/srv"}, []string{"TZ=CET", "HOME=/srv"}},
		"the user's":               {p2pnode.ServiceSpec{User: "root"}, nil, []string{"HOME=/root", "USER=root", "LOGNAME=root"}},
		"the file's, not the user": {p2pnode.ServiceSpec{User: "root", Env: map[string]string{"HOME": "/srv"}}, []string{"HOME=/srv"}, []string{"HOME=/srv", "USER=root"}},
	} {
		c.spec.Command = []string{"/bin/sh"}
		l, err := prepare(c.spec, append(slices.Clone(own), c.said...))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, kv := range c.want {
			if !slices.Contains(l.env, kv) {
				t.Errorf("%s: %q is not in %q", name, kv, l.env)
			}
		}
		seen := map[string]bool{}
		for _, kv := range l.env {
			key := kv[:max(0, slices.Index([]byte(kv), '='))]
			if seen[key] {
				t.Errorf("%s: %s is there twice: %q", name, key, l.env)
			}
			seen[key] = true
		}
	}
}
