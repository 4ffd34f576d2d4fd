package overlay

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/overlay/overlaypb"
	"p2pnode/test/bubble"
	"p2pnode/test/memnet"
)

// What never becomes a connection is counted as well as closed, on a member and on
// a node that still looks for one.
func TestFailedHandshakesAreCounted(t *testing.T) {
	nobody, err := net.Listen("tcp", "127.0.0.1:0") // accepts and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer nobody.Close()
	for name, m := range map[string]*member{
		"member": onLoopback(t, "a", nil, nil).admitted(10 * time.Second),
		"joiner": onLoopback(t, "b", joins(nobody.Addr().String()), nil),
	} {
		for range 5 {
			conn, err := net.Dial("tcp", m.ListenAddr())
			if err != nil {
				t.Fatal(err)
			}
			conn.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
			defer conn.Close()
		}
		eventually(t, helloTime+5*time.Second, name+" has counted them", func() bool { return m.Counters()[ReasonHandshake] == 5 })
	}
	// A handshake that is done is none that failed.
	a := onLoopback(t, "c", nil, nil).admitted(10 * time.Second)
	b := onLoopback(t, "d", joins(a.ListenAddr()), nil)
	allKnowAll(t, 10*time.Second, a, b)
	if n := a.Counters()[ReasonHandshake] + b.Counters()[ReasonHandshake]; n != 0 {
		t.Errorf("%d honest handshakes are counted as failed", n)
	}
}

// A connection that shows no certificate does not stay, whatever it carries.
func TestStrangersDoNotStay(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(43, time.Millisecond, 0)
		inside := inMemory(t, net, 1, nil).admitted(time.Second)
		joiner := inMemory(t, net, 2, joins("10.0.0.99")) // nobody is there
		stranger := inMemory(t, net, 3, joins("10.0.0.98"))
		time.Sleep(time.Second)
		for _, to := range []*caller{{id: inside.self}, {id: joiner.self}} {
			addr := map[peer.ID]string{inside.self: "10.0.0.1:7744", joiner.self: "10.0.0.2:7744"}[to.id]
			c, err := stranger.dial(t.Context(), to.id, []string{addr})
			if err != nil {
				t.Fatal(err)
			}
			// It opens one stream after the other and says nothing on them.
			go func() {
				for range 2 * strangerTime / time.Second {
					if s, err := c.conn.NewStream(context.Background()); err == nil {
						defer s.Reset()
					}
					time.Sleep(time.Second)
				}
			}()
		}
		conns := func(m *member) int {
			m.mu.Lock()
			defer m.mu.Unlock()
			return len(m.conns)
		}
		eventually(t, strangerTime+3*time.Second, "both have let go of it", func() bool { return conns(inside) == 0 && conns(joiner) == 0 })
		if inside.Counters()[ReasonNoHello] == 0 || joiner.Counters()[ReasonNoHello] == 0 {
			t.Errorf("not counted: %v, %v", inside.Counters(), joiner.Counters())
		}
		time.Sleep(2 * strangerTime)
	})
}

// Hellos without end cost a stranger its connection, links without end a member
// the ones that are too many.
func TestHellosAndLinksAreBounded(t *testing.T) {
	a := onLoopback(t, "a", nil, nil).admitted(10 * time.Second)
	c := newCaller(t)
	conn := c.connect(a)
	for i := range maxHellos {
		if got := c.hello(conn, &overlaypb.Hello{Name: "c", Boot: 1}); got.Refused == "" {
			t.Fatalf("hello %d without a certificate is welcome", i)
		}
	}
	if s, err := c.open(conn, protoHello); err == nil {
		s.Read(make([]byte, 1))
	}
	eventually(t, 5*time.Second, "the connection is closed", conn.IsClosed)

	conn = c.connect(a)
	h := &overlaypb.Hello{Name: "c", Boot: 1, Nonce: 1, Link: true, Chain: chainFor(t, a, c.key, p2pnode.RoleWorker)}
	for range 3 * maxHellos { // a member may: each new wish for a link says hello
		if got := c.hello(conn, h); got.Refused != "" {
			t.Fatal(got.Refused)
		}
	}
	for range 3 * maxLinksPerPeer {
		c.open(conn, protoLink) // the reset of a refused one may come before its protocol's name
	}
	eventually(t, 5*time.Second, "the rest is refused", func() bool { return a.Counters()[ReasonLinks] == 2*maxLinksPerPeer })
	a.mu.Lock()
	n := a.linksOfLocked(c.id)
	a.mu.Unlock()
	if n > maxLinksPerPeer {
		t.Errorf("%d links of one peer", n)
	}
	streams := 0
	for range 2 * maxStreamsPerCon {
		if s, err := conn.NewStream(t.Context()); err == nil {
			defer s.Reset()
			streams++
		}
	}
	eventually(t, 10*time.Second, "streams are refused", func() bool { return a.Counters()[ReasonStreams] > 0 })
}

// What others say of themselves ends up on terminals.
func TestNamesAndTextsAreTame(t *testing.T) {
	a := onLoopback(t, "a", nil, nil).admitted(10 * time.Second)
	for _, name := range []string{"", "a b", "a/b", "x~abcd", "\x1b[2J", strings.Repeat("x", 64), "caf\u00e9"} {
		c := newCaller(t)
		h := &overlaypb.Hello{Name: name, Boot: 1, Nonce: 1, Chain: chainFor(t, a, c.key, p2pnode.RoleWorker)}
		if got := c.hello(c.connect(a), h); got.Refused != ReasonFrame {
			t.Errorf("%q: %q", name, got.Refused)
		}
	}
	if _, err := New(Config{Dir: t.TempDir(), Name: "a b", Listen: "127.0.0.1:0", Network: hostNetwork{}}); p2pnode.ExitCode(err) != p2pnode.ExitUsage {
		t.Errorf("a node is called \"a b\": %v", err)
	}
	for _, m := range []*overlaypb.PeerRecord{
		{Labels: map[string]string{"a": "\x1b]0;x\a"}},
		{Labels: map[string]string{"a\n": "b"}},
		{Addrs: []string{"x\r"}},
		{Door: strings.Repeat("x", maxText+1)},
		{Version: "\x00"},
	} {
		if printable(m) {
			t.Errorf("%v is printed", m)
		}
	}
	r := refusal(&overlaypb.HelloAnswer{Refused: "\x1b[31mroot", Text: "run\n\x1b[2Jrm -rf " + strings.Repeat("y", 9999)})
	if strings.ContainsAny(r.Error(), "\n\x1b") || len(r.Error()) > 2*maxText {
		t.Errorf("shown: %q", r.Error())
	}
}

// Callers that hang up at once take nothing with them: what was reserved for them
// is there for others again.
func TestQuickCallersLeakNothing(t *testing.T) {
	a := onLoopback(t, "a", nil, nil).admitted(10 * time.Second)
	c := newCaller(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				c.stack.who(ctx, a.ListenAddr())
				cancel()
			}
		})
	}
	wg.Wait()
	held := func() (n int) {
		a.stack.limits.ViewSystem(func(s network.ResourceScope) error {
			n = s.Stat().NumConnsInbound
			return nil
		})
		return n
	}
	eventually(t, 5*time.Second, "nothing is reserved any more", func() bool { return held() == 0 })
	if got := c.hello(c.connect(a), &overlaypb.Hello{Name: "c", Boot: 1, Chain: chainFor(t, a, c.key, p2pnode.RoleWorker)}); got.Refused != "" {
		t.Error(got.Refused)
	}
}

// Run's end is the end of all that it started, with strangers and members in the
// middle of things.
func TestNothingIsLeft(t *testing.T) {
	fds := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	before := fds()
	for round := range 3 {
		a := onLoopback(t, "a", nil, func(o *Overlay) {
			o.HandleBulk("slow", func(ctx context.Context, _ peer.ID, _ []byte) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() })
		}).admitted(10 * time.Second)
		b := onLoopback(t, "b", joins(a.ListenAddr()), nil)
		c := onLoopback(t, "c", joins(b.ListenAddr()), nil)
		allKnowAll(t, 10*time.Second, a, b, c)
		for range 4 {
			go b.Bulk(context.Background(), a.self, "slow", nil)
			if conn, err := net.Dial("tcp", a.ListenAddr()); err == nil {
				defer conn.Close()
			}
		}
		for i, m := range []*member{a, b, c} {
			began := time.Now()
			if err := m.stop(); err != nil || time.Since(began) > 3*time.Second {
				t.Errorf("round %d, node %d: %v after %v", round, i, err, time.Since(began))
			}
		}
	}
	t.Cleanup(func() {}) // connections above close first
	if n := fds(); n > before+3*4+2 {
		t.Errorf("%d descriptors before, %d after", before, n)
	}
}

func tokenFile(t *testing.T, token string) string {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, fmt.Appendln(nil, token), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
