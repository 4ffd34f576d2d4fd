package gossip

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
)

// look decides what to find out about a subject that may be in trouble: a burst
// of probes, a knock at its door, a dial to its port.
func (c *core) look(now time.Time, s *subject) {
	if s.Left || !c.worried(now, s) {
		s.looks, s.nextLook = 0, time.Time{}
		return
	}
	if now.Before(s.nextLook) {
		return
	}
	wait := againEvery << min(s.looks, 4)
	s.looks++
	s.nextLook = now.Add(min(wait, againMost))
	if !s.bursting && len(s.Addrs) > 0 {
		s.bursting = true
		c.out = append(c.out, effBurst{s.ID})
	}
	if !s.knocking && s.Door != "" && c.doubted(now, s) {
		s.knocking = true
		c.out = append(c.out, effKnock{s.ID})
	}
	if !s.dialling && s.Proven.IsValid() && c.doubted(now, s) {
		s.dialling = true
		c.out = append(c.out, effDial{s.ID})
	}
}

// worried is enough to look, without saying anything yet: one late heartbeat, what
// SWIM says (whoever holds the gossip key can forge that), what others call silent,
// or whatever doubts it.
func (c *core) worried(now time.Time, s *subject) bool {
	return s.missed > 0 || swimDoubts(now, s) || c.accused(s) || c.doubted(now, s)
}

// accused reports whether others call the subject silent and no link of ours says
// otherwise.
func (c *core) accused(s *subject) bool { return !c.linkSpeaks(s) && c.claimed(s, kindSilent) > 0 }

// soundAccusation reports whether others call the subject silent, none of them has
// it on a link, and our own probes since then were not answered either.
func (c *core) soundAccusation(s *subject) bool {
	if !c.accused(s) || c.contradicted(s) {
		return false
	}
	for _, cl := range s.claims {
		if cl.kind == kindSilent && cl.life == s.Life && (len(s.Addrs) == 0 || s.burstFail.After(cl.since)) {
			return true
		}
	}
	return false
}

func swimDoubts(now time.Time, s *subject) bool {
	return !s.swimDead.IsZero() || !s.suspect.IsZero() && now.Sub(s.suspect) < doubtLasts
}

// doubted reports whether any single observation speaks against the subject.
func (c *core) doubted(now time.Time, s *subject) bool {
	fresh := func(t time.Time) bool { return !t.IsZero() && now.Sub(t) < doubtLasts }
	switch {
	case s.missed >= silentBeats, fresh(s.lostAt), fresh(s.notice):
		return true
	case plantBelieveSWIM && swimDoubts(now, s):
		return true
	case swimDoubts(now, s) && (len(s.Addrs) == 0 || (s.hadLink || s.everUDP) && s.burstFail.After(s.suspect) && s.burstFail.After(s.swimDead)):
		return !c.linkSpeaks(s) // where no packet ever came from, silence says nothing: its neighbours speak
	case !s.unrouted.IsZero() && now.Sub(s.unrouted) > noRouteDoubt:
		return true
	case !s.burstFail.IsZero() && !s.linked && (s.hadLink || s.everUDP):
		return true
	case c.soundAccusation(s):
		return true
	case fresh(s.wordAt) && s.comingUp() && !c.linkSpeaks(s):
		return true
	}
	return c.byWord(now, s) != p2pnode.Alive
}

// linkSpeaks reports whether a live link says that the subject is well.
func (c *core) linkSpeaks(s *subject) bool { return s.linked && s.missed == 0 }

// claimed counts the witnesses that claim k of the subject's present life.
func (c *core) claimed(s *subject, k kind) int {
	n := 0
	for _, cl := range s.claims {
		if cl.kind == k && cl.life == s.Life {
			n++
		}
	}
	return n
}

// verdictOfWord is what the door's word means for the life that is known.
func (s *subject) verdictOfWord() p2pnode.Verdict {
	if s.wordAt.IsZero() {
		return p2pnode.Alive
	}
	about := s.word.NodeLife == s.Life || s.word.NodeLife.IsZero()
	switch {
	case !s.word.ExecAlive:
		return p2pnode.ExecDead
	case !about:
		return p2pnode.Alive // another life runs or ran: its own record will say so
	case s.comingUp():
		return p2pnode.Alive // its exec has it in hand: nobody needs to go
	case !s.word.NodeAlive:
		return p2pnode.ProcessDead
	case s.word.NodeState == string(p2pnode.StateFrozen), s.word.NodeState == string(p2pnode.StateHung):
		return p2pnode.Hung
	}
	return p2pnode.Alive
}

// comingUp reports whether the host's exec is starting the node process at this
// moment: after a repair, or since the whole host has just started.
func (s *subject) comingUp() bool {
	return s.word.ExecAlive && !s.word.NodeAlive && s.word.NodeState == string(p2pnode.StateStarting)
}

// byWord judges by words about the host's own processes: our knock, a door's
// notice, what a neighbour signed after asking.
func (c *core) byWord(now time.Time, s *subject) p2pnode.Verdict {
	switch v := s.verdictOfWord(); v {
	case p2pnode.ProcessDead, p2pnode.ExecDead:
		return v
	case p2pnode.Hung:
		if s.missed >= silentBeats || !s.linked {
			return v
		}
	}
	if c.linkSpeaks(s) {
		return p2pnode.Alive
	}
	switch {
	case !s.notice.IsZero() && s.wordAt.Before(s.notice):
		return p2pnode.ProcessDead
	case c.claimed(s, kindExecDead) > 0 || s.bothShut(now):
		return p2pnode.ExecDead
	case c.claimed(s, kindProcessDead) > 0:
		return p2pnode.ProcessDead
	case c.claimed(s, kindHung) > 0:
		return p2pnode.Hung
	}
	return p2pnode.Alive
}

// bothShut reports whether node and door both refuse connections while their host
// answers: nothing of ours lives there. One look is not enough: where both were
// killed at once exec has the door back within a few milliseconds, and exec is what
// the verdict is about. A host that goes down refuses too, with its last breath: a
// burst that goes unanswered when the refusals have grown old outweighs them.
func (s *subject) bothShut(now time.Time) bool {
	if min(s.doorShuts, s.portShuts) < shutLooks {
		return false
	}
	if s.doorShut.IsZero() || s.portShut.IsZero() || !s.wordAt.Before(s.doorShut) {
		return false
	}
	oldest := s.doorShut
	if s.portShut.Before(oldest) {
		oldest = s.portShut
	}
	return now.Sub(oldest) < doubtLasts && (plantNoVeto || !s.burstFail.After(oldest.Add(vetoTime)))
}

// refuses reports whether a refusal shows that the host answers: until the next look
// brought something else, or probes have gone unanswered well after it. A host goes
// down with its last refusals; one that stays refuses each look.
func (s *subject) refuses(now, shut time.Time) bool {
	return !shut.IsZero() && now.Sub(shut) < vetoHolds && !s.burstFail.After(shut.Add(vetoTime))
}

// silent reports whether this node itself is a witness of silence: it had contact
// in this life, has none now, and its own burst was not answered.
func (c *core) silent(now time.Time, s *subject) bool {
	if now.Before(c.abstain) || s.burstFail.IsZero() || s.heardAt.After(s.burstFail) {
		return false
	}
	if s.linked && s.missed < silentBeats {
		return false
	}
	if s.refuses(now, s.portShut) || s.refuses(now, s.doorShut) {
		return false // the host answers: it is not the network
	}
	if !s.wordAt.IsZero() && s.wordAt.After(s.burstFail.Add(-againMost)) {
		return false // its door answers
	}
	return s.hadLink || s.everUDP
}

// mostAreWell reports whether most of the fleet is well in our eyes: then probes of
// memberlist's that fail are our own doing, and not those of a network that broke.
func (c *core) mostAreWell() bool {
	well, broken := 0, 0
	for _, s := range c.peers {
		switch s.judged {
		case p2pnode.Alive:
			well++
		case p2pnode.Doubtful, p2pnode.Unreachable:
			broken++
		}
	}
	return well > 2*broken
}

// contradicted reports whether a living member hears the subject, on a live link or
// by probes, and has said so against claims of silence: where a network is cut only in part, those
// behind the cut are not gone.
func (c *core) contradicted(s *subject) bool {
	for w, cl := range s.claims {
		if cl.kind != kindHeard || cl.life != s.Life {
			continue
		}
		if x := c.peers[w]; x != nil && (x.verdict == p2pnode.Alive || x.verdict == p2pnode.Doubtful) {
			return true
		}
	}
	return false
}

// unreachable weighs the witnesses of silence. Two are needed, or all that there
// are where the subject has fewer neighbours that live, and nobody who still has it
// on a link.
func (c *core) unreachable(now time.Time, s *subject) bool {
	if plantOneWitness && (c.silent(now, s) || c.accused(s)) {
		return true
	}
	if c.linkSpeaks(s) || c.contradicted(s) || (!s.wordAt.IsZero() && now.Sub(s.wordAt) < againMost) {
		return false
	}
	// Our own sign of life is worth more than any claim before it.
	n := 0
	for _, cl := range s.claims {
		if cl.kind == kindSilent && cl.life == s.Life && cl.at.After(s.heardAt) && now.Sub(cl.since) >= contradictIn {
			n++
		}
	}
	if c.silent(now, s) {
		n++
	} else if now.Before(c.abstain) || s.heardAt.After(now.Add(-time.Second)) && (s.hadLink || s.everUDP) {
		return false
	}
	// SWIM's word counts beside a witness, never instead of one: in a network that
	// is linked only in part it cannot tell a dead node from one without a way.
	if n > 0 && !s.swimDead.IsZero() {
		n++
	}
	return n > 0 && n >= min(2, max(1, c.possibleWitnesses(s)))
}

// possibleWitnesses are the subject's neighbours that could tell us: not in trouble
// themselves, and with a way to here; this node among them.
func (c *core) possibleWitnesses(s *subject) int {
	n := 0
	self := false
	for _, id := range s.Neighbours {
		if id == c.self {
			self = true
			n++
			continue
		}
		if w := c.peers[id]; w != nil && (w.Routed || w.linked) && (w.verdict == p2pnode.Alive || w.verdict == p2pnode.Doubtful) {
			n++
		}
	}
	if !self && (s.hadLink || s.everUDP) {
		n++
	}
	return n
}

// judge is the verdict that the evidence makes.
func (c *core) judge(now time.Time, s *subject) p2pnode.Verdict {
	if StillTwice(s.Twice, now) {
		return p2pnode.DuplicateIdentity
	}
	if s.Left {
		return p2pnode.Left
	}
	v := c.byWord(now, s)
	switch {
	case v != p2pnode.Alive:
	case c.unreachable(now, s) || (plantGrudge && s.verdict == p2pnode.Unreachable):
		v = p2pnode.Unreachable
	case c.doubted(now, s):
		v = p2pnode.Doubtful
	}
	if v != p2pnode.Alive && c.successor(s) != nil {
		return p2pnode.IdentityChanged
	}
	return v
}

// StillTwice reports whether the proof that two processes live with one key, given at
// proved (zero: never), still holds. Nobody knows then which of them a verdict, or a
// repair, would be about: each heals itself.
func StillTwice(proved, now time.Time) bool {
	return !proved.IsZero() && now.Sub(proved) < twiceLasts
}

// successor is a member, well on a live link of ours, that has proved another key at
// the very address where the subject proved its own: the host came back without its
// data folder. Addresses that members only claim do not count: private networks
// repeat them.
func (c *core) successor(s *subject) *subject {
	if !s.Proven.IsValid() || s.linked {
		return nil
	}
	for _, x := range c.peers {
		if x != s && x.Proven == s.Proven && c.linkSpeaks(x) && x.first.After(s.first) {
			return x
		}
	}
	return nil
}

// settle makes the verdict what the evidence says, and says our own part of it.
func (c *core) settle(now time.Time, s *subject) {
	if v := s.damp(now, c.judge(now, s)); v != s.verdict {
		s.verdict, s.since = v, now
		c.changed = true
	}
	if s.verdict == p2pnode.Alive || s.verdict == p2pnode.Doubtful {
		if now.Sub(s.first) >= stableAfter || s.hadLink {
			s.stable = now
		}
	}
	c.say(now, s)
}

// say publishes what this node knows at first hand, repeats it while it holds, and
// takes it back once.
func (c *core) say(now time.Time, s *subject) {
	k := c.firstHand(now, s)
	switch {
	case k == s.said && (k == kindFine || k == "" || now.Sub(s.saidAt) < claimEvery):
		return
	case k == "" && s.said == "":
		return
	case k == "":
		k = kindFine
		if s.said == kindFine {
			return
		}
	}
	s.said, s.saidAt = k, now
	c.out = append(c.out, effPublish{s.ID, k, s.Life})
}

// firstHand is what this node may claim: a door's word that it was given itself,
// or its own witnessed silence.
func (c *core) firstHand(now time.Time, s *subject) kind {
	if s.Left {
		return ""
	}
	switch s.verdictOfWord() {
	case p2pnode.ProcessDead:
		return kindProcessDead
	case p2pnode.ExecDead:
		return kindExecDead
	case p2pnode.Hung:
		if s.missed >= silentBeats || !s.linked {
			return kindHung
		}
	}
	if !s.notice.IsZero() && !c.linkSpeaks(s) && s.wordAt.Before(s.notice) {
		return kindProcessDead
	}
	if s.bothShut(now) && !c.linkSpeaks(s) {
		return kindExecDead
	}
	if c.silent(now, s) {
		return kindSilent
	}
	if c.claimed(s, kindSilent) > 0 && (c.linkSpeaks(s) || c.heardAgainst(now, s)) {
		return kindHeard
	}
	return ""
}

// heardAgainst reports whether this node, without a link, had a sign of life of the
// subject since others called it silent: its links may all lead behind the cut, while
// the rest of the fleet reaches it well. Who has said so goes on for as long as the
// next probes may take, and no longer than until some have no answer; where somebody
// else has said it, it is not said again.
func (c *core) heardAgainst(now time.Time, s *subject) bool {
	if s.linked || !s.lostAt.IsZero() || !s.burstFail.IsZero() {
		return false
	}
	if s.said == kindHeard {
		return now.Sub(s.heardAt) < heardHolds
	}
	if c.contradicted(s) {
		return false
	}
	for _, cl := range s.claims {
		if cl.kind == kindSilent && cl.life == s.Life && s.heardAt.After(cl.at) {
			return true
		}
	}
	return false
}

// judgeBrake sets the brake: a level, the share of the last stable membership that
// is unreachable now. This node is a part of it.
func (c *core) judgeBrake(now time.Time) {
	gone, all := c.share(now)
	on := all >= brakeLeast && float64(gone) > brakeShare*float64(all) && !plantDropBrake
	switch {
	case on && c.brakeOn.IsZero():
		c.brakeOn, c.changed = now, true
	case !on && !c.brakeOn.IsZero():
		c.brakeOn, c.changed = time.Time{}, true
	}
}

func (c *core) share(now time.Time) (gone, all int) {
	all = 1
	for _, s := range c.peers {
		if s.Left || s.Ephemeral || s.stable.IsZero() || now.Sub(s.stable) > stableKept {
			continue
		}
		all++
		if s.verdict == p2pnode.Unreachable {
			gone++
		}
	}
	return gone, all
}

// brake is the brake's state as status shows it.
func (c *core) brake(now time.Time) p2pnode.BrakeState {
	gone, all := c.share(now)
	return p2pnode.BrakeState{On: !c.brakeOn.IsZero(), Unreachable: gone, Of: all, Since: c.brakeOn}
}

// nameOf is a member's name, or the end of its ID.
func (c *core) nameOf(id peer.ID) string {
	if s := c.peers[id]; s != nil {
		return s.Name
	}
	return p2pnode.ShortID(id)
}
