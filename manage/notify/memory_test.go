package notify

import (
	"os"
	"slices"
	"testing"
	"time"

	"p2pnode"
)

// next is a core of the life after c, by what is on disk.
func next(t *testing.T, c *core, now time.Time) *core {
	t.Helper()
	dir := t.TempDir()
	if err := c.memory().save(dir); err != nil {
		t.Fatal(err)
	}
	m, err := recall(dir, now)
	if err != nil {
		t.Fatal(err)
	}
	out := newCore("ash")
	out.remember(m)
	return out
}

// A node process that starts again hears of open stories anew, also by their end
// alone: what was told is not told again, what is new is.
func TestNothingIsToldTwiceOverARestart(t *testing.T) {
	for name, x := range map[string]struct {
		heard p2pnode.Incident
		want  []Event
	}{
		"still open": {failure(1, 0, p2pnode.IncidentOpen), nil},
		"well again": {verified(failure(1, 0, p2pnode.IncidentRecovered)), []Event{Recovered}},
		"the end alone": {func() p2pnode.Incident {
			i := verified(failure(1, 0, p2pnode.IncidentRecovered))
			i.DetectedAt = time.Time{}
			return i
		}(), []Event{Recovered}},
		"another, since": {failure(2, 40, p2pnode.IncidentOpen), []Event{Opened}},
	} {
		c := newCore("ash")
		c.remember(memory{Began: at(-100)})
		if got := events(c.incident(at(0), failure(1, 0, p2pnode.IncidentOpen))); !slices.Equal(got, []Event{Opened}) {
			t.Fatalf("%s: first told %v", name, got)
		}
		c = next(t, c, at(60))
		if got := events(c.tick(at(60))); got != nil {
			t.Errorf("%s: from memory alone %v is told", name, got)
		}
		if got := events(c.incident(at(61), x.heard)); !slices.Equal(got, x.want) {
			t.Errorf("%s: %v, want %v", name, got, x.want)
		}
	}
}

// Hours later the end of a story that went on is no beginning.
func TestLongStoryOpensOnce(t *testing.T) {
	c := newCore("ash")
	c.incident(at(0), failure(1, 0, p2pnode.IncidentOpen))
	for s := 600.0; s < 4*3600; s += 600 {
		c.tick(at(s))
	}
	end := failure(1, 0, p2pnode.IncidentRecovered)
	end.VerifiedAt = at(4 * 3600)
	if got := events(c.incident(at(4*3600), end)); !slices.Equal(got, []Event{Recovered}) {
		t.Errorf("after four hours %v", got)
	}
}

// A newcomer's first sync brings what others were told of: that is nobody's news. What
// ends, or begins, after it came is.
func TestNewcomerPagesForNothingOld(t *testing.T) {
	m, err := recall(t.TempDir(), at(100))
	if err != nil {
		t.Fatal(err)
	}
	c := newCore("ash")
	c.remember(m)
	if got := events(c.incident(at(101), verified(failure(1, 0, p2pnode.IncidentRecovered)))); got != nil {
		t.Errorf("an old story is told: %v", got)
	}
	if got := events(c.incident(at(101), failure(2, 50, p2pnode.IncidentOpen))); got != nil {
		t.Errorf("an old story that goes on is opened: %v", got)
	}
	end := failure(2, 50, p2pnode.IncidentRecovered)
	end.RecoveredAt, end.VerifiedAt = at(110), at(113)
	if got := events(c.incident(at(113), end)); !slices.Equal(got, []Event{Recovered}) {
		t.Errorf("the end of an old story: %v", got)
	}
	if got := events(c.incident(at(140), failure(3, 139, p2pnode.IncidentOpen))); !slices.Equal(got, []Event{Opened}) {
		t.Errorf("a new story: %v", got)
	}
}

// A memory that cannot be read makes history of what was: nobody is paged for it.
func TestDamagedMemory(t *testing.T) {
	dir := t.TempDir()
	for _, raw := range []string{"", "{", `{"version":9}`, `{"version":1,"began":"2099-01-01T00:00:00Z"}`} {
		if err := os.WriteFile(memoryPath(dir), []byte(raw), 0o600); err != nil {
			t.Fatal(err)
		}
		if m, err := recall(dir, t0); err == nil || !m.Began.Equal(t0) || len(m.Told) > 0 {
			t.Errorf("%q: %+v, %v", raw, m, err)
		}
	}
}
