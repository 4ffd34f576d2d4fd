package agent

import (
	"maps"
	"slices"
	"time"

	"p2pnode"
)

// The end of a service's story is told by the resident agent of its host. Where that
// one has no case of it any more, since the host was started again with all that was
// on it, its next life asks exec how the service is now. Where the host does not come
// back, a peer ends the story with what is known.

// How stories of services end without those who acted.
const (
	endedUp         = "it is up; who acted was lost before it could be looked at again"
	endedStopped    = "it was stopped on purpose"
	endedUndeclared = "it is no longer declared on its host"
	endedExited     = "it has ended, and is not to be started again"
	endedHostLeft   = "its host has left"
	endedHostLost   = "its host cannot be reached: how it is now is not known"
	endedHostGone   = "its host is no longer a member: how it is now is not known"
	endedHostOther  = "another identity stands where its host was: how it is now is not known"
)

// dueServiceStory tells, for a host that cannot, how little is known of a service of it.
func (c *core) dueServiceStory(s *story) {
	b := c.beliefs.Peers[s.target]
	end, patience := "", time.Duration(0)
	forgotten := c.cfg.Links.Forgotten(s.target)
	switch {
	case s.target == c.self:
		return
	case forgotten:
		end = endedForgotten
	case b.Verdict == p2pnode.Left:
		end = endedHostLeft
	case b.Verdict == p2pnode.Unreachable:
		end, patience = endedHostLost, lostFor
	case b.Verdict == p2pnode.IdentityChanged:
		end, patience = endedHostOther, lostFor
	case !slices.Contains(c.cfg.Links.Members(), s.target):
		end, patience = endedHostGone, lostFor
	}
	if end == "" || plantNoEnd {
		s.wellAt = time.Time{}
		return
	}
	if s.wellAt.IsZero() {
		s.wellAt = c.now
	}
	rank, alone := c.tellRank(s.incident)
	if alone && !forgotten || c.now.Before(s.wellAt.Add(max(patience, storySettle*c.cfg.Settle)+rank*storyStep)) {
		return // who has lost all others is cut off itself
	}
	delete(c.stories, s.incident)
	c.emit(fxOrphan{c.endOf(s, p2pnode.PhaseFailed, end)})
}

// endOf is a report on how a service's story ended.
func (c *core) endOf(s *story, phase p2pnode.Phase, how string) p2pnode.Report {
	r := p2pnode.Report{
		At: c.now, Phase: phase, Incident: s.incident, Kind: s.kind, Node: s.target.String(), NodeName: s.name,
		Service: s.service, Class: s.class, Observed: how, Old: s.failed,
	}
	if phase == p2pnode.PhaseFailed {
		r.Result = how
	}
	return r
}

// dueOwnStories asks exec now and then, as long as a story of a service here has no
// end and no case that will bring one.
func (c *core) dueOwnStories() {
	if c.now.Before(c.ownLook) || plantNoEnd {
		return
	}
	c.ownLook = c.now.Add(c.cfg.Settle)
	if len(c.ownStories()) > 0 {
		c.ownLookToken = c.nextToken()
		c.emit(fxStatus{token: c.ownLookToken})
	}
}

// ownStories are those that are old enough to have had an end.
func (c *core) ownStories() (out []*story) {
	for _, id := range slices.Sorted(maps.Keys(c.stories)) {
		s := c.stories[id]
		if s.target != c.self || !ownService(s.kind, s.service) || c.now.Before(s.at.Add(storySettle*c.cfg.Settle)) {
			continue
		}
		if k := c.cases[id]; k == nil || !k.open() {
			out = append(out, s)
		}
	}
	return out
}

func (c *core) onOwnLook(e evStatus) {
	if e.token != c.ownLookToken || e.err != nil {
		return
	}
	for _, s := range c.ownStories() {
		i := slices.IndexFunc(e.status.Services, func(x p2pnode.ServiceStatus) bool { return x.Name == s.service })
		if i < 0 {
			c.endOwn(s, c.endOf(s, p2pnode.PhaseFailed, endedUndeclared))
			continue
		}
		c.judgeOwn(s, e.status.Services[i])
	}
}

func (c *core) judgeOwn(s *story, now p2pnode.ServiceStatus) {
	switch {
	case now.State == p2pnode.StateUp && c.now.Sub(now.Since) >= c.cfg.Settle:
		r := c.endOf(s, p2pnode.PhaseVerified, endedUp)
		r.RecoveredAt, r.VerifiedAt = now.Since, c.now
		if now.Incarnation != s.failed {
			r.New = now.Incarnation
		}
		c.endOwn(s, r)
	case now.State == p2pnode.StateStopped && (s.acted || !s.watched):
		c.endOwn(s, c.endOf(s, p2pnode.PhaseFailed, endedStopped))
	case now.State == p2pnode.StateExited && s.acted:
		c.endOwn(s, c.endOf(s, p2pnode.PhaseFailed, endedExited))
	}
}

func (c *core) endOwn(s *story, r p2pnode.Report) {
	delete(c.stories, s.incident)
	c.emit(fxOrphan{r})
}
