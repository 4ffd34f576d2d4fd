package node

import (
	"net/netip"
	"testing"

	"p2pnode/overlay"
)

func TestTheDoorOfAHostWithSeveralAddresses(t *testing.T) {
	addrs := []string{"10.0.1.2:7744", "10.0.2.2:7744", "[fd00::2]:7744"}
	for _, c := range []struct{ name, door, from, want string }{
		{"never linked", "10.0.1.2:7745", "", "10.0.1.2:7745"},
		{"linked over the named one", "10.0.1.2:7745", "10.0.1.2", "10.0.1.2:7745"},
		{"linked over another", "10.0.1.2:7745", "10.0.2.2", "10.0.2.2:7745"},
		{"linked over v6", "10.0.1.2:7745", "fd00::2", "[fd00::2]:7745"},
		{"behind a translator", "10.0.1.2:7745", "192.0.2.9", "10.0.1.2:7745"},
		{"put elsewhere by a person", "10.0.9.9:7745", "10.0.2.2", "10.0.9.9:7745"},
		{"named", "door.example:7745", "10.0.2.2", "door.example:7745"},
	} {
		p := overlay.Peer{Addrs: addrs, Door: c.door}
		if c.from != "" {
			p.From = netip.MustParseAddr(c.from)
		}
		if got := doorAt(p); got != c.want {
			t.Errorf("%s: knock at %s, want %s", c.name, got, c.want)
		}
	}
}
