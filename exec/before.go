package exec

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"p2pnode"
)

// prepareService runs the programs that must end well before a service is started.
// They run as the service does: its user, folder, environment, group and output,
// and they hold its lock, so that no copy starts beside one that was left alone.
// One that fails, or that takes longer than start_within, fails the start.
func (r *runner) prepareService(ctx context.Context, job startJob, l launch, lock, group *os.File) error {
	ctx, cancel := context.WithTimeout(ctx, job.spec.StartWithin)
	defer cancel()
	for _, argv := range job.spec.Before {
		if err := r.runBefore(ctx, job, l.running(argv), lock, group); err != nil {
			return err
		}
	}
	return nil
}

// running is l for another program.
func (l launch) running(argv []string) launch {
	l.argv, l.path = argv, ""
	return l
}

func (r *runner) runBefore(ctx context.Context, job startJob, l launch, lock, group *os.File) error {
	name := "before: " + strings.Join(l.argv, " ")
	var err error
	if l.path, err = resolve(l.argv[0], l.cwd, l.env); err != nil {
		return &cannotRun{startMissing, "before: " + err.Error()}
	}
	p, err := spawn(l, lock, group)
	if err != nil {
		return err
	}
	r.mains.Store(p.pid, p)
	defer r.mains.CompareAndDelete(p.pid, p)
	defer p.close()
	began := time.Now()
	stop := context.AfterFunc(ctx, func() { job.id.killTree(p) })
	defer stop()
	if err := p.wait(); err != nil {
		return &cannotRun{startBroken, name + ": " + err.Error()}
	}
	exit := p.reap()
	switch {
	case ctx.Err() != nil:
		job.id.killRest(job.eff.inc, stillSession(p.being()))
		return &cannotRun{startBroken, fmt.Sprintf("%s did not end within %v", name, time.Since(began).Round(time.Millisecond))}
	case exit.Code != 0 || exit.Signal != "" || exit.Unknown:
		job.id.killRest(job.eff.inc, stillSession(p.being()))
		return &cannotRun{startBroken, name + " failed: " + inWords(exit)}
	}
	return nil
}

// inWords is an exit for a sentence.
func inWords(e p2pnode.Exit) string {
	if e.Signal != "" || e.Unknown {
		return exitText(e)
	}
	return "exit " + exitText(e)
}
