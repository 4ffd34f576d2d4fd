package overlay

import (
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"p2pnode"
	"p2pnode/overlay/discover"
	"p2pnode/overlay/keeper"
)

// Config of an Overlay.
type Config struct {
	// Dir holds the node's key, its papers, its boot number and the peer book. Two
	// overlays on one folder would be one identity twice.
	Dir string
	// Name is what people call the node, see p2pnode.ValidNodeName.
	Name string
	// Version goes into the peer record.
	Version string
	// Built is when this program was built: a clock that stands before it is wrong.
	// Zero: not known.
	Built  time.Time
	Labels map[string]string
	// Listen (host:port). Port 0 takes any free one: peers remember the port, so a
	// caller that wants to be found again keeps it.
	Listen string
	// Door (host:port) goes into the peer record. Its host part may be unspecified:
	// the first of the node's own addresses is put there.
	Door string
	// Advertise replaces the addresses that were found; for mapped ports.
	Advertise []string
	// Join are hints to members. With any, the node never founds a cluster.
	Join []string
	// TokenFile holds a token; it pins the cluster that it was made in.
	TokenFile string
	// DenyLinks are names, IDs, addresses or subnets to have no links with.
	DenyLinks []string
	// Ephemeral, if set, says that this node's identity does not outlive its container
	// or its memory: others forget it when it has been gone for so long. Too short, and
	// a cut makes others forget who lives: it is a member again when they meet.
	Ephemeral time.Duration
	// Network, which must be set, is the way out.
	Network Network
	// MDNS looks for others on the local network.
	MDNS bool
	// Interfaces are the host's; nil: what the system says. They decide which
	// joiners stand on a directly connected network.
	Interfaces func() ([]discover.Interface, error)
	// Rand shuffles and jitters; nil: seeded by the system.
	Rand rand.Source

	Log     zerolog.Logger
	Metrics prometheus.Registerer
}

// validate checks what a person may have got wrong.
func (c *Config) validate() error {
	if c.Network == nil {
		return fmt.Errorf("overlay: no network given")
	}
	if !p2pnode.ValidNodeName(c.Name) {
		return &p2pnode.Error{Code: "bad-name", Exit: p2pnode.ExitUsage, Text: fmt.Sprintf("a node cannot be called %.80q", c.Name), Fix: "choose another --name: letters, digits, dot, - and _, at most 63"}
	}
	if len(c.Labels) > maxLabels {
		return &p2pnode.Error{Code: "bad-label", Exit: p2pnode.ExitUsage, Text: fmt.Sprintf("%d labels, at most %d are allowed", len(c.Labels), maxLabels), Fix: "drop some --label"}
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return &p2pnode.Error{Code: "bad-address", Exit: p2pnode.ExitUsage, Text: fmt.Sprintf("cannot listen on %q: %v", c.Listen, err), Fix: "give --listen HOST:PORT"}
	}
	for _, j := range c.Join {
		if _, err := discover.ParseJoin(j); err != nil {
			return err
		}
	}
	_, err := keeper.NewDeny(c.DenyLinks)
	return err
}
