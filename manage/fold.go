package manage

import (
	"cmp"
	"slices"
	"time"

	"p2pnode"
)

// Fold makes incidents of reports: one for each failure, or for each row of failures
// that follow each other (see repeats), newest first. name turns a node's ID into
// what people call it. The same set of reports gives the same incidents in whatever
// order they come.
func Fold(reports []p2pnode.Report, name func(id string) string) []p2pnode.Incident {
	byID := map[string][]p2pnode.Report{}
	for _, r := range reports {
		byID[r.Incident] = append(byID[r.Incident], r)
	}
	out := make([]p2pnode.Incident, 0, len(byID))
	for _, group := range byID {
		out = append(out, fold(group, name))
	}
	out = repeats(out)
	slices.SortFunc(out, func(a, b p2pnode.Incident) int {
		return cmp.Or(b.DetectedAt.Compare(a.DetectedAt), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// weight says how much a phase decides: later steps of the story outweigh
// earlier ones where clocks of different hosts cannot tell.
var weight = map[p2pnode.Phase]int{
	p2pnode.PhaseObserved: 1, p2pnode.PhaseRefused: 2, p2pnode.PhaseFailed: 3, p2pnode.PhaseActed: 4, p2pnode.PhaseVerified: 5,
}

// fold tells the story of one failure. Facts of the act (who, how far, how long)
// come from the report of the act; a verification by somebody else adds only that
// it held.
func fold(group []p2pnode.Report, name func(string) string) p2pnode.Incident {
	slices.SortFunc(group, func(a, b p2pnode.Report) int {
		return cmp.Or(cmp.Compare(weight[a.Phase], weight[b.Phase]), a.At.Compare(b.At),
			cmp.Compare(a.Origin, b.Origin), cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Seq, b.Seq))
	})
	first := group[0]
	i := p2pnode.Incident{
		ID: first.Incident, Kind: first.Kind, NodeID: first.Node, Node: nodeName(first, name), Service: first.Service,
		State: p2pnode.IncidentOpen, Count: 1, Reports: len(group),
	}
	for _, r := range group {
		apply(&i, r, name)
	}
	i.State, i.Held = state(group)
	if i.State == p2pnode.IncidentRecovered || i.State == p2pnode.IncidentFailed {
		i.Timing = total(i)
	}
	return i
}

func nodeName(r p2pnode.Report, name func(string) string) string {
	if n := name(r.Node); n != "" {
		return n
	}
	if r.NodeName != "" {
		return r.NodeName
	}
	return r.Node
}

// apply adds what r says; group order makes the most decisive report come last.
func apply(i *p2pnode.Incident, r p2pnode.Report, name func(string) string) {
	ready := r.Phase == p2pnode.PhaseVerified && r.Kind == p2pnode.KindService && r.New != "" && r.New == i.NewIncarnation && r.RecoveredAt.After(i.RecoveredAt)
	i.DetectedAt = earliest(i.DetectedAt, r.DetectedAt)
	if r.Class != "" {
		i.Class = r.Class
	}
	if r.Old != "" {
		i.OldIncarnation = r.Old
	}
	if r.New != "" {
		i.NewIncarnation = r.New
	}
	if r.Exit != nil {
		i.Exit = r.Exit
	}
	if readable(r.Excerpt) || i.Excerpt == nil {
		i.Excerpt = cmp.Or(r.Excerpt, i.Excerpt)
	}
	i.VerifiedAt = earliest(i.VerifiedAt, r.VerifiedAt)
	acted := r.Phase == p2pnode.PhaseActed && !r.RecoveredAt.IsZero()
	if (acted && (i.RecoveredAt.IsZero() || r.RecoveredAt.Before(i.RecoveredAt))) || i.RecoveredAt.IsZero() {
		tellAct(i, r, name)
	} else if len(i.Trail) == 0 && r.Agent != "" && r.Agent == i.By.Agent {
		tellWay(i, r, name) // somebody else told of the act before it could
	}
	if ready && !i.RecoveredAt.IsZero() {
		// The act knew when the process started, who looked at it again when it was ready.
		i.RecoveredAt, i.Timing.Total = r.RecoveredAt, r.Timing.Total
	}
	i.Timing = longer(i.Timing, r.Timing)
}

// tellAct takes over who acted and how he came there. Others who looked at his work
// know that it held, and nothing of his way.
func tellAct(i *p2pnode.Incident, r p2pnode.Report, name func(string) string) {
	i.RecoveredAt = r.RecoveredAt
	if i.By.Agent != "" && r.Agent != i.By.Agent && (r.By.Kind == "" || r.By.Agent == i.By.Agent) {
		return
	}
	if r.By.Kind != "" {
		i.By = r.By
		i.By.Node = cmp.Or(name(r.By.Node), r.By.Node)
	}
	i.Hops, i.Direct, i.Trail = 0, false, nil
	if r.Agent != "" && (r.By.Agent == "" || r.By.Agent == r.Agent) { // else nobody went, or it is another's way
		tellWay(i, r, name)
	}
}

func tellWay(i *p2pnode.Incident, r p2pnode.Report, name func(string) string) {
	i.Hops, i.Direct = r.Hops, r.Direct
	for _, id := range r.Trail {
		i.Trail = append(i.Trail, cmp.Or(name(id), id))
	}
}

func readable(e *p2pnode.Excerpt) bool { return e != nil && !e.Sealed }

func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// longer keeps each step's first measured value: the act's report has the early
// steps, the verification's the last one.
func longer(a, b p2pnode.Timing) p2pnode.Timing {
	return p2pnode.Timing{
		Detect: cmp.Or(a.Detect, b.Detect), Dispatch: cmp.Or(a.Dispatch, b.Dispatch), Travel: cmp.Or(a.Travel, b.Travel),
		Act: cmp.Or(a.Act, b.Act), Verify: cmp.Or(a.Verify, b.Verify), Total: cmp.Or(a.Total, b.Total),
	}
}

// total fills in the whole outage where no report measured it.
func total(i p2pnode.Incident) p2pnode.Timing {
	t := i.Timing
	if d := i.RecoveredAt.Sub(i.DetectedAt); t.Total == 0 && !i.RecoveredAt.IsZero() && d > 0 {
		t.Total = p2pnode.Milliseconds(d)
	}
	return t
}

// state is where the story stands. A failed attempt counts as the end only while
// no act came after it.
func state(group []p2pnode.Report) (p2pnode.IncidentState, p2pnode.Held) {
	var acted, failed, waiting *p2pnode.Report
	for n := range group {
		r := &group[n]
		switch r.Phase {
		case p2pnode.PhaseVerified:
			return p2pnode.IncidentRecovered, ""
		case p2pnode.PhaseActed:
			acted = r
		case p2pnode.PhaseFailed:
			failed = r
		default:
			waiting = r
		}
	}
	switch {
	case failed != nil && (acted == nil || failed.At.After(acted.At)):
		return p2pnode.IncidentFailed, ""
	case acted != nil && acted.RecoveredAt.IsZero():
		return p2pnode.IncidentActing, ""
	case acted != nil:
		return p2pnode.IncidentRecovered, ""
	case waiting.Held == p2pnode.HeldObserve || waiting.Held == p2pnode.HeldOff:
		return p2pnode.IncidentObserved, waiting.Held
	}
	return p2pnode.IncidentOpen, waiting.Held
}
