package exec

import (
	"context"
	"time"

	"p2pnode"
	"p2pnode/exec/disk"
	"p2pnode/exec/logs"
)

// saveJob is one snapshot of what people want, to be written beside the loop.
type saveJob struct {
	d    desired
	done chan error // nil: nobody waits
}

// save queues the desired state; it runs on the loop.
func (r *runner) save(done chan error) {
	d := desired{Stopped: map[string]bool{}, Intents: map[string]intent{}, Maintenance: map[string]time.Time{}, Observe: map[string]bool{}}
	for s := range r.policy.all {
		if s.removed {
			continue
		}
		if s.stopped != s.spec.Manual {
			d.Stopped[s.spec.Name] = s.stopped
		}
		if s.stopped && s.intent.By != "" {
			d.Intents[s.spec.Name] = s.intent
		}
		if !s.maintEnds.IsZero() {
			d.Maintenance[s.spec.Name] = s.maintEnds
		}
		if s.observe {
			d.Observe[s.spec.Name] = true
		}
	}
	if r.policy.observe != r.cfg.Observe {
		d.Observe[""] = r.policy.observe
	}
	select {
	case r.saves <- saveJob{d, done}:
	default: // a disk that hangs: the next change is written when it works again
		if done != nil {
			done <- disk.ErrHangs
		}
	}
}

// saved waits until what people want is on disk, or says that it is not. It holds
// either way, and is written as soon as the disk takes it.
func (r *runner) saved() error {
	done := make(chan error, 1)
	if err := r.ask(func() { r.save(done) }); err != nil {
		return err
	}
	var err error
	select {
	case err = <-done:
	case <-time.After(5 * time.Second):
		err = disk.ErrHangs
	case <-r.gone:
	}
	if err == nil {
		return nil
	}
	return &p2pnode.Error{
		Code: "not-written", Text: "it holds from now on, but could not be written down: " + plain(err),
		Fix: "free the disk: it is written as soon as there is room; until then a restart of p2pnode forgets it",
	}
}

// saver writes what people want, and whatever else the disk refused until it takes
// it.
func (r *runner) saver(ctx context.Context) {
	var failed *saveJob // the newest one
	var again <-chan time.Time
	write := func(job saveJob) {
		failed = nil
		if !r.writeDesired(job) {
			failed = &saveJob{d: job.d}
		}
	}
	for {
		select {
		case job := <-r.saves:
			write(job)
		case <-r.unsaved:
			if again == nil {
				again = time.After(diskEvery)
			}
		case <-again:
			again = nil
			if failed != nil {
				write(*failed)
			}
			r.retryDisk()
		case <-ctx.Done():
			for len(r.saves) > 0 {
				write(<-r.saves)
			}
			return
		}
	}
}

func (r *runner) writeDesired(job saveJob) (ok bool) {
	err := r.state.saveDesired(job.d)
	r.disk("what people want", err)
	if job.done != nil {
		job.done <- err
	}
	return err == nil
}

// retryDisk writes again what could not be written: records and logs. What still
// fails asks for the next try.
func (r *runner) retryDisk() {
	for service, err := range r.state.retry() {
		r.disk("record of "+service, err)
	}
	r.disk("audit log", r.audit.flush())
	var all []*logs.Log
	r.ask(func() {
		for _, k := range r.kids {
			all = append(all, k.log)
		}
	})
	for _, l := range all {
		l.Mend()
	}
}

// recallDesired reads back what people wanted before this start.
func (r *runner) recallDesired() {
	d, err := r.state.loadDesired()
	if err != nil {
		// No write mends this: it stays said until a person gives his orders anew.
		r.degraded.set("what people wanted is unreadable", err)
		return
	}
	for s := range r.policy.all {
		name := s.spec.Name
		if stopped, ok := d.Stopped[name]; ok {
			s.stopped = stopped
		}
		if in, ok := d.Intents[name]; ok && s.stopped {
			s.intent, s.since = in, in.At
		}
		if until := d.Maintenance[name]; until.After(time.Now()) {
			s.maintEnds = until
		}
		s.observe = d.Observe[name]
	}
	if on, ok := d.Observe[""]; ok {
		r.policy.observe = on
	}
}
