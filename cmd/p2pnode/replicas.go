package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"p2pnode"
)

// unfold makes web.1, web.2 ... of replicas; an `after` or `requires` that
// names a service with replicas means all of them.
func unfold(all []declared) []p2pnode.ServiceSpec {
	names := map[string][]string{}
	for _, d := range all {
		names[d.spec.Name] = replicaNames(d)
	}
	var out []p2pnode.ServiceSpec
	for _, d := range all {
		for i, name := range names[d.spec.Name] {
			s := d.spec
			if d.replicas > 0 {
				s = numbered(s, i+1)
			}
			s.Name, s.After, s.Requires = name, allOf(names, s.After), allOf(names, s.Requires)
			out = append(out, s)
		}
	}
	return out
}

func allOf(names map[string][]string, some []string) (out []string) {
	for _, name := range some {
		out = append(out, names[name]...)
	}
	return out
}

func replicaNames(d declared) []string {
	if d.replicas <= 1 {
		return []string{d.spec.Name}
	}
	out := make([]string, d.replicas)
	for i := range out {
		out[i] = fmt.Sprintf("%s.%d", d.spec.Name, i+1)
	}
	return out
}

// numbered is s for replica i: {i} in what it runs, reads, writes and is asked
// stands for its number. Only services that say replicas have it.
func numbered(s p2pnode.ServiceSpec, i int) p2pnode.ServiceSpec {
	in := func(text string) string { return strings.ReplaceAll(text, "{i}", strconv.Itoa(i)) }
	each := func(list []string) []string {
		list = slices.Clone(list)
		for i := range list {
			list[i] = in(list[i])
		}
		return list
	}
	s.Command, s.EnvFile = each(s.Command), each(s.EnvFile)
	s.Before = slices.Clone(s.Before)
	for i := range s.Before {
		s.Before[i] = each(s.Before[i])
	}
	s.Env = maps.Clone(s.Env)
	for k, v := range s.Env {
		s.Env[k] = in(v)
	}
	s.Cwd, s.LogFile = in(s.Cwd), in(s.LogFile)
	s.OwnChecks()
	for _, c := range s.EachCheck {
		*c = numberedCheck(*c, in, each)
	}
	return s
}

func numberedCheck(c p2pnode.Check, in func(string) string, each func([]string) []string) p2pnode.Check {
	c.HTTP, c.TCP, c.Unix, c.Send, c.Expect = in(c.HTTP), in(c.TCP), in(c.Unix), in(c.Send), in(c.Expect)
	c.GRPC, c.Service, c.File, c.Body = in(c.GRPC), in(c.Service), in(c.File), in(c.Body)
	c.Exec = each(c.Exec)
	return c
}
