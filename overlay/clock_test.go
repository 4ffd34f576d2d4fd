package overlay

import (
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/bubble"
	"p2pnode/test/memnet"
)

// A host whose clock stands before its program was built: what has ended by then gives
// no privilege, to itself or to others; membership goes on. What it signs is dated so
// that others can use it.
func TestAClockBeforeTheBuild(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(149, time.Millisecond, 0)
		dir := founded(t, 0)
		a := inMemory(t, net, 1, func(c *Config) { c.Dir = dir }).admitted(time.Second)
		if _, err := a.Open(time.Hour); err != nil {
			t.Fatal(err)
		}
		late := time.Now().Add(366 * day)
		b := inMemory(t, net, 2, func(c *Config) { c.Join, c.Built = []string{"10.0.0.1"}, late })
		allKnowAll(t, 10*time.Second, a, b)
		time.Sleep(10 * time.Second)
		if !b.OpenUntil().IsZero() {
			t.Error("a manager whose certificate has ended by then opened the door")
		}
		if d := b.ClockBehind(); d < 365*day || a.ClockBehind() != 0 {
			t.Errorf("clocks are wrong by %v and %v", d, a.ClockBehind())
		}
		a.stop()
		a = inMemory(t, net, 1, func(c *Config) { c.Dir, c.Built = dir, late })
		if _, err := a.Open(time.Hour); p2pnode.ExitCode(err) != p2pnode.ExitNotPermitted {
			t.Errorf("a manager whose own has ended: %v", err)
		}
		allKnowAll(t, 10*time.Second, a, b)
		// A cluster that such a host founds is good for a year from the build.
		c := inMemory(t, net, 3, func(cfg *Config) { cfg.Built = late }).admitted(time.Second)
		if _, err := c.Open(time.Hour); err != nil || c.left() < 700*day {
			t.Errorf("founded by a clock before the build: ends in %v, %v", c.left(), err)
		}
		d := inMemory(t, net, 4, joins("10.0.0.3")).admitted(10 * time.Second)
		if d.ClockBehind() < 360*day {
			t.Error("a clock that is a year behind what managers sign is not noticed")
		}
		// The newest of build and signatures counts.
		d.mu.Lock()
		d.cfg.Built = time.Now().Add(day)
		now, signed := d.clockLocked(time.Now()), d.signedLocked()
		d.mu.Unlock()
		if !now.Equal(signed) || now.Before(late.Add(-2*time.Hour)) {
			t.Errorf("%v, signed %v", now, signed)
		}
	})
}
