package overlay

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	mss "github.com/multiformats/go-multistream"
	"github.com/prometheus/client_golang/prometheus"

	"p2pnode"
	"p2pnode/overlay/overlaypb"
	"p2pnode/overlay/papers"
)

// caller is a libp2p peer with a key of its own and no manners.
type caller struct {
	t     testing.TB
	key   ed25519.PrivateKey
	id    peer.ID
	stack *stack
}

func newCaller(t testing.TB) *caller {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return callerWith(t, key)
}

func callerWith(t testing.TB, key ed25519.PrivateKey) *caller {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, err := compose(key, hostNetwork{}, l, func() {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.close(); l.Close() })
	return &caller{t: t, key: key, id: p2pnode.PeerID(key.Public().(ed25519.PublicKey)), stack: s}
}

func (c *caller) connect(to *member) network.Conn {
	c.t.Helper()
	c.stack.swarm.Peerstore().AddAddrs(to.self, []ma.Multiaddr{multiaddr(to.ListenAddr())}, peerstore.TempAddrTTL)
	conn, err := c.stack.swarm.DialPeer(network.WithForceDirectDial(c.t.Context(), "test"), to.self)
	if err != nil {
		c.t.Fatal(err)
	}
	return conn
}

// open asks for a protocol on a new stream; the error comes at the latest with the
// first byte read.
func (c *caller) open(conn network.Conn, id protocol.ID) (network.Stream, error) {
	s, err := conn.NewStream(c.t.Context())
	if err != nil {
		return nil, err
	}
	s.SetDeadline(time.Now().Add(5 * time.Second))
	if err := mss.SelectProtoOrFail(id, s); err != nil {
		s.Reset()
		return nil, err
	}
	return s, nil
}

// hello says hello with a chain and gives the answer.
func (c *caller) hello(conn network.Conn, h *overlaypb.Hello) *overlaypb.HelloAnswer {
	c.t.Helper()
	s, err := c.open(conn, protoHello)
	if err != nil {
		c.t.Fatal(err)
	}
	defer s.Close()
	var a overlaypb.HelloAnswer
	if err := writeFrame(s, h, maxHello); err != nil {
		c.t.Fatal(err)
	}
	if err := readFrame(s, &a, maxHello); err != nil {
		c.t.Fatal(err)
	}
	return &a
}

// served reports whether the other side keeps a stream of the protocol open.
func (c *caller) served(conn network.Conn, id protocol.ID) bool {
	c.t.Helper()
	s, err := c.open(conn, id)
	if err != nil {
		return false
	}
	defer s.Reset()
	s.SetReadDeadline(time.Now().Add(gateTime + time.Second))
	_, err = s.Read(make([]byte, 1))
	// A timeout means that it waits for us to speak.
	return err == nil || errors.Is(err, context.DeadlineExceeded) || isTimeout(err)
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// chainFor issues a chain to key as role, under the manager m.
func chainFor(t testing.TB, m *member, key ed25519.PrivateKey, role p2pnode.Role) [][]byte {
	t.Helper()
	p := m.papers
	pub := key.Public().(ed25519.PublicKey)
	if role != p2pnode.RoleDoor {
		chain, err := p2pnode.Issue(p.Root, p.Chain, m.key, pub, role, "caller", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return chain
	}
	chain, err := m.IssueDoor(pub)
	if err != nil {
		t.Fatal(err)
	}
	return chain
}

// The table protocol x role, cell by cell, against what the binary's host really
// registers; and no protocol beside it.
func TestProtocolTable(t *testing.T) {
	a := onLoopback(t, "a", nil, nil).admitted(10 * time.Second)
	registered := a.mux.Protocols()
	slices.Sort(registered)
	want := []protocol.ID{protoBulk, protoGossip, protoHello, protoLink}
	if !slices.Equal(registered, want) {
		t.Fatalf("registered %v, want %v", registered, want)
	}
	roles := []p2pnode.Role{"", p2pnode.RoleWorker, p2pnode.RoleManager, p2pnode.RoleDoor, "foreign"}
	open := map[protocol.ID][]p2pnode.Role{
		protoHello:  roles, // answered to all: refusals come in the answer
		protoLink:   {p2pnode.RoleWorker, p2pnode.RoleManager},
		protoBulk:   {p2pnode.RoleWorker, p2pnode.RoleManager},
		protoGossip: {p2pnode.RoleWorker, p2pnode.RoleManager},
	}
	others := []protocol.ID{"/ipfs/id/1.0.0", "/ipfs/ping/1.0.0", "/libp2p/circuit/relay/0.2.0/hop", "/meshsub/1.1.0", "/p2pnode/link/2", "/"}
	foreign := onLoopback(t, "foreign", nil, nil).admitted(10 * time.Second)
	var wg sync.WaitGroup
	for _, role := range roles {
		c := newCaller(t)
		conn := c.connect(a)
		h := &overlaypb.Hello{Name: "caller", Boot: 1, Nonce: 1, Link: true}
		switch role {
		case "":
		case "foreign":
			h.Chain = chainFor(t, foreign, c.key, p2pnode.RoleManager)
		default:
			h.Chain = chainFor(t, a, c.key, role)
		}
		welcome := c.hello(conn, h).Refused == ""
		if member := role == p2pnode.RoleWorker || role == p2pnode.RoleManager; welcome != member {
			t.Errorf("role %q: welcome %v", role, welcome)
		}
		for _, id := range append(slices.Clone(registered), others...) {
			wg.Go(func() {
				if got, want := c.served(conn, id), slices.Contains(open[id], role); got != want {
					t.Errorf("%s for %q: served %v, want %v", id, role, got, want)
				}
			})
		}
	}
	wg.Wait()
	eventually(t, 2*time.Second, "refusals are counted", func() bool {
		n := a.Counters()
		return n[ReasonGate] > 0 && n[ReasonProtocol] > 0 && n[ReasonForeign] > 0 && n[ReasonStranger] > 0
	})
}

// A stream that comes before hello waits for it.
func TestStreamsWaitForHello(t *testing.T) {
	a := onLoopback(t, "a", nil, func(o *Overlay) {
		o.HandleBulk("echo", func(_ context.Context, _ peer.ID, req []byte) ([]byte, error) { return req, nil })
	}).admitted(10 * time.Second)
	c := newCaller(t)
	conn := c.connect(a)
	s, err := c.open(conn, protoBulk)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeFrame(s, &overlaypb.BulkRequest{Kind: "echo", Body: []byte("x")}, maxBulkRequest); err != nil {
		t.Fatal(err)
	}
	if a := c.hello(conn, &overlaypb.Hello{Name: "c", Chain: chainFor(t, a, c.key, p2pnode.RoleWorker)}); a.Refused != "" {
		t.Fatal(a.Refused)
	}
	var reply overlaypb.BulkReply
	if err := readFrame(s, &reply, maxBulkAnswer); err != nil || string(reply.Body) != "x" {
		t.Fatalf("%v, %v", &reply, err)
	}
}

// Somebody else's certificate opens nothing, and neither does one of a key that
// is not the connection's.
func TestStolenCertificate(t *testing.T) {
	a := onLoopback(t, "a", nil, nil).admitted(10 * time.Second)
	c := newCaller(t)
	for _, chain := range [][][]byte{a.cert.Chain, {[]byte("rubbish")}, make([][]byte, 20)} {
		if got := c.hello(c.connect(a), &overlaypb.Hello{Name: "c", Chain: chain}); got.Refused == "" {
			t.Error("welcome with a certificate that is not the caller's")
		}
	}
}

func TestStrangersBytes(t *testing.T) {
	a := onLoopback(t, "a", nil, nil).admitted(10 * time.Second)
	b := onLoopback(t, "b", joins(a.ListenAddr()), nil).admitted(10 * time.Second)
	eventually(t, 10*time.Second, "a link", func() bool { return a.linked(b) })
	var wg sync.WaitGroup
	for name, raw := range map[string][]byte{
		"http":    []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"zeros":   make([]byte, 1<<16),
		"noise":   []byte("\x13/multistream/1.0.0\n\x07/noise\n"),
		"garbage": {0xff, 0xfe, 0xfd, 0xff, 0xff, 0xff, 0xff, 0x7f},
		"nothing": nil,
	} {
		wg.Go(func() {
			conn, err := net.Dial("tcp", a.ListenAddr())
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			conn.Write(raw)
			conn.SetReadDeadline(time.Now().Add(helloTime + 5*time.Second))
			if _, err := io.Copy(io.Discard, conn); isTimeout(err) {
				t.Errorf("%s: not closed", name)
			}
		})
	}
	wg.Wait()
	// Damaged frames on an open protocol, each refused and counted.
	c := newCaller(t)
	conn := c.connect(a)
	for _, raw := range [][]byte{{0, 0, 0, 0}, {255, 255, 255, 255}, {0, 0, 0, 2, 9, 9}, {0, 0, 0, 3, 1, 255, 255}} {
		s, err := c.open(conn, protoHello)
		if err != nil {
			t.Fatal(err)
		}
		s.Write(raw)
		if _, err := s.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Errorf("%v: answered with %v", raw, err)
		}
	}
	if n := a.Counters()[ReasonFrame]; n < 4 {
		t.Errorf("%d damaged frames counted", n)
	}
	if !a.linked(b) {
		t.Error("the link to b suffered")
	}
}

// A member that breaks the rules of a link loses it; all else goes on.
func TestMemberWithBadManners(t *testing.T) {
	release := make(chan struct{})
	a := onLoopback(t, "a", nil, func(o *Overlay) {
		o.HandleCall("slow", func(context.Context, peer.ID, []byte) ([]byte, error) { <-release; return nil, nil })
	}).admitted(10 * time.Second)
	c := newCaller(t)
	conn := c.connect(a)
	h := &overlaypb.Hello{Name: "c", Boot: 1, Nonce: 1, Link: true, Chain: chainFor(t, a, c.key, p2pnode.RoleWorker)}
	if got := c.hello(conn, h); got.Refused != "" {
		t.Fatal(got.Refused)
	}
	link := func() network.Stream {
		s, err := c.open(conn, protoLink)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := link()
	// More calls at a time than a link may have.
	for i := range maxCallsPerLink + 10 {
		if err := writeFrame(s, &overlaypb.Frame{Body: &overlaypb.Frame_Call{Call: &overlaypb.Call{Id: uint64(i), Kind: "slow"}}}, maxFrame); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, 5*time.Second, "calls are refused", func() bool { return a.Counters()[ReasonCrowded] == 10 })
	close(release)
	writeFrame(s, &overlaypb.Frame{Body: &overlaypb.Frame_Call{Call: &overlaypb.Call{Id: 999, Kind: "nobody"}}}, maxFrame)
	eventually(t, 5*time.Second, "an unknown kind is refused", func() bool { return a.Counters()[ReasonUnknownKind] == 1 })
	// A batch of records that is none.
	writeFrame(s, &overlaypb.Frame{Body: &overlaypb.Frame_Records{Records: []byte("rubbish")}}, maxFrame)
	eventually(t, 5*time.Second, "the link ends", func() bool { return len(a.View().Links) == 0 })
	// A frame of another version.
	s = link()
	eventually(t, 5*time.Second, "a new link", func() bool { return len(a.View().Links) == 1 })
	s.Write([]byte{0, 0, 0, 2, 99, 0})
	eventually(t, 5*time.Second, "it ends too", func() bool { return len(a.View().Links) == 0 })
	if a.Counters()[ReasonFrame] < 2 {
		t.Errorf("%v", a.Counters())
	}
}

func TestDeniedLinks(t *testing.T) {
	for name, deny := range map[string]func(b *member) string{
		"by name":    func(b *member) string { return "b" },
		"by id":      func(b *member) string { return b.self.String() },
		"by address": func(b *member) string { return b.ListenAddr() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			key, err := p2pnode.LoadOrCreateKey(dir + "/node.key")
			if err != nil {
				t.Fatal(err)
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			addr := l.Addr().String()
			l.Close()
			word := deny(&member{Overlay: &Overlay{self: p2pnode.PeerID(key.Public().(ed25519.PublicKey)), addr: addrPort(addr)}})
			a := onLoopback(t, "a", func(c *Config) { c.DenyLinks = []string{word} }, nil).admitted(10 * time.Second)
			m := onLoopback(t, "m", joins(a.ListenAddr()), nil).admitted(10 * time.Second)
			b := onLoopback(t, "b", func(c *Config) { c.Dir = dir; c.Listen = addr; c.Join = []string{a.ListenAddr(), m.ListenAddr()} }, nil)
			allKnowAll(t, 20*time.Second, a, m, b)
			if a.linked(b) || b.linked(a) {
				t.Fatal("a has a link that it denies")
			}
			if a.Counters()[ReasonDenied] == 0 {
				t.Error("b never tried, or its refusal is not counted")
			}
			if _, trail, err := a.Route(t.Context(), b.self, kindPing, nil); err != nil || len(trail) != 3 {
				t.Errorf("ping took %d nodes, %v", len(trail), err)
			}
		})
	}
}

// Bulk requests, gossip streams, and that connections without a link go away.
func TestStreamsBetweenMembers(t *testing.T) {
	big := bytes.Repeat([]byte{7}, maxBulkAnswer-64)
	handlers := func(o *Overlay) {
		o.HandleBulk("big", func(context.Context, peer.ID, []byte) ([]byte, error) { return big, nil })
		o.HandleBulk("too-big", func(context.Context, peer.ID, []byte) ([]byte, error) { return append(big, big...), nil })
		o.HandleBulk("fails", func(context.Context, peer.ID, []byte) ([]byte, error) { return nil, errors.New("no luck") })
		o.HandleCall("who", func(_ context.Context, from peer.ID, req []byte) ([]byte, error) {
			return append([]byte(from), req...), nil
		})
	}
	a := onLoopback(t, "a", nil, handlers).admitted(10 * time.Second)
	b := onLoopback(t, "b", joins(a.ListenAddr()), handlers)
	allKnowAll(t, 10*time.Second, a, b)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if got, err := b.Bulk(ctx, a.self, "big", []byte("x")); err != nil || !bytes.Equal(got, big) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	for kind, want := range map[string]string{"fails": "no luck", "nobody": ReasonUnknownKind, "too-big": ""} {
		if _, err := b.Bulk(ctx, a.self, kind, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", kind, err)
		}
	}
	if _, err := b.Bulk(ctx, a.self, "big", make([]byte, maxBulkRequest+1)); err == nil {
		t.Error("a request beyond the limit went out")
	}
	if got, err := b.Call(ctx, a.self, "who", []byte("?")); err != nil || string(got) != string(b.self)+"?" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := b.Call(ctx, newCaller(t).id, "who", nil); !errors.Is(err, ErrNoLink) {
		t.Errorf("a call to a stranger: %v", err)
	}
	conn, err := b.GossipDial(ctx, a.self)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write([]byte("ping"))
	in := <-a.GossipAccept()
	defer in.Close()
	buf := make([]byte, 4)
	if _, err := io.ReadFull(in, buf); err != nil || string(buf) != "ping" || in.Peer != b.self {
		t.Errorf("%q from %s, %v", buf, in.Peer, err)
	}
	if p := b.View().Peers[a.self].Proven; p.String() != a.ListenAddr() {
		t.Errorf("a proved its key at %v, it listens on %s", p, a.ListenAddr())
	}
}

func TestMetricsAreCounted(t *testing.T) {
	reg := prometheus.NewRegistry()
	a := onLoopback(t, "a", func(c *Config) { c.Metrics = reg }, nil).admitted(10 * time.Second)
	a.count(ReasonFrame)
	fams, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range fams {
		got[f.GetName()] = f.GetMetric()[0].GetCounter().GetValue() + f.GetMetric()[0].GetGauge().GetValue()
	}
	want := map[string]float64{"p2pnode_overlay_refusals_total": 1, "p2pnode_overlay_links": 0, "p2pnode_overlay_members": 1}
	if !maps.Equal(got, want) {
		t.Errorf("%v", got)
	}
}

// A worker that relays a request cannot make a manager of itself with what it saw.
func TestRelayLearnsNothing(t *testing.T) {
	a := onLoopback(t, "a", nil, nil).admitted(10 * time.Second)
	doc, err := a.CreateToken(p2pnode.RoleManager, time.Hour, 5)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := papers.ParseToken(doc.Token)
	if err != nil {
		t.Fatal(err)
	}
	joiner, relay := newCaller(t), newCaller(t)
	request, err := papers.NewRequest(joiner.key, "joiner", &tok)
	if err != nil {
		t.Fatal(err)
	}
	got := relay.hello(relay.connect(a), &overlaypb.Hello{Name: "relay", Join: request})
	if _, err := papers.Accept(t.TempDir(), relay.key, nil, got.Admission); err == nil {
		t.Error("the relay was admitted by the joiner's request")
	}
	if c, err := papers.Accept(t.TempDir(), joiner.key, &tok, got.Admission); err != nil || c == nil {
		t.Errorf("the joiner was not: %v", err)
	}
}

// A member that asks for too much at once is told so.
func TestBulkIsBoundedPerPeer(t *testing.T) {
	release := make(chan struct{})
	a := onLoopback(t, "a", nil, func(o *Overlay) {
		o.HandleBulk("slow", func(context.Context, peer.ID, []byte) ([]byte, error) { <-release; return nil, nil })
	}).admitted(10 * time.Second)
	b := onLoopback(t, "b", joins(a.ListenAddr()), nil)
	allKnowAll(t, 10*time.Second, a, b)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	errs := make(chan error, maxBulkPerPeer+3)
	for range cap(errs) {
		go func() {
			_, err := b.Bulk(ctx, a.self, "slow", nil)
			errs <- err
		}()
	}
	for range 3 {
		if err := <-errs; err == nil || err.Error() != ReasonCrowded {
			t.Errorf("one too many: %v", err)
		}
	}
	close(release)
	for range maxBulkPerPeer {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
