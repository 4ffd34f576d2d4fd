package gossip

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/test/bubble"
	"p2pnode/test/memnet"
)

// fleet is gossips over a network in memory, linked in full, with doors that tell
// the truth.
type fleet struct {
	t     *testing.T
	net   *memnet.Net
	nodes []*fleetNode
	mu    sync.Mutex // guards what faults change: dead, gone, life, the Gossip itself
}

type fleetNode struct {
	*Gossip
	f      *fleet
	host   *memnet.Host
	id     peer.ID
	life   p2pnode.Life
	cancel context.CancelFunc
	done   chan struct{}
	dead   bool // the process
	gone   bool // the host
}

func testID(n int) peer.ID {
	seed := make([]byte, 32)
	rand.New(rand.NewSource(int64(n))).Read(seed)
	return p2pnode.PeerID(ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey))
}

func newFleet(t *testing.T, n int) *fleet {
	return newLinked(t, n, func(int, int) bool { return true })
}

// newRing links each node with two others only.
func newRing(t *testing.T, n int) *fleet {
	return newLinked(t, n, func(i, j int) bool { return (i+1)%n == j || (j+1)%n == i })
}

func newLinked(t *testing.T, n int, linked func(i, j int) bool) *fleet {
	f := &fleet{t: t, net: memnet.New(1, time.Millisecond, 0)}
	for i := range n {
		host := f.net.Host(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}))
		f.nodes = append(f.nodes, &fleetNode{f: f, host: host, id: testID(i), life: p2pnode.Life{Boot: 1, Nonce: uint64(i)}})
	}
	for _, x := range f.nodes {
		x.start()
	}
	for i, x := range f.nodes {
		x.SetPeers(f.peers())
		for j, y := range f.nodes {
			if x != y && linked(i, j) {
				x.Observe(Evidence{Kind: EvLinkUp, Peer: y.id})
			}
		}
	}
	return f
}

func (f *fleet) peers() []Peer {
	var out []Peer
	var ids []peer.ID
	for _, x := range f.nodes {
		ids = append(ids, x.id)
	}
	for i, x := range f.nodes {
		addr := netip.AddrPortFrom(x.host.Addr, 7744)
		out = append(out, Peer{
			ID: x.id, Name: fmt.Sprintf("n%d", i), Life: x.life, Addrs: []netip.AddrPort{addr}, Proven: addr,
			Door: "there", Neighbours: ids, Routed: true,
		})
	}
	return out
}

func (x *fleetNode) start() {
	packets, err := x.host.ListenPacket("udp", ":7744")
	if err != nil {
		x.f.t.Fatal(err)
	}
	g, err := New(Config{
		Self: x.id, Name: "self", Life: x.life, Key: make([]byte, 32), Packets: packets, Streams: x, Doors: x,
		Dial: x.host.Dial, Publish: x.publish,
	})
	if err != nil {
		x.f.t.Fatal(err)
	}
	x.f.mu.Lock()
	x.Gossip = g
	x.f.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	x.cancel, x.done = cancel, make(chan struct{})
	done := x.done
	go func() { defer close(done); g.Run(ctx) }()
}

// gossip is the one that runs on the node now.
func (x *fleetNode) gossip() *Gossip {
	x.f.mu.Lock()
	defer x.f.mu.Unlock()
	return x.Gossip
}

// Dial implements Streams with a pipe between the two.
func (x *fleetNode) Dial(_ context.Context, to peer.ID) (net.Conn, error) {
	y := x.f.of(to)
	if x.f.cut(x, y) {
		return nil, errors.New("no way")
	}
	mine, theirs := net.Pipe()
	y.gossip().AcceptStream(x.id, theirs)
	return mine, nil
}

// Status implements Doors.
func (x *fleetNode) Status(ctx context.Context, id peer.ID) (DoorWord, error) {
	y := x.f.of(id)
	if x.f.cut(x, y) {
		<-ctx.Done()
		return DoorWord{}, ctx.Err()
	}
	y.f.mu.Lock()
	defer y.f.mu.Unlock()
	return DoorWord{ExecAlive: true, NodeAlive: !y.dead, NodeState: "up", NodeLife: y.life}, nil
}

func (x *fleetNode) publish(_ string, body []byte, ttl time.Duration) error {
	for _, y := range x.f.nodes {
		if y != x && !x.f.cut(x, y) {
			y.gossip().OnRecord(p2pnode.Record{Domain: p2pnode.DomainObservation, Signer: x.id, Expires: time.Now().Add(ttl), Body: body})
		}
	}
	return nil
}

func (f *fleet) of(id peer.ID) *fleetNode {
	for _, x := range f.nodes {
		if x.id == id {
			return x
		}
	}
	return nil
}

// cut is what the streams and records of the test see of faults.
func (f *fleet) cut(x, y *fleetNode) bool {
	x.f.mu.Lock()
	defer x.f.mu.Unlock()
	return x.gone || y.gone
}

func (f *fleet) stop() {
	for _, x := range f.nodes {
		x.cancel()
		<-x.done
	}
	time.Sleep(time.Minute) // memberlist does not wait for its goroutines
	synctest.Wait()
}

func (f *fleet) must(limit time.Duration, what string, cond func() bool) time.Duration {
	f.t.Helper()
	began := time.Now()
	for !cond() {
		if time.Since(began) > limit {
			for i, x := range f.nodes {
				f.t.Logf("n%d: %+v", i, x.Beliefs().Peers)
			}
			f.t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(began)
}

// believe reports whether every other node has verdict v on x.
func (f *fleet) believe(x *fleetNode, v p2pnode.Verdict) bool {
	for _, y := range f.nodes {
		if y != x && y.Beliefs().Peers[x.id].Verdict != v {
			return false
		}
	}
	return true
}

func (f *fleet) links(x *fleetNode, k EvidenceKind, missed int, life p2pnode.Life) {
	for _, y := range f.nodes {
		if y != x {
			y.Observe(Evidence{Kind: k, Peer: x.id, Missed: missed, Life: life})
		}
	}
}

func TestProcessDiesAndComesBack(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		f := newFleet(t, 6)
		defer f.stop()
		time.Sleep(10 * time.Second)
		x := f.nodes[3]
		f.must(time.Second, "all alive", func() bool { return f.believe(x, p2pnode.Alive) })
		x.f.mu.Lock()
		x.dead = true
		x.f.mu.Unlock()
		x.host.Kill()
		x.cancel()
		<-x.done
		f.links(x, EvLinkLost, 0, x.life)
		took := f.must(100*time.Millisecond, "all call it process-dead", func() bool { return f.believe(x, p2pnode.ProcessDead) })
		t.Logf("all know after %v", took)

		x.f.mu.Lock()
		x.dead, x.life = false, p2pnode.Life{Boot: 2, Nonce: 9}
		x.f.mu.Unlock()
		x.start()
		for _, y := range f.nodes {
			y.SetPeers(f.peers())
		}
		f.links(x, EvLinkUp, 0, x.life)
		f.must(time.Second, "all call the new life alive", func() bool { return f.believe(x, p2pnode.Alive) })
		time.Sleep(20 * time.Second)
		f.must(time.Second, "and it stays so", func() bool { return f.believe(x, p2pnode.Alive) })
	})
}

func TestHostVanishes(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		f := newFleet(t, 10)
		defer f.stop()
		time.Sleep(10 * time.Second)
		x := f.nodes[4]
		x.f.mu.Lock()
		x.gone = true
		x.f.mu.Unlock()
		x.host.SetUp(false)
		for missed := 1; missed <= 2; missed++ {
			time.Sleep(time.Second)
			f.links(x, EvMissed, missed, x.life)
		}
		took := f.must(time.Second, "all call it unreachable", func() bool { return f.believe(x, p2pnode.Unreachable) })
		t.Logf("all know %v after the second silent heartbeat", took)
		if b := f.nodes[0].Beliefs().Brake; b.On {
			t.Errorf("one of ten sets the brake: %+v", b)
		}
		x.f.mu.Lock()
		x.gone = false
		x.f.mu.Unlock()
		x.host.SetUp(true)
		f.links(x, EvMissed, 0, x.life)
		f.must(time.Second, "all call it alive again", func() bool { return f.believe(x, p2pnode.Alive) })
	})
}

// A new member at the address of one that is gone, as where containers follow each
// other: its answers to probes are no sign of life of the old one.
func TestAddressOfTheGoneIsTaken(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		f := newFleet(t, 6)
		defer f.stop()
		time.Sleep(10 * time.Second)
		x := f.nodes[3]
		x.f.mu.Lock()
		x.gone = true
		x.f.mu.Unlock()
		x.host.Kill()
		x.cancel()
		<-x.done
		y := &fleetNode{f: f, host: x.host, id: testID(99), life: p2pnode.Life{Boot: 1, Nonce: 99}}
		y.start()
		port, err := y.host.Listen("tcp", ":7744")
		if err != nil {
			t.Fatal(err)
		}
		defer port.Close()
		f.nodes = append(f.nodes, y)
		for _, z := range f.nodes {
			z.SetPeers(f.peers())
		}
		f.links(x, EvLinkLost, 0, x.life)
		f.links(y, EvLinkUp, 0, y.life)
		living := append(f.nodes[:3:3], f.nodes[4:6]...)
		f.must(10*time.Second, "all say that another identity is where the old one was", func() bool {
			for _, z := range living {
				if z.Beliefs().Peers[x.id].Verdict != p2pnode.IdentityChanged || z.Beliefs().Peers[y.id].Verdict != p2pnode.Alive {
					return false
				}
			}
			return true
		})
	})
}

// forge sends packets of memberlist's under the cluster's gossip key, in the name
// of node 1, to everybody.
func (f *fleet) forge(payloads ...[]byte) {
	f.t.Helper()
	forger, err := newSealer(make([]byte, 32), f.nodes[1].id)
	if err != nil {
		f.t.Fatal(err)
	}
	sock, err := f.nodes[1].host.ListenPacket("udp", ":0")
	if err != nil {
		f.t.Fatal(err)
	}
	defer sock.Close()
	for _, p := range payloads {
		for _, y := range f.nodes {
			sock.WriteTo(forger.seal(packetSWIM, p), net.UDPAddrFromAddrPort(netip.AddrPortFrom(y.host.Addr, 7744)))
		}
	}
}

// swimKnows reports whether every memberlist has every other node.
func (f *fleet) swimKnows() bool {
	for _, x := range f.nodes {
		x.gossip().mu.Lock()
		list := x.gossip().list
		x.gossip().mu.Unlock()
		if list == nil {
			return false
		}
		known := map[string]bool{}
		for _, n := range list.Members() {
			known[tailOf(n.Name)] = true
		}
		if len(known) != len(f.nodes) {
			return false
		}
	}
	return true
}

// The fleet changes over to another key, one member after the other within two
// seconds: nobody is suspected, no packet is refused; half a minute later the old key
// opens nothing.
func TestKeyIsRotated(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		f := newRing(t, 6)
		defer f.stop()
		f.must(2*time.Minute, "memberlists complete", f.swimKnows)
		next := bytes.Repeat([]byte{7}, 32)
		for _, x := range f.nodes {
			x.SetKey(next)
			time.Sleep(400 * time.Millisecond)
		}
		calm := func(what string, d time.Duration) {
			t.Helper()
			for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
				for _, x := range f.nodes {
					if !f.believe(x, p2pnode.Alive) {
						t.Fatalf("%s: somebody is in doubt", what)
					}
				}
			}
		}
		refused := func() (n uint64) {
			for _, x := range f.nodes {
				n += x.Counters()[reasonKey]
			}
			return n
		}
		calm("while it is rotated", keyDropAfter-5*time.Second)
		f.forge([]byte("noise"))
		time.Sleep(100 * time.Millisecond)
		if n := refused(); n > 0 {
			t.Errorf("%d packets refused while both keys are good", n)
		}
		time.Sleep(10 * time.Second)
		f.forge([]byte("noise"))
		time.Sleep(100 * time.Millisecond)
		if n := refused(); n != uint64(len(f.nodes)) {
			t.Errorf("%d of %d packets under the old key were refused", n, len(f.nodes))
		}
		calm("afterwards", 20*time.Second)
		for _, x := range f.nodes {
			x.SetKey(next) // said again, it changes nothing
		}
		time.Sleep(time.Second)
		if n := f.nodes[0].Counters()["keys-rotated"]; n != 1 {
			t.Errorf("rotated %d times", n)
		}
	})
}

// Whoever holds the gossip key says that everybody is dead, in the highest
// incarnation or in a small one: no belief changes, not for a moment, also about
// nodes without a link; everybody raises the alarm; memberlist gets well again.
func TestForgedDeathsChangeNoBelief(t *testing.T) {
	for name, incarnation := range map[string]uint32{"highest": 0xFFFFFFFF, "one below": 0xFFFFFFFE, "small": 5} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				f := newRing(t, 6)
				defer f.stop()
				f.must(2*time.Minute, "memberlists complete", f.swimKnows)
				time.Sleep(10 * time.Second)
				var dead [][]byte
				for _, x := range f.nodes {
					dead = append(dead, forgedDeath(swimName(x.id, x.life, 0), incarnation))
					dead = append(dead, forgedSuspicion(swimName(x.id, x.life, 0), swimName(f.nodes[2].id, f.nodes[2].life, 0), incarnation))
				}
				f.forge(dead...)
				alarmed := func() bool {
					for i, x := range f.nodes {
						c := x.Counters()
						if i == 1 { // the forger's name: its own packets are not for it
							continue
						}
						if c["swim-deaths-refuted-by-links"] == 0 && c["swim-death-forged"] == 0 {
							return false
						}
					}
					return true
				}
				began := time.Now()
				var alarm, whole time.Duration
				for time.Since(began) < time.Minute || whole == 0 && time.Since(began) < 2*time.Minute {
					time.Sleep(5 * time.Millisecond)
					if alarm == 0 && alarmed() {
						alarm = time.Since(began)
					}
					if time.Since(began) > 500*time.Millisecond && whole == 0 && f.swimKnows() {
						whole = time.Since(began)
					}
					for i, x := range f.nodes {
						for id, b := range x.Beliefs().Peers {
							if b.Verdict != p2pnode.Alive {
								doc, _ := x.Why(id)
								t.Fatalf("%v after the forgery n%d believes %s of another: %+v", time.Since(began), i, b.Verdict, doc.Evidence)
							}
						}
					}
				}
				// A small incarnation may be refuted before the forgery is there: then nobody
				// on that node was told of a death.
				if alarm == 0 && name != "small" || alarm > 5*time.Second {
					t.Errorf("alarm everywhere after %v (0: never), want 5 s", alarm)
				}
				// A refutation of memberlist's own is gossip, which now and then misses
				// somebody: an exchange of full states brings it, every 30 s one with anybody.
				const want = 100 * time.Second
				if whole == 0 || whole > want {
					t.Errorf("memberlists complete again after %v (0: never), want %v", whole, want)
				}
				t.Logf("alarm everywhere after %v, memberlists complete after %v; %d made anew on one node", alarm, whole, f.nodes[3].Counters()["swim-restarted"])
			})
		})
	}
}

// Half of the fleet cut off: the brake is on, and off again after the heal.
func TestBrakeIsALevel(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		f := newFleet(t, 6)
		defer f.stop()
		time.Sleep(10 * time.Second)
		for _, x := range f.nodes[4:] {
			x.f.mu.Lock()
			x.gone = true
			x.f.mu.Unlock()
			x.host.SetUp(false)
			f.links(x, EvMissed, 1, x.life)
			f.links(x, EvMissed, 2, x.life)
		}
		on := func(want bool) func() bool {
			return func() bool {
				for _, x := range f.nodes[:4] {
					if x.Beliefs().Brake.On != want {
						return false
					}
				}
				return true
			}
		}
		f.must(5*time.Second, "two of six gone: the brake is on", on(true))
		for _, x := range f.nodes[4:] {
			x.f.mu.Lock()
			x.gone = false
			x.f.mu.Unlock()
			x.host.SetUp(true)
			f.links(x, EvMissed, 0, x.life)
		}
		f.must(5*time.Second, "all back: the brake is off", on(false))
	})
}
