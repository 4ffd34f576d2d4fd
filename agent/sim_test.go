package agent

import (
	"cmp"
	"container/heap"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"p2pnode"

	"github.com/libp2p/go-libp2p/core/peer"
)

// The fleet is a set of cores in one seeded event queue: no goroutine, no clock.
// Everything that a core asks of the world goes through do, which draws delays,
// losses and duplicates from the seed.

func testID(i int) peer.ID {
	seed := make([]byte, ed25519.SeedSize)
	seed[0], seed[1] = byte(i), byte(i>>8)
	return p2pnode.PeerID(ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey))
}

type queued struct {
	at  time.Time
	seq int
	run func()
}

type queue []queued

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || q[i].at.Equal(q[j].at) && q[i].seq < q[j].seq
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(queued)) }
func (q *queue) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}

type simNode struct {
	id       peer.ID
	core     *core // nil: its node process is dead
	life     p2pnode.Life
	starting bool
	ops      map[string]p2pnode.RecoverAnswer
	restarts map[string]int // by life that ended: exec's compare-and-set
	madeBy   p2pnode.By     // the newest of them
	tick     time.Time
	ring     []p2pnode.ExecEvent // exec's, replayed to each life
}

type fleet struct {
	t         *testing.T
	rng       *rand.Rand
	now       time.Time
	q         queue
	seq       int
	nodes     map[peer.ID]*simNode
	ids       []peer.ID
	edges     map[peer.ID][]peer.ID
	dead      map[peer.ID]p2pnode.Life    // what everybody comes to believe
	forgotten map[peer.ID]bool            // who is not expected back
	called    map[peer.ID]p2pnode.Verdict // verdicts on nodes that are not simply dead or alive
	word      func(t *simNode) DoorWord   // nil: doors tell the truth
	reports   []p2pnode.Report
	hops      []p2pnode.HistoryEvent
	records   map[string]p2pnode.Record // newest orders and stamps, for newcomers
	brake     p2pnode.BrakeState
	labels    func(peer.ID) map[string]string
	loss      float64
	dup       float64
	answer    func(p2pnode.RecoverRequest) (p2pnode.RecoverAnswer, error) // nil: execs do their work
	asked     int                                                         // Recover requests that reached an exec
	killOn    func(f *fleet, n *simNode, fx effect) bool                  // carrier dies at this step
	// killAfter kills the carrier when the step is done.
	killAfter func(f *fleet, n *simNode, fx effect) bool
	lossOf    map[p2pnode.Domain]float64 // of records, beside loss
	settle    time.Duration
	counts    map[string]int          // refusals and turns on all nodes, where it is made
	visited   func(n *simNode)        // a patrol has come to n
	services  []p2pnode.ServiceStatus // of every host, as its exec tells
}

func newFleet(t *testing.T, seed uint64, n, degree int) *fleet {
	f := &fleet{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)), now: time.Unix(1_700_000_000, 0), nodes: map[peer.ID]*simNode{},
		edges: map[peer.ID][]peer.ID{}, dead: map[peer.ID]p2pnode.Life{}, called: map[peer.ID]p2pnode.Verdict{}, records: map[string]p2pnode.Record{}, settle: 500 * time.Millisecond,
	}
	for i := range n {
		f.ids = append(f.ids, testID(i))
	}
	for i := range n {
		f.link(i, (i+1)%n) // a ring keeps it in one piece
		for range degree - 2 {
			f.link(i, f.rng.IntN(n))
		}
	}
	for _, id := range f.ids {
		f.nodes[id] = &simNode{id: id, ops: map[string]p2pnode.RecoverAnswer{}, restarts: map[string]int{}}
	}
	for _, id := range f.ids {
		f.boot(f.nodes[id])
	}
	return f
}

func (f *fleet) link(i, j int) {
	a, b := f.ids[i], f.ids[j]
	if i == j || slices.Contains(f.edges[a], b) {
		return
	}
	f.edges[a], f.edges[b] = append(f.edges[a], b), append(f.edges[b], a)
}

// simLinks is the routing table of one node: breadth first over living nodes.
type simLinks struct {
	f    *fleet
	self peer.ID
}

func (l simLinks) up(id peer.ID) bool { return l.f.nodes[id].core != nil || id == l.self }
func (l simLinks) Neighbours() []peer.ID {
	return slices.DeleteFunc(slices.Clone(l.f.edges[l.self]), func(p peer.ID) bool { return !l.up(p) })
}
func (l simLinks) NeighboursOf(id peer.ID) []peer.ID { return l.f.edges[id] }
func (l simLinks) RTT(peer.ID) time.Duration         { return 2 * time.Millisecond }
func (l simLinks) Forgotten(p peer.ID) bool          { return l.f.forgotten[p] }
func (l simLinks) Members() []peer.ID                { return l.f.ids }
func (l simLinks) Cost(from, to peer.ID) (int, bool) {
	d := l.f.distances(to)
	n, ok := d[from]
	return n, ok
}

func (l simLinks) Next(dst peer.ID) (next, second peer.ID, ok bool) {
	d := l.f.distances(dst)
	var list []peer.ID
	for _, n := range l.Neighbours() {
		if _, ok := d[n]; ok {
			list = append(list, n)
		}
	}
	slices.SortFunc(list, func(a, b peer.ID) int { return cmp.Or(cmp.Compare(d[a], d[b]), cmp.Compare(a, b)) })
	switch len(list) {
	case 0:
		return "", "", false
	case 1:
		return list[0], "", true
	}
	return list[0], list[1], true
}

func (f *fleet) distances(to peer.ID) map[peer.ID]int {
	d := map[peer.ID]int{}
	if f.nodes[to].core == nil {
		return d
	}
	d[to] = 0
	for todo := []peer.ID{to}; len(todo) > 0; todo = todo[1:] {
		for _, n := range f.edges[todo[0]] {
			if _, seen := d[n]; !seen && f.nodes[n].core != nil {
				d[n] = d[todo[0]] + 1
				todo = append(todo, n)
			}
		}
	}
	return d
}

func (f *fleet) at(d time.Duration, run func()) {
	f.seq++
	heap.Push(&f.q, queued{f.now.Add(d), f.seq, run})
}

func (f *fleet) lag() time.Duration { return time.Duration(200+f.rng.IntN(4000)) * time.Microsecond }

// boot starts a new life of a node process: a core that knows nothing.
func (f *fleet) boot(n *simNode) {
	n.life = p2pnode.Life{Boot: n.life.Boot + 1, Nonce: f.rng.Uint64() | 1}
	cfg := Config{
		Self: n.id, Name: p2pnode.ShortID(n.id), Links: simLinks{f, n.id}, Settle: f.settle, LifeWait: 3 * time.Second,
		Carry: noCarry{}, Exec: noExec{}, Doors: noDoors{}, Rand: rand.NewPCG(f.rng.Uint64(), 2),
		Labels:  f.labelsOf,
		Publish: func(p2pnode.Domain, string, []byte, time.Duration) error { return nil }, Report: func(p2pnode.Report) {},
	}
	if err := cfg.validate(); err != nil {
		f.t.Fatal(err)
	}
	n.core, n.starting = newCore(cfg, f.now), false
	delete(f.dead, n.id)
	for _, k := range slices.Sorted(maps2keys(f.records)) {
		f.step(n, evRecord{f.records[k]})
	}
	for _, ev := range n.ring {
		f.step(n, evExec{ev})
	}
	f.believe()
}

// kill ends the node process of n; everybody else learns it soon.
func (f *fleet) kill(n *simNode) {
	if n.core == nil {
		return
	}
	n.core = nil
	f.dead[n.id] = n.life
	f.at(time.Duration(1+f.rng.IntN(20))*time.Millisecond, f.believe)
}

// believe lets every living node hear the truth, each a bit later.
func (f *fleet) believe() {
	b := Beliefs{Peers: map[peer.ID]Belief{}}
	for _, id := range f.ids {
		n := f.nodes[id]
		if life, dead := f.dead[id]; dead {
			b.Peers[id] = Belief{Verdict: p2pnode.ProcessDead, Life: life, Since: f.now}
		} else {
			b.Peers[id] = Belief{Verdict: p2pnode.Alive, Life: n.life, Since: f.now}
		}
		if v, ok := f.called[id]; ok {
			b.Peers[id] = Belief{Verdict: v, Life: n.life, Since: f.now}
		}
	}
	b.Brake = f.brake
	for _, id := range f.ids {
		f.send(id, f.lag(), evBeliefs{b})
	}
}

// send delivers an event to whatever life of the node is there then.
func (f *fleet) send(to peer.ID, after time.Duration, ev event) {
	life := f.nodes[to].life
	f.at(after, func() {
		if n := f.nodes[to]; n.core != nil && n.life == life {
			f.step(n, ev)
		}
	})
}

func (f *fleet) step(n *simNode, ev event) {
	c := n.core
	for _, fx := range c.Step(f.now, ev) {
		if n.core != c {
			return // died in the middle of its effects
		}
		f.do(n, fx)
	}
	if n.core != c {
		return
	}
	next := c.Next()
	if next.Before(f.now) || next.Equal(f.now) {
		next = f.now.Add(time.Millisecond)
	}
	if !n.tick.IsZero() && n.tick.After(f.now) && !next.Before(n.tick) {
		return
	}
	n.tick = next
	life := n.life
	f.at(next.Sub(f.now), func() {
		if n.core != nil && n.life == life && n.tick.Equal(f.now) {
			n.tick = time.Time{}
			f.step(n, evTick{})
		}
	})
}

var errLost = errors.New("lost")

func (f *fleet) do(n *simNode, fx effect) {
	if f.killOn != nil && f.killOn(f, n, fx) {
		f.kill(n)
		return
	}
	if f.killAfter != nil && f.killAfter(f, n, fx) {
		defer f.kill(n)
	}
	switch e := fx.(type) {
	case fxHand:
		f.hand(n, e)
	case fxPublish:
		f.flood(n, e)
	case fxReport:
		f.store(e.report)
	case fxOrphan:
		known := slices.ContainsFunc(f.reports, func(r p2pnode.Report) bool {
			return r.Incident == e.report.Incident && (r.Phase == e.report.Phase || r.Phase == p2pnode.PhaseVerified)
		})
		if !known {
			f.store(e.report)
		}
	case fxKnock:
		t := f.nodes[e.target]
		f.at(f.lag(), func() {
			word := DoorWord{ExecAlive: true, NodeAlive: t.core != nil, NodeLife: t.life}
			if t.starting {
				word.NodeAlive, word.NodeState = false, string(p2pnode.StateStarting)
			}
			if f.word != nil {
				word = f.word(t)
			}
			f.send(n.id, f.lag(), evDoor{e.agent, e.token, word, nil})
		})
	case fxRecover:
		f.at(f.lag(), func() {
			f.asked++
			var ans p2pnode.RecoverAnswer
			var err error
			if f.answer != nil {
				ans, err = f.answer(e.req)
			} else {
				ans = f.exec(f.nodes[e.target], n.id, e.req)
			}
			if f.rng.Float64() < f.loss {
				err = errLost // the answer, not the act
			}
			f.send(n.id, f.lag(), evRecovered{e.agent, e.incident, e.token, ans, err})
		})
	case fxStatus:
		if e.agent != "" && f.visited != nil {
			f.visited(n)
		}
		f.send(n.id, f.lag(), evStatus{agent: e.agent, incident: e.incident, token: e.token, status: p2pnode.ExecStatus{Services: f.services}})
	case fxCount:
		if f.counts != nil {
			f.counts[e.what]++
		}
	case fxHistory:
		e.Node = p2pnode.ShortID(n.id)
		f.hops = append(f.hops, e.HistoryEvent)
	}
}

// store keeps a report and tells everybody, as stores do.
func (f *fleet) store(r p2pnode.Report) {
	f.reports = append(f.reports, r)
	for _, id := range f.ids {
		f.send(id, 3*f.lag(), evReport{r})
	}
}

// exec is a host's exec: it compares the life that it is asked about with the
// one that died, and answers one op once.
func (f *fleet) exec(t *simNode, caller peer.ID, req p2pnode.RecoverRequest) p2pnode.RecoverAnswer {
	if ans, ok := t.ops[req.Op]; ok {
		return ans
	}
	ans := p2pnode.RecoverAnswer{Old: req.Expected, By: p2pnode.By{Kind: p2pnode.ByAgent, Agent: req.Agent, Node: caller.String()}}
	switch {
	case t.restarts[req.Expected] > 0:
		ans.Outcome, ans.By = p2pnode.OutcomeAlreadyDone, t.madeBy
	case req.Expected != t.life.String():
		ans.Outcome, ans.Reason = p2pnode.OutcomeRefused, p2pnode.RefusedStale
	case t.core != nil:
		ans.Outcome, ans.Reason = p2pnode.OutcomeRefused, p2pnode.RefusedHealthy
	default:
		ans.Outcome = p2pnode.OutcomeDone
		t.restarts[req.Expected]++
		t.madeBy = ans.By
		t.starting = true
		ev := p2pnode.ExecEvent{Event: p2pnode.FactActed, At: f.now.Add(time.Hour), Service: p2pnode.SelfNode, Target: req.Expected, By: ans.By, Class: p2pnode.ClassProcessDead}
		t.ring = append(t.ring, ev)
		f.at(30*time.Millisecond, func() { f.boot(t) })
	}
	t.ops[req.Op] = ans
	return ans
}

// hand carries a traveller: it may be lost, or taken while its ACK is lost, or
// come twice.
func (f *fleet) hand(n *simNode, e fxHand) {
	fail := func() { f.send(n.id, e.wait, evHanded{e.agent, e.token, errLost}) }
	p := f.rng.Float64()
	if p < f.loss/2 || !slices.Contains(f.edges[n.id], e.to) {
		fail()
		return
	}
	deliver := func(after time.Duration, ack bool) {
		f.at(after, func() {
			to := f.nodes[e.to]
			t, err := decodeTraveller(f.now, e.req)
			if err != nil {
				f.t.Fatalf("own traveller refused: %v", err)
			}
			if to.core == nil {
				if ack {
					f.send(n.id, f.lag(), evHanded{e.agent, e.token, errLost})
				}
				return
			}
			if ack {
				f.send(n.id, f.lag(), evHanded{e.agent, e.token, nil})
			}
			f.step(to, evArrive{t, n.id, 0})
		})
	}
	if p < f.loss {
		deliver(f.lag(), false)
		fail()
		return
	}
	deliver(f.lag(), true)
	if f.rng.Float64() < f.dup {
		deliver(f.lag(), false)
	}
}

func (f *fleet) flood(n *simNode, e fxPublish) {
	f.seq++
	r := p2pnode.Record{Domain: e.domain, Signer: n.id, Key: e.key, Seq: uint64(f.seq), Body: e.body}
	if e.domain != p2pnode.DomainClaim {
		f.records[fmt.Sprint(e.domain, "/", string(n.id), "/", e.key)] = r
	}
	for _, id := range f.ids {
		if id == n.id || f.rng.Float64() < f.loss/5 || f.rng.Float64() < f.lossOf[e.domain] {
			continue
		}
		f.send(id, f.lag()*2, evRecord{r})
		if f.rng.Float64() < f.dup {
			f.send(id, f.lag()*20, evRecord{r})
		}
	}
}

func (f *fleet) run(d time.Duration) {
	end := f.now.Add(d)
	for len(f.q) > 0 && !f.q[0].at.After(end) {
		x := heap.Pop(&f.q).(queued)
		f.now = x.at
		x.run()
	}
	f.now = end
}

// until runs until ok or d has passed.
func (f *fleet) until(d time.Duration, ok func() bool) bool {
	for end := f.now.Add(d); f.now.Before(end); {
		if ok() {
			return true
		}
		f.run(20 * time.Millisecond)
	}
	return ok()
}

func (f *fleet) labelsOf(id peer.ID) map[string]string {
	if f.labels == nil {
		return nil
	}
	return f.labels(id)
}

// order gives or recalls an order on every node.
func (f *fleet) order(o Order) {
	o.At, o.By = f.now, f.ids[0]
	body, err := EncodeOrder(o)
	if err != nil {
		f.t.Fatal(err)
	}
	r := p2pnode.Record{Domain: p2pnode.DomainOrder, Signer: f.ids[0], Key: o.ID, Seq: 1, Body: body}
	f.records["order/"+o.ID] = r
	for _, id := range f.ids {
		f.send(id, f.lag(), evRecord{r})
	}
}

// agentsOf counts the agents of an order that really are somewhere.
func (f *fleet) agentsOf(order string) int {
	ids := map[string]bool{}
	for _, n := range f.nodes {
		if n.core != nil {
			for id, h := range n.core.held {
				if h.order == order {
					ids[id] = true
				}
			}
		}
	}
	return len(ids)
}

// wanted is the size of an order's population as a living node sees it.
func (f *fleet) wanted(order string) int {
	for _, id := range f.ids {
		if c := f.nodes[id].core; c != nil && c.orders[order] != nil {
			return c.wants(c.orders[order])
		}
	}
	return 0
}

func (f *fleet) launch(slo time.Duration, confidence float64) {
	o := Order{ID: "o-1", SLO: slo, Confidence: confidence, At: f.now, By: f.ids[0]}
	body, err := EncodeOrder(o)
	if err != nil {
		f.t.Fatal(err)
	}
	r := p2pnode.Record{Domain: p2pnode.DomainOrder, Signer: f.ids[0], Key: o.ID, Seq: 1, Body: body}
	f.records["order"] = r
	for _, id := range f.ids {
		f.send(id, f.lag(), evRecord{r})
	}
}

// population counts the agents that really are somewhere.
func (f *fleet) population() (all int) {
	ids := map[string]bool{}
	for _, n := range f.nodes {
		if n.core != nil {
			for id, h := range n.core.held {
				if h.order != "" {
					ids[id] = true
				}
			}
		}
	}
	return len(ids)
}

func (f *fleet) phases(incident string) map[p2pnode.Phase][]p2pnode.Report {
	out := map[p2pnode.Phase][]p2pnode.Report{}
	for _, r := range f.reports {
		if r.Incident == incident {
			out[r.Phase] = append(out[r.Phase], r)
		}
	}
	return out
}
