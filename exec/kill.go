package exec

import (
	"context"
	"os"
	"sync"
	"time"

	"p2pnode"

	"golang.org/x/sys/unix"
)

// killTree kills a living main process and everything that belongs to it. What is
// forked meanwhile is ended by killRest once the main process is dead: to look for
// it before that only keeps the dying ones from their core.
func (id identity) killTree(p *process) {
	tree := descendants(p.being())
	if !p.dead() {
		p.killGroup()
		p.signal(unix.SIGKILL)
	}
	id.cgroup.kill()
	tree.with(nil).kill()
}

// killRest kills what a dead main process left behind, as far as a cheap look
// shows it. It repeats while something dies: a fork may have been under way.
func (id identity) killRest(inc p2pnode.Incarnation, session being) {
	id.cgroup.kill()
	grouped := id.cgroup.has(inc.N)
	for range 8 {
		var left copies
		if grouped {
			left = left.with(id.cgroup.members()) // no child leaves its group by itself: nothing else to look at
		} else {
			left = id.nearCopies(inc, session)
		}
		for _, b := range left {
			st, err := readStat(b.pid)
			if err == nil && st.ticks == b.ticks && st.pgrp == session.pid && session.pid > 0 && stillSession(session) == session {
				unix.Kill(-session.pid, unix.SIGKILL) // a member is there: the number is the old group's
				break
			}
		}
		if left.kill() == 0 {
			return
		}
	}
}

// killAll kills, by every witness, whatever is left of a service whose main process
// died while no exec watched. Its orphans went to init, where the cheap look does
// not reach. It repeats while something dies: a fork may have been under way.
func (id identity) killAll(left leftover) {
	id.cgroup.kill()
	for range 8 {
		session := stillSession(left.session)
		if id.lockHolders().with(id.allCopies(p2pnode.Incarnation{}, session)).kill() == 0 {
			return
		}
	}
}

// sweep looks through the whole host for leftovers of an incarnation that the
// cheap look cannot see. It runs after the next one has started, so the lock no
// longer tells the two apart and only session and cookie count. What is older than
// the old main process was none of its children. A life that had a group of its own
// needs none: in a host of 2,000 processes twenty such looks, of services that died one
// after the other, kept the restart of the next one waiting for 10 to 70 ms.
func (id identity) sweep(old p2pnode.Incarnation, session being, current int) {
	since := session.ticks
	if _, err := readStat(session.pid); err == nil {
		session = being{} // the number has been given to somebody else
	}
	surely(allPIDs(), func(pid int) bool {
		if _, main := id.mains.Load(pid); main || pid == current {
			return false
		}
		st, err := readStat(pid)
		return err == nil && st.ticks >= since && id.marked(pid, old, session, nil)
	}).kill()
}

// waitDead waits for the end of p, at most d.
func waitDead(ctx context.Context, p *process, d time.Duration) bool {
	if p.dead() {
		return true
	}
	deadline := time.Now().Add(d)
	for pause := 200 * time.Microsecond; time.Now().Before(deadline); pause = min(2*pause, 5*time.Millisecond) {
		select {
		case <-ctx.Done():
			return p.dead()
		case <-p.told:
		case <-time.After(pause):
		}
		if p.dead() {
			return true
		}
	}
	return false
}

// zombies are the dead main processes that services' last starts replaced and that are
// not ours to reap: they were adopted, and an init is slow to take their status. Until
// then such a number looks alive to who asks by signal 0, and a database does, of the
// number in its pid file. Of one service one start is under way at a time.
type zombies struct{ of sync.Map } // name -> being

// note takes the place of what was noted of a service before.
func (z *zombies) note(service string, dead being) {
	z.of.Delete(service)
	if dead.unreaped() {
		z.of.Store(service, dead)
	}
}

// wait waits until the number is nobody's, or another process's. Only the start after the
// next waits for it: a program that does not mind is back at once, one that was refused
// by it is not refused again and again.
func (z *zombies) wait(ctx context.Context, service string) {
	dead, ok := z.of.Load(service)
	deadline := time.Now().Add(initReaps)
	for pause := time.Millisecond; ok && dead.(being).unreaped() && time.Now().Before(deadline); pause = min(2*pause, 10*time.Millisecond) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// unreaped reports whether b is a zombie that is not ours to reap.
func (b being) unreaped() bool {
	if b.pid == 0 {
		return false
	}
	st, err := readStat(b.pid)
	return err == nil && st.ticks == b.ticks && st.state == 'Z' && st.ppid != os.Getpid()
}
