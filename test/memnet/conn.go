package memnet

import (
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// window is how many bytes one direction of a connection holds before a writer
// waits.
const window = 256 << 10

// conn is one end of a stream.
type conn struct {
	host        *Host
	local, peer netip.AddrPort
	in, out     *half
	once        sync.Once

	mu            sync.Mutex
	readBy        time.Time
	writeBy       time.Time
	deadlineMoved chan struct{}
}

// half is the bytes on their way in one direction.
type half struct {
	from, to netip.Addr
	net      *Net

	mu     sync.Mutex
	queue  []segment
	size   int
	eof    time.Time // writer closed: zero while open
	err    error     // reset
	lost   bool      // nothing arrives any more, and nobody is told
	change chan struct{}
}

type segment struct {
	at   time.Time
	data []byte
}

func newPair(a *Host, from netip.AddrPort, b *Host, to netip.AddrPort) (*conn, *conn) {
	forth := &half{from: a.Addr, to: b.Addr, net: a.net, change: make(chan struct{})}
	back := &half{from: b.Addr, to: a.Addr, net: a.net, change: make(chan struct{})}
	x := &conn{host: a, local: from, peer: to, in: back, out: forth, deadlineMoved: make(chan struct{})}
	y := &conn{host: b, local: to, peer: from, in: forth, out: back, deadlineMoved: make(chan struct{})}
	return x, y
}

func (h *half) wakeLocked() {
	close(h.change)
	h.change = make(chan struct{})
}

func (h *half) lose() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lost = true
}

func (h *half) fail(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err == nil {
		h.err = err
		h.wakeLocked()
	}
}

// pause is what a blocked call waits for: a time (zero: none), a change of its
// half, a change of the network.
type pause struct {
	until           time.Time
	change, network <-chan struct{}
}

// take copies what has arrived by now; when nothing has, p says what to wait for.
func (h *half) take(b []byte) (n int, p pause, err error) {
	now := time.Now()
	open, moved := h.net.passes(h.from, h.to)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil {
		return 0, pause{}, h.err
	}
	if !open || h.lost {
		return 0, pause{change: h.change, network: moved}, nil
	}
	if len(h.queue) > 0 {
		head := &h.queue[0]
		if head.at.After(now) {
			return 0, pause{until: head.at, change: h.change}, nil
		}
		n = copy(b, head.data)
		head.data = head.data[n:]
		h.size -= n
		if len(head.data) == 0 {
			h.queue = h.queue[1:]
		}
		h.wakeLocked()
		return n, pause{}, nil
	}
	if !h.eof.IsZero() {
		if h.eof.After(now) {
			return 0, pause{until: h.eof, change: h.change}, nil
		}
		return 0, pause{}, io.EOF
	}
	return 0, pause{change: h.change}, nil
}

// Read implements net.Conn.
func (c *conn) Read(b []byte) (int, error) {
	for {
		if err := c.expired(&c.readBy); err != nil {
			return 0, err
		}
		n, p, err := c.in.take(b)
		if n > 0 || err != nil || len(b) == 0 {
			return n, err
		}
		if err := c.wait(p, &c.readBy); err != nil {
			return 0, err
		}
	}
}

// wait blocks until something may have changed, or the deadline has passed.
func (c *conn) wait(p pause, deadline *time.Time) error {
	c.mu.Lock()
	by, moved := *deadline, c.deadlineMoved
	c.mu.Unlock()
	if passed(by) {
		return opError("io", os.ErrDeadlineExceeded)
	}
	until := p.until
	if !by.IsZero() && (until.IsZero() || by.Before(until)) {
		until = by
	}
	var alarm <-chan time.Time
	if !until.IsZero() {
		t := time.NewTimer(time.Until(until))
		defer t.Stop()
		alarm = t.C
	}
	select {
	case <-p.change:
	case <-p.network:
	case <-moved:
	case <-alarm:
	}
	return nil
}

func passed(deadline time.Time) bool { return !deadline.IsZero() && !deadline.After(time.Now()) }

func (c *conn) expired(deadline *time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if passed(*deadline) {
		return opError("io", os.ErrDeadlineExceeded)
	}
	return nil
}

// Write implements net.Conn.
func (c *conn) Write(b []byte) (int, error) {
	total := 0
	for len(b) > 0 {
		if err := c.expired(&c.writeBy); err != nil {
			return total, err
		}
		n, change, err := c.out.put(b)
		total += n
		b = b[n:]
		if err != nil {
			return total, err
		}
		if len(b) == 0 {
			break
		}
		if err := c.wait(pause{change: change}, &c.writeBy); err != nil {
			return total, err
		}
	}
	return total, nil
}

func (h *half) put(b []byte) (int, <-chan struct{}, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil {
		return 0, nil, h.err
	}
	if !h.eof.IsZero() {
		return 0, nil, opError("write", syscall.EPIPE)
	}
	n := min(len(b), window-h.size)
	if n > 0 {
		h.queue = append(h.queue, segment{at: time.Now().Add(h.net.latency), data: append([]byte(nil), b[:n]...)})
		h.size += n
		h.wakeLocked()
	}
	return n, h.change, nil
}

// Close implements net.Conn: the other end reads what is on its way, then EOF.
func (c *conn) Close() error {
	c.once.Do(func() {
		c.host.forget(c)
		c.out.mu.Lock()
		if c.out.eof.IsZero() {
			c.out.eof = time.Now().Add(c.out.net.latency)
			c.out.wakeLocked()
		}
		c.out.mu.Unlock()
		c.in.fail(opError("read", net.ErrClosed))
	})
	return nil
}

// reset is what the kernel does with the sockets of a killed process: its own
// calls fail at once, the other end hears of it after one latency, unless a cut
// keeps it from hearing anything.
func (c *conn) reset() {
	c.once.Do(func() {
		c.host.forget(c)
		c.in.fail(opError("read", net.ErrClosed))
		c.out.mu.Lock()
		c.out.queue, c.out.size = nil, 0
		c.out.eof = time.Now().Add(c.out.net.latency)
		c.out.wakeLocked()
		c.out.mu.Unlock()
	})
}

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.local) }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.peer) }

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error { return c.move(&t, &t) }

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error { return c.move(&t, nil) }

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error { return c.move(nil, &t) }

func (c *conn) move(read, write *time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if read != nil {
		c.readBy = *read
	}
	if write != nil {
		c.writeBy = *write
	}
	close(c.deadlineMoved)
	c.deadlineMoved = make(chan struct{})
	return nil
}
