package main

import (
	"fmt"
	"strings"
	"time"

	"p2pnode"
)

// How the documents look to people. The formats for programs are the documents
// themselves.

func printStatus(p *printer, d p2pnode.StatusDoc) {
	head := cell{"healthy", good}
	if !d.OK {
		head = cell{"not healthy", bad}
	}
	name := "this host"
	if d.Node != nil {
		name = d.Node.Name
	}
	p.line("%s is %s", name, p.paint(head))
	if n := d.Node; n != nil {
		role := string(n.Role)
		if n.Managing {
			role += ", managing"
		}
		p.fact("node", "%s", strings.TrimSpace(n.ID+" "+role))
		if len(n.Listen) > 0 {
			p.fact("listens", "%s, door %s", strings.Join(n.Listen, " "), n.Door)
		}
		p.fact("data", "%s", n.Data)
	}
	if c := d.Cluster; c != nil {
		text := fmt.Sprintf("%s, %s", c.ID, count(c.Managers, "manager"))
		if !c.Trusted {
			text += ", not trusted: its managers may look and repair, not stop, start or set aside"
		}
		p.fact("cluster", "%s", text)
	}
	printMembers(p, d)
	if s := d.Services; s != nil {
		p.fact("services", "%d of %d up", s.Up, s.Total)
	}
	if a := d.Agents; a != nil {
		p.fact("agents", "%d on patrol, %s", a.Patrol, count(a.Mission, "mission"))
	}
	if i := d.Incidents; i != nil {
		p.fact("incidents", "%d open, %d in the last day", i.Open, i.Last24h)
	}
	if b := d.Brake; b != nil && b.On {
		p.fact("brake", "on since %s: %d of %d unreachable, nobody acts on them from afar", ago(b.Since), b.Unreachable, b.Of)
	}
	if d.Exec != nil && p.wide {
		p.fact("exec", "pid %d", d.Exec.PID)
		for _, reason := range sortedKeys(d.Refusals) {
			p.fact("refused", "%s: %d", reason, d.Refusals[reason])
		}
	}
	for _, w := range d.Warnings {
		hue := unsure
		if w.Severity == "critical" {
			hue = bad
		}
		p.line("%s %s", p.paint(cell{w.Severity + ":", hue}), w.Text)
		if w.Fix != "" {
			p.line("  %s", w.Fix)
		}
	}
}

func printMembers(p *printer, d p2pnode.StatusDoc) {
	if d.Members["total"] == 0 {
		return
	}
	var parts []string
	for _, v := range p2pnode.Verdicts() {
		if n := d.Members[string(v)]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, p.paint(verdictCell(v))))
		}
	}
	p.fact("members", "%d: %s", d.Members["total"], strings.Join(parts, ", "))
}

func printNodes(p *printer, nodes []p2pnode.NodeDoc) {
	head := []string{"node", "verdict", "since", "role", "hops", "rtt"}
	if p.wide {
		head = append(head, "id", "addresses", "door", "labels", "boot", "version")
	}
	var rows [][]cell
	for _, n := range nodes {
		name, role, hops := c(n.Name), string(n.Role), ""
		if n.Self {
			name.text += " (self)"
		}
		if n.Managing {
			role += "*"
		}
		if n.Ephemeral {
			role += ", ephemeral"
		}
		if n.Hops != nil {
			hops = itoa(*n.Hops)
		}
		row := []cell{name, verdictCell(n.Verdict), c(ago(n.Since)), c(role), c(hops), c(millis(n.RTT))}
		if p.wide {
			row = append(row, c(n.ID), c(strings.Join(n.Addresses, ",")), c(n.Door), c(labelText(n.Labels)), c(fmt.Sprint(n.Boot)), c(n.Version))
		}
		rows = append(rows, row)
	}
	p.table(head, rows)
}

func printNode(p *printer, n p2pnode.NodeDoc) {
	p.line("%s is %s", n.Name, p.paint(verdictCell(n.Verdict)))
	p.fact("since", "%s", ago(n.Since))
	p.fact("id", "%s", n.ID)
	p.fact("role", "%s", n.Role)
	p.fact("labels", "%s", labelText(n.Labels))
	p.fact("addresses", "%s", strings.Join(n.Addresses, " "))
	p.fact("door", "%s", n.Door)
	if n.Hops != nil {
		p.fact("hops", "%d", *n.Hops)
	}
	p.fact("rtt", "%s", millis(n.RTT))
	p.fact("life", "%s", n.Life)
	p.fact("version", "%s", n.Version)
}

func printWhy(p *printer, d p2pnode.WhyDoc) {
	p.line("%s is %s", d.Name, p.paint(verdictCell(d.Verdict)))
	if !d.Since.IsZero() {
		p.fact("since", "%s", ago(d.Since))
	}
	for _, e := range d.Evidence {
		p.line("  %s  %s: %s", e.At.Local().Format(time.TimeOnly), e.Witness, e.Text)
	}
	if len(d.Evidence) == 0 {
		p.line("  nothing speaks against it")
	}
	for _, w := range d.Would {
		p.fact("would change", "%s", w)
	}
}

// thing is what an incident or a report is about.
func thing(node, service string) string {
	if service == "" {
		return node
	}
	return node + "/" + service
}

func byText(by p2pnode.By) string {
	text := string(by.Kind)
	if by.Kind == p2pnode.ByAgent && by.Node != "" {
		text += " on " + by.Node
	}
	if by.Fallback {
		text += ", since no agent came"
	}
	return text
}

func printIncidents(p *printer, list []p2pnode.Incident) {
	if len(list) == 0 {
		p.line("no incidents")
		return
	}
	head := []string{"incident", "what", "class", "state", "ago", "count", "by", "took"}
	if p.wide {
		head = append(head, "hops", "old", "new")
	}
	var rows [][]cell
	for _, i := range list {
		state := incidentCell(i.State)
		if i.Held != "" {
			state.text += " (" + string(i.Held) + ")"
		}
		row := []cell{c(i.ID), c(thing(i.Node, i.Service)), c(string(i.Class)), state, c(ago(i.DetectedAt)), c(itoa(i.Count)), c(byText(i.By)), c(millis(i.Timing.Total))}
		if p.wide {
			hops := ""
			if len(i.Trail) > 0 {
				hops = itoa(i.Hops)
			}
			row = append(row, c(hops), c(i.OldIncarnation), c(i.NewIncarnation))
		}
		rows = append(rows, row)
	}
	p.table(head, rows)
}

// printIncident tells the story of one: sentences, what it said last, and who
// reported what.
func printIncident(p *printer, t telling, name func(id string) string) {
	p.line("%s is %s", t.i.ID, p.paint(incidentCell(t.i.State)))
	for _, sentence := range t.sentences() {
		p.line("%s", sentence)
	}
	printExcerpt(p, t.i.Excerpt)
	if len(t.reports) == 0 {
		return
	}
	p.line("%s", plural(len(t.reports), "One report tells", "reports tell")+" this:")
	for _, r := range t.reports {
		said := first(words(r.Action, r.Result), prefixed("held: ", string(r.Held)), r.Observed)
		if r.Phase == p2pnode.PhaseVerified {
			said = first(words(r.Action, r.Result), "it is well")
		}
		p.line("  %s  %-8s  %s: %s", r.At.Local().Format("15:04:05.000"), r.Phase, name(r.Origin), said)
	}
}

// plural is one for one thing, else the number and many.
func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func printExcerpt(p *printer, e *p2pnode.Excerpt) {
	switch {
	case e == nil:
	case e.Sealed:
		p.line("%s", p.paint(cell{"its last words are sealed: " + first(e.Why, "only managers read them"), faint}))
	case len(e.Lines) > 0:
		p.line("its last words%s:", map[bool]string{true: " (secrets masked)"}[e.Masked > 0])
		for _, l := range e.Lines {
			p.line("  | %s", l)
		}
	}
}

func printReports(p *printer, list []p2pnode.Report) {
	if len(list) == 0 {
		p.line("no reports")
		return
	}
	var rows [][]cell
	for _, r := range list {
		rows = append(rows, []cell{
			c(r.At.Local().Format("15:04:05.000")), c(string(r.Phase)), c(thing(first(r.NodeName, r.Node), r.Service)),
			c(r.Observed), c(r.Action), c(r.Result), c(r.Incident),
		})
	}
	p.table([]string{"at", "phase", "what", "observed", "action", "result", "incident"}, rows)
}

func printPath(p *printer, d p2pnode.PathDoc) {
	var parts []string
	for i, h := range d.Hops {
		text := h.Node
		if i > 0 && h.RTT > 0 {
			text += " (" + millis(h.RTT) + ")"
		}
		parts = append(parts, text)
	}
	p.line("%s", strings.Join(parts, " > "))
	for _, alt := range d.Alternatives {
		p.fact("or", "%s", strings.Join(alt, " > "))
	}
}
