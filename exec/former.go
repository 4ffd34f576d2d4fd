package exec

import (
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
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
// The look for them costs a look through the whole host, once in exec's life. A file says
// that it is worth it: an exec that asks no programs leaves none.
type programs struct {
	state  *state
	note   string // path of that file
	folder string // in all marks, with a dot behind it
	life   string // in those of this exec
	held   *os.File

	noted   atomic.Bool
	running atomic.Int32
	former  atomic.Bool // those of an exec before may still run
}

func newPrograms(st *state, run string) *programs {
	folder := st.identity() + "."
	p := &programs{state: st, note: filepath.Join(run, "programs"), folder: folder, life: folder + rand.Text()}
	_, err := os.Lstat(p.note)
	p.former.Store(err == nil)
	if fd, err := unix.MemfdCreate(heldName+p.life, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING); err == nil {
		unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_WRITE|unix.F_SEAL_SEAL)
		p.held = os.NewFile(uintptr(fd), "programs")
	}
	return p
}

// heldName begins the name of the memory file that programs have open.
const heldName = "p2pnode-check:"

// begin notes that a program is about to run, and returns the variable that marks this
// run. The disk is not waited for.
func (p *programs) begin() (env string) {
	p.running.Add(1)
	if p.noted.CompareAndSwap(false, true) {
		go func() {
			if p.state.beside(func() error { return overwriteFile(p.note, nil) }) != nil {
				p.noted.Store(false)
			}
		}()
	}
	return checkKey + "=" + p.life + "." + rand.Text()
}

func (p *programs) end() { p.running.Add(-1) }

// close is the end of exec: where nothing is left, nobody has to look.
func (p *programs) close() {
	if !p.former.Load() && p.running.Load() == 0 {
		os.Remove(p.note)
	}
	p.held.Close()
}

// endFormerPrograms does so when what lived on is adopted and the rest is started; an
// exec that ends before that leaves it to the next one.
func (r *runner) endFormerPrograms(ctx context.Context) {
	if !r.programs.former.Load() {
		return
	}
	select {
	case <-time.After(sweepAfter):
	case <-ctx.Done():
		return
	}
	if n := r.programs.endFormer(&r.mains); n > 0 {
		r.cfg.Log.Warn().Int("processes", n).Msg("programs of checks that an exec before this one left are ended")
	}
}

// endFormer ends what programs of an exec before this one left. It looks again while
// something dies, at what was not there before: a fork may have been under way.
func (p *programs) endFormer(mains *sync.Map) (ended int) {
	if !p.former.Load() {
		return 0
	}
	seen := map[int]bool{}
	for deadline := time.Now().Add(leftPatience); time.Now().Before(deadline); {
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
	p.former.Store(false)
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
	st, err := readStat(pid)
	if err != nil || !p.saysFormer(pid) {
		return false
	}
	_, err = readStat(st.session)
	return st.session == pid || err != nil || p.holdsFormer(st.session) || p.saysFormer(st.session)
}

// holdsFormer and saysFormer look at the two marks.
func (p *programs) holdsFormer(pid int) bool {
	for _, fd := range namesIn(procPath(pid, "fd")) {
		link, _ := os.Readlink(procPath(pid, "fd/"+fd))
		if p.isFormer(strings.CutPrefix(link, "/memfd:"+heldName)) {
			return true
		}
	}
	return false
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
