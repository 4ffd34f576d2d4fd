package exec

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"p2pnode"
)

// checker is one check of a running process: when it asks, and what the answers come
// to. Those of one service know nothing of each other, but that the others wait for the
// first success of the one for its start.
//
//	         successes         failures
//	pending -----------> good <--------> down: unready, or hung
//	   |                      successes   ^
//	   +---- failures, start_within over -+
type checker struct {
	which     string // start, ready or live; "" asks for all of it at once
	check     p2pnode.Check
	at        time.Time     // of the next question; zero: none is due until the start is over, or any more
	asked     time.Time     // when the last question went out
	gap       time.Duration // between questions until the first good answer
	asking    bool
	askedLate bool // the last question went out late
	pardoned  bool // a bad answer was not counted since the last good one
	failing   int  // in a row
	passing   int  // in a row
	everGood  bool
	down      bool // it had its failures, and not its successes since
	lastGood  time.Time
	lastErr   string
	answers   []string // the last ones that were no good
}

func (c *checker) good() bool { return c.everGood && !c.down }

// name is what people call it.
func (c *checker) name() string { return strings.TrimSpace(c.which + " check") }

// armChecks makes the checks of a process that may still be starting, or is not.
func (p *policy) armChecks(now time.Time, s *svc, starting bool) {
	h := &s.health
	begins := starting && s.spec.Checks != nil && s.spec.Checks.Start != nil
	h.begun = !starting || s.adopted && !begins
	for which, spec := range s.spec.EachCheck {
		c := &checker{which: which, check: *spec, gap: firstCheck, lastGood: now}
		h.checks = append(h.checks, c)
		if h.begun {
			c.gap = spec.Every
		}
		switch {
		case which == p2pnode.CheckStart && !begins:
			c.everGood = true
		case which != p2pnode.CheckStart && begins: // its success begins this one
		case s.adopted && !begins:
			c.at = now.Add(time.Duration(p.rand.Int64N(int64(spec.Every))))
		default:
			c.at = now.Add(firstCheck)
		}
	}
}

// rearm is armHealth for a process that runs on under other rules: what is known of its
// start holds.
func (p *policy) rearm(now time.Time, s *svc) {
	starting := s.readyAt.IsZero() && s.young(now)
	if c := s.health.of(p2pnode.CheckStart); c != nil {
		starting = !c.everGood
	}
	was := s.health
	s.health = health{rules: was.rules + 1, frozenTill: was.frozenTill, looking: was.looking, wasState: was.wasState, saidReady: was.saidReady}
	p.armChecks(now, s, starting)
	p.armWords(now, s)
	awaited := s.state == p2pnode.StateUnready || s.state == p2pnode.StateStarting && s.spec.Ready != p2pnode.ReadyNotify
	if awaited && (s.spec.Ready == p2pnode.ReadyStarted || s.health.good()) {
		p.ready(now, s) // nothing says any more that it is not
	}
}

// young reports whether s may still be starting.
func (s *svc) young(now time.Time) bool { return now.Sub(s.startedAt) < s.spec.StartWithin }

func (h *health) of(which string) *checker {
	for _, c := range h.checks {
		if c.which == which {
			return c
		}
	}
	return nil
}

// good reports whether what is asked makes the process ready: its ready check where it
// has one, else the one that goes on longest.
func (h *health) good() bool {
	d := h.decider()
	return d == nil || d.good()
}

func (h *health) decider() *checker {
	if c := h.of(p2pnode.CheckReady); c != nil || len(h.checks) == 0 {
		return c
	}
	return h.checks[len(h.checks)-1]
}

// down reports whether a check failed as often as it may, hung whether the process is
// to be restarted for one.
func (h *health) down() bool {
	return slices.ContainsFunc(h.checks, func(c *checker) bool { return c.down })
}

func (h *health) hung() bool {
	return slices.ContainsFunc(h.checks, func(c *checker) bool { return c.down && !c.check.Unready })
}

func (p *policy) checked(now time.Time, ev evChecked) {
	s := p.svcs[ev.name]
	if s == nil || s.phase != running || ev.inc != s.inc || ev.rules != s.health.rules {
		return
	}
	c := s.health.of(ev.which)
	if c == nil || c.at.IsZero() {
		return
	}
	c.asking = false
	c.at = later(now, c.asked.Add(p.checkGap(c, ev.err == nil)))
	switch {
	case ev.err == nil:
		c.failing, c.lastGood, c.pardoned = 0, now, false
		if c.passing++; c.passing >= c.check.Good {
			p.checkPassed(now, s, c)
		}
	case ev.skip:
		c.failing = 0
		if ev.traced && s.failure != nil {
			s.failure.traced = true
			p.decide(now, s)
		}
	default:
		p.checkFailed(now, s, c, ev)
	}
}

// checkGap is the time from one question to the next: short and doubling until the
// first good answer, then the period and its jitter. A question that runs into its
// timeout is a part of that period, not on top of it: three of them take three periods
// to tell, not six.
func (p *policy) checkGap(c *checker, good bool) time.Duration {
	switch {
	case !c.everGood:
		gap := min(c.gap, c.check.Every)
		c.gap = 2 * gap
		return gap
	case !good:
		return c.check.Every // whether it hangs is to be known soon
	}
	return c.check.Every + time.Duration(p.rand.Int64N(int64(c.check.Jitter)+1))
}

func (p *policy) checkPassed(now time.Time, s *svc, c *checker) {
	h := &s.health
	c.everGood, c.down, c.lastErr, c.answers = true, false, "", nil
	c.at = later(now, c.asked.Add(p.checkGap(c, true)))
	if c.which == p2pnode.CheckStart {
		c.at, h.begun = time.Time{}, true
		for _, next := range h.checks {
			if next != c {
				next.at, next.gap, next.lastGood = now.Add(firstCheck), next.check.Every, now
			}
		}
	}
	switch {
	case s.spec.Ready == p2pnode.ReadyNotify && !h.saidReady:
	case h.good():
		p.ready(now, s)
	case p.cameBack(s) && h.down():
		p.set(now, s, p2pnode.StateUnready, "")
	case s.state == p2pnode.StateHung && s.failure == nil:
		p.set(now, s, p2pnode.StateStarting, "")
	}
}

// cameBack takes a failure back whose process works again before anybody acted.
func (p *policy) cameBack(s *svc) bool {
	f := s.failure
	if f == nil || !f.live || f.class == p2pnode.ClassFrozen || s.start != nil || s.health.hung() {
		return false
	}
	s.failure, s.probeAt = nil, time.Time{}
	return true
}

func (p *policy) checkFailed(now time.Time, s *svc, c *checker, ev evChecked) {
	c.passing = 0
	if (ev.late || c.askedLate) && !c.pardoned {
		c.pardoned, c.lastGood = true, now
		return // the host stood still, and the service with it: one more period, once
	}
	c.lastErr = ev.err.Error()
	c.answers = append(c.answers[max(0, len(c.answers)-lastAnswers+1):], c.lastErr)
	if !c.everGood && !s.health.begun && s.young(now) {
		return
	}
	c.failing++
	if c.failing < c.check.Failures {
		return
	}
	c.down = true
	switch {
	case c.check.Unready:
		p.unready(now, s, c.says(c.lastErr))
		return
	case ev.busy >= busyProgress && now.Sub(c.lastGood) < busyLimit:
		p.unready(now, s, "busy, not hung: "+c.says(c.lastErr))
		return
	}
	class := p2pnode.ClassCheckFailed
	if ev.timeout {
		class = p2pnode.ClassHung
	}
	p.hang(now, s, class, c.says(c.told()), ev.traced)
}

// unready: it lives and does not do its work.
func (p *policy) unready(now time.Time, s *svc, why string) {
	if s.failure == nil && s.state != p2pnode.StateFrozen {
		p.set(now, s, p2pnode.StateUnready, why)
	}
}

// says is what c was told, and by which of several checks.
func (c *checker) says(text string) string {
	if c.which == "" {
		return text
	}
	return c.name() + ": " + text
}

// told is the last answers of a check that failed, newest last; what came
// several times in a row is counted.
func (c *checker) told() string {
	var out []string
	for i := 0; i < len(c.answers); {
		n := i
		for n < len(c.answers) && c.answers[n] == c.answers[i] {
			n++
		}
		text := c.answers[i]
		if n-i > 1 {
			text += " (" + strconv.Itoa(n-i) + " times)"
		}
		out, i = append(out, text), n
	}
	text := strings.Join(out, "; ")
	return strings.ToValidUTF8(text[max(0, len(text)-maxWhy):], "")
}

// tickChecks asks what is due; late is how late this tick is.
func (p *policy) tickChecks(now time.Time, s *svc, late time.Duration) {
	for _, c := range s.health.checks {
		switch {
		case c.asking || !due(now, c.at):
		case s.state == p2pnode.StateFrozen:
			c.at = now.Add(c.check.Every)
		default:
			p.ask(now, s, c, late > c.check.Every/4)
		}
	}
}

func (p *policy) ask(now time.Time, s *svc, c *checker, late bool) {
	c.asking, c.asked, c.askedLate = true, now, late
	p.emit(effCheck{name: s.spec.Name, inc: s.inc, which: c.which, rules: s.health.rules, check: c.check})
}

// gather asks, beside a question that is due, what would be asked soon anyway: ten
// services wake an idle host once a second then, and not ten times. What failed last
// keeps its own time.
func (p *policy) gather(now time.Time) {
	asked := 0
	for s := range p.all {
		for _, c := range s.health.checks {
			if c.asking && c.asked.Equal(now) {
				asked++
			}
		}
	}
	if asked == 0 {
		return
	}
	for s := range p.all {
		if s.phase != running || s.state == p2pnode.StateFrozen {
			continue
		}
		for _, c := range s.health.checks {
			if asked == checkBurst {
				return
			}
			if c.asking || c.failing > 0 || !c.everGood || c.at.IsZero() {
				continue
			}
			if c.at.Sub(now) <= min(c.check.Every/4, checkGather) {
				p.ask(now, s, c, false)
				asked++
			}
		}
	}
}
