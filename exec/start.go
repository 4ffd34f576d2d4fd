package exec

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"p2pnode"
	"p2pnode/exec/disk"
	"p2pnode/exec/logs"
	"p2pnode/exec/notify"

	"golang.org/x/sys/unix"
)

// startJob is one start, carried out beside the loop. It owns nothing that the
// loop touches meanwhile: of one service only one job runs at a time.
type startJob struct {
	eff    effStart
	spec   p2pnode.ServiceSpec
	id     identity
	old    *process // the main process of the last incarnation, if exec watched one
	left   leftover // of a life that ended while no exec watched
	untold *replaced
	log    *logs.Log
	notify string // path of the sd_notify socket, "" for none
	last   *p2pnode.Exit

	cleaned <-chan struct{} // a clean-up still under way would take the new copy for a leftover
}

// startResult is what a job brings back to the loop.
type startResult struct {
	name   string
	inc    p2pnode.Incarnation
	proc   *process
	looked time.Time
	err    error
	world  string // what was there when the start failed for want of something
	launch launch // how it was started

	ungrouped bool // the last life had no group: what left its session has not been looked for
}

// start makes sure that no copy lives and then starts one. The order is the
// promise: end the old tree, take the lock, look, record the intent, fork, record
// the child. Whoever dies in between leaves a lock that is held by the copy, or
// none.
func (r *runner) start(ctx context.Context, job startJob) startResult {
	res := startResult{name: job.eff.name, inc: job.eff.inc}
	// On a mount that hangs a look may last for ever.
	pre, over := disk.Unless(ctx, func() (preparation, error) { return r.prepared(job), nil }, nil)
	if over != nil {
		pre.err = &cannotRun{startBroken, "given up while its files were looked at"}
	}
	if pre.err != nil {
		res.err, res.world = pre.err, pre.world
		return res
	}
	env, l := pre.env, pre.launch
	if job.cleaned != nil {
		select {
		case <-job.cleaned:
		case <-ctx.Done():
		}
	}
	world := func() string {
		w, _ := disk.Unless(ctx, func() (string, error) { return worldOf(job.spec, env), nil }, nil)
		return w
	}
	if job.eff.live { // it may be of some use yet: it is not ended for what cannot be started
		var held []holder
		if held, res.err = l.holders(ctx, job.id); res.err != nil {
			res.world = world()
			return res
		}
		if len(held) > 0 && r.worksAgain(job) { // systemd may have taken seconds
			res.err = &cannotRun{startNeedless, "it works again"}
			return res
		}
	}
	lock, err := r.lookAtOld(ctx, job)
	if err != nil {
		res.err = err
		return res
	}
	defer lock.Close() // the child has it now; our copy must not keep it alive
	res.looked = time.Now()
	r.zombies.note(job.eff.name, deadOf(job))
	res.ungrouped = job.old != nil && !job.id.cgroup.has(job.eff.old.N)
	if e, ok := r.exits.Load(job.eff.name); ok && job.eff.live && e.(evEnded).inc == job.eff.old {
		exit := e.(evEnded).exit // it lived until now: this is what the next one is to be told
		exit.Why, job.last = job.eff.why, &exit
		l.env = append(slices.DeleteFunc(l.env, func(kv string) bool { return strings.HasPrefix(kv, lastExitKey) }), lastExitKey+exitText(exit))
	}
	res.launch = l
	res.proc, res.err = r.fork(ctx, job, l, lock)
	if res.err != nil {
		res.world = world()
		return res
	}
	r.cfg.History.Record(p2pnode.HistoryEvent{
		Event: p2pnode.HistStarted, Service: job.eff.name, Old: job.eff.target, New: job.eff.inc.String(),
		PID: res.proc.pid, By: job.eff.by, Op: job.eff.op,
	})
	return res
}

// worksAgain reports whether the process that a job is to end does again what it is to be
// ended for, as far as a short look shows.
func (r *runner) worksAgain(job startJob) (again bool) {
	if job.old == nil {
		return false
	}
	switch job.eff.class {
	case p2pnode.ClassFrozen:
		st, err := readStat(job.old.pid)
		return err == nil && st.ticks == job.old.ticks && !strings.ContainsRune("tTZX", rune(st.state))
	case p2pnode.ClassHung:
		r.ask(func() {
			k, s := r.kids[job.eff.name], r.policy.svcs[job.eff.name]
			again = k != nil && k.proc == job.old && s != nil && s.health.cures() &&
				slices.ContainsFunc(k.early, func(m notify.Message) bool { return m.Watchdog && r.speaksFor(k, m) })
		})
	}
	return again
}

// deadOf is the main process that a start replaces, where it was not ours to reap. Door
// and node process keep no pid file, and do not mind.
func deadOf(job startJob) being {
	dead := job.left.session
	if job.old != nil {
		dead = job.old.being()
	}
	if job.eff.name[0] == '@' || job.old != nil && job.old.ours {
		return being{}
	}
	return dead
}

// preparation is what a start has found out beforehand, without a change to anything.
type preparation struct {
	env    []string
	launch launch
	world  string // where it cannot be started
	err    error
}

func (r *runner) prepared(job startJob) (p preparation) {
	if p.env, p.err = r.envOf(job); p.err == nil {
		p.launch, p.err = prepare(job.spec, p.env)
	}
	if p.err != nil {
		p.world = worldOf(job.spec, p.env)
	}
	return p
}

// lookAtOld is exec's own look before it acts: nothing of the last incarnation
// lives, and its lock is ours.
func (r *runner) lookAtOld(ctx context.Context, job startJob) (*os.File, error) {
	if plantActWithoutVerify {
		return r.ownLock(ctx, job, being{})
	}
	session, err := r.endOld(ctx, job)
	if err != nil {
		return nil, err
	}
	r.zombies.wait(ctx, job.eff.name)
	lock, err := r.ownLock(ctx, job, session)
	if err == nil {
		r.cfg.History.Record(p2pnode.HistoryEvent{Event: p2pnode.HistLooked, Service: job.eff.name, Old: job.eff.target, Class: job.eff.class, Op: job.eff.op})
	}
	return lock, err
}

// endOld ends the tree of the last incarnation and returns its session.
func (r *runner) endOld(ctx context.Context, job startJob) (session being, err error) {
	if job.old == nil {
		if job.left.there {
			job.id.killAll(job.left)
		}
		job.id.killRest(job.eff.old, being{})
		return being{}, r.endStrangers(ctx, job)
	}
	session = job.old.being()
	if job.eff.live && !job.old.dead() {
		if tracer := tracerOf(session.pid); tracer != 0 {
			return session, &cannotRun{startTraced, "process " + strconv.Itoa(tracer) + " traces it: it is left alone"}
		}
		r.cfg.History.Record(p2pnode.HistoryEvent{Event: p2pnode.HistLooked, Service: job.eff.name, Old: job.eff.target, Class: job.eff.class, Op: job.eff.op, PID: session.pid})
		r.cfg.History.Record(p2pnode.HistoryEvent{Event: p2pnode.HistKilled, Service: job.eff.name, Old: job.eff.target, Class: job.eff.class, PID: session.pid})
		if job.spec.HangDump && job.eff.class != p2pnode.ClassFrozen {
			job.old.signal(unix.SIGQUIT)
			waitDead(ctx, job.old, dumpFor)
		}
		job.id.killTree(job.old)
	}
	if !waitDead(ctx, job.old, killPatience) {
		if ctx.Err() != nil {
			return session, &cannotRun{startBroken, "given up before process " + strconv.Itoa(session.pid) + " had ended"}
		}
		return session, &cannotRun{startUnkillable, "process " + strconv.Itoa(session.pid) + " does not die of SIGKILL"}
	}
	// The next run's log begins with the start: the last words are taken first.
	select {
	case <-job.old.told:
	case <-time.After(lastWords):
	case <-ctx.Done():
	}
	session = stillSession(session)
	job.id.killRest(job.eff.old, session)
	return session, nil
}

// endStrangers ends copies that hold a lock of this service of another epoch: the
// folder's state was lost while they ran, and nothing but the lock in the run
// folder knows them. Only the first start of a service looks; a copied folder has
// copies of the files, which nobody locks.
func (r *runner) endStrangers(ctx context.Context, job startJob) error {
	if job.eff.force {
		return nil
	}
	others, _ := filepath.Glob(filepath.Join(runDir(r.cfg.Dir), job.eff.name+".*.lock"))
	for _, path := range others {
		id := job.id
		if id.lockPath = path; path == job.id.lockPath {
			continue
		}
		for deadline := time.Now().Add(holderSight); ; {
			held, err := lockHeld(path)
			if err != nil || !held {
				break
			}
			holders := id.lockHolders()
			holders.kill()
			if time.Now().After(deadline) || ctx.Err() != nil {
				return &cannotRun{startBlocked, blockedText(holders)}
			}
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

// ownLock takes the service's lock for the child to come. What was killed just now
// lets go of it in a moment; after that the holder is looked for and killed, for a
// second; an unseen holder blocks.
func (r *runner) ownLock(ctx context.Context, job startJob, session being) (*os.File, error) {
	if job.eff.force {
		os.Remove(job.id.lockPath)
	}
	began := time.Now()
	for pause := 200 * time.Microsecond; ; pause = min(2*pause, 100*time.Millisecond) {
		f, err := openLock(job.id.lockPath)
		if err != nil {
			return nil, &cannotRun{startMissing, "cannot open its lock: " + err.Error()}
		}
		ok, err := takeLock(f)
		if ok {
			return f, nil
		}
		f.Close()
		if err != nil {
			return nil, &cannotRun{startBroken, err.Error()}
		}
		if time.Since(began) < dyingHolder {
			time.Sleep(pause)
			continue
		}
		holders := job.id.lockHolders()
		holders.with(job.id.allCopies(job.eff.old, session)).kill()
		if time.Since(began) > holderSight || ctx.Err() != nil {
			return nil, &cannotRun{startBlocked, blockedText(holders)}
		}
		time.Sleep(pause)
	}
}

func blockedText(holders copies) string {
	who := "an unknown holder"
	if len(holders) > 0 {
		who = "process " + strconv.Itoa(holders[0].pid)
	}
	return "a copy seems to live: " + who + " has its lock"
}

// fork makes the FIFO, writes the intent, forks and records the child.
func (r *runner) fork(ctx context.Context, job startJob, l launch, lock *os.File) (*process, error) {
	rec := record{
		Service: job.eff.name, Inc: job.eff.inc, Starting: true, BootID: r.bootID, PidNS: r.pidNS,
		Starts: job.eff.starts, Restarts: job.eff.restarts, Last: job.last,
	}
	if was, ok := r.state.get(job.eff.name); ok {
		rec.Earlier = was.after()
	}
	rec.Replaced = job.untold
	if job.eff.class != "" {
		rec.Replaced = &replaced{Target: job.eff.target, Class: job.eff.class, By: job.eff.by, Detected: job.eff.failed, Log: job.log.Mark()}
	}
	fifo, err := job.log.Begin(job.eff.inc, l.uid, l.gid)
	if err != nil {
		return nil, &cannotRun{startBroken, "cannot take its output: " + err.Error()}
	}
	rec.Log = job.log.Mark()
	r.remember(rec)
	r.handOver(job.spec.Name, job.eff.inc, job.log, nil)
	// O_RDWR: the FIFO always has a reader, so exec's death never kills the writer;
	// opened here, apart from exec's own end, so that blocking mode is its own.
	if job.spec.Log == p2pnode.LogFile {
		l.stdout, err = openOutputUnless(ctx, job.spec, outputOf(job.spec, r.cfg.Dir), l)
	} else {
		l.stdout, err = unix.Open(fifo, unix.O_RDWR|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, &cannotRun{startBroken, "cannot open its output: " + err.Error()}
	}
	defer unix.Close(l.stdout)
	if job.spec.Name == p2pnode.SelfNode || job.spec.Name == p2pnode.SelfDoor {
		l.leash = r.cfg.Leash
	}
	job.id.cgroup.remove()
	if err := l.holdGroups(ctx, job.id, job.eff.inc.N); err != nil {
		return nil, err
	}
	group, err := job.id.cgroup.open(job.eff.inc.N, l.born)
	switch {
	case err == nil:
		defer group.Close()
	case l.born != "":
		return nil, &cannotRun{startBroken, "the cgroup that holds its limits is gone: " + err.Error()}
	}
	l.launcher = r.cfg.LaunchArgv
	if len(job.spec.Before) > 0 {
		rec.Preparing = true
		r.remember(rec)
		if err := r.prepareService(ctx, job, l, lock, group); err != nil {
			return nil, err
		}
		rec.Preparing = false
		r.remember(rec)
	}
	p, err := spawn(l, lock, group)
	if err != nil {
		var cannot *cannotRun
		if !errors.As(err, &cannot) {
			err = &cannotRun{startBroken, err.Error()}
		}
		return nil, err
	}
	if r.forked != nil {
		r.forked(job.eff.name)
	}
	rec.Starting, rec.PID, rec.Ticks, rec.Fifo, rec.Started = false, p.pid, p.ticks, job.log.Path(), time.Now()
	r.remember(rec)
	return p, nil
}

const lastExitKey = "P2PNODE_LAST_EXIT="

// envOf is what the child is told. An error, *cannotRun, is of an env_file: what the
// others say is returned all the same.
func (r *runner) envOf(job startJob) ([]string, error) {
	if job.spec.Name == p2pnode.SelfNode || job.spec.Name == p2pnode.SelfDoor {
		own := slices.DeleteFunc(slices.Clone(r.environ), func(kv string) bool { return private(kv) && !configVariable(kv) })
		return slices.Concat(own, r.cfg.RoleEnv, []string{job.id.cookie(job.eff.inc)}), nil
	}
	told := []string{
		job.id.cookie(job.eff.inc),
		"P2PNODE_SERVICE=" + job.eff.name,
		"P2PNODE_NODE=" + r.cfg.NodeName,
		"P2PNODE_INCARNATION=" + job.eff.inc.String(),
	}
	if job.last != nil {
		told = append(told, lastExitKey+exitText(*job.last))
	}
	if job.notify != "" {
		told = append(told, "NOTIFY_SOCKET="+job.notify)
		if job.spec.Watchdog > 0 {
			told = append(told, "WATCHDOG_USEC="+strconv.FormatInt(job.spec.Watchdog.Microseconds(), 10))
		}
	}
	files, err := readEnvFiles(job.spec.EnvFile)
	if err != nil {
		err = &cannotRun{startMissing, err.Error()}
	}
	return serviceEnv(job.spec, r.environ, files, told...), err
}

// configVariable reports whether kv configures p2pnode, rather than telling a
// child who it is.
func configVariable(kv string) bool {
	for _, own := range []string{cookieKey, checkKey, "P2PNODE_SERVICE", "P2PNODE_NODE", "P2PNODE_INCARNATION", "P2PNODE_LAST_EXIT"} {
		if len(kv) > len(own) && kv[:len(own)+1] == own+"=" {
			return false
		}
	}
	return len(kv) > 8 && kv[:8] == "P2PNODE_"
}

func exitText(e p2pnode.Exit) string {
	switch {
	case e.Unknown:
		return "unknown"
	case e.OOM:
		return e.Signal + " oom"
	case e.Signal != "":
		return e.Signal
	}
	return strconv.Itoa(e.Code)
}
