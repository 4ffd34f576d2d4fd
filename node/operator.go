package node

import (
	"context"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/agent"
	"p2pnode/gossip"
	"p2pnode/manage"
	"p2pnode/overlay"
)

// The operator's view of this node: each type answers one of manage's interfaces
// from what the parts know.

// fleet is who is there and what is believed of them.
type fleet struct{ n *Node }

// Nodes implements manage.Fleet.
func (f fleet) Nodes() []p2pnode.NodeDoc {
	view, beliefs := f.n.overlay.View(), f.beliefs()
	self := f.n.overlay.ID()
	out := []p2pnode.NodeDoc{}
	for id, p := range view.Peers {
		doc := p2pnode.NodeDoc{
			Name: p.Name, ID: id.String(), Life: p.Life.String(), Boot: p.Life.Boot, Role: p.Role, Managing: p.Managing,
			Labels: p.Labels, Addresses: p.Addrs, Door: p.Door, Version: p.Version, Ephemeral: p.Ephemeral,
		}
		if doc.Labels == nil {
			doc.Labels = map[string]string{}
		}
		if doc.Addresses == nil {
			doc.Addresses = []string{}
		}
		if hops, ok := view.Table.Hops(self, id); ok {
			doc.Hops = new(hops)
		}
		if l, ok := view.Links[id]; ok {
			doc.RTT = p2pnode.Milliseconds(l.RTT)
		}
		if id == self {
			doc.Self, doc.Verdict, doc.Since = true, p2pnode.Alive, f.n.began
			if gossip.StillTwice(p.Twice, time.Now()) {
				doc.Verdict, doc.Since = p2pnode.DuplicateIdentity, p.Twice
			}
		} else {
			b := beliefs.Peers[id]
			doc.Verdict, doc.Since = f.n.verdict(beliefs, id), b.Since
		}
		out = append(out, doc)
	}
	slices.SortFunc(out, func(a, b p2pnode.NodeDoc) int {
		return strings.Compare(a.Name+a.ID, b.Name+b.ID)
	})
	return out
}

func (f fleet) beliefs() *gossip.Beliefs {
	if g, ok := f.n.belief.get(); ok {
		return g.Beliefs()
	}
	return &gossip.Beliefs{}
}

// Why implements manage.Fleet.
func (f fleet) Why(id peer.ID) p2pnode.WhyDoc {
	if id == f.n.overlay.ID() {
		return p2pnode.WhyDoc{Would: []string{"nothing: this is the node that answers"}}
	}
	if g, ok := f.n.belief.get(); ok {
		doc, _ := g.Why(id)
		return doc
	}
	return p2pnode.WhyDoc{}
}

// Brake implements manage.Fleet.
func (f fleet) Brake() p2pnode.BrakeState { return f.beliefs().Brake }

// routes is the overlay's ground.
type routes struct{ n *Node }

// Path implements manage.Routes.
func (r routes) Path(a, b peer.ID) p2pnode.PathDoc {
	view := r.n.overlay.View()
	var doc p2pnode.PathDoc
	for i, id := range view.Table.Path(a, b) {
		hop := p2pnode.PathHop{Node: r.n.nameOf(id)}
		if l, ok := view.Links[id]; ok && i == 1 && a == r.n.overlay.ID() {
			hop.RTT = p2pnode.Milliseconds(l.RTT) // others' round trips are not known here, only classes
		}
		doc.Hops = append(doc.Hops, hop)
	}
	for _, way := range view.Table.Alternatives(a, b) {
		doc.Alternatives = append(doc.Alternatives, r.names(way))
	}
	return doc
}

// Ping implements manage.Routes.
func (r routes) Ping(ctx context.Context, to peer.ID) (p2pnode.PingDoc, error) {
	began := time.Now()
	_, trail, err := r.n.overlay.Route(ctx, to, "ping", nil)
	return p2pnode.PingDoc{Trail: r.names(trail), RTT: p2pnode.Milliseconds(time.Since(began))}, err
}

func (r routes) names(ids []peer.ID) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = r.n.nameOf(id)
	}
	return out
}

// population is the agents.
type population struct{ n *Node }

// Agents implements manage.Agents.
func (p population) Agents() p2pnode.AgentsDoc {
	doc := p2pnode.AgentsDoc{Agents: []p2pnode.AgentDoc{}}
	table := p.n.overlay.View().Table
	for _, a := range p.n.agents.Agents() {
		d := p2pnode.AgentDoc{
			ID: a.ID, Kind: a.Kind, At: p.n.nameOf(a.At), Hops: a.Hops, Visited: a.Visited, Since: a.Since, Order: a.Order, Incident: a.Incident,
			Doing: string(a.Doing), DoingSince: a.Does, Service: a.Service,
		}
		if a.Next != "" && a.Next != a.At {
			d.Next = p.n.nameOf(a.Next)
			d.Unseen = p2pnode.Milliseconds(a.Unseen)
		}
		goal := a.Next
		if a.Target != "" {
			d.Target, goal = p.n.nameOf(a.Target), a.Target
		}
		if goal != "" && goal != a.At {
			d.Via = routes(p).names(table.Path(a.At, goal))
		}
		doc.Agents = append(doc.Agents, d)
	}
	for _, o := range p.n.agents.Orders() {
		doc.Orders = append(doc.Orders, p.order(o))
	}
	for _, f := range p.n.agents.Failures() {
		doc.Failures = append(doc.Failures, p2pnode.FailureDoc{
			Incident: f.Incident, Node: p.n.nameOf(f.Node), Service: f.Service, Class: f.Class, Since: f.Since,
			Wait: string(f.Wait), Agent: f.Agent, Attempt: f.Attempt, Phase: f.Phase, Until: f.Until,
		})
	}
	return doc
}

func (p population) order(o agent.Order) p2pnode.OrderDoc {
	return p2pnode.OrderDoc{
		ID: o.ID, SLO: o.SLO.String(), Confidence: o.Confidence, Agents: o.Agents, By: p.n.nameOf(o.By), At: o.At,
		WorstGap: p2pnode.Milliseconds(o.WorstGap), WorstHour: p2pnode.Milliseconds(o.WorstHour), Visits: o.Visits, Late: o.Late,
	}
}

// Launch implements manage.Agents.
func (p population) Launch(slo time.Duration, confidence float64, labels map[string]string) (p2pnode.OrderDoc, error) {
	o, err := p.n.agents.Launch(slo, confidence, labels)
	if err != nil {
		return p2pnode.OrderDoc{}, fmt.Errorf("cannot launch agents: %w", err)
	}
	doc := p2pnode.OrderDoc{ID: o.ID, SLO: o.SLO.String(), Confidence: o.Confidence, By: p.n.cfg.Name, At: o.At}
	doc.Agents = p.asked(o.ID)
	return doc, nil
}

// asked is how many agents an order that was just given asks for. They are counted
// when the order has come back as a record, which takes a moment.
func (p population) asked(id string) int {
	give := time.After(500 * time.Millisecond)
	for {
		changed := p.n.agents.Changed()
		for _, o := range p.n.agents.Orders() {
			if o.ID == id && o.Agents > 0 {
				return o.Agents
			}
		}
		select {
		case <-changed:
		case <-give:
			return 0
		}
	}
}

// Recall implements manage.Agents.
func (p population) Recall(id string) error { return p.n.agents.Recall(id) }

// shelf is the stored reports.
type shelf struct{ n *Node }

// All implements manage.Reports.
func (s shelf) All() iter.Seq[p2pnode.Report] {
	if st, ok := s.n.reports.get(); ok {
		return st.All()
	}
	return nothing
}

func nothing(func(p2pnode.Report) bool) {}

// Recent implements manage.Reports.
func (s shelf) Recent(n int) (iter.Seq[p2pnode.Report], int) {
	if st, ok := s.n.reports.get(); ok {
		return st.Recent(n)
	}
	return nothing, 0
}

// Incident implements manage.Reports.
func (s shelf) Incident(id string) iter.Seq[p2pnode.Report] {
	if st, ok := s.n.reports.get(); ok {
		return st.Incident(id)
	}
	return nothing
}

// Counts implements manage.Reports.
func (s shelf) Counts(t time.Time) (open, since int) {
	if st, ok := s.n.reports.get(); ok {
		return st.Counts(t)
	}
	return 0, 0
}

// Trouble implements manage.Reports.
func (s shelf) Trouble() string {
	if st, ok := s.n.reports.get(); ok {
		return st.Trouble()
	}
	return ""
}

// Changed implements manage.Reports.
func (s shelf) Changed() <-chan struct{} {
	if st, ok := s.n.reports.get(); ok {
		return st.Changed()
	}
	return s.n.reports.ready
}

// standing is this node in its cluster.
type standing struct{ n *Node }

// Standing implements manage.Cluster.
func (s standing) Standing() *manage.Standing {
	o := s.n.overlay
	cluster, ok := o.Cluster()
	cert, member := o.Certificate()
	if !ok || !member {
		return nil
	}
	s.n.mu.Lock()
	since, managing := s.n.admitted, s.n.managing
	s.n.mu.Unlock()
	self := o.View().Peers[o.ID()]
	return &manage.Standing{
		Cluster: cluster.ID, Trusted: cluster.Trusted, Role: cert.Role, Managing: managing && o.Manages(),
		Door: self.Door, Since: since, DemotedBy: o.DemotedBy(), OpenUntil: o.OpenUntil(), Until: cert.Until, ClockBehind: o.ClockBehind(), RootKey: s.n.hasRootKey(),
	}
}

// JoinError implements manage.Cluster.
func (s standing) JoinError() error { return s.n.overlay.JoinError() }

// CreateToken implements manage.Cluster.
func (s standing) CreateToken(role p2pnode.Role, ttl time.Duration, uses int) (p2pnode.TokenDoc, error) {
	return s.n.overlay.CreateToken(role, ttl, uses)
}

// Promote implements manage.Cluster. The reader keys go along, sealed to the new
// manager: it reads also what was reported before.
func (s standing) Promote(ctx context.Context, id peer.ID) error { return s.n.overlay.Promote(ctx, id) }

// Demote implements manage.Cluster.
func (s standing) Demote(id peer.ID) ([]string, error) { return s.n.overlay.Demote(id) }

// Revoke implements manage.Cluster.
func (s standing) Revoke(id peer.ID) ([]string, error) { return s.n.overlay.Revoke(id) }

// Forget implements manage.Cluster.
func (s standing) Forget(id peer.ID) error { return s.n.overlay.Forget(id) }

// Pending implements manage.Cluster.
func (s standing) Pending() []p2pnode.PendingNode { return s.n.overlay.Pending() }

// Approve implements manage.Cluster.
func (s standing) Approve(id peer.ID) error { return s.n.overlay.Approve(id) }

// Open implements manage.Cluster.
func (s standing) Open(d time.Duration) (time.Time, error) { return s.n.overlay.Open(d) }

// Trust implements manage.Cluster.
func (s standing) Trust(cluster string) error { return s.n.overlay.Trust(cluster) }

// Tokens implements manage.Cluster.
func (s standing) Tokens() []p2pnode.TokenDoc { return s.n.overlay.Tokens() }

// RemoveToken implements manage.Cluster.
func (s standing) RemoveToken(id string) error { return s.n.overlay.RemoveToken(id) }

// Manage implements manage.Cluster.
func (s standing) Manage(on bool) error {
	s.n.switching.Lock() // a promotion at this moment would read the old word from disk
	defer s.n.switching.Unlock()
	s.n.setManaging(on)
	return p2pnode.WriteFile(managingPath(s.n.cfg.Dir), []byte(map[bool]string{true: "on\n", false: "off\n"}[on]), 0o600)
}

// Leave implements manage.Cluster.
func (s standing) Leave(ctx context.Context) error {
	if err := s.n.overlay.Leave(ctx); err != nil {
		return err
	}
	// The answer to the operator goes out before this life ends.
	time.AfterFunc(100*time.Millisecond, func() { close(s.n.left) })
	return nil
}

// Join implements manage.Cluster.
func (s standing) Join(addr string) error { return s.n.overlay.Join(addr) }

// turns are what parts count beside refusals: the ordinary course of agents and of
// gossip.
var turns = map[string]bool{
	"spawned": true, "claim-lapsed": true, "claim-yielded": true, "claims-forgotten": true, "copy-dissolved": true,
	"handoff-failed": true, "handoff-duplicate": true, "handoff-older-copy": true, "report-known": true, "swim-restarted": true, "keys-rotated": true,
}

// Refusals implements manage.Cluster: what all parts refused or dropped, by reason.
func (s standing) Refusals() map[string]uint64 {
	out := map[string]uint64{}
	add := func(m map[string]uint64) {
		for reason, n := range m {
			if n > 0 && !turns[reason] {
				out[reason] += n
			}
		}
	}
	add(s.n.overlay.Counters())
	add(s.n.agents.Counters())
	add(s.n.notify.Counters())
	if g, ok := s.n.belief.get(); ok {
		add(g.Counters())
	}
	if st, ok := s.n.reports.get(); ok {
		add(st.Refused())
	}
	return out
}

// Managing is a switch of this host: it outlives lives of the node process.

func managingPath(dir string) string { return filepath.Join(dir, "managing") }

// loadManaging is what was last said with `manage on|off`, else what --manager
// says; who founded a cluster manages it.
func (n *Node) loadManaging() bool {
	if raw, err := os.ReadFile(managingPath(n.cfg.Dir)); err == nil {
		return strings.TrimSpace(string(raw)) == "on"
	}
	return n.cfg.Manager || n.hasRootKey()
}

func (n *Node) hasRootKey() bool {
	_, err := os.Stat(filepath.Join(n.cfg.Dir, "root.key"))
	return err == nil
}

// resumeManaging makes the switch what was last said.
func (n *Node) resumeManaging() {
	n.switching.Lock()
	defer n.switching.Unlock()
	n.setManaging(n.loadManaging())
}

func (n *Node) setManaging(on bool) {
	n.mu.Lock()
	n.managing = on
	n.mu.Unlock()
	n.overlay.SetManaging(on)
}

// onStanding is told when this node was promoted or demoted, or reader keys changed.
func (n *Node) onStanding() {
	n.resumeManaging()
	n.giveReaders()
}

// onRefused lets what a former manager had ordered go on: its standing orders in the
// name of who demoted it, else of the first manager that can be reached. Of one that was
// revoked only what it had ended stays ended.
func (n *Node) onRefused(r overlay.Refused) {
	if r.By != n.overlay.ID() && !n.overlay.FirstManager() {
		return
	}
	if err := n.agents.TakeOver(r.Said, !r.Demoted); err != nil {
		n.cfg.Log.Error().Err(err).Str("of", n.nameOf(r.ID)).Msg("standing orders not taken over")
	}
}
