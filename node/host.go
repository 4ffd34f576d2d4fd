package node

import (
	"context"
	"time"

	"p2pnode"
	"p2pnode/exec"
	"p2pnode/store"
)

const (
	// healthEvery is a quarter of the silence after which exec calls this process hung:
	// more often would be most of what an idle exec costs.
	healthEvery   = 4 * time.Second
	healthTimeout = 2 * time.Second
	// eventsPause is how long to wait before exec is asked for its events again:
	// short against the 500 ms after which a new exec is started.
	eventsPause = 50 * time.Millisecond
	// eventsPatience is how long exec's events wait for the store, so that what the
	// life before reported is not reported again. A host that cannot open its store
	// or is in no cluster is still its resident agent's to repair.
	eventsPatience = 2 * time.Second
	// recalled is how many incidents the store is asked for at the start, beside those
	// that are open.
	recalled = 200
)

// sayHealth tells exec every few seconds, on each change, and when exec is another
// one, how this node process is connected: exec leaves repairs to agents only while
// there is somebody who could send one.
func (n *Node) sayHealth(ctx context.Context) error {
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	var last exec.NodeHealth
	for {
		links, orders := n.overlay.Changed(), n.agents.Changed()
		h := n.health()
		due := h != last
		for !due {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
				due = true
			case <-n.newExec:
				due = true
			case <-links:
				links = n.overlay.Changed()
				due = n.health() != last
			case <-orders:
				orders = n.agents.Changed()
				due = n.health() != last
			}
			h = n.health()
		}
		if ctx.Err() != nil {
			return nil
		}
		last = h
		n.tellHealth(ctx, h)
	}
}

func (n *Node) health() exec.NodeHealth {
	return exec.NodeHealth{
		Life: n.overlay.Life(), PeerID: n.overlay.ID().String(),
		Links: len(n.overlay.View().Links), Orders: len(n.agents.Orders()),
	}
}

func (n *Node) tellHealth(ctx context.Context, h exec.NodeHealth) {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	if err := n.exec.Health(ctx, h); err != nil && ctx.Err() == nil {
		n.cfg.Log.Debug().Err(err).Msg("exec not told of health")
		time.Sleep(eventsPause)
	}
}

// followExec hands exec's events to those who act on them, and asks again
// whenever exec was away. A new exec counts its events from the start.
func (n *Node) followExec(ctx context.Context) error {
	patience, cancel := context.WithTimeout(ctx, eventsPatience)
	if s, ok := n.reports.wait(patience); ok {
		select {
		case <-s.Ready():
			n.recallStories(s)
		case <-patience.Done():
		}
	}
	cancel()
	var after uint64
	var pid int
	for ctx.Err() == nil {
		st, err := n.exec.Status(ctx)
		if err == nil {
			if st.PID != pid {
				pid, after = st.PID, 0
				select {
				case n.newExec <- struct{}{}:
				default:
				}
			}
			n.noteObserve(st.Observe)
			after = n.follow(ctx, after)
		}
		select {
		case <-ctx.Done():
		case <-time.After(eventsPause):
		}
	}
	return nil
}

// recallStories hands the agents what the store holds of stories without an end: the
// life before followed them, this one must.
func (n *Node) recallStories(s *store.Store) {
	recent, _ := s.Recent(recalled)
	ended := map[string]bool{}
	var list []p2pnode.Report
	for r := range recent {
		ended[r.Incident] = ended[r.Incident] || r.Phase == p2pnode.PhaseVerified || r.Phase == p2pnode.PhaseFailed
		list = append(list, r)
	}
	for _, r := range list {
		if !ended[r.Incident] {
			r.Excerpt = nil
			n.agents.OnReport(r)
		}
	}
}

func (n *Node) follow(ctx context.Context, after uint64) uint64 {
	events, err := n.exec.Events(ctx, after)
	if err != nil {
		return after
	}
	for {
		select {
		case <-ctx.Done():
			return after
		case e, ok := <-events:
			if !ok {
				return after
			}
			after = e.Seq
			n.onExecEvent(e)
		}
	}
}

func (n *Node) onExecEvent(e p2pnode.ExecEvent) {
	if e.Event == p2pnode.FactPeerDeath {
		n.onPeerDeath(e)
		return
	}
	n.agents.OnExecEvent(e)
	n.events.Add(e.At, n.cfg.Name, "service", serviceEvent{e.Service, e.Event, e.State, e.Class, e.Held, e.PID, e.Detail})
}

// degraded is what exec says does not work as it should; nil where it does not
// answer, which is another story.
func (n *Node) degraded(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	st, err := n.exec.Status(ctx)
	if err != nil {
		return nil
	}
	return st.Degraded
}

// serviceEvent is the fields of an event "service".
type serviceEvent struct {
	Service string               `json:"service"`
	Fact    p2pnode.ExecFact     `json:"fact"`
	State   p2pnode.ServiceState `json:"state,omitempty"`
	Class   p2pnode.Class        `json:"class,omitempty"`
	Held    p2pnode.Held         `json:"held,omitempty"`
	PID     int                  `json:"pid,omitempty"`
	Detail  string               `json:"detail,omitempty"`
}

func (n *Node) noteObserve(on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.observe = on
}
