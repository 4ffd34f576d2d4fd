package store

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"time"
)

var errReadOnly = errors.New("it can only be read")

// What Run does when the disk does not do what it should, and when it does again.

func (r *runner) isReady() bool {
	select {
	case <-r.ready:
		return true
	default:
		return false
	}
}

func (r *runner) setTrouble(err error) {
	r.mu.Lock()
	was := r.trouble
	r.trouble = err.Error()
	r.mu.Unlock()
	if was != r.trouble {
		r.cfg.Log.Error().Err(err).Msg("reports are not written: they wait in memory")
	}
	r.metrics.degraded.Set(1)
}

func (r *runner) clearTrouble() {
	if r.trouble == "" || r.disk == nil || r.disk.readOnly {
		return
	}
	r.mu.Lock()
	r.trouble = ""
	r.mu.Unlock()
	r.retry = time.Time{}
	r.metrics.degraded.Set(0)
	r.cfg.Log.Info().Msg("reports are written again")
}

// giveUp waits no longer for a job: what it may or may not write goes to memory
// under other numbers.
func (r *runner) giveUp() {
	r.flight.lost = true
	r.setTrouble(fmt.Errorf("it takes longer than %v", slowAfter))
	if !r.isReady() {
		close(r.ready)
	}
	r.withdraw(r.flight.fresh)
	r.toMemory(r.flight.puts)
	r.flight.puts = nil
}

// withdraw ends the epoch of own reports of which nobody knows whether they were
// written.
func (r *runner) withdraw(fresh []taken) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range fresh {
		if t.line.origin == r.origin {
			r.withdrawn = append(r.withdrawn, t.place())
		}
	}
	r.newEpochLocked()
}

// toMemory keeps what the disk does not take, as far as there is room; others'
// reports come again from them.
func (r *runner) toMemory(puts []put) {
	if len(puts) == 0 {
		return
	}
	var kept []taken
	for _, t := range r.sign(puts) {
		own := t.line.origin == r.origin
		if len(r.unsaved) >= maxUnsaved || r.waiting+int64(len(t.packed)) > maxWaiting {
			if r.metrics.unsavedDropped.Inc(); !own || !r.shedOne() {
				continue
			}
		}
		r.mu.Lock()
		r.unsaved[t.place()] = t
		r.waiting += int64(len(t.packed))
		r.mu.Unlock()
		kept = append(kept, t)
	}
	r.newPapers(puts)
	r.publish(kept)
	answer(puts, ErrUnsaved)
}

// shedOne makes room for an own report: one of others' goes, they have it, else
// the oldest own one. It is wanted again.
func (r *runner) shedOne() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	var victim place
	var oldest taken
	for p, t := range r.unsaved {
		own, was := t.line.origin == r.origin, oldest.line.origin == r.origin
		if victim.seq == 0 || was && !own || was == own && t.at < oldest.at {
			victim, oldest = p, t
		}
	}
	if victim.seq == 0 {
		return false
	}
	delete(r.unsaved, victim)
	r.waiting -= int64(len(oldest.packed))
	r.ix.of(victim.l).here.drop(victim.seq)
	r.shelf.drop(setOf([]place{victim}))
	return true
}

// replace lets go of a file that is damaged or no longer where it should be. It
// is moved aside, if it is there, and what can be read of it salvaged.
func (r *runner) replace(why error) {
	if r.flight != nil || r.disk == nil {
		return // the job in flight finds it as well; or there is nothing to let go of
	}
	d, now := r.disk, time.Now()
	r.cfg.Log.Error().Err(why).Str("path", r.cfg.Path).Msg("store given up: its reports go to a new one, the rest comes from peers")
	r.metrics.replaced.Inc()
	if r.wreck == nil {
		// Another handle, which outlives bbolt's: the file may have no name any more.
		r.wreck, _ = os.Open(fmt.Sprintf("/proc/self/fd/%d", d.file.Fd()))
	}
	if d.there() == nil {
		moveAside(r.cfg.Path, "damaged")
	}
	d.close()
	r.mu.Lock()
	r.disk = nil
	r.newEpochLocked()
	r.mu.Unlock()
	r.retry = time.Time{}
	if now.Sub(r.replaced) < time.Minute {
		// A disk that spoils one file after the other is not asked every moment.
		r.setTrouble(why)
		r.retry = now.Add(openAgain)
	}
	r.replaced = now
}

func (r *runner) settleOpening(o outcome) {
	if o.aside != "" {
		r.metrics.replaced.Inc()
		r.cfg.Log.Error().Str("aside", o.aside).Int("salvaged", o.salvaged).Msg("store was unusable: begun anew, peers have the rest")
	}
	if o.err != nil {
		r.mu.Lock()
		r.disk = nil
		r.mu.Unlock()
		r.setTrouble(o.err)
		r.retry = time.Now().Add(openAgain)
	} else {
		r.install(o)
	}
	if !r.isReady() {
		close(r.ready)
	}
}

// install takes over what is in the file, with what waits in memory on top.
func (r *runner) install(o outcome) {
	c := o.contents
	if r.wreck != nil {
		r.wreck.Close()
		r.wreck = nil
	}
	if c.damaged > 0 {
		r.metrics.damaged.Add(float64(c.damaged))
		r.cfg.Log.Error().Int("entries", c.damaged).Msg("damaged reports dropped, fetched again")
	}
	for _, p := range r.withdrawn {
		c.ix.of(p.l).here.drop(p.seq)
	}
	c.shelf.drop(setOf(r.withdrawn))
	var waiting []sketch
	for p, t := range r.unsaved {
		if c.ix.of(p.l).here.add(p.seq) {
			k := t.sketch
			k.line = c.shelf.number(p.l)
			waiting = append(waiting, k)
		}
	}
	c.shelf.add(waiting)
	r.mu.Lock()
	maps.Copy(c.papers, r.papers)
	r.disk, r.ix, r.shelf, r.papers = o.disk, c.ix, c.shelf, c.papers
	// An own number is given on only where nothing says that it may be taken: this
	// life has given none yet, and the file is the one that the last life closed.
	if r.Store.next == 1 && o.aside == "" && c.epoch != "" && r.replaced.IsZero() && len(r.withdrawn) == 0 {
		r.self.epoch = c.epoch
		r.Store.next = max(c.next, c.ix.of(r.self).known().highest()+1)
	}
	clear(r.cache)
	clear(r.plain)
	r.metrics.count(r.shelf)
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
	if r.disk.readOnly {
		r.setTrouble(errReadOnly)
		r.retry = time.Now().Add(openAgain)
	}
	r.clearTrouble()
	r.disk.relax()
	r.poke()
}

// writable asks whether a file that could only be read can be written by now.
func writable(path string) bool {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// finish writes what is left, within finishTime: a disk that hangs must not keep
// the process from ending.
func (r *runner) finish() error {
	deadline := time.NewTimer(finishTime)
	defer deadline.Stop()
	for tries := 0; ; {
		r.drain()
		if r.flight == nil {
			left := len(r.pending) + len(r.unsaved)
			if tries++; left == 0 || tries > 3 || r.disk != nil && r.disk.readOnly {
				return r.end()
			}
			// Once more, whatever came of the last time.
			if r.disk == nil {
				r.start(r.opening())
			} else {
				r.start(r.commit())
			}
		}
		select {
		case o := <-r.results:
			r.settle(o)
		case <-deadline.C:
			close(r.ended)
			close(r.jobs) // the goroutine ends when the disk lets go of it
			answer(r.takePending(), ErrClosed)
			return fmt.Errorf("store: %d reports are not written: the disk does not answer", len(r.unsaved))
		}
	}
}

func (r *runner) drain() {
	for {
		select {
		case p := <-r.puts:
			r.pending = append(r.pending, p)
		default:
			return
		}
	}
}

func (r *runner) end() error {
	close(r.ended)
	answer(r.takePending(), ErrClosed)
	close(r.jobs)
	for range r.results { // the goroutine has ended
	}
	if n := len(r.unsaved); n > 0 {
		r.cfg.Log.Error().Int("reports", n).Msg("reports are lost here with this life: the disk did not take them")
	}
	if r.wreck != nil {
		r.wreck.Close()
	}
	if r.disk == nil {
		return nil
	}
	return r.disk.close()
}
