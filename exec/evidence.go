package exec

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"p2pnode"

	"golang.org/x/sys/unix"
)

// identity is everything by which a process can be told to belong to one service
// of one data folder. No single mark is enough: setproctitle wipes environments,
// daemons leave sessions, setcap binaries hide their /proc entries.
type identity struct {
	service  string
	folder   string // device:inode and epoch of the data folder
	epoch    uint64
	lockPath string
	cgroup   *cgroup
	v1       string    // where the controllers of cgroup v1 are
	mains    *sync.Map // pids of all main processes that exec watches: never leftovers
}

func (r *runner) identityOf(service string) identity {
	return identity{
		service: service, folder: r.state.identity(), epoch: r.state.epoch,
		lockPath: filepath.Join(runDir(r.cfg.Dir), service+"."+r.state.identity()+".lock"), cgroup: r.cgroups.of(service), v1: r.v1, mains: &r.mains,
	}
}

const cookieKey = "P2PNODE_COOKIE"

// cookie marks the environment of one incarnation.
func (id identity) cookie(inc p2pnode.Incarnation) string {
	return cookieKey + "=" + id.folder + "/" + id.service + "/" + strconv.FormatUint(inc.N, 10)
}

// being is one process for good: a number alone is given to others.
type being struct {
	pid   int
	ticks uint64 // start time in clock ticks since boot
}

// lives reports whether the number still belongs to this process, dead or alive.
func (b being) lives() bool {
	st, err := readStat(b.pid)
	return err == nil && st.ticks == b.ticks
}

// copies are processes that belong to an incarnation of a service, sorted.
type copies []being

// surely names those of pids that carry a mark. The mark is read once more after the
// start time: who had the number at the first look may be gone, and it is somebody
// else's.
func surely(pids []int, marked func(pid int) bool) (out copies) {
	for _, pid := range pids {
		if pid <= 1 || pid == os.Getpid() || !marked(pid) {
			continue
		}
		if st, err := readStat(pid); err == nil && marked(pid) {
			out = append(out, being{pid, st.ticks})
		}
	}
	return out
}

// nearCopies looks where a look is cheap: at the children that exec has (its own
// and, as subreaper, orphans), their descendants, and the service's cgroup.
func (id identity) nearCopies(inc p2pnode.Incarnation, session being) copies {
	lock := id.lockFile()
	var out copies
	for _, orphan := range surely(childrenOf(os.Getpid()), func(pid int) bool {
		_, main := id.mains.Load(pid)
		return (!main || pid == session.pid) && id.marked(pid, inc, session, lock)
	}) {
		out = append(out, descendants(orphan)...)
	}
	return out.with(id.cgroup.members())
}

// allCopies looks at every process of the host: 3 ms at 100 processes, 49 ms at
// 1,000, so it is kept off the way of a restart.
func (id identity) allCopies(inc p2pnode.Incarnation, session being) copies {
	lock := id.lockFile()
	return surely(allPIDs(), func(pid int) bool { return id.marked(pid, inc, session, lock) }).with(id.cgroup.members())
}

// stillSession is the session that a process led, if its number can still be meant:
// members pin the number of a dead leader, but once they are gone the kernel gives
// it to others.
func stillSession(leader being) being {
	if st, err := readStat(leader.pid); err == nil && st.ticks != leader.ticks {
		return being{}
	}
	return leader
}

// lockHolders finds who holds the lock by its inode, whatever incarnation.
func (id identity) lockHolders() copies {
	info := id.lockFile()
	if info == nil {
		return nil
	}
	return surely(allPIDs(), func(pid int) bool { return holds(pid, idOf(info), filepath.Base(id.lockPath)) }).with(nil)
}

func (id identity) lockFile() os.FileInfo {
	info, err := os.Lstat(id.lockPath)
	if err != nil {
		return nil
	}
	return info
}

// marked reports whether pid carries a mark of the incarnation (N of 0: of any):
// its session, its cookie, or the lock, which says nothing of which incarnation;
// nil where the lock must not count.
func (id identity) marked(pid int, inc p2pnode.Incarnation, session being, lock os.FileInfo) bool {
	if pid == os.Getpid() {
		return false
	}
	if session.pid > 0 {
		st, err := readStat(pid)
		if err == nil && st.session == session.pid && stillSession(session) == session {
			return true
		}
	}
	if !plantNoCookieScan && id.cookied(pid, inc) {
		return true
	}
	return lock != nil && holds(pid, idOf(lock), filepath.Base(id.lockPath))
}

func (id identity) cookied(pid int, inc p2pnode.Incarnation) bool {
	if inc.N == 0 {
		_, ok := cookieOf(pid, id)
		return ok
	}
	return hasEnv(pid, id.cookie(inc))
}

func (c copies) with(more copies) copies {
	out := append(slices.Clone(c), more...)
	slices.SortFunc(out, func(a, b being) int { return cmp.Or(cmp.Compare(a.pid, b.pid), cmp.Compare(a.ticks, b.ticks)) })
	out = slices.Compact(out)
	return slices.DeleteFunc(out, func(b being) bool { return b.pid <= 1 || b.pid == os.Getpid() })
}

// has reports whether a process of this number is among them.
func (c copies) has(pid int) bool {
	return slices.ContainsFunc(c, func(b being) bool { return b.pid == pid })
}

// descendants is a process and all that it started, as long as parents live.
func descendants(of being) copies {
	out := copies{of}
	for i := 0; i < len(out) && len(out) < 1<<14; i++ {
		parent := out[i]
		children := surely(childrenOf(parent.pid), func(pid int) bool {
			st, err := readStat(pid)
			return err == nil && st.ppid == parent.pid
		})
		if parent.lives() {
			out = append(out, children...)
		}
	}
	return out
}

// kill sends SIGKILL to each that is still what it was: the pidfd is opened first,
// then the start time is compared.
func (c copies) kill() (killed int) {
	for _, b := range c {
		fd, err := unix.PidfdOpen(b.pid, 0)
		if err != nil {
			continue
		}
		if now, err := readStat(b.pid); err == nil && now.ticks == b.ticks && now.state != 'Z' {
			if unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil {
				killed++
			}
		}
		unix.Close(fd)
	}
	return killed
}
