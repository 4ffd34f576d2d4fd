package overlay

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode/overlay/discover"
	"p2pnode/test/memnet"
)

// member is one overlay under test.
type member struct {
	*Overlay
	t      testing.TB
	host   *memnet.Host // nil on real sockets
	cancel context.CancelFunc
	done   chan error
}

// inMemoryConfig is that of an overlay at 10.0.0.n of a network in memory.
func inMemoryConfig(t testing.TB, net *memnet.Net, n int) (Config, *memnet.Host) {
	addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(n)})
	host := net.Host(addr)
	return Config{
		Dir: t.TempDir(), Name: fmt.Sprintf("n%d", n), Listen: addr.String() + ":7744", Door: addr.String() + ":7745",
		Network: host, Advertise: []string{addr.String() + ":7744"},
		Interfaces: func() ([]discover.Interface, error) {
			return []discover.Interface{{Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.PrefixFrom(addr, 24)}}}, nil
		},
	}, host
}

// inMemory starts such an overlay.
func inMemory(t testing.TB, net *memnet.Net, n int, change func(*Config)) *member {
	t.Helper()
	cfg, host := inMemoryConfig(t, net, n)
	if change != nil {
		change(&cfg)
	}
	m := start(t, cfg, nil)
	m.host = host
	return m
}

// start runs an overlay; before, if set, registers handlers.
func start(t testing.TB, cfg Config, before func(*Overlay)) *member {
	t.Helper()
	o, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if before != nil {
		before(o)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &member{Overlay: o, t: t, cancel: cancel, done: make(chan error, 1)}
	go func() { m.done <- o.Run(ctx) }()
	t.Cleanup(func() { m.stop() })
	return m
}

// stop ends it in good order and returns what Run returned. It may be called
// twice.
func (m *member) stop() error {
	m.cancel()
	err := <-m.done
	m.done <- err
	return err
}

// crash is what kill -9 does: sockets end, nobody is told.
func (m *member) crash() {
	m.mu.Lock()
	m.closing = true
	m.mu.Unlock()
	m.host.Kill()
}

// hostNetwork is the loopback of this machine.
type hostNetwork struct{}

func (hostNetwork) Listen(network, address string) (net.Listener, error) {
	return net.Listen(network, address)
}

func (hostNetwork) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

// onLoopback starts an overlay on a real socket.
func onLoopback(t testing.TB, name string, change func(*Config), before func(*Overlay)) *member {
	t.Helper()
	cfg := Config{Dir: t.TempDir(), Name: name, Listen: "127.0.0.1:0", Door: "127.0.0.1:1", Network: hostNetwork{}}
	if change != nil {
		change(&cfg)
	}
	return start(t, cfg, before)
}

func joins(addrs ...string) func(*Config) { return func(c *Config) { c.Join = addrs } }

func eventually(t testing.TB, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	for began := time.Now(); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Since(began) > limit {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// admitted waits until m is a member.
func (m *member) admitted(limit time.Duration) *member {
	m.t.Helper()
	eventually(m.t, limit, m.cfg.Name+" is a member", m.isAdmitted)
	return m
}

func knows(o *member, ids ...peer.ID) bool {
	v := o.View()
	for _, id := range ids {
		if _, ok := v.Peers[id]; !ok {
			return false
		}
	}
	return true
}

func (m *member) linked(to *member) bool {
	_, ok := m.View().Links[to.self]
	return ok
}

// allKnowAll waits until everybody has everybody's record and a route.
func allKnowAll(t testing.TB, limit time.Duration, all ...*member) {
	t.Helper()
	eventually(t, limit, "all know all and the way to them", func() bool {
		for _, a := range all {
			for _, b := range all {
				if !knows(a, b.self) || len(a.View().Table.Path(a.self, b.self)) == 0 {
					return false
				}
			}
		}
		return true
	})
}

func names(all []*member, trail []peer.ID) (out []string) {
	for _, id := range trail {
		i := slices.IndexFunc(all, func(m *member) bool { return m.self == id })
		if i < 0 {
			out = append(out, "?")
			continue
		}
		out = append(out, all[i].cfg.Name)
	}
	return out
}

func addrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
