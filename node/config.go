package node

import (
	"context"
	"math/rand/v2"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"p2pnode"
	"p2pnode/exec"
	"p2pnode/overlay/discover"
)

// Config is what this node process is told by the host's exec.
type Config struct {
	// Dir is the data folder, shared with exec and door. Two node processes on one
	// folder would share a key: exec's lock prevents it.
	Dir string
	// Name is what people call this node; names may collide, keys do not.
	Name string
	// Version goes into the peer record; "" is left out.
	Version string
	// Built is when this program was built, see overlay.Config.
	Built time.Time
	// Labels go into the peer record.
	Labels map[string]string
	// Listen (host:port) is TCP for nodes and UDP for gossip. The port must be the
	// kept one: peers remember it.
	Listen string
	// Door is where this host's door listens; it goes into the peer record. A wrong
	// one makes a dead node process unrepairable from afar.
	Door string
	// Advertise are addresses to tell others in place of the found ones.
	Advertise []string
	// Join are hints to members of the cluster; empty: this node may found one.
	Join []string
	// TokenFile holds an admission token; "" relies on the lan window.
	TokenFile string
	// DenyLinks are names, IDs or addresses to which no link is kept.
	DenyLinks []string
	// Ephemeral: this node's identity ends with its container or its memory, and the
	// others forget it when it has been gone for so long. 0: it is waited for.
	Ephemeral time.Duration
	// Manager asks to use the manager certificate once there is one.
	Manager bool

	Log     zerolog.Logger
	History *p2pnode.History      // nil: none is written
	Metrics prometheus.Registerer // nil: none are kept
	// Gatherer is what /metrics shows of Metrics; MetricsListen a loopback address
	// where it is answered beside the operator's socket, "" for none.
	Gatherer      prometheus.Gatherer
	MetricsListen string
}

// Env is the world around a node process, the only thing that a simulation
// replaces. A zero field means the real one.
type Env struct {
	Network Network
	Exec    Exec
	Doors   Doors
	Rand    rand.Source // seeds of agents and timers
	MDNS    bool        // look for others on the local network
	// Interfaces are the host's network interfaces; nil: what the system says.
	Interfaces func() ([]discover.Interface, error)
	// NoPush keeps this node from saying what is new here: reports spread by
	// anti-entropy alone.
	NoPush bool
	// NoSocket leaves run/node.sock out: unix sockets do not belong in a bubble.
	NoSocket bool
}

// Network is how this process reaches others.
type Network interface {
	Listen(network, address string) (net.Listener, error)
	Dial(ctx context.Context, network, address string) (net.Conn, error)
	ListenPacket(network, address string) (net.PacketConn, error)
}

// Exec is the host's process execution service. An implementation outlives
// restarts of exec: calls fail while it is away, streams end and are asked for
// again.
type Exec interface {
	Status(ctx context.Context) (p2pnode.ExecStatus, error)
	Recover(ctx context.Context, req p2pnode.RecoverRequest) (p2pnode.RecoverAnswer, error)
	Events(ctx context.Context, after uint64) (<-chan p2pnode.ExecEvent, error)
	Health(ctx context.Context, h exec.NodeHealth) error
}

// HostNetwork is the operating system's network.
type HostNetwork struct{}

// Listen implements Network.
func (HostNetwork) Listen(network, address string) (net.Listener, error) {
	return net.Listen(network, address)
}

// Dial implements Network.
func (HostNetwork) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

// ListenPacket implements Network.
func (HostNetwork) ListenPacket(network, address string) (net.PacketConn, error) {
	return net.ListenPacket(network, address)
}
