package exec

import (
	"os"
	"path/filepath"

	"p2pnode"
	"p2pnode/exec/notify"
)

// notifyPath is where a service's sd_notify socket is, as the service names it: in
// the run folder, where only we come, unless the service is somebody else's or the
// folder's name is too long for a socket's address. Then it is an abstract name,
// the same in the life of the folder, so that an adopted service is still heard.
func (r *runner) notifyPath(spec p2pnode.ServiceSpec) string {
	path := filepath.Join(runDir(r.cfg.Dir), spec.Name+".notify")
	if uid, ok := uidOf(spec.User); ok && uid == os.Getuid() && len(path) <= maxSocketPath {
		return path
	}
	return "@p2pnode/" + r.state.identity() + "/" + spec.Name
}

// uidOf is the user that a service runs as; ok is false where he is not known here.
func uidOf(name string) (uid int, ok bool) {
	l := launch{uid: os.Getuid()}
	err := l.become(name, "")
	return l.uid, err == nil
}

// heard takes one sd_notify message, if its sender belongs to the service.
func (r *runner) heard(name string, m notify.Message) {
	k := r.kids[name]
	if s := r.policy.svcs[name]; k != nil && s != nil && s.start != nil && len(k.early) < maxEarly {
		k.early = append(k.early, m) // a quick one speaks before its start is known here
		return
	}
	if k == nil || k.proc == nil {
		return
	}
	if !r.speaksFor(k, m) {
		r.metrics.refusedNotify()
		return
	}
	if m.MainPID != 0 && m.MainPID != k.proc.pid && !r.follow(k, m.MainPID) {
		r.metrics.refusedNotify()
	}
	r.step(evNotified{name: name, ready: m.Ready, beat: m.Watchdog, hung: m.WatchdogTrigger, more: m.Extend, text: m.Status})
}

// follow makes another process of the service its main one, by the service's word
// (MAINPID=): a program that goes to the background says so before its first process
// ends. What is no process of this life of the service is refused.
func (r *runner) follow(k *kid, pid int) bool {
	name := k.spec.Name
	s := r.policy.svcs[name]
	st, err := readStat(pid)
	if err != nil || s == nil || s.phase != running || pid <= 1 ||
		!st.descendsFrom(k.proc.pid) && !k.id.marked(pid, s.inc, k.proc.being(), k.id.lockFile()) {
		return false
	}
	p, ok := watchPID(pid, st.ticks)
	if !ok {
		return false
	}
	p.ours = st.ppid == os.Getpid()
	k.proc.behind.Store(true)
	k.proc, k.progress = p, map[string]progress{}
	r.mains.Store(pid, p)
	if rec, ok := r.state.get(name); ok {
		rec.PID, rec.Ticks = p.pid, p.ticks
		r.remember(rec)
	}
	r.handOver(name, s.inc, k.log, p)
	r.step(evMain{name, p.pid})
	r.watch(k, s.inc)
	return true
}

// leftBehind reports whether a main process that has ended had said that another one
// takes its place. Its word may still be under way.
func (r *runner) leftBehind(name string, p *process, socket *notify.Socket) bool {
	socket.Drain(func(m notify.Message) { r.do(func() { r.heard(name, m) }) })
	r.ask(func() {}) // what was said has been taken in
	return p.behind.Load()
}

// speaksFor reports whether the sender is a process of the service. Programs like
// systemd-notify have ended by the time that they are heard; of them only the user
// is known. A cookie is no secret, and anybody may write it into an environment of his
// own: it counts of the service's user.
func (r *runner) speaksFor(k *kid, m notify.Message) bool {
	uid, ok := uidOf(k.spec.User)
	may := ok && (m.UID == uid || m.UID == os.Getuid() || m.UID == 0)
	st, err := readStat(m.PID)
	if err != nil {
		return may
	}
	return m.PID == k.proc.pid || st.session == k.proc.pid || may && k.id.marked(m.PID, p2pnode.Incarnation{}, being{}, k.id.lockFile()) || st.descendsFrom(k.proc.pid)
}

// descendsFrom reports whether pid is an ancestor: of what a service starts as another
// user, in a session of its own.
func (st stat) descendsFrom(pid int) bool {
	for range maxAncestors {
		if st.ppid == pid {
			return true
		}
		above, err := readStat(st.ppid)
		if err != nil {
			return false
		}
		st = above
	}
	return false
}
