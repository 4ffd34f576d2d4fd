package main

import (
	"fmt"
	"strings"
	"time"

	"p2pnode"
)

// telling is one incident in sentences, in the order in which somebody who was
// woken up asks: what failed and when, who noticed and how, who went and which
// way, what was done, whether it held, what it cost.
type telling struct {
	i       p2pnode.Incident
	reports []p2pnode.Report // of its last failure, oldest first
	now     time.Time
}

func (t telling) sentences() []string {
	var out []string
	for _, s := range []string{t.failed(), t.again(), t.noticed(), t.went(), t.done(), t.waits(), t.ended(), t.cost()} {
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}

// subject is what failed, as the beginning of a sentence.
func (t telling) subject() string {
	switch {
	case t.i.Kind == p2pnode.KindHost:
		return "Host " + t.i.Node
	case t.i.Service == p2pnode.SelfExec:
		return "The exec service of " + t.i.Node
	case t.i.Service == "":
		return "The node process of " + t.i.Node
	}
	return "Service " + t.i.Service + " on " + t.i.Node
}

// deeds say for each class what happened.
var deeds = map[p2pnode.Class]string{
	p2pnode.ClassExited: "ended by itself", p2pnode.ClassSignalled: "was ended by a signal",
	p2pnode.ClassFrozen: "was stopped by a signal and stayed so", p2pnode.ClassHung: "hung: it ran and did not answer",
	p2pnode.ClassMissing: "could not be started at all", p2pnode.ClassCheckFailed: "failed its check",
	p2pnode.ClassProcessDead: "died", p2pnode.ClassExecDead: "died", p2pnode.ClassUnreachable: "could not be reached",
	p2pnode.ClassIdentityChanged: "came back with another identity", p2pnode.ClassDuplicateIdentity: "was there twice with one identity",
}

func (t telling) failed() string {
	text := t.subject() + " " + first(deeds[t.i.Class], "failed")
	if how := exitText(t.i.Exit); how != "" && how != "unknown" {
		text += " (" + how + ")"
	}
	if t.i.DetectedAt.IsZero() {
		return text + "."
	}
	return fmt.Sprintf("%s at %s, %s ago.", text, clock(t.i.DetectedAt), short(t.now.Sub(t.i.DetectedAt)))
}

// clock is a time with its date, as precise as it was measured.
func clock(at time.Time) string { return at.Local().Format("15:04:05.000 on 2006-01-02") }

func (t telling) again() string {
	if t.i.Count < 2 {
		return ""
	}
	return fmt.Sprintf("It is failure %d in a row since %s; each came soon after the repair of the one before.", t.i.Count, clock(t.i.FirstAt))
}

// signs say for each class how it was seen.
var signs = map[p2pnode.Class]string{
	p2pnode.ClassExited: "Its exec saw the process end", p2pnode.ClassSignalled: "Its exec saw the process end",
	p2pnode.ClassFrozen: "Its exec heard of the stop from the kernel and waited out its stop_grace", p2pnode.ClassHung: "Its heartbeat or check was missed and its processes made no progress",
	p2pnode.ClassMissing: "Its exec could not run the program", p2pnode.ClassCheckFailed: "Its check failed, time after time",
	p2pnode.ClassProcessDead: "Its neighbours lost their links to it, and its door said that this life was over",
	p2pnode.ClassExecDead:    "The door of its host, or its node process, found nobody holding exec's lock", p2pnode.ClassDuplicateIdentity: "Two processes signed with its key by turns; nobody acts on either, each host heals itself",
	p2pnode.ClassUnreachable: "Witnesses on different hosts got no answer to their links or probes",
}

func (t telling) noticed() string {
	sign := signs[t.i.Class]
	switch {
	case sign == "":
		return ""
	case t.i.Timing.Detect > 0:
		return fmt.Sprintf("%s; who could act knew after %s.", sign, millis(t.i.Timing.Detect))
	}
	return sign + "."
}

func (t telling) went() string {
	i := t.i
	switch {
	case i.By.Kind == p2pnode.ByOperator:
		return "An operator restarted it."
	case i.By.Kind == p2pnode.ByExec && i.Service == p2pnode.SelfExec:
		return "The door or the node process of the same host started it again; what it had supervised lived on and was adopted."
	case i.By.Kind == p2pnode.ByExec && i.By.Fallback:
		return "No agent came in time, so its own exec acted alone."
	case i.By.Kind == p2pnode.ByExec:
		return "Its own exec acted by itself."
	case i.By.Kind != p2pnode.ByAgent && t.looked() != "":
		return "Agent " + t.looked() + " took it up" + t.way() + "."
	case i.By.Kind != p2pnode.ByAgent:
		return ""
	case i.By.Node == i.Node && i.Hops == 0:
		return fmt.Sprintf("The resident agent of %s (%s) took it on the spot, without a hop.", i.Node, i.By.Agent)
	}
	if i.Hops == 0 {
		return fmt.Sprintf("Agent %s was on %s already and knocked at the door of %s: no hop was needed.", i.By.Agent, first(i.By.Node, "a neighbour"), i.Node)
	}
	return fmt.Sprintf("Agent %s went%s and knocked at the door of %s from %s.", i.By.Agent, t.way(), i.Node, first(i.By.Node, "there"))
}

// looked is the agent that reported on it, where nobody has acted.
func (t telling) looked() string {
	for _, r := range t.reports {
		if r.Agent != "" {
			return r.Agent
		}
	}
	return ""
}

func (t telling) way() string {
	if len(t.i.Trail) < 2 {
		return ""
	}
	text := fmt.Sprintf(" by %s (%s", strings.Join(t.i.Trail, " > "), count(t.i.Hops, "hop"))
	if t.i.Direct {
		text += ", dialled for want of a route"
	}
	return text + prefixed(", ", millis(t.i.Timing.Travel)) + ")"
}

func (t telling) done() string {
	i := t.i
	switch {
	case i.By.Kind == "" && i.RecoveredAt.IsZero():
		return ""
	case i.By.Kind == "":
		return fmt.Sprintf("It was back at %s without anybody's doing.", clock(i.RecoveredAt))
	case i.RecoveredAt.IsZero():
		return "Exec looked for itself and started it again; it has not come up yet."
	}
	text := "Exec looked for itself and started it again"
	if i.Service == p2pnode.SelfExec {
		text = "It was started where exec's lock was free"
	}
	if total := millis(i.Timing.Total); total != "" {
		text += "; it ran " + total + " after the failure"
	}
	if i.NewIncarnation != "" {
		text += fmt.Sprintf(", as %s in place of %s", i.NewIncarnation, first(i.OldIncarnation, "what was there"))
	}
	return text + "."
}

// waits says why nobody acts, and what ends that.
func (t telling) waits() string {
	i := t.i
	target := first(i.Service, p2pnode.SelfNode)
	switch i.Held {
	case p2pnode.HeldMaintenance:
		return fmt.Sprintf("Nobody acts: it is in maintenance. On %s, p2pnode maintenance off %s ends that.", i.Node, target)
	case p2pnode.HeldObserve:
		return fmt.Sprintf("Nobody acts, it would have been restarted: observe only. On %s, p2pnode observe off %s ends that.", i.Node, target)
	case p2pnode.HeldOff:
		return "Nobody acts, it would have been restarted: its configuration says recover: off."
	case p2pnode.HeldBrake:
		return "Nobody acts from afar: the brake is on, since too many members are unreachable at once. Look at the network first."
	case p2pnode.HeldBudget:
		return "It keeps failing and has used up its starts: exec tries it about once a minute."
	case p2pnode.HeldBackoff:
		return "It failed again so soon that exec waits before the next start."
	case p2pnode.HeldTraced:
		return "Nobody acts: a debugger is attached to it."
	}
	switch i.State {
	case p2pnode.IncidentOpen:
		return "Nobody has acted yet."
	case p2pnode.IncidentActing:
		return "That is going on now."
	}
	return ""
}

func (t telling) ended() string {
	i := t.i
	switch {
	case i.State == p2pnode.IncidentFailed:
		return "The repair failed" + prefixed(": ", t.why()) + "."
	case !i.VerifiedAt.IsZero():
		return fmt.Sprintf("Looked at again%s, it was well: verified at %s.", prefixed(" after ", millis(i.Timing.Verify)), clock(i.VerifiedAt))
	case i.State == p2pnode.IncidentRecovered:
		return "Whether it stays up is looked at a few seconds later; that has not been reported yet."
	}
	return ""
}

// why is the reason that the last failed report gives.
func (t telling) why() (text string) {
	for _, r := range t.reports {
		if r.Phase == p2pnode.PhaseFailed {
			text = r.Result
		}
	}
	return text
}

func (t telling) cost() string {
	steps := strings.ReplaceAll(timingText(t.i.Timing), " · ", ", ")
	if steps == "" {
		return ""
	}
	return "What it cost: " + steps + prefixed("; from the failure until it ran again ", millis(t.i.Timing.Total)) + "."
}
