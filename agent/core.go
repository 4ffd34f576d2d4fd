package agent

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"p2pnode"

	"github.com/libp2p/go-libp2p/core/peer"
)

// core decides everything that agents on this node do. It is pure: Step takes
// the time and one event and returns what is to be done; answers of the world
// come back as events. Every wait is a deadline that Next tells.
//
//	files: itinerary.go  where a patrol goes, how it is handed over
//	       claims.go     who goes to a failure, and what a lapse does
//	       mission.go    what an agent decides on the spot; verify.go how it ends
//	       resident.go   the same for this host, zero hops; visit.go what patrols find
//	       why.go        what people are told of where agents are and why
//	       stories.go    how what failed elsewhere ended, if no agent can tell
//	       ownstories.go the same for services, by their own host or for it
//	       population.go how many agents there should be; promise.go how well they do
type core struct {
	cfg  Config
	self peer.ID
	rng  *rand.Rand
	now  time.Time
	out  []effect

	beliefs   Beliefs
	held      map[string]*here       // agents that are on this node
	seen      map[string]seen        // newest handoff taken, by agent
	bad       map[peer.ID]time.Time  // next hops that failed lately
	book      map[peer.ID]time.Time  // last visits, by the own clock
	wellSince map[peer.ID]time.Time  // members that can be visited, since when
	needs     map[peer.ID][]need     // what others say that orders need
	stamps    map[peer.ID]time.Time  // last visits as their own nodes' clocks tell them: only to be compared
	census    map[string]sighting    // agents everywhere, newest sighting
	watches   map[string]*watch      // failures elsewhere, by incident
	orders    map[string]*population // standing orders
	recalls   map[string]time.Time   // recalled order IDs
	cases     map[string]*localCase  // failures of this host's services, by incident
	stories   map[string]*story      // failures elsewhere whose end is to be told, by incident
	hosts     map[peer.ID]*hostStory // hosts that nobody reached

	ownLook      time.Time // next look at this host's services, for the sake of their stories
	ownLookToken uint64

	token      uint64
	started    time.Time
	stampedAt  time.Time
	stampDirty bool
	censusAt   time.Time
	hopTime    time.Duration // smoothed: arrival to arrival
	resident   string
	shown      int // agents that people were told of
}

type seen struct {
	hop  uint64
	at   time.Time
	from peer.ID // neighbour that brought it first
}

// failure is what a mission is about; the same on every node.
type failure struct {
	target   peer.ID
	service  string // "" the node process
	failed   string
	class    p2pnode.Class
	incident string
}

func failureOf(target peer.ID, service, failed string, class p2pnode.Class) failure {
	return failure{target, service, failed, class, p2pnode.IncidentID(target.String(), service, failed)}
}

// severity orders failures; higher goes first.
func (f failure) severity() int {
	switch f.class {
	case p2pnode.ClassExecDead:
		return 3
	case p2pnode.ClassProcessDead:
		return 2
	case p2pnode.ClassHung:
		return 1
	}
	return 0
}

// Events.
type (
	evTick    struct{}
	evBeliefs struct{ Beliefs }
	evRecord  struct{ p2pnode.Record }
	evExec    struct{ p2pnode.ExecEvent }
	// evArrive is a traveller at the door of this process; reply names who waits
	// for the ACK.
	evArrive struct {
		t     *traveller
		from  peer.ID // the neighbour that the link belongs to
		reply uint64
	}
	evHanded struct {
		agent string
		token uint64
		err   error
	}
	evDoor struct {
		agent string
		token uint64
		word  DoorWord
		err   error
	}
	evRecovered struct {
		agent    string // of a mission; "" for a local case
		incident string
		token    uint64
		answer   p2pnode.RecoverAnswer
		err      error
	}
	evStatus struct {
		agent, incident string
		token           uint64
		status          p2pnode.ExecStatus
		err             error
	}
	evOrder  struct{ order Order }    // given on this node
	evReport struct{ p2pnode.Report } // stored here, whoever wrote it
)

type event any

// Effects.
type (
	fxHand struct {
		agent string
		token uint64
		to    peer.ID
		req   []byte
		wait  time.Duration
	}
	fxReply struct {
		reply uint64
		ack   []byte
	}
	fxPublish struct {
		domain p2pnode.Domain
		key    string
		body   []byte
		ttl    time.Duration
	}
	fxReport struct {
		report   p2pnode.Report
		replayed bool // of an event older than this process
	}
	fxKnock struct {
		agent  string
		token  uint64
		target peer.ID
	}
	fxRecover struct { // through a door; target "" asks the own exec
		agent, incident string
		token           uint64
		target          peer.ID
		req             p2pnode.RecoverRequest
	}
	fxStatus struct {
		agent, incident string
		token           uint64
	}
	fxOrphan struct { // report unless the store has one of that phase
		report p2pnode.Report
	}
	fxHistory struct{ p2pnode.HistoryEvent }
	fxCount   struct{ what string }
	fxChanged struct{}
)

type effect any

func newCore(cfg Config, now time.Time) *core {
	sum := sha256.Sum256([]byte("resident\x00" + cfg.Self.String()))
	return &core{
		cfg: cfg, self: cfg.Self, rng: rand.New(cfg.Rand), started: now,
		held: map[string]*here{}, seen: map[string]seen{}, bad: map[peer.ID]time.Time{},
		book: map[peer.ID]time.Time{}, wellSince: map[peer.ID]time.Time{}, stamps: map[peer.ID]time.Time{}, needs: map[peer.ID][]need{}, census: map[string]sighting{}, watches: map[string]*watch{},
		orders: map[string]*population{}, recalls: map[string]time.Time{}, cases: map[string]*localCase{},
		stories: map[string]*story{}, hosts: map[peer.ID]*hostStory{},
		resident: fmt.Sprintf("r-%x", sum[:4]),
	}
}

// Step takes one event at time now.
func (c *core) Step(now time.Time, ev event) []effect {
	c.now, c.out = now, nil
	switch e := ev.(type) {
	case evTick:
	case evBeliefs:
		c.onBeliefs(e.Beliefs)
	case evRecord:
		c.onRecord(e.Record)
	case evExec:
		c.onExecEvent(e.ExecEvent)
	case evArrive:
		c.onArrive(e)
	case evHanded:
		c.onHanded(e)
	case evDoor:
		c.onDoor(e)
	case evRecovered:
		c.onRecovered(e)
	case evStatus:
		c.onStatus(e)
	case evOrder:
		c.takeOrder(e.order)
	case evReport:
		c.onReport(e.Report)
	default:
		panic(fmt.Sprintf("agent: unknown event %T", ev))
	}
	c.due()
	return c.out
}

// due does everything whose time has come. Each part may set new deadlines; the
// order is fixed so that one seed is one run.
func (c *core) due() {
	for _, id := range slices.Sorted(maps.Keys(c.held)) {
		if h, ok := c.held[id]; ok {
			c.dueAgent(h)
		}
	}
	c.dueWatches()
	for _, id := range slices.Sorted(maps.Keys(c.cases)) {
		c.dueCase(c.cases[id])
	}
	if !c.now.Before(c.censusAt) {
		c.censusAt = c.now.Add(censusEvery)
		c.forgetOld()
		c.noteWell()
		c.duePopulation()
		c.dueStories()
	}
	if c.stampDirty && !c.now.Before(c.stampedAt.Add(stampAtMost)) {
		c.publishStamp()
	}
}

// Next is when Step wants an evTick at the latest.
func (c *core) Next() time.Time {
	next := c.censusAt
	sooner := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	for _, h := range c.held {
		sooner(h.wake)
		if h.mission != nil {
			sooner(h.extendAt)
		}
	}
	for _, w := range c.watches {
		sooner(w.dueAt)
	}
	for _, s := range c.cases {
		sooner(s.wake)
	}
	if c.stampDirty {
		sooner(c.stampedAt.Add(stampAtMost))
	}
	return next
}

func (c *core) emit(e effect)     { c.out = append(c.out, e) }
func (c *core) count(what string) { c.emit(fxCount{what}) }
func (c *core) nextToken() uint64 { c.token++; return c.token }
func (c *core) usable(p peer.ID) bool { // to travel over
	v := c.beliefs.Peers[p].Verdict
	return v == "" || v == p2pnode.Alive || v == p2pnode.Doubtful || v == p2pnode.ExecDead
}

func (c *core) onRecord(r p2pnode.Record) {
	if r.Signer == c.self && r.Domain != p2pnode.DomainOrder {
		return
	}
	switch r.Domain {
	case p2pnode.DomainStamp:
		s, err := decodeStamp(c.now, r.Body)
		if err != nil {
			c.refuse("stamp", err)
			return
		}
		c.onStamp(r.Signer, s)
	case p2pnode.DomainClaim:
		cl, err := decodeClaim(r.Body)
		if err == nil && cl.incident != r.Key {
			err = refusedLimits
		}
		if err != nil {
			c.refuse("claim", err)
			return
		}
		c.onClaim(r.Signer, cl)
	case p2pnode.DomainOrder:
		o, err := decodeOrder(r.Body)
		if err == nil && o.ID != r.Key {
			err = refusedLimits
		}
		if err != nil {
			c.refuse("order", err)
			return
		}
		o.By = r.Signer
		c.takeOrder(o)
	}
}

func (c *core) refuse(what string, err error) {
	if r, ok := err.(refused); ok {
		c.count(what + "-" + string(r))
		return
	}
	c.count(what + "-damaged")
}

// forgetOld keeps memory bounded by time; limits.go bounds it by number.
func (c *core) forgetOld() {
	maps.DeleteFunc(c.seen, func(_ string, s seen) bool { return c.now.Sub(s.at) > seenFor })
	maps.DeleteFunc(c.bad, func(_ peer.ID, until time.Time) bool { return c.now.After(until) })
	maps.DeleteFunc(c.census, func(_ string, s sighting) bool { return c.now.Sub(s.heard) > stampTTL })
	members := map[peer.ID]bool{}
	for _, m := range c.cfg.Links.Members() {
		members[m] = true
	}
	maps.DeleteFunc(c.hosts, func(p peer.ID, _ *hostStory) bool { return !members[p] })
	maps.DeleteFunc(c.book, func(p peer.ID, _ time.Time) bool { return !members[p] })
	maps.DeleteFunc(c.needs, func(p peer.ID, _ []need) bool { return !members[p] || !c.usable(p) })
	maps.DeleteFunc(c.stamps, func(p peer.ID, _ time.Time) bool { return !members[p] })
	maps.DeleteFunc(c.wellSince, func(p peer.ID, _ time.Time) bool { return !members[p] })
}

// hash orders things in a way that all nodes agree on and nobody chooses.
func hash(parts ...string) uint64 {
	h := sha256.New()
	for _, p := range parts {
		h.Write([]byte(p))
		h.Write([]byte{0})
	}
	return binary.BigEndian.Uint64(h.Sum(nil))
}
