package history

import (
	"maps"
	"slices"
	"strings"
	"time"

	"p2pnode"
)

// brakeHolds: while its brake is on, a node sends nobody to a member that it calls
// unreachable.
func brakeHolds(p *past, _ Options) (out []Violation) {
	on := map[string]bool{}
	gone := map[[2]string]bool{}
	for _, e := range p.events {
		switch e.Event {
		case p2pnode.HistBrake:
			on[e.Node] = e.Reason == "on"
		case p2pnode.HistVerdict:
			gone[[2]string{e.Node, e.Target}] = e.Verdict == p2pnode.Unreachable
		case p2pnode.HistClaimed:
			if on[e.Node] && gone[[2]string{e.Node, e.Target}] {
				out = append(out, broken("brake-holds", e, "%s was sent to %s, which is unreachable, with the brake on", e.Agent, e.Target))
			}
		}
	}
	return out
}

// claimsHaveVerdicts: nobody goes to a node that he does not believe to be broken;
// a later attempt may only see the end of what another one began. A verdict is
// written down by gossip, and is news to the agents a moment later.
func claimsHaveVerdicts(p *past, _ Options) (out []Violation) {
	const news = 20 * time.Millisecond
	verdict := map[[2]string]p2pnode.Verdict{}
	brokenTill := map[[2]string]time.Time{}
	for i, e := range p.events {
		pair := [2]string{e.Node, e.Target}
		switch e.Event {
		case p2pnode.HistVerdict:
			if verdict[pair].Actionable() {
				brokenTill[pair] = e.At
			}
			verdict[pair] = e.Verdict
		case p2pnode.HistClaimed:
			v := verdict[pair]
			if e.Attempt == 0 && v != "" && !v.Actionable() && e.At.Sub(brokenTill[pair]) > news && !p.actionableSoon(i, news) {
				out = append(out, broken("claims-have-verdicts", e, "%s was sent to %s, which is %s", e.Agent, e.Target, v))
			}
		}
	}
	return out
}

// actionableSoon reports whether the node of event i calls its target actionable within
// d of it: the agent heard the verdict a moment before its line was written.
func (p *past) actionableSoon(i int, d time.Duration) bool {
	claim := p.events[i]
	for _, e := range p.events[i+1:] {
		if e.At.Sub(claim.At) > d {
			break
		}
		if e.Event == p2pnode.HistVerdict && e.Node == claim.Node && e.Target == claim.Target && e.Verdict.Actionable() {
			return true
		}
	}
	return false
}

// healthyNotAccused: a verdict that somebody may act on, or that counts for the
// brake, falls only on who was hit, or by a witness who was (a node that is cut
// off sees others vanish).
func healthyNotAccused(p *past, _ Options) (out []Violation) {
	if len(p.faults) == 0 {
		return nil
	}
	for _, e := range p.events {
		if e.Event != p2pnode.HistVerdict || (!e.Verdict.Actionable() && e.Verdict != p2pnode.Unreachable) {
			continue
		}
		if !p.faulty(e.Target, e.At) && !p.faulty(e.Node, e.At) {
			out = append(out, broken("healthy-not-accused", e, "calls %s %s and nobody had touched it", e.Target, e.Verdict))
		}
	}
	return out
}

// hopLimit is how far a mission may go.
const hopLimit = 64

// agentsOnce: a hop is taken once. A handoff that is sent again because its
// acknowledgement was lost must not put a second agent on its way, and a mission
// does not wander for ever.
func agentsOnce(p *past, _ Options) (out []Violation) {
	type arrival struct {
		node, agent string
		hop         int
	}
	type errand struct {
		agent, incident string
		attempt         int
	}
	seen, far := map[arrival]bool{}, map[errand]int{}
	life := map[string]string{} // a new life remembers no handoff
	for _, e := range p.events {
		switch e.Event {
		case p2pnode.HistLife:
			life[e.Node] = e.New
		case p2pnode.HistHop:
			a := arrival{e.Node + " " + life[e.Node], e.Agent, e.Hop}
			if seen[a] {
				out = append(out, broken("agents-once", e, "%s arrived twice by hop %d", e.Agent, e.Hop))
			}
			seen[a] = true
			if e.Incident == "" {
				continue
			}
			m := errand{e.Agent, e.Incident, e.Attempt}
			if far[m]++; far[m] == hopLimit+1 {
				out = append(out, broken("agents-once", e, "%s has made more than %d hops for %s", e.Agent, hopLimit, e.Incident))
			}
		}
	}
	return out
}

// missionsTold: whoever said "I go" to a failure, somebody told how it ended.
func missionsTold(p *past, opt Options) (out []Violation) {
	if !opt.EndView {
		return nil
	}
	told := map[string]bool{}
	for _, r := range p.reports {
		told[r.Incident] = true
	}
	asked := map[string]bool{}
	for _, e := range p.events {
		if e.Event != p2pnode.HistClaimed || asked[e.Incident] || told[e.Incident] || slices.Contains(opt.Gone, e.Node) || slices.Contains(opt.Gone, e.Target) {
			continue
		}
		asked[e.Incident] = true
		out = append(out, broken("missions-told", e, "%s went to %s %s and nobody says how it ended", e.Agent, e.Target, e.Incident))
	}
	return out
}

// faultsReported: every fault that was injected has a report about the
// incarnation that it hit, of an act or of why there was none. Faults of whole
// hosts owe none here (nobody restarts a host), nor do those of exec and the door,
// whose return is no agent's work.
func faultsReported(p *past, opt Options) (out []Violation) {
	for _, f := range p.faults {
		if f.Service == "" || f.Service == p2pnode.SelfExec || f.Service == p2pnode.SelfDoor || slices.Contains(opt.Gone, f.Target) {
			continue
		}
		names := p.struck(f)
		told := slices.ContainsFunc(p.reports, func(r reported) bool {
			return r.thing() == thing{f.Target, f.Service} && !r.At.Before(f.At) && r.Phase != "" &&
				(len(names) == 0 || slices.Contains(names, r.Old))
		})
		if !told {
			out = append(out, broken("faults-reported", f, "%s of %s %s on %s has no report", f.Class, f.Service, strings.Join(names, " or "), f.Target))
		}
	}
	return out
}

// reportsHaveFaults: no report tells of a failure that nobody made.
func reportsHaveFaults(p *past, _ Options) (out []Violation) {
	if len(p.faults) == 0 {
		return nil
	}
	for _, r := range p.reports {
		if p.explained(r.thing(), r.Old, r.At) || (r.Class == p2pnode.ClassUnreachable && (p.faulty(r.Target, r.At) || p.faulty(r.Node, r.At))) { // who is cut off sees others vanish
			continue
		}
		out = append(out, broken("reports-have-faults", r.HistoryEvent, "report %s (%s) tells of %s/%s %s and nobody had touched it", r.Report, r.Phase, r.Target, r.Service, r.Old))
	}
	return out
}

// reportsAreUnique: one identity, one report, wherever it is read.
func reportsAreUnique(p *past, _ Options) (out []Violation) {
	for _, r := range p.reports {
		for _, lie := range r.lies {
			out = append(out, broken("reports-are-unique", lie, "report %s says %s of %s here and %s of %s on %s",
				r.Report, lie.Phase, lie.Incident, r.Phase, r.Incident, r.Node))
		}
	}
	return out
}

// storesAgree: in the end every node holds every report.
func storesAgree(p *past, opt Options) (out []Violation) {
	if !opt.EndView {
		return nil
	}
	nodes := map[string]bool{}
	for _, e := range p.events {
		if e.Event == p2pnode.HistLife && !slices.Contains(opt.Gone, e.Node) {
			nodes[e.Node] = true
		}
	}
	for _, r := range p.reports {
		var missing []string
		for node := range nodes {
			if !slices.Contains(r.stored, node) {
				missing = append(missing, node)
			}
		}
		if len(missing) > 0 && len(missing) < len(nodes) {
			slices.Sort(missing)
			out = append(out, broken("stores-agree", r.HistoryEvent, "report %s of %s/%s is not on %s", r.Report, r.Target, r.Service, strings.Join(missing, ", ")))
		}
	}
	return out
}

// oneViewAtTheEnd: the last view of every node that is still there is the truth:
// who is gone is not alive, everybody else is.
func oneViewAtTheEnd(p *past, opt Options) (out []Violation) {
	if !opt.EndView {
		return nil
	}
	last := map[string]p2pnode.HistoryEvent{}
	for _, e := range p.events {
		if e.Event == p2pnode.HistView && !slices.Contains(opt.Gone, e.Node) && (opt.At.IsZero() || !e.At.After(opt.At)) {
			last[e.Node] = e
		}
	}
	if len(last) == 0 {
		return []Violation{{Rule: "one-view", Text: "no node wrote a view"}}
	}
	for _, node := range slices.Sorted(maps.Keys(last)) {
		if wrong := untrue(last[node].View, last, opt.Gone); len(wrong) > 0 {
			out = append(out, broken("one-view", last[node], "at the end it holds that %s", strings.Join(wrong, ", ")))
		}
	}
	return out
}

// untrue is what a view says of others that is not so, or leaves out.
func untrue(view []string, living map[string]p2pnode.HistoryEvent, gone []string) (wrong []string) {
	said := map[string]p2pnode.Verdict{}
	for _, entry := range view {
		name, verdict, _ := strings.Cut(entry, "=")
		said[name] = p2pnode.Verdict(verdict)
	}
	for _, name := range slices.Sorted(maps.Keys(living)) {
		switch v, ok := said[name]; {
		case !ok:
			wrong = append(wrong, name+" is no member")
		case v != p2pnode.Alive:
			wrong = append(wrong, name+" is "+string(v))
		}
	}
	for _, name := range gone {
		if said[name] == p2pnode.Alive {
			wrong = append(wrong, name+" is alive")
		}
	}
	return wrong
}
