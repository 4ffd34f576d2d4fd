// Package memnet is a network in memory for whole clusters in one process,
// made for testing/synctest bubbles: no goroutine of its own, no real socket,
// latency by package time only.
//
// It behaves like the parts of TCP and UDP that failure detection lives on:
//
//   - a killed host's connections are reset at once, dials to it are refused;
//   - a host that is gone, or behind a cut, answers nothing: dials hang until
//     their context ends, bytes wait in their connection, packets are lost;
//   - a healed cut delivers what TCP kept, and nothing of what UDP lost; a host
//     whose address changed meanwhile keeps connections that lead nowhere (Strand).
//
// Read next: conn.go (streams), packet.go (datagrams).
package memnet

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// Net is the wires between hosts.
type Net struct {
	mu      sync.Mutex
	hosts   map[netip.Addr]*Host
	cuts    map[[2]netip.Addr]bool // directed: packets from [0] to [1] vanish
	changed chan struct{}          // closed and replaced at every change of cuts
	latency time.Duration
	loss    float64
	rng     *rand.Rand
}

// New makes a network whose packets take latency one way and are lost with
// probability loss (datagrams only), drawn from seed.
func New(seed uint64, latency time.Duration, loss float64) *Net {
	return &Net{
		hosts: map[netip.Addr]*Host{}, cuts: map[[2]netip.Addr]bool{}, changed: make(chan struct{}),
		latency: latency, loss: loss, rng: rand.New(rand.NewPCG(seed, 0x6d656d6e6574)),
	}
}

// Host is one machine's network stack. Its methods have the shapes that the
// packages under test ask for.
type Host struct {
	net  *Net
	Addr netip.Addr

	mu      sync.Mutex
	up      bool // false: gone, answers nothing
	next    uint16
	listen  map[uint16]*listener
	packets map[uint16]*packetConn
	conns   map[*conn]struct{}
}

// Host returns the host with address addr, made on first use.
func (n *Net) Host(addr netip.Addr) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.hosts[addr]
	if h == nil {
		h = &Host{
			net: n, Addr: addr, up: true, next: 20000,
			listen: map[uint16]*listener{}, packets: map[uint16]*packetConn{}, conns: map[*conn]struct{}{},
		}
		n.hosts[addr] = h
	}
	return h
}

// Cut makes everything between every a and every b vanish, both ways.
func (n *Net) Cut(as, bs []netip.Addr) { n.set(as, bs, true) }

// Heal ends a Cut.
func (n *Net) Heal(as, bs []netip.Addr) { n.set(as, bs, false) }

func (n *Net) set(as, bs []netip.Addr, cut bool) {
	n.setOneWay(as, bs, cut)
	n.setOneWay(bs, as, cut)
}

// CutOneWay makes everything from every a to every b vanish; the other direction
// goes on.
func (n *Net) CutOneWay(as, bs []netip.Addr) { n.setOneWay(as, bs, true) }

// HealOneWay ends a CutOneWay.
func (n *Net) HealOneWay(as, bs []netip.Addr) { n.setOneWay(as, bs, false) }

func (n *Net) setOneWay(as, bs []netip.Addr, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range as {
		for _, b := range bs {
			n.cuts[[2]netip.Addr{a, b}] = cut
		}
	}
	n.wakeLocked()
}

func (n *Net) wakeLocked() {
	close(n.changed)
	n.changed = make(chan struct{})
}

// passes reports whether packets get from a to b now, and the channel that is
// closed when that may change.
func (n *Net) passes(a, b netip.Addr) (bool, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	ok := !n.cuts[[2]netip.Addr{a, b}]
	for _, addr := range []netip.Addr{a, b} {
		if h := n.hosts[addr]; h == nil || !h.up {
			ok = false
		}
	}
	return ok, n.changed
}

// Reaches reports whether packets get from a to b and back now.
func (n *Net) Reaches(a, b netip.Addr) bool {
	there, _ := n.passes(a, b)
	back, _ := n.passes(b, a)
	return there && back
}

func (n *Net) dropped() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.loss > 0 && n.rng.Float64() < n.loss
}

func (n *Net) lookup(addr netip.Addr) *Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.hosts[addr]
}

// Kill is what kill -9 of the one process on the host does to its sockets: all
// are closed, the other ends are reset, dials are refused until somebody listens
// again.
func (h *Host) Kill() {
	h.mu.Lock()
	listeners, packets, conns := h.listen, h.packets, h.conns
	h.listen, h.packets, h.conns = map[uint16]*listener{}, map[uint16]*packetConn{}, map[*conn]struct{}{}
	h.mu.Unlock()
	for _, l := range listeners {
		l.Close()
	}
	for _, p := range packets {
		p.Close()
	}
	for c := range conns {
		c.reset()
	}
}

// Strand is what a change of the host's address does to the connections that it
// has: their bytes go nowhere from now on, for good, and neither end is told.
func (h *Host) Strand() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.conns {
		c.in.lose()
		c.out.lose()
	}
}

// SetUp makes the host vanish from the network without a word (false), or come
// back (true). What it runs goes on.
func (h *Host) SetUp(up bool) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.up = up
	h.net.wakeLocked()
}

// Listen is net.Listen for TCP. An empty or unspecified host means this one.
func (h *Host) Listen(_, address string) (net.Listener, error) {
	port, err := h.localPort(address)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if port == 0 {
		port = h.freePortLocked()
	}
	if h.listen[port] != nil {
		return nil, opError("listen", syscall.EADDRINUSE)
	}
	l := &listener{host: h, addr: netip.AddrPortFrom(h.Addr, port), backlog: make(chan *conn, 128), closed: make(chan struct{})}
	h.listen[port] = l
	return l, nil
}

func (h *Host) localPort(address string) (uint16, error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return 0, err
	}
	if ip, err := netip.ParseAddr(host); host != "" && (err != nil || (!ip.IsUnspecified() && ip != h.Addr)) {
		return 0, opError("listen", syscall.EADDRNOTAVAIL)
	}
	var port uint16
	_, err = fmt.Sscan(text, &port)
	return port, err
}

func (h *Host) freePortLocked() uint16 {
	for {
		h.next++
		if h.listen[h.next] == nil && h.packets[h.next] == nil {
			return h.next
		}
	}
}

// Dial is a net.Dialer's DialContext for TCP to an IP and port.
func (h *Host) Dial(ctx context.Context, _, address string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	// The handshake is one round trip that a cut keeps from arriving.
	for {
		ok, changed := h.net.passes(h.Addr, to.Addr())
		back, _ := h.net.passes(to.Addr(), h.Addr)
		if ok && back {
			break
		}
		select {
		case <-ctx.Done():
			return nil, opError("dial", ctx.Err())
		case <-changed:
		}
	}
	select {
	case <-ctx.Done():
		return nil, opError("dial", ctx.Err())
	case <-time.After(2 * h.net.latency):
	}
	return h.connect(to)
}

func (h *Host) connect(to netip.AddrPort) (net.Conn, error) {
	peer := h.net.lookup(to.Addr())
	if peer == nil {
		return nil, opError("dial", syscall.EHOSTUNREACH)
	}
	peer.mu.Lock()
	l := peer.listen[to.Port()]
	peer.mu.Unlock()
	if l == nil {
		return nil, opError("dial", syscall.ECONNREFUSED)
	}
	h.mu.Lock()
	from := netip.AddrPortFrom(h.Addr, h.freePortLocked())
	h.mu.Unlock()
	mine, theirs := newPair(h, from, peer, to)
	select {
	case l.backlog <- theirs:
	default:
		mine.reset()
		return nil, opError("dial", syscall.ECONNREFUSED)
	}
	h.keep(mine)
	peer.keep(theirs)
	return mine, nil
}

func (h *Host) keep(c *conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.conns[c] = struct{}{}
}

func (h *Host) forget(c *conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.conns, c)
}

func opError(op string, err error) error { return &net.OpError{Op: op, Net: "memory", Err: err} }

// listener is a bound TCP port.
type listener struct {
	host    *Host
	addr    netip.AddrPort
	backlog chan *conn
	once    sync.Once
	closed  chan struct{}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.backlog:
		return c, nil
	case <-l.closed:
		return nil, opError("accept", net.ErrClosed)
	}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.closed)
		l.host.mu.Lock()
		if l.host.listen[l.addr.Port()] == l {
			delete(l.host.listen, l.addr.Port())
		}
		l.host.mu.Unlock()
		for {
			select {
			case c := <-l.backlog:
				c.reset()
				continue
			default:
			}
			return
		}
	})
	return nil
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.addr) }
