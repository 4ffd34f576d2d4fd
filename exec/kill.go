package exec

import (
	"context"
	"time"

	"p2pnode"

	"golang.org/x/sys/unix"
)

// killTree kills a living main process and everything that belongs to it. What is
// forked meanwhile is ended by killRest once the main process is dead: to look for
// it before that only keeps the dying ones from their core.
func (id identity) killTree(p *process) {
	tree := descendants(p.pid)
	if p.dead() {
		tree = nil // the number may be somebody else's by now, and what was listed his
	} else {
		killGroup(p.pid, true) // a living or unreaped leader pins its group's number
		p.signal(unix.SIGKILL)
	}
	id.cgroup.kill()
	killPIDs(copies(tree).with(nil))
}

// killRest kills what a dead main process left behind, as far as a cheap look
// shows it. It repeats while something dies: a fork may have been under way.
func (id identity) killRest(inc p2pnode.Incarnation, session int) (killed int) {
	id.cgroup.kill()
	grouped := id.cgroup.has(inc.N)
	for range 8 {
		var left copies
		if grouped {
			left = left.with(id.cgroup.pids()) // no child leaves its group by itself: nothing else to look at
		} else {
			left = id.nearCopies(inc, session)
		}
		for _, pid := range left {
			if st, err := readStat(pid); err == nil && st.pgrp == session && session > 0 {
				killGroup(session, true) // a member is there: the number is the old group's
				break
			}
		}
		n := killPIDs(left)
		killed += n
		if n == 0 {
			break
		}
	}
	return killed
}

// killAll kills, by every witness, whatever is left of a service whose main process
// died while no exec watched. Its orphans went to init, where the cheap look does
// not reach. It repeats while something dies: a fork may have been under way.
func (id identity) killAll(left leftover) {
	id.cgroup.kill()
	for range 8 {
		session := stillSession(left.session, left.ticks)
		if killPIDs(id.lockHolders().with(id.allCopies(p2pnode.Incarnation{}, session))) == 0 {
			return
		}
	}
}

// sweep looks through the whole host for leftovers of an incarnation that the
// cheap look cannot see. It runs after the next one has started, so the lock no
// longer tells the two apart and only session and cookie count. What is older than
// the old main process, which started at tick since, was none of its children.
func (id identity) sweep(old p2pnode.Incarnation, session int, since uint64, current int) {
	var left copies
	if _, err := readStat(session); err == nil {
		session = 0 // the number has been given to somebody else
	}
	for _, pid := range allPIDs() {
		if _, main := id.mains.Load(pid); main {
			continue
		}
		if st, err := readStat(pid); err != nil || st.ticks < since {
			continue
		}
		if pid > 1 && pid != current && id.marked(pid, old, session, nil) {
			left = append(left, pid)
		}
	}
	killPIDs(left)
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
