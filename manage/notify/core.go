package notify

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"p2pnode"
)

// Event is what a notice is about.
type Event string

// The events, as `on:` names them.
const (
	Opened    Event = "opened"
	Recovered Event = "recovered"
	Failed    Event = "failed"
	Brake     Event = "brake"
	Degraded  Event = "degraded"
)

// Events lists all events.
func Events() []Event { return []Event{Opened, Recovered, Failed, Brake, Degraded} }

// Notice is what a program reads on its stdin and a webhook in its body.
type Notice struct {
	Schema   string              `json:"schema"`
	Event    Event               `json:"event"`
	At       time.Time           `json:"at"`
	Node     string              `json:"node"` // which tells
	Text     string              `json:"text"` // one sentence
	Incident *p2pnode.Incident   `json:"incident,omitempty"`
	Brake    *p2pnode.BrakeState `json:"brake,omitempty"`
	Degraded []string            `json:"degraded,omitempty"` // empty: it is over
}

// core decides what is worth a notice. It is pure: time is an argument.
type core struct {
	node     string
	began    time.Time // of all telling; what had failed before is for others to tell
	things   map[thing]*story
	degraded []string
}

// thing is what fails: a service, a node process, a host.
type thing struct {
	node, service string
	kind          p2pnode.IncidentKind
}

// story is a thing's trouble as far as it was told.
type story struct {
	incident p2pnode.Incident
	heard    time.Time
	opened   bool
	recalled bool  // from memory: how it stands is not known yet
	told     Event // the last word on how it stands
	at       map[Event]time.Time
}

func newCore(node string) *core { return &core{node: node, things: map[thing]*story{}} }

// incident takes in how an incident stands.
func (c *core) incident(now time.Time, i p2pnode.Incident) []Notice {
	if at := latest(i); now.Sub(at) > tooOld || at.Before(c.began) {
		return nil
	}
	of := thing{i.NodeID, i.Service, i.Kind}
	s := c.things[of]
	if s == nil || !s.sameRow(i) {
		c.room()
		s = &story{at: map[Event]time.Time{}, opened: i.DetectedAt.Before(c.began)}
		c.things[of] = s
	}
	switch {
	case i.ID == s.incident.ID && i.DetectedAt.IsZero():
		i.DetectedAt = s.incident.DetectedAt // the end alone was heard of by this life
	case i.DetectedAt.Before(s.incident.DetectedAt):
		return nil // a late word on an earlier failure of the row
	}
	s.incident, s.heard, s.recalled = i, now, false
	return c.tell(now, s)
}

func latest(i p2pnode.Incident) time.Time {
	at := i.DetectedAt
	for _, t := range []time.Time{i.RecoveredAt, i.VerifiedAt} {
		if t.After(at) {
			at = t
		}
	}
	return at
}

// sameRow reports whether i goes on with the story that s tells.
func (s *story) sameRow(i p2pnode.Incident) bool {
	was := s.incident
	return i.ID == was.ID || i.DetectedAt.Before(was.DetectedAt) ||
		was.NewIncarnation != "" && was.NewIncarnation == i.OldIncarnation && i.DetectedAt.Sub(was.RecoveredAt) < sameRow
}

// room forgets the thing that was heard of longest ago when there are too many.
func (c *core) room() {
	if len(c.things) < maxThings {
		return
	}
	var oldest thing
	var heard time.Time
	for of, s := range c.things {
		if heard.IsZero() || s.heard.Before(heard) {
			oldest, heard = of, s.heard
		}
	}
	delete(c.things, oldest)
}

// tell says what of a story was not told yet. What people asked to be left alone is
// no news to them.
func (c *core) tell(now time.Time, s *story) (out []Notice) {
	i := s.incident
	if i.Held == p2pnode.HeldMaintenance {
		return nil
	}
	if !s.opened {
		s.opened = true
		out = append(out, c.about(now, Opened, i))
	}
	stands := Event("")
	switch {
	case i.State == p2pnode.IncidentFailed:
		stands = Failed
	case i.State == p2pnode.IncidentRecovered && !i.VerifiedAt.IsZero():
		stands = Recovered
	}
	if stands == "" || stands == s.told || now.Sub(s.at[stands]) < quiet {
		return out
	}
	s.told, s.at[stands] = stands, now
	return append(out, c.about(now, stands, i))
}

// tick tells what had to wait, and forgets stories that are history; one that goes on
// is remembered, so that its end does not look like a beginning.
func (c *core) tick(now time.Time) (out []Notice) {
	for of, s := range c.things {
		if !s.recalled {
			out = append(out, c.tell(now, s)...)
		}
		if quietFor := now.Sub(s.heard); quietFor > keptOpen || quietFor > tooOld && s.told != "" {
			delete(c.things, of)
		}
	}
	slices.SortFunc(out, func(a, b Notice) int { return strings.Compare(a.Text, b.Text) })
	return out
}

func (c *core) about(now time.Time, e Event, i p2pnode.Incident) Notice {
	what := "the node process of " + i.Node
	switch {
	case i.Kind == p2pnode.KindHost:
		what = "host " + i.Node
	case i.Service != "":
		what = i.Service + " on " + i.Node
	}
	text := fmt.Sprintf("%s failed: %s", what, i.Class)
	switch {
	case e == Recovered:
		text = what + " is back and stays up"
	case e == Failed:
		text = "the repair of " + what + " failed"
	case i.Held != "" && i.Held != p2pnode.HeldBackoff: // that is over in seconds
		text += "; nobody acts: " + string(i.Held)
	}
	return c.notice(now, e, text, func(n *Notice) { n.Incident = &i })
}

// brake says that the brake went on or off.
func (c *core) brake(now time.Time, b p2pnode.BrakeState) Notice {
	text := "the brake is off"
	if b.On {
		text = fmt.Sprintf("the brake is on: %d of %d members are unreachable, nobody acts on them from afar", b.Unreachable, b.Of)
	}
	return c.notice(now, Brake, text, func(n *Notice) { n.Brake = &b })
}

// host takes in what of this host does not work as it should.
func (c *core) host(now time.Time, degraded []string) []Notice {
	if slices.Equal(degraded, c.degraded) {
		return nil
	}
	c.degraded = slices.Clone(degraded)
	text := c.node + " is no longer degraded"
	if len(degraded) > 0 {
		text = c.node + " is degraded: " + strings.Join(degraded, ", ")
	}
	return []Notice{c.notice(now, Degraded, text, func(n *Notice) { n.Degraded = degraded })}
}

func (c *core) notice(now time.Time, e Event, text string, fill func(*Notice)) Notice {
	n := Notice{Schema: p2pnode.Schema("notice"), Event: e, At: now, Node: c.node, Text: text}
	fill(&n)
	return n
}
