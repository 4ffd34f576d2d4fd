package overlay

import "time"

// pace spaces out what a node says of its links. The first change after a quiet
// time goes out at once and a few more soon after it, since a fleet that starts or
// a cut that heals changes several links in one second; a link that flaps is said
// every holdDown at most.
type pace struct {
	spent float64 // of linkBurst
	at    time.Time
}

// due is when the next one may go, now or later.
func (p *pace) due(now time.Time) time.Time {
	if p.at.IsZero() {
		return now
	}
	due := p.at.Add(coalesce)
	if over := p.left(now) - (linkBurst - 1); over > 0 {
		due = later(due, now.Add(time.Duration(over*float64(holdDown))))
	}
	return later(due, now)
}

// spend counts one that goes now.
func (p *pace) spend(now time.Time) {
	p.spent = p.left(now) + 1
	p.at = now
}

func (p *pace) left(now time.Time) float64 {
	return max(0, p.spent-float64(now.Sub(p.at))/float64(holdDown))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
