package gossip

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/libp2p/go-libp2p/core/peer"
)

// Streams opens gossip streams to members.
type Streams interface {
	Dial(ctx context.Context, to peer.ID) (net.Conn, error)
}

// swimTransport is what memberlist sees of the network: sealed packets over our
// socket, streams over the overlay. It outlives one memberlist: attach says whose
// it is.
type swimTransport struct {
	g       *Gossip
	packets chan *memberlist.Packet
	streams chan net.Conn

	mu     sync.Mutex
	closed bool
}

var _ memberlist.NodeAwareTransport = (*swimTransport)(nil)

func newSwimTransport(g *Gossip) *swimTransport {
	return &swimTransport{g: g, packets: make(chan *memberlist.Packet, packetQueue), streams: make(chan net.Conn, streamQueue)}
}

// FinalAdvertiseAddr implements memberlist.Transport. The address is a hint: we
// send by name.
func (t *swimTransport) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	ap, err := netip.ParseAddrPort(t.g.cfg.Packets.LocalAddr().String())
	if err != nil {
		return nil, 0, err
	}
	ip := ap.Addr().Unmap()
	if ip.IsUnspecified() {
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return ip.AsSlice(), int(ap.Port()), nil
}

// WriteTo implements memberlist.Transport.
func (t *swimTransport) WriteTo(b []byte, addr string) (time.Time, error) {
	return t.WriteToAddress(b, memberlist.Address{Addr: addr})
}

// WriteToAddress implements memberlist.NodeAwareTransport. It never blocks and
// dials nothing; a packet to somebody without an address is lost, as on a wire.
func (t *swimTransport) WriteToAddress(b []byte, a memberlist.Address) (time.Time, error) {
	now := time.Now()
	t.g.overhear(b)
	to, ok := t.g.addrOf(a)
	if !ok {
		return now, nil
	}
	t.g.write(t.g.keys.Load().seal(packetSWIM, b), to)
	return now, nil
}

// PacketCh implements memberlist.Transport.
func (t *swimTransport) PacketCh() <-chan *memberlist.Packet { return t.packets }

// StreamCh implements memberlist.Transport.
func (t *swimTransport) StreamCh() <-chan net.Conn { return t.streams }

// DialTimeout implements memberlist.Transport.
func (t *swimTransport) DialTimeout(addr string, timeout time.Duration) (net.Conn, error) {
	return t.DialAddressTimeout(memberlist.Address{Addr: addr}, timeout)
}

var errNobody = errors.New("no member has this name or address")

// DialAddressTimeout implements memberlist.NodeAwareTransport.
func (t *swimTransport) DialAddressTimeout(a memberlist.Address, timeout time.Duration) (net.Conn, error) {
	id, ok := t.g.peerOf(a)
	if !ok {
		return nil, errNobody
	}
	ctx, cancel := context.WithTimeout(t.g.ctx, timeout)
	defer cancel()
	return t.g.cfg.Streams.Dial(ctx, id)
}

// Shutdown implements memberlist.Transport.
func (t *swimTransport) Shutdown() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for {
		select {
		case c := <-t.streams:
			c.Close()
			continue
		default:
		}
		return nil
	}
}

// packet hands a received packet to memberlist; a full queue loses it.
func (t *swimTransport) packet(b []byte, from net.Addr) bool {
	select {
	case t.packets <- &memberlist.Packet{Buf: b, From: from, Timestamp: time.Now()}:
		return true
	default:
		return false
	}
}

func (t *swimTransport) stream(c net.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	select {
	case t.streams <- c:
		return true
	default:
		return false
	}
}
