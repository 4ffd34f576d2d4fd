package main

import (
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"p2pnode"
)

// files accepts one path or a list of them.
func (r *reader) files(what string, into *[]string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		r.texts(what, into)(n)
		for i, path := range *into {
			if path == "" {
				r.bad(n, "%s has an empty path", what)
			} else if !filepath.IsAbs(path) {
				(*into)[i] = filepath.Join(r.dir, path)
			}
		}
	}
}

// commands accepts one command, [program, argument], or a list of them.
func (r *reader) commands(what string, into *[][]string) func(*yaml.Node) {
	return func(n *yaml.Node) {
		if n.Kind != yaml.SequenceNode || !slices.ContainsFunc(n.Content, func(c *yaml.Node) bool { return target(c).Kind == yaml.SequenceNode }) {
			one := []string{}
			if r.argv(what, &one)(n); len(one) > 0 {
				*into = [][]string{one}
			}
			return
		}
		for _, c := range n.Content {
			one := []string{}
			r.argv(what, &one)(target(c))
			*into = append(*into, one)
		}
	}
}

func (r *reader) limits(n *yaml.Node, where string, l *p2pnode.Limits) {
	r.fields(n, where+": limits", map[string]func(*yaml.Node){
		"nofile": r.amount(where+": limits: nofile", &l.NoFile, false),
		"core":   r.amount(where+": limits: core", &l.Core, true),
		"memory": r.amount(where+": limits: memory", &l.Memory, true),
		"pids":   r.amount(where+": limits: pids", &l.PIDs, false),
		"cpu":    r.cores(where+": limits: cpu", &l.CPU),

		"memory_total": r.amount(where+": limits: memory_total", &l.MemoryTotal, true),
	})
}

// cores accepts a number of cores, 0.01 and more, or unlimited.
func (r *reader) cores(what string, into **uint64) func(*yaml.Node) {
	return func(n *yaml.Node) {
		v, err := strconv.ParseFloat(n.Value, 64)
		switch {
		case n.Kind == yaml.ScalarNode && n.Value == "unlimited":
			*into = new(uint64(p2pnode.Unlimited))
		case n.Kind == yaml.ScalarNode && v > 0 && v < 0.01:
			r.bad(n, "%s is %q: the kernel knows no quota below 1 ms, which is 0.01 cores in its period of 100 ms", what, n.Value)
		case n.Kind != yaml.ScalarNode || err != nil || !(v >= 0.01 && v <= 1<<16):
			r.bad(n, "%s is %q, should be cores like 0.5, 0.01 or more, or unlimited", what, n.Value)
		default:
			*into = new(uint64(math.Round(v * 1000)))
		}
	}
}

// sizes are the units of an amount of bytes.
var sizes = map[string]float64{"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

// amount accepts a number, with K, M, G or T where it is bytes, or unlimited.
func (r *reader) amount(what string, into **uint64, bytes bool) func(*yaml.Node) {
	return func(n *yaml.Node) {
		if n.Kind == yaml.ScalarNode && n.Value == "unlimited" {
			*into = new(uint64(p2pnode.Unlimited))
			return
		}
		number, unit := strings.ToUpper(n.Value), ""
		if bytes {
			number = strings.TrimSuffix(strings.TrimSuffix(number, "B"), "I")
			if last := number[max(0, len(number)-1):]; sizes[last] > 1 {
				number, unit = number[:len(number)-1], last
			}
		}
		v, err := strconv.ParseFloat(number, 64)
		v *= sizes[unit]
		if n.Kind != yaml.ScalarNode || err != nil || v < 0 || v > 1<<60 || v != math.Trunc(v) {
			like := "a number or unlimited"
			if bytes {
				like = "bytes like 512M or 2G, or unlimited"
			}
			r.bad(n, "%s is %q, should be %s", what, n.Value, like)
			return
		}
		*into = new(uint64(v))
	}
}

// octal accepts a umask as people write it.
func (r *reader) octal(what string, into **int) func(*yaml.Node) {
	return func(n *yaml.Node) {
		v, err := strconv.ParseInt(strings.TrimPrefix(n.Value, "0o"), 8, 32)
		if n.Kind != yaml.ScalarNode || err != nil || v < 0 || v > 0o777 {
			r.bad(n, "%s is %q, should be octal like 022", what, n.Value)
			return
		}
		*into = new(int(v))
	}
}

// optional is a number that may be left out.
func (r *reader) optional(what string, into **int, low, high int) func(*yaml.Node) {
	return func(n *yaml.Node) {
		v := low - 1
		if r.number(what, &v, low, high)(n); v >= low {
			*into = &v
		}
	}
}

func (r *reader) flag(what string, into *bool) func(*yaml.Node) {
	return func(n *yaml.Node) {
		v, err := strconv.ParseBool(n.Value)
		if n.Kind != yaml.ScalarNode || err != nil {
			r.bad(n, "%s is %q, should be true or false", what, n.Value)
			return
		}
		*into = v
	}
}
