package agent

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"p2pnode"
)

// localCase is one failure on this host as its resident agent (or a patrol that
// found it) follows it. Nothing moves: hops is 0.
//
//	asking -> up -> settling -> verified | failed
//	   \-> waiting (exec has it in hand, or will not)
type localCase struct {
	service, old string
	incident     string
	agent        string
	class        p2pnode.Class
	detail       string // what exec says of it beyond the class
	step         caseStep
	wake         time.Time
	token        uint64
	try, errors  int
	held         p2pnode.Held
	told         map[p2pnode.Phase]p2pnode.Held
	replayed     bool
	knownAt      time.Time
	act          p2pnode.RecoverAnswer
	actedAt      time.Time
	upAt         time.Time
	deadline     time.Time
	timing       p2pnode.Timing
}

type caseStep int

const (
	caseWaiting  caseStep = iota // exec acts, or somebody must change its mind
	caseAsking                   // Recover is on its way
	caseRetry                    // asks again at wake
	caseSettling                 // restarted
	caseJudging                  // asked exec how it is now
	caseOrphan                   // an agent acted on this node process; does it report?
	caseOver
)

// caseKept is how long a case that is over is remembered against repetitions.
const caseKept = 5 * time.Minute

func (k *localCase) open() bool {
	return k.step == caseAsking || k.step == caseRetry || k.step == caseSettling || k.step == caseJudging
}

// onExecEvent is the hot path of a local crash: no disk, no network, one step
// from exec's word to the request.
func (c *core) onExecEvent(e p2pnode.ExecEvent) {
	switch e.Event {
	case p2pnode.FactFailed:
		c.onFailed(e)
	case p2pnode.FactActed:
		c.onActed(e)
	case p2pnode.FactUp:
		for _, k := range c.cases {
			if k.service == e.Service && k.act.New == e.New && k.upAt.IsZero() && k.step == caseSettling {
				k.upAt = c.now
				if !e.At.IsZero() && e.At.Before(c.now) {
					k.upAt = e.At // exec's clock is this host's; the event may be an old one
				}
				k.wake = c.now.Add(c.cfg.Settle)
			}
		}
	case p2pnode.FactState:
		if e.State == p2pnode.StateStopping || e.State == p2pnode.StateStopped {
			c.onStopped(e.Service)
		}
	}
}

// onStopped: people come first. What is stopped on purpose is no longer watched; a
// repair has held until then.
func (c *core) onStopped(service string) {
	for _, id := range slices.Sorted(maps.Keys(c.cases)) {
		k := c.cases[id]
		switch {
		case k.service != service || k.step == caseOver:
		case k.open() && !k.upAt.IsZero():
			c.caseVerified(k)
		default:
			k.end(c.now)
		}
	}
}

func (c *core) caseOf(service, old string) *localCase {
	name := service
	if service == p2pnode.SelfNode {
		name = ""
	}
	id := p2pnode.IncidentID(c.self.String(), name, old)
	if k, ok := c.cases[id]; ok {
		return k
	}
	if len(c.cases) >= maxCases {
		c.count("cases-full")
		return nil
	}
	k := &localCase{
		service: service, old: old, incident: id, agent: c.resident, step: caseWaiting,
		told: map[p2pnode.Phase]p2pnode.Held{}, knownAt: c.now, wake: c.now.Add(caseKept),
	}
	c.cases[id] = k
	return k
}

func (c *core) onFailed(e p2pnode.ExecEvent) {
	if e.Service == "" || e.Service[0] == '@' || e.Target == "" {
		return // exec looks after its own; peers look after a node process
	}
	for _, other := range c.cases {
		if other.service == e.Service && other.act.New == e.Target && other.open() {
			c.caseFailed(other, "it failed again: "+string(e.Class))
		}
	}
	k := c.caseOf(e.Service, e.Target)
	if k == nil || k.open() || k.step == caseOver {
		return
	}
	k.class, k.held, k.detail = e.Class, e.Held, e.Detail
	k.replayed = e.At.Before(c.started)
	k.act.DetectedAt, k.act.Exit, k.act.Excerpt = e.DetectedAt, e.Exit, e.Excerpt
	if k.act.DetectedAt.IsZero() {
		k.act.DetectedAt = e.At
	}
	switch e.Held {
	case "":
		c.askLocal(k)
	case p2pnode.HeldObserve, p2pnode.HeldOff:
		c.tell(k, p2pnode.PhaseObserved, "would have restarted "+k.service, "")
	default:
		c.tell(k, p2pnode.PhaseRefused, "", "held back: "+string(e.Held))
	}
}

// askLocal asks the own exec. The op names incident and try, so that an answer
// that was lost can be asked for again.
func (c *core) askLocal(k *localCase) {
	if k.service != p2pnode.SelfNode && c.cfg.Observe() {
		k.held = p2pnode.HeldObserve
		c.tell(k, p2pnode.PhaseObserved, "would have restarted "+k.service, "")
		return
	}
	k.step, k.token, k.wake = caseAsking, c.nextToken(), c.now.Add(time.Hour)
	c.stampDirty = true
	c.emit(fxRecover{incident: k.incident, token: k.token, req: p2pnode.RecoverRequest{
		Op: fmt.Sprintf("%s/0/%d", k.incident, k.try), Target: k.service, Expected: k.old, Agent: k.agent, Incident: k.incident,
	}})
}

func (c *core) onLocalAnswer(e evRecovered) {
	k, ok := c.cases[e.incident]
	if !ok || k.step != caseAsking || k.token != e.token {
		return
	}
	if e.err != nil {
		if k.errors++; k.errors > knockTries {
			k.wait(c.now) // exec heals alone after its grace, and says so
			return
		}
		k.step, k.wake = caseRetry, c.now.Add(knockRetry)
		return
	}
	switch a := e.answer; a.Outcome {
	case p2pnode.OutcomeDone, p2pnode.OutcomeAlreadyDone:
		c.localDone(k, a)
	case p2pnode.OutcomeBusy:
		if k.try++; k.try > actTries {
			k.wait(c.now)
			return
		}
		k.step, k.wake = caseRetry, c.now.Add(busyRetry)
	case p2pnode.OutcomeScheduled:
		k.wait(c.now) // exec starts it then and says so
	default:
		c.localRefused(k, a.Reason)
	}
}

func (c *core) localRefused(k *localCase, why p2pnode.Refusal) {
	k.wait(c.now)
	switch why {
	case p2pnode.RefusedHealthy, p2pnode.RefusedStale, p2pnode.RefusedStopped:
		k.end(c.now)
	case p2pnode.RefusedObserve, p2pnode.RefusedOff:
		k.held = p2pnode.Held(why)
		c.tell(k, p2pnode.PhaseObserved, "would have restarted "+k.service, "")
	case p2pnode.RefusedMaintenance, p2pnode.RefusedTraced:
		k.held = p2pnode.Held(why)
		c.tell(k, p2pnode.PhaseRefused, "", "exec refused: "+string(why))
	default:
		c.tell(k, p2pnode.PhaseRefused, "", "exec refused: "+string(why))
	}
}

// onActed hears of every restart on this host. What an agent did comes back as
// the answer to its request too: whichever is first is reported.
func (c *core) onActed(e p2pnode.ExecEvent) {
	if e.Target == "" || e.Service == p2pnode.SelfDoor {
		return
	}
	a := p2pnode.RecoverAnswer{
		Outcome: p2pnode.OutcomeDone, Old: e.Target, New: e.New, By: e.By, Class: e.Class, Exit: e.Exit, Excerpt: e.Excerpt,
		DetectedAt: e.DetectedAt, VerifiedAt: e.VerifiedAt, StartedAt: e.StartedAt,
	}
	if e.Service == p2pnode.SelfExec {
		e.Target = c.execFailure(e)
	}
	k := c.cases[p2pnode.IncidentID(c.self.String(), reportedAs(e.Service), e.Target)]
	if e.By.Kind == p2pnode.ByOperator && (e.Class == "" || plantNoEnd) && k == nil {
		return // somebody restarted it on purpose: no failure, no story
	}
	if k == nil {
		if k = c.caseOf(e.Service, e.Target); k == nil {
			return
		}
		k.class, k.replayed = e.Class, e.At.Before(c.started)
	}
	if k.class == "" {
		k.class = e.Class
	}
	if e.Service == p2pnode.SelfNode && e.By.Kind == p2pnode.ByAgent {
		c.adoptOrphan(k, a)
		return
	}
	c.localDone(k, a)
}

// execFailure names the failure of exec that e tells of. The first within one life of
// the node process has the name that neighbours give it too, the others a number.
func (c *core) execFailure(e p2pnode.ExecEvent) string {
	name := e.Target
	for n := 2; ; n++ {
		k := c.cases[p2pnode.IncidentID(c.self.String(), p2pnode.SelfExec, name)]
		if k == nil || !e.DetectedAt.After(k.act.DetectedAt) {
			return name
		}
		name = fmt.Sprintf("%s#%d", e.Target, n)
	}
}

func reportedAs(service string) string {
	if service == p2pnode.SelfNode {
		return ""
	}
	return service
}

// localDone notes a restart and reports it, whoever did it.
func (c *core) localDone(k *localCase, a p2pnode.RecoverAnswer) {
	if k.step == caseSettling || k.step == caseJudging || k.step == caseOver {
		return
	}
	if a.Exit == nil {
		a.Exit = k.act.Exit
	}
	if a.Excerpt == nil {
		a.Excerpt = k.act.Excerpt
	}
	if a.DetectedAt.IsZero() {
		a.DetectedAt = k.act.DetectedAt
	}
	if k.class == "" {
		k.class = a.Class
	}
	k.act, k.actedAt, k.held = a, c.now, ""
	k.timing.Act = ms(c.now.Sub(k.knownAt))
	if !a.DetectedAt.IsZero() {
		k.timing.Detect = ms(k.knownAt.Sub(a.DetectedAt))
		if !a.StartedAt.IsZero() {
			k.timing.Total = ms(a.StartedAt.Sub(a.DetectedAt))
		}
	}
	k.step, k.wake, k.deadline = caseSettling, c.now.Add(c.cfg.Settle), c.now.Add(upWait)
	action := "restarted " + k.service
	switch k.service {
	case p2pnode.SelfNode:
		k.upAt = c.now // we are the proof
		action = "restarted the node process"
	case p2pnode.SelfExec:
		k.upAt = c.now // it is what told us
		action = "restarted the exec service"
	}
	c.stampDirty = true
	c.tell(k, p2pnode.PhaseActed, action, "")
}

// adoptOrphan: a peer's agent restarted this very node process and is to report
// it. If its carrier was lost in between nobody would; so look once it should
// have, and tell the story from exec's own word.
func (c *core) adoptOrphan(k *localCase, a p2pnode.RecoverAnswer) {
	if k.step != caseWaiting || !k.actedAt.IsZero() {
		return
	}
	k.act, k.actedAt, k.upAt, k.agent = a, c.now, c.now, a.By.Agent
	k.step, k.wake = caseOrphan, c.now.Add(orphanSettle*c.cfg.Settle)
}

// observed is what was seen, in a phrase.
func (k *localCase) observed() string {
	if k.detail == "" {
		return string(k.class)
	}
	return string(k.class) + ": " + k.detail
}

func (k *localCase) wait(now time.Time) { k.step, k.wake = caseWaiting, now.Add(caseKept) }
func (k *localCase) end(now time.Time)  { k.step, k.wake = caseOver, now.Add(caseKept) }

func (c *core) dueCase(k *localCase) {
	if c.now.Before(k.wake) {
		return
	}
	switch k.step {
	case caseRetry:
		c.askLocal(k)
	case caseSettling:
		k.step, k.token, k.wake = caseJudging, c.nextToken(), c.now.Add(time.Hour)
		c.emit(fxStatus{incident: k.incident, token: k.token})
	case caseOrphan:
		for _, phase := range []p2pnode.Phase{p2pnode.PhaseActed, p2pnode.PhaseVerified} {
			c.emit(fxOrphan{c.localReport(k, phase, "restarted the node process", "")})
		}
		k.end(c.now)
	case caseAsking, caseJudging:
		k.wake = c.now.Add(time.Hour) // an answer always comes
	default:
		delete(c.cases, k.incident)
	}
}

// onStatus is exec's word on its host: for a case that has settled, for a patrol on
// its visit, or for stories that nobody has ended.
func (c *core) onStatus(e evStatus) {
	switch {
	case e.agent != "":
		c.onVisitStatus(e)
		return
	case e.incident == "":
		c.onOwnLook(e)
		return
	}
	k, ok := c.cases[e.incident]
	if !ok || k.step != caseJudging || k.token != e.token {
		return
	}
	if e.err != nil {
		k.step, k.wake = caseSettling, c.now.Add(knockRetry)
		if c.now.After(k.deadline) {
			c.caseFailed(k, "exec does not answer after the repair")
		}
		return
	}
	if k.service == p2pnode.SelfNode || k.service == p2pnode.SelfExec {
		c.caseVerified(k) // it answers
		return
	}
	for _, s := range e.status.Services {
		if s.Name == k.service {
			c.judgeLocal(k, s)
			return
		}
	}
	k.end(c.now) // no longer declared here
}

func (c *core) judgeLocal(k *localCase, s p2pnode.ServiceStatus) {
	same := k.act.New == "" || s.Incarnation == k.act.New
	switch {
	case same && s.State == p2pnode.StateUp:
		c.caseVerified(k)
	case s.State == p2pnode.StateStopped || s.State == p2pnode.StateStopping:
		k.end(c.now)
	case same && s.State != p2pnode.StateExited && c.now.Before(k.deadline):
		k.step, k.wake = caseSettling, c.now.Add(max(c.cfg.Settle/3, lifePoll))
	default:
		c.caseFailed(k, "it did not stay up: "+string(s.State))
	}
}

func (c *core) caseVerified(k *localCase) {
	up := k.upAt
	if up.IsZero() {
		up = k.actedAt
	} else if k.service != p2pnode.SelfNode && k.service != p2pnode.SelfExec && !k.act.DetectedAt.IsZero() {
		k.timing.Total = ms(up.Sub(k.act.DetectedAt)) // it was ready then; before, only its start was known
	}
	k.timing.Verify = ms(c.now.Sub(up))
	c.tell(k, p2pnode.PhaseVerified, "", "")
	k.end(c.now)
	c.stampDirty = true
}

func (c *core) caseFailed(k *localCase, why string) {
	c.tell(k, p2pnode.PhaseFailed, "", why)
	k.end(c.now)
	c.stampDirty = true
}

// tell reports a phase of a local case, each (phase, held) once.
func (c *core) tell(k *localCase, phase p2pnode.Phase, action, result string) {
	if held, said := k.told[phase]; said && held == k.held {
		return
	}
	k.told[phase] = k.held
	c.emit(fxReport{c.localReport(k, phase, action, result), k.replayed})
}

func (c *core) localReport(k *localCase, phase p2pnode.Phase, action, result string) p2pnode.Report {
	r := p2pnode.Report{
		At: c.now, Phase: phase, Agent: k.agent, Incident: k.incident, Kind: p2pnode.KindService,
		Node: c.self.String(), NodeName: c.cfg.Name, Service: reportedAs(k.service), Class: k.class,
		Observed: k.observed(), Action: action, Result: result, Held: k.held, Old: k.old,
		Exit: k.act.Exit, Trail: []string{c.self.String()}, Timing: k.timing, DetectedAt: k.act.DetectedAt,
	}
	if k.service == p2pnode.SelfNode || k.service == p2pnode.SelfExec {
		r.Kind = p2pnode.KindNode
	}
	if !k.actedAt.IsZero() {
		r.By, r.New, r.RecoveredAt = k.act.By, k.act.New, k.act.StartedAt
		if !k.upAt.IsZero() {
			r.RecoveredAt = k.upAt
		}
		if r.By.Kind != p2pnode.ByAgent {
			r.Agent = ""
		}
	}
	if phase != p2pnode.PhaseVerified {
		r.Excerpt = k.act.Excerpt
	} else {
		r.VerifiedAt = c.now
	}
	return r
}
