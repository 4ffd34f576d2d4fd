package agent

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// promise is how an order's service level really is kept, as this node sees it.
// Every visit is one opportunity to break it.
type promise struct {
	visits, late uint64
	peak         time.Duration // worst gap since the population was changed last
	hour         worstOfHour
}

func (p *promise) note(now time.Time, gap time.Duration) {
	p.peak = max(p.peak, gap)
	p.hour.note(now, gap)
}

// worstOfHour is the worst gap of the last hour, by minutes.
type worstOfHour struct {
	minute int64
	worst  [60]time.Duration
}

func (w *worstOfHour) note(now time.Time, gap time.Duration) {
	minute := now.Unix() / 60
	for i := max(w.minute+1, minute-int64(len(w.worst))+1); i <= minute; i++ {
		w.worst[i%int64(len(w.worst))] = 0
	}
	w.minute = max(w.minute, minute)
	at := &w.worst[w.minute%int64(len(w.worst))]
	*at = max(*at, gap)
}

func (w *worstOfHour) max() (worst time.Duration) {
	for _, d := range w.worst {
		worst = max(worst, d)
	}
	return worst
}

// visited notes a visit of p at a time, for itineraries and for what was promised.
func (c *core) visited(p peer.ID, at time.Time) {
	before, known := c.book[p]
	if at.IsZero() || known && !at.After(before) {
		return
	}
	c.book[p] = at
	if !known || !c.usable(p) {
		return
	}
	gap := at.Sub(c.waitsFrom(p, before))
	for _, o := range c.orders {
		if c.covers(&o.order, p) && gap > 0 && at.Sub(o.began) > o.order.SLO {
			o.visits++
			if gap > o.order.SLO {
				o.late++
			}
			o.note(c.now, gap)
		}
	}
}

// waitsFrom is when p's wait for a visit began. What was dead or away waits from
// when it was well again: nobody could have visited it before.
func (c *core) waitsFrom(p peer.ID, visit time.Time) time.Time {
	if well := c.wellSince[p]; well.After(visit) {
		return well
	}
	return visit
}

// noteWell keeps wellSince.
func (c *core) noteWell() {
	for _, p := range c.cfg.Links.Members() {
		if _, well := c.wellSince[p]; well != c.usable(p) {
			if well {
				delete(c.wellSince, p)
			} else {
				c.wellSince[p] = c.now
			}
		}
	}
}
