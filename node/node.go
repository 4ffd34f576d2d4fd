package node

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"p2pnode"
	"p2pnode/agent"
	"p2pnode/exec/door"
	"p2pnode/gossip"
	"p2pnode/manage"
	"p2pnode/manage/notify"
	"p2pnode/overlay"
	"p2pnode/store"
)

// Node is one node process. New makes it, Run is its whole life; the methods may
// be called from any goroutine in between.
type Node struct {
	cfg   Config
	env   Env
	exec  Exec
	local *ExecLink // exec where Env gave none: closed at the end

	overlay *overlay.Overlay
	agents  *agent.Agent
	doors   Doors
	api     *manage.API
	events  *manage.Events
	began   time.Time

	// belief and reports come into being during Run: the first with admission, the
	// second once the disk has been read.
	belief  late[*gossip.Gossip]
	reports late[*store.Store]

	orders   orders   // of managers, for services here
	readings readings // of logs here, by managers

	outbox *outbox
	linkUp chan peer.ID // new neighbours, for a first look at their stores
	left   chan struct{}

	newExec chan struct{} // exec is another one than before: it must hear from us

	stories stories // the store's goroutine owns it
	notify  *notify.Notifier
	repairs *manage.Repairs

	switching sync.Mutex // of managing, and the file that remembers it

	mu       sync.Mutex
	managing bool
	observe  bool // as exec last said
	admitted time.Time
}

// errLeft ends a node process that has left its cluster; its next life has none.
var errLeft = errors.New("left the cluster")

// New reads this node's identity and listens. Nothing is answered before Run.
func New(cfg Config, env Env) (*Node, error) {
	if env.Network == nil {
		env.Network = HostNetwork{}
	}
	if env.Rand == nil {
		env.Rand = rand.NewPCG(rand.Uint64(), rand.Uint64())
	}
	n := &Node{
		cfg: cfg, env: env, exec: env.Exec, doors: env.Doors, events: manage.NewEvents(), began: time.Now(),
		belief: newLate[*gossip.Gossip](), reports: newLate[*store.Store](),
		outbox: newOutbox(cfg.Log), linkUp: make(chan peer.ID, 16), left: make(chan struct{}), newExec: make(chan struct{}, 1),
	}
	if n.exec == nil {
		n.local = LocalExec(cfg.Dir)
		n.exec = n.local
	}
	n.repairs = manage.NewRepairs(cfg.Metrics)
	if cfg.Metrics != nil {
		cfg.Metrics.MustRegister(manage.NewHostMetrics(n.exec))
	}
	n.notify = notify.New(notify.Config{Dir: cfg.Dir, Node: cfg.Name, Degraded: n.degraded, Log: cfg.Log})
	if err := n.compose(); err != nil {
		return nil, err
	}
	return n, nil
}

// compose makes the parts and ties them together; what one part says, another one
// hears through the adapters of this package.
func (n *Node) compose() (err error) {
	rng := rand.New(n.env.Rand)
	n.overlay, err = overlay.New(overlay.Config{
		Dir: n.cfg.Dir, Name: n.cfg.Name, Version: n.cfg.Version, Built: n.cfg.Built, Labels: n.cfg.Labels, Listen: n.cfg.Listen, Door: n.cfg.Door,
		Advertise: n.cfg.Advertise, Join: n.cfg.Join, TokenFile: n.cfg.TokenFile, DenyLinks: n.cfg.DenyLinks, Ephemeral: n.cfg.Ephemeral,
		Network: n.env.Network, MDNS: n.env.MDNS, Interfaces: n.env.Interfaces, Rand: rand.NewPCG(rng.Uint64(), rng.Uint64()),
		Log: n.cfg.Log, Metrics: n.cfg.Metrics,
	})
	if err != nil {
		return err
	}
	if n.doors == nil {
		n.doors = door.NewKnocker(n.overlay.Key(), n.chain, n.root, n.overlay.Revoked, n.env.Network.Dial)
	}
	doors := agentDoors{n.overlay, n.doors}
	n.agents, err = agent.New(agent.Config{
		Self: n.overlay.ID(), Name: n.cfg.Name, Links: links{n.overlay}, Carry: carry{n.overlay}, Exec: n.exec, Doors: doors,
		Publish: n.overlay.Publish, Chain: n.chain, Report: n.report, Reported: n.reported, Observe: n.observing, Labels: n.labelsOf, NameOf: n.nameOf,
		Rand: rand.NewPCG(rng.Uint64(), rng.Uint64()), Log: n.cfg.Log, Metrics: n.cfg.Metrics, History: n.cfg.History,
	})
	if err != nil {
		return err
	}
	n.register()
	n.resumeManaging()
	n.api = manage.New(manage.Config{
		Self: n.overlay.ID(), Name: n.cfg.Name, Data: n.cfg.Dir,
		Listen: []string{n.overlay.ListenAddr()}, Door: n.cfg.Door, Life: n.Life().String(), Joins: len(n.cfg.Join) > 0, WantsToManage: n.cfg.Manager,
		Fleet: fleet{n}, Routes: routes{n}, Agents: population{n}, Reports: shelf{n}, Cluster: standing{n}, Remote: remote{n}, Host: n.exec, Events: n.events, Log: n.cfg.Log, Gatherer: n.cfg.Gatherer,
	})
	return nil
}

// register says what each kind of call, record and link event means here.
func (n *Node) register() {
	n.overlay.HandleCall(callAgent, n.agents.HandleCall)
	n.overlay.HandleBulk(callStore, n.serveStore)
	n.overlay.HandleRouted(routedChallenge, n.giveChallenge)
	n.overlay.HandleRouted(routedAct, n.takeOrder)
	n.overlay.HandleRouted(routedOutcome, n.tellOutcome)
	n.overlay.HandleRouted(routedLogs, n.takeReading)
	n.overlay.HandleRouted(routedLines, n.tellLines)
	n.overlay.OnLink(n.onLink)
	n.overlay.OnHeartbeatMissed(n.onHeartbeat)
	n.overlay.OnStanding(n.onStanding)
	n.overlay.OnRefused(n.onRefused)
	n.overlay.OnGossipKey(n.onGossipKey)
	for _, d := range []overlay.DomainSpec{
		{Domain: p2pnode.DomainObservation, TTL: 20 * time.Second, Urgent: true, AntiEntropy: true, Deliver: n.onObservation},
		{Domain: p2pnode.DomainStamp, TTL: 30 * time.Minute, Urgent: true, Lean: true, AntiEntropy: true, Deliver: n.agents.OnRecord},
		{Domain: p2pnode.DomainClaim, TTL: 20 * time.Second, Urgent: true, Deliver: n.agents.OnRecord},
		{
			Domain: p2pnode.DomainOrder, Urgent: true, AntiEntropy: true, ManagersOnly: true, Proof: agent.OrderProof, Keep: true,
			Deliver: n.agents.OnRecord,
		},
		{Domain: p2pnode.DomainHead, Urgent: true, AntiEntropy: true, Deliver: n.onHead},
	} {
		n.overlay.Domain(d)
	}
}

// ID is this node's identity.
func (n *Node) ID() peer.ID { return n.overlay.ID() }

// Life is the life of this node process.
func (n *Node) Life() p2pnode.Life { return n.overlay.Life() }

// API answers what operators ask.
func (n *Node) API() *manage.API { return n.api }

// Run lives until ctx ends. The order at the end matters: the overlay's good-bye
// goes out first, while everything that it speaks for still works.
func (n *Node) Run(ctx context.Context) error {
	n.cfg.History.Record(p2pnode.HistoryEvent{Event: p2pnode.HistLife, New: n.Life().String()})
	if n.local != nil {
		defer n.local.Close()
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, part := range []func(context.Context) error{
		n.overlay.Run, n.runAgents, n.runOutbox, n.sayHealth, n.followExec, n.keepPapers, n.watchBeliefs,
		n.believe, n.keepReports, n.spreadReports, n.watchAgents, n.notify.Run, n.serveOperator, n.runOrders, n.untilLeft,
	} {
		group.Go(func() error { return part(ctx) })
	}
	err := group.Wait()
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return nil
	}
	return err
}

func (n *Node) untilLeft(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-n.left:
		return errLeft
	}
}

func (n *Node) serveOperator(ctx context.Context) error {
	if n.env.NoSocket {
		return nil
	}
	if n.cfg.MetricsListen == "" {
		return n.api.Serve(ctx, n.cfg.Dir)
	}
	return runBoth(ctx, func(ctx context.Context) error { return n.api.Serve(ctx, n.cfg.Dir) }, n.serveMetrics)
}

// serveMetrics answers on the port that was asked for. Being measured is not worth
// dying for: a port that is taken is said and tried again.
func (n *Node) serveMetrics(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := n.api.ServeMetrics(ctx, n.cfg.MetricsListen); err != nil {
			n.cfg.Log.Error().Err(err).Msg("no metrics; it is tried again")
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Second):
		}
	}
	return nil
}

// awaitAdmission reports whether this node became a member before ctx ended.
func (n *Node) awaitAdmission(ctx context.Context) bool {
	select {
	case <-n.overlay.Admitted():
		n.noteAdmission()
		return true
	case <-ctx.Done():
		return false
	}
}

// noteAdmission remembers when, once; who has founded a cluster manages it.
func (n *Node) noteAdmission() {
	n.mu.Lock()
	first := n.admitted.IsZero()
	if first {
		n.admitted = time.Now()
	}
	n.mu.Unlock()
	if first {
		n.resumeManaging()
	}
}

func (n *Node) nameOf(id peer.ID) string {
	if p, ok := n.overlay.View().Peers[id]; ok && p.Name != "" {
		return p.Name
	}
	if id == n.overlay.ID() {
		return n.cfg.Name
	}
	if name, ok := n.overlay.Forgotten(id); ok {
		return name
	}
	return p2pnode.ShortID(id)
}

func (n *Node) labelsOf(id peer.ID) map[string]string {
	if id == n.overlay.ID() {
		return n.cfg.Labels
	}
	return n.overlay.View().Peers[id].Labels
}

func (n *Node) observing() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.observe
}
