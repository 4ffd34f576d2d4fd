package agent

import (
	"time"

	"p2pnode"
)

// onVisitStatus is what a patrol finds on its visit: a service that is down and
// that nobody has in hand (an event was lost). The exec is asked like always,
// and believes nobody.
func (c *core) onVisitStatus(e evStatus) {
	h, ok := c.held[e.agent]
	if !ok || h.token != e.token || h.mission != nil || e.err != nil {
		return
	}
	for _, s := range e.status.Services {
		if !neglected(s, c.now) || s.Incarnation == "" {
			continue
		}
		k := c.caseOf(s.Name, s.Incarnation)
		if k == nil || k.step != caseWaiting || k.held != "" || (k.try > 0 && c.now.Sub(k.knownAt) < caseKept) {
			continue
		}
		k.agent, k.class, k.knownAt = h.id, classOf(s), c.now
		k.try++
		c.askLocal(k)
	}
}

func neglected(s p2pnode.ServiceStatus, now time.Time) bool {
	down := s.State == p2pnode.StateHung || s.State == p2pnode.StateFrozen || s.State == p2pnode.StateBackoff
	return down && s.Recover == p2pnode.RecoverAgent && !s.Observe && s.MaintenanceUntil.Before(now) &&
		s.NextTry.Before(now) && now.Sub(s.Since) > 2*p2pnode.DefaultStopGrace
}

func classOf(s p2pnode.ServiceStatus) p2pnode.Class {
	switch {
	case s.State == p2pnode.StateHung:
		return p2pnode.ClassHung
	case s.State == p2pnode.StateFrozen:
		return p2pnode.ClassFrozen
	case s.LastExit != nil && s.LastExit.Signal != "":
		return p2pnode.ClassSignalled
	}
	return p2pnode.ClassExited
}
