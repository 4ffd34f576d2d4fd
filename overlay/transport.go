package overlay

import (
	"context"
	"errors"
	"net"
	"sync"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/core/transport"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Network is how the overlay reaches others: TCP in production, memory in
// simulation.
type Network interface {
	Listen(network, address string) (net.Listener, error)
	Dial(ctx context.Context, network, address string) (net.Conn, error)
}

// netTransport makes libp2p connections out of what a Network gives.
type netTransport struct {
	net      Network
	upgrader transport.Upgrader
	limits   network.ResourceManager

	failed func() // told of each connection that came in and never got through

	mu       sync.Mutex
	listen   net.Listener        // taken by the first Listen
	knocking map[string]struct{} // connections that came in and have not got through, by address
}

var _ transport.Transport = (*netTransport)(nil)

// Dial implements transport.Transport.
func (t *netTransport) Dial(ctx context.Context, raddr ma.Multiaddr, p peer.ID) (transport.CapableConn, error) {
	scope, err := t.limits.OpenConnection(network.DirOutbound, true, raddr)
	if err != nil {
		return nil, err
	}
	conn, err := t.dial(ctx, raddr, p, scope)
	if err != nil {
		scope.Done()
		return nil, err
	}
	return conn, nil
}

func (t *netTransport) dial(ctx context.Context, raddr ma.Multiaddr, p peer.ID, scope network.ConnManagementScope) (transport.CapableConn, error) {
	if err := scope.SetPeer(p); err != nil {
		return nil, err
	}
	netw, addr, err := manet.DialArgs(raddr)
	if err != nil {
		return nil, err
	}
	raw, err := t.net.Dial(ctx, netw, addr)
	if err != nil {
		return nil, err
	}
	conn, err := manet.WrapNetConn(raw)
	if err != nil {
		raw.Close()
		return nil, err
	}
	return t.upgrader.Upgrade(ctx, t, conn, network.DirOutbound, p, scope)
}

// CanDial implements transport.Transport: IP addresses and TCP ports.
func (t *netTransport) CanDial(addr ma.Multiaddr) bool {
	netw, _, err := manet.DialArgs(addr)
	return err == nil && (netw == "tcp4" || netw == "tcp6" || netw == "tcp")
}

// Listen implements transport.Transport with the listener that the overlay opened
// before it started, so that its port was known.
func (t *netTransport) Listen(ma.Multiaddr) (transport.Listener, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.listen == nil {
		return nil, errors.New("the overlay listens on one address")
	}
	l, err := manet.WrapNetListener(t.listen)
	if err != nil {
		return nil, err
	}
	t.listen = nil
	return t.upgrader.UpgradeGatedMaListener(t, doorkeeper{t.upgrader.GateMaListener(l), t}), nil
}

// countedTLS says which connections got through.
type countedTLS struct {
	*libp2ptls.Transport
	ground *netTransport
}

// SecureInbound implements sec.SecureTransport.
func (c countedTLS) SecureInbound(ctx context.Context, conn net.Conn, p peer.ID) (sec.SecureConn, error) {
	out, err := c.Transport.SecureInbound(ctx, conn, p)
	if err == nil {
		c.ground.through(conn.RemoteAddr().String())
	}
	return out, err
}

// through notes that the handshake of a connection from addr is done.
func (t *netTransport) through(addr string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.knocking, addr)
}

// doorkeeper keeps account of what comes in: whether its handshake was ever done, and
// that what is reserved for it is given back when it ends. libp2p's own listener
// forgets the latter for connections that end between handshake and accept; eight
// of one peer, or maxConnsTotal of anybody, and the node would take in none again.
type doorkeeper struct {
	transport.GatedMaListener
	t *netTransport
}

// Accept implements transport.GatedMaListener.
func (d doorkeeper) Accept() (manet.Conn, network.ConnManagementScope, error) {
	c, scope, err := d.GatedMaListener.Accept()
	if err != nil {
		return nil, nil, err
	}
	d.t.mu.Lock()
	d.t.knocking[c.RemoteAddr().String()] = struct{}{}
	d.t.mu.Unlock()
	return guest{c, d.t, scope}, scope, nil
}

// guest is a connection that came in.
type guest struct {
	manet.Conn
	t     *netTransport
	scope network.ConnManagementScope
}

// Close implements net.Conn.
func (g guest) Close() error {
	addr := g.RemoteAddr().String()
	g.t.mu.Lock()
	_, knocking := g.t.knocking[addr]
	delete(g.t.knocking, addr)
	g.t.mu.Unlock()
	if knocking {
		g.t.failed()
	}
	err := g.Conn.Close()
	g.scope.Done()
	return err
}

// Protocols implements transport.Transport.
func (t *netTransport) Protocols() []int { return []int{ma.P_TCP} }

// Proxy implements transport.Transport.
func (t *netTransport) Proxy() bool { return false }
