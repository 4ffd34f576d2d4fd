package check

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// connection is one question's own: a fresh one proves that somebody accepts.
type connection struct{ stream }

// stream is what a question needs of a net.Conn, or of a socket that is an *os.File.
type stream interface {
	io.ReadWriteCloser
	SetDeadline(time.Time) error
}

// endWith ends reads and writes when ctx ends, until stop is called. It is not the
// deadline of ctx that is set: that may fire first, and the error would not be told from
// one of the connection.
func (c connection) endWith(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
}

// dial opens a connection. To a port of this host, which is what most checks ask, it
// spares what a net.Dialer does to wait: the kernel connects those while it is asked to.
func dial(ctx context.Context, network, addr string) (connection, error) {
	if network == "tcp" {
		if near, ok := dialNear(addr); ok {
			return connection{near}, nil
		}
	}
	d := net.Dialer{KeepAlive: -1}
	conn, err := d.DialContext(ctx, network, addr)
	return connection{conn}, err
}

// dialNear connects to an address of the loopback; what is not connected at once, or is
// no such address, is a net.Dialer's.
func dialNear(addr string) (*os.File, bool) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil || !to.Addr().IsLoopback() || to.Addr().Zone() != "" {
		return nil, false
	}
	family, sa := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()})
	if to.Addr().Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, false
	}
	err = unix.Connect(fd, sa)
	if err != nil && (err != unix.EINPROGRESS || !connected(fd)) || itself(fd, to.Port()) {
		unix.Close(fd)
		return nil, false
	}
	return os.NewFile(uintptr(fd), addr), true
}

// connected reports whether the connection of fd is there already.
func connected(fd int) bool {
	look := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(look, 0)
	return err == nil && n == 1 && look[0].Revents&(unix.POLLOUT|unix.POLLERR|unix.POLLHUP) == unix.POLLOUT
}

// itself reports whether fd is connected to itself: where nobody listens the kernel may
// take the port that is asked as the one to ask from.
func itself(fd int, port uint16) bool {
	switch from, _ := unix.Getsockname(fd); from := from.(type) {
	case *unix.SockaddrInet4:
		return from.Port == int(port)
	case *unix.SockaddrInet6:
		return from.Port == int(port)
	}
	return false
}
