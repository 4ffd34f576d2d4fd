package manage

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/exec"
)

// API is what an operator can ask of a node. Its methods are the verbs; Serve
// puts them on a socket and Client calls them from another process.
type API struct {
	cfg   Config
	audit *exec.AuditLog
}

// New makes an API; nothing is started.
func New(cfg Config) *API { return &API{cfg: cfg, audit: exec.NewAuditLog(cfg.Data)} }

// Status is the node's own summary; see assemble for what makes it not OK.
func (a *API) Status(ctx context.Context) (p2pnode.StatusDoc, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	host, err := a.cfg.Host.Status(ctx)
	v := facts{
		now: time.Now(), cfg: a.cfg, standing: a.cfg.Cluster.Standing(), joinError: a.cfg.Cluster.JoinError(), nodes: a.cfg.Fleet.Nodes(), brake: a.cfg.Fleet.Brake(),
		agents: a.cfg.Agents.Agents(), refusals: a.cfg.Cluster.Refusals(), trouble: a.cfg.Reports.Trouble(),
	}
	v.incidents.Open, v.incidents.Last24h = a.cfg.Reports.Counts(v.now.Add(-24 * time.Hour))
	if err == nil {
		v.host = &host
	}
	return assemble(v), nil
}

// Nodes are the members.
func (a *API) Nodes(context.Context) (p2pnode.NodesDoc, error) {
	return p2pnode.NodesDoc{Schema: p2pnode.Schema("nodes"), Nodes: a.cfg.Fleet.Nodes()}, nil
}

// Node is one member.
func (a *API) Node(_ context.Context, name string) (p2pnode.NodesDoc, error) {
	n, _, err := a.find(name)
	return p2pnode.NodesDoc{Schema: p2pnode.Schema("nodes"), Nodes: []p2pnode.NodeDoc{n}}, err
}

// Why is the evidence under a member's verdict.
func (a *API) Why(_ context.Context, name string) (p2pnode.WhyDoc, error) {
	n, id, err := a.find(name)
	if err != nil {
		return p2pnode.WhyDoc{}, err
	}
	doc := a.cfg.Fleet.Why(id)
	doc.Schema, doc.Name, doc.ID, doc.Verdict = p2pnode.Schema("why"), n.Name, n.ID, n.Verdict
	if doc.Since.IsZero() {
		doc.Since = n.Since
	}
	if doc.Evidence == nil {
		doc.Evidence = []p2pnode.EvidenceDoc{}
	}
	return doc, nil
}

// Path is the way an agent at one member would take to another.
func (a *API) Path(_ context.Context, from, to string) (p2pnode.PathDoc, error) {
	f, fromID, err := a.find(from)
	if err != nil {
		return p2pnode.PathDoc{}, err
	}
	t, toID, err := a.find(to)
	if err != nil {
		return p2pnode.PathDoc{}, err
	}
	doc := a.cfg.Routes.Path(fromID, toID)
	if len(doc.Hops) == 0 {
		return doc, &p2pnode.Error{Code: "no-route", Text: fmt.Sprintf("no chain of links leads from %s to %s", f.Name, t.Name), Fix: "see who is linked: p2pnode nodes -o wide"}
	}
	doc.Schema = p2pnode.Schema("path")
	return doc, nil
}

// Ping sends a message to a member and back along links.
func (a *API) Ping(ctx context.Context, name string) (p2pnode.PingDoc, error) {
	n, id, err := a.find(name)
	if err != nil {
		return p2pnode.PingDoc{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	doc, err := a.cfg.Routes.Ping(ctx, id)
	if err != nil {
		return doc, &p2pnode.Error{Code: "no-answer", Text: fmt.Sprintf("no answer from %s: %v", n.Name, err), Fix: "see: p2pnode nodes why " + n.Name}
	}
	doc.Schema = p2pnode.Schema("ping")
	return doc, nil
}

// Agents are the roaming agents and the orders that they serve.
func (a *API) Agents(context.Context) (p2pnode.AgentsDoc, error) {
	doc := a.cfg.Agents.Agents()
	doc.Schema = p2pnode.Schema("agents")
	if doc.Agents == nil {
		doc.Agents = []p2pnode.AgentDoc{}
	}
	return doc, nil
}

// Launch orders a population of agents.
func (a *API) Launch(_ context.Context, slo time.Duration, confidence float64, labels map[string]string) (p2pnode.OrderDoc, error) {
	if err := a.mayManage("launch agents"); err != nil {
		return p2pnode.OrderDoc{}, err
	}
	return a.cfg.Agents.Launch(slo, confidence, labels)
}

// Recall ends an order; "" ends all.
func (a *API) Recall(_ context.Context, id string) error {
	if err := a.mayManage("recall agents"); err != nil {
		return err
	}
	var known []string
	for _, o := range a.cfg.Agents.Agents().Orders {
		known = append(known, o.ID)
	}
	for _, k := range known {
		if k == id || id == "" {
			return a.cfg.Agents.Recall(id)
		}
	}
	return &p2pnode.Error{Code: "unknown-order", Text: fmt.Sprintf("no order %q stands", id), Fix: strings.TrimSuffix("there are: "+strings.Join(known, ", "), "there are: "), Exit: p2pnode.ExitUsage}
}

// Incidents are the stories of the newest failures that this node knows of and of
// all that are open; More says how many others there are.
func (a *API) Incidents(context.Context) (p2pnode.IncidentsDoc, error) {
	reports, more := a.cfg.Reports.Recent(0)
	return p2pnode.IncidentsDoc{Schema: p2pnode.Schema("incidents"), Incidents: a.fold(reports), More: more}, nil
}

// Incident is the story of one, by its ID, that of a failure folded into it, or the
// beginning of one that is listed; with the reports that its last failure made.
func (a *API) Incident(_ context.Context, id string) (p2pnode.IncidentsDoc, error) {
	reports, _ := a.cfg.Reports.Recent(0)
	found := pick(a.fold(reports), id)
	if len(found) == 0 {
		found = a.fold(a.cfg.Reports.Incident(id))
	}
	if len(found) != 1 {
		return p2pnode.IncidentsDoc{}, &p2pnode.Error{Code: "unknown-incident", Text: fmt.Sprintf("no incident %q is known here", id), Fix: "see: p2pnode incidents ls", Exit: p2pnode.ExitUsage}
	}
	last := found[0].ID
	if n := len(found[0].Failures); n > 0 {
		last = found[0].Failures[n-1]
	}
	doc := p2pnode.IncidentsDoc{Schema: p2pnode.Schema("incidents"), Incidents: found, Reports: slices.Collect(a.cfg.Reports.Incident(last))}
	slices.SortStableFunc(doc.Reports, func(a, b p2pnode.Report) int { return a.At.Compare(b.At) })
	return doc, nil
}

// pick is the incident of list that id names, or all whose ID begins so.
func pick(list []p2pnode.Incident, id string) (found []p2pnode.Incident) {
	for _, i := range list {
		if isAbout(i, id) {
			return []p2pnode.Incident{i}
		}
		if len(id) >= 4 && strings.HasPrefix(i.ID, id) {
			found = append(found, i)
		}
	}
	return found
}

func (a *API) fold(reports iter.Seq[p2pnode.Report]) []p2pnode.Incident {
	names := map[string]string{}
	for _, n := range a.cfg.Fleet.Nodes() {
		names[n.ID] = n.Name
	}
	return Fold(slices.Collect(reports), func(id string) string { return names[id] })
}

// Reports are all reports that this node holds.
func (a *API) Reports(context.Context) (p2pnode.ReportsDoc, error) {
	doc := p2pnode.ReportsDoc{Schema: p2pnode.Schema("reports"), Reports: slices.Collect(a.cfg.Reports.All())}
	if doc.Reports == nil {
		doc.Reports = []p2pnode.Report{}
	}
	return doc, nil
}

// Events calls f for each event after since; with follow it goes on until ctx
// ends or f fails.
func (a *API) Events(ctx context.Context, since uint64, follow bool, f func(p2pnode.EventDoc) error) error {
	for {
		list, more := a.cfg.Events.After(since)
		for _, e := range list {
			if err := f(e); err != nil {
				return err
			}
			since = e.Seq
		}
		if !follow {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-more:
		}
	}
}

// CreateToken makes a token that admits nodes.
func (a *API) CreateToken(_ context.Context, role p2pnode.Role, ttl time.Duration, uses int) (p2pnode.TokenDoc, error) {
	if err := a.mayManage("create a token"); err != nil {
		return p2pnode.TokenDoc{}, err
	}
	doc, err := a.cfg.Cluster.CreateToken(role, ttl, uses)
	doc.Schema = p2pnode.Schema("token")
	return doc, err
}

// Promote makes a member a manager.
func (a *API) Promote(ctx context.Context, name string) error {
	if err := a.mayManage("promote a node"); err != nil {
		return err
	}
	n, id, err := a.find(name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if err := a.cfg.Cluster.Promote(ctx, id); err != nil {
		return &p2pnode.Error{Code: "cannot-promote", Text: fmt.Sprintf("cannot promote %s: %v", n.Name, err), Fix: "see whether it is reached: p2pnode ping " + n.Name}
	}
	return nil
}

// Manage switches the use of this node's manager certificate.
func (a *API) Manage(_ context.Context, on bool) error {
	s := a.cfg.Cluster.Standing()
	if on && (s == nil || s.Role != p2pnode.RoleManager) {
		return &p2pnode.Error{Code: "no-manager", Text: a.cfg.Name + " has no manager certificate", Fix: "on " + a.someManager() + " run: p2pnode promote " + a.cfg.Name, Exit: p2pnode.ExitNotPermitted}
	}
	return a.cfg.Cluster.Manage(on)
}

// Leave takes this node out of its cluster for good.
func (a *API) Leave(ctx context.Context) error { return a.cfg.Cluster.Leave(ctx) }

// Join adds an address at which a member may be found.
func (a *API) Join(_ context.Context, addr string) error { return a.cfg.Cluster.Join(addr) }

// mayManage refuses early, in a sentence, what the fleet would refuse anyway.
func (a *API) mayManage(what string) error {
	s := a.cfg.Cluster.Standing()
	switch {
	case s == nil:
		return &p2pnode.Error{Code: "not-a-member", Text: fmt.Sprintf("cannot %s: %s is not in a cluster yet", what, a.cfg.Name), Fix: "see: p2pnode status", Exit: p2pnode.ExitNotPermitted}
	case s.DemotedBy != "":
		return &p2pnode.Error{Code: "not-permitted", Text: fmt.Sprintf("cannot %s: %s is a worker: %s demoted it", what, a.cfg.Name, s.DemotedBy), Fix: "run it on a manager: " + a.someManager(), Exit: p2pnode.ExitNotPermitted}
	case s.Role != p2pnode.RoleManager:
		return &p2pnode.Error{Code: "not-permitted", Text: fmt.Sprintf("cannot %s: %s is a worker", what, a.cfg.Name), Fix: "run it on a manager: " + a.someManager(), Exit: p2pnode.ExitNotPermitted}
	case !s.Managing:
		return &p2pnode.Error{Code: "not-permitted", Text: fmt.Sprintf("cannot %s: %s may manage but is switched off", what, a.cfg.Name), Fix: "switch it on with: p2pnode manage on", Exit: p2pnode.ExitNotPermitted}
	}
	return nil
}

func (a *API) someManager() string {
	names := a.managersBut("")
	if len(names) == 0 {
		return "a manager"
	}
	return strings.Join(names, " or ")
}

// find resolves NODE: a name, name~abcd where names collide, or an ID.
func (a *API) find(text string) (p2pnode.NodeDoc, peer.ID, error) {
	n, err := resolve(a.cfg.Fleet.Nodes(), text)
	if err != nil {
		return n, "", err
	}
	id, err := peer.Decode(n.ID)
	return n, id, err
}

// resolve picks the one node that text names.
func resolve(nodes []p2pnode.NodeDoc, text string) (p2pnode.NodeDoc, error) {
	name, tail, hasTail := strings.Cut(text, "~")
	var found []p2pnode.NodeDoc
	for _, n := range nodes {
		if n.ID == text {
			return n, nil
		}
		if n.Name == text || n.Name == name && hasTail && tail != "" && strings.HasSuffix(n.ID, tail) {
			found = append(found, n)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return p2pnode.NodeDoc{}, &p2pnode.Error{Code: "unknown-node", Text: fmt.Sprintf("no node is called %q", text), Fix: nodesKnown(nodes), Exit: p2pnode.ExitUsage}
	}
	var which []string
	for _, n := range found {
		which = append(which, n.Name+"~"+n.ID[max(0, len(n.ID)-4):])
	}
	return p2pnode.NodeDoc{}, &p2pnode.Error{Code: "ambiguous-node", Text: fmt.Sprintf("%d nodes are called %q", len(found), text), Fix: "say which: " + strings.Join(which, " or "), Exit: p2pnode.ExitUsage}
}

// nodesKnown lists names for a person who mistyped one.
func nodesKnown(nodes []p2pnode.NodeDoc) string {
	var names []string
	for _, n := range nodes {
		if len(names) == 12 {
			return "there are: " + strings.Join(names, ", ") + " ...; see: p2pnode nodes"
		}
		names = append(names, n.Name)
	}
	if len(names) == 0 {
		return "no node is known here yet; see: p2pnode status"
	}
	return "there are: " + strings.Join(names, ", ")
}
