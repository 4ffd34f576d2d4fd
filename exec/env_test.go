package exec

import (
	"slices"
	"testing"

	"p2pnode"
)

// Most programs take the first of two variables of one name. Of exec's own, the user's,
// the env_file's and the declaration's the later one stands in place of the earlier.
func TestOfTwoVariablesTheLastIsMeant(t *testing.T) {
	own := []string{"HOME=/exec", "PATH=/bin", "TZ=UTC"}
	for name, c := range map[string]struct {
		spec  p2pnode.ServiceSpec
		files []string
		want  []string
	}{
		"the declaration's":        {p2pnode.ServiceSpec{Env: map[string]string{"TZ": "CET", "HOME": "/srv"}}, []string{"TZ=EET"}, []string{"TZ=CET", "HOME=/srv"}},
		"the user's":               {p2pnode.ServiceSpec{User: "root"}, nil, []string{"HOME=/root", "USER=root", "LOGNAME=root"}},
		"its own, not the user's":  {p2pnode.ServiceSpec{User: "root", Env: map[string]string{"HOME": "/srv"}}, nil, []string{"HOME=/srv", "USER=root"}},
		"the file's, not the user": {p2pnode.ServiceSpec{User: "root"}, []string{"HOME=/file"}, []string{"HOME=/file", "USER=root"}},
	} {
		c.spec.Command = []string{"/bin/sh"}
		l, err := prepare(c.spec, serviceEnv(c.spec, own, c.files))
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
