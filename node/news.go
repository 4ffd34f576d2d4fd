package node

import (
	"context"
	"time"

	"p2pnode"
	"p2pnode/agent"
	"p2pnode/manage"
)

// news makes events of what changes: where agents are, and how stories of
// incidents stand.

// agentEvent is the fields of an event "agent". The event's node is where the
// agent is, or ended.
type agentEvent struct {
	Agent    string `json:"agent"`
	Kind     string `json:"kind"`
	Was      string `json:"was,omitempty"` // node that it came from
	Ended    bool   `json:"ended,omitempty"`
	Hops     int    `json:"hops"`
	Incident string `json:"incident,omitempty"`
}

// watchAgents says each move of an agent, its birth and its end.
func (n *Node) watchAgents(ctx context.Context) error {
	known := map[string]agent.Info{}
	for {
		changed := n.agents.Changed()
		now := map[string]agent.Info{}
		for _, a := range n.agents.Agents() {
			now[a.ID] = a
			was, there := known[a.ID]
			if there && was.At == a.At && was.Incident == a.Incident {
				continue
			}
			e := agentEvent{Agent: a.ID, Kind: a.Kind, Hops: a.Hops, Incident: a.Incident}
			if there && was.At != a.At {
				e.Was = n.nameOf(was.At)
			}
			n.events.Add(time.Now(), n.nameOf(a.At), "agent", e)
		}
		for id, was := range known {
			if _, there := now[id]; !there {
				n.events.Add(time.Now(), n.nameOf(was.At), "agent", agentEvent{Agent: id, Kind: was.Kind, Ended: true, Hops: was.Hops})
			}
		}
		known = now
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// stories folds reports as they come in, to say when an incident's state changes.
// It is used by the store's one goroutine only.
type stories struct {
	reports map[string][]p2pnode.Report
	order   []string // incidents, oldest first
}

// maxStories bounds the incidents that news are told of; older ones are in the
// store.
const maxStories = 256

// add takes a report in and returns its incident, and whether its state is news.
func (s *stories) add(r p2pnode.Report, name func(string) string) (p2pnode.Incident, bool) {
	if s.reports == nil {
		s.reports = map[string][]p2pnode.Report{}
	}
	before, known := s.reports[r.Incident]
	if !known {
		s.order = append(s.order, r.Incident)
		if len(s.order) > maxStories {
			delete(s.reports, s.order[0])
			s.order = s.order[1:]
		}
	}
	var was p2pnode.Incident
	if known {
		was = manage.Fold(before, name)[0]
	}
	s.reports[r.Incident] = append(before[:len(before):len(before)], r)
	now := manage.Fold(s.reports[r.Incident], name)[0]
	return now, !known || now.State != was.State || now.Held != was.Held || now.VerifiedAt != was.VerifiedAt
}
