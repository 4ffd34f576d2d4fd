package keeper

import (
	"net/netip"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// plan compares what is with what should be, after every event.
func (c *Core) plan(now time.Time) {
	c.overdue(now)
	c.settleDuplicates(now)
	c.dialMissing(now)
	c.dialSubnets(now)
	c.probeLost(now)
	c.tune(now)
	c.shed(now)
}

// overdue counts dials as failed that nobody reported on.
func (c *Core) overdue(now time.Time) {
	for _, t := range c.sorted() {
		if !t.dialling.IsZero() && now.Sub(t.dialling) >= dialTimeout {
			t.dialling, t.landed = time.Time{}, false
			c.failed(now, t)
		}
	}
}

// settleDuplicates closes all but one connection with each peer whose ID is
// higher than ours. The one to stay is the oldest that we dialled, else the
// oldest.
func (c *Core) settleDuplicates(now time.Time) {
	byPeer := map[peer.ID][]*conn{}
	for _, cn := range c.standing() {
		byPeer[cn.peer] = append(byPeer[cn.peer], cn)
	}
	for _, cn := range c.standing() {
		of := byPeer[cn.peer]
		if len(of) < 2 || c.cfg.Self > cn.peer || cn == keep(of) {
			continue
		}
		// The second one's age is how long both ends have known of two.
		if now.Sub(of[1].since) >= duplicateFor {
			c.close(cn, CauseDuplicate)
		}
	}
}

func keep(of []*conn) *conn {
	if i := slices.IndexFunc(of, func(cn *conn) bool { return cn.outbound }); i >= 0 {
		return of[i]
	}
	return of[0]
}

// dialMissing dials until enough own links are up or on their way. A node
// without links dials more at once: some will not answer.
func (c *Core) dialMissing(now time.Time) {
	flying, mine, links := c.count()
	if links == 0 {
		c.hurry(now)
	}
	for _, t := range c.eligible(now) {
		want := c.cfg.Dialled - mine
		if links == 0 {
			want = maxInFlight
		}
		unheard := t.Join && t.answered == ""
		if flying < maxInFlight && (unheard || flying < want && links < c.cfg.Most) {
			c.dial(now, t)
			flying++
		}
	}
}

// hurry cuts the waits short that a node with links could afford.
func (c *Core) hurry(now time.Time) {
	for _, t := range c.sorted() {
		if t.next.After(now.Add(backoffAlone + backoffAlone/4)) {
			t.next = now.Add(c.jitter(backoffAlone))
		}
	}
}

// count is the dials under way, the peers that we dialled, and all linked peers.
func (c *Core) count() (flying, mine, links int) {
	for _, t := range c.targets {
		if !t.dialling.IsZero() {
			flying++
		}
	}
	all, dialled := map[peer.ID]bool{}, map[peer.ID]bool{}
	for _, cn := range c.conns {
		if !cn.closing {
			all[cn.peer] = true
			if cn.outbound {
				dialled[cn.peer] = true
			}
		}
	}
	return flying, len(dialled), len(all)
}

// sorted lists the targets in an order that depends on nothing but their names.
func (c *Core) sorted() []*target { return slices.Clone(c.order) }

// eligible lists whom to dial now: join addresses first, then those that never
// failed, each group in random order.
func (c *Core) eligible(now time.Time) []*target {
	out := slices.DeleteFunc(c.sorted(), func(t *target) bool { return t.next.After(now) || !c.free(t) })
	c.cfg.Rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	rank := func(t *target) int {
		switch {
		case t.Join && t.answered == "":
			return 0
		case t.fails == 0:
			return 1
		default:
			return 2
		}
	}
	slices.SortStableFunc(out, func(a, b *target) int { return rank(a) - rank(b) })
	return out
}

// free reports whether a dial of t makes sense, its backoff aside.
func (c *Core) free(t *target) bool {
	if t.itself || !t.dialling.IsZero() || len(t.Addrs) == 0 || c.denied(t.Candidate) {
		return false
	}
	if t.ID != "" {
		return !c.linked(t.ID) && !c.banned[t.ID]
	}
	if t.answered == "" {
		return true
	}
	// A bare address whose owner is a candidate by itself is left to that one,
	// unless its other addresses fail.
	owner := c.targets[Candidate{ID: t.answered}.Key()]
	return !c.linked(t.answered) && !c.banned[t.answered] && (owner == nil || owner.fails > 0)
}

func (c *Core) dial(now time.Time, t *target) {
	t.dialling, t.tried = now, now
	c.out = append(c.out, Dial{Key: t.Key(), Peer: t.ID, Addrs: slices.Clone(t.Addrs)})
}

// dialSubnets sees to a link into each subnet, beyond the number that we dial
// otherwise.
func (c *Core) dialSubnets(now time.Time) {
	flying, _, links := c.count()
	covered := c.subnets()
	for _, t := range c.targets {
		if !t.dialling.IsZero() {
			covered[t.Subnet]++
		}
	}
	for _, t := range c.eligible(now) {
		if t.Subnet.IsValid() && covered[t.Subnet] == 0 && flying < maxInFlight && links < c.cfg.Most {
			covered[t.Subnet]++
			c.dial(now, t)
			flying++
		}
	}
}

// subnets counts the linked peers in each subnet.
func (c *Core) subnets() map[netip.Prefix]int {
	out := map[netip.Prefix]int{}
	for _, t := range c.targets {
		if t.ID != "" && c.linked(t.ID) {
			out[t.Subnet]++
		}
	}
	return out
}

// probeLost dials one member that no route leads to.
func (c *Core) probeLost(now time.Time) {
	lost := slices.DeleteFunc(c.sorted(), func(t *target) bool { return !t.Lost || !c.free(t) })
	if len(lost) == 0 {
		return
	}
	if c.nextProbe.IsZero() {
		c.nextProbe = now.Add(c.probeGap())
	}
	if now.Before(c.nextProbe) {
		return
	}
	c.nextProbe = now.Add(c.probeGap())
	c.cfg.Rand.Shuffle(len(lost), func(i, j int) { lost[i], lost[j] = lost[j], lost[i] })
	c.dial(now, slices.MinFunc(lost, func(a, b *target) int { return a.tried.Compare(b.tried) }))
}

func (c *Core) probeGap() time.Duration {
	return probeEvery + time.Duration(c.cfg.Rand.Int64N(int64(2*time.Second)))
}

// tune looks for nearer peers, one a minute: it dials one more than it needs, and
// lets go of the farthest once that one had its time to be measured.
func (c *Core) tune(now time.Time) {
	var mine []*conn
	for _, cn := range c.standing() {
		if cn.outbound {
			mine = append(mine, cn)
		}
	}
	if c.nextTune.IsZero() {
		c.nextTune = now.Add(c.tuneGap())
	}
	if len(mine) > c.cfg.Dialled {
		c.letFarthestGo(now, mine)
		return
	}
	flying, _, links := c.count()
	if now.Before(c.nextTune) || len(mine) < c.cfg.Dialled || flying > 0 || links >= c.cfg.Most {
		return
	}
	c.nextTune = now.Add(c.tuneGap())
	for _, t := range c.eligible(now) {
		if t.ID != "" && t.fails == 0 {
			c.trial = t.ID
			c.dial(now, t)
			return
		}
	}
}

func (c *Core) tuneGap() time.Duration {
	return tuneEvery + time.Duration(c.cfg.Rand.Int64N(int64(tuneEvery)))
}

// letFarthestGo closes one of mine (oldest first): the farthest that is no anchor,
// or the newest if that one is hardly nearer.
func (c *Core) letFarthestGo(now time.Time, mine []*conn) {
	newest := mine[len(mine)-1]
	if now.Sub(newest.since) < provenAfter || c.rtt[newest.peer] == 0 || now.Before(c.nextShed) {
		return
	}
	var worst *conn
	for _, cn := range mine[min(anchors, len(mine)):] {
		if c.mayGo(cn) && (worst == nil || c.rtt[cn.peer] > c.rtt[worst.peer]) {
			worst = cn
		}
	}
	if worst == nil {
		return
	}
	if newest.peer == c.trial && c.mayGo(newest) && c.rtt[worst.peer] <= c.rtt[newest.peer]*5/4 {
		worst = newest
	}
	c.letGo(now, worst, CauseTuned)
}

// mayGo reports whether nobody depends on the link.
func (c *Core) mayGo(cn *conn) bool {
	t := c.targets[Candidate{ID: cn.peer}.Key()]
	if t == nil || t.Degree < fewLinks {
		return false
	}
	return !t.Subnet.IsValid() || c.subnets()[t.Subnet] > 1
}

// letGo closes a link that was in order, and leaves its peer alone for a while.
func (c *Core) letGo(now time.Time, cn *conn, cause string) {
	if t := c.targets[Candidate{ID: cn.peer}.Key()]; t != nil {
		t.next = now.Add(c.jitter(letGoFor))
	}
	c.nextShed = now.Add(shedEvery)
	c.close(cn, cause)
}

// shed lets accepted links go, one a second, while there are too many: a founder
// that everybody joined through would otherwise stay everybody's neighbour.
func (c *Core) shed(now time.Time) {
	_, _, links := c.count()
	if links <= c.cfg.Most {
		c.crowded = time.Time{}
		return
	}
	if c.crowded.IsZero() {
		c.crowded = now
	}
	if now.Sub(c.crowded) < shedAfter || now.Before(c.nextShed) {
		return
	}
	ripe := slices.DeleteFunc(c.standing(), func(cn *conn) bool {
		return cn.outbound || now.Sub(cn.since) < shedAfter || !c.mayGo(cn)
	})
	if len(ripe) == 0 {
		return
	}
	c.letGo(now, ripe[c.cfg.Rand.IntN(len(ripe))], CauseShed)
}
