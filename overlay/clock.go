package overlay

import "time"

// A clock that stands before the day on which this program was built is wrong, and a
// host with such a clock would take certificates for good that ended long ago. It is
// given the time of the build instead, or the newest that members have signed. Where
// the clock may be right it counts alone: one manager's clock that is years ahead must
// not end everybody's certificates.

// signedSlack is how far what others signed may be ahead before it is said.
const signedSlack = time.Hour

// clockLocked is the time that certificates are judged and made by.
func (o *Overlay) clockLocked(now time.Time) time.Time {
	if !now.Before(o.cfg.Built) {
		return now
	}
	if signed := o.signedLocked(); signed.After(o.cfg.Built) {
		return signed
	}
	return o.cfg.Built
}

// signedLocked is the newest time that a manager has signed, as far as this node has
// verified it.
func (o *Overlay) signedLocked() (newest time.Time) {
	for _, c := range o.certs {
		if c.cert.From.After(newest) {
			newest = c.cert.From
		}
	}
	for _, what := range o.revoked {
		if at := time.Unix(what.At, 0); at.After(newest) {
			newest = at
		}
	}
	return newest
}

// ClockBehind is by how much this host's clock seems to be wrong; 0: it may be right.
func (o *Overlay) ClockBehind() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	if c := o.clockLocked(now); c.After(now) {
		return c.Sub(now)
	}
	if ahead := o.signedLocked().Sub(now); ahead > signedSlack {
		return ahead
	}
	return 0
}
