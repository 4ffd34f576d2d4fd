package manage

import (
	"context"
	"iter"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"p2pnode"
	"p2pnode/exec"
)

// Config is what the operator API stands on. Every field must be set but the
// ones that say so.
type Config struct {
	// Self is this node, Name what people call it, Data its folder.
	Self peer.ID
	Name string
	Data string
	// Listen and Door are where this host listens, Life is the node process's.
	Listen []string
	Door   string
	Life   string
	// Joins says that --join was given: being alone is then an error, not a state.
	Joins bool
	// WantsToManage says that --manager was given.
	WantsToManage bool

	Fleet   Fleet
	Routes  Routes
	Agents  Agents
	Reports Reports
	Cluster Cluster
	Remote  Remote
	Host    Host
	Events  *Events
	Log     zerolog.Logger
	// Gatherer is what /metrics shows; nil: there is no /metrics.
	Gatherer prometheus.Gatherer
}

// Fleet is who is there and what is believed of them.
type Fleet interface {
	// Nodes are all members, this one too. Verdicts and addresses as of now.
	Nodes() []p2pnode.NodeDoc
	Why(id peer.ID) p2pnode.WhyDoc
	Brake() p2pnode.BrakeState
}

// Routes is the overlay's ground.
type Routes interface {
	Path(a, b peer.ID) p2pnode.PathDoc
	Ping(ctx context.Context, to peer.ID) (p2pnode.PingDoc, error)
}

// Agents is the population of agents.
type Agents interface {
	Agents() p2pnode.AgentsDoc
	Launch(slo time.Duration, confidence float64, labels map[string]string) (p2pnode.OrderDoc, error)
	Recall(id string) error
}

// Reports is what is stored here, oldest first, excerpts opened where this node may
// read them. A hundred thousand are usual: sequences read one at a time.
type Reports interface {
	All() iter.Seq[p2pnode.Report]
	// Recent are the reports of the newest n incidents (0: a useful number) and of all
	// open ones, and how many incidents are left out.
	Recent(n int) (iter.Seq[p2pnode.Report], int)
	// Incident are the reports of one.
	Incident(id string) iter.Seq[p2pnode.Report]
	// Counts are how many incidents are open, and of how many something was reported
	// since t.
	Counts(t time.Time) (open, since int)
	// Trouble says why reports are not written to the disk; "" means that they are.
	Trouble() string
	// Changed is closed at the next new report.
	Changed() <-chan struct{}
}

// Cluster is this node's standing in its cluster.
type Cluster interface {
	// Standing is nil before this node was admitted.
	Standing() *Standing
	// JoinError is why this node is no member yet, or why a member was refused where
	// it was told to join: that is another cluster. Nil otherwise.
	JoinError() error
	CreateToken(role p2pnode.Role, ttl time.Duration, uses int) (p2pnode.TokenDoc, error)
	Promote(ctx context.Context, id peer.ID) error
	// Revoke refuses a node's key for good; kept are the members that it had let in.
	Revoke(id peer.ID) (kept []string, err error)
	// Forget takes a node that is not expected back off everybody's list.
	Forget(id peer.ID) error
	// Demote makes a manager a worker; kept are the members that it had let in.
	Demote(id peer.ID) (kept []string, err error)
	// Pending are those who asked to be let in without a token, Approve lets one in, and
	// Open all neighbours until d has passed (0: no more).
	Pending() []p2pnode.PendingNode
	Approve(id peer.ID) error
	Open(d time.Duration) (until time.Time, err error)
	// Trust takes the cluster that this host is in for the one that was meant.
	Trust(cluster string) error
	// Tokens are those in force, without their secrets.
	Tokens() []p2pnode.TokenDoc
	RemoveToken(id string) error
	Manage(on bool) error
	Leave(ctx context.Context) error
	Join(addr string) error
	// Refusals counts what was refused, by reason.
	Refusals() map[string]uint64
}

// Standing is what a node may be told of its cluster and of itself in it.
type Standing struct {
	Cluster  string
	Trusted  bool
	Role     p2pnode.Role
	Managing bool
	Door     string    // as others are told
	Since    time.Time // when this node process was admitted
	// DemotedBy names who took its privilege; "": nobody, or it never had any.
	DemotedBy   string
	RootKey     bool          // the root's key is in the data folder: whoever reads it can make managers
	Until       time.Time     // when its certificate ends, and a manager's privilege with it
	ClockBehind time.Duration // by which this host's clock seems to be wrong
	OpenUntil   time.Time     // neighbours are let in without a token; zero: they are not
}

// Remote is the services of other hosts.
type Remote interface {
	// Act has services of another host started, stopped, restarted or set aside: its
	// exec decides whether this node may.
	Act(ctx context.Context, host peer.ID, verb, target string, options exec.VerbOptions) (exec.VerbResult, error)
	// Logs calls f with each line of another host's logs; its exec decides whether this
	// node may. It returns after the last one, or, where they are followed, when ctx
	// ends or f fails.
	Logs(ctx context.Context, host peer.ID, target string, read exec.LogRead, f func(exec.LogLine) error) error
}

// Host is this host's exec.
type Host interface {
	Status(ctx context.Context) (p2pnode.ExecStatus, error)
}
