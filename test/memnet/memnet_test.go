package memnet

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"p2pnode/test/bubble"
)

var a1, b1 = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")

func pair(t *testing.T, n *Net) (net.Conn, net.Conn) {
	t.Helper()
	l, err := n.Host(b1).Listen("tcp", "0.0.0.0:7744")
	if err != nil {
		t.Fatal(err)
	}
	mine, err := n.Host(a1).Dial(t.Context(), "tcp", "10.0.0.2:7744")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return mine, theirs
}

// The standard conformance suite for net.Conn.
func TestConn(t *testing.T) {
	nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) {
		x, y := pair(t, New(1, 0, 0))
		return x, y, func() { x.Close(); y.Close() }, nil
	})
}

func TestLatencyCutHealKill(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		n := New(1, 10*time.Millisecond, 0)
		x, y := pair(t, n)
		began := time.Now()
		x.Write([]byte("hello"))
		buf := make([]byte, 10)
		if m, err := y.Read(buf); err != nil || string(buf[:m]) != "hello" || time.Since(began) != 10*time.Millisecond {
			t.Fatalf("%q %v after %v", buf[:m], err, time.Since(began))
		}

		n.Cut([]netip.Addr{a1}, []netip.Addr{b1})
		x.Write([]byte("late"))
		y.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := y.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("read across a cut: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := n.Host(a1).Dial(ctx, "tcp", "10.0.0.2:7744"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("dial across a cut: %v", err)
		}
		n.Heal([]netip.Addr{a1}, []netip.Addr{b1})
		y.SetReadDeadline(time.Time{})
		if m, err := y.Read(buf); err != nil || string(buf[:m]) != "late" {
			t.Fatalf("after the heal: %q %v", buf[:m], err)
		}

		began = time.Now()
		n.Host(a1).Kill()
		if _, err := y.Read(buf); err != io.EOF || time.Since(began) != 10*time.Millisecond {
			t.Fatalf("peer of a killed process: %v after %v", err, time.Since(began))
		}
		if _, err := x.Read(buf); !errors.Is(err, net.ErrClosed) {
			t.Fatalf("own read after the kill: %v", err)
		}
		n.Host(b1).Kill()
		if _, err := n.Host(a1).Dial(t.Context(), "tcp", "10.0.0.2:7744"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("dial to a killed process: %v", err)
		}
	})
}

func TestPackets(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		n := New(1, 10*time.Millisecond, 0.5)
		x, _ := n.Host(a1).ListenPacket("udp", ":7744")
		y, _ := n.Host(b1).ListenPacket("udp", ":7744")
		for range 1000 {
			x.WriteTo([]byte("x"), y.LocalAddr())
		}
		got := 0
		buf := make([]byte, 10)
		y.SetReadDeadline(time.Now().Add(time.Second))
		for {
			if _, _, err := y.ReadFrom(buf); err != nil {
				break
			}
			got++
		}
		if got < 400 || got > 600 {
			t.Fatalf("%d of 1000 packets arrived at 50 %% loss", got)
		}
		n.Host(b1).SetUp(false)
		x.WriteTo([]byte("x"), y.LocalAddr())
		n.Host(b1).SetUp(true)
		y.SetReadDeadline(time.Now().Add(time.Second))
		if _, _, err := y.ReadFrom(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("a packet to a host that was gone arrived: %v", err)
		}
	})
}
