package gossip

import (
	"net/netip"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
)

// Peer is a certified member as its signed records tell it.
type Peer struct {
	ID         peer.ID
	Name       string
	Life       p2pnode.Life
	Addrs      []netip.AddrPort // UDP; the one to try first comes first
	Proven     netip.AddrPort   // where it last proved its key to this node; zero: never
	Door       string
	Left       bool      // it left, or stopped in good order, in this life
	Neighbours []peer.ID // who has, or had, links with it
	Routed     bool      // the routing table knows a way to it
	Said       time.Time // when it signed its record; zero: not known
	Ephemeral  bool      // nobody waits for it once it is gone: no part of the stable membership
	Twice      time.Time // when two processes with its key were last known to live; zero: never
}

// DoorWord is what a host's door says of it.
type DoorWord struct {
	ExecAlive bool
	NodeAlive bool
	NodeState string       // exec's word: a p2pnode.ServiceState
	NodeLife  p2pnode.Life // that the node process last said
}

// kind of an observation that is published.
type kind string

const (
	kindSilent      kind = "silent"
	kindProcessDead kind = "process-dead"
	kindExecDead    kind = "exec-dead"
	kindHung        kind = "hung"
	kindFine        kind = "fine"  // takes back what this witness said
	kindHeard       kind = "heard" // others call it silent, and this witness hears it, on a live link or since
)

// Events of the core.
type (
	event any

	evTick struct {
		late   bool // our own timers were
		health int  // memberlist's score of ourselves; 0: good
	}
	evPeers struct{ peers []Peer }
	evLink  struct {
		peer peer.ID
		up   bool
		lost bool // down without a good-bye
	}
	evMissed struct {
		peer   peer.ID
		missed int
	}
	evDeath struct { // a door's notice: that life ended
		peer peer.ID
		life p2pnode.Life
	}
	evHeard struct{ peer peer.ID } // a packet of it arrived
	evBurst struct {               // the end of a burst of probes
		peer     peer.ID
		answered bool
		void     bool // it shows nothing: not sent, or we were late ourselves
	}
	evKnock struct {
		peer    peer.ID
		word    DoorWord
		err     bool
		refused bool
		void    bool
	}
	evDial struct { // the end of a verdict dial; neither refused nor open: no answer
		peer    peer.ID
		refused bool
		open    bool
		void    bool
	}
	evSwim struct {
		peer peer.ID
		what swimWord
	}
	evClaim struct { // a signed observation of another member
		witness, subject peer.ID
		kind             kind
		life             p2pnode.Life
		expires          time.Time
	}
)

// swimWord is what memberlist says.
type swimWord uint8

const (
	swimAlive swimWord = iota
	swimAck
	swimSuspect
	swimDead
)

// Effects of the core.
type (
	effect any

	effBurst   struct{ peer peer.ID }
	effKnock   struct{ peer peer.ID }
	effDial    struct{ peer peer.ID }
	effPublish struct {
		subject peer.ID
		kind    kind
		life    p2pnode.Life
	}
	effJoin struct{ peer peer.ID } // memberlist should know it
)

// claim is what a witness said.
type claim struct {
	kind    kind
	life    p2pnode.Life
	expires time.Time
	at      time.Time // when it was last said
	since   time.Time // when it was first said, and never taken back in between
}

// subject is a member and all evidence about its present life.
type subject struct {
	Peer
	verdict p2pnode.Verdict
	since   time.Time
	first   time.Time // first seen

	linked   bool
	hadLink  bool      // in this life: our silence about it means something
	lostAt   time.Time // the last link broke; zero: no doubt from that
	missed   int
	heardAt  time.Time // any sign of life that came from it
	everUDP  bool
	suspect  time.Time // our own SWIM suspicion
	swimDead time.Time
	swimKnew bool
	joined   time.Time // memberlist was last asked to meet it
	unrouted time.Time

	bursting  bool
	burstFail time.Time // the last burst had no answer
	knocking  bool
	word      DoorWord
	wordAt    time.Time // zero: no word about this life
	doorErr   time.Time
	doorShut  time.Time // the door refused the connection
	doorShuts int       // ... so many looks in a row
	portShut  time.Time
	portShuts int
	portOpen  time.Time
	dialling  bool
	notice    time.Time // a door told of this life's end
	nextLook  time.Time
	looks     int

	claims map[peer.ID]claim

	said   kind // our published observation
	saidAt time.Time

	stable time.Time // last time that it was part of the living

	judged p2pnode.Verdict // before damping
	flaps  float64         // ends of being well, at flapAt
	flapAt time.Time
	damped bool

	steadyAt time.Time // since when its link has spoken without a break
}

// core holds the evidence and judges. It is pure: time comes in as an argument.
type core struct {
	self      peer.ID
	peers     map[peer.ID]*subject
	early     map[peer.ID]bool // links with peers whose record has not come yet
	abstain   time.Time
	lastTick  time.Time
	brakeOn   time.Time
	out       []effect
	forgotten uint64 // claims dropped for want of room
	swimWrong uint64 // SWIM deaths of peers with a live link
	version   uint64
	changed   bool
	restless  bool // time alone may change a belief, or there is something to look into
}

func newCore(self peer.ID) *core {
	return &core{self: self, peers: map[peer.ID]*subject{}, early: map[peer.ID]bool{}}
}

// step takes in one event and returns what is to be done.
func (c *core) step(now time.Time, ev event) []effect {
	c.out = nil
	switch e := ev.(type) {
	case evPeers:
		c.setPeers(now, e.peers)
	case evTick:
		if e.late || e.health >= badHealth && c.mostAreWell() {
			c.abstain = now.Add(abstainFor)
		}
		c.tick(now)
	default:
		if s := c.of(ev); s != nil {
			c.note(now, s, ev)
			c.look(now, s)
			c.settle(now, s)
			c.restless = c.restless || !c.calm(now, s)
		} else if l, ok := ev.(evLink); ok {
			c.noteEarly(l)
		}
	}
	return c.out
}

// noteEarly keeps the link of a peer that is no known member yet: a link can be
// faster than the record of who is at its other end.
func (c *core) noteEarly(l evLink) {
	if l.up {
		c.early[l.peer] = true
	} else {
		delete(c.early, l.peer)
	}
}

// pace is how soon the next tick is due.
func (c *core) pace() time.Duration {
	if c.restless {
		return tickEvery
	}
	return calmTick
}

// calm reports whether nothing is said against a subject and nothing of it waits for
// time to pass: then a tick finds nothing to do, and fewer of them are enough.
func (c *core) calm(now time.Time, s *subject) bool {
	if s.Left {
		return true
	}
	return s.verdict == p2pnode.Alive && s.judged == p2pnode.Alive && len(s.claims) == 0 && s.unrouted.IsZero() &&
		(s.said == "" || s.said == kindFine) && (s.swimKnew || !s.linked) && !c.worried(now, s)
}

func (c *core) of(ev event) *subject {
	switch e := ev.(type) {
	case evLink:
		return c.peers[e.peer]
	case evMissed:
		return c.peers[e.peer]
	case evDeath:
		return c.peers[e.peer]
	case evHeard:
		return c.peers[e.peer]
	case evBurst:
		return c.peers[e.peer]
	case evKnock:
		return c.peers[e.peer]
	case evDial:
		return c.peers[e.peer]
	case evSwim:
		return c.peers[e.peer]
	case evClaim:
		return c.peers[e.subject]
	}
	return nil
}

// setPeers takes the certified membership. A newer life wipes what was known of
// the old one: the node itself has signed it.
func (c *core) setPeers(now time.Time, peers []Peer) {
	seen := make(map[peer.ID]bool, len(peers))
	for _, p := range peers {
		if p.ID == c.self || len(seen) >= maxPeers {
			continue
		}
		seen[p.ID] = true
		s := c.peers[p.ID]
		if s == nil {
			s = &subject{verdict: p2pnode.Alive, judged: p2pnode.Alive, since: now, first: now, claims: map[peer.ID]claim{}}
			if !p.Said.IsZero() && now.Sub(p.Said) >= stableAfter {
				s.stable = p.Said // others have known it for longer than we
			}
			c.peers[p.ID] = s
			c.changed = true
		} else if p.Life != s.Life && p.Life.Boot >= s.Life.Boot {
			c.renew(now, s)
		} else if p.Life.Boot < s.Life.Boot {
			p.Life = s.Life // an older record arrived late
		}
		if s.Life != p.Life || s.Left != p.Left || s.Name != p.Name {
			c.changed = true
		}
		s.Peer = p
		if c.early[p.ID] {
			delete(c.early, p.ID)
			c.noteLink(now, s, evLink{peer: p.ID, up: true})
		}
		if !p.Routed && s.unrouted.IsZero() {
			s.unrouted = now
		} else if p.Routed {
			s.unrouted = time.Time{}
		}
		c.look(now, s)
		c.settle(now, s)
		c.restless = c.restless || !c.calm(now, s)
	}
	for id, s := range c.peers {
		if !seen[id] {
			if s.linked {
				c.early[id] = true
			}
			delete(c.peers, id)
			c.changed = true
		}
	}
}

// renew starts a life: evidence of the old one is void. A link that is up was
// made by the new one or ends by itself in a moment.
func (c *core) renew(now time.Time, s *subject) {
	old := *s
	*s = subject{
		Peer: old.Peer, verdict: old.verdict, judged: old.verdict, since: old.since, first: old.first, stable: old.stable,
		linked: old.linked, hadLink: old.linked, heardAt: now, said: old.said, saidAt: old.saidAt,
		bursting: old.bursting, knocking: old.knocking, dialling: old.dialling, claims: map[peer.ID]claim{},
	}
	c.changed = true
}

// note files one piece of evidence.
func (c *core) note(now time.Time, s *subject, ev event) {
	switch e := ev.(type) {
	case evLink:
		c.noteLink(now, s, e)
	case evMissed:
		s.missed, s.steadyAt = e.missed, now
		if e.missed == 0 {
			c.alive(now, s)
		}
	case evDeath:
		if e.life == s.Life {
			s.notice = now
		}
	case evHeard:
		s.everUDP = true
		if !s.inFlight(now) {
			c.alive(now, s)
		}
	case evBurst:
		s.bursting = false
		switch {
		case e.void:
		case e.answered:
			s.everUDP = true
			c.alive(now, s)
		default:
			s.burstFail = now
		}
	case evKnock:
		c.noteKnock(now, s, e)
	case evDial:
		c.noteDial(now, s, e)
	case evSwim:
		c.noteSwim(now, s, e.what)
	case evClaim:
		c.noteClaim(now, s, e)
	}
}

func (c *core) noteLink(now time.Time, s *subject, e evLink) {
	s.linked = e.up
	switch {
	case e.up:
		s.hadLink, s.missed, s.steadyAt = true, 0, now
		c.alive(now, s)
		c.meet(now, s)
	case e.lost:
		s.lostAt, s.missed = now, 0 // heartbeats are a link's; the doubt is the loss's now
		s.looks, s.nextLook = 0, now
	default:
		s.missed = 0
	}
}

// inFlight reports whether what arrives now may have been sent before the link
// broke: the last packets of a dead process are no sign of life.
func (s *subject) inFlight(now time.Time) bool {
	return !s.lostAt.IsZero() && now.Sub(s.lostAt) < inFlightTime
}

// forgetSWIM: memberlist was made anew and knows nobody.
func (c *core) forgetSWIM() {
	for _, s := range c.peers {
		s.swimKnew, s.joined = false, time.Time{}
	}
}

// meet makes memberlist know a neighbour: it never tries the dead again by itself,
// so splits heal here.
func (c *core) meet(now time.Time, s *subject) {
	if s.linked && !s.swimKnew && !plantForgetMeet && now.Sub(s.joined) > meetEvery {
		s.joined = now
		c.out = append(c.out, effJoin{s.ID})
	}
}

// alive files a sign of life: what spoke for silence before it is void. A door's
// word about this life stays: the process may have died a moment later.
func (c *core) alive(now time.Time, s *subject) {
	s.heardAt = now
	s.lostAt, s.suspect, s.swimDead, s.burstFail = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	s.notice, s.portShut, s.portShuts = time.Time{}, time.Time{}, 0
	if !s.wordAt.IsZero() && s.verdictOfWord() != p2pnode.Alive {
		s.wordAt = time.Time{}
	}
}

// noteKnock: the newest answer counts, also when it is none.
func (c *core) noteKnock(now time.Time, s *subject, e evKnock) {
	s.knocking = false
	switch {
	case e.void:
		return
	case e.refused:
		s.doorErr, s.doorShut = now, now
		s.doorShuts++
		return
	case e.err:
		s.doorErr, s.doorShut, s.doorShuts = now, time.Time{}, 0
		return
	}
	s.doorErr, s.doorShut, s.doorShuts = time.Time{}, time.Time{}, 0
	s.word, s.wordAt = e.word, now
}

func (c *core) noteDial(now time.Time, s *subject, e evDial) {
	s.dialling = false
	switch {
	case e.void:
	case e.refused:
		s.portShut = now
		s.portShuts++
	case e.open:
		s.portOpen, s.portShut, s.portShuts = now, time.Time{}, 0
	default:
		s.portShut, s.portShuts = time.Time{}, 0
	}
}

func (c *core) noteSwim(now time.Time, s *subject, w swimWord) {
	switch w {
	case swimAlive:
		s.swimKnew = true
		s.swimDead = time.Time{}
	case swimAck:
		if !s.inFlight(now) {
			c.alive(now, s)
		}
	case swimSuspect:
		s.suspect = now
	case swimDead:
		s.swimKnew = false
		if s.linked && s.missed < silentBeats {
			c.swimWrong++
			return
		}
		s.swimDead = now
	}
}

func (c *core) noteClaim(now time.Time, s *subject, e evClaim) {
	if e.witness == s.ID || e.witness == c.self {
		return
	}
	if e.kind == kindFine {
		delete(s.claims, e.witness)
		return
	}
	old, known := s.claims[e.witness]
	if !known && len(s.claims) >= maxWitnesses {
		c.forgotten++
		return
	}
	said := claim{kind: e.kind, life: e.life, expires: e.expires, at: now, since: now}
	if known && old.kind == said.kind && old.life == said.life && !s.heardAt.After(old.at) {
		said.since = old.since // said again, it holds all the time
	}
	s.claims[e.witness] = said
}

// tick lets time pass: claims lapse, looks are due, doubts end.
func (c *core) tick(now time.Time) {
	c.lastTick = now
	c.restless = !c.brakeOn.IsZero() || now.Before(c.abstain)
	for _, s := range c.sorted() {
		for w, cl := range s.claims {
			if !cl.expires.After(now) {
				delete(s.claims, w)
			}
		}
		c.meet(now, s)
		c.look(now, s)
		c.settle(now, s)
		c.restless = c.restless || !c.calm(now, s)
	}
	c.judgeBrake(now)
}

// sorted gives the subjects in a fixed order: a core under a seed is repeatable.
func (c *core) sorted() []*subject {
	out := make([]*subject, 0, len(c.peers))
	for _, s := range c.peers {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *subject) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return out
}
