package agent

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/bubble"

	"github.com/libp2p/go-libp2p/core/peer"
)

// town is a ring of real Agents in a synctest bubble: goroutines and queues are
// the real ones, links and exec are memory.
type town struct {
	t   *testing.T
	ids []peer.ID
	ctx context.Context

	mu      sync.Mutex // guards all below; held for table look-ups only
	agents  map[peer.ID]*Agent
	stops   map[peer.ID]func()
	lives   map[peer.ID]p2pnode.Life
	dead    map[peer.ID]bool
	starts  map[string]int // restarts by life or incarnation that ended
	reports []p2pnode.Report
	orders  []p2pnode.Record
	wg      sync.WaitGroup
}

var errDown = errors.New("connection refused")

func newTown(ctx context.Context, t *testing.T, n int) *town {
	w := &town{t: t, ctx: ctx, agents: map[peer.ID]*Agent{}, stops: map[peer.ID]func(){}, lives: map[peer.ID]p2pnode.Life{}, dead: map[peer.ID]bool{}, starts: map[string]int{}}
	for i := range n {
		w.ids = append(w.ids, testID(i))
		w.lives[testID(i)] = p2pnode.Life{Boot: 1, Nonce: uint64(i + 1)}
	}
	for _, id := range w.ids {
		w.start(id)
	}
	w.believe()
	return w
}

func (w *town) start(id peer.ID) {
	s := spot{w, id}
	a, err := New(Config{Self: id, Name: p2pnode.ShortID(id), Links: s, Carry: s, Exec: s, Doors: doorsOf{w}, Publish: s.Publish, Report: s.Report, Reported: s.Reported, Settle: time.Second})
	if err != nil {
		w.t.Error(err)
		return
	}
	ctx, stop := context.WithCancel(w.ctx)
	w.mu.Lock()
	w.agents[id], w.stops[id] = a, stop
	if w.dead[id] { // dead in one life, alive in the next: nobody sees one without the other
		w.dead[id], w.lives[id] = false, p2pnode.Life{Boot: w.lives[id].Boot + 1, Nonce: 99}
	}
	orders := slices.Clone(w.orders)
	w.mu.Unlock()
	for _, r := range orders {
		a.OnRecord(r)
	}
	w.wg.Go(func() {
		if err := a.Run(ctx); err != nil {
			w.t.Error(err)
		}
	})
}

func (w *town) kill(id peer.ID) {
	w.mu.Lock()
	w.dead[id] = true
	w.stops[id]()
	w.mu.Unlock()
	w.believe()
}

func (w *town) believe() {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := Beliefs{Peers: map[peer.ID]Belief{}}
	for _, id := range w.ids {
		b.Peers[id] = Belief{Verdict: p2pnode.Alive, Life: w.lives[id]}
		if w.dead[id] {
			b.Peers[id] = Belief{Verdict: p2pnode.ProcessDead, Life: w.lives[id]}
		}
	}
	for id, a := range w.agents {
		if !w.dead[id] {
			a.OnBeliefs(b)
		}
	}
}

func (w *town) living(id peer.ID) *Agent {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead[id] {
		return nil
	}
	return w.agents[id]
}

// spot is one node's view of the town.
type spot struct {
	w  *town
	id peer.ID
}

func (s spot) index(id peer.ID) int      { return slices.Index(s.w.ids, id) }
func (s spot) Forgotten(peer.ID) bool    { return false }
func (s spot) Members() []peer.ID        { return s.w.ids }
func (s spot) RTT(peer.ID) time.Duration { return 0 }
func (s spot) NeighboursOf(id peer.ID) []peer.ID {
	i, n := s.index(id), len(s.w.ids)
	return []peer.ID{s.w.ids[(i+1)%n], s.w.ids[(i+n-1)%n]}
}

func (s spot) Neighbours() []peer.ID {
	return slices.DeleteFunc(s.NeighboursOf(s.id), func(p peer.ID) bool { return s.w.living(p) == nil })
}

// way is the length of the way round in one direction; 0 if a dead node is on it.
func (s spot) way(from, to peer.ID, step int) int {
	n := len(s.w.ids)
	for d, i := 1, s.index(from); d < n; d++ {
		i = (i + step + n) % n
		if s.w.living(s.w.ids[i]) == nil {
			return 0
		}
		if s.w.ids[i] == to {
			return d
		}
	}
	return 0
}

func (s spot) Cost(from, to peer.ID) (int, bool) {
	if from == to {
		return 0, true
	}
	a, b := s.way(from, to, 1), s.way(from, to, -1)
	if a == 0 || (b != 0 && b < a) {
		a = b
	}
	return a, a > 0
}

func (s spot) Next(dst peer.ID) (next, second peer.ID, ok bool) {
	a, b := s.way(s.id, dst, 1), s.way(s.id, dst, -1)
	near := s.NeighboursOf(s.id)
	switch {
	case a == 0 && b == 0:
		return "", "", false
	case b == 0:
		return near[0], "", true
	case a == 0:
		return near[1], "", true
	case a <= b:
		return near[0], near[1], true
	}
	return near[1], near[0], true
}

func (s spot) Call(ctx context.Context, to peer.ID, req []byte) ([]byte, error) {
	if !slices.Contains(s.NeighboursOf(s.id), to) {
		s.w.t.Errorf("%s calls %s, which is no neighbour", p2pnode.ShortID(s.id), p2pnode.ShortID(to))
	}
	time.Sleep(time.Millisecond)
	a := s.w.living(to)
	if a == nil {
		return nil, errDown
	}
	return a.HandleCall(ctx, s.id, req)
}

func (s spot) Publish(d p2pnode.Domain, key string, body []byte, _ time.Duration) error {
	r := p2pnode.Record{Domain: d, Signer: s.id, Key: key, Body: body}
	s.w.mu.Lock()
	if d == p2pnode.DomainOrder {
		s.w.orders = append(s.w.orders, r)
	}
	s.w.mu.Unlock()
	for _, id := range s.w.ids {
		if a := s.w.living(id); a != nil && id != s.id {
			a.OnRecord(r)
		}
	}
	return nil
}

// Report and Reported are one store for the whole town.
func (s spot) Report(r p2pnode.Report) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.reports = append(s.w.reports, r)
	for id, a := range s.w.agents {
		if !s.w.dead[id] {
			a.OnReport(r)
		}
	}
}

func (s spot) Reported(incident string, phase p2pnode.Phase) bool {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	return slices.ContainsFunc(s.w.reports, func(r p2pnode.Report) bool { return r.Incident == incident && r.Phase == phase })
}

func (s spot) Status(context.Context) (p2pnode.ExecStatus, error) {
	return p2pnode.ExecStatus{Services: []p2pnode.ServiceStatus{{Name: "web", State: p2pnode.StateUp, Incarnation: "7-2"}}}, nil
}

func (s spot) Recover(_ context.Context, req p2pnode.RecoverRequest) (p2pnode.RecoverAnswer, error) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.starts[req.Expected]++
	return p2pnode.RecoverAnswer{Outcome: p2pnode.OutcomeDone, New: "7-2", By: p2pnode.By{Kind: p2pnode.ByAgent, Agent: req.Agent, Node: s.id.String()}}, nil
}

// doorsOf are all doors of the town: compare-and-set, then a new life.
type doorsOf struct{ w *town }

func (d doorsOf) Status(_ context.Context, id peer.ID) (DoorWord, error) {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	return DoorWord{ExecAlive: true, NodeAlive: !d.w.dead[id], NodeLife: d.w.lives[id]}, nil
}

func (d doorsOf) Recover(_ context.Context, id peer.ID, req p2pnode.RecoverRequest) (p2pnode.RecoverAnswer, error) {
	w := d.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.starts[req.Expected] > 0 {
		return p2pnode.RecoverAnswer{Outcome: p2pnode.OutcomeAlreadyDone}, nil
	}
	if !w.dead[id] || w.lives[id].String() != req.Expected {
		return p2pnode.RecoverAnswer{Outcome: p2pnode.OutcomeRefused, Reason: p2pnode.RefusedHealthy}, nil
	}
	w.starts[req.Expected]++
	w.wg.Go(func() {
		time.Sleep(40 * time.Millisecond)
		w.start(id)
		w.believe()
	})
	return p2pnode.RecoverAnswer{Outcome: p2pnode.OutcomeDone, By: p2pnode.By{Kind: p2pnode.ByAgent, Agent: req.Agent}}, nil
}

func (w *town) phasesOf(incident string) (out []p2pnode.Report) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.reports {
		if r.Incident == incident {
			out = append(out, r)
		}
	}
	return out
}

// inTown runs a story and sees that everything ends.
func inTown(t *testing.T, n int, story func(*town)) {
	bubble.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w := newTown(ctx, t, n)
		story(w)
		cancel()
		w.wg.Wait()
	})
}

func TestTownBringsANodeBack(t *testing.T) {
	for name, launch := range map[string]bool{"on patrol": true, "nobody launched": false} {
		t.Run(name, func(t *testing.T) {
			inTown(t, 8, func(w *town) {
				if launch {
					if _, err := w.agents[w.ids[0]].Launch(5*time.Second, 0.9, nil); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(8 * time.Second)
				if got := len(w.agents[w.ids[5]].Agents()); (got > 0) != launch {
					t.Errorf("%d agents are known", got)
				}
				target := w.ids[4]
				life := w.lives[target].String()
				w.kill(target)
				w.kill(w.ids[0]) // who launched them dies too
				time.Sleep(time.Second)
				if w.living(target) == nil {
					t.Fatal("not back after a second")
				}
				time.Sleep(5 * time.Second)
				got := w.phasesOf(p2pnode.IncidentID(target.String(), "", life))
				if len(got) != 2 || got[0].Phase != p2pnode.PhaseActed || got[1].Phase != p2pnode.PhaseVerified || w.starts[life] != 1 {
					t.Fatalf("%d restarts, reports %+v", w.starts[life], got)
				}
				if r := got[1]; r.Hops != len(r.Trail)-2 || r.Trail[len(r.Trail)-1] != target.String() || r.Timing.Total <= 0 || r.Direct {
					t.Errorf("verified says %+v", r)
				}
			})
		})
	}
}

func TestTownResident(t *testing.T) {
	inTown(t, 2, func(w *town) {
		began := time.Now()
		w.agents[w.ids[0]].OnExecEvent(p2pnode.ExecEvent{Event: p2pnode.FactFailed, At: began, Service: "web", Target: "7-1", Class: p2pnode.ClassExited})
		time.Sleep(3 * time.Second)
		got := w.phasesOf(p2pnode.IncidentID(w.ids[0].String(), "web", "7-1"))
		if len(got) != 2 || got[1].Phase != p2pnode.PhaseVerified || got[0].At.After(began) || got[0].Hops != 0 {
			t.Fatalf("reports %+v", got)
		}
	})
}

func TestTownRecall(t *testing.T) {
	inTown(t, 8, func(w *town) {
		a := w.agents[w.ids[2]]
		if err := a.Recall("o-none"); err == nil {
			t.Error("recalled what is not there")
		}
		o, err := a.Launch(5*time.Second, 0.9, nil)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if n := len(a.Orders()); n != 1 || a.Orders()[0].Agents < 1 {
			t.Fatalf("orders %+v", a.Orders())
		}
		if err := a.Recall(o.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		for _, id := range w.ids {
			if x := w.agents[id]; len(x.Agents()) != 0 || len(x.Orders()) != 0 {
				t.Errorf("%s still knows %+v %+v", p2pnode.ShortID(id), x.Agents(), x.Orders())
			}
		}
	})
}

// TestRefusedHandoffIsCounted: strangers' bytes get a no and a counter.
func TestRefusedHandoffIsCounted(t *testing.T) {
	inTown(t, 2, func(w *town) {
		a := w.agents[w.ids[0]]
		ack, err := a.HandleCall(t.Context(), w.ids[1], make([]byte, maxTravellerBytes+1))
		if err != nil || decodeAck(ack) != refusedTooLong || a.Counters()["handoff-too-long"] != 1 {
			t.Errorf("ack %v %v, counters %v", decodeAck(ack), err, a.Counters())
		}
	})
}
