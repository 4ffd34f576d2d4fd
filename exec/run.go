package exec

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"p2pnode"
	"p2pnode/exec/logs"
	"p2pnode/exec/notify"

	"golang.org/x/sys/unix"
)

// runner carries out what the policy decides. One goroutine, loop, owns the
// policy and all fields below it; every other goroutine hands it closures.
type runner struct {
	cfg        Config
	state      *state
	cgroups    *cgroups
	v1         string               // where the controllers of cgroup v1 are
	forked     func(service string) // called between a fork and its record: a test makes that moment long
	bootID     string
	pidNS      string
	environ    []string
	supervised bool
	init       initLink
	began      time.Time
	feed       *feed
	keeper     keeperLink
	mains      sync.Map     // pids that exec watches
	forking    atomic.Int32 // programs of checks whose pids are about to be among them
	programs   *programs
	zombies    zombies
	exits      sync.Map // name -> evEnded: the newest status that was taken of each child
	handed     *handed  // by the image before this one; nil where exec was started
	upgrading  atomic.Bool
	degraded   degraded
	metrics    *metrics
	memory     *kernelLog
	audit      *AuditLog
	saves      chan saveJob
	unsaved    chan struct{} // something could not be written
	in         chan func()
	gone       chan struct{} // closed when loop has ended
	wg         sync.WaitGroup
	jobs       context.Context // of goroutines that run beside the loop

	policy     *policy
	kids       map[string]*kid
	answers    map[uint64]chan p2pnode.RecoverAnswer
	reloads    map[uint64]ReloadResult
	waiters    []*waiter
	nextID     uint64
	nodeID     string
	challenges challenges // for managers' orders
	reads      reads
	grepping   sync.Mutex // one line is looked at at a time, whoever asks
	nodeConn   *session   // the connection on which the node process says hello
	beats      heartbeats

	doorRefused map[string]uint64 // as the door last told; replaced as a whole
	adopted     chan struct{}     // closed when it is known what lived on
	lifeNote    lifeNote
	upgrade     *p2pnode.Upgrade // the newest one; replaced as a whole
	over        bool             // shutdown is through
	leaving     error            // ends the loop without touching children
	reapAt      <-chan time.Time
	provenAt    <-chan time.Time // somebody waits for a fresh service to have lived a while
}

// kid is the runner's side of one svc.
type kid struct {
	spec     p2pnode.ServiceSpec
	id       identity
	log      *logs.Log
	notify   *notify.Socket
	proc     *process
	launch   *launch // how it was started; nil of one that was adopted
	last     *p2pnode.Exit
	excerpt  *p2pnode.Excerpt
	spoke    *process // whose end excerpt is of
	world    string
	probing  *inquiry        // the look at that which is under way
	turns    map[string]turn // of each check
	failedAt time.Time       // the last start that failed, and why
	failedBy string
	patience time.Duration       // until it is tried whatever the looks say
	progress map[string]progress // at the last question of each check that failed
	used     usedUntil
	left     leftover         // of a life that ended unseen
	untold   *replaced        // the failure whose repair the last exec died in
	early    []notify.Message // of a process whose start is not through
	giveUp   func()           // ends the start in flight
	cleaned  chan struct{}    // closed when the last orderly stop has cleaned up; nil before the first
}

// degraded is what does not work as it should, by subject.
type degraded struct {
	mu   sync.Mutex
	text map[string]string
}

func (d *degraded) set(subject string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.text == nil {
		d.text = map[string]string{}
	}
	if err == nil {
		delete(d.text, subject)
		return
	}
	d.text[subject] = err.Error()
}

func (d *degraded) list() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []string
	disk := 0
	for _, k := range sortedKeys(d.text) {
		if strings.HasPrefix(k, diskSubject) {
			if disk++; disk > 1 {
				continue // one line tells of the disk, not one for each file
			}
		}
		out = append(out, k+": "+d.text[k])
	}
	return out
}

// disk notes how the last write of something to the data folder went. It never
// stops a start; what failed is tried again until it is through.
func (r *runner) disk(what string, err error) {
	r.degraded.set(diskSubject+what, err)
	if err == nil {
		return
	}
	select {
	case r.unsaved <- struct{}{}:
	default:
	}
}

const diskSubject = "disk: "

// remember writes a record.
func (r *runner) remember(rec record) { r.disk("record of "+rec.Service, r.state.put(rec)) }

// Run is the exec service of cfg.Dir. It adopts what an earlier one left running,
// starts the rest, and returns when ctx has ended and everything is stopped in
// order, when a client asked for that, or when another exec took over (exit code
// 75). A *Switch says that another binary is to go on in this process. Errors that a
// person can mend are *p2pnode.Error.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	haveThreads(ownThreads)
	handed, err := takeHandover()
	if err != nil {
		return fmt.Errorf("cannot take over from the binary before this one: %w", err)
	}
	lock, err := claimFolder(ctx, &cfg, handed)
	if err != nil || lock == nil {
		return err
	}
	defer lock.Close() // the last thing that ends
	for _, dir := range []string{cfg.Dir, stateDir(cfg.Dir), runDir(cfg.Dir)} {
		p2pnode.RemoveUnfinished(dir)
	}
	r, err := newRunner(cfg)
	if err != nil {
		return err
	}
	r.handed = handed
	err = r.run(ctx)
	if sw, ok := errors.AsType[*Switch](err); ok {
		if err := r.pack(sw, lock); err != nil {
			return err
		}
	}
	return err
}

// haveThreads makes threads before they are needed: Go's runtime keeps what it has, and
// ends a process that cannot have one more, as where services have taken all pids.
func haveThreads(n int) {
	var there, all sync.WaitGroup
	enough := make(chan struct{})
	for range n {
		there.Add(1)
		all.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			there.Done()
			<-enough
		})
	}
	there.Wait()
	close(enough)
	all.Wait()
}

func newRunner(cfg Config) (*runner, error) {
	st, err := openState(stateDir(cfg.Dir), runDir(cfg.Dir))
	if err != nil {
		return nil, &p2pnode.Error{Code: "state-folder", Text: "cannot use the state folder " + stateDir(cfg.Dir) + ": " + err.Error(), Fix: "check its owner and the disk"}
	}
	var seed [8]byte
	rand.Read(seed[:])
	r := &runner{
		cfg: cfg, state: st, bootID: bootID(), pidNS: pidNamespace(), environ: guarded(os.Environ()), began: time.Now(), supervised: supervised(cfg), init: initOf(os.Environ()),
		audit: NewAuditLog(cfg.Dir), feed: newFeed(), metrics: newMetrics(cfg.Metrics), saves: make(chan saveJob, 64), unsaved: make(chan struct{}, 1), in: make(chan func(), 1024), gone: make(chan struct{}),
		policy:  newPolicy(binary.BigEndian.Uint64(seed[:]), cfg.Grace, cfg.Observe),
		adopted: make(chan struct{}),
		kids:    map[string]*kid{}, answers: map[uint64]chan p2pnode.RecoverAnswer{}, reloads: map[uint64]ReloadResult{},
	}
	r.policy.epoch = st.epoch
	for _, name := range st.names() {
		if rec, ok := st.get(name); ok {
			r.policy.past[name] = rec.Inc
		}
	}
	for _, s := range cfg.Services {
		if _, known := r.policy.past[s.Name]; !known && st.recalled {
			r.policy.past[s.Name] = p2pnode.Incarnation{Epoch: st.epoch, N: recalledFrom} // numbers never go back
		}
	}
	r.v1 = groupRoot
	r.cgroups = openCgroups(st.identity())
	r.memory = openKernelLog()
	r.programs = newPrograms(st)
	return r, nil
}

func (r *runner) run(ctx context.Context) error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot become the reaper of orphans: %w", err)
	}
	children := make(chan os.Signal, 16)
	signal.Notify(children, unix.SIGCHLD)
	defer signal.Stop(children)
	jobs, stopJobs := context.WithCancel(context.WithoutCancel(ctx))
	r.jobs = jobs
	defer r.memory.close() // after those who look at it
	defer r.cgroups.letGo()
	defer r.programs.held.Close()
	defer r.wg.Wait()
	defer stopJobs()
	r.wg.Go(func() { r.saver(jobs) })
	r.wg.Go(func() { r.memory.follow(jobs) })

	if err := r.declare(); err != nil {
		return err
	}
	r.recallDesired()
	r.recallUpgrade()
	door := r.adoptDoor() // before anybody can connect: it is recognised by its process
	srv, err := r.listen(jobs)
	if err != nil {
		return err
	}
	defer srv.close()
	r.saveGuard()
	r.watchLeash(jobs)
	r.wg.Go(func() { r.feedInit(jobs, r.init) })
	r.wg.Go(func() {
		former := r.adoptRest(jobs, srv, door)
		if r.ask(func() {}) == nil { // what adoption found has been taken in
			close(r.adopted)
			if err := r.init.say("READY=1"); err != nil {
				r.cfg.Log.Warn().Err(err).Msg("the init does not hear that p2pnode is ready")
			}
		}
		if former {
			go r.endFormerPrograms(jobs) // beside r.wg: who keeps his memory from being read makes a look wait for ever
		}
		r.goOnUpgrading(jobs)
	})
	err = r.loop(ctx, children)
	close(r.gone)
	r.letGo()
	return err
}

// declare makes the children that the configuration names; nothing is started.
func (r *runner) declare() error {
	now := time.Now()
	role := func(name string, argv []string) error {
		if len(argv) == 0 {
			return nil
		}
		if r.cfg.Leash != nil {
			argv = append(append([]string(nil), argv...), "--leash", "3")
		}
		spec := p2pnode.ServiceSpec{Name: name, Command: argv, StopTimeout: r.cfg.ShutdownTimeout / 3, StopGrace: p2pnode.DefaultStopGrace}
		if name == p2pnode.SelfNode {
			spec.Ready, spec.Watchdog = p2pnode.ReadyNotify, nodeSilence
		}
		return r.open(now, spec)
	}
	if err := role(p2pnode.SelfDoor, r.cfg.DoorArgv); err != nil {
		return err
	}
	if err := role(p2pnode.SelfNode, r.cfg.NodeArgv); err != nil {
		return err
	}
	for _, spec := range r.cfg.Services {
		if err := r.open(now, spec); err != nil {
			return err
		}
	}
	return nil
}

// open makes a child known to the policy and gives it what it needs.
func (r *runner) open(now time.Time, spec p2pnode.ServiceSpec) error {
	if err := r.equip(spec); err != nil {
		return err
	}
	r.retain(spec)
	r.policy.add(now, spec)
	return nil
}

// retain says how much of a service's output is kept. With log: file that is said of the
// file at each start (output.go), and what was read before stays.
func (r *runner) retain(spec p2pnode.ServiceSpec) {
	if k := r.kids[spec.Name]; k != nil && spec.Log != p2pnode.LogFile {
		k.log.Retain(spec.LogSize, spec.LogKeep)
	}
}

func (r *runner) equip(spec p2pnode.ServiceSpec) error {
	spec = normalised(spec)
	k := &kid{spec: spec, id: r.identityOf(spec.Name), progress: map[string]progress{}, turns: map[string]turn{}}
	var err error
	cfg := logs.Config{RunDir: runDir(r.cfg.Dir), LogDir: logDir(r.cfg.Dir), Service: spec.Name, Log: r.cfg.Log}
	cfg.Refused = func(err error) { r.disk("log of "+spec.Name, err) }
	cfg.Echo = r.cfg.Echo
	if spec.Name[0] == '@' {
		cfg.Echo = r.cfg.RoleEcho
	}
	if k.log, err = logs.Open(cfg); err != nil {
		return &p2pnode.Error{Code: "log-folder", Text: "cannot keep the log of " + quoted(spec.Name) + ": " + err.Error(), Fix: "check the owner of " + logDir(r.cfg.Dir)}
	}
	if err := r.attend(k); err != nil {
		return err
	}
	r.kids[spec.Name] = k
	return nil
}

// attend makes what k's log follows, and where k is heard, what its spec says by now.
func (r *runner) attend(k *kid) error {
	k.log.Follow(outputOf(k.spec, r.cfg.Dir))
	path := ""
	if k.spec.Name[0] != '@' && (k.spec.Ready == p2pnode.ReadyNotify || k.spec.Watchdog > 0) {
		path = r.notifyPath(k.spec)
	}
	if k.notify != nil && k.notify.Path() != path {
		k.notify.Close()
		k.notify = nil
	}
	if k.notify != nil || path == "" {
		return nil
	}
	socket, err := notify.Listen(path)
	if err != nil {
		return &p2pnode.Error{Code: "notify-socket", Text: "cannot listen for " + quoted(k.spec.Name) + ": " + err.Error()}
	}
	k.notify = socket
	r.wg.Go(func() {
		socket.Run(r.jobs, func(m notify.Message) { r.do(func() { r.heard(k.spec.Name, m) }) })
	})
	return nil
}

// do hands f to the loop; it is dropped when the loop has ended.
func (r *runner) do(f func()) {
	select {
	case r.in <- f:
	case <-r.gone:
	}
}

// ask runs f on the loop and waits for it.
func (r *runner) ask(f func()) error {
	done := make(chan struct{})
	r.do(func() { f(); close(done) })
	select {
	case <-done:
		return nil
	case <-r.gone:
		return &p2pnode.Error{Code: "shutting-down", Text: "p2pnode is shutting down"}
	}
}

func (r *runner) loop(ctx context.Context, children <-chan os.Signal) error {
	stop := ctx.Done()
	alarm, err := newAlarm()
	if err != nil {
		return fmt.Errorf("cannot keep time: %w", err)
	}
	defer alarm.close()
	poll := time.NewTicker(adoptedPoll)
	defer poll.Stop()
	for !r.over && r.leaving == nil {
		want := r.policy.next()
		alarm.set(want)
		var adopted <-chan time.Time // a ticker that nobody waits for costs nothing
		if r.watchesAdopted() {
			adopted = poll.C
		}
		select {
		case f := <-r.in:
			f()
		case <-alarm.rings:
			alarm.rang()
			late := time.Duration(0)
			if !want.IsZero() {
				late = max(time.Since(want), 0)
			}
			r.step(evTick{late: late})
		case <-children:
			r.lookAtChildren()
		case <-r.reapAt:
			r.reapAt = nil
			r.reapOrphans()
		case <-r.provenAt:
			r.provenAt = nil
			r.wakeWaiters()
		case <-adopted:
			r.pollAdopted()
		case <-stop:
			stop = nil
			r.shutDown(evShutdown{within: r.cfg.ShutdownTimeout})
		}
	}
	return r.leaving
}

// step lets the policy decide and carries out what it says.
func (r *runner) step(ev event) {
	if beat, ok := r.beats.tell(); ok {
		r.decide(beat)
	}
	r.decide(ev)
	r.beats.nodeIs(r.policy.nodeWell())
	r.wakeWaiters()
}

func (r *runner) decide(ev event) {
	for _, eff := range r.policy.step(time.Now(), ev) {
		r.apply(eff)
	}
}

// shutDown ends everything in order. The init is told how long that may take: one that
// allows less would kill exec, and leave what it had not stopped yet.
func (r *runner) shutDown(ev evShutdown) {
	r.wg.Go(func() {
		if err := r.init.say(endsWithin(ev.within)); err != nil {
			r.cfg.Log.Warn().Err(err).Msg("the init does not hear that p2pnode is stopping")
		}
	})
	r.step(ev)
}

// letGo ends the watching; processes that are to live on are not touched.
func (r *runner) letGo() {
	for _, name := range sortedKeys(r.kids) {
		k := r.kids[name]
		if k.proc != nil {
			k.proc.close()
		}
		if k.notify != nil {
			k.notify.Close()
		}
		k.log.Close()
		if r.over && (!r.policy.shutdown.keep || name[0] == '@') {
			r.remember(record{Service: name, Inc: r.incOf(name)})
			k.log.Remove()
			k.id.cgroup.remove()
			k.id.removeGroups(groupRest)
		}
	}
	if r.over && !r.policy.shutdown.keep {
		r.cgroups.close()
	}
}

func (r *runner) incOf(name string) p2pnode.Incarnation {
	if s := r.policy.svcs[name]; s != nil {
		return s.inc
	}
	return p2pnode.Incarnation{Epoch: r.state.epoch}
}

// watchLeash ends everything at once when the leash's other end closes.
func (r *runner) watchLeash(ctx context.Context) {
	if r.cfg.Leash == nil {
		return
	}
	r.wg.Go(func() {
		ended := make(chan struct{})
		go func() { // a blocking read; it ends with the process or the leash
			defer close(ended)
			b := make([]byte, 64)
			for {
				if _, err := r.cfg.Leash.Read(b); err != nil {
					return
				}
			}
		}()
		select {
		case <-ended:
			r.do(func() { r.shutDown(evShutdown{within: r.cfg.ShutdownTimeout, instant: true}) })
		case <-ctx.Done():
		}
	})
}

// claimFolder makes dir ours: its folders, and the lock that only one exec holds. It
// returns nil where ctx ended before that.
func claimFolder(ctx context.Context, cfg *Config, handed *handed) (*os.File, error) {
	closeOnExec()
	for _, d := range []string{cfg.Dir, runDir(cfg.Dir), stateDir(cfg.Dir), logDir(cfg.Dir)} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, &p2pnode.Error{
				Code: "data-folder", Text: "cannot use the data folder " + cfg.Dir + ": " + plain(err),
				Fix: "choose another with --data, or fix its owner",
			}
		}
	}
	if handed != nil {
		if ok, err := takeLock(handed.lock); !ok {
			return nil, fmt.Errorf("the lock that was handed over is not held: %w", errors.Join(err, os.ErrInvalid))
		}
		return handed.lock, nil
	}
	f, err := openLock(execLockPath(cfg.Dir))
	if err != nil {
		return nil, &p2pnode.Error{Code: "data-folder", Text: "cannot use the data folder " + cfg.Dir + ": " + plain(err), Fix: "choose another with --data, or fix its owner"}
	}
	ok, err := takeLock(f)
	for deadline := time.Now().Add(dyingFor); err == nil && !ok && dying(cfg.Dir) && time.Now().Before(deadline); {
		time.Sleep(2 * time.Millisecond)
		ok, err = takeLock(f)
	}
	if err == nil && !ok && supervised(*cfg) && !ofGuard() { // a guard only wants an exec, and there is one
		ok, err = takeOver(ctx, cfg, f)
	}
	switch {
	case ctx.Err() != nil:
		f.Close()
		return nil, nil
	case err != nil:
		f.Close()
		return nil, err
	case !ok:
		f.Close()
		_, pid := ExecAlive(cfg.Dir)
		return nil, &p2pnode.Error{
			Code: "already-running", Text: "another p2pnode (pid " + strconv.Itoa(pid) + ") works in " + cfg.Dir,
			Fix: "stop it with p2pnode shutdown, or choose another folder with --data",
		}
	}
	if err := f.Truncate(0); err == nil {
		f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	return f, nil
}

// dying reports whether the exec that holds the lock of dir has been killed and not
// let go yet: the last of its threads may end milliseconds after the first.
func dying(dir string) bool {
	_, pid := ExecAlive(dir)
	if pid == 0 {
		return false
	}
	st, err := readStat(pid)
	return err != nil || st.state == 'Z' || st.state == 'X'
}

// takeOver asks a living exec to leave without touching its children, and waits for
// its lock. One that refuses, because it took over itself a moment ago, or does not
// answer yet is asked again: an exec that gave up would be started by its init again
// and again, or be a failed unit over a living daemon.
func takeOver(ctx context.Context, cfg *Config, lock *os.File) (bool, error) {
	look := time.NewTicker(takeOverLook)
	defer look.Stop()
	var asked time.Time
	for {
		if time.Since(asked) >= takeOverAgain {
			err := askToLeave(ctx, cfg.Dir)
			if err != nil && asked.IsZero() {
				cfg.Log.Warn().Err(err).Msg("another p2pnode works here: waiting to take over")
			}
			asked = time.Now()
		}
		if ok, err := takeLock(lock); ok || err != nil {
			return ok, err
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return false, nil
		}
	}
}

// askToLeave asks the exec of dir once; nil where it leaves or has left.
func askToLeave(ctx context.Context, dir string) error {
	ctx, cancel := context.WithTimeout(ctx, takeOverAgain)
	defer cancel()
	c, err := Dial(ctx, dir, RoleCLI)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.takeOver(ctx); err != nil && p2pnode.ExitCode(err) != p2pnode.ExitUnreachable {
		return err
	}
	return nil
}

// closeOnExec keeps what this process inherited from its children: a service's
// lock in a grandchild would look like a copy of the service.
func closeOnExec() {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
}
