package exec

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"p2pnode"

	"golang.org/x/sys/unix"
)

// cgroups is a writable cgroup v2 subtree of ours, if the host grants one: the
// only mark that no child can shed.
type cgroups struct {
	base   string
	scopes *scopes // others, for services that want controllers
}

// cgroup is the groups of one service, a fresh one for each incarnation:
// base/SERVICE@N. Fresh, since a child that is forked straight into a group in
// which cgroup.kill was ever written is killed at birth (measured on Linux 6.18).
// nil works and holds nothing.
type cgroup struct {
	in   *cgroups
	mark string // SERVICE@
}

// openCgroups makes the subtree for the given tag, in the v2 hierarchy at its
// usual mount points. It first moves this process out of a service's group, where
// an exec that a guard started was born: a kill of that service would end it.
func openCgroups(tag string) *cgroups {
	for _, root := range cgroupRoots {
		var fs unix.Statfs_t
		if unix.Statfs(root, &fs) != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
			continue
		}
		own := ownCgroup()
		if above := aboveOurs(own); above != own {
			own = above
			os.WriteFile(filepath.Join(root, own, "cgroup.procs"), []byte("0"), 0)
		}
		base := filepath.Join(root, own, "p2pnode-"+tag)
		probe := filepath.Join(base, "probe")
		if os.MkdirAll(probe, 0o755) != nil {
			continue
		}
		_, err := os.Stat(filepath.Join(probe, "cgroup.kill"))
		os.Remove(probe)
		if err != nil {
			os.Remove(base)
			continue
		}
		clearEmpty(filepath.Join(root, own), base)
		return &cgroups{base: base, scopes: openScopes(root, own, tag)}
	}
	return nil
}

// aboveOurs is the group in which a subtree of a p2pnode is, for a group in that subtree;
// a unit may have such a name too.
func aboveOurs(own string) string {
	at := strings.LastIndex(own, "/p2pnode-")
	if at < 0 {
		return own
	}
	name, _, _ := strings.Cut(own[at+1:], "/")
	if isUnit(name) {
		return own
	}
	return own[:at]
}

// clearEmpty removes the subtrees that p2pnodes which were killed left behind. What
// has a process in it cannot be removed; what is fresh may be somebody's who is
// about to start one.
func clearEmpty(parent, ours string) {
	bases, _ := filepath.Glob(filepath.Join(parent, "p2pnode-*"))
	for _, base := range bases {
		groups, _ := filepath.Glob(filepath.Join(base, "*@*"))
		for _, dir := range append(groups, base) {
			info, err := os.Stat(dir)
			if err == nil && dir != ours && time.Since(info.ModTime()) > cgroupRest {
				os.Remove(dir)
			}
		}
	}
}

// ownCgroup is this process's path in the v2 hierarchy.
func ownCgroup() string { return groupsOf("self").v2 }

// groups are the paths of a process in the hierarchies that exec reads: "/" in v2
// where that is not told, "" in the CPU controller of v1 where there is none.
type groups struct{ v2, cpu string }

func groupsOf(pid string) groups { return parseGroups(cgroupFile(pid)) }

func cgroupFile(pid string) string {
	raw, _ := os.ReadFile("/proc/" + pid + "/cgroup")
	return string(raw)
}

func parseGroups(raw string) groups {
	v2, ok := groupPath(raw, "")
	if !ok {
		v2 = "/"
	}
	cpu, _ := groupPath(raw, "cpu")
	return groups{v2, cpu}
}

// groupPath is the path in the hierarchy of a controller, "" for v2. raw has lines of
// ID:CONTROLLERS:PATH; the path may hold colons.
func groupPath(raw, controller string) (path string, ok bool) {
	for line := range strings.Lines(raw) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) == 3 && slices.Contains(strings.Split(f[1], ","), controller) {
			path, ok = f[2], true
		}
	}
	return path, ok
}

// cgroupRoots are where the v2 hierarchy is mounted, alone or beside v1.
var cgroupRoots = [...]string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}

// frozen reports whether a freezer of cgroup v2 holds the group.
func (g groups) frozen() bool {
	for _, root := range cgroupRoots {
		raw, err := os.ReadFile(filepath.Join(root, g.v2, "cgroup.events"))
		if err == nil {
			return strings.Contains(string(raw), "frozen 1")
		}
	}
	return false
}

// cpuRoot is where the CPU controller of cgroup v1 is mounted.
const cpuRoot = "/sys/fs/cgroup/cpu"

// throttles is how often the CPU quota of a process's group, or of one above it that
// counts that, has been used up; 0 where nothing bounds it.
func (g groups) throttles() (sum uint64) {
	for _, root := range cgroupRoots {
		sum += throttlesOf(root, g.v2)
	}
	if g.cpu != "" {
		sum += throttlesOf(cpuRoot, g.cpu)
	}
	return sum
}

func throttlesOf(root, path string) (sum uint64) {
	for up := path; ; up = filepath.Dir(up) {
		raw, _ := os.ReadFile(filepath.Join(root, up, "cpu.stat"))
		for line := range strings.Lines(string(raw)) {
			if n, ok := strings.CutPrefix(line, "nr_throttled "); ok {
				times, _ := strconv.ParseUint(strings.TrimSpace(n), 10, 64)
				sum += times
			}
		}
		if up == "/" || up == "." { // in a container that is where its quota counts
			return sum
		}
	}
}

func (c *cgroups) of(service string) *cgroup {
	if c == nil {
		return nil
	}
	return &cgroup{c, service + "@"}
}

// close removes what is empty.
func (c *cgroups) close() {
	if c != nil {
		os.Remove(c.base)
	}
}

// letGo lets go of what only a living exec keeps.
func (c *cgroups) letGo() {
	if c != nil {
		c.scopes.close()
	}
}

// open returns a descriptor of the group to start incarnation n in: of born, which holds
// limits of it, or of one that it makes.
func (g *cgroup) open(n uint64, born string) (*os.File, error) {
	if g == nil {
		return nil, errNoGroup
	}
	if born == "" {
		born = g.below(g.in.base, n)
		if err := os.MkdirAll(born, 0o755); err != nil {
			return nil, err
		}
	}
	return os.Open(born)
}

// path is the group of incarnation n: in a scope if it was made there.
func (g *cgroup) path(n uint64) string {
	if g == nil {
		return ""
	}
	for _, scope := range g.in.scopes.folders() {
		path := g.below(scope, n)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return g.below(g.in.base, n)
}

func (g *cgroup) below(dir string, n uint64) string {
	return filepath.Join(dir, g.mark+strconv.FormatUint(n, 10))
}

// blame adds to the end of incarnation n that the kernel killed for want of memory
// in its group, where the memory controller counts that.
func (g *cgroup) blame(n uint64, exit p2pnode.Exit) p2pnode.Exit {
	if g == nil {
		return exit
	}
	return blameGroup(filepath.Join(g.path(n), "memory.events"), exit)
}

// blameGroup reads the file in which a group counts kills for want of memory. Only a
// SIGKILL is blamed on it: a program may outlive an OOM kill of a child and end of
// something else.
func blameGroup(counts string, exit p2pnode.Exit) p2pnode.Exit {
	if exit.Signal != "SIGKILL" {
		return exit
	}
	raw, err := os.ReadFile(counts)
	if err != nil {
		return exit
	}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "oom_kill" && f[1] != "0" {
			exit.OOM = true
		}
	}
	return exit
}

// has reports whether incarnation n was started in a group of its own.
func (g *cgroup) has(n uint64) bool {
	if g == nil {
		return false
	}
	_, err := os.Stat(g.path(n))
	return err == nil
}

// dirs are the groups that exist, of all incarnations.
func (g *cgroup) dirs() []string {
	if g == nil {
		return nil
	}
	out := g.dirsOf(nil, g.in.base)
	for _, scope := range g.in.scopes.folders() {
		out = g.dirsOf(out, scope)
	}
	return out
}

func (g *cgroup) dirsOf(out []string, base string) []string {
	entries, _ := os.ReadDir(base)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), g.mark) {
			out = append(out, filepath.Join(base, e.Name()))
		}
	}
	return out
}

// kill ends every process in the groups, atomically against forks.
func (g *cgroup) kill() {
	for _, dir := range g.dirs() {
		if len(procsOf(dir)) > 0 {
			os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
		}
	}
}

func (g *cgroup) pids() (out []int) {
	for _, dir := range g.dirs() {
		out = append(out, procsOf(dir)...)
	}
	return out
}

// members are the processes in the groups: those that are there before and after
// their start time was read.
func (g *cgroup) members() copies {
	there := surely(g.pids(), func(int) bool { return true })
	if len(there) == 0 {
		return nil
	}
	still := g.pids()
	return slices.DeleteFunc(there, func(b being) bool { return !slices.Contains(still, b.pid) })
}

func procsOf(dir string) []int {
	raw, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil
	}
	var out []int
	for f := range strings.FieldsSeq(string(raw)) {
		if pid, err := strconv.Atoi(f); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

// remove takes away the groups that are empty.
func (g *cgroup) remove() {
	for _, dir := range g.dirs() {
		os.Remove(dir) // fails, as it should, where a process is left
	}
}
