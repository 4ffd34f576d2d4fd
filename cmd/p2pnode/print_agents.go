package main

import (
	"fmt"
	"strings"
	"time"

	"p2pnode"
)

// printAgents lists orders, agents and what they go to. Wide says why each is where
// it is.
func printAgents(p *printer, d p2pnode.AgentsDoc) {
	if len(d.Orders) == 0 && len(d.Agents) == 0 {
		p.line("no agents; send some with: p2pnode agents launch --slo 15s")
		printFailures(p, d.Failures)
		return
	}
	for _, o := range d.Orders {
		p.fact("order "+o.ID, "%s; %s", promised(o), count(o.Agents, "agent"))
		p.fact("  measured", "%s", measured(o))
	}
	head := []string{"agent", "kind", "at", "next", "hops", "visited", "age", "incident"}
	if p.wide {
		head = append(head, "order", "why")
	}
	var rows [][]cell
	for _, a := range d.Agents {
		row := []cell{c(a.ID), c(a.Kind), c(a.At), c(a.Next), c(itoa(a.Hops)), c(itoa(a.Visited)), c(ago(a.Since)), c(a.Incident)}
		if p.wide {
			row = append(row, c(a.Order), c(whyThere(a)))
		}
		rows = append(rows, row)
	}
	p.table(head, rows)
	printFailures(p, d.Failures)
}

// printAgent is the page about the one agent in d.
func printAgent(p *printer, d p2pnode.AgentsDoc) {
	a := d.Agents[0]
	p.line("%s is on %s: it %s", a.ID, a.At, whyThere(a))
	p.fact("kind", "%s", a.Kind)
	for _, o := range d.Orders {
		if o.ID == a.Order {
			p.fact("order", "%s, given by %s: %s", o.ID, o.By, promised(o))
			p.fact("measured", "%s", measured(o))
		}
	}
	p.fact("way", "%s", strings.Join(a.Via, " > "))
	p.fact("moves", "%d, %s visited", a.Hops, count(a.Visited, "node"))
	p.fact("age", "%s", ago(a.Since))
	if a.Incident != "" {
		p.fact("incident", "%s", a.Incident)
		return
	}
	for _, f := range d.Failures {
		p.fact("goes not to", "%s: %s", whatFailed(f), notGoing(f))
	}
}

func promised(o p2pnode.OrderDoc) string {
	return fmt.Sprintf("every node within %s, for %g %% of the visits", o.SLO, 100*o.Confidence)
}

// measured is how the promise is kept, beside it.
func measured(o p2pnode.OrderDoc) string {
	var parts []string
	if o.WorstGap > 0 {
		parts = append(parts, "longest wait now "+millis(o.WorstGap))
	}
	if o.WorstHour > 0 {
		parts = append(parts, "longest of the last hour "+millis(o.WorstHour))
	}
	if o.Visits > 0 {
		parts = append(parts, fmt.Sprintf("%d visits, %d late (%.4g %% in time)", o.Visits, o.Late, 100*float64(o.Visits-o.Late)/float64(o.Visits)))
	}
	return strings.Join(parts, "; ")
}

// whyThere is what an agent does where it is, and why, as a verb with the rest of
// its sentence.
func whyThere(a p2pnode.AgentDoc) string {
	since := prefixed(" for ", ago(a.DoingSince))
	what := "the node process of " + a.Target
	if a.Service != "" {
		what = a.Service + " of " + a.Target
	}
	switch a.Doing {
	case "visiting":
		if a.Next == "" {
			return "looks round" + since + ", then goes on to the node that waits longest"
		}
		return fmt.Sprintf("goes to %s, where nobody has been for %s", a.Next, first(short(time.Duration(a.Unseen*float64(time.Millisecond))), "long")) + by(a.Via)
	case "travelling":
		return "is on its way to repair " + what + since + by(a.Via)
	case "at-door":
		return "knocks at the door of " + a.Target + since + ", and has no answer yet that it can act on"
	case "asking":
		return "has asked exec to look at " + what + since
	case "awaiting":
		return "waits" + since + " for " + what + " to be up: exec has restarted it"
	case "settling":
		return "stays" + since + " to see whether " + what + " holds"
	}
	return "does not say why"
}

func by(via []string) string {
	if len(via) < 3 {
		return ""
	}
	return ", by " + strings.Join(via, " > ")
}

func printFailures(p *printer, list []p2pnode.FailureDoc) {
	for _, f := range list {
		p.line("%s %s: %s", p.paint(cell{"failure:", bad}), whatFailed(f), notGoing(f))
	}
}

// whatFailed is what a failure is about.
func whatFailed(f p2pnode.FailureDoc) string {
	what := "the node process of " + f.Node
	switch {
	case f.Class == p2pnode.ClassUnreachable:
		what = "host " + f.Node
	case f.Service != "":
		what = f.Service + " of " + f.Node
	}
	text := fmt.Sprintf("%s is %s", what, f.Class) + prefixed(" for ", ago(f.Since))
	if f.Incident != "" {
		text += " (" + f.Incident + ")"
	}
	return text
}

// notGoing is why nobody, or nobody else, goes to a failure now.
func notGoing(f p2pnode.FailureDoc) string {
	left := ""
	if d := time.Until(f.Until); d > 0 {
		left = short(d)
	}
	switch f.Wait {
	case "claimed":
		return fmt.Sprintf("%s has it in hand (attempt %d: %s), so all others leave it alone", f.Agent, f.Attempt+1, f.Phase)
	case "resting":
		return "it was seen to or refused just now, and nobody goes again" + prefixed(" for ", left)
	case "rank":
		return "whoever is next by rank is about to go"
	case "observe":
		return "whoever is next by rank is about to go; this host only observes and sends nobody"
	case "unreachable":
		return "nobody reaches it, and nothing is restarted on a guess"
	case "brake":
		return "nobody reaches it, and the brake is on: too many are out of reach at once, so nobody acts from afar"
	}
	return "nobody goes (" + f.Wait + ")"
}
