package discover

import (
	"context"
	"crypto/ed25519"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/zeroconf/v2"
	"pgregory.net/rapid"

	"p2pnode"
)

func newID(t testing.TB, n byte) peer.ID {
	t.Helper()
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = n
	return p2pnode.PeerID(ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey))
}

func TestParseJoin(t *testing.T) {
	id := newID(t, 1)
	cases := []struct {
		in, host string
		port     uint16
		id       peer.ID
	}{
		{"kestrel.lan", "kestrel.lan", DefaultPort, ""},
		{" 10.0.0.7 ", "10.0.0.7", DefaultPort, ""},
		{"10.0.0.7:9000", "10.0.0.7", 9000, ""},
		{"fd00::1", "fd00::1", DefaultPort, ""},
		{"[2001:db8::1]:80", "2001:db8::1", 80, ""},
		{"[2001:db8::1]", "2001:db8::1", DefaultPort, ""},
		{"/ip4/10.0.0.7/tcp/7000", "10.0.0.7", 7000, ""},
		{"/ip6/2001:db8::1/tcp/7000/", "2001:db8::1", 7000, ""},
		{"/dns4/a.example/tcp/1/p2p/" + id.String(), "a.example", 1, id},
	}
	for _, c := range cases {
		h, err := ParseJoin(c.in)
		if err != nil || h.Host != c.host || h.Port != c.port || h.ID != c.id {
			t.Errorf("%q: %+v, %v", c.in, h, err)
		}
	}
	for _, bad := range []string{
		"", "a:b:c", "host:0", "host:65536", "host:http", ":7744", "a b", "http://x", "0.0.0.0", "[::]:1", "224.0.0.1", "fe80::1", "[fe80::1%eth0]:7744",
		"/ip4/10.0.0.7", "/ip4/::1/tcp/1", "/ip6/1.2.3.4/tcp/1", "/ip4/1.2.3.4/udp/1", "/ip4/1.2.3.4/tcp/1/p2p/x",
		"/ip4/1.2.3.4/tcp/1/onion/" + id.String(), "/unix/a/tcp/1", "/ip4/1.2.3.4/tcp/0", strings.Repeat("a", maxHint+1),
	} {
		if h, err := ParseJoin(bad); p2pnode.ExitCode(err) != p2pnode.ExitUsage {
			t.Errorf("%q: %+v, %v", bad, h, err)
		}
	}
}

// names answers lookups from a table.
type names map[string][]netip.Addr

func (n names) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	ips, ok := n[network+" "+host]
	if !ok {
		return nil, errors.New("no such host")
	}
	return ips, nil
}

func TestResolve(t *testing.T) {
	a4, a6 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::1")
	many := make([]netip.Addr, maxAnswers+5)
	for i := range many {
		many[i] = a4
	}
	dns := names{"ip both": {a4, a6}, "ip4 both": {a4}, "ip6 both": {a6}, "ip many": many, "ip mapped": {netip.MustParseAddr("::ffff:10.0.0.1")}}
	for in, want := range map[string][]string{
		"both:5":           {"10.0.0.1:5", "[2001:db8::1]:5"},
		"/dns/both/tcp/5":  {"10.0.0.1:5", "[2001:db8::1]:5"},
		"/dns4/both/tcp/5": {"10.0.0.1:5"},
		"/dns6/both/tcp/5": {"[2001:db8::1]:5"},
		"9.9.9.9:5":        {"9.9.9.9:5"},
		"mapped:5":         {"10.0.0.1:5"},
	} {
		h, err := ParseJoin(in)
		if err != nil {
			t.Fatal(err)
		}
		got, err := h.Resolve(t.Context(), dns)
		if err != nil || !slices.Equal(texts(got), want) {
			t.Errorf("%s: %v, %v", in, got, err)
		}
	}
	h, _ := ParseJoin("many")
	if got, _ := h.Resolve(t.Context(), dns); len(got) != maxAnswers {
		t.Errorf("%d addresses of one name", len(got))
	}
	h, _ = ParseJoin("nobody")
	if _, err := h.Resolve(t.Context(), dns); err == nil {
		t.Error("a name without addresses resolved")
	}
}

func texts(in []netip.AddrPort) (out []string) {
	for _, a := range in {
		out = append(out, a.String())
	}
	return out
}

func host() []Interface {
	p := netip.MustParsePrefix
	return []Interface{
		{Name: "lo", Up: true, Loopback: true, Addrs: []netip.Prefix{p("127.0.0.1/8"), p("::1/128")}},
		{Name: "eth0", Up: true, Addrs: []netip.Prefix{p("10.1.2.3/24"), p("fe80::5/64"), p("fd00::5/64")}},
		{Name: "eth1", Up: true, Addrs: []netip.Prefix{p("203.0.113.9/24")}},
		{Name: "down0", Addrs: []netip.Prefix{p("192.168.9.1/24")}},
		{Name: "docker0", Up: true, Addrs: []netip.Prefix{p("172.17.0.1/16")}},
	}
}

func TestDirectPrivate(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1": true, "::1": true, "10.1.2.200": true, "::ffff:10.1.2.200": true, "fe80::9": true, "fd00::77": true,
		"10.1.3.1":     false, // private, but behind a router
		"203.0.113.10": false, // next door, but public
		"192.168.9.2":  false, // its interface is down
		"8.8.8.8":      false,
	} {
		if got := DirectPrivate(host(), netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
	if DirectPrivate(nil, netip.Addr{}) {
		t.Error("an address that is none is near")
	}
}

func TestAdvertisable(t *testing.T) {
	cases := []struct {
		listen    string
		advertise []string
		want      []string
	}{
		{"0.0.0.0:7744", nil, []string{"10.1.2.3:7744", "203.0.113.9:7744"}},
		{"[::]:7744", nil, []string{"10.1.2.3:7744", "[fd00::5]:7744", "203.0.113.9:7744"}},
		{"127.0.0.1:7001", nil, []string{"127.0.0.1:7001"}},
		{"10.1.2.3:1", nil, []string{"10.1.2.3:1"}},
		{"0.0.0.0:7744", []string{"host.example:9000", "198.51.100.1", "2001:db8::1"}, []string{"host.example:9000", "198.51.100.1:7744", "[2001:db8::1]:7744"}},
	}
	for _, c := range cases {
		got, err := Advertisable(host(), netip.MustParseAddrPort(c.listen), c.advertise)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s %v: %v, %v", c.listen, c.advertise, got, err)
		}
	}
	if _, err := Advertisable(nil, netip.MustParseAddrPort("0.0.0.0:1"), []string{"a b"}); p2pnode.ExitCode(err) != p2pnode.ExitUsage {
		t.Errorf("err = %v", err)
	}
}

func TestSubnet(t *testing.T) {
	for in, want := range map[string]string{"10.1.2.3": "10.1.2.0/24", "::ffff:10.1.2.3": "10.1.2.0/24", "fe80::5%eth0": "fe80::/64", "fd00::5": "fd00::/64"} {
		if got := Subnet(netip.MustParseAddr(in)); got.String() != want {
			t.Errorf("%s: %s", in, got)
		}
	}
	if Subnet(netip.Addr{}).IsValid() {
		t.Error("no address has a subnet")
	}
}

func TestInterfacesOfThisHost(t *testing.T) {
	ifs, err := Interfaces()
	if err != nil || len(ifs) == 0 {
		t.Fatalf("%v, %v", ifs, err)
	}
}

func TestBookSurvivesARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "peers.json")
	b, err := OpenBook(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Save(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("an empty book was written")
	}
	now := time.Now().UTC().Round(0)
	old := Entry{ID: newID(t, 1), Name: "a", Addrs: []string{"10.0.0.1:7744"}, Seen: now}
	b.Put(old)
	b.Put(Entry{ID: newID(t, 2), Seen: now.Add(time.Hour)})
	b.Put(Entry{ID: newID(t, 3), Seen: now})
	b.Remove(newID(t, 3))
	if err := b.Save(); err != nil {
		t.Fatal(err)
	}
	again, err := OpenBook(path)
	if err != nil {
		t.Fatal(err)
	}
	got := again.Entries()
	if len(got) != 2 || got[0].ID != newID(t, 2) || got[1].Name != "a" || !slices.Equal(got[1].Addrs, old.Addrs) || !got[1].Seen.Equal(now) {
		t.Fatalf("%+v", got)
	}
	if !again.Newest().Equal(now.Add(time.Hour)) {
		t.Errorf("newest %v", again.Newest())
	}
	old.Addrs = []string{"10.0.0.9:7744"} // a change of an old entry is one, too
	again.Put(old)
	if err := again.Save(); err != nil {
		t.Fatal(err)
	}
	third, err := OpenBook(path)
	if err != nil || !slices.Equal(third.Entries()[1].Addrs, old.Addrs) {
		t.Fatalf("%+v %v", third.Entries(), err)
	}
}

func TestADamagedBookIsMovedAside(t *testing.T) {
	for _, text := range []string{"{", `[{"id":""}]`, strings.Repeat(" ", maxBook+1)} {
		path := filepath.Join(t.TempDir(), "peers.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := OpenBook(path)
		if err == nil {
			t.Errorf("%.10q was taken for a book", text)
		}
		b.Put(Entry{ID: newID(t, 1)})
		if err := b.Save(); err != nil || len(b.Entries()) != 1 {
			t.Errorf("not usable afterwards: %v", err)
		}
		if _, err := os.Stat(path + ".damaged"); err != nil {
			t.Error(err)
		}
	}
}

func TestAFullBookForgetsTheOldest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := &Book{entries: map[peer.ID]Entry{}}
		extra := rapid.IntRange(1, 20).Draw(t, "extra")
		start := time.Unix(1e9, 0)
		for i := range maxEntries + extra {
			b.Put(Entry{ID: peer.ID([]byte{1, byte(i >> 8), byte(i)}), Seen: start.Add(time.Duration(i) * time.Hour)})
		}
		got := b.Entries()
		if len(got) != maxEntries || !got[len(got)-1].Seen.Equal(start.Add(time.Duration(extra)*time.Hour)) {
			t.Fatalf("%d entries, the oldest of %v", len(got), got[len(got)-1].Seen)
		}
	})
}

func TestAnnouncementsAreRead(t *testing.T) {
	self, other := newID(t, 1), newID(t, 2)
	e := &zeroconf.ServiceEntry{
		Port: 7744, Text: []string{"x=y", "id=" + other.String()},
		AddrIPv4: []net.IP{net.IPv4(10, 0, 0, 1), net.IPv4(127, 0, 0, 1)}, AddrIPv6: []net.IP{net.ParseIP("fe80::1"), net.ParseIP("fd00::1")},
	}
	got := hints(e, self)
	if len(got) != 2 || got[0].String() != "10.0.0.1:7744" || got[1].String() != "[fd00::1]:7744" || got[0].ID != other {
		t.Fatalf("%+v", got)
	}
	if len(hints(e, other)) != 0 {
		t.Error("a node found itself")
	}
	for _, spoil := range []func(*zeroconf.ServiceEntry){
		func(e *zeroconf.ServiceEntry) { e.Port = 0 },
		func(e *zeroconf.ServiceEntry) { e.Port = 1 << 16 },
		func(e *zeroconf.ServiceEntry) { e.Text = nil },
		func(e *zeroconf.ServiceEntry) { e.Text = []string{"id=rubbish"} },
	} {
		bad := *e
		spoil(&bad)
		if len(hints(&bad, self)) != 0 {
			t.Errorf("%+v was taken", bad)
		}
	}
}

// Whether multicast works here or not, the search ends with its context.
func TestMulticastEnds(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- StartMDNS(ctx, MDNSConfig{Service: "_p2pnode-test._tcp", ID: newID(t, 1), Port: 7744, Found: func(Hint) {}})
	}()
	select {
	case err := <-done:
		t.Log("ended with:", err)
	case <-time.After(10 * time.Second):
		t.Fatal("the search goes on without its context")
	}
}

func FuzzParseJoin(f *testing.F) {
	for _, s := range []string{"a", "a:1", "[::1]:2", "/ip4/1.2.3.4/tcp/5", "/dns/x/tcp/1/p2p/12D3KooW"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := ParseJoin(s)
		if err != nil {
			return
		}
		if h.Port == 0 || h.Host == "" {
			t.Fatalf("%q: %+v", s, h)
		}
		again, err := ParseJoin(h.String())
		if err != nil || again.Host != h.Host || again.Port != h.Port {
			t.Fatalf("%q became %q became %+v, %v", s, h, again, err)
		}
	})
}

func FuzzOpenBook(f *testing.F) {
	f.Add([]byte(`[{"id":"12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp","addrs":["a:1"],"seen":"2026-11-23T00:00:00Z"}]`))
	f.Add([]byte("[]"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		path := filepath.Join(t.TempDir(), "peers.json")
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		b, _ := OpenBook(path)
		b.Put(Entry{ID: newID(t, 1)})
		if err := b.Save(); err != nil {
			t.Fatal(err)
		}
	})
}
