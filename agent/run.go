package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"p2pnode"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Agent runs the agents that are on this node: one goroutine owns the core, a
// second one writes records and reports in order, and each request to the world
// has a goroutine of its own with a deadline.
type Agent struct {
	cfg   Config
	core  *core // owned by Run
	m     *metrics
	inbox chan event
	out   chan effect // publish, report: in order
	work  sync.WaitGroup

	beliefs atomic.Pointer[Beliefs] // newest wins, never queued
	poke    chan struct{}
	replies sync.Map // reply token -> chan []byte
	token   atomic.Uint64
	done    chan struct{}

	view    atomic.Pointer[view]
	changed atomic.Pointer[chan struct{}]
}

// view is what people see, immutable.
type view struct {
	agents   []Info
	orders   []Order
	failures []Failure
}

// New checks cfg. Nothing runs before Run; inputs that come earlier wait.
func New(cfg Config) (*Agent, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	m, err := newMetrics(cfg.Metrics)
	if err != nil {
		return nil, err
	}
	a := &Agent{
		cfg: cfg, core: newCore(cfg, time.Now()), m: m, inbox: make(chan event, inboxSize),
		out: make(chan effect, outboxSize), poke: make(chan struct{}, 1), done: make(chan struct{}),
	}
	a.view.Store(&view{})
	a.changed.Store(new(make(chan struct{})))
	return a, nil
}

// Run works until ctx ends and returns when everything that it started has
// ended. Agents that are here then are lost; claims lapse, populations refill.
func (a *Agent) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer close(a.done)
	var writer sync.WaitGroup
	writer.Go(a.write)
	defer writer.Wait()
	defer close(a.out)
	defer a.work.Wait()
	defer stop()

	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var ev event
		select {
		case <-ctx.Done():
			return nil
		case ev = <-a.inbox:
		case <-a.poke:
			ev = evBeliefs{*a.beliefs.Load()}
		case <-timer.C:
			ev = evTick{}
		}
		now := time.Now()
		a.perform(ctx, a.core.Step(now, ev))
		timer.Reset(max(a.core.Next().Sub(now), time.Millisecond))
	}
}

// OnBeliefs takes the newest verdicts; older ones that were not looked at yet
// are skipped.
func (a *Agent) OnBeliefs(b Beliefs) {
	a.beliefs.Store(&b)
	select {
	case a.poke <- struct{}{}:
	default:
	}
}

// OnExecEvent takes an event of the own exec.
func (a *Agent) OnExecEvent(e p2pnode.ExecEvent) { a.enqueue(evExec{e}, "exec-event-dropped") }

// OnReport takes in what the store has taken in, whoever wrote it: how a story
// elsewhere ended must be told by somebody.
func (a *Agent) OnReport(r p2pnode.Report) { a.enqueue(evReport{r}, "report-dropped") }

// OnRecord takes a verified record of the agent's domains: stamp, claim, order.
func (a *Agent) OnRecord(r p2pnode.Record) { a.enqueue(evRecord{r}, "record-dropped") }

func (a *Agent) enqueue(ev event, dropped string) bool {
	select {
	case a.inbox <- ev:
		return true
	default:
		a.m.count(dropped)
		return false
	}
}

// HandleCall takes an agent that a neighbour hands over and answers with the ACK.
func (a *Agent) HandleCall(ctx context.Context, from peer.ID, req []byte) ([]byte, error) {
	t, err := decodeTraveller(time.Now(), req)
	if err != nil {
		r := refusedDamaged
		errors.As(err, &r)
		a.m.count("handoff-" + string(r))
		return encodeAck(r), nil
	}
	token, ack := a.token.Add(1), make(chan []byte, 1)
	a.replies.Store(token, ack)
	defer a.replies.Delete(token)
	if !a.enqueue(evArrive{t, from, token}, "handoff-dropped") {
		return encodeAck(refusedFull), nil
	}
	select {
	case b := <-ack:
		return b, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-a.done:
		return nil, errors.New("agent: shutting down")
	}
}

// Agents lists everybody's agents, as their last stamps tell.
func (a *Agent) Agents() []Info { return a.view.Load().agents }

// Orders lists the standing orders.
func (a *Agent) Orders() []Order { return a.view.Load().orders }

// Failures lists what is believed to have failed elsewhere, and who has it in hand.
func (a *Agent) Failures() []Failure { return a.view.Load().failures }

// Changed is closed when Agents, Orders or Failures change next.
func (a *Agent) Changed() <-chan struct{} { return *a.changed.Load() }

// Counters are refusals and drops by reason, and turns of agents.
func (a *Agent) Counters() map[string]uint64 { return a.m.snapshot() }

// Launch gives a standing order in this node's name. Whether this node may is
// for those to say who read the record: they take it from managers only.
func (a *Agent) Launch(slo time.Duration, confidence float64, labels map[string]string) (Order, error) {
	if len(a.Orders()) >= maxOrders {
		return Order{}, &p2pnode.Error{
			Code: "too-many-orders", Text: fmt.Sprintf("cannot launch agents: %d orders stand already", maxOrders),
			Fix: "end one first: p2pnode agents ls, then p2pnode agents recall ORDER", Exit: p2pnode.ExitFailed,
		}
	}
	now := time.Now().UTC()
	o := Order{
		ID:  fmt.Sprintf("o-%010x", hash(a.cfg.Self.String(), now.String())>>24),
		SLO: slo, Confidence: confidence, Labels: labels, By: a.cfg.Self, At: now,
	}
	return o, a.give(o)
}

// Recall ends the order with that ID, "" all orders. Its agents retire where
// they are; agents on a mission finish it first.
func (a *Agent) Recall(id string) error {
	found := false
	for _, o := range a.Orders() {
		if id != "" && o.ID != id {
			continue
		}
		found = true
		o = Order{ID: o.ID, By: a.cfg.Self, At: time.Now().UTC(), Recalled: true}
		if err := a.give(o); err != nil {
			return err
		}
	}
	if !found && id != "" {
		return &p2pnode.Error{Code: "unknown-order", Text: fmt.Sprintf("cannot recall %q: no such standing order", id), Fix: "see p2pnode agents ls", Exit: p2pnode.ExitFailed}
	}
	return nil
}

// TakeOver gives the standing orders in records of somebody who may give none any more
// in this node's name: they go on with their agents. What was recalled stays recalled;
// with recallsOnly nothing else is taken.
func (a *Agent) TakeOver(records []p2pnode.Record, recallsOnly bool) error {
	for _, r := range records {
		if r.Domain != p2pnode.DomainOrder {
			continue
		}
		o, err := decodeOrder(r.Body)
		if err != nil || recallsOnly && !o.Recalled {
			continue
		}
		o.By, o.At = a.cfg.Self, time.Now().UTC()
		if err := a.give(o); err != nil {
			return err
		}
	}
	return nil
}

// give publishes an order without an end: also a recall is for good.
func (a *Agent) give(o Order) error {
	o.Chain = a.cfg.Chain()
	body, err := EncodeOrder(o)
	if err != nil {
		return err
	}
	if err := a.cfg.Publish(p2pnode.DomainOrder, o.ID, body, 0); err != nil {
		return fmt.Errorf("cannot publish the standing order: %w", err)
	}
	if !a.enqueue(evOrder{o}, "order-dropped") {
		return errors.New("cannot take the standing order: this node is overloaded")
	}
	return nil
}

// perform does what the core asks for. It never waits.
func (a *Agent) perform(ctx context.Context, effects []effect) {
	changed := false
	for _, fx := range effects {
		switch e := fx.(type) {
		case fxHand:
			a.work.Go(func() { a.hand(ctx, e) })
		case fxKnock:
			a.work.Go(func() { a.knock(ctx, e) })
		case fxRecover:
			a.work.Go(func() { a.recover(ctx, e) })
		case fxStatus:
			a.work.Go(func() { a.status(ctx, e) })
		case fxReply:
			if ack, ok := a.replies.LoadAndDelete(e.reply); ok {
				ack.(chan []byte) <- e.ack
			}
		case fxCount:
			a.m.count(e.what)
		case fxChanged:
			changed = true
		default: // publish, report, history: in order, by the writer
			select {
			case a.out <- fx:
			default:
				a.m.count("outbox-full")
			}
		}
	}
	if changed {
		a.m.agents.Set(float64(len(a.core.held)))
		a.view.Store(&view{a.core.agentsNow(), a.core.ordersNow(), a.core.failuresNow()})
		close(*a.changed.Swap(new(make(chan struct{}))))
	}
}

// answer brings a result back. It waits for room: a lost answer would leave an
// agent waiting for it.
func (a *Agent) answer(ctx context.Context, ev event) {
	select {
	case a.inbox <- ev:
	case <-ctx.Done():
	}
}

func (a *Agent) hand(ctx context.Context, e fxHand) {
	call, cancel := context.WithTimeout(ctx, e.wait)
	defer cancel()
	ack, err := a.cfg.Carry.Call(call, e.to, e.req)
	if err == nil {
		err = decodeAck(ack)
	}
	a.answer(ctx, evHanded{e.agent, e.token, err})
}

func (a *Agent) knock(ctx context.Context, e fxKnock) {
	call, cancel := context.WithTimeout(ctx, knockTimeout)
	defer cancel()
	word, err := a.cfg.Doors.Status(call, e.target)
	a.answer(ctx, evDoor{e.agent, e.token, word, err})
}

func (a *Agent) recover(ctx context.Context, e fxRecover) {
	call, cancel := context.WithTimeout(ctx, recoverTimeout)
	defer cancel()
	var ans p2pnode.RecoverAnswer
	var err error
	if e.target == "" {
		ans, err = a.cfg.Exec.Recover(call, e.req)
	} else {
		ans, err = a.cfg.Doors.Recover(call, e.target, e.req)
	}
	a.answer(ctx, evRecovered{e.agent, e.incident, e.token, ans, err})
}

func (a *Agent) status(ctx context.Context, e fxStatus) {
	call, cancel := context.WithTimeout(ctx, knockTimeout)
	defer cancel()
	s, err := a.cfg.Exec.Status(call)
	a.answer(ctx, evStatus{e.agent, e.incident, e.token, s, err})
}

// write does the things that may wait for a disk or a lock, in order.
func (a *Agent) write() {
	for fx := range a.out {
		switch e := fx.(type) {
		case fxPublish:
			if err := a.cfg.Publish(e.domain, e.key, e.body, e.ttl); err != nil {
				a.m.count("publish-failed")
				a.cfg.Log.Warn().Err(err).Str("domain", string(e.domain)).Msg("cannot publish record")
			}
		case fxReport:
			if e.replayed && a.told(e.report) {
				a.m.count("report-known")
				continue
			}
			a.tell(e.report)
		case fxOrphan:
			if !a.cfg.Reported(e.report.Incident, e.report.Phase) && !a.cfg.Reported(e.report.Incident, p2pnode.PhaseVerified) {
				a.tell(e.report)
			}
		case fxHistory:
			a.cfg.History.Record(e.HistoryEvent)
		}
	}
}

func (a *Agent) tell(r p2pnode.Report) {
	a.m.reports.WithLabelValues(string(r.Phase)).Inc()
	a.cfg.Log.Info().Str("incident", r.Incident).Str("phase", string(r.Phase)).Str("node", r.NodeName).
		Str("service", r.Service).Str("class", string(r.Class)).Int("hops", r.Hops).Msg("agent reports")
	a.cfg.Report(r)
}

// told reports whether the store holds what a case that was learnt from replayed
// events would say again. A story that ended verified is not reopened by what the
// next life of this node process makes of its old events.
func (a *Agent) told(r p2pnode.Report) bool {
	return a.cfg.Reported(r.Incident, r.Phase) ||
		r.Phase == p2pnode.PhaseFailed && a.cfg.Reported(r.Incident, p2pnode.PhaseVerified)
}
