package exec

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"p2pnode"
)

// bound is a limit on what all processes of a service use together, which a group of
// cgroup v1 or v2 holds.
type bound struct {
	limit      **uint64 // as it was declared
	key        string   // under limits:
	controller string   // of the kernel
	v1, v2     []setting
}

// setting is a file of a group and what is written there.
type setting struct{ file, value string }

// groupRoot is where the controllers of cgroup v1 are mounted, alone or on a hybrid host
// beside a v2 tree that has none.
const groupRoot = "/sys/fs/cgroup"

// quotaPeriod is the time in which a share of the CPU may be used up, in microseconds:
// the kernel's own choice.
const quotaPeriod = 100_000

// boundsOf are the limits that only a group can hold. One that is lifted asks nobody for
// anything and is taken out of l.
func boundsOf(l *p2pnode.Limits) (out []bound) {
	add := func(limit **uint64, key, controller string, files func(n uint64) (v1, v2 []setting)) {
		switch {
		case *limit == nil:
		case **limit == p2pnode.Unlimited:
			*limit = nil
		default:
			v1, v2 := files(**limit)
			out = append(out, bound{limit, key, controller, v1, v2})
		}
	}
	text := func(n uint64) string { return strconv.FormatUint(n, 10) }
	add(&l.PIDs, "pids", "pids", func(n uint64) (v1, v2 []setting) {
		return []setting{{"pids.max", text(n)}}, []setting{{"pids.max", text(n)}}
	})
	add(&l.CPU, "cpu", "cpu", func(n uint64) (v1, v2 []setting) {
		quota, period := text(n*quotaPeriod/1000), text(quotaPeriod)
		return []setting{{"cpu.cfs_period_us", period}, {"cpu.cfs_quota_us", quota}}, []setting{{"cpu.max", quota + " " + period}}
	})
	add(&l.MemoryTotal, "memory_total", "memory", func(n uint64) (v1, v2 []setting) {
		return []setting{{"memory.limit_in_bytes", text(n)}}, []setting{{"memory.max", text(n)}}
	})
	return out
}

// holder is where a limit is held: in a group below dir, of v1, or of v2, where the groups
// of all limits of a service are one.
type holder struct {
	bound
	dir  string
	inV1 bool
}

// place finds the holder of b; chosen is the folder of v2 that holds limits before it, ""
// if none does. It may ask systemd. An error says why this host has no such group to give.
func (id identity) place(ctx context.Context, b bound, chosen string) (holder, error) {
	if id.cgroup != nil {
		if base := id.cgroup.in.base; chosen == "" || chosen == base {
			os.MkdirAll(base, 0o755)
			handed := filepath.Join(base, "cgroup.subtree_control")
			os.WriteFile(handed, []byte("+"+b.controller), 0)
			if listed(handed, b.controller) {
				return holder{b, base, false}, nil
			}
		}
	}
	if _, err := os.Stat(filepath.Join(id.v1, b.controller, "cgroup.procs")); err == nil {
		if dir := id.groups(b.controller); os.MkdirAll(dir, 0o755) == nil {
			return holder{b, dir, true}, nil
		}
	}
	if id.cgroup == nil {
		return holder{}, errNoGroup
	}
	dir, err := id.cgroup.in.scopes.hold(ctx, b.controller)
	if err == nil && chosen != "" && chosen != dir {
		err = errors.New("a group holds its other limits that cannot hold this one")
	}
	return holder{b, dir, false}, err
}

// holders are the holders of l's limits on all of the service, or why one is not to be
// had, a *cannotRun. The number of a user's processes the kernel counts by itself. No
// process is touched.
func (l *launch) holders(ctx context.Context, id identity) (out []holder, err error) {
	chosen := ""
	for _, b := range boundsOf(&l.limits) {
		h, err := id.place(ctx, b, chosen)
		switch {
		case err != nil && b.controller == "pids" && l.uid != 0:
			continue // RLIMIT_NPROC
		case err != nil && b.controller == "pids":
			return nil, &cannotRun{startMissing, fmt.Sprintf("limits: pids: no cgroup of this host holds it (%v), and of root the kernel counts no processes: say user:, or take it out", err)}
		case err != nil:
			return nil, &cannotRun{startMissing, fmt.Sprintf("limits: %s: no cgroup of this host holds it (%v): take it out", b.key, err)}
		case !h.inV1:
			chosen = h.dir
		}
		out = append(out, h)
	}
	return out, nil
}

// replaceable says why the services that which, on the loop, names are not to be restarted:
// they are well, and their limits could not be held in another life. Whoever wants one of
// them ended all the same can stop it.
func (r *runner) replaceable(ctx context.Context, which func() []p2pnode.ServiceSpec) error {
	var specs []p2pnode.ServiceSpec
	if err := r.ask(func() { specs = which() }); err != nil {
		return err
	}
	for _, spec := range specs {
		if len(boundsOf(&spec.Limits)) == 0 {
			continue
		}
		l, err := asService(spec, nil)
		if err != nil {
			continue // its user: told by the start
		}
		if _, err := l.holders(ctx, r.identityOf(spec.Name)); err != nil {
			return &p2pnode.Error{
				Code: "limits-not-held", Text: quoted(spec.Name) + " goes on as it is, and so does what was to be restarted with it: " + err.Error(),
				Fix: "try again, or stop it and start it",
			}
		}
	}
	return nil
}

// holdGroups makes the groups that hold l's limits on all of the service for incarnation
// n: more for the child to join, or the one that it is to be born in. A limit that nothing
// holds is no limit: the service is not started without it.
func (l *launch) holdGroups(ctx context.Context, id identity, n uint64) error {
	if len(boundsOf(&l.limits)) > 0 {
		id.removeGroups(groupWait)
	}
	wanted, err := l.holders(ctx, id)
	if err != nil {
		return err
	}
	for _, h := range wanted {
		if err := l.holdIn(id.groupIn(h.dir, n), h); err != nil {
			return &cannotRun{startMissing, fmt.Sprintf("limits: %s: the kernel refuses it (%v)%s", h.key, err, h.hint(err))}
		}
		*h.limit = nil
	}
	return nil
}

// holdIn makes h's group, but not anew where it holds another limit: where it is gone,
// so is that.
func (l *launch) holdIn(group string, h holder) error {
	if l.born != group {
		if err := os.MkdirAll(group, 0o755); err != nil {
			return err
		}
	}
	if h.inV1 {
		l.join = append(l.join, filepath.Join(group, "cgroup.procs"))
		return set(group, h.v1)
	}
	l.born = group
	return set(group, h.v2)
}

// hint is what the kernel does not say: in v1 a group may not use more of the CPU than
// one above it.
func (h holder) hint(err error) string {
	if h.controller == "cpu" && h.inV1 && errors.Is(err, syscall.EINVAL) {
		return ": a group above it may use less"
	}
	return ""
}

func set(group string, to []setting) error {
	for _, s := range to {
		if err := os.WriteFile(filepath.Join(group, s.file), []byte(s.value), 0); err != nil {
			return err
		}
	}
	return nil
}

// Unheld are the keys under limits: of a service that no group of a host holds, even for
// root; host is its root folder. It only looks at what is there.
func Unheld(host string, spec p2pnode.ServiceSpec) (keys []string) {
	limits := spec.Limits
	for _, b := range boundsOf(&limits) {
		if !holdable(host, b.controller) && (b.controller != "pids" || spec.User == "") { // of a user the kernel counts them
			keys = append(keys, b.key)
		}
	}
	return keys
}

// holdable reports whether a host has a controller, and somebody who hands it on: the
// root of cgroup v1, systemd, or who has set up a v2 tree without systemd.
func holdable(host, controller string) bool {
	if _, err := os.Stat(filepath.Join(host, groupRoot, controller, "cgroup.procs")); err == nil {
		return true
	}
	_, noSystemd := os.Stat(filepath.Join(host, "/run/systemd/system"))
	return slices.ContainsFunc(cgroupRoots[:], func(root string) bool {
		root = filepath.Join(host, root)
		return listed(filepath.Join(root, "cgroup.controllers"), controller) &&
			(noSystemd == nil || listed(filepath.Join(root, "cgroup.subtree_control"), controller))
	})
}

// groups is the folder of this data folder's groups in a v1 hierarchy.
func (id identity) groups(controller string) string {
	own, _ := groupPath(cgroupFile("self"), controller)
	return filepath.Join(id.v1, controller, own, "p2pnode-"+id.folder)
}

// group is the group of incarnation n in a v1 hierarchy.
func (id identity) group(controller string, n uint64) string {
	return id.groupIn(id.groups(controller), n)
}

// groupIn is the group of incarnation n below a folder, of either version.
func (id identity) groupIn(dir string, n uint64) string {
	return filepath.Join(dir, id.service+"@"+strconv.FormatUint(n, 10))
}

// blame adds to the end of incarnation n that the kernel killed for want of memory in
// one of its groups, where they count that.
func (id identity) blame(n uint64, exit p2pnode.Exit) p2pnode.Exit {
	if exit.Signal != "SIGKILL" {
		return exit // nobody else is to be blamed, nor looked for on the way to a restart
	}
	exit = blameGroup(filepath.Join(id.group("memory", n), "memory.oom_control"), exit)
	return id.cgroup.blame(n, exit)
}

// removeGroups takes away the service's groups, and their folders with the last of
// them. What was killed a moment ago may still be in one: it is waited for, patience
// at most.
func (id identity) removeGroups(patience time.Duration) {
	for _, controller := range []string{"pids", "cpu", "memory"} {
		base := id.groups(controller)
		dirs, _ := filepath.Glob(filepath.Join(base, id.service+"@*"))
		for began := time.Now(); len(dirs) > 0 && time.Since(began) < patience; {
			dirs = slices.DeleteFunc(dirs, func(dir string) bool { return os.Remove(dir) == nil })
			if len(dirs) > 0 {
				time.Sleep(5 * time.Millisecond)
			}
		}
		os.Remove(base) // fails, as it should, while others have theirs
	}
}
