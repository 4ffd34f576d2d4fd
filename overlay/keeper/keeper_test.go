package keeper

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
)

var epoch = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// id is a well-formed peer ID that sorts by n.
func id(n int) peer.ID {
	var key [32]byte
	binary.BigEndian.PutUint32(key[:], uint32(n)+1)
	return p2pnode.PeerID(key[:])
}

func addr(n int) string { return fmt.Sprintf("10.0.%d.%d:7744", n/250, n%250+1) }

func cand(n int) Candidate { return Candidate{ID: id(n), Addrs: []string{addr(n)}, Degree: 8} }

func randOf(seed int) *rand.Rand { return rand.New(rand.NewPCG(uint64(seed), 7)) }

func core(n int, change ...func(*Config)) *Core {
	cfg := Config{Self: id(n), Rand: randOf(n)}
	for _, f := range change {
		f(&cfg)
	}
	return New(cfg)
}

func of[E Effect](effects []Effect) (out []E) {
	for _, e := range effects {
		if e, ok := e.(E); ok {
			out = append(out, e)
		}
	}
	return out
}

func many(from, to int) (out []Candidate) {
	for n := from; n < to; n++ {
		out = append(out, cand(n))
	}
	return out
}

func TestFirstDialsGoOutAtOnce(t *testing.T) {
	dials := of[Dial](core(0).Step(epoch, Known{many(1, 30)}))
	if len(dials) != maxInFlight {
		t.Fatalf("%d dials", len(dials))
	}
	seen := map[string]bool{}
	for _, d := range dials {
		if seen[d.Key] || d.Peer == id(0) || len(d.Addrs) != 1 {
			t.Fatalf("odd dial %+v", d)
		}
		seen[d.Key] = true
	}
	join := Candidate{Addrs: []string{"192.0.2.1:7744"}, Join: true}
	if d := of[Dial](core(0).Step(epoch, Known{append(many(1, 30), join)})); d[0].Key != join.Key() {
		t.Fatalf("the join address is not first: %+v", d[0])
	}
}

// With enough links nothing more is dialled, whatever came in from others.
func TestFourOwnLinks(t *testing.T) {
	c := core(0)
	for _, d := range of[Dial](c.Step(epoch, Known{many(1, 5)})) {
		c.Step(epoch, Dialled{Key: d.Key, Peer: d.Peer, OK: true})
	}
	for n := 1; n <= 4; n++ {
		if p := of[Protect](c.Step(epoch, Up{Conn: uint64(n), Peer: id(n), Outbound: true})); len(p) != 1 {
			t.Fatalf("link %d is not protected", n)
		}
	}
	if d := of[Dial](c.Step(epoch, Known{many(1, 30)})); len(d) != 0 {
		t.Fatalf("dials a fifth: %+v", d)
	}
	c.Step(epoch, Up{Conn: 9, Peer: id(9)})
	// Well before a dial would count as overdue: those that led to links are over.
	if d := of[Dial](c.Step(epoch.Add(provenAfter+time.Second), Down{Conn: 2})); len(d) != 1 {
		t.Fatalf("one own link lost, %d dials", len(d))
	}
}

func TestBackoff(t *testing.T) {
	c := core(0)
	c.Step(epoch, Up{Conn: 1, Peer: id(9), Outbound: true}) // not alone
	now, last := epoch, time.Duration(0)
	c.Step(now, Known{[]Candidate{cand(1)}})
	for i := range 14 {
		c.Step(now, Dialled{Key: cand(1).Key()})
		started := now
		for len(of[Dial](c.Step(now, Tick{}))) == 0 {
			now = now.Add(50 * time.Millisecond)
			if now.Sub(started) > time.Hour {
				t.Fatal("given up")
			}
		}
		waited := now.Sub(started)
		want := min(backoffMost, backoffFirst<<min(i, 20))
		if waited < want*3/4 || waited > want*5/4+100*time.Millisecond || waited <= last/4 {
			t.Fatalf("try %d after %v, want about %v", i, waited, want)
		}
		last = waited
	}
}

func TestAloneNeverWaitsLong(t *testing.T) {
	for name, cd := range map[string]Candidate{
		"member": cand(1), "join": {Addrs: []string{"192.0.2.1:7744"}, Join: true},
	} {
		c := core(0)
		now := epoch
		tried := now
		c.Step(now, Known{[]Candidate{cd}})
		for range 4000 {
			c.Step(now, Dialled{Key: cd.Key()})
			now = now.Add(250 * time.Millisecond)
			if len(of[Dial](c.Step(now, Tick{}))) > 0 {
				tried = now
			}
			if now.Sub(tried) > 20*time.Second {
				t.Fatalf("%s: not tried for %v", name, now.Sub(tried))
			}
		}
	}
}

func TestShortLifeIsAFailure(t *testing.T) {
	c := core(0)
	c.Step(epoch, Up{Conn: 1, Peer: id(9), Outbound: true})
	now, dials := epoch, 0
	c.Step(now, Known{[]Candidate{cand(1)}})
	for i := range 240 { // a minute of a peer that hangs up at once
		now = epoch.Add(time.Duration(i) * 250 * time.Millisecond)
		dials += len(of[Dial](c.Step(now, Dialled{Key: cand(1).Key(), Peer: id(1), OK: true})))
		dials += len(of[Dial](c.Step(now, Up{Conn: uint64(100 + i), Peer: id(1), Outbound: true})))
		dials += len(of[Dial](c.Step(now, Down{Conn: uint64(100 + i)})))
	}
	if dials > 10 {
		t.Fatalf("%d dials a minute", dials)
	}
}

func TestForgottenDialFails(t *testing.T) {
	c := core(0)
	c.Step(epoch, Known{[]Candidate{cand(1)}})
	if d := of[Dial](c.Step(epoch.Add(dialTimeout-time.Second), Tick{})); len(d) != 0 {
		t.Fatal("dialled twice")
	}
	c.Step(epoch.Add(dialTimeout), Tick{})
	if d := of[Dial](c.Step(epoch.Add(dialTimeout+time.Second), Tick{})); len(d) != 1 {
		t.Fatal("waits for ever for an answer")
	}
}

func TestSelfIsNotDialledAgain(t *testing.T) {
	c := core(0)
	hint := Candidate{Addrs: []string{"127.0.0.1:7744"}, Join: true}
	c.Step(epoch, Known{[]Candidate{hint, cand(0)}})
	c.Step(epoch, Dialled{Key: hint.Key(), Peer: id(0)})
	for i := range 100 {
		if d := of[Dial](c.Step(epoch.Add(time.Duration(i)*time.Second), Tick{})); len(d) > 0 {
			t.Fatalf("dials itself: %+v", d)
		}
	}
}

// Both ends dialled: whatever order each saw, they agree on the one that stays.
func TestDuplicates(t *testing.T) {
	for _, lowFirst := range []bool{true, false} {
		low, high := core(0), core(1)
		// Connection 1 is dialled by low, 2 by high.
		order := []uint64{1, 2}
		if !lowFirst {
			slices.Reverse(order)
		}
		for i, conn := range order {
			at := epoch.Add(time.Duration(i) * time.Millisecond)
			low.Step(at, Up{Conn: conn, Peer: id(1), Outbound: conn == 1})
			other := order[1-i]
			high.Step(at, Up{Conn: other, Peer: id(0), Outbound: other == 2})
		}
		if cl := of[Close](low.Step(epoch.Add(duplicateFor/2), Tick{})); len(cl) != 0 {
			t.Fatalf("closed too early: %+v", cl)
		}
		later := epoch.Add(duplicateFor + 10*time.Millisecond)
		if cl := of[Close](high.Step(later, Tick{})); len(cl) != 0 {
			t.Fatalf("the higher ID closes: %+v", cl)
		}
		cl := of[Close](low.Step(later, Tick{}))
		if len(cl) != 1 || cl[0].Conn != 2 || cl[0].Cause != CauseDuplicate {
			t.Fatalf("lower ID closes %+v", cl)
		}
		if cl := of[Close](low.Step(later.Add(time.Second), Tick{})); len(cl) != 0 {
			t.Fatalf("closes again: %+v", cl)
		}
	}
	// Two of the same direction: the oldest stays.
	c := core(0)
	c.Step(epoch, Up{Conn: 5, Peer: id(1)})
	c.Step(epoch.Add(time.Millisecond), Up{Conn: 4, Peer: id(1)})
	if cl := of[Close](c.Step(epoch.Add(2*duplicateFor), Tick{})); len(cl) != 1 || cl[0].Conn != 4 {
		t.Fatalf("%+v", cl)
	}
}

func TestDenied(t *testing.T) {
	deny, err := NewDeny([]string{"kestrel", addr(2)})
	if err != nil {
		t.Fatal(err)
	}
	c := core(0, func(cfg *Config) {
		cfg.Denied = func(x Candidate) bool { return deny.Match(x.ID, x.Name, x.Addrs...) }
	})
	hint := Candidate{Addrs: []string{addr(1)}, Join: true} // it is kestrel, which we learn from its hello
	dials := of[Dial](c.Step(epoch, Known{[]Candidate{hint, cand(2)}}))
	if len(dials) != 1 || dials[0].Key != hint.Key() {
		t.Fatalf("dials %+v", dials)
	}
	c.Step(epoch, Dialled{Key: hint.Key(), Peer: id(1), OK: true})
	effects := c.Step(epoch, Up{Conn: 1, Peer: id(1), Name: "kestrel", Addr: addr(1), Outbound: true})
	if cl := of[Close](effects); len(cl) != 1 || cl[0].Cause != CauseDenied || len(of[Protect](effects)) != 0 {
		t.Fatalf("%+v", effects)
	}
	c.Step(epoch, Down{Conn: 1})
	for i := range 100 {
		if d := of[Dial](c.Step(epoch.Add(time.Duration(i)*10*time.Second), Tick{})); len(d) > 0 {
			t.Fatalf("dials a denied one: %+v", d)
		}
	}
	if cl := of[Close](c.Step(epoch, Up{Conn: 2, Peer: id(2), Addr: addr(2)})); len(cl) != 1 {
		t.Fatal("a denied one may come in")
	}
}

func TestEachSubnetGetsALink(t *testing.T) {
	here, there := netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("10.9.0.0/24")
	c := core(0)
	var list []Candidate
	for n := 1; n < 12; n++ {
		cd := cand(n)
		if cd.Subnet = here; n > 9 {
			cd.Subnet = there
		}
		list = append(list, cd)
	}
	for n := 1; n <= 4; n++ {
		c.Step(epoch, Up{Conn: uint64(n), Peer: id(n), Outbound: true})
	}
	d := of[Dial](c.Step(epoch, Known{list}))
	if len(d) != 1 || d[0].Peer != id(10) && d[0].Peer != id(11) {
		t.Fatalf("dials %+v", d)
	}
	c.Step(epoch, Dialled{Key: d[0].Key}) // that one fails: the other is tried
}

func TestSubnetFallsBackToItsNextCandidate(t *testing.T) {
	there := netip.MustParsePrefix("10.9.0.0/24")
	c := core(0)
	for n := 1; n <= 4; n++ {
		c.Step(epoch, Up{Conn: uint64(n), Peer: id(n), Outbound: true})
	}
	a, b := cand(10), cand(11)
	a.Subnet, b.Subnet = there, there
	first := of[Dial](c.Step(epoch, Known{append(many(1, 5), a, b)}))
	if len(first) != 1 {
		t.Fatalf("dials %+v", first)
	}
	second := of[Dial](c.Step(epoch, Dialled{Key: first[0].Key}))
	if len(second) != 1 || second[0].Key == first[0].Key {
		t.Fatalf("after a failure dials %+v", second)
	}
	c.Step(epoch, Dialled{Key: second[0].Key, Peer: second[0].Peer, OK: true})
	c.Step(epoch, Up{Conn: 50, Peer: second[0].Peer, Outbound: true})
	if d := of[Dial](c.Step(epoch.Add(5*time.Second), Tick{})); len(d) != 0 {
		t.Fatalf("dials more than it needs: %+v", d)
	}
}

func TestLostMembersAreProbed(t *testing.T) {
	c := core(0)
	for n := 1; n <= 5; n++ {
		c.Step(epoch, Up{Conn: uint64(n), Peer: id(n), Outbound: true})
	}
	var list []Candidate
	for n := 10; n < 13; n++ {
		cd := cand(n)
		cd.Lost = true
		list = append(list, cd)
	}
	tries := map[peer.ID]int{}
	now := epoch
	c.Step(now, Known{append(list, many(20, 40)...)})
	for now.Sub(epoch) < time.Minute {
		for _, d := range of[Dial](c.Step(now, Tick{})) {
			tries[d.Peer]++
			c.Step(now, Dialled{Key: d.Key})
		}
		now = now.Add(250 * time.Millisecond)
	}
	for n := 10; n < 13; n++ { // one every 3 to 5 s, in turn
		if got := tries[id(n)]; got < 3 || got > 7 {
			t.Errorf("lost member %d tried %d times in a minute", n, got)
		}
	}
	for n := 20; n < 40; n++ {
		if tries[id(n)] > 0 {
			t.Errorf("dialled %d, which is not lost", n)
		}
	}
}

func TestShedsWhatNobodyNeeds(t *testing.T) {
	c := core(0)
	list := many(1, 31)
	for i := range 10 {
		list[i].Degree = 1 // depends on us
	}
	list[10].Subnet = netip.MustParsePrefix("10.77.0.0/24") // our only one there
	for n := 1; n <= 30; n++ {
		c.Step(epoch, Up{Conn: uint64(n), Peer: id(n)})
	}
	c.Step(epoch, Known{list})
	closed, now, last := map[peer.ID]bool{}, epoch, time.Time{}
	for now.Sub(epoch) < 2*time.Minute {
		for _, e := range of[Close](c.Step(now, Tick{})) {
			if now.Sub(epoch) < shedAfter || !last.IsZero() && now.Sub(last) < shedEvery {
				t.Fatalf("in a hurry: at %v", now.Sub(epoch))
			}
			closed[e.Peer], last = true, now
			c.Step(now, Down{Conn: e.Conn})
		}
		now = now.Add(250 * time.Millisecond)
	}
	for n := 1; n <= 11; n++ {
		if closed[id(n)] {
			t.Errorf("let go of %d, which is needed", n)
		}
	}
	if len(closed) != 30-DefaultMost {
		t.Fatalf("let go of %d", len(closed))
	}
}

// A trial that is no nearer goes again; an old link is not given up for it.
func TestTuningKeepsWhatIsAsNear(t *testing.T) {
	c := core(0)
	up := func(now time.Time, n int) {
		c.Step(now, Up{Conn: uint64(n), Peer: id(n), Outbound: true})
		c.Step(now, RTT{Peer: id(n), RTT: 10 * time.Millisecond})
	}
	for n := 1; n <= DefaultDialled; n++ {
		up(epoch, n)
	}
	c.Step(epoch, Known{many(1, 10)})
	now := epoch.Add(2 * tuneEvery)
	trial := of[Dial](c.Step(now, Tick{}))
	if len(trial) != 1 {
		t.Fatalf("dials %+v", trial)
	}
	c.Step(now, Dialled{Key: trial[0].Key, Peer: trial[0].Peer, OK: true})
	for n := range 10 {
		if id(n) == trial[0].Peer {
			up(now, n)
		}
	}
	gone := of[Close](c.Step(now.Add(provenAfter), Tick{}))
	if len(gone) != 1 || gone[0].Peer != trial[0].Peer || gone[0].Cause != CauseTuned {
		t.Fatalf("let go of %+v, tried %+v", gone, trial)
	}
}

func TestTuningFindsNearer(t *testing.T) {
	c := core(0)
	const n = 40
	rtt := func(p peer.ID) time.Duration { // the higher the nearer
		for i := range n {
			if id(i) == p {
				return time.Duration(n-i+1) * time.Millisecond
			}
		}
		return 0
	}
	list := many(1, n)
	linked := map[peer.ID]uint64{}
	now, next := epoch, uint64(0)
	sum := func() (s time.Duration) {
		for p := range linked {
			s += rtt(p)
		}
		return s
	}
	var early time.Duration
	steps := func(evs ...Event) {
		for len(evs) > 0 {
			for _, e := range c.Step(now, evs[0]) {
				switch e := e.(type) {
				case Dial:
					next++
					linked[e.Peer] = next
					evs = append(evs, Dialled{Key: e.Key, Peer: e.Peer, OK: true}, Up{Conn: next, Peer: e.Peer, Outbound: true}, RTT{Peer: e.Peer, RTT: rtt(e.Peer)})
				case Close:
					delete(linked, e.Peer)
					evs = append(evs, Down{Conn: e.Conn})
				}
			}
			evs = evs[1:]
		}
	}
	steps(Known{list})
	for now.Sub(epoch) < time.Hour {
		steps(Tick{})
		if early == 0 && now.Sub(epoch) > time.Minute/2 {
			early = sum()
			if len(linked) != DefaultDialled {
				t.Fatalf("%d links after the start", len(linked))
			}
		}
		now = now.Add(250 * time.Millisecond)
	}
	if late := sum(); late >= early || len(linked) < DefaultDialled || len(linked) > DefaultDialled+1 {
		t.Fatalf("sum of times %v, an hour later %v over %d links", early, late, len(linked))
	}
}

func TestDeny(t *testing.T) {
	d, err := NewDeny([]string{"kestrel", "wren~" + tail(id(3)), id(4).String(), "10.1.0.0/16", "192.0.2.5", "host.lan:7744"})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		id    peer.ID
		name  string
		addrs []string
		want  bool
	}{
		{id(1), "kestrel", nil, true},
		{id(1), "kestrel2", nil, false},
		{id(3), "wren", nil, true},
		{id(2), "wren", nil, false},
		{id(4), "", nil, true},
		{id(5), "x", []string{"10.1.2.3:99"}, true},
		{id(5), "x", []string{"10.2.2.3:99", "192.0.2.5:1"}, true},
		{id(5), "x", []string{"[::ffff:192.0.2.5]:1"}, true},
		{"", "", []string{"host.lan:7744"}, true},
		{"", "", []string{"host.lan:7745"}, false},
	}
	for _, tt := range tests {
		if got := d.Match(tt.id, tt.name, tt.addrs...); got != tt.want {
			t.Errorf("%s %v: %v", tt.name, tt.addrs, got)
		}
	}
	if _, err := NewDeny([]string{" "}); p2pnode.ExitCode(err) != p2pnode.ExitUsage {
		t.Errorf("an empty entry: %v", err)
	}
	if (Deny{}).Match(id(1), "x", "10.0.0.1:1") {
		t.Error("an empty list denies")
	}
}
