package exec

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"p2pnode"
	"p2pnode/exec/logs"
)

// adoption is what the look at one service brought to light at the start of exec:
// a process to go on with, or the end of one that nobody saw.
type adoption struct {
	name  string
	rec   record
	held  *Kept // what the keeper holds of it
	log   *logs.Log
	found *found   // nil: nothing lives
	proc  *process // of found
	ended *evEnded // nil: nothing was there, or it lives
	left  leftover
	words p2pnode.Excerpt     // of the end that nobody saw
	tales []p2pnode.ExecEvent // of the failures before this life, should nobody have heard of them
}

// leftover is what the first start of a service must clear away: processes of an
// earlier life whose main process is gone. The zero value is nothing.
type leftover struct {
	there   bool
	session being // the dead one, which led it
}

// adoptDoor finds a living door first: it may hold what the others need. One that is
// not there is returned, for boot.
func (r *runner) adoptDoor() (dead []*adoption) {
	k := r.kids[p2pnode.SelfDoor]
	if k == nil {
		return nil
	}
	a := r.findCopy(p2pnode.SelfDoor, nil)
	a.log = k.log
	r.goOnWith(&a)
	if a.found == nil {
		return []*adoption{&a}
	}
	if r.handed == nil {
		r.keeper.expect()
	}
	r.takeOn(&a)
	r.policy.out = nil
	r.policy.adopt(time.Now(), *a.found)
	r.watch(k, a.found.inc)
	return nil
}

// adoptRest looks for living copies of everything else, by all evidence, and then
// lets the policy start what is not there; seen is what was looked for before. It reports
// whether a service ran in this boot that no exec ended in order.
func (r *runner) adoptRest(ctx context.Context, srv *server, seen []*adoption) (former bool) {
	kept := map[string]Kept{}
	switch {
	case r.handed != nil:
		kept = r.handed.kept
	case srv.doorAdopted():
		kept = r.keeper.waitHeld(ctx, keeperWait)
	}
	for name, log := range r.known() {
		if name == p2pnode.SelfDoor {
			continue
		}
		var held *Kept
		if h, ok := kept[name]; ok {
			held = &h
		}
		a := r.findCopy(name, held)
		a.log = log
		r.goOnWith(&a)
		seen = append(seen, &a)
		former = former || name[0] != '@' && (a.found != nil || r.recordedHere(a.rec))
	}
	r.do(func() { r.boot(seen) })
	r.takeLate() // of a keeper that stopped writing while this went on
	return former
}

// goOnWith continues the log of a service that lived on or died unseen: what the
// last exec wrote, what the keeper wrote in its place, what the kernel still holds.
func (r *runner) goOnWith(a *adoption) {
	cut, unborn := r.cutShort(a), a.unbornFIFO()
	if unborn != nil {
		defer a.takeUnborn(unborn)
	}
	if a.found == nil && a.ended == nil && !cut {
		return
	}
	if unborn != nil {
		a.words = a.log.ExcerptOf(a.rec.Replaced.Log, a.rec.Log) // all of it was read before the intent was written
		a.tales = a.untold(cut)
		return
	}
	fifo := a.heldFIFO(cut)
	path := a.rec.Fifo
	if path == "" && a.proc != nil { // the record is lost, or the disk hung when it began: the process itself says where it writes
		stdout := procPath(a.proc.pid, "fd/1")
		path, _ = os.Readlink(stdout)
		if k := r.kids[a.name]; k != nil && path == outputOf(k.spec, r.cfg.Dir) {
			path = "" // log: file
		}
		if strings.HasPrefix(path, "pipe:") {
			path = stdout
		} else {
			a.rec.Fifo = path // a path through a process is no longer its own when that has ended
		}
	}
	if cut {
		a.rec.Log = a.rec.Replaced.Log // the run before is what there is to tell
	}
	var err error
	if path != "" || fifo != nil || a.proc == nil {
		err = a.log.Adopt(path, fifo, a.rec.Log)
	}
	switch {
	case a.found == nil:
		a.log.Drain()
		a.words = a.log.Excerpt()
	case err != nil:
		r.degraded.set("log of "+a.name, err)
	}
	a.tales = a.untold(cut)
}

// unbornFIFO is the output of a life that the last exec was about to start, or had
// started without writing it down, and that is not there; nil where there is none.
func (a *adoption) unbornFIFO() *os.File {
	if a.held == nil || a.found != nil || a.ended != nil || !a.rec.Starting || a.held.Incarnation != a.rec.Inc {
		return nil
	}
	fifo := a.held.FIFO
	a.held = nil
	return fifo
}

// takeUnborn adds what such a life printed to the log, as a run of its own: what the
// keeper wrote down and what the kernel still holds.
func (a *adoption) takeUnborn(fifo *os.File) {
	a.log.Adopt("", fifo, a.rec.Log)
	a.log.Drain()
}

// heldFIFO is what the keeper holds of the life that there is to go on with, or to
// tell of; nil if nothing. An exec that is killed in the middle of a start has not
// handed over the new life's yet: that of the one before is nobody's any more.
func (a *adoption) heldFIFO(cut bool) *os.File {
	if a.held == nil {
		return nil
	}
	var of string
	switch {
	case cut:
		of = a.rec.Replaced.Target
	case a.found != nil:
		of = a.found.inc.String()
	default:
		of = a.ended.inc.String()
	}
	if a.held.Incarnation.String() != of {
		a.held.FIFO.Close()
		return nil
	}
	return a.held.FIFO
}

// cutShort reports whether the last exec died in the middle of a restart: it had
// written down that it would start a life, and none is there.
func (r *runner) cutShort(a *adoption) bool {
	return a.found == nil && a.ended == nil && a.rec.Starting && a.rec.Replaced != nil && r.recordedHere(a.rec)
}

// boot hands the policy all that was found, in one step, and watches it from then
// on: an end that is told before its beginning would be lost.
func (r *runner) boot(seen []*adoption) {
	ev := evBoot{life: r.rememberedLife()}
	for _, a := range seen {
		k := r.kids[a.name]
		if k == nil {
			continue
		}
		k.left = a.left
		for _, tale := range a.tales {
			r.feed.publish(tale)
		}
		if len(a.tales) > 0 && a.found == nil && a.ended == nil && a.rec.tellsAgain() { // the last exec was to start it
			k.untold = a.rec.Replaced
		}
		switch {
		case a.found != nil:
			r.takeOn(a)
			ev.found = append(ev.found, *a.found)
		case a.ended != nil:
			k.last, k.excerpt = &a.ended.exit, &a.words
			r.foundDead(a)
			ev.ended = append(ev.ended, *a.ended)
		case a.rec.Starting && r.recordedHere(a.rec):
			ev.unborn = append(ev.unborn, unborn{a.name, a.rec.Starts, a.rec.Restarts})
		}
	}
	r.step(ev)
	if r.handed != nil && r.handed.stop {
		r.shutDown(evShutdown{within: r.cfg.ShutdownTimeout})
	}
	for _, f := range ev.found {
		r.watch(r.kids[f.name], f.inc)
	}
	r.tellReturn()
	r.lookAtChildren() // after a self-exec a stop may have been missed
	r.stopUndeclared()
	r.clearFIFOs()
}

// clearFIFOs removes the FIFOs of lives that are over: of an exec that was killed, or
// that ended before it did this itself.
func (r *runner) clearFIFOs() {
	used := map[string]bool{}
	for _, k := range r.kids {
		if s := r.policy.svcs[k.spec.Name]; s != nil && s.start != nil {
			used[k.spec.Name] = true // its FIFO is being made
		}
		used[k.log.Path()] = true
	}
	paths, _ := filepath.Glob(filepath.Join(runDir(r.cfg.Dir), "*.fifo"))
	for _, path := range paths {
		name, _, _ := strings.Cut(filepath.Base(path), "-"+strconv.FormatUint(r.state.epoch, 16)+"-")
		if !used[path] && !used[name] {
			os.Remove(path)
		}
	}
}

// untold is each failure that the recorded life and those shortly before it mended,
// or were to: the exec that mended it may have died before the node process heard of
// it. One that was reported is known there by its incarnation and not reported again.
func (a *adoption) untold(cut bool) []p2pnode.ExecEvent {
	var out []p2pnode.ExecEvent
	for _, m := range a.rec.earlier() {
		words := a.log.ExcerptOf(m.From, m.To)
		m.Tale.Excerpt = &words
		out = append(out, m.Tale)
	}
	if !a.rec.tellsAgain() {
		return out
	}
	ev, words := a.rec.tale(), a.words
	if cut { // this exec starts it, in a moment
		ev.New, ev.By, ev.At = "", p2pnode.By{Kind: p2pnode.ByExec}, time.Now()
		ev.StartedAt = ev.At
	} else {
		words = a.log.ExcerptOf(a.rec.Replaced.Log, a.rec.Log)
	}
	ev.Excerpt = &words
	return append(out, ev)
}

// foundDead notes an end that no exec saw.
func (r *runner) foundDead(a *adoption) {
	if a.ended != nil {
		r.cfg.History.Record(p2pnode.HistoryEvent{Event: p2pnode.HistEnded, Service: a.name, Old: a.ended.inc.String(), Class: classOf(a.ended.exit), Detail: "found dead"})
	}
}

// takeOn makes a found process the service's main process.
func (r *runner) takeOn(a *adoption) {
	k := r.kids[a.name]
	k.proc, k.last = a.proc, a.rec.Last
	r.recordFound(a)
	r.mains.Store(a.proc.pid, a.proc)
	r.handOver(a.name, a.found.inc, k.log, a.proc)
	r.cfg.History.Record(p2pnode.HistoryEvent{Event: p2pnode.HistAdopted, Service: a.name, Old: a.found.inc.String(), PID: a.proc.pid})
}

// recordFound completes the record of a copy that other evidence than its record led
// to: the exec that started it died between fork and record. Should it die unseen too,
// nobody would know that it ever ran.
func (r *runner) recordFound(a *adoption) {
	rec := a.rec
	if rec.PID == a.proc.pid && rec.Inc == a.found.inc {
		return
	}
	if rec.Inc != a.found.inc {
		rec = record{Fifo: rec.Fifo}
	}
	rec.Service, rec.Inc, rec.Starting, rec.Preparing = a.name, a.found.inc, false, false
	rec.PID, rec.Ticks, rec.BootID, rec.PidNS, rec.Started = a.proc.pid, a.proc.ticks, r.bootID, r.pidNS, a.found.started
	r.remember(rec)
}

// known is all that is declared or still runs by its record, with its log.
func (r *runner) known() map[string]*logs.Log {
	out := map[string]*logs.Log{}
	r.ask(func() {
		for _, name := range r.state.names() {
			if r.kids[name] == nil && p2pnode.ValidServiceName(name) && r.stillRuns(name) {
				if r.equip(p2pnode.ServiceSpec{Name: name, Command: []string{name}}) == nil {
					s := r.policy.add(time.Now(), p2pnode.ServiceSpec{Name: name, Command: []string{name}})
					s.stopped, s.removed = true, true
				}
			}
		}
		for name, k := range r.kids {
			out[name] = k.log
		}
	})
	return out
}

// stillRuns reports whether the recorded process of an undeclared service lives.
func (r *runner) stillRuns(name string) bool {
	rec, ok := r.state.get(name)
	if ok && r.recordedHere(rec) {
		if p, ok := watchPID(rec.PID, rec.Ticks); ok {
			p.close()
			return true
		}
	}
	return false
}

func (r *runner) stopUndeclared() {
	for _, name := range sortedKeys(r.policy.svcs) {
		if s := r.policy.svcs[name]; s.removed && s.phase == idle {
			r.policy.out = nil
			r.policy.forget(s)
			r.applyForget(name)
		}
	}
}
