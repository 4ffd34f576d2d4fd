package history

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"p2pnode"
)

// rules are the promises, each judged alone.
var rules = []func(*past, Options) []Violation{
	oneCopy, lookedBeforeActing, incarnationsRise, withinBudget, actorIsNamed, healthyLeftAlone,
	brakeHolds, claimsHaveVerdicts, healthyNotAccused, agentsOnce, missionsTold,
	faultsReported, reportsHaveFaults, reportsAreUnique, storesAgree, oneViewAtTheEnd,
}

// thing is a service, or one of a host's own processes, on a node.
type thing struct{ node, service string }

func of(e p2pnode.HistoryEvent) thing { return thing{e.Node, e.Service} }

func broken(rule string, e p2pnode.HistoryEvent, format string, args ...any) Violation {
	return Violation{Rule: rule, At: e.At, Node: e.Node, Text: fmt.Sprintf(format, args...)}
}

// oneCopy: nothing is started before the end of its last copy was seen.
func oneCopy(p *past, _ Options) (out []Violation) {
	running := map[thing]p2pnode.HistoryEvent{}
	for _, e := range p.events {
		switch e.Event {
		case p2pnode.HistStarted:
			if last, ok := running[of(e)]; ok && last.New != e.New {
				out = append(out, broken("one-copy", e, "%s pid %d (%s) started while pid %d (%s) was not seen to end",
					e.Service, e.PID, e.New, last.PID, last.New))
			}
			running[of(e)] = e
		case p2pnode.HistAdopted:
			e.New = e.Old
			running[of(e)] = e
		case p2pnode.HistEnded:
			if last, ok := running[of(e)]; ok && (e.Old == "" || e.Old == last.New) {
				delete(running, of(e))
			}
		}
	}
	return out
}

// lookWindow is how old exec's own look at a thing may be when it acts on it.
const lookWindow = 10 * time.Second

// lookedBeforeActing: exec restarts nothing on somebody's word. A restart of
// Old follows a look of the same exec at the same Old.
func lookedBeforeActing(p *past, _ Options) (out []Violation) {
	looks := map[thing]p2pnode.HistoryEvent{}
	for _, e := range p.events {
		switch e.Event {
		case p2pnode.HistLooked:
			looks[of(e)] = e
		case p2pnode.HistStarted:
			if e.Old == "" {
				continue // a first start replaces nothing
			}
			l, ok := looks[of(e)]
			if !ok || l.Old != e.Old || e.At.Sub(l.At) > lookWindow {
				out = append(out, broken("looked-before-acting", e, "%s restarted from %s by %s without a look at it first", e.Service, e.Old, e.By.Kind))
			}
			delete(looks, of(e)) // one look, one act
		}
	}
	return out
}

// incarnationsRise: N of one epoch and boot of one node never go back or repeat.
func incarnationsRise(p *past, _ Options) (out []Violation) {
	last := map[thing]p2pnode.Incarnation{}
	boots := map[string]uint64{}
	for _, e := range p.events {
		switch {
		case e.Event == p2pnode.HistLife:
			l, err := p2pnode.ParseLife(e.New)
			if err != nil || l.Boot <= boots[e.Node] {
				out = append(out, broken("incarnations-rise", e, "life %s after boot %d", e.New, boots[e.Node]))
				continue
			}
			boots[e.Node] = l.Boot
		case e.Event == p2pnode.HistStarted && !strings.HasPrefix(e.Service, "@"):
			i, err := p2pnode.ParseIncarnation(e.New)
			prev := last[of(e)]
			if err != nil || i.IsZero() || (i.Epoch == prev.Epoch && i.N <= prev.N) {
				out = append(out, broken("incarnations-rise", e, "%s started as %q after %q", e.Service, e.New, prev))
				continue
			}
			last[of(e)] = i
		}
	}
	return out
}

// budgetStarts in budgetWindow is what a service may cost its host.
const (
	budgetStarts = 20
	budgetWindow = 10 * time.Minute
)

// withinBudget: whoever asks, a thing is not restarted without end. A person's
// starts are his own affair.
func withinBudget(p *past, _ Options) (out []Violation) {
	starts := map[thing][]time.Time{}
	for _, e := range p.events {
		if e.Event != p2pnode.HistStarted || e.Old == "" || e.By.Kind == p2pnode.ByOperator {
			continue
		}
		recent := slices.DeleteFunc(starts[of(e)], func(at time.Time) bool { return e.At.Sub(at) >= budgetWindow })
		if recent = append(recent, e.At); len(recent) > budgetStarts {
			out = append(out, broken("within-budget", e, "%s was restarted %d times in %s", e.Service, len(recent), budgetWindow))
		}
		starts[of(e)] = recent
	}
	return out
}

// actorIsNamed: every restart says who did it, and an agent says where it was.
func actorIsNamed(p *past, _ Options) (out []Violation) {
	for _, e := range p.events {
		if e.Event != p2pnode.HistStarted || e.Old == "" {
			continue
		}
		if e.By.Kind == "" || (e.By.Kind == p2pnode.ByAgent && e.By.Node == "") {
			out = append(out, broken("actor-is-named", e, "%s restarted by %+v", e.Service, e.By))
		}
	}
	return out
}

// healthyLeftAlone: exec kills only what somebody broke or asked it to stop.
func healthyLeftAlone(p *past, _ Options) (out []Violation) {
	if len(p.faults) == 0 {
		return nil
	}
	stopping := map[thing]bool{}
	for _, e := range p.events {
		switch e.Event {
		case p2pnode.HistStopping:
			stopping[of(e)] = true
		case p2pnode.HistStarted:
			delete(stopping, of(e))
		case p2pnode.HistKilled:
			if !stopping[of(e)] && !stopping[thing{e.Node, ""}] && !p.explained(of(e), e.Old, e.At) {
				out = append(out, broken("healthy-left-alone", e, "%s (%s) was killed as %s and nobody had touched it", e.Service, e.Old, e.Class))
			}
		}
	}
	return out
}
