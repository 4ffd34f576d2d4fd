package exec

import (
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
	mains    *sync.Map // pids of all main processes that exec watches: never leftovers
}

func (r *runner) identityOf(service string) identity {
	return identity{
		service: service, folder: r.state.identity(), epoch: r.state.epoch,
		lockPath: filepath.Join(runDir(r.cfg.Dir), service+"."+r.state.identity()+".lock"), cgroup: r.cgroups.of(service), mains: &r.mains,
	}
}

const cookieKey = "P2PNODE_COOKIE"

// cookie marks the environment of one incarnation.
func (id identity) cookie(inc p2pnode.Incarnation) string {
	return cookieKey + "=" + id.folder + "/" + id.service + "/" + strconv.FormatUint(inc.N, 10)
}

// copies are processes that belong to an incarnation of a service, sorted.
type copies []int

// nearCopies looks where a look is cheap: at the children that exec has (its own
// and, as subreaper, orphans), their descendants, and the service's cgroup.
func (id identity) nearCopies(inc p2pnode.Incarnation, session int) copies {
	lock := id.lockFile()
	var out copies
	for _, pid := range childrenOf(os.Getpid()) {
		if _, main := id.mains.Load(pid); main && pid != session {
			continue
		}
		if id.marked(pid, inc, session, lock) {
			out = append(out, descendants(pid)...)
		}
	}
	return out.with(id.cgroup.pids())
}

// allCopies looks at every process of the host: 3 ms at 100 processes, 49 ms at
// 1,000, so it is kept off the way of a restart.
func (id identity) allCopies(inc p2pnode.Incarnation, session int) copies {
	lock := id.lockFile()
	var out copies
	for _, pid := range allPIDs() {
		if pid > 1 && id.marked(pid, inc, session, lock) {
			out = append(out, pid)
		}
	}
	return out.with(id.cgroup.pids())
}

// stillSession is the session that a process led, if its number can still be meant:
// members pin the number of a dead leader, but once they are gone the kernel gives
// it to others.
func stillSession(leader int, ticks uint64) int {
	if st, err := readStat(leader); err == nil && st.ticks != ticks {
		return 0
	}
	return leader
}

// lockHolders finds who holds the lock by its inode, whatever incarnation.
func (id identity) lockHolders() copies {
	info := id.lockFile()
	if info == nil {
		return nil
	}
	var out copies
	for _, pid := range allPIDs() {
		if holds(pid, idOf(info), filepath.Base(id.lockPath)) {
			out = append(out, pid)
		}
	}
	return out.with(nil)
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
func (id identity) marked(pid int, inc p2pnode.Incarnation, session int, lock os.FileInfo) bool {
	if pid == os.Getpid() {
		return false
	}
	if session > 0 {
		if st, err := readStat(pid); err == nil && st.session == session {
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

func (c copies) with(more []int) copies {
	out := append(slices.Clone(c), more...)
	slices.Sort(out)
	out = slices.Compact(out)
	return slices.DeleteFunc(out, func(pid int) bool { return pid <= 1 || pid == os.Getpid() })
}

// descendants is pid and all that it started, as long as parents live.
func descendants(pid int) []int {
	out := []int{pid}
	for i := 0; i < len(out) && len(out) < 1<<14; i++ {
		out = append(out, childrenOf(out[i])...)
	}
	return out
}

// killPIDs sends SIGKILL to each process that is still what it was: the pidfd is
// opened first, then the start time is compared.
func killPIDs(pids copies) (killed int) {
	for _, pid := range pids {
		before, err := readStat(pid)
		if err != nil || before.state == 'Z' {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		if now, err := readStat(pid); err == nil && now.ticks == before.ticks {
			if unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0) == nil {
				killed++
			}
		}
		unix.Close(fd)
	}
	return killed
}

// killGroup kills the process group of a leader that is alive or not reaped yet,
// or that still has members: only then is the number surely theirs.
func killGroup(leader int, pinned bool) {
	if !pinned {
		return
	}
	unix.Kill(-leader, unix.SIGKILL)
}
