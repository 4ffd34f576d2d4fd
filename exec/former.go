package exec

import (
	"context"
	"crypto/rand"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// programs are those of this exec's checks. An exec that is killed leaves its own
// running, and their time is nobody's any more; the next one ends them. They are known
// by two marks, which name the data folder and the life of exec that they are of: a
// variable, and a memory file that they have open. Some programs wipe the one (env -i),
// some close the other (sudo). Neither is anything that a process has by chance, as one
// that reads a file of ours would have that open.
//
// The look for them costs a look through the whole host, once in the life of an exec
// that finds something of this boot; one that ended in order leaves nothing to find.
type programs struct {
	folder string // in all marks, with a dot behind it
	life   string // in those of this exec
	held   *os.File
	own    unix.Stat_t // of held
}

func newPrograms(st *state) *programs {
	folder := st.identity() + "."
	p := &programs{folder: folder, life: folder + rand.Text()}
	if fd, err := memoryFile(heldName + p.life); err == nil {
		unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_WRITE|unix.F_SEAL_SEAL)
		unix.Fstat(fd, &p.own)
		p.held = os.NewFile(uintptr(fd), "programs")
	}
	return p
}

// memoryFile makes one that nobody can execute, as a host may demand; kernels before 6.3
// do not know that.
func memoryFile(name string) (fd int, err error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	if fd, err = unix.MemfdCreate(name, flags|unix.MFD_NOEXEC_SEAL); err == unix.EINVAL {
		fd, err = unix.MemfdCreate(name, flags)
	}
	return fd, err
}

// heldName begins the name of the memory file that programs have open.
const heldName = "p2pnode-check:"

// run is the variable that marks one run.
func (p *programs) run() string { return checkKey + "=" + p.life + "." + rand.Text() }

// endFormerPrograms does so when what lived on is adopted and the rest is started; an
// exec that ends before that leaves it to the next one.
func (r *runner) endFormerPrograms(ctx context.Context) {
	select {
	case <-time.After(sweepAfter):
	case <-ctx.Done():
		return
	}
	if n := r.programs.endFormer(ctx, &r.mains); n > 0 {
		r.cfg.Log.Warn().Int("processes", n).Msg("programs of checks that an exec before this one left are ended")
	}
}

// endFormer ends what programs of an exec before this one left. It looks again while
// something dies, at what was not there before: a fork may have been under way.
func (p *programs) endFormer(ctx context.Context, mains *sync.Map) (ended int) {
	seen := map[int]bool{}
	for deadline := time.Now().Add(leftPatience); time.Now().Before(deadline) && ctx.Err() == nil; {
		var pids []int
		for _, pid := range allPIDs() {
			if _, main := mains.Load(pid); !main && !seen[pid] {
				pids = append(pids, pid)
			}
			seen[pid] = true
		}
		killed := p.formerOf(pids).kill()
		if ended += killed; killed == 0 {
			break
		}
	}
	return ended
}

// formerOf are those of pids that are marked, and what these started.
func (p *programs) formerOf(pids []int) (out copies) {
	for _, b := range surely(pids, p.ofFormer) {
		out = append(out, descendants(b)...)
	}
	return out.with(nil)
}

// ofFormer reports whether pid is of a program of another life of exec in this folder. A
// variable alone is believed of who leads a session, and where the leader is gone or is
// of one too: who tries a check by hand may have copied its environment.
func (p *programs) ofFormer(pid int) bool {
	if p.holdsFormer(pid) {
		return true
	}
	if !p.saysFormer(pid) {
		return false
	}
	st, err := readStat(pid)
	if err != nil {
		return false
	}
	_, err = readStat(st.session)
	return st.session == pid || err != nil || p.holdsFormer(st.session) || p.saysFormer(st.session)
}

// holdsFormer looks for the memory file where a program inherits it. Anybody can give
// that name to a file of his own, and pass that on to another's process: only one of
// exec's own user counts, and only one that was not received, as far as that shows: who
// receives files has them closed at exec. Nothing but its name is asked of another file,
// which may be on a mount that hangs.
func (p *programs) holdsFormer(pid int) bool {
	fd := strconv.Itoa(lockDescriptor())
	link, _ := os.Readlink(procPath(pid, "fd/"+fd))
	if !p.isFormer(strings.CutPrefix(link, "/memfd:"+heldName)) {
		return false
	}
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, procPath(pid, "fd/"+fd), unix.AT_STATX_DONT_SYNC, unix.STATX_UID, &st)
	return err == nil && unix.Mkdev(st.Dev_major, st.Dev_minor) == p.own.Dev && st.Uid == p.own.Uid && !closedAtExec(pid, fd)
}

func closedAtExec(pid int, fd string) bool {
	raw, _ := os.ReadFile(procPath(pid, "fdinfo/"+fd))
	_, rest, _ := strings.Cut(string(raw), "flags:\t")
	line, _, _ := strings.Cut(rest, "\n")
	flags, err := strconv.ParseUint(line, 8, 64)
	return err != nil || flags&unix.O_CLOEXEC != 0
}

func (p *programs) saysFormer(pid int) bool {
	raw, _ := os.ReadFile(procPath(pid, "environ"))
	for kv := range strings.SplitSeq(string(raw), "\x00") {
		if p.isFormer(strings.CutPrefix(kv, checkKey+"=")) {
			return true
		}
	}
	return false
}

func (p *programs) isFormer(mark string, ok bool) bool {
	return ok && strings.HasPrefix(mark, p.folder) && !strings.HasPrefix(mark, p.life)
}
