package agent

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"p2pnode"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Stories are failures that somebody told of, or went to, and whose end
// nobody has told yet: a host that was refused help, or came back by itself, or
// whose agent was lost. When the subject is well again somebody tells the end, by
// rank, unless the store has it by then. Hosts that nobody reaches are told of here
// from the beginning: no agent goes to them, and nobody ever acts. What was open at a
// host that is forgotten ends as failed: nobody will ever know better.
type story struct {
	failure
	kind           p2pnode.IncidentKind
	name           string    // of the subject, as it was called
	at             time.Time // this node knows of it
	acted, watched bool      // somebody did, or only said what would be done
	wellAt         time.Time // since when the subject is well, or will never be; zero: neither
}

// hostSide is what an incident ID names where a host as a whole is meant.
const hostSide = "@host"

// hostStory is the newest unreachability of one life of a node.
type hostStory struct {
	life string
	told int    // unreachabilities of this life that are over
	open string // incident
}

// onReport takes in what was stored here, whoever wrote it.
func (c *core) onReport(r p2pnode.Report) {
	target, err := peer.Decode(r.Node)
	if err != nil {
		return
	}
	over := r.Phase == p2pnode.PhaseVerified
	if ownService(r.Kind, r.Service) {
		if target != c.self && len(c.stories) >= maxStories/2 {
			return // its resident tells the end, unless its host is lost
		}
		// What others say because they cannot reach this host is not its last word.
		over = over || r.Phase == p2pnode.PhaseFailed && (target != c.self || r.Origin == c.self.String())
	}
	if r.Kind == p2pnode.KindHost {
		c.noteHostReport(target, r, over)
	}
	if over {
		delete(c.stories, r.Incident)
		return
	}
	c.storyOf(failure{target: target, service: r.Service, failed: r.Old, class: r.Class, incident: r.Incident}, r.Kind, cmp.Or(r.NodeName, c.cfg.NameOf(target)))
	if s := c.stories[r.Incident]; s != nil {
		s.acted = s.acted || r.Phase == p2pnode.PhaseActed
		s.watched = r.Phase == p2pnode.PhaseObserved
	}
}

// ownService reports whether an incident is of a service that its own host keeps.
func ownService(kind p2pnode.IncidentKind, service string) bool {
	return kind == p2pnode.KindService && service != p2pnode.SelfExec
}

func (c *core) storyOf(f failure, kind p2pnode.IncidentKind, name string) {
	if c.stories[f.incident] != nil {
		return
	}
	if len(c.stories) >= maxStories {
		c.count("stories-full")
		return
	}
	c.stories[f.incident] = &story{failure: f, kind: kind, name: name, at: c.now}
}

func (c *core) noteHostReport(target peer.ID, r p2pnode.Report, over bool) {
	h := c.hosts[target]
	if h == nil || h.life != r.Old {
		h = &hostStory{life: r.Old}
		c.hosts[target] = h
	}
	switch {
	case !over:
		h.open = r.Incident
	case h.open == r.Incident || r.Incident == c.hostFailure(target, h).incident:
		h.open = ""
		h.told++
	}
}

// hostFailure names the next unreachability of a life; all nodes that know the same
// reports call it the same.
func (c *core) hostFailure(target peer.ID, h *hostStory) failure {
	return failure{
		target: target, failed: h.life, class: p2pnode.ClassUnreachable,
		incident: p2pnode.IncidentID(target.String(), hostSide, fmt.Sprintf("%s/%d", h.life, h.told)),
	}
}

// dueStories tells what is due: once in a while is enough, nobody waits for it.
func (c *core) dueStories() {
	for _, p := range slices.Sorted(maps.Keys(c.beliefs.Peers)) {
		c.dueHost(p, c.beliefs.Peers[p])
	}
	for _, id := range slices.Sorted(maps.Keys(c.stories)) {
		c.dueStory(c.stories[id])
	}
	c.dueOwnStories()
}

// dueHost tells of a host that nobody reaches, or of which there are two, when it is
// this node's turn.
func (c *core) dueHost(p peer.ID, b Belief) {
	twice := b.Verdict == p2pnode.DuplicateIdentity
	if !twice && b.Verdict != p2pnode.Unreachable || b.Life.IsZero() {
		return
	}
	h := c.hosts[p]
	if h == nil || h.life != b.Life.String() && !(twice && h.open != "") { // two lives take turns
		h = &hostStory{life: b.Life.String()}
		c.hosts[p] = h
	}
	f := c.hostFailure(p, h)
	f.class = p2pnode.Class(b.Verdict)
	rank, alone := c.tellRank(f.incident)
	if h.open != "" || c.now.Before(b.Since.Add(hostPatience+rank*storyStep)) || alone && c.beliefs.Brake.On {
		return // who has lost all others tells of nobody: it is alone itself
	}
	h.open = f.incident
	c.storyOf(f, p2pnode.KindHost, c.cfg.NameOf(p))
	c.emit(fxOrphan{p2pnode.Report{
		At: c.now, Phase: p2pnode.PhaseObserved, Incident: f.incident, Kind: p2pnode.KindHost, Node: p.String(), NodeName: c.cfg.NameOf(p),
		Class: f.class, Observed: string(f.class), Held: c.braked(), Old: f.failed, DetectedAt: b.Since,
	}})
}

// dueStory tells the end of a story, when it is this node's turn.
func (c *core) dueStory(s *story) {
	if ownService(s.kind, s.service) {
		c.dueServiceStory(s)
		return
	}
	life, end := c.ended(s)
	if end == "" || plantNoEnd {
		s.wellAt = time.Time{}
		return
	}
	if s.wellAt.IsZero() {
		s.wellAt = c.now
	}
	rank, _ := c.tellRank(s.incident)
	if c.now.Before(s.wellAt.Add(storySettle*c.cfg.Settle + rank*storyStep)) {
		return
	}
	delete(c.stories, s.incident)
	r := p2pnode.Report{
		At: c.now, Phase: p2pnode.PhaseVerified, Incident: s.incident, Kind: s.kind, Node: s.target.String(), NodeName: s.name,
		Service: s.service, Class: s.class, Observed: end, Old: s.failed, RecoveredAt: s.wellAt, VerifiedAt: c.now,
	}
	if life != s.failed {
		r.New = life
	}
	if end == endedLeft || end == endedForgotten || end == endedChanged {
		r.Phase, r.Result, r.New, r.RecoveredAt, r.VerifiedAt = p2pnode.PhaseFailed, end, "", time.Time{}, time.Time{}
	}
	c.emit(fxOrphan{r})
}

// How stories end without an agent.
const (
	endedAlive     = "it is alive again, and no agent did that"
	endedReached   = "it can be reached again"
	endedLeft      = "it has left"
	endedForgotten = "it is not expected back, and was forgotten"
	endedOne       = "one process alone uses its key now"
	endedChanged   = "its host came back with another identity"
)

// ended says how a story ended, "" while it has not, and the life that is there.
func (c *core) ended(s *story) (life, how string) {
	b := c.beliefs.Peers[s.target]
	switch {
	case c.cfg.Links.Forgotten(s.target):
		return "", endedForgotten
	case s.target == c.self && s.kind == p2pnode.KindNode && s.service == "":
		return s.failed, endedAlive // whichever life this is: it is well
	case s.target == c.self:
		return "", "" // others must say that they reach us
	case b.Verdict == p2pnode.Left:
		return "", endedLeft
	case b.Verdict == p2pnode.IdentityChanged:
		return "", endedChanged
	case s.class == p2pnode.ClassDuplicateIdentity && (b.Verdict == p2pnode.Alive || b.Verdict.Actionable()):
		return b.Life.String(), endedOne
	case s.kind == p2pnode.KindHost && (b.Verdict == p2pnode.Alive || b.Verdict.Actionable()):
		return b.Life.String(), endedReached
	case s.kind != p2pnode.KindHost && b.Verdict == p2pnode.Alive:
		return b.Life.String(), endedAlive
	}
	return "", ""
}

// tellRank is this node's place among those who may tell; alone: there is nobody
// else.
func (c *core) tellRank(incident string) (rank time.Duration, alone bool) {
	var who []peer.ID
	for _, p := range c.cfg.Links.Members() {
		if p == c.self || c.usable(p) {
			who = append(who, p)
		}
	}
	slices.SortFunc(who, func(a, b peer.ID) int {
		return cmp.Compare(hash(string(a), incident), hash(string(b), incident))
	})
	return time.Duration(max(0, slices.Index(who, c.self))), len(who) < 2
}
