package route

import "time"

// Class is a coarse round trip time. Classes are what link records carry.
//
//	class   0      1      2       3       4        5
//	rtt    < 2ms  < 5ms  < 20ms  < 60ms  < 150ms  longer
//	cost    2      5      15      45      110      300
type Class uint8

// MaxClass is the slowest class; larger numbers from the wire read as it.
const MaxClass Class = 5

// bound is the upper end of a class, exclusive.
func (c Class) bound() time.Duration {
	switch c {
	case 0:
		return 2 * time.Millisecond
	case 1:
		return 5 * time.Millisecond
	case 2:
		return 20 * time.Millisecond
	case 3:
		return 60 * time.Millisecond
	case 4:
		return 150 * time.Millisecond
	default:
		return 1<<63 - 1
	}
}

// Cost is what a link of the class adds to a route: about the middle of the
// class in milliseconds, and never less than 2, so that each hop has a price and
// two short links do not beat one that is hardly longer.
func (c Class) Cost() int {
	switch c {
	case 0:
		return 2
	case 1:
		return 5
	case 2:
		return 15
	case 3:
		return 45
	case 4:
		return 110
	default:
		return 300
	}
}

// Classify is the class of a first measurement.
func Classify(rtt time.Duration) Class {
	for c := range MaxClass {
		if rtt < c.bound() {
			return c
		}
	}
	return MaxClass
}

// Follow is the class of a link of class c after a further measurement. It moves
// only when rtt is a quarter past the bound of c, so that a link whose time sits
// at a bound does not republish its owner's record for ever.
func (c Class) Follow(rtt time.Duration) Class {
	c = min(c, MaxClass)
	if c < MaxClass && rtt > c.bound()+c.bound()/4 {
		return Classify(rtt)
	}
	if c > 0 {
		if low := (c - 1).bound(); rtt < low-low/4 {
			return Classify(rtt)
		}
	}
	return c
}
