package gossip

import (
	"math"
	"time"

	"p2pnode"
)

// Damping of flaps, as routers do it (RFC 2439): each end of being well costs a
// point, points halve with time, and who has too many is believed well again only
// once most of them are gone, or a link with it has been steady for a while. It delays good news only; bad news passes at once.

// flap counts one end of being well.
func (s *subject) flap(now time.Time) {
	s.flaps = min(s.flapsNow(now)+1, flapMost)
	s.flapAt = now
	s.damped = s.damped || s.flaps >= flapSuppress
}

func (s *subject) flapsNow(now time.Time) float64 {
	if s.flaps == 0 {
		return 0
	}
	return s.flaps * math.Exp2(-float64(now.Sub(s.flapAt))/float64(flapHalf))
}

// damp is the verdict to show where judged is what the evidence says.
func (s *subject) damp(now time.Time, judged p2pnode.Verdict) p2pnode.Verdict {
	if s.judged == p2pnode.Alive && judged != p2pnode.Alive {
		s.flap(now)
	}
	s.judged = judged
	steady := s.linked && s.missed == 0 && now.Sub(s.steadyAt) >= flapQuiet
	if s.damped && (steady || s.flapsNow(now) < flapReuse) {
		s.damped, s.flaps = false, 0
	}
	if s.damped && judged == p2pnode.Alive {
		return p2pnode.Doubtful
	}
	return judged
}
