package overlay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/overlay/discover"
	"p2pnode/overlay/overlaypb"
	"p2pnode/overlay/papers"
	"p2pnode/test/bubble"
	"p2pnode/test/memnet"
)

// A chain a - b - c: c is admitted through b by the manager a, with which it never
// has a link; records and calls go all the way.
func TestChain(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(1, time.Millisecond, 0)
		a := inMemory(t, net, 1, func(c *Config) { c.DenyLinks = []string{"n3"} }).admitted(time.Second)
		b := inMemory(t, net, 2, joins("10.0.0.1:7744")).admitted(time.Second)
		c := inMemory(t, net, 3, func(c *Config) { c.Join = []string{"10.0.0.2:7744"}; c.DenyLinks = []string{"n1"} })
		allKnowAll(t, 10*time.Second, a, b, c)
		want := []peer.ID{a.self, b.self, c.self}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, trail, err := a.Route(ctx, c.self, kindPing, nil)
		if err != nil || !slices.Equal(trail, want) {
			t.Fatalf("trail %v, %v", trail, err)
		}
		if cert, _ := c.Certificate(); cert.Role != p2pnode.RoleWorker {
			t.Errorf("c was admitted as %q", cert.Role)
		}
		time.Sleep(time.Minute)
		if a.linked(c) || c.linked(a) {
			t.Fatal("a has a link with c, which both deny")
		}
		b.crash()
		eventually(t, 100*time.Millisecond, "a and c hear of the end of b's connections", func() bool {
			return len(a.View().Links) == 0 && len(c.View().Links) == 0
		})
		if _, ok := a.View().Table.Hops(a.self, c.self); ok {
			t.Error("a still knows a way through the dead b")
		}
		if !slices.Contains(a.View().Table.Around(b.self), c.self) {
			t.Error("who was next to the dead b is forgotten")
		}
		if _, _, err := a.Route(ctx, c.self, kindPing, nil); !errors.Is(err, ErrNoRoute) {
			t.Errorf("a call without a way: %v", err)
		}
	})
}

// Seven nodes that all join by the first: full membership at once, healing of a
// cut, records to everybody, and an orderly end.
func TestCluster(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(7, time.Millisecond, 0)
		var mu sync.Mutex
		got := map[string]int{}
		var all []*member
		for n := 1; n <= 7; n++ {
			addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(n)})
			cfg := Config{
				Dir: t.TempDir(), Name: fmt.Sprintf("n%d", n), Listen: addr.String() + ":7744", Network: net.Host(addr), Advertise: []string{addr.String() + ":7744"},
				Interfaces: func() ([]discover.Interface, error) {
					return []discover.Interface{{Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.PrefixFrom(addr, 24)}}}, nil
				},
			}
			if n > 1 {
				cfg.Join = []string{"10.0.0.1:7744"}
			}
			m := start(t, cfg, func(o *Overlay) {
				o.Domain(DomainSpec{Domain: "test", TTL: time.Hour, Urgent: true, AntiEntropy: true, Deliver: func(r p2pnode.Record) {
					mu.Lock()
					defer mu.Unlock()
					got[cfg.Name+" "+string(r.Body)]++
				}})
			})
			m.host = net.Host(addr)
			if n == 1 {
				m.admitted(time.Second)
			}
			all = append(all, m)
		}
		allKnowAll(t, 5*time.Second, all...)

		heard := func(word string) int {
			mu.Lock()
			defer mu.Unlock()
			n := 0
			for _, m := range all {
				n += min(1, got[m.cfg.Name+" "+word])
			}
			return n
		}
		if err := all[3].Publish("test", "", []byte("hello"), 0); err != nil {
			t.Fatal(err)
		}
		eventually(t, 50*time.Millisecond, "an urgent record is everywhere", func() bool { return heard("hello") == 7 })

		left, right := addrs(all[:3]), addrs(all[3:])
		net.Cut(left, right)
		eventually(t, 20*time.Second, "the cut is seen by both halves", func() bool {
			_, a := all[0].View().Table.Hops(all[0].self, all[6].self)
			_, b := all[6].View().Table.Hops(all[6].self, all[0].self)
			return !a && !b
		})
		if err := all[0].Publish("test", "", []byte("during"), 0); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		if n := heard("during"); n != 3 {
			t.Fatalf("%d heard it through the cut", n)
		}
		net.Heal(left, right)
		began := time.Now()
		allKnowAll(t, 15*time.Second, all...)
		t.Log("healed after", time.Since(began))
		eventually(t, 10*time.Second, "what was said in between is everywhere", func() bool { return heard("during") == 7 })

		if err := all[5].stop(); err != nil {
			t.Fatal(err)
		}
		eventually(t, 100*time.Millisecond, "all know that n6 left", func() bool {
			for _, m := range all {
				if m != all[5] && !m.View().Peers[all[5].self].Left {
					return false
				}
			}
			return true
		})
	})
}

func addrs(ms []*member) (out []netip.Addr) {
	for _, m := range ms {
		out = append(out, m.host.Addr)
	}
	return out
}

// A life that ends in good order is told from one that breaks off, and the next
// life is back with all.
func TestEndsAndReturns(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(3, time.Millisecond, 0)
		var mu sync.Mutex
		var events []LinkEvent
		last := func() LinkEvent {
			mu.Lock()
			defer mu.Unlock()
			if len(events) == 0 {
				return LinkEvent{}
			}
			return events[len(events)-1]
		}
		addr := netip.MustParseAddr("10.0.0.1")
		a := start(t, Config{
			Dir: t.TempDir(), Name: "n1", Listen: "10.0.0.1:7744", Network: net.Host(addr), Advertise: []string{"10.0.0.1:7744"},
			Interfaces: func() ([]discover.Interface, error) {
				return []discover.Interface{{Up: true, Addrs: []netip.Prefix{netip.PrefixFrom(addr, 24)}}}, nil
			},
		}, func(o *Overlay) {
			o.OnLink(func(e LinkEvent) {
				mu.Lock()
				defer mu.Unlock()
				events = append(events, e)
			})
		}).admitted(time.Second)
		dir := t.TempDir()
		life := func() *member {
			return inMemory(t, net, 2, func(c *Config) { c.Dir = dir; c.Join = []string{"10.0.0.1:7744"} })
		}
		b := life()
		eventually(t, 5*time.Second, "a link", func() bool { return last().Up && last().Peer == b.self && last().Life == b.life && knows(a, b.self) })
		b.stop()
		eventually(t, time.Second, "a hears good-bye", func() bool { return last().Cause == CauseBye && last().Life == b.life })
		if !a.View().Peers[b.self].Left {
			t.Error("b stopped and has not left")
		}
		second := life()
		eventually(t, 10*time.Second, "b is back", func() bool { return last().Up && last().Life == second.life })
		eventually(t, time.Second, "and said so", func() bool {
			p := a.View().Peers[b.self]
			return !p.Left && p.Life == second.life
		})
		if second.life.Boot != b.life.Boot+1 {
			t.Errorf("boot %d after %d", second.life.Boot, b.life.Boot)
		}
		began := time.Now()
		second.crash()
		eventually(t, 100*time.Millisecond, "a hears the connection break", func() bool { return last().Cause == CauseLost })
		t.Log("noticed after", time.Since(began))
		if a.View().Peers[b.self].Left {
			t.Error("a crash was taken for a good-bye")
		}
		// The boot number is lost: the next life must not count as the old one's past.
		second.stop()
		os.Remove(filepath.Join(dir, "boot"))
		third := life()
		eventually(t, 30*time.Second, "the third life is seen", func() bool {
			p := a.View().Peers[b.self]
			return p.Life == third.life && !p.Left
		})
		third.stop()
		if fourth := life(); fourth.life.Boot <= second.life.Boot {
			t.Errorf("boot %d after %d", fourth.life.Boot, second.life.Boot)
		}
	})
}

// A host that is gone says nothing: heartbeats are missed, said, and the link is
// given up.
func TestSilence(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(5, time.Millisecond, 0)
		var mu sync.Mutex
		missed := map[int]time.Time{}
		b := inMemory(t, net, 2, nil)
		b.admitted(time.Second)
		addr := netip.MustParseAddr("10.0.0.1")
		a := start(t, Config{
			Dir: t.TempDir(), Name: "n1", Listen: "10.0.0.1:7744", Network: net.Host(addr), Advertise: []string{"10.0.0.1:7744"}, Join: []string{"10.0.0.2:7744"},
		}, func(o *Overlay) {
			o.OnHeartbeatMissed(func(_ peer.ID, n int) {
				mu.Lock()
				defer mu.Unlock()
				if _, again := missed[n]; !again {
					missed[n] = time.Now()
				}
			})
		})
		eventually(t, 5*time.Second, "a link", func() bool { return a.linked(b) })
		time.Sleep(10 * time.Second)
		mu.Lock()
		clear(missed)
		mu.Unlock()
		b.host.SetUp(false)
		gone := time.Now()
		eventually(t, 10*time.Second, "the link is given up", func() bool { return !a.linked(b) })
		mu.Lock()
		defer mu.Unlock()
		if at := missed[2].Sub(gone); missed[2].IsZero() || at < time.Second || at > 3500*time.Millisecond {
			t.Errorf("the second silent heartbeat was said after %v", at)
		}
	})
}

func TestRoutedCallTakesTheSecondChoice(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		// a - b - d and a - c - d: b goes silent, no connection breaks.
		net := memnet.New(9, time.Millisecond, 0)
		a := inMemory(t, net, 1, func(c *Config) { c.DenyLinks = []string{"n4"} }).admitted(time.Second)
		b := inMemory(t, net, 2, func(c *Config) { c.Join = []string{"10.0.0.1"}; c.DenyLinks = []string{"n3"} })
		c := inMemory(t, net, 3, func(c *Config) { c.Join = []string{"10.0.0.1"}; c.DenyLinks = []string{"n2"} })
		allKnowAll(t, 10*time.Second, a, b, c)
		d := inMemory(t, net, 4, func(c *Config) { c.Join = []string{"10.0.0.2", "10.0.0.3"}; c.DenyLinks = []string{"n1"} })
		all := []*member{a, b, c, d}
		allKnowAll(t, 10*time.Second, all...)
		eventually(t, 10*time.Second, "two ways", func() bool {
			_, second, ok := a.View().Table.Next(d.self)
			return ok && second != ""
		})
		first, _, _ := a.View().Table.Next(d.self)
		for _, m := range all {
			if m.self == first {
				m.host.SetUp(false)
			}
		}
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, trail, err := a.Route(ctx, d.self, kindPing, nil)
		took := time.Since(began)
		if err != nil || took > time.Second || len(trail) != 3 || trail[1] == first {
			t.Fatalf("%v after %v, %v", names(all, trail), took, err)
		}
		t.Log("second choice after", took)
	})
}

func TestTokens(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(11, time.Millisecond, 0)
		dir := t.TempDir()
		a := inMemory(t, net, 1, func(c *Config) { c.Dir = dir }).admitted(time.Second)
		time.Sleep(papers.Window + time.Minute) // nobody is let in without one now
		tok, err := a.CreateToken(p2pnode.RoleWorker, 10*time.Minute, 2)
		if err != nil {
			t.Fatal(err)
		}
		mgr, err := a.CreateToken(p2pnode.RoleManager, 10*time.Minute, 1)
		if err != nil {
			t.Fatal(err)
		}
		if got := a.Tokens(); len(got) != 2 {
			t.Fatalf("%+v", got)
		}
		// The manager is alone and restarted: its tokens stay good.
		a.stop()
		inMemory(t, net, 1, func(c *Config) { c.Dir = dir }).admitted(time.Second)

		with := func(n int, token string) *member {
			file := filepath.Join(t.TempDir(), "token")
			if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			return inMemory(t, net, n, func(c *Config) { c.Join = []string{"10.0.0.1"}; c.TokenFile = file })
		}
		refused := func(m *member, code string) {
			t.Helper()
			eventually(t, 20*time.Second, "refused: "+code, func() bool {
				e, ok := errors.AsType[*p2pnode.Error](m.JoinError())
				return ok && e.Code == code && e.Fix != ""
			})
			if m.isAdmitted() {
				t.Errorf("%s was let in", m.cfg.Name)
			}
			m.stop()
		}
		without := inMemory(t, net, 2, joins("10.0.0.1"))
		refused(without, string(papers.RefusedClosed))
		third := with(3, tok.Token).admitted(5 * time.Second)
		if c, _ := third.Cluster(); !c.Trusted {
			t.Error("a token does not make the cluster trusted")
		}
		with(4, tok.Token).admitted(5 * time.Second)
		refused(with(5, tok.Token), string(papers.RefusedUsed))

		// A manager's token brings the reader's key along.
		boss := with(6, mgr.Token).admitted(5 * time.Second)
		if cert, _ := boss.Certificate(); cert.Role != p2pnode.RoleManager {
			t.Errorf("role %q", cert.Role)
		}
		if _, err := os.Stat(filepath.Join(boss.cfg.Dir, "reader.key")); err != nil {
			t.Error(err)
		}
		// It knows the tokens, and makes its own.
		eventually(t, 10*time.Second, "the new manager knows the tokens, and that they are used up", func() bool {
			return slices.Equal(slices.Collect(func(yield func(int) bool) {
				for _, d := range boss.Tokens() {
					yield(d.Uses)
				}
			}), []int{0, 0})
		})
		late, err := boss.CreateToken(p2pnode.RoleWorker, time.Hour, 5)
		if err != nil {
			t.Fatal(err)
		}
		if err := boss.RemoveToken(late.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second) // past the end's whole second, and spread
		refused(with(7, late.Token), string(papers.RefusedExpired))
		time.Sleep(10 * time.Minute)
		if got := boss.Tokens(); len(got) != 0 {
			t.Errorf("%+v", got)
		}
		if _, err := third.CreateToken(p2pnode.RoleWorker, time.Hour, 1); p2pnode.ExitCode(err) != p2pnode.ExitNotPermitted {
			t.Errorf("a worker made a token: %v", err)
		}
		refused(with(8, "rubbish"), "token-unreadable")
	})
}

func TestForeignCluster(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(13, time.Millisecond, 0)
		a := inMemory(t, net, 1, nil).admitted(time.Second)
		dir := t.TempDir()
		inMemory(t, net, 2, func(c *Config) { c.Dir = dir }).admitted(time.Second).stop()
		// It has papers of another cluster and is told to join a's.
		b := inMemory(t, net, 2, func(c *Config) { c.Dir = dir; c.Join = []string{"10.0.0.1"} }).admitted(time.Second)
		eventually(t, 10*time.Second, "b says why", func() bool {
			e, ok := errors.AsType[*p2pnode.Error](b.JoinError())
			return ok && e.Code == ReasonForeign && strings.Contains(e.Fix, "cluster.json")
		})
		if len(a.View().Links) != 0 || a.Counters()[ReasonForeign] == 0 {
			t.Errorf("links %v, counters %v", a.View().Links, a.Counters())
		}
		// A token of b's cluster, and a's member at the address.
		tok, err := b.CreateToken(p2pnode.RoleWorker, time.Hour, 1)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "token")
		if err := os.WriteFile(file, []byte(tok.Token), 0o600); err != nil {
			t.Fatal(err)
		}
		c := inMemory(t, net, 3, func(c *Config) { c.Join = []string{"10.0.0.1"}; c.TokenFile = file })
		eventually(t, 10*time.Second, "c says why", func() bool {
			e, ok := errors.AsType[*p2pnode.Error](c.JoinError())
			return ok && e.Code == string(papers.RefusedForeign)
		})
	})
}

func TestJoinThatFailsIsTriedForEver(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(17, time.Millisecond, 0)
		b := inMemory(t, net, 2, joins("10.0.0.1"))
		time.Sleep(time.Hour)
		if b.isAdmitted() {
			t.Fatal("a node that was to join founded a cluster")
		}
		if e, ok := errors.AsType[*p2pnode.Error](b.JoinError()); !ok || e.Code != "join-unreachable" || e.Fix == "" {
			t.Errorf("it says %v", b.JoinError())
		}
		inMemory(t, net, 1, nil)
		b.admitted(10 * time.Second)
		if err := b.JoinError(); err != nil {
			t.Errorf("a member complains: %v", err)
		}
	})
}

func TestPromotionAlongAChain(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(19, time.Millisecond, 0)
		a := inMemory(t, net, 1, func(c *Config) { c.DenyLinks = []string{"n3"} }).admitted(time.Second)
		b := inMemory(t, net, 2, joins("10.0.0.1")).admitted(time.Second)
		changed := make(chan struct{}, 8)
		addr := netip.MustParseAddr("10.0.0.3")
		c := start(t, Config{
			Dir: t.TempDir(), Name: "n3", Listen: "10.0.0.3:7744", Network: net.Host(addr), Advertise: []string{"10.0.0.3:7744"},
			Join: []string{"10.0.0.2"}, DenyLinks: []string{"10.0.0.1"},
		}, func(o *Overlay) { o.OnStanding(func() { changed <- struct{}{} }) })
		allKnowAll(t, 10*time.Second, a, b, c)
		if err := b.Promote(t.Context(), c.self); p2pnode.ExitCode(err) != p2pnode.ExitNotPermitted {
			t.Errorf("a worker promoted: %v", err)
		}
		if err := a.Promote(t.Context(), c.self); err != nil {
			t.Fatal(err)
		}
		for len(c.Readers().Private) == 0 {
			<-changed
		}
		if !slices.EqualFunc(c.Readers().Private, a.Readers().Private, bytes.Equal) {
			t.Error("the reader's key did not arrive")
		}
		eventually(t, time.Second, "all see the new manager", func() bool {
			return a.View().Peers[c.self].Role == p2pnode.RoleManager && b.View().Peers[c.self].Role == p2pnode.RoleManager
		})
		// With the first manager gone it lets others in, through b.
		a.crash()
		d := inMemory(t, net, 4, func(cfg *Config) { cfg.Join = []string{"10.0.0.2"}; cfg.DenyLinks = []string{"n3"} })
		d.admitted(20 * time.Second)
	})
}

func TestLeaveForGood(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(23, time.Millisecond, 0)
		a := inMemory(t, net, 1, nil).admitted(time.Second)
		dir := t.TempDir()
		b := inMemory(t, net, 2, func(c *Config) { c.Dir = dir; c.Join = []string{"10.0.0.1"} })
		allKnowAll(t, 10*time.Second, a, b)
		if err := b.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-b.done; !errors.Is(err, ErrLeft) {
			t.Fatalf("Run ended with %v", err)
		}
		b.done <- nil
		eventually(t, time.Second, "a knows", func() bool { return a.View().Peers[b.self].ForGood })
		again := inMemory(t, net, 2, func(c *Config) { c.Dir = dir; c.Join = []string{"10.0.0.1"} })
		time.Sleep(10 * time.Minute)
		if again.isAdmitted() {
			t.Fatal("it came back by itself")
		}
		if err := again.Join("10.0.0.1"); err != nil {
			t.Fatal(err)
		}
		again.admitted(10 * time.Second)
		eventually(t, 10*time.Second, "a sees it again", func() bool { p := a.View().Peers[b.self]; return !p.Left && a.linked(again) })
	})
}

func TestDuplicateConnectionsAreSettled(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(29, time.Millisecond, 0)
		a := inMemory(t, net, 1, nil).admitted(time.Second)
		b := inMemory(t, net, 2, joins("10.0.0.1")).admitted(5 * time.Second)
		allKnowAll(t, 10*time.Second, a, b)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := a.linkWith(ctx, b.self, []string{"10.0.0.2:7744"}); err != nil {
			t.Fatal(err)
		}
		if _, err := b.linkWith(ctx, a.self, []string{"10.0.0.1:7744"}); err != nil {
			t.Fatal(err)
		}
		count := func(m *member) int {
			m.mu.Lock()
			defer m.mu.Unlock()
			return len(m.links)
		}
		if count(a) < 2 {
			t.Fatalf("%d links: the test made no duplicates", count(a))
		}
		eventually(t, 10*time.Second, "one link is left", func() bool { return count(a) == 1 && count(b) == 1 })
		time.Sleep(2 * time.Minute)
		if count(a) != 1 || count(b) != 1 || !a.linked(b) || !b.linked(a) {
			t.Errorf("%d and %d links", count(a), count(b))
		}
	})
}

// Five processes' worth of overlays on real sockets: how soon all know all, and a
// connection that breaks is noticed.
func TestFiveOnLoopback(t *testing.T) {
	first := onLoopback(t, "n1", nil, nil).admitted(10 * time.Second)
	all := []*member{first}
	for n := 2; n <= 4; n++ {
		all = append(all, onLoopback(t, fmt.Sprintf("n%d", n), joins(first.ListenAddr()), nil))
	}
	allKnowAll(t, 10*time.Second, all...)
	began := time.Now()
	last := onLoopback(t, "n5", joins(all[2].ListenAddr()), nil)
	all = append(all, last)
	eventually(t, 10*time.Second, "all know the last one", func() bool {
		for _, m := range all {
			if !knows(m, last.self) || !knows(last, m.self) {
				return false
			}
		}
		return true
	})
	t.Log("all five know five after", time.Since(began))
	allKnowAll(t, 10*time.Second, all...)
	// What kill -9 does: the kernel closes the sockets, nothing is said.
	last.mu.Lock()
	last.closing = true
	last.mu.Unlock()
	began = time.Now()
	last.stack.swarm.Close()
	eventually(t, 5*time.Second, "its neighbours notice", func() bool {
		return !slices.ContainsFunc(all[:4], func(m *member) bool { return m.linked(last) })
	})
	t.Log("noticed after", time.Since(began))
	eventually(t, 5*time.Second, "all know that nobody has a link with it", func() bool {
		return !slices.ContainsFunc(all[:4], func(m *member) bool { return len(m.View().Table.Neighbours(last.self)) > 0 })
	})
	t.Log("known to all after", time.Since(began))
}

// A link that the other side gives up is no sign of trouble, and is told from the
// end of its life.
func TestGivenUpLinkIsNoGoodBye(t *testing.T) {
	causes := make(chan LinkEvent, 16)
	a := onLoopback(t, "a", nil, func(o *Overlay) { o.OnLink(func(e LinkEvent) { causes <- e }) }).admitted(10 * time.Second)
	b := onLoopback(t, "b", joins(a.ListenAddr()), nil)
	if e := <-causes; !e.Up {
		t.Fatalf("%+v", e)
	}
	eventually(t, 5*time.Second, "b has it too", func() bool { return b.linked(a) })
	b.mu.Lock()
	l := b.linkOfLocked(a.self)
	b.mu.Unlock()
	b.closeLink(l, "test")
	if e := <-causes; e.Up || e.Cause != CauseClosed || e.Peer != b.self {
		t.Errorf("%+v", e)
	}
}

// A routed call never passes a node twice, whatever its trail claims.
func TestRoutedCallsDoNotCircle(t *testing.T) {
	a := onLoopback(t, "a", nil, nil).admitted(10 * time.Second)
	origin := newCaller(t).id
	m := &overlaypb.Routed{Origin: []byte(origin), Destination: []byte(a.self), Kind: kindPing, Trail: [][]byte{[]byte(origin), []byte(a.self)}}
	if _, err := a.takeRouted(t.Context(), origin, encode(m)); err == nil || a.Counters()[ReasonLoop] != 1 {
		t.Errorf("err %v, %v", err, a.Counters())
	}
	m.Trail = m.Trail[:1]
	raw, err := a.takeRouted(t.Context(), origin, encode(m))
	if err != nil {
		t.Fatal(err)
	}
	var reply overlaypb.RoutedReply
	if err := decode(raw, &reply); err != nil || reply.Error != ReasonStranger {
		t.Errorf("a stranger's call was answered: %v, %v", &reply, err)
	}
	for range maxTrail {
		m.Trail = append(m.Trail, []byte("x"))
	}
	if _, err := a.takeRouted(t.Context(), origin, encode(m)); err == nil {
		t.Error("a trail without end was taken")
	}
}

// What a link never carried comes by anti-entropy.
func TestRecordsThatWereMissedCome(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(41, time.Millisecond, 0)
		a := inMemory(t, net, 1, nil).admitted(time.Second)
		b := inMemory(t, net, 2, joins("10.0.0.1"))
		allKnowAll(t, 10*time.Second, a, b)
		time.Sleep(time.Minute)
		a.mu.Lock()
		a.records.Unlink(b.self)
		_, err := a.records.Publish(time.Now(), domainToken, "missed", nil, 0)
		a.records.Link(b.self)
		a.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, 3*entropyEvery, "b has it", func() bool { return len(b.Records(domainToken)) == 1 })
	})
}
