package exec

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"time"

	"p2pnode"
	"p2pnode/exec/logs"

	"golang.org/x/sys/unix"
)

// apply carries out one effect. It runs on the loop, so nothing here may wait.
func (r *runner) apply(eff effect) {
	switch e := eff.(type) {
	case effOpen:
		if err := r.equip(e.spec); err != nil {
			r.degraded.set(e.spec.Name, err)
		}
		r.retain(e.spec)
	case effStart:
		r.applyStart(e)
	case effSignal:
		r.applySignal(e)
	case effKill:
		r.applyKill(e)
	case effGiveUp:
		if k := r.kids[e.name]; k != nil && k.giveUp != nil {
			k.giveUp()
		}
	case effCleanup:
		r.applyCleanup(e)
	case effLeftSo:
		rec, ok := r.state.get(e.name)
		if ok && rec.Inc == e.inc {
			rec.Ended = &e.exit
			r.remember(rec)
		}
	case effEvent:
		r.applyEvent(e.event)
	case effAnswer:
		r.applyAnswer(e)
	case effRefused:
		r.metrics.refused(e.reason)
		r.cfg.History.Record(p2pnode.HistoryEvent{Event: p2pnode.HistRefused, Service: e.name, Reason: string(e.reason), Op: e.op})
	case effCheck:
		r.applyCheck(e)
	case effDrain:
		r.applyDrain(e.name)
	case effLook:
		r.applyLook(e.name)
	case effProbe:
		r.applyProbe(e.name)
	case effPersist:
		r.save(nil)
	case effDeath:
		r.keeper.spread(e.life)
	case effForget:
		r.applyForget(e.name)
	case effReloaded:
		r.reloads[e.id] = e.result
		for _, name := range slices.Concat(e.result.Updated, e.result.Changed) {
			r.retain(r.policy.svcs[name].spec)
		}
	case effDone:
		r.over = true
	}
}

func (r *runner) applyStart(e effStart) {
	k := r.kids[e.name]
	if k == nil {
		return
	}
	k.spec = r.policy.svcs[e.name].spec
	r.degraded.set(e.name, r.attend(k)) // a reload may have changed it
	r.retain(k.spec)
	job := startJob{eff: e, spec: k.spec, id: k.id, old: k.proc, left: k.left, untold: k.untold, log: k.log, last: k.last, cleaned: k.cleaned}
	if k.notify != nil {
		job.notify = k.notify.Path()
	}
	job.eff.starts = slices.Clone(e.starts)
	ctx, giveUp := context.WithCancel(r.jobs)
	k.giveUp = giveUp
	r.wg.Go(func() {
		defer giveUp()
		res := r.start(ctx, job)
		if res.proc != nil {
			r.mains.Store(res.proc.pid, res.proc)
			r.handOver(job.spec.Name, job.eff.inc, job.log, res.proc)
		}
		r.do(func() { r.startDone(job, res) })
		if res.proc != nil { // beside the hot path: what it was started from, should it keep failing
			go func() { // and beside r.wg, as in applyProbe
				env, _ := r.envOf(job)
				world := worldOf(job.spec, env)
				r.do(func() { r.noteWorld(res.name, res.proc, world) })
			}()
		}
	})
}

func (r *runner) noteWorld(name string, p *process, world string) {
	if k := r.kids[name]; k != nil && k.proc == p {
		k.world = world
	}
}

// handOver gives the keeper its duplicates: they are in the door's socket then, and
// survive this process. Before the fork p is nil and only the FIFO is there to give:
// what a life prints that ends before exec has written down that it began is kept.
// The pidfd follows before the start counts as done.
// A door has nothing of itself.
func (r *runner) handOver(name string, inc p2pnode.Incarnation, log *logs.Log, p *process) {
	if name == p2pnode.SelfDoor {
		return
	}
	k := Kept{Service: name, Incarnation: inc, FIFO: log.FIFO()}
	if p != nil {
		k.PID, k.Pidfd = p.pid, p.fd
	} else {
		null, err := os.Open(os.DevNull) // in a pidfd's place, beside PID 0
		if err != nil {
			return
		}
		defer null.Close()
		k.Pidfd = null
	}
	r.keeper.keep(k)
}

func (r *runner) startDone(job startJob, res startResult) {
	k := r.kids[res.name]
	if k == nil {
		return
	}
	early := k.early
	k.early = nil
	if res.err != nil {
		kind := startBroken
		if cannot, ok := errors.AsType[*cannotRun](res.err); ok {
			kind = cannot.kind
		}
		k.world = res.world
		if kind == startTraced {
			k.world = ""
		}
		if kind == startRetry {
			k.world = "" // a program open for writing shows in no attribute: only trying tells
		}
		k.patience = min(2*k.patience, worldSeldom)
		if k.failedBy != res.err.Error() {
			k.patience = worldUnseen
			r.cfg.Log.Warn().Str("service", res.name).Err(res.err).Msg("start failed")
		}
		k.failedAt, k.failedBy = time.Now(), res.err.Error()
		r.step(evStartFailed{name: res.name, inc: res.inc, kind: kind, text: res.err.Error()})
		for _, m := range early { // of the one that was to be replaced, should that live
			r.heard(res.name, m)
		}
		r.lookAtChild(res.name)
		return
	}
	k.proc, k.progress, k.left, k.untold, k.failedBy = res.proc, map[string]progress{}, leftover{}, nil, ""
	k.launch, k.probing = &res.launch, nil
	r.metrics.started(res.name, job.eff.by.Kind)
	r.step(evStarted{name: res.name, inc: res.inc, pid: res.proc.pid, looked: res.looked})
	r.watch(k, res.inc)
	for _, m := range early {
		r.heard(res.name, m)
	}
	r.lookAtChild(res.name) // a stop that came before we knew it raised no second signal
	if res.ungrouped {
		old, oldInc, pid := job.old, job.eff.old, res.proc.pid
		r.wg.Go(func() {
			select {
			case <-time.After(sweepAfter):
			case <-r.jobs.Done(): // the last chance
			}
			job.id.sweep(oldInc, old.being(), pid)
		})
	}
}

// watch waits for the end of a kid's process, takes its last words, and tells.
func (r *runner) watch(k *kid, inc p2pnode.Incarnation) {
	p, name, log, id, socket := k.proc, k.spec.Name, k.log, k.id, k.notify
	r.wg.Go(func() {
		defer p.close()
		if err := p.wait(); err != nil {
			return // let go, not dead
		}
		if socket != nil && r.leftBehind(name, p, socket) {
			p.reap()
			r.mains.CompareAndDelete(p.pid, p)
			close(p.told)
			return
		}
		exit := p.reap()
		if !p.killed.Load() { // a group counts all of a life: our own kill is not for want of memory
			exit = id.blame(inc.N, exit)
		}
		exit = r.memory.blame(p.pid, exit)
		exit.UptimeMS = ms(p.uptime())
		if !exit.Unknown { // letGo may have closed the pidfd under our hands: the status is still there
			r.exits.Store(name, evEnded{name: name, inc: inc, exit: exit})
		}
		r.mains.CompareAndDelete(p.pid, p) // by now another may have the number
		// Written here, ahead of the start that waits for told: the loop may be late.
		r.cfg.History.Record(p2pnode.HistoryEvent{Event: p2pnode.HistEnded, Service: name, Old: inc.String(), PID: p.pid, Class: classOf(exit), Detail: exitText(exit)})
		words := make(chan *p2pnode.Excerpt, 1)
		go func() { // it may read a disk that hangs: nobody waits for its end then
			log.Drain()
			e := log.Excerpt()
			words <- &e
		}()
		var excerpt *p2pnode.Excerpt
		select {
		case excerpt = <-words:
		case <-time.After(lastWords):
		}
		r.do(func() { r.childEnded(name, inc, p, exit, excerpt) })
		close(p.told)
		if excerpt == nil {
			select {
			case excerpt = <-words:
				r.do(func() { r.lateWords(name, p, excerpt) })
			case <-r.jobs.Done():
			}
		}
	})
}

// childEnded takes note of an end; excerpt is nil where its last words are still read.
func (r *runner) childEnded(name string, inc p2pnode.Incarnation, p *process, exit p2pnode.Exit, excerpt *p2pnode.Excerpt) {
	k := r.kids[name]
	if k == nil {
		return
	}
	if k.proc == p || k.proc == nil {
		k.excerpt, k.spoke = excerpt, p
	}
	k.last = &exit
	r.step(evEnded{name: name, inc: inc, exit: exit})
}

// lateWords are the last ones of p, for what is told of its end from now on.
func (r *runner) lateWords(name string, p *process, excerpt *p2pnode.Excerpt) {
	if k := r.kids[name]; k != nil && k.spoke == p && k.excerpt == nil {
		k.excerpt = excerpt
	}
}

func classOf(e p2pnode.Exit) p2pnode.Class {
	if e.Signal != "" {
		return p2pnode.ClassSignalled
	}
	return p2pnode.ClassExited
}

// applySignal asks a process to end.
func (r *runner) applySignal(e effSignal) {
	k := r.kids[e.name]
	if k == nil || k.proc == nil {
		return
	}
	r.cfg.History.Record(p2pnode.HistoryEvent{Event: p2pnode.HistStopping, Service: e.name, Old: e.inc.String(), PID: k.proc.pid})
	sig := unix.SignalNum("SIG" + k.spec.StopSignal)
	if sig == 0 {
		sig = unix.SIGTERM
	}
	k.proc.signal(sig)
	k.proc.signal(unix.SIGCONT) // a stopped process cannot hear the first one
}

func (r *runner) applyKill(e effKill) {
	k := r.kids[e.name]
	if k == nil || k.proc == nil {
		return
	}
	r.cfg.History.Record(p2pnode.HistoryEvent{Event: p2pnode.HistKilled, Service: e.name, Old: e.inc.String(), PID: k.proc.pid, Reason: string(e.class)})
	p, id := k.proc, k.id
	p.killed.Store(true)
	r.wg.Go(func() { id.killTree(p) })
}

// applyCleanup ends what an orderly stopped service left behind.
func (r *runner) applyCleanup(e effCleanup) {
	k := r.kids[e.name]
	if k == nil {
		return
	}
	r.remember(record{Service: e.name, Inc: e.inc})
	r.keeper.drop(e.name)
	var session being
	if k.proc != nil {
		session = stillSession(k.proc.being())
	}
	id, cleaned := k.id, make(chan struct{})
	k.cleaned = cleaned
	r.wg.Go(func() {
		defer close(cleaned)
		id.killRest(e.inc, session)
		id.allCopies(e.inc, being{}).kill()
		id.cgroup.remove()
	})
}

// applyEvent adds the dead process's last words and publishes.
func (r *runner) applyEvent(ev p2pnode.ExecEvent) {
	if k := r.kids[ev.Service]; k != nil {
		switch ev.Event {
		case p2pnode.FactFailed:
			if ev.PID != 0 { // it hangs or is frozen: its last words so far
				words := k.log.Excerpt()
				k.excerpt = &words
			}
			ev.Excerpt = k.excerpt
			r.metrics.failed(ev.Service, ev.Class)
		case p2pnode.FactActed:
			ev.Excerpt = k.excerpt
			r.auditAct(ev)
		}
	}
	r.feed.publish(ev)
	r.logEvent(ev)
}

// logEvent writes one line of what is known: fields that say nothing are left out.
func (r *runner) logEvent(ev p2pnode.ExecEvent) {
	line := r.cfg.Log.Info()
	if ev.Event == p2pnode.FactFailed {
		line = r.cfg.Log.Warn()
	}
	line = line.Str("service", ev.Service)
	for _, f := range []struct{ name, value string }{
		{"state", string(ev.State)}, {"class", string(ev.Class)}, {"held", string(ev.Held)}, {"by", string(ev.By.Kind)}, {"detail", ev.Detail},
	} {
		if f.value != "" {
			line = line.Str(f.name, f.value)
		}
	}
	if ev.PID != 0 {
		line = line.Int("pid", ev.PID)
	}
	line.Msg("service " + string(ev.Event))
}

func (r *runner) applyAnswer(e effAnswer) {
	ch := r.answers[e.id]
	if ch == nil {
		return
	}
	delete(r.answers, e.id)
	ch <- e.answer // buffered
}

// inquiry is one look at what a service waits for; it has a size, or two were one.
type inquiry struct{ _ byte }

// applyProbe looks whether what a service waits for has changed. One look of a service
// is under way at a time, and exec's end does not wait for it: on a mount whose server
// is gone it may last for ever, and holds a thread.
func (r *runner) applyProbe(name string) {
	k := r.kids[name]
	if k == nil || k.probing != nil {
		return
	}
	look := new(inquiry)
	k.probing = look
	s := r.policy.svcs[name]
	job := startJob{eff: effStart{name: name, inc: s.inc}, spec: k.spec, id: k.id}
	before, old, waitsFor := k.world, k.proc, s.state
	anyway := waitsFor == p2pnode.StateMissing && time.Since(k.failedAt) >= k.patience
	go func() {
		changed := anyway || r.changed(job, waitsFor, before, old)
		r.do(func() {
			if k.probing != look {
				return // it has run since
			}
			k.probing = nil
			if changed {
				r.step(evWorld{name: name})
			}
		})
	}()
}

// changed reports whether a service that is in the given state has something to hope
// for; before is what there was of its world when it came to that.
func (r *runner) changed(job startJob, waitsFor p2pnode.ServiceState, before string, old *process) bool {
	switch waitsFor {
	case p2pnode.StateMissing, p2pnode.StateCrashLooping, p2pnode.StateBackoff:
		if before == "" {
			return waitsFor == p2pnode.StateMissing
		}
		env, _ := r.envOf(job)
		return worldOf(job.spec, env) != before
	case p2pnode.StateBlocked:
		held, err := lockHeld(job.id.lockPath)
		return err == nil && !held
	case p2pnode.StateUnkillable:
		return old == nil || old.dead()
	}
	return old == nil || tracerOf(old.pid) == 0
}

func (r *runner) applyForget(name string) {
	if k := r.kids[name]; k != nil {
		k.log.Close()
		k.log.Remove()
		if k.notify != nil {
			k.notify.Close()
		}
		k.id.cgroup.remove()
		r.wg.Go(func() { k.id.removeGroups(groupRest) }) // it may have to wait
	}
	delete(r.kids, name)
	r.zombies.of.Delete(name)
	r.remember(record{Service: name, Inc: r.policy.past[name]})
	r.keeper.drop(name)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
