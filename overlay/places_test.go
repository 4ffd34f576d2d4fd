package overlay

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/overlay/discover"
	"p2pnode/overlay/papers"
	"p2pnode/test/bubble"
	"p2pnode/test/memnet"
)

// fakeDNS is a resolver of one map; more than one host may stand behind a name.
type fakeDNS map[string][]string

func (d fakeDNS) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, a := range d[host] {
		out = append(out, netip.MustParseAddr(a))
	}
	if out == nil {
		return nil, errors.New("no such host")
	}
	return out, nil
}

// named starts an overlay that resolves by dns.
func named(t *testing.T, net *memnet.Net, n int, dns fakeDNS, change func(*Config)) *member {
	addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(n)})
	cfg := Config{
		Dir: t.TempDir(), Name: fmt.Sprintf("n%d", n), Listen: addr.String() + ":7744", Network: net.Host(addr), Advertise: []string{addr.String() + ":7744"},
		Interfaces: func() ([]discover.Interface, error) {
			return []discover.Interface{{Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.PrefixFrom(addr, 24)}}}, nil
		},
	}
	change(&cfg)
	m := start(t, cfg, func(o *Overlay) { o.resolver = dns })
	m.host = net.Host(addr)
	return m
}

// Replicas that share one configuration join by a name behind which they all
// stand, themselves too, and hosts that are away.
func TestANameWithManyHosts(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(51, time.Millisecond, 0)
		dns := fakeDNS{"fleet": {"10.0.0.2", "10.0.0.9", "10.0.0.1", "10.0.0.3"}}
		a := named(t, net, 1, dns, func(*Config) {}).admitted(time.Second)
		b := named(t, net, 2, dns, joins("fleet"))
		c := named(t, net, 3, dns, joins("/dns4/fleet/tcp/7744"))
		began := time.Now()
		allKnowAll(t, 10*time.Second, a, b, c)
		t.Log("joined after", time.Since(began))
	})
}

// Behind a name the first to answer may be of no use; the others are asked too, and
// of the errors the one that says most is kept.
func TestTheFirstToAnswerMayBeOfNoUse(t *testing.T) {
	a, b, c := onLoopback(t, "a", nil, nil).admitted(10*time.Second), onLoopback(t, "b", nil, nil), onLoopback(t, "c", nil, nil)
	all := []string{a.ListenAddr(), b.ListenAddr(), "127.0.0.1:1", c.ListenAddr()}
	var asked []peer.ID
	who, err := a.firstOf(t.Context(), "", all, func(_ context.Context, id peer.ID, _ []string) error {
		asked = append(asked, id)
		if len(asked) == 1 {
			return errors.New("of no use")
		}
		return nil
	})
	if err != nil || len(asked) != 2 || who != asked[1] || slices.Contains(asked, a.self) {
		t.Errorf("asked %v, found %s, %v", asked, who, err)
	}
	who, err = a.firstOf(t.Context(), "", all, func(_ context.Context, id peer.ID, _ []string) error {
		if id == b.self {
			return &refusedError{ReasonForeign, "x"}
		}
		return errors.New("of no use")
	})
	if r, ok := errors.AsType[*refusedError](err); !ok || who != b.self {
		t.Errorf("%s, %v, %v", who, err, r)
	}
	if _, err = a.firstOf(t.Context(), "", all[:1], nil); !errors.Is(err, errItself) {
		t.Errorf("alone with itself: %v", err)
	}
}

// A configuration that names each host to itself makes the first one found; one
// that names others never does.
func TestWhoIsToldToJoinItself(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(57, time.Millisecond, 0)
		dns := fakeDNS{"seed": {"10.0.0.1"}}
		a := named(t, net, 1, dns, joins("seed"))
		b := named(t, net, 2, dns, joins("seed"))
		c := named(t, net, 3, dns, joins("10.0.0.3:7744", "10.0.0.99"))
		allKnowAll(t, searchTime+10*time.Second, a, b)
		if cert, _ := a.Certificate(); cert.Role != p2pnode.RoleManager {
			t.Errorf("the seed is a %s", cert.Role)
		}
		time.Sleep(time.Hour)
		if c.isAdmitted() {
			t.Error("one of c's addresses is somebody else's, and it founded a cluster")
		}
	})
}

// An address with the wrong ID is no member's, and the error says who is there.
func TestWrongID(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(59, time.Millisecond, 0)
		a := inMemory(t, net, 1, nil).admitted(time.Second)
		nobody := "12D3KooWKkPzGPzkH1Uzj7LQKmbJTxtLFAhBdD2dtq1xgkRmPR3K"
		b := inMemory(t, net, 2, joins("/ip4/10.0.0.1/tcp/7744/p2p/"+nobody))
		c := inMemory(t, net, 3, joins("/ip4/10.0.0.1/tcp/7744/p2p/"+a.self.String()))
		allKnowAll(t, 10*time.Second, a, c)
		eventually(t, 10*time.Second, "b says what is wrong", func() bool {
			e, ok := errors.AsType[*p2pnode.Error](b.JoinError())
			return ok && e.Code == "wrong-id" && strings.Contains(e.Text, a.self.String()) && strings.Contains(e.Text, nobody) && e.Fix != "" && !strings.Contains(e.Text, "\n")
		})
		time.Sleep(time.Minute)
		if b.isAdmitted() {
			t.Error("b was let in by somebody else than it asked for")
		}
	})
}

// Announcements of hosts that are not there hold up neither the address that the
// operator gave nor what is real.
func TestLiesOnTheLocalNetwork(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(61, time.Millisecond, 0)
		lies := func(ctx context.Context, cfg discover.MDNSConfig) error {
			for i := 0; ctx.Err() == nil; i++ {
				id := p2pnode.PeerID(fmt.Appendf(nil, "%032d", i))
				cfg.Found(discover.Hint{Host: fmt.Sprintf("10.0.1.%d", i%250), Port: 7744, ID: id})
				time.Sleep(10 * time.Millisecond)
			}
			return nil
		}
		addr := netip.MustParseAddr("10.0.0.2")
		b := start(t, Config{
			Dir: t.TempDir(), Name: "n2", Listen: "10.0.0.2:7744", Network: net.Host(addr), MDNS: true, Join: []string{"10.0.0.1"},
			Advertise: []string{"10.0.0.2:7744"}, Interfaces: func() ([]discover.Interface, error) { return nil, nil },
		}, func(o *Overlay) { o.multicast = lies })
		time.Sleep(5 * time.Minute)
		a := inMemory(t, net, 1, nil)
		began := time.Now()
		b.admitted(30 * time.Second)
		t.Log("joined after", time.Since(began))
		b.mu.Lock()
		seen := len(b.seen)
		b.mu.Unlock()
		if seen > maxFound || b.Counters()[ReasonFound] == 0 {
			t.Errorf("%d found peers are remembered, %v", seen, b.Counters())
		}
		allKnowAll(t, 10*time.Second, a, b)
	})
}

// A host without an address that others could use says none.
func TestNoAddressIsToldForNone(t *testing.T) {
	o := &Overlay{
		addr: netip.MustParseAddrPort("0.0.0.0:7744"),
		cfg: Config{Interfaces: func() ([]discover.Interface, error) {
			return []discover.Interface{{Name: "lo", Up: true, Loopback: true, Addrs: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}}}, nil
		}},
	}
	if got := o.addresses(); len(got) != 0 {
		t.Errorf("%v", got)
	}
	if got := doorAddress("0.0.0.0:7745", nil); got != "" {
		t.Errorf("%q", got)
	}
	if got := doorAddress("10.0.0.1:7745", nil); got != "10.0.0.1:7745" {
		t.Errorf("%q", got)
	}
}

// A token that was removed stays removed, also after its maker was restarted while
// another manager remembers it as good.
func TestARemovedTokenStaysRemoved(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(67, time.Millisecond, 0)
		dir := t.TempDir()
		first := func() *member { return inMemory(t, net, 1, func(c *Config) { c.Dir = dir }).admitted(time.Second) }
		a := first()
		mgr, err := a.CreateToken(p2pnode.RoleManager, time.Hour, 1)
		if err != nil {
			t.Fatal(err)
		}
		b := inMemory(t, net, 2, func(c *Config) { c.Join, c.TokenFile = []string{"10.0.0.1"}, tokenFile(t, mgr.Token) })
		allKnowAll(t, 10*time.Second, a, b)
		tok, err := b.CreateToken(p2pnode.RoleWorker, time.Hour, 5)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, 10*time.Second, "a knows the token", func() bool { return len(a.Tokens()) == 2 })
		b.host.SetUp(false) // it does not hear of the end
		eventually(t, 20*time.Second, "the link is gone", func() bool { return !a.linked(b) && !b.linked(a) })
		if err := a.RemoveToken(tok.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		a.stop()
		a = first()
		b.host.SetUp(true)
		allKnowAll(t, 30*time.Second, a, b)
		time.Sleep(time.Minute)
		for _, m := range []*member{a, b} {
			for _, d := range m.Tokens() {
				if d.ID == tok.ID {
					t.Errorf("%s takes the removed token for good", m.cfg.Name)
				}
			}
		}
		c := inMemory(t, net, 3, func(c *Config) { c.Join, c.TokenFile = []string{"10.0.0.2"}, tokenFile(t, tok.Token) })
		eventually(t, 20*time.Second, "it lets nobody in", func() bool {
			e, ok := errors.AsType[*p2pnode.Error](c.JoinError())
			return ok && e.Code == string(papers.RefusedExpired)
		})
	})
}

// Who leaves for good takes nobody's address along: the next cluster is the one
// that is named.
func TestWhoLeftForgetsAddresses(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(71, time.Millisecond, 0)
		dir := t.TempDir()
		a := inMemory(t, net, 1, nil).admitted(time.Second)
		other := inMemory(t, net, 3, nil)
		b := inMemory(t, net, 2, func(c *Config) { c.Dir = dir; c.Join = []string{"10.0.0.1"} })
		allKnowAll(t, 10*time.Second, a, b)
		time.Sleep(2 * time.Minute) // the book is on disk
		if err := b.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-b.done
		b.done <- nil
		other.host.SetUp(false)
		again := inMemory(t, net, 2, func(c *Config) { c.Dir = dir })
		time.Sleep(time.Second)
		if err := again.Join("10.0.0.3"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		if again.isAdmitted() {
			t.Fatal("it went back to the cluster that it had left, or founded one")
		}
		other.host.SetUp(true)
		allKnowAll(t, 30*time.Second, other, again)
	})
}
