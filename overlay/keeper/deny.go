package keeper

import (
	"net/netip"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
)

// Deny is a deny list: names, IDs and addresses with which no link is wanted.
type Deny struct {
	words map[string]bool // names, IDs, host:port
	nets  []netip.Prefix  // addresses without a port, networks
}

// NewDeny reads entries of --deny-link: a node's name, name~abcd, its ID, an IP
// address, a network (10.1.0.0/16), or host:port.
func NewDeny(entries []string) (Deny, error) {
	d := Deny{words: map[string]bool{}}
	for _, e := range entries {
		e = strings.TrimSpace(e)
		if e == "" {
			return Deny{}, &p2pnode.Error{
				Code: "bad-deny-link", Exit: p2pnode.ExitUsage,
				Text: "a --deny-link is empty", Fix: "give a node's name, its ID or an address",
			}
		}
		if a, err := netip.ParseAddr(e); err == nil {
			d.nets = append(d.nets, netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()))
		} else if p, err := netip.ParsePrefix(e); err == nil {
			d.nets = append(d.nets, p.Masked())
		} else {
			d.words[e] = true
		}
	}
	return d, nil
}

// Empty reports whether the list denies nobody.
func (d Deny) Empty() bool { return len(d.words) == 0 && len(d.nets) == 0 }

// Match reports whether the list names the node of this ID and name (either may
// be "") or one of its addresses (host:port).
func (d Deny) Match(id peer.ID, name string, addrs ...string) bool {
	if d.Empty() {
		return false
	}
	if name != "" && d.words[name] {
		return true
	}
	if id != "" && (d.words[id.String()] || name != "" && d.words[name+"~"+tail(id)]) {
		return true
	}
	for _, a := range addrs {
		if d.words[a] || d.inNet(a) {
			return true
		}
	}
	return false
}

func (d Deny) inNet(addr string) bool {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return false
	}
	for _, n := range d.nets {
		if n.Contains(ap.Addr().Unmap().WithZone("")) {
			return true
		}
	}
	return false
}

// tail is what tells equal names apart: the last four characters of the ID.
func tail(id peer.ID) string {
	s := id.String()
	return s[max(0, len(s)-4):]
}
