package exec

import (
	"math/rand/v2"
	"time"

	"p2pnode"
)

// policy decides what becomes of every child of this host. It is a pure machine:
// step takes the time and one event and returns what is to be done; next says
// when it wants a tick. No clock, goroutine, file or process is touched here.
//
//	            start                  started                  READY / check
//	idle ---------------> starting ---------------> running ------------------> ready
//	  ^                      |  cannot run             |   ended, frozen, hung
//	  |                      v                         v
//	  +---- stopped    missing, blocked            failure: held, backoff, or
//	        (person)   looked at again             grace for an agent, then start
//
// A failure waits for the first of: an agent's Recover, the end of the grace, a
// change of the world. All three meet in decide.
type policy struct {
	rand     *rand.Rand
	grace    p2pnode.Grace
	observe  bool // the whole host
	shutdown shutdown
	booted   bool     // adoption is through: what is not there is not there
	parting  bool     // something is leaving
	waits    bool     // something is waiting
	order    []string // declaration order; @node and @door first
	svcs     map[string]*svc
	requires map[string][]*svc              // by the name of what they require; nil: to be made anew
	epoch    uint64                         // of all incarnations
	storm    []time.Time                    // starts of what keeps failing, within stormWindow
	past     map[string]p2pnode.Incarnation // newest one of every service that is not declared now
	node     nodeLink
	ops      opMemoryRing
	out      []effect
}

// nodeLink is what exec knows of the node process beyond its pid.
type nodeLink struct {
	connected bool // said hello in this life and its connection is up
	life      p2pnode.Life
	previous  p2pnode.Life
	links     int
	orders    int
}

// nameless reports whether the life that exec knows is of a process that ended.
func (n *nodeLink) nameless() bool { return n.life.IsZero() || n.life == n.previous }

type phase int

const (
	idle phase = iota
	starting
	running
	stopping
)

// svc is one child: a service, @node or @door.
type svc struct {
	spec  p2pnode.ServiceSpec
	phase phase
	state p2pnode.ServiceState
	why   string
	since time.Time

	inc       p2pnode.Incarnation // newest one allocated; of a dead service the one that died
	pid       int
	adopted   bool
	stopped   bool      // desired state: a person wants it down
	intent    intent    // who said so
	removed   bool      // no longer declared: forgotten once it has ended
	waiting   bool      // for a service named in After
	needed    bool      // and for no other than those in Requires
	again     bool      // start once the stop is through (restart)
	leaving   bool      // stops once what requires it has ended
	renewed   string    // again, with this one that it requires
	renewAt   time.Time // its budget is used up: renewed then
	stopLate  bool      // stop as soon as the start in flight is through
	lived     bool      // this exec knows of a life of it: the next one is a restart
	restarts  int
	lastExit  *p2pnode.Exit
	lastBy    p2pnode.By
	says      string // of itself, in this life
	startSaid string // why the last start did not lead to a process
	maintEnds time.Time
	observe   bool

	startedAt time.Time
	readyAt   time.Time // zero: not ready
	stopKill  time.Time // SIGKILL a stopping process then
	giveUp    time.Time // a killed process should be gone by then

	failures []time.Time // within loopWindow
	starts   []time.Time // within budgetWindow
	delays   int         // backoffs handed out since the last good life
	looping  bool

	failure *failure
	start   *startRequest // in flight
	probeAt time.Time     // missing, blocked, unkillable, traced: look again; decide waits for it
	worldAt time.Time     // it keeps failing: has its program changed?
	health  health
}

// failure is a thing that is down and should not be.
type failure struct {
	class    p2pnode.Class
	exit     *p2pnode.Exit
	why      string // of a process that is there and does not work
	at       time.Time
	due      time.Time // policy's earliest start
	graceEnd time.Time
	held     p2pnode.Held
	said     bool // an event was emitted with held as it is
	claimed  *p2pnode.By
	op       string
	live     bool // the process is there (frozen, hung) and must be killed first
	traced   bool
}

// startRequest is a start that is being carried out.
type startRequest struct {
	old     p2pnode.Incarnation
	target  string // how events name the old life
	by      p2pnode.By
	op      string
	failure *failure // nil: a first or an ordered start
	answers []uint64 // Recover calls that wait for it
}

func newPolicy(seed uint64, grace p2pnode.Grace, observe bool) *policy {
	return &policy{
		rand: rand.New(rand.NewPCG(seed, 1)), grace: grace, observe: observe,
		svcs: map[string]*svc{}, past: map[string]p2pnode.Incarnation{}, ops: newOpMemory(opMemory),
	}
}

// add declares a service; it is not started by this.
func (p *policy) add(now time.Time, spec p2pnode.ServiceSpec) *svc {
	s := &svc{spec: normalised(spec), state: p2pnode.StateStopped, since: now}
	s.stopped = spec.Manual
	s.inc = p.past[spec.Name]
	s.inc.Epoch = p.epoch
	p.svcs[spec.Name] = s
	p.order = append(p.order, spec.Name)
	p.requires = nil
	return s
}

// normalised fills what a bare spec leaves open. What is required comes first, too.
func normalised(s p2pnode.ServiceSpec) p2pnode.ServiceSpec {
	s.After = s.Order()
	if s.Restart == "" {
		s.Restart = p2pnode.RestartAlways
	}
	if s.Recover == "" {
		s.Recover = p2pnode.RecoverAgent
	}
	if s.Ready == "" || s.Ready == p2pnode.ReadyCheck {
		s.Ready = p2pnode.ReadyStarted
		if s.Asked() {
			s.Ready = p2pnode.ReadyCheck
		}
	}
	if s.StopTimeout <= 0 {
		s.StopTimeout = p2pnode.DefaultStopTimeout
	}
	if s.StartWithin <= 0 {
		s.StartWithin = p2pnode.DefaultStartWithin
	}
	s.OwnChecks()
	for which, c := range s.EachCheck {
		if c.Every <= 0 {
			c.Every = p2pnode.DefaultCheckEvery
		}
		if c.Timeout <= 0 {
			c.Timeout = p2pnode.DefaultCheckEvery
		}
		if c.Newer <= 0 && c.File != "" {
			c.Newer = p2pnode.DefaultNewer
		}
		if c.Failures <= 0 {
			c.Failures = p2pnode.DefaultFailures
		}
		c.Good = max(c.Good, 1)
		if which != "" {
			c.Unready = which == p2pnode.CheckReady
		}
	}
	return s
}

// step takes one event and returns what is to be done about it, in order.
func (p *policy) step(now time.Time, ev event) []effect {
	p.out = nil
	switch ev := ev.(type) {
	case evBoot:
		p.boot(now, ev)
	case evStarted:
		p.started(now, ev)
	case evStartFailed:
		p.startFailed(now, ev)
	case evEnded:
		p.ended(now, ev)
	case evFrozen:
		p.frozen(now, ev)
	case evMain:
		if s := p.svcs[ev.name]; s != nil {
			s.pid = ev.pid
		}
	case evThawed:
		p.thawed(now, ev)
	case evChecked:
		p.checked(now, ev)
	case evNotified:
		p.notified(now, ev)
	case evLooked:
		p.looked(now, ev)
	case evWorld:
		p.worldChanged(now, ev)
	case evRecover:
		p.recover(now, ev)
	case evOrder:
		p.ordered(now, ev)
	case evMaintenance:
		p.maintenance(now, ev)
	case evObserve:
		p.observed(now, ev)
	case evNode:
		p.nodeSaid(now, ev)
	case evReload:
		p.reload(now, ev)
	case evShutdown:
		p.beginShutdown(now, ev)
	case evTick:
		p.tick(now, ev.late)
	}
	p.advance(now)
	p.advanceShutdown(now)
	return p.out
}

func (p *policy) emit(e effect) { p.out = append(p.out, e) }

// all yields services in declaration order, so that a run can be repeated.
func (p *policy) all(yield func(*svc) bool) {
	for _, name := range p.order { // in place it only grows: whoever yields may add and remove
		if s := p.svcs[name]; s != nil && !yield(s) {
			return
		}
	}
}

// set is the one way in which a state changes; it tells the node process.
func (p *policy) set(now time.Time, s *svc, state p2pnode.ServiceState, why string) {
	if s.state == state && s.why == why {
		return
	}
	changed := s.state != state
	s.state, s.why = state, why
	if !changed {
		return
	}
	s.since = now
	ev := p2pnode.ExecEvent{At: now, Event: p2pnode.FactState, Service: s.spec.Name, Target: p.target(s), PID: s.pid, State: state, Detail: why}
	if state == p2pnode.StateUp {
		ev.Event, ev.New = p2pnode.FactUp, s.inc.String()
	}
	p.emit(effEvent{ev})
}

// target is how the outside names the life that s has or had last.
func (p *policy) target(s *svc) string {
	if s.spec.Name == p2pnode.SelfNode {
		return p.node.life.String()
	}
	return s.inc.String()
}

// next is when the machine wants to be ticked; zero means never.
func (p *policy) next() time.Time {
	var at time.Time
	consider := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	for s := range p.all {
		s.deadlines(consider)
		if !p.shutdown.on && !s.stopped && !s.removed {
			for _, t := range s.failureDeadlines() {
				consider(t)
			}
		}
	}
	consider(p.shutdown.deadline)
	consider(p.shutdown.final)
	return at
}

// deadlines gives all moments at which time alone changes something for s, some of
// them zero. It allocates nothing: it is asked of every service with every event.
func (s *svc) deadlines(give func(time.Time)) {
	for _, t := range [...]time.Time{s.stopKill, s.giveUp, s.probeAt, s.worldAt, s.maintEnds, s.renewAt} {
		give(t)
	}
	if s.phase != running {
		return
	}
	s.health.deadlines(give)
	if !s.readyAt.IsZero() && s.failure == nil && s.dirty() {
		give(s.readyAt.Add(clearAfter))
	}
}

// failureDeadlines are the moments of decide. A start that failed for want of
// something has none: probeAt looks after it.
func (s *svc) failureDeadlines() []time.Time {
	f := s.failure
	if f == nil || !heldWaits(f.held) || s.start != nil || s.phase == stopping || !s.probeAt.IsZero() {
		return nil
	}
	if f.held != "" {
		return []time.Time{s.actAt(), f.due} // at due agents are told again
	}
	return []time.Time{s.actAt()}
}

// dirty says that a good life has something to clear.
func (s *svc) dirty() bool { return s.delays > 0 || s.looping || len(s.failures) > 0 }

func (p *policy) tick(now time.Time, late time.Duration) {
	p.watchdogs(now, late)
	for s := range p.all {
		if due(now, s.renewAt) {
			s.renewAt = time.Time{} // advance looks whether it still holds
		}
		if due(now, s.maintEnds) {
			s.maintEnds = time.Time{}
			p.emit(effPersist{})
		}
		if due(now, s.stopKill) {
			s.stopKill, s.giveUp = time.Time{}, now.Add(p.dies(s))
			p.emit(effKill{name: s.spec.Name, inc: s.inc, class: "stop timeout"})
		}
		if due(now, s.giveUp) {
			s.giveUp = time.Time{}
			p.set(now, s, p2pnode.StateUnkillable, "it does not die of SIGKILL: the kernel holds it")
		}
		if due(now, s.probeAt) {
			p.probe(now, s)
		}
		if due(now, s.worldAt) {
			p.lookAtWorld(now, s)
		}
		if s.phase == running {
			p.tickHealth(now, s, late)
			if !s.readyAt.IsZero() && s.failure == nil && due(now, s.readyAt.Add(clearAfter)) {
				s.delays, s.looping, s.failures = 0, false, nil
			}
		}
		p.decide(now, s)
	}
	p.gather(now)
}

// dies is how long s, killed, may take to be gone before the kernel is said to
// hold it.
func (p *policy) dies(s *svc) time.Duration {
	if p.shutdown.stops(s) {
		return heldFor
	}
	return killPatience
}

func due(now, at time.Time) bool { return !at.IsZero() && !now.Before(at) }
