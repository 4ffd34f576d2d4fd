package exec

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"p2pnode"
)

// status is the host as `ps` and `status` show it. It runs on the loop.
func (r *runner) status() p2pnode.ExecStatus {
	st := p2pnode.ExecStatus{PID: os.Getpid(), Version: r.cfg.Version, Upgrade: r.upgrade, Supervised: r.supervised, Observe: r.policy.observe, Degraded: r.degraded.list(), NodeLife: r.policy.node.life, DoorRefused: r.doorRefused}
	if r.policy.node.nameless() {
		st.NodeLife = p2pnode.Life{}
	}
	for s := range r.policy.all {
		switch s.spec.Name {
		case p2pnode.SelfNode:
			st.Node = r.serviceStatus(s)
		case p2pnode.SelfDoor:
			st.Door = r.serviceStatus(s)
		default:
			st.Services = append(st.Services, r.serviceStatus(s))
		}
	}
	slices.SortFunc(st.Services, func(a, b p2pnode.ServiceStatus) int { return strings.Compare(a.Name, b.Name) })
	return st
}

func (r *runner) serviceStatus(s *svc) p2pnode.ServiceStatus {
	out := p2pnode.ServiceStatus{
		Node: r.cfg.NodeName, Name: s.spec.Name, State: s.state, PID: s.pid, Adopted: s.adopted, Restarts: s.restarts,
		Since: s.since, Labels: s.spec.Labels, Recover: s.spec.Recover, Observe: s.observe || r.policy.observe && !s.self(),
		MaintenanceUntil: s.maintEnds, LastExit: s.lastExit, Why: s.why, StatusText: s.says,
	}
	if s.stopped {
		out.StoppedAt, out.StoppedBy = s.intent.At, s.intent.By
		if s.state == p2pnode.StateStopped {
			out.Why = s.whyStopped()
		}
	}
	if s.state == p2pnode.StateStarting && s.phase == running && out.Why == "" {
		out.Why = s.whyUnready()
	}
	if s.inc.N > 0 {
		out.Incarnation = s.inc.String()
	}
	if s.phase != running && s.phase != stopping {
		out.PID, out.Adopted = 0, false
	}
	if f := s.failure; f != nil && heldWaits(f.held) && s.start == nil {
		out.NextTry = s.actAt()
		if !s.probeAt.IsZero() {
			out.NextTry = s.probeAt
		}
	}
	if s.spec.Asked() {
		out.Check = s.checkStatus()
	}
	if k := r.kids[s.spec.Name]; k != nil {
		out.LogDropped, out.LogLeftOut = k.log.Dropped(), k.log.LeftOut()
	}
	return out
}

// whyUnready is what a process that runs and is not up yet has to do for that.
func (s *svc) whyUnready() string {
	if s.spec.Ready == p2pnode.ReadyNotify {
		return "it has not said READY=1 yet"
	}
	c := s.health.of(p2pnode.CheckStart)
	if c == nil || c.everGood {
		c = s.health.decider()
	}
	if c == nil {
		return ""
	}
	return "its " + c.name() + " has not passed yet"
}

func (s *svc) whyStopped() string {
	switch {
	case s.intent.By != "":
		return "stopped by " + s.intent.By
	case s.spec.Manual:
		return "start: manual, nobody has started it"
	}
	return s.why
}

// checkStatus is the word of the worst check: of those that fail the last, whose failure
// has the hardest outcome, of those that have not passed yet the first.
func (s *svc) checkStatus() *p2pnode.CheckStatus {
	out, worst := &p2pnode.CheckStatus{State: "pending"}, 0
	for _, c := range s.health.checks {
		rank, one := 1, &p2pnode.CheckStatus{State: "passing"}
		switch {
		case c.failing > 0 || c.down:
			rank, one = 3, &p2pnode.CheckStatus{Which: c.which, State: "failing", LastError: c.lastErr}
		case !c.everGood:
			rank, one = 2, &p2pnode.CheckStatus{Which: c.which, State: "pending"}
		}
		if rank > worst || rank == 3 {
			out, worst = one, rank
		}
	}
	return out
}

// targets are the children that a target names: a service, "" or "all" for all
// services, or labels. It runs on the loop.
func (r *runner) targets(target string) ([]string, error) {
	if s := r.policy.svcs[target]; s != nil && !s.removed {
		return []string{target}, nil
	}
	var out []string
	want := map[string]string{}
	if target != "" && target != "all" {
		for pair := range strings.SplitSeq(target, ",") {
			k, v, ok := strings.Cut(pair, "=")
			if !ok {
				return nil, r.unknown(target)
			}
			want[k] = v
		}
	}
	for s := range r.policy.all {
		if s.self() || s.removed {
			continue
		}
		match := true
		for k, v := range want {
			got, ok := s.spec.Labels[k]
			match = match && ok && got == v
		}
		if match {
			out = append(out, s.spec.Name)
		}
	}
	if len(out) == 0 {
		return nil, r.unknown(target)
	}
	return out, nil
}

func (r *runner) unknown(target string) error {
	var names []string
	for s := range r.policy.all {
		if !s.self() {
			names = append(names, s.spec.Name)
		}
	}
	fix := "no services are declared here"
	if len(names) > 0 {
		fix = "declared here: " + strings.Join(names, ", ")
	}
	return &p2pnode.Error{Code: "unknown-service", Text: "no service " + quoted(target) + " on this host", Fix: fix, Exit: p2pnode.ExitUsage}
}

// waiter is a start, stop or restart whose caller wants to know the outcome.
type waiter struct {
	verb  string
	names []string
	from  map[string]uint64 // N before the order
	done  chan VerbResult   // buffered
}

// order carries out start, stop or restart for all targets.
func (ss *session) order(verb string, raw json.RawMessage) (any, error) {
	if err := ss.only(RoleCLI); err != nil {
		return nil, err
	}
	return ss.orderBy(verb, raw, ss.who())
}

func (ss *session) orderBy(verb string, raw json.RawMessage, who string) (any, error) {
	b, err := decode[verbBody](raw)
	if err != nil {
		return nil, err
	}
	r := ss.r
	if verb == verbRestart {
		if err := r.replaceable(ss.ctx, func() (specs []p2pnode.ServiceSpec) {
			if names, err := r.targets(b.Target); err == nil {
				specs = r.policy.together(time.Now(), names)
			}
			return specs
		}); err != nil {
			return nil, err
		}
	}
	w := &waiter{verb: verb, from: map[string]uint64{}, done: make(chan VerbResult, 1)}
	var missing error
	if err := r.ask(func() {
		if w.names, missing = r.targets(b.Target); missing != nil {
			return
		}
		for _, name := range w.names {
			w.from[name] = lastBefore(verb, r.policy.svcs[name])
			r.step(evOrder{verb: verb, name: name, force: b.Options.Force, by: who})
		}
		r.waiters = append(r.waiters, w)
		r.wakeWaiters()
	}); err != nil {
		return nil, err
	}
	if missing != nil {
		return nil, missing
	}
	// What a person wants is on disk before he is told that it was done: an exec
	// that is killed a moment later must not undo it.
	unsaved := r.saved()
	if unsaved != nil {
		r.cfg.Log.Warn().Err(unsaved).Str("verb", verb).Str("target", b.Target).Msg("order not written down")
	}
	timeout := b.Options.Timeout
	if timeout <= 0 {
		timeout = time.Minute
	}
	if b.Options.NoWait {
		timeout = 0
	}
	expired := false
	select {
	case res := <-w.done:
		return res.but(unsaved), nil
	case <-ss.ctx.Done():
	case <-r.gone:
	case <-time.After(timeout):
		expired = !b.Options.NoWait
	}
	var res VerbResult
	err = r.ask(func() {
		r.waiters = slices.DeleteFunc(r.waiters, func(x *waiter) bool { return x == w })
		res = r.outcome(w, b.Options.NoWait)
		if expired {
			r.late(w, timeout, &res)
		}
	})
	return res.but(unsaved), err
}

// but adds to each outcome why the order may not outlive this exec.
func (res VerbResult) but(unsaved error) VerbResult {
	if unsaved != nil {
		for i := range res.Services {
			res.Services[i].Text += "; " + unsaved.Error()
		}
	}
	return res
}

// wakeWaiters answers those whose services have settled.
func (r *runner) wakeWaiters() {
	now := time.Now()
	r.waiters = slices.DeleteFunc(r.waiters, func(w *waiter) bool {
		for _, name := range w.names {
			s := r.policy.svcs[name]
			if s == nil {
				continue
			}
			if !w.settled(s) {
				return false
			}
			if left := w.proves(now, s); left > 0 {
				if r.provenAt == nil {
					r.provenAt = time.After(left)
				}
				return false
			}
			if k := r.kids[name]; w.verb != verbStop && s.state == p2pnode.StateUp && k.proc != nil && k.proc.dead() {
				return false // the news of it is under way
			}
		}
		w.done <- r.outcome(w, false)
		return true
	})
}

// lastBefore is the last N that tells nothing of an order: what runs or is being
// started already is what a start asks for.
func lastBefore(verb string, s *svc) uint64 {
	switch {
	case verb == verbStart && s.phase == running:
		return 0
	case s.start != nil:
		return s.inc.N - 1
	}
	return s.inc.N
}

// settled reports whether waiting longer would tell nothing new.
func (w *waiter) settled(s *svc) bool {
	if w.verb == verbStop {
		return s.phase == idle && s.start == nil || s.state == p2pnode.StateUnkillable
	}
	switch s.state {
	case p2pnode.StateUp:
		return s.inc.N > w.from[s.spec.Name]
	case p2pnode.StateMissing, p2pnode.StateBlocked, p2pnode.StateUnkillable, p2pnode.StateCrashLooping:
		return true
	case p2pnode.StateBackoff, p2pnode.StateExited:
		return s.inc.N > w.from[s.spec.Name] // it ran and failed
	}
	return false
}

// proves is how much longer a service must live before it is said to be up where
// nothing but its being there says so: what cannot work mostly ends at once.
func (w *waiter) proves(now time.Time, s *svc) time.Duration {
	if w.verb == verbStop || s.state != p2pnode.StateUp || s.spec.Ready != p2pnode.ReadyStarted || s.self() || s.adopted {
		return 0
	}
	return s.startedAt.Add(firstLife).Sub(now)
}

// late says of those services whose outcome is still to come that nobody waited for it.
func (r *runner) late(w *waiter, waited time.Duration, res *VerbResult) {
	want := "up"
	if w.verb == verbStop {
		want = "stopped"
	}
	for i := range res.Services {
		one := &res.Services[i]
		if s := r.policy.svcs[one.Name]; s != nil && !one.OK && !w.settled(s) {
			one.TimedOut, one.Text = true, fmt.Sprintf("not %s within %v: %s", want, waited, one.Text)
		}
	}
}

func (r *runner) outcome(w *waiter, begun bool) VerbResult {
	res := VerbResult{OK: true}
	for _, name := range w.names {
		one := ServiceResult{Name: name, State: p2pnode.StateStopped, OK: w.verb == verbStop, Text: "gone"}
		if s := r.policy.svcs[name]; s != nil {
			st := r.serviceStatus(s)
			one = ServiceResult{Name: name, State: s.state, PID: st.PID, Incarnation: st.Incarnation, Text: s.why}
			one.OK = begun || w.verb == verbStop && s.phase == idle || w.verb != verbStop && (s.state == p2pnode.StateUp || s.done())
			if one.Text == "" {
				one.Text = string(s.state)
				if s.state == p2pnode.StateStarting && st.Why != "" {
					one.Text += ": " + st.Why
				}
			}
		}
		res.OK = res.OK && one.OK
		res.Services = append(res.Services, one)
	}
	return res
}
