package exec

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"p2pnode"
)

// recordedHere reports whether the pids of a record mean anything: they are of
// this boot and of this pid namespace.
func (r *runner) recordedHere(rec record) bool {
	return rec.BootID == r.bootID && rec.PidNS == r.pidNS
}

// findCopy asks every witness for the main process of a service: the record, the
// keeper's pidfd, cgroup, lock, session and cookie. What belongs to the service
// and is not its main process is a leftover, for the next start to clear away.
func (r *runner) findCopy(name string, held *Kept) adoption {
	id := r.identityOf(name)
	rec, recorded := r.state.get(name)
	here := recorded && r.recordedHere(rec)
	a := adoption{name: name, rec: rec, held: held}
	if here && rec.PID > 0 {
		if p, ok := watchPID(rec.PID, rec.Ticks); ok {
			a.lives(p, rec.Inc)
			return a
		}
	}
	if held != nil && held.PID > 0 {
		if st, err := readStat(held.PID); err == nil {
			if p, ok := watchPID(held.PID, st.ticks); ok && id.marked(held.PID, held.Incarnation, being{}, id.lockFile()) {
				a.lives(p, held.Incarnation)
				return a
			}
		}
	}
	if here {
		a.left.session = stillSession(being{rec.PID, rec.Ticks})
	}
	evidence := id.lockHolders().with(id.allCopies(p2pnode.Incarnation{}, a.left.session))
	if here && rec.Preparing {
		a.left.there = len(evidence) > 0 // a program of before: is not the service
		return a
	}
	if main, inc, ok := r.mainOf(evidence, id, rec, here); ok {
		if p, ok := watchPID(main.pid, main.ticks); ok {
			a.lives(p, inc)
			return a
		}
	}
	a.left.there = len(evidence) > 0
	if here && rec.PID > 0 {
		a.ended = &evEnded{name: name, inc: rec.Inc, exit: id.blame(rec.Inc.N, unseenExit(rec, held)), starts: rec.Starts, restarts: rec.Restarts}
	}
	return a
}

// lives notes p as the main process of incarnation inc.
func (a *adoption) lives(p *process, inc p2pnode.Incarnation) {
	if st, err := readStat(p.pid); err == nil && st.ppid == os.Getpid() {
		p.ours = true
	}
	started := a.rec.Started
	if started.IsZero() {
		started = time.Now()
	}
	began := started
	if age := p.uptime(); age > 0 {
		began = time.Now().Add(-age) // no clock that is set changes that
	}
	a.proc = p
	a.found = &found{name: a.name, inc: inc, pid: p.pid, ours: p.ours, starts: a.rec.Starts, started: started, began: began, last: a.rec.Last, restarts: a.rec.Restarts}
}

// unseenExit is how a recorded process ended while no exec looked: as it was
// written down, as the keeper's pidfd tells, or as its unreaped remains do.
func unseenExit(rec record, held *Kept) p2pnode.Exit {
	if rec.Ended != nil {
		return *rec.Ended
	}
	if held != nil && held.PID == rec.PID {
		p := &process{pid: held.PID, ticks: rec.Ticks, fd: held.Pidfd}
		if p.dead() {
			return p.reap()
		}
	}
	if exit, ok := exitOfZombie(rec.PID, rec.Ticks); ok {
		return exit
	}
	return p2pnode.Exit{Unknown: true}
}

// mainOf picks the main process among a service's processes: one that leads its
// session, was not started by another of them and is no remnant of a life that is
// known to have ended. Of several the oldest.
func (r *runner) mainOf(of copies, id identity, rec record, here bool) (being, p2pnode.Incarnation, bool) {
	var best being
	var bestInc p2pnode.Incarnation
	for _, b := range of {
		st, err := readStat(b.pid)
		if err != nil || st.ticks != b.ticks || st.session != b.pid || of.has(st.ppid) || st.state == 'Z' {
			continue
		}
		inc, known := incarnationOf(b.pid, id)
		switch {
		case here && rec.PID > 0 && (!known || inc.N <= rec.Inc.N):
			continue // the main process of that life is dead: this one only belonged to it
		case here && known && inc.N < rec.Inc.N:
			continue
		case !known:
			inc = p2pnode.Incarnation{Epoch: r.state.epoch, N: max(rec.Inc.N, 1)}
		}
		if best.pid == 0 || b.ticks < best.ticks {
			best, bestInc = b, inc
		}
	}
	return best, bestInc, best.pid != 0
}

// incarnationOf reads which incarnation a process is of: from its cookie, or,
// where a program wiped that, from the name of the FIFO that it prints to.
func incarnationOf(pid int, id identity) (p2pnode.Incarnation, bool) {
	if inc, ok := cookieOf(pid, id); ok {
		return inc, true
	}
	link, err := os.Readlink(procPath(pid, "fd/1"))
	if err != nil {
		return p2pnode.Incarnation{}, false
	}
	text, ok := strings.CutPrefix(filepath.Base(link), id.service+"-")
	text, isFIFO := strings.CutSuffix(strings.TrimSuffix(text, " (deleted)"), ".fifo")
	inc, err := p2pnode.ParseIncarnation(text)
	return inc, ok && isFIFO && err == nil && inc.Epoch == id.epoch
}

// cookieOf reads the cookie of pid, of any incarnation of id.
func cookieOf(pid int, id identity) (p2pnode.Incarnation, bool) {
	raw, err := os.ReadFile(procPath(pid, "environ"))
	if err != nil {
		return p2pnode.Incarnation{}, false
	}
	prefix := id.cookie(p2pnode.Incarnation{})
	prefix = prefix[:strings.LastIndexByte(prefix, '/')+1]
	for kv := range strings.SplitSeq(string(raw), "\x00") {
		n, ok := strings.CutPrefix(kv, prefix)
		if !ok {
			continue
		}
		if v, err := strconv.ParseUint(n, 10, 64); err == nil {
			return p2pnode.Incarnation{Epoch: id.epoch, N: v}, true
		}
	}
	return p2pnode.Incarnation{}, false
}
