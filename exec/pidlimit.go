package exec

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"p2pnode"
)

// pidsRoot is where the pids controller of cgroup v1 is mounted, alone or on a
// hybrid host beside a v2 tree that has no controllers.
const pidsRoot = "/sys/fs/cgroup/pids"

// limitPIDs makes a group that holds at most limit processes and threads of
// incarnation n. It returns the file by which a process joins it, "" where the
// group that the child is born in does it; ok is false where this host has no
// such group to give.
func (id identity) limitPIDs(n, limit uint64) (join string, ok bool) {
	value := "max"
	if limit != p2pnode.Unlimited {
		value = strconv.FormatUint(limit, 10)
	}
	if born := id.cgroup.path(n); born != "" {
		os.WriteFile(filepath.Join(filepath.Dir(born), "cgroup.subtree_control"), []byte("+pids"), 0)
		if os.MkdirAll(born, 0o755) == nil && os.WriteFile(filepath.Join(born, "pids.max"), []byte(value), 0) == nil {
			return "", true
		}
	}
	dir := filepath.Join(id.pidsGroups(), id.service+"@"+strconv.FormatUint(n, 10))
	if _, err := os.Stat(filepath.Join(pidsRoot, "cgroup.procs")); err != nil || os.MkdirAll(dir, 0o755) != nil {
		return "", false
	}
	if os.WriteFile(filepath.Join(dir, "pids.max"), []byte(value), 0) != nil {
		return "", false
	}
	return filepath.Join(dir, "cgroup.procs"), true
}

// holdPIDs finds out what bounds the number of l's processes: a group of its own, or,
// for a user that is not root, what the kernel counts of that user.
func (l *launch) holdPIDs(id identity, n uint64) error {
	if l.limits.PIDs == nil {
		return nil
	}
	id.removePIDGroups()
	join, ok := id.limitPIDs(n, *l.limits.PIDs)
	switch {
	case ok && join == "":
		l.limits.PIDs = nil
	case ok:
		l.join = join
	case l.uid == 0:
		return &cannotRun{startMissing, "limits: pids: no cgroup of this host holds it, and of root the kernel counts no processes: say user:, or take it out"}
	}
	return nil
}

// pidsGroups is the folder of this data folder's groups in the v1 hierarchy.
func (id identity) pidsGroups() string {
	own := "/"
	raw, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(raw)) {
		if f := strings.SplitN(strings.TrimSpace(line), ":", 3); len(f) == 3 && f[1] == "pids" {
			own = f[2]
		}
	}
	return filepath.Join(pidsRoot, own, "p2pnode-"+id.folder)
}

// removePIDGroups takes away the service's groups, and their folder with the last
// of them. What was killed a moment ago may still be in one: it is waited for, a
// tenth of a second at most.
func (id identity) removePIDGroups() {
	dirs, _ := filepath.Glob(filepath.Join(id.pidsGroups(), id.service+"@*"))
	for try := 0; len(dirs) > 0 && try < 20; try++ {
		dirs = slices.DeleteFunc(dirs, func(dir string) bool { return os.Remove(dir) == nil })
		if len(dirs) > 0 {
			time.Sleep(5 * time.Millisecond)
		}
	}
	os.Remove(id.pidsGroups()) // fails, as it should, while others have theirs
}
