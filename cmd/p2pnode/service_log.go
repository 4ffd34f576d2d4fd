package main

import (
	"cmp"
	"fmt"
	"path/filepath"

	"go.yaml.in/yaml/v4"
	"golang.org/x/sys/unix"

	"p2pnode"
	"p2pnode/exec/logs"
)

// log accepts where a service's output goes, or that together with how much of it is
// kept: {to, size, keep}.
func (r *reader) log(n *yaml.Node, where string, s *p2pnode.ServiceSpec) {
	where += ": log"
	var to string
	mode := r.oneOf(where, &to, string(p2pnode.LogCapture), string(p2pnode.LogFile))
	if n.Kind == yaml.MappingNode {
		r.fields(n, where, map[string]func(*yaml.Node){
			"to":   r.oneOf(where+": to", &to, string(p2pnode.LogCapture), string(p2pnode.LogFile)),
			"size": r.logSize(where+": size", &s.LogSize),
			"keep": r.logKeep(where+": keep", &s.LogKeep),
		})
	} else {
		mode(n)
	}
	set(&s.Log, to)
}

func (r *reader) logSize(what string, into *int64) func(*yaml.Node) {
	return func(n *yaml.Node) {
		var size *uint64
		r.amount(what, &size, true)(n)
		switch {
		case size == nil:
		case *size < logs.MinSize:
			r.bad(n, "%s is %q, should be %s or more: that much may come at once", what, n.Value, sizeText(logs.MinSize))
		case *size > logs.MaxSize:
			r.bad(n, "%s is %q, should be %s or less, since a log must not fill its disk: keep: says how many files of it there may be", what, n.Value, sizeText(logs.MaxSize))
		default:
			*into = int64(*size)
		}
	}
}

func (r *reader) logKeep(what string, into *int) func(*yaml.Node) {
	return func(n *yaml.Node) {
		if n.Kind == yaml.ScalarNode && n.Value == "0" {
			r.bad(n, "%s is 0, should be %d or more: what was printed just before a file was full is in the one before", what, logs.MinKeep)
			return
		}
		r.number(what, into, logs.MinKeep, logs.MaxKeep)(n)
	}
}

// retention refuses a size for a file that p2pnode does not rotate.
func (r *reader) retention(key *yaml.Node, s *p2pnode.ServiceSpec) {
	if s.Log == p2pnode.LogFile && s.LogFile != "" && (s.LogSize != 0 || s.LogKeep != 0) {
		r.bad(key, "service %s: log: size and keep are for files that p2pnode rotates, and %s is not one: rotate it yourself, or leave log_file out", s.Name, s.LogFile)
	}
}

// logRoom is what the log of a service may take on disk, in bytes; 0 where p2pnode does
// not write it, and nothing bounds it.
func logRoom(s p2pnode.ServiceSpec) uint64 {
	if s.Log == p2pnode.LogFile {
		return 0
	}
	return uint64(cmp.Or(s.LogSize, logs.DefaultSize)) * uint64(1+cmp.Or(s.LogKeep, logs.DefaultKeep))
}

// tooMuchLog warns of logs that together may become larger than the disk of dir.
func tooMuchLog(specs []p2pnode.ServiceSpec, dir string) []string {
	var all, most uint64
	var worst string
	for _, s := range specs {
		room := logRoom(s)
		if all += room; room > most {
			most, worst = room, s.Name
		}
	}
	has, ok := diskSize(dir)
	if !ok || all <= has {
		return nil
	}
	return []string{fmt.Sprintf("the logs of all services may take %s, those of %s alone %s, and the disk of %s has %s in all: say log: {size, keep} of less", sizeText(all), worst, sizeText(most), dir, sizeText(has))}
}

// diskSize is how many bytes the disk has that a folder is on, or is to be.
func diskSize(dir string) (uint64, bool) {
	for {
		var fs unix.Statfs_t
		if unix.Statfs(dir, &fs) == nil {
			return fs.Blocks * uint64(fs.Bsize), true
		}
		up := filepath.Dir(dir)
		if up == dir {
			return 0, false
		}
		dir = up
	}
}

func sizeText(n uint64) string {
	if n < 1<<30 {
		return fmt.Sprintf("%.4g MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.4g GiB", float64(n)/(1<<30))
}
