package store

import (
	"slices"
	"time"
)

// sweepAsked reports, once, whether something came in that is to be given up.
func (r *runner) sweepAsked() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	asked := r.sweeps
	r.sweeps = false
	return asked
}

// sweeping gives up what is too old or too much, some at a time; nil when that is
// done.
func (r *runner) sweeping(now time.Time) *job {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.refused) // who was a stranger may be a member by now
	var goes []place
	for _, p := range r.shelf.victims(now, r.cfg.Keep, r.cfg.MaxBytes) {
		if _, waits := r.unsaved[p]; !waits {
			goes = append(goes, p)
		}
	}
	if len(goes) == 0 {
		r.sweep = now.Add(sweepEvery)
		lines := r.emptyLocked(now)
		if len(lines) == 0 {
			return nil
		}
		c, d := change{owner: r.cfg.Cluster, epoch: r.self.epoch, next: r.Store.next, forget: lines}, r.disk
		return &job{do: func() outcome { return outcome{err: d.commit(c)} }}
	}
	goes = goes[max(0, len(goes)-sweepAtOnce):] // oldest first
	c := change{owner: r.cfg.Cluster, epoch: r.self.epoch, next: r.Store.next, drop: goes, gone: map[line]spans{}}
	for _, p := range goes {
		gone, ok := c.gone[p.l]
		if !ok {
			gone = slices.Clone(r.ix.of(p.l).gone)
		}
		gone.add(p.seq)
		c.gone[p.l] = gone
	}
	d := r.disk
	return &job{goes: goes, do: func() outcome { return outcome{err: d.commit(c)} }}
}

// forgetLocked is what a sweep's commit means in memory.
func (r *runner) forgetLocked(goes []place) {
	if len(goes) == 0 {
		return
	}
	for _, p := range goes {
		h := r.ix.of(p.l)
		h.here.drop(p.seq)
		h.gone.add(p.seq)
		delete(r.cache, p)
		delete(r.plain, p)
	}
	r.shelf.drop(setOf(goes))
}

// emptyLocked are lines of which everything was given up an hour ago: by now
// everybody else has given them up as well, and nobody sends them again.
func (r *runner) emptyLocked(now time.Time) (out []line) {
	for l, h := range r.ix {
		if len(h.here) > 0 || l == r.self {
			h.empty = time.Time{}
			continue
		}
		if h.empty.IsZero() {
			h.empty = now
		}
		if now.Sub(h.empty) > time.Hour {
			out = append(out, l)
			delete(r.ix, l)
		}
	}
	return out
}
