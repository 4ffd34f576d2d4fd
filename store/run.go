package store

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
)

// One goroutine, Run, decides; another one touches the disk, one job at a time. A
// disk that fails or takes long therefore holds up nobody: what is put meanwhile
// gets numbers of a new epoch, lives in memory, is shown and spreads, and is
// written once the disk works again.
//
// An epoch ends whenever it is not certain which of its numbers are on the disk: a
// number is never used for two reports.

// put is one thing on its way to the disk: an own report without identity, or
// signed ones of others with their papers.
type put struct {
	own    *p2pnode.Report
	others []taken
	papers map[peer.ID][][]byte
	done   chan error // buffered
}

// job is one thing that the disk does.
type job struct {
	do    func() outcome
	puts  []put   // whom it is done for
	fresh []taken // what it writes that nobody has seen yet
	old   []place // what it writes that waited in memory
	goes  []place // what it gives up
	taken int     // how many of withdrawn it takes back
	began time.Time
	lost  bool // took too long: what it writes went to memory as well
}

// outcome is what came of a job; opened is of those that open the file.
type outcome struct {
	opening bool
	opened
	err error
}

// runner is the state of Run; nobody else touches it.
type runner struct {
	*Store
	jobs    chan func() outcome
	results chan outcome

	flight    *job
	pending   []put
	due       time.Time // of pending: the end of the group; zero: nothing waits
	retry     time.Time // not before, while there is trouble
	sweep     time.Time
	relax     time.Time
	withdrawn []place   // own numbers that may be on disk and were given again
	wreck     *os.File  // an unusable file that nothing was salvaged from yet
	replaced  time.Time // when a file was last given up
}

// Run opens the file and writes what was put, in groups that share one fsync,
// until ctx ends; what was queued by then is still written.
func (s *Store) Run(ctx context.Context) error {
	r := &runner{Store: s, jobs: make(chan func() outcome), results: make(chan outcome, 1)}
	go func() {
		for do := range r.jobs {
			r.results <- do()
		}
		close(r.results)
	}()
	r.sweep = time.Now().Add(sweepEvery)
	r.start(r.opening())
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		now := time.Now()
		r.step(now)
		timer.Reset(r.idle(now))
		select {
		case <-ctx.Done():
			return r.finish()
		case p := <-r.accepting():
			if r.pending = append(r.pending, p); r.due.IsZero() {
				r.due = time.Now().Add(groupWait)
			}
		case <-s.broken:
			if r.disk != nil && r.disk.dead.Load() {
				r.replace(errDamaged)
			}
		case o := <-r.results:
			r.settle(o)
		case <-timer.C:
		}
	}
}

// accepting is the queue while there is room for a group.
func (r *runner) accepting() <-chan put {
	if len(r.pending) < maxQueued {
		return r.puts
	}
	return nil
}

// step starts what is due.
func (r *runner) step(now time.Time) {
	if f := r.flight; f != nil && !f.lost && now.Sub(f.began) >= slowAfter {
		r.giveUp()
	}
	if r.stuck(now) {
		r.toMemory(r.takePending())
	}
	if r.flight != nil || now.Before(r.retry) {
		return
	}
	switch {
	case r.disk == nil:
		r.start(r.opening())
	case r.disk.readOnly:
		if r.retry = now.Add(openAgain); writable(r.cfg.Path) {
			r.start(r.opening())
		}
	case len(r.pending) > 0 && !now.Before(r.due), len(r.unsaved)+len(r.withdrawn) > 0:
		r.start(r.commit())
	case !now.Before(r.sweep) || r.sweepAsked():
		r.start(r.sweeping(now))
	case !now.Before(r.relax):
		r.relax = now.Add(relaxEvery)
		r.disk.relax()
	}
}

// stuck reports whether what is put now must not wait for the disk.
func (r *runner) stuck(now time.Time) bool {
	if r.flight != nil {
		return r.flight.lost
	}
	return r.trouble != "" && (r.disk == nil || r.disk.readOnly || now.Before(r.retry))
}

// idle is how long nothing is due.
func (r *runner) idle(now time.Time) time.Duration {
	if f := r.flight; f != nil {
		if f.lost {
			return time.Hour // until it ends
		}
		return max(f.began.Add(slowAfter).Sub(now), time.Millisecond)
	}
	next := r.sweep
	if r.relax.Before(next) {
		next = r.relax
	}
	switch {
	case r.disk == nil || r.disk.readOnly || len(r.unsaved)+len(r.withdrawn) > 0:
		next = r.retry
	case len(r.pending) > 0 && r.due.Before(next):
		next = r.due
	}
	if next.Before(r.retry) {
		next = r.retry
	}
	return max(next.Sub(now), time.Millisecond)
}

func (r *runner) takePending() []put {
	puts := r.pending
	r.pending, r.due = nil, time.Time{}
	return puts
}

func (r *runner) start(j *job) {
	if j == nil {
		return
	}
	j.began = time.Now()
	r.flight = j
	r.jobs <- j.do // the goroutine waits for it: there is one job at a time
}

func (r *runner) opening() *job {
	path, owner, wreck, old := r.cfg.Path, r.cfg.Cluster, r.wreck, r.disk
	return &job{do: func() outcome {
		if old != nil {
			old.close()
		}
		o, err := openOrReplace(path, owner, wreck)
		return outcome{opening: true, opened: o, err: err}
	}}
}

// commit writes what is pending and what waits in memory.
func (r *runner) commit() *job {
	j := &job{puts: r.takePending(), taken: len(r.withdrawn)}
	c := change{owner: r.cfg.Cluster, papers: r.newPapers(j.puts), drop: r.withdrawn}
	for p, t := range r.unsaved {
		c.keep = append(c.keep, t)
		j.old = append(j.old, p)
	}
	j.fresh = r.sign(j.puts)
	c.keep = append(c.keep, j.fresh...)
	c.epoch, c.next = r.self.epoch, r.Store.next
	d := r.disk
	j.do = func() outcome { return outcome{err: d.commit(c)} }
	return j
}

// sign leaves out of others' reports what is here, and gives own ones their
// identity. What cannot be signed is answered at once.
func (r *runner) sign(puts []put) (fresh []taken) {
	seen := map[place]bool{}
	r.mu.Lock()
	for _, p := range puts {
		for _, t := range p.others {
			at := t.place()
			if at.l == r.self && at.seq >= r.Store.next {
				// Somebody holds what this life has not reported: the file is an old copy.
				r.newEpochLocked()
			}
			if !seen[at] && !r.ix.knows(at.l, at.seq) {
				seen[at] = true
				fresh = append(fresh, t)
			}
		}
	}
	r.mu.Unlock()
	for i, p := range puts {
		if p.own == nil {
			continue
		}
		t, err := r.signOne(p.own)
		if err != nil {
			r.cfg.Log.Error().Err(err).Str("incident", p.own.Incident).Msg("report cannot be kept")
			p.done <- err
			puts[i].done = make(chan error, 1) // nobody listens
			puts[i].own = nil
			continue
		}
		fresh = append(fresh, t)
	}
	return fresh
}

// signOne completes an own report in place.
func (r *runner) signOne(own *p2pnode.Report) (taken, error) {
	r.mu.Lock()
	own.Origin, own.Epoch, own.Seq = r.self.origin.String(), r.self.epoch, r.Store.next
	seal := r.seal
	r.mu.Unlock()
	raw, err := encodeReport(r.cfg.Key, *own, seal)
	if err != nil {
		return taken{}, err
	}
	t, err := newTaken(raw)
	if err == nil {
		r.mu.Lock()
		r.Store.next++
		r.mu.Unlock()
	}
	return t, err
}

// settle takes in what came of the job.
func (r *runner) settle(o outcome) {
	j := r.flight
	r.flight = nil
	switch {
	case o.opening:
		r.settleOpening(o)
	case o.err == nil:
		r.settleCommit(j)
	case errors.Is(o.err, errDamaged), errors.Is(o.err, errMoved), !environment(o.err):
		r.metrics.failed.Inc()
		if !j.lost {
			r.withdraw(j.fresh)
			r.pending = append(j.puts, r.pending...)
			r.due = time.Now()
		}
		r.replace(o.err)
	default:
		r.metrics.failed.Inc()
		r.setTrouble(o.err)
		r.retry = time.Now().Add(writeAgain)
		if !j.lost {
			r.withdraw(j.fresh)
			r.toMemory(j.puts)
		}
	}
}

func (r *runner) settleCommit(j *job) {
	r.mu.Lock()
	r.forgetLocked(j.goes)
	r.withdrawn = r.withdrawn[j.taken:]
	for _, p := range j.old {
		r.waiting -= int64(len(r.unsaved[p].packed))
		delete(r.unsaved, p)
	}
	r.mu.Unlock()
	if !j.lost {
		r.publish(j.fresh)
		answer(j.puts, nil)
	}
	r.clearTrouble()
}

func answer(puts []put, err error) {
	for _, p := range puts {
		p.done <- err
	}
}
