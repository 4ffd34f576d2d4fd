package manage

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"p2pnode"
)

// facts is all that a status is made of.
type facts struct {
	now       time.Time
	cfg       Config
	standing  *Standing           // nil: not admitted yet
	joinError error               // why not
	host      *p2pnode.ExecStatus // nil: exec does not answer
	nodes     []p2pnode.NodeDoc
	brake     p2pnode.BrakeState
	agents    p2pnode.AgentsDoc
	incidents p2pnode.StatusIncidents
	trouble   string // why reports are not written; "": they are
	refusals  map[string]uint64
}

// certificateEnds is how long before the end it is said: renewal has failed by then for
// a month.
const certificateEnds = 30 * 24 * time.Hour

// aloneAfter is how long a member of one is given before it is said loudly.
const aloneAfter = 30 * time.Second

// assemble makes the status. It is not OK when somebody should look: a critical
// warning, a service of this host that should be up and is not, an open incident,
// or a member that is neither well nor gone on purpose.
func assemble(f facts) p2pnode.StatusDoc {
	doc := p2pnode.StatusDoc{
		Schema: p2pnode.Schema("status"), Refusals: f.refusals, Warnings: warnings(f),
		Node: &p2pnode.StatusNode{Name: f.cfg.Name, ID: f.cfg.Self.String(), Data: f.cfg.Data, Listen: f.cfg.Listen, Door: f.cfg.Door, Life: f.cfg.Life},
	}
	if s := f.standing; s != nil {
		doc.Cluster = &p2pnode.StatusCluster{ID: s.Cluster, Trusted: s.Trusted, Managers: managers(f.nodes)}
		doc.Members, doc.Agents, doc.Incidents, doc.Brake = members(f.nodes), agentCounts(f.agents), &f.incidents, &f.brake
		doc.Node.Role, doc.Node.Managing = s.Role, s.Managing
		doc.Node.Door = cmp.Or(s.Door, doc.Node.Door)
	}
	if h := f.host; h != nil {
		doc.Exec = &p2pnode.StatusExec{PID: h.PID, Supervised: h.Supervised}
		doc.Refusals = h.Refusals(doc.Refusals)
		doc.Services = serviceCounts(h.Services)
	}
	doc.OK = well(f, doc)
	return doc
}

func well(f facts, doc p2pnode.StatusDoc) bool {
	return f.host != nil && doc.Services.Down == 0 && (doc.Incidents == nil || doc.Incidents.Open == 0) &&
		!slices.ContainsFunc(doc.Warnings, func(w p2pnode.Warning) bool { return w.Severity == critical }) &&
		!slices.ContainsFunc(f.nodes, func(n p2pnode.NodeDoc) bool { return n.Verdict != p2pnode.Alive && n.Verdict != p2pnode.Left })
}

// members counts by verdict, those too that nobody has.
func members(nodes []p2pnode.NodeDoc) map[string]int {
	out := map[string]int{"total": len(nodes)}
	for _, v := range p2pnode.Verdicts() {
		out[string(v)] = 0
	}
	for _, n := range nodes {
		out[string(n.Verdict)]++
	}
	return out
}

func managers(nodes []p2pnode.NodeDoc) (living int) {
	for _, n := range nodes {
		if n.Role == p2pnode.RoleManager && n.Verdict == p2pnode.Alive {
			living++
		}
	}
	return living
}

func serviceCounts(services []p2pnode.ServiceStatus) *p2pnode.StatusServices {
	out := &p2pnode.StatusServices{Total: len(services)}
	for _, s := range services {
		switch s.State {
		case p2pnode.StateUp:
			out.Up++
		case p2pnode.StateStopped, p2pnode.StateExited:
		default:
			out.Down++
		}
	}
	return out
}

func agentCounts(doc p2pnode.AgentsDoc) *p2pnode.StatusAgents {
	out := &p2pnode.StatusAgents{}
	for _, a := range doc.Agents {
		if a.Kind == "mission" {
			out.Mission++
		} else {
			out.Patrol++
		}
	}
	return out
}

// Severities of a warning.
const (
	warning  = "warning"
	critical = "critical"
)

// warnings are the things that a person should know without having asked.
func warnings(f facts) []p2pnode.Warning {
	out := []p2pnode.Warning{}
	add := func(code, severity, fix, format string, args ...any) {
		out = append(out, p2pnode.Warning{Code: code, Severity: severity, Text: fmt.Sprintf(format, args...), Fix: fix})
	}
	e, _ := errors.AsType[*p2pnode.Error](f.joinError)
	switch {
	case f.standing == nil && e != nil:
		add("not-joined", critical, e.Fix, "this host is in no cluster: %s", e.Text)
	case f.standing == nil && f.joinError != nil:
		add("not-joined", critical, "it is tried for ever", "this host is in no cluster: %v", f.joinError)
	case f.standing == nil && f.cfg.Joins:
		add("not-joined", critical, "it is tried for ever", "this host is in no cluster yet")
	case f.standing == nil:
		add("no-cluster", warning, "name a member with --join ADDR, or wait until this node founds its own", "this host is in no cluster yet")
	case f.standing != nil && e != nil:
		add("other-cluster", critical, e.Fix, "this host does not join what it is told to: %s", e.Text)
	case len(f.nodes) == 1 && f.cfg.Joins && f.now.Sub(f.standing.Since) > aloneAfter:
		add("alone", critical, "check the --join addresses", "this node is alone: nobody would repair its node process")
	case len(f.nodes) == 1 && f.now.Sub(f.standing.Since) > aloneAfter:
		add("alone", warning, "start another host with: p2pnode --join "+joinAddr(f.nodes), "this node is alone: nobody would repair its node process")
	}
	if s := f.standing; s != nil {
		if s.Role != p2pnode.RoleManager && f.cfg.WantsToManage {
			add("manager-pending", warning, "on a manager run: p2pnode promote "+f.cfg.Name, "--manager was given, but this node has no manager certificate")
		}
		if s.Role == p2pnode.RoleManager && s.Until.Sub(f.now) < certificateEnds {
			add("certificate-ends", warning, "put the founder's root.key into "+f.cfg.Data+" of a manager until its certificate is renewed, within the hour", "this manager's certificate ends on %s, and no other manager's lasts longer", s.Until.Local().Format(time.DateOnly))
		}
		if s.Role != p2pnode.RoleManager && s.RootKey {
			add("root-key", warning, "move root.key out of "+f.cfg.Data+" to a safe place, off this host", "this host is a worker and has the cluster's root.key: with it anybody here can make managers")
		}
		if s.ClockBehind > 0 {
			add("clock", warning, "set this host's clock, best by NTP", "this host's clock is %s behind this program's build or what managers have signed", s.ClockBehind.Round(time.Minute))
		}
		if f.now.Before(s.OpenUntil) {
			add("open", warning, "p2pnode open off", "neighbours on local networks are let in without a token until %s", s.OpenUntil.Local().Format(time.DateTime))
		}
		if n := managers(f.nodes); n < 2 && len(f.nodes) > 1 {
			add("few-managers", warning, "make another one with: p2pnode promote NODE", "%d living manager: nobody could launch agents or admit nodes without it", n)
		}
	}
	for _, n := range f.nodes {
		if n.Self && n.Verdict == p2pnode.DuplicateIdentity {
			add("duplicate-identity", critical, "stop one of the two; the copy starts afresh once its data folder is empty", "another process uses the key of this node: its data folder was copied")
		}
	}
	if f.brake.On {
		add("brake", warning, "see: p2pnode nodes", "the brake is on: %d of %d members are unreachable, so nobody acts on them from afar", f.brake.Unreachable, f.brake.Of)
	}
	if f.trouble != "" {
		add("degraded", warning, "make room on the disk, or look at it: reports wait in memory and are written as soon as it works", "degraded: disk: reports are not written: %s", f.trouble)
	}
	if f.host == nil {
		add("exec-away", critical, "p2pnode ps", "this host's exec does not answer")
		return out
	}
	for _, d := range f.host.Degraded {
		add("degraded", warning, "", "degraded: %s", d)
	}
	if f.host.Observe {
		add("observe", warning, "p2pnode observe off "+f.cfg.Name+"/", "observe only: nothing is restarted on this host")
	}
	return out
}

// joinAddr is where others find this node: what it tells them, not what it
// listens on, which may be every address.
func joinAddr(nodes []p2pnode.NodeDoc) string {
	for _, n := range nodes {
		if n.Self && len(n.Addresses) > 0 {
			return n.Addresses[0]
		}
	}
	return "ADDR"
}
