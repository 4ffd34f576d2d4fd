package memnet

import (
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// backlog is how many datagrams a socket holds before the next one is lost.
const backlog = 1024

// packetConn is a bound UDP port.
type packetConn struct {
	host *Host
	addr netip.AddrPort

	mu     sync.Mutex
	queue  []datagram
	readBy time.Time
	closed bool
	change chan struct{}
}

type datagram struct {
	at   time.Time
	from netip.AddrPort
	data []byte
}

// ListenPacket is net.ListenPacket for UDP.
func (h *Host) ListenPacket(_, address string) (net.PacketConn, error) {
	port, err := h.localPort(address)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if port == 0 {
		port = h.freePortLocked()
	}
	p := &packetConn{host: h, addr: netip.AddrPortFrom(h.Addr, port), change: make(chan struct{})}
	h.packets[port] = p
	return p, nil
}

// WriteTo implements net.PacketConn; it never blocks. What a cut, loss or a full
// socket swallows is gone without a word.
func (p *packetConn) WriteTo(b []byte, to net.Addr) (int, error) {
	p.mu.Lock()
	closed := p.closed
	p.mu.Unlock()
	if closed {
		return 0, opError("write", net.ErrClosed)
	}
	dst, err := netip.ParseAddrPort(to.String())
	if err != nil {
		return 0, err
	}
	n := p.host.net
	if ok, _ := n.passes(p.addr.Addr(), dst.Addr()); !ok || n.dropped() {
		return len(b), nil
	}
	peer := n.lookup(dst.Addr())
	peer.mu.Lock()
	sock := peer.packets[dst.Port()]
	peer.mu.Unlock()
	if sock != nil {
		sock.deliver(datagram{at: time.Now().Add(n.latency), from: p.addr, data: append([]byte(nil), b...)})
	}
	return len(b), nil
}

func (p *packetConn) deliver(d datagram) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.queue) >= backlog {
		return
	}
	p.queue = append(p.queue, d)
	p.wakeLocked()
}

func (p *packetConn) wakeLocked() {
	close(p.change)
	p.change = make(chan struct{})
}

// ReadFrom implements net.PacketConn.
func (p *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		p.mu.Lock()
		now := time.Now()
		var until time.Time
		switch {
		case p.closed:
			p.mu.Unlock()
			return 0, nil, opError("read", net.ErrClosed)
		case len(p.queue) > 0 && !p.queue[0].at.After(now):
			d := p.queue[0]
			p.queue = p.queue[1:]
			p.mu.Unlock()
			return copy(b, d.data), net.UDPAddrFromAddrPort(d.from), nil
		case !p.readBy.IsZero() && !p.readBy.After(now):
			p.mu.Unlock()
			return 0, nil, opError("read", os.ErrDeadlineExceeded)
		case len(p.queue) > 0:
			until = p.queue[0].at
		}
		if !p.readBy.IsZero() && (until.IsZero() || p.readBy.Before(until)) {
			until = p.readBy
		}
		change := p.change
		p.mu.Unlock()
		await(until, change)
	}
}

func await(until time.Time, change <-chan struct{}) {
	var alarm <-chan time.Time
	if !until.IsZero() {
		t := time.NewTimer(time.Until(until))
		defer t.Stop()
		alarm = t.C
	}
	select {
	case <-change:
	case <-alarm:
	}
}

// Close implements net.PacketConn.
func (p *packetConn) Close() error {
	p.mu.Lock()
	if !p.closed {
		p.closed = true
		p.wakeLocked()
	}
	p.mu.Unlock()
	p.host.mu.Lock()
	defer p.host.mu.Unlock()
	if p.host.packets[p.addr.Port()] == p {
		delete(p.host.packets, p.addr.Port())
	}
	return nil
}

// LocalAddr implements net.PacketConn.
func (p *packetConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(p.addr) }

// SetDeadline implements net.PacketConn.
func (p *packetConn) SetDeadline(t time.Time) error { return p.SetReadDeadline(t) }

// SetReadDeadline implements net.PacketConn.
func (p *packetConn) SetReadDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.readBy = t
	p.wakeLocked()
	return nil
}

// SetWriteDeadline implements net.PacketConn: a write never waits.
func (p *packetConn) SetWriteDeadline(time.Time) error { return nil }
