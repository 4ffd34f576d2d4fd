package agent

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"p2pnode"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// Links is the routing table as it is now. Its methods are asked from the
// goroutine that owns the core: they answer from memory.
type Links interface {
	// Next is the neighbour to hand an agent to on the way to dst, and a second
	// choice ("" if there is none); ok is false where no route exists.
	Next(dst peer.ID) (next, second peer.ID, ok bool)
	// Neighbours are the nodes that this node has a link with now.
	Neighbours() []peer.ID
	// NeighboursOf names who has, or lately had, a link with id. For a node that
	// has just died it must still answer: that is where a mission to it ends.
	NeighboursOf(id peer.ID) []peer.ID
	// Cost of the cheapest route; ok is false where none exists.
	Cost(from, to peer.ID) (cost int, ok bool)
	// RTT of the link with a neighbour; 0 where it was not measured.
	RTT(neighbour peer.ID) time.Duration
	// Members are all nodes that belong to the cluster, this one too.
	Members() []peer.ID
	// Forgotten: id was a member and is not expected back.
	Forgotten(id peer.ID) bool
}

// Carry takes a request to a neighbour over the link and brings its answer.
type Carry interface {
	Call(ctx context.Context, neighbour peer.ID, req []byte) ([]byte, error)
}

// Exec is this host's own exec service.
type Exec interface {
	Recover(ctx context.Context, req p2pnode.RecoverRequest) (p2pnode.RecoverAnswer, error)
	Status(ctx context.Context) (p2pnode.ExecStatus, error)
}

// DoorWord is what a host's door says, signed, about its own host.
type DoorWord struct {
	ExecAlive bool
	NodeAlive bool
	NodeState string       // p2pnode.ServiceState of @node where exec lives; else ""
	NodeLife  p2pnode.Life // life that the node process last said
}

// Doors knocks at the door of a host, this one's too.
type Doors interface {
	Status(ctx context.Context, target peer.ID) (DoorWord, error)
	Recover(ctx context.Context, target peer.ID, req p2pnode.RecoverRequest) (p2pnode.RecoverAnswer, error)
}

// Belief is the verdict on one node.
type Belief struct {
	Verdict p2pnode.Verdict
	Life    p2pnode.Life // the life that the verdict is about
	Since   time.Time
}

// Beliefs is an immutable snapshot of all verdicts.
type Beliefs struct {
	Peers map[peer.ID]Belief
	Brake p2pnode.BrakeState
}

// Config is what an Agent is made of. Zero durations take the defaults.
type Config struct {
	Self peer.ID
	Name string // this node's name, for logs and reports

	Links Links
	Carry Carry
	Exec  Exec
	Doors Doors

	// Publish signs a record and floods it. It is called from one goroutine, in
	// order, and may block for a moment.
	Publish func(domain p2pnode.Domain, key string, body []byte, ttl time.Duration) error
	// Chain is this node's chain of certificates, for orders that it gives. nil: none.
	Chain func() [][]byte
	// Report takes a report to the store. Called from one goroutine, in order.
	Report func(p2pnode.Report)
	// Reported says whether the store holds a report of that incident and phase.
	// Exec replays its events to each life of the node process: without this,
	// what the life before had reported is reported again. nil: never.
	Reported func(incident string, phase p2pnode.Phase) bool
	// Observe says that this host only watches. nil: never.
	Observe func() bool
	// Labels of a member, for orders that name labels. nil: none has any.
	Labels func(peer.ID) map[string]string
	// NameOf is the name of a member, for history and reports. nil: the short ID.
	NameOf func(peer.ID) string

	// Settle is how long a thing must stay up before its repair counts as
	// verified. Too short, and a crash loop is reported as healed.
	Settle time.Duration
	// LifeWait is how long an agent waits for the next life after an act before
	// it reports a failure. Too short, and slow starts are called failed.
	LifeWait time.Duration
	// Dwell is how long a patrol stays on a node; 0: a fifteenth of the service
	// level, within 50 ms and 1 s. Shorter costs CPU on every host, longer needs
	// more agents for the same service level.
	Dwell time.Duration

	Rand    rand.Source // IDs and jitter; nil: seeded by the system
	Log     zerolog.Logger
	Metrics prometheus.Registerer // nil: none
	History *p2pnode.History      // nil: none
}

// Defaults of Config.
const (
	DefaultSettle   = 3 * time.Second
	DefaultLifeWait = 15 * time.Second
)

func (c *Config) validate() error {
	switch {
	case c.Self == "":
		return errors.New("agent: Config.Self is missing")
	case c.Links == nil || c.Carry == nil || c.Exec == nil || c.Doors == nil:
		return errors.New("agent: Config needs Links, Carry, Exec and Doors")
	case c.Publish == nil || c.Report == nil:
		return errors.New("agent: Config needs Publish and Report")
	}
	if c.Settle <= 0 {
		c.Settle = DefaultSettle
	}
	if c.LifeWait <= 0 {
		c.LifeWait = DefaultLifeWait
	}
	if c.Reported == nil {
		c.Reported = func(string, p2pnode.Phase) bool { return false }
	}
	if c.Chain == nil {
		c.Chain = func() [][]byte { return nil }
	}
	if c.Observe == nil {
		c.Observe = func() bool { return false }
	}
	if c.Labels == nil {
		c.Labels = func(peer.ID) map[string]string { return nil }
	}
	if c.NameOf == nil {
		c.NameOf = p2pnode.ShortID
	}
	if c.Rand == nil {
		c.Rand = rand.NewPCG(rand.Uint64(), rand.Uint64())
	}
	return nil
}
