package overlay

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/test/bubble"

	"p2pnode/overlay/discover"
	"p2pnode/test/memnet"
)

func TestWhoFounds(t *testing.T) {
	lower, higher := peer.ID("a"), peer.ID("z")
	cases := []struct {
		name   string
		listen string
		mdns   bool
		hints  []string
		lobby  peer.ID
		waited time.Duration
		want   bool
	}{
		{"loopback, at once", "127.0.0.1:1", true, nil, "", 0, true},
		{"told to join", "127.0.0.1:1", true, []string{"x"}, "", time.Hour, false},
		{"no search", "10.0.0.1:1", false, nil, "", 0, true},
		{"searching", "10.0.0.1:1", true, nil, "", searchTime - 1, false},
		{"nobody found", "10.0.0.1:1", true, nil, "", searchTime, true},
		{"a lower one waits too", "10.0.0.1:1", true, nil, lower, searchTime, false},
		{"a higher one waits too", "10.0.0.1:1", true, nil, higher, searchTime, true},
		{"the lower one founds nothing", "10.0.0.1:1", true, nil, lower, 3 * searchTime, true},
	}
	for _, c := range cases {
		o := &Overlay{self: "m", addr: netip.MustParseAddrPort(c.listen), hints: c.hints, cfg: Config{MDNS: c.mdns}}
		lobby := map[peer.ID]bool{}
		if c.lobby != "" {
			lobby[c.lobby] = true
		}
		if got := o.mayFound(c.waited, lobby); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// A host without a network must not conclude that it is alone.
func TestOffline(t *testing.T) {
	p := netip.MustParsePrefix
	lo := discover.Interface{Name: "lo", Up: true, Loopback: true, Addrs: []netip.Prefix{p("127.0.0.1/8")}}
	eth := discover.Interface{Name: "eth0", Up: true, Addrs: []netip.Prefix{p("10.0.0.2/24")}}
	for _, c := range []struct {
		listen string
		mdns   bool
		ifs    []discover.Interface
		want   bool
	}{
		{"0.0.0.0:1", true, []discover.Interface{lo}, true},
		{"0.0.0.0:1", true, []discover.Interface{lo, eth}, false},
		{"0.0.0.0:1", false, []discover.Interface{lo}, false},
		{"127.0.0.1:1", true, []discover.Interface{lo}, false},
	} {
		o := &Overlay{addr: netip.MustParseAddrPort(c.listen), cfg: Config{MDNS: c.mdns, Interfaces: func() ([]discover.Interface, error) { return c.ifs, nil }}}
		if got := o.offline(); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func lobbyNode(t *testing.T, net *memnet.Net, n int, hear func(context.Context, string, discover.MDNSConfig), join ...string) *member {
	addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(n)})
	return start(t, Config{
		Dir: t.TempDir(), Name: fmt.Sprintf("n%d", n), Listen: addr.String() + ":7744", Network: net.Host(addr), MDNS: true,
		Advertise: []string{addr.String() + ":7744"}, Join: join,
		Interfaces: func() ([]discover.Interface, error) {
			return []discover.Interface{{Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.PrefixFrom(addr, 24)}}}, nil
		},
	}, func(o *Overlay) {
		o.multicast = func(ctx context.Context, cfg discover.MDNSConfig) error {
			hear(ctx, addr.String(), cfg)
			<-ctx.Done()
			return nil
		}
	})
}

// Two nodes that found each other by multicast and have no cluster: one founds it,
// the other joins.
func TestLobby(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(31, time.Millisecond, 0)
		// Each hears of the other, as multicast would tell it.
		var mu sync.Mutex
		var there []discover.Hint
		hear := func(_ context.Context, host string, cfg discover.MDNSConfig) {
			mu.Lock()
			there = append(there, discover.Hint{Host: host, Port: cfg.Port, ID: cfg.ID})
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			defer mu.Unlock()
			for _, h := range there {
				if h.ID != cfg.ID {
					cfg.Found(h)
				}
			}
		}
		a, b := lobbyNode(t, net, 1, hear), lobbyNode(t, net, 2, hear)
		allKnowAll(t, 4*searchTime, a, b)
		ca, _ := a.Cluster()
		cb, _ := b.Cluster()
		if ca.ID != cb.ID {
			t.Fatalf("two clusters: %s and %s", ca.ID, cb.ID)
		}
		founder := a
		if b.self < a.self {
			founder = b
		}
		if cert, _ := founder.Certificate(); cert.Role != p2pnode.RoleManager {
			t.Errorf("%s has the lowest ID and did not found", founder.cfg.Name)
		}
	})
}

// Nodes that were told whom to join found nothing: the one that may does not wait
// for them, whatever their IDs. Each of their reasons is said once, not at each try.
func TestWhoJoinsIsNotWaitedFor(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(43, time.Millisecond, 0)
		var mu sync.Mutex
		there := []discover.Hint{}
		hear := func(_ context.Context, host string, cfg discover.MDNSConfig) {
			mu.Lock()
			there = append(there, discover.Hint{Host: host, Port: cfg.Port, ID: cfg.ID})
			mu.Unlock()
			time.Sleep(100 * time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			for _, h := range there {
				if h.ID != cfg.ID {
					cfg.Found(h)
				}
			}
		}
		founder := lobbyNode(t, net, 1, hear)
		members := []*member{founder}
		for n := 2; n <= 5; n++ {
			members = append(members, lobbyNode(t, net, n, hear, "10.0.0.1"))
		}
		time.Sleep(searchTime / 2)
		for _, m := range members[1:] {
			m.mu.Lock()
			reasons := len(m.troubles)
			m.mu.Unlock()
			if reasons < 2 || reasons > 2*len(members) {
				t.Errorf("%s has %d reasons not to be a member: %v", m.cfg.Name, reasons, m.troubles)
			}
		}
		time.Sleep(searchTime/2 + time.Second)
		if cert, _ := founder.Certificate(); cert.Role != p2pnode.RoleManager {
			t.Fatalf("%s waited for those that found nothing", founder.cfg.Name)
		}
		allKnowAll(t, 10*time.Second, members...)
	})
}

// Connections that carry no link go away; links stay.
func TestIdleConnectionsClose(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(37, time.Millisecond, 0)
		a := inMemory(t, net, 1, func(c *Config) { c.DenyLinks = []string{"n3"} }).admitted(time.Second)
		b := inMemory(t, net, 2, joins("10.0.0.1"))
		allKnowAll(t, 10*time.Second, a, b)
		c := inMemory(t, net, 3, joins("10.0.0.2"))
		allKnowAll(t, 10*time.Second, a, b, c)
		conn, err := c.GossipDial(t.Context(), a.self)
		if err != nil {
			t.Fatal(err)
		}
		count := func() int {
			c.mu.Lock()
			defer c.mu.Unlock()
			return len(c.conns)
		}
		time.Sleep(2 * idleTime)
		if count() != 2 {
			t.Fatalf("%d connections while one carries a stream", count())
		}
		conn.Close()
		(<-a.GossipAccept()).Close()
		eventually(t, idleTime+5*time.Second, "the idle connection is closed", func() bool { return count() == 1 })
		if !c.linked(b) || !b.linked(a) {
			t.Error("a link was closed with it")
		}
	})
}

func TestHowOftenItAsks(t *testing.T) {
	unreachable, refused := &p2pnode.Error{Exit: p2pnode.ExitUnreachable}, &p2pnode.Error{Exit: p2pnode.ExitNotPermitted}
	for _, c := range []struct {
		err          error
		last, waited time.Duration
		want         time.Duration
	}{
		{unreachable, joinFirst, time.Second, joinFirst},
		{unreachable, joinFirst, joinEager, 2 * joinFirst},
		{unreachable, time.Hour, time.Hour, joinMost},
		{refused, joinFirst, time.Second, 2 * joinFirst},
		{refused, time.Hour, time.Hour, joinRefused},
	} {
		o := &Overlay{hints: []string{"x"}, joinError: c.err}
		if got := o.nextTry(c.last, c.waited); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}
