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
	r.step(evNotified{name: name, ready: m.Ready, beat: m.Watchdog, hung: m.WatchdogTrigger, more: m.Extend, text: m.Status})
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
	return m.PID == k.proc.pid || st.session == k.proc.pid || may && k.id.cookied(m.PID, p2pnode.Incarnation{}) || st.descendsFrom(k.proc.pid)
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
