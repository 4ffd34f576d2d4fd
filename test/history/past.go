package history

import (
	"slices"
	"time"

	"p2pnode"
)

// Cut is the Reason of a fault that took nothing but the network away: nothing on
// the host is broken, so it explains no act.
const Cut = "cut"

// past is a history, prepared for the rules.
type past struct {
	events  []p2pnode.HistoryEvent
	faults  []p2pnode.HistoryEvent
	spans   map[thing][]span
	reports []reported
}

// span is one incarnation of a service, or one life of a node process, from its
// first line to the first line of the next.
type span struct {
	name     string
	from, to time.Time
	hit      []p2pnode.HistoryEvent // the faults that it took
}

// reported is one report, once, whoever stored it.
type reported struct {
	p2pnode.HistoryEvent
	stored []string // nodes that hold it
	lies   []p2pnode.HistoryEvent
}

// early is how long before a life's own first line a fault may have hit it: it is
// seen from outside before it has written anything.
const early = 2 * time.Second

func newPast(events []p2pnode.HistoryEvent) *past {
	p := &past{events: events, spans: map[thing][]span{}}
	for _, e := range events {
		switch {
		case e.Event == p2pnode.HistFault && e.Proc == Harness:
			p.faults = append(p.faults, e)
		case e.Event == p2pnode.HistLife:
			p.begin(thing{e.Node, p2pnode.SelfNode}, e.New, e.At)
		case e.Event == p2pnode.HistStarted && e.Service != p2pnode.SelfNode:
			p.begin(of(e), e.New, e.At)
		case e.Event == p2pnode.HistAdopted && e.Service != p2pnode.SelfNode:
			p.begin(of(e), e.Old, e.At)
		}
	}
	for _, f := range p.faults {
		p.hit(f)
	}
	p.reports = reportsOf(events)
	return p
}

func (p *past) begin(t thing, name string, at time.Time) {
	list := p.spans[t]
	if n := len(list); n > 0 {
		if list[n-1].name == name {
			return
		}
		list[n-1].to = at
	}
	p.spans[t] = append(list, span{name: name, from: at})
}

// hit gives a fault to what it hit: the incarnation that it names, else the one
// that lived then. A fault just before the first line of a life may mean that one.
func (p *past) hit(f p2pnode.HistoryEvent) {
	list := p.spans[thing{f.Target, f.Service}]
	for i := range list {
		s := &list[i]
		// In a simulation the end and the next start may bear the same time.
		during := s.from.Before(f.At) && (s.to.IsZero() || !f.At.After(s.to))
		soon := !s.from.Before(f.At) && s.from.Sub(f.At) <= early && f.Service == p2pnode.SelfNode
		if f.Old == s.name || f.Old == "" && (during || soon) {
			s.hit = append(s.hit, f)
		}
	}
}

// struck are the names that a fault hit; none where the history knows nothing of
// that thing.
func (p *past) struck(f p2pnode.HistoryEvent) []string {
	var out []string
	for _, s := range p.spans[thing{f.Target, f.Service}] {
		if slices.ContainsFunc(s.hit, func(h p2pnode.HistoryEvent) bool { return h.At.Equal(f.At) }) {
			out = append(out, s.name)
		}
	}
	return out
}

// explained reports whether a fault accounts for something that happened at time
// at to incarnation old of t: a fault that hit it, or one of its whole host or of
// that host's exec, by which things are found dead later.
func (p *past) explained(t thing, old string, at time.Time) bool {
	for _, f := range p.faults {
		if f.Target != t.node || f.At.After(at) || f.Reason == Cut {
			continue
		}
		if f.Service == "" || f.Service == p2pnode.SelfExec {
			return true
		}
		if f.Service == t.service && (len(p.spans[t]) == 0 || old == "" || slices.Contains(p.struck(f), old)) {
			return true
		}
	}
	return false
}

// faulty reports whether anything that is wrong with node at that time is known.
func (p *past) faulty(node string, at time.Time) bool {
	return slices.ContainsFunc(p.faults, func(f p2pnode.HistoryEvent) bool { return f.Target == node && !f.At.After(at) })
}

func reportsOf(events []p2pnode.HistoryEvent) []reported {
	byID := map[string]*reported{}
	var order []string
	for _, e := range events {
		if e.Event != p2pnode.HistReport {
			continue
		}
		r, ok := byID[e.Report]
		if !ok {
			r = &reported{HistoryEvent: e}
			byID[e.Report] = r
			order = append(order, e.Report)
		}
		if e.Phase != r.Phase || e.Incident != r.Incident || e.Old != r.Old || e.New != r.New {
			r.lies = append(r.lies, e)
		}
		if !slices.Contains(r.stored, e.Node) {
			r.stored = append(r.stored, e.Node)
		}
	}
	out := make([]reported, 0, len(order))
	for _, id := range order {
		out = append(out, *byID[id])
	}
	return out
}

// things is what r is about, as exec's lines name it: a report about the node
// process has no service.
func (r reported) thing() thing {
	if r.Service == "" {
		return thing{r.Target, p2pnode.SelfNode}
	}
	return thing{r.Target, r.Service}
}
