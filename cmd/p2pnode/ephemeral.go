package main

import (
	"bufio"
	"os"
	"regexp"
	"strings"
	"time"
)

// ephemeralFor is how long others wait for this node: 0 means that they do.
func (o *options) ephemeralFor() time.Duration {
	if o.Ephemeral == "yes" {
		return o.ForgetAfter
	}
	return 0
}

// passing reports whether the data folder ends with its container: this process is
// pid 1 of one, and the folder is in the container's own file system, in memory, or
// in a volume without a name. Elsewhere nobody can tell, and a node is waited for;
// behind an init of the container's own --ephemeral yes says it.
func passing(dir string) bool {
	if os.Getpid() != 1 {
		return false
	}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return false
	}
	defer f.Close()
	m, ok := mountOf(bufio.NewScanner(f), dir)
	return ok && m.passing()
}

// mount is what /proc/self/mountinfo says of a file system.
type mount struct{ root, point, kind string }

// anonymous is the folder of a volume that docker or podman made up a name for.
var anonymous = regexp.MustCompile(`/volumes/[0-9a-f]{64}/_data$`)

func (m mount) passing() bool {
	return m.point == "/" || m.kind == "tmpfs" || m.kind == "ramfs" || anonymous.MatchString(m.root)
}

// mountOf finds the file system that dir is in: of those above it the deepest, of
// several at one point the last.
func mountOf(lines *bufio.Scanner, dir string) (found mount, ok bool) {
	for lines.Scan() {
		head, tail, _ := strings.Cut(lines.Text(), " - ")
		before, after := strings.Fields(head), strings.Fields(tail)
		if len(before) < 5 || len(after) < 1 {
			continue
		}
		m := mount{root: before[3], point: before[4], kind: after[0]}
		above := m.point == "/" || dir == m.point || strings.HasPrefix(dir, m.point+"/")
		if above && len(m.point) >= len(found.point) {
			found, ok = m, true
		}
	}
	return found, ok
}
