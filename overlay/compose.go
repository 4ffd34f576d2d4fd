package overlay

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/gologshim"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	ymux "github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/x/rate"
	ma "github.com/multiformats/go-multiaddr"
	mss "github.com/multiformats/go-multistream"
)

// stack is libp2p as we use it: a swarm over our transport. It is the only file
// that composes it.
type stack struct {
	swarm  *swarm.Swarm
	limits network.ResourceManager
	tls    *libp2ptls.Transport
	net    Network
}

// close ends everything that compose started.
func (s *stack) close() error {
	return errors.Join(s.swarm.Close(), s.swarm.Peerstore().Close(), s.limits.Close())
}

// compose builds a swarm that accepts on l. It answers nobody before Listen. failed
// is told of each connection that came in and did not get through the handshake.
func compose(key ed25519.PrivateKey, n Network, l net.Listener, failed func()) (*stack, error) {
	// Every closed connection is an error to libp2p's own log. What matters is
	// returned as an error, or counted by us.
	gologshim.SetDefaultHandler(slog.DiscardHandler)
	priv, err := crypto.UnmarshalEd25519PrivateKey(key)
	if err != nil {
		return nil, err
	}
	id, err := peer.IDFromPrivateKey(priv)
	if err != nil {
		return nil, err
	}
	store, err := pstoremem.NewPeerstore()
	if err != nil {
		return nil, err
	}
	if err := store.AddPrivKey(id, priv); err != nil {
		return nil, err
	}
	limits, err := resourceLimits()
	if err != nil {
		return nil, err
	}
	sw, err := swarm.NewSwarm(id, store, eventbus.NewBus(), swarm.WithResourceManager(limits),
		swarm.WithDialTimeout(dialTime), swarm.WithDialTimeoutLocal(dialTime),
		// All addresses of a peer are tried at once, and none is given up for good
		// because others of its kind failed.
		swarm.WithDialRanker(swarm.NoDelayDialRanker),
		swarm.WithIPv6BlackHoleSuccessCounter(nil), swarm.WithUDPBlackHoleSuccessCounter(nil))
	if err != nil {
		return nil, err
	}
	muxers := []upgrader.StreamMuxer{{ID: ymux.ID, Muxer: yamux()}}
	tls, err := libp2ptls.New(libp2ptls.ID, priv, muxers)
	if err != nil {
		return nil, err
	}
	ground := &netTransport{net: n, limits: limits, listen: l, failed: failed, knocking: map[string]struct{}{}}
	up, err := upgrader.New([]sec.SecureTransport{countedTLS{tls, ground}}, muxers, nil, limits, nil, upgrader.WithAcceptTimeout(helloTime))
	if err != nil {
		return nil, err
	}
	ground.upgrader = up
	if err := sw.AddTransport(ground); err != nil {
		return nil, err
	}
	return &stack{swarm: sw, limits: limits, tls: tls, net: n}, nil
}

// yamux with our own heartbeat above it: its keepalive would notice a hang after
// 39 s, its writes may block for 10.
func yamux() network.Multiplexer {
	cfg := *ymux.DefaultTransport
	cfg.EnableKeepAlive = false
	cfg.ConnectionWriteTimeout = writeTime
	cfg.MaxStreamWindowSize = maxBulkAnswer
	return &cfg
}

// resourceLimits replaces libp2p's defaults, which refuse the ninth connection
// from one address and the seventeenth in a burst: a fleet behind one address
// (containers, a NAT) is ordinary here.
func resourceLimits() (network.ResourceManager, error) {
	base := rcmgr.DefaultLimits
	base.SystemBaseLimit.Conns, base.SystemBaseLimit.ConnsInbound, base.SystemBaseLimit.ConnsOutbound = 2*maxConnsTotal, maxConnsTotal, maxConnsTotal
	base.TransientBaseLimit.Conns, base.TransientBaseLimit.ConnsInbound, base.TransientBaseLimit.ConnsOutbound = 256, 128, 128
	fixed := base.Scale(64<<20, 1024)
	perV4 := []rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: maxConnsPerAddr}}
	perV6 := []rcmgr.ConnLimitPerSubnet{{PrefixLength: 64, ConnCount: maxConnsPerAddr}}
	loop4 := rcmgr.NetworkPrefixLimit{Network: netip.MustParsePrefix("127.0.0.0/8"), ConnCount: 2 * maxConnsTotal}
	loop6 := rcmgr.NetworkPrefixLimit{Network: netip.MustParsePrefix("::1/128"), ConnCount: 2 * maxConnsTotal}
	return rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(fixed),
		rcmgr.WithLimitPerSubnet(perV4, perV6),
		rcmgr.WithNetworkPrefixLimit([]rcmgr.NetworkPrefixLimit{loop4}, []rcmgr.NetworkPrefixLimit{loop6}),
		rcmgr.WithConnRateLimiters(&rate.Limiter{}),
		rcmgr.WithMetricsDisabled())
}

// who learns the identity that answers at addr (ip:port): a TLS handshake with
// whomever it is, and no more.
func (s *stack) who(ctx context.Context, addr string) (peer.ID, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	raw, err := s.net.Dial(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := mss.SelectProtoOrFail(s.tls.ID(), raw); err != nil {
		return "", fmt.Errorf("%s does not speak our protocol: %w", addr, err)
	}
	conn, err := s.tls.SecureOutbound(ctx, raw, "")
	if err != nil {
		return "", fmt.Errorf("%s: handshake: %w", addr, err)
	}
	defer conn.Close()
	return conn.RemotePeer(), nil
}

// multiaddr of ip:port; nil for anything else.
func multiaddr(addr string) ma.Multiaddr {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil
	}
	family := "ip4"
	if ap.Addr().Unmap().Is6() {
		family = "ip6"
	}
	m, err := ma.NewMultiaddr(fmt.Sprintf("/%s/%s/tcp/%d", family, ap.Addr().Unmap(), ap.Port()))
	if err != nil {
		return nil
	}
	return m
}
