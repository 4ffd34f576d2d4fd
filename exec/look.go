package exec

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strconv"
	"time"

	"p2pnode"
	"p2pnode/exec/check"
	"p2pnode/exec/notify"

	"golang.org/x/sys/unix"
)

// applyCheck asks one question beside the loop and brings the answer back.
func (r *runner) applyCheck(e effCheck) {
	k := r.kids[e.name]
	if k == nil || k.proc == nil {
		return
	}
	proc, last := k.proc, k.progress[e.which]
	put := func(c p2pnode.Check) error { return check.Ask(r.jobs, c, nil) }
	if c := e.check; len(c.Exec) > 0 || c.File != "" || c.Unix != "" { // may wait for a mount whose server is gone
		run, taken := r.programOf(k, e.inc), k.turnOf(e.which, c)
		put = func(c p2pnode.Check) error { return inTurn(r.jobs, c, run, taken) }
	}
	r.wg.Go(func() {
		ev, now := ask(e.check, put, proc.pid, last, evChecked{name: e.name, inc: e.inc, which: e.which, rules: e.rules})
		r.do(func() {
			if k := r.kids[e.name]; k != nil && k.proc == proc {
				k.progress[e.which] = now
			}
			r.step(ev)
		})
	})
}

// turn is whose it is to be asked: one question of a check at a time.
type turn struct {
	of    p2pnode.Check
	taken chan struct{} // full while a question has not come back
}

// turnOf is the turn of a check; another question under its name does not wait for one
// that has not come back.
func (k *kid) turnOf(which string, c p2pnode.Check) (taken chan struct{}) {
	t, known := k.turns[which]
	if !known || !reflect.DeepEqual(t.of, c) {
		t = turn{c, make(chan struct{}, 1)}
		k.turns[which] = t
	}
	return t.taken
}

// progress is what a process tree had used of the CPU at a moment, and how often a
// quota that holds for it had been used up by then.
type progress struct {
	cpu       time.Duration
	ran       time.Duration // the same of its living threads, finer; at a close look
	waits     check.Waiting // its threads that were ready to run; at a close look
	throttled uint64
	at        time.Time
}

// progressOf looks closely, at each thread, if asked to and where there is a quota.
func progressOf(pid int, closely bool) progress {
	tree := check.Tree(pid)
	p := progress{cpu: check.CPU(tree), throttled: groupsOf(strconv.Itoa(pid)).throttles(), at: time.Now()}
	if closely || p.throttled > 0 {
		p.ran, p.waits = check.Ran(tree)
	}
	return p
}

// since is the share of a core that was used from before to p; 0 if before is not
// known. What works while its quota is used up counts as busy, however little its
// quota lets it do. So does a thread that was ready to run all the time: Linux takes a
// whole tick back from a quota of 1 ms, so that one at a hundredth of a core may not
// run at all for a second, and on a crowded host it is the same without a quota. What
// hangs in a group of others that use theirs up does neither: the little that it does
// on a question ends in a sleep.
func (p progress) since(before progress) float64 {
	if before.at.IsZero() || !p.at.After(before.at) {
		return 0
	}
	took := p.at.Sub(before.at)
	used := float64(p.cpu-before.cpu) / float64(took)
	ran := float64(p.ran-before.ran) / float64(took)
	if p.throttled > before.throttled && ran >= quotaProgress || p.waits.Still(before.waits) {
		return max(used, busyProgress)
	}
	return used
}

// inTurn puts c's question when the one before it has come back, and returns when its
// time is over in any case. A file, a program or a socket may be on a mount whose server
// is gone: then the question holds a thread until that is back, and no other one is put.
func inTurn(ctx context.Context, c p2pnode.Check, run program, taken chan struct{}) error {
	limit := time.NewTimer(c.Timeout)
	defer limit.Stop()
	select {
	case taken <- struct{}{}:
	case <-limit.C:
		return fmt.Errorf("a question before has not come back: does a mount hang? %w", context.DeadlineExceeded)
	case <-ctx.Done():
		return ctx.Err()
	}
	answer := make(chan error, 1)
	go func() {
		err := check.Ask(ctx, c, run)
		<-taken
		answer <- err
	}()
	limit.Reset(c.Timeout + answerGrace)
	stop := context.AfterFunc(ctx, func() { limit.Reset(answerGrace) })
	defer stop()
	select {
	case err := <-answer:
		return err
	case <-limit.C:
		return fmt.Errorf("no answer within %v, and the question has not come back: does a mount hang? %w", c.Timeout, context.DeadlineExceeded)
	}
}

// ask puts c's question and fills in ev. A good answer that comes soon costs no look
// at the process; one that is late, or none, does: was the process held then, is it
// now, and does it work? And was our own clock late? last is what it had used at the
// last look.
func ask(c p2pnode.Check, put func(p2pnode.Check) error, pid int, last progress, ev evChecked) (evChecked, progress) {
	type early struct {
		held, traced bool
		progress     progress
	}
	looked := make(chan early, 1)
	slow := time.AfterFunc(c.Timeout/slowAnswer, func() {
		var l early
		l.held, l.traced = held(pid)
		l.progress = progressOf(pid, true)
		looked <- l
	})
	late, began := make(chan bool, 1), time.Now()
	deadline := time.AfterFunc(c.Timeout, func() { late <- time.Since(began) > c.Timeout+c.Timeout/4 })
	ev.err = put(c)
	ev.timeout = errors.Is(ev.err, context.DeadlineExceeded)
	wasSlow := !slow.Stop()
	if ev.timeout && time.Since(began) >= c.Timeout || !deadline.Stop() {
		ev.late = <-late
	}
	if ev.err == nil {
		if c.Failures > 1 {
			return ev, progress{}
		}
		return ev, progressOf(pid, false) // the next failure is judged at once: by what came since
	}
	var l early
	if wasSlow {
		l = <-looked
		ev.skip, ev.traced = l.held, l.traced
		if last.at.IsZero() {
			last = l.progress
		}
	}
	if !ev.skip {
		ev.skip, ev.traced = held(pid)
	}
	now := progressOf(pid, true)
	if ev.skip {
		ev.err, ev.timeout = errHeld, false
	} else {
		ev.busy = now.since(last)
		if now.waits.Still(l.progress.waits) {
			ev.busy = max(ev.busy, busyProgress)
		}
	}
	return ev, now
}

var errHeld = errors.New("the process is held: stopped, traced or waiting for the kernel")

// held reports whether a process cannot answer for a reason that is no failure of
// its own: stopped, traced, in an uninterruptible wait, or in a frozen cgroup (a
// process that is frozen by cgroup v2 looks asleep).
func held(pid int) (held, traced bool) {
	st, err := readStat(pid)
	if err != nil {
		return false, false
	}
	traced = tracerOf(pid) != 0
	return traced || st.state == 'T' || st.state == 't' || st.state == 'D' || groupsOf(strconv.Itoa(pid)).frozen(), traced
}

// applyDrain reads all heartbeats that are under way, then lets the policy judge.
func (r *runner) applyDrain(name string) {
	k := r.kids[name]
	if k == nil || k.proc == nil {
		return
	}
	socket, pid := k.notify, k.proc.pid
	r.wg.Go(func() {
		if socket != nil {
			socket.Drain(func(m notify.Message) { r.do(func() { r.heard(name, m) }) })
		}
		held, traced := held(pid)
		r.do(func() { r.step(evLooked{name, held, traced}) })
	})
}

// applyLook tells the policy whether a debugger holds a process.
func (r *runner) applyLook(name string) {
	k := r.kids[name]
	if k == nil || k.proc == nil {
		return
	}
	pid := k.proc.pid
	r.wg.Go(func() {
		held, traced := held(pid)
		r.do(func() { r.step(evLooked{name, held, traced}) })
	})
}

// lookAtChildren runs on SIGCHLD: was one of ours stopped, does it go on, did an
// orphan end? Ends of main processes come from their pidfds.
func (r *runner) lookAtChildren() {
	for _, name := range sortedKeys(r.kids) {
		r.lookAtChild(name)
	}
	if r.reapAt == nil {
		r.reapAt = time.After(20 * time.Millisecond)
	}
}

func (r *runner) lookAtChild(name string) {
	k, s := r.kids[name], r.policy.svcs[name]
	if k == nil || k.proc == nil || !k.proc.ours || s == nil || s.start != nil { // the kernel tells it once: after the start
		return
	}
	switch stopped, continued := k.proc.stopChange(); {
	case stopped:
		r.step(evFrozen{name: name, inc: s.inc})
	case continued:
		r.step(evThawed{name})
	}
}

// watchesAdopted reports whether a main process runs that is not our child.
func (r *runner) watchesAdopted() bool {
	for name, k := range r.kids {
		if k.proc == nil || k.proc.ours {
			continue
		}
		if s := r.policy.svcs[name]; s != nil && s.phase == running {
			return true
		}
	}
	return false
}

// pollAdopted looks at processes that are not our children: the kernel tells us
// nothing of their stops.
func (r *runner) pollAdopted() {
	for _, name := range sortedKeys(r.kids) {
		k := r.kids[name]
		s := r.policy.svcs[name]
		if k.proc == nil || k.proc.ours || s == nil || s.phase != running {
			continue
		}
		st, err := readStat(k.proc.pid)
		switch {
		case err != nil || st.ticks != k.proc.ticks:
		case st.state == 'T':
			r.step(evFrozen{name: name, inc: s.inc})
		case st.state != 't':
			r.step(evThawed{name})
		}
	}
}

// reapOrphans takes the status of ended children that nobody waits for: orphans
// of services, and of their checks, which came to us as their subreaper. Main
// processes, and of the checks, and children of our own session (os/exec waits for
// those) are left alone.
func (r *runner) reapOrphans() {
	own, err := unix.Getsid(0)
	if err != nil {
		return
	}
	for _, pid := range childrenOf(os.Getpid()) {
		st, err := readStat(pid)
		if err != nil || st.state != 'Z' || st.session == own || r.isStarting(pid) {
			continue
		}
		if _, main := r.mains.Load(pid); main { // looked at last: what is forked now was no zombie
			continue
		}
		unix.Wait4(pid, nil, unix.WNOHANG, nil)
	}
}

// isStarting guards the moment between fork and the registration of its pid: a
// child that leads its session might be a main process that died at once.
func (r *runner) isStarting(pid int) bool {
	st, err := readStat(pid)
	if err != nil || st.session != pid {
		return false
	}
	starting := r.forking.Load() > 0
	for _, s := range r.policy.svcs {
		starting = starting || s.start != nil
	}
	if starting && r.reapAt == nil {
		r.reapAt = time.After(200 * time.Millisecond)
	}
	return starting
}
