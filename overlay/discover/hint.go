package discover

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
)

// Hint is a place where a member may listen.
type Hint struct {
	Text string // as it was given
	Host string // an IP address or a name
	Port uint16
	ID   peer.ID // "" if nobody in particular is meant

	family string // "ip", "ip4" or "ip6": which answers for a name are wanted
}

// Resolver is what *net.Resolver offers.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// ParseJoin reads what stands behind --join: host, host:port, an IPv6 address
// with or without brackets, or a multiaddr of the kinds /ip4, /ip6, /dns, /dns4,
// /dns6 with /tcp, with or without /p2p.
func ParseJoin(s string) (Hint, error) {
	h, why := parse(strings.TrimSpace(s))
	if why != "" {
		return Hint{}, &p2pnode.Error{
			Code: "bad-join", Exit: p2pnode.ExitUsage,
			Text: fmt.Sprintf("cannot read the address %.80q: %s", s, why),
			Fix:  "give HOST, HOST:PORT, [IPV6]:PORT or a multiaddr such as /ip4/10.0.0.7/tcp/7744",
		}
	}
	return h, nil
}

func parse(s string) (Hint, string) {
	switch {
	case s == "":
		return Hint{}, "it is empty"
	case len(s) > maxHint:
		return Hint{}, "it is too long"
	case s[0] == '/':
		return parseMultiaddr(s)
	}
	h := Hint{Text: s, Host: s, Port: DefaultPort, family: "ip"}
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		h.Host = s[1 : len(s)-1]
	} else if _, err := netip.ParseAddr(s); err != nil && strings.Contains(s, ":") {
		host, port, err := net.SplitHostPort(s)
		if err != nil {
			return Hint{}, "the port cannot be told from the host"
		}
		h.Host = host
		var ok bool
		if h.Port, ok = parsePort(port); !ok {
			return Hint{}, "the port should be a number from 1 to 65535"
		}
	}
	return h, badHost(h.Host)
}

// parseMultiaddr reads the few kinds of multiaddr that lead to a TCP port.
func parseMultiaddr(s string) (Hint, string) {
	parts := strings.Split(strings.TrimSuffix(s, "/"), "/")[1:]
	if len(parts) != 4 && len(parts) != 6 || parts[2] != "tcp" {
		return Hint{}, "only /ip4, /ip6, /dns, /dns4 or /dns6 with /tcp and perhaps /p2p are understood"
	}
	h := Hint{Text: s, Host: parts[1]}
	ip, err := netip.ParseAddr(h.Host)
	switch parts[0] {
	case "ip4":
		if err != nil || !ip.Is4() {
			return Hint{}, "no IPv4 address stands behind /ip4"
		}
	case "ip6":
		if err != nil || !ip.Is6() {
			return Hint{}, "no IPv6 address stands behind /ip6"
		}
	case "dns", "dns4", "dns6":
	default:
		return Hint{}, fmt.Sprintf("/%.20s is not understood", parts[0])
	}
	h.family = "ip" + strings.TrimLeft(parts[0], "dnsip")
	var ok bool
	if h.Port, ok = parsePort(parts[3]); !ok {
		return Hint{}, "the port should be a number from 1 to 65535"
	}
	if len(parts) == 6 {
		id, err := peer.Decode(parts[5])
		if parts[4] != "p2p" || err != nil {
			return Hint{}, "no peer ID stands behind /p2p"
		}
		h.ID = id
	}
	return h, badHost(h.Host)
}

func parsePort(s string) (uint16, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil && n > 0
}

// badHost says what is wrong with a host, as far as can be seen without asking.
func badHost(host string) string {
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.IsUnspecified() || ip.IsMulticast() {
			return "nobody in particular listens at that address"
		}
		if ip.Is6() && ip.IsLinkLocalUnicast() {
			return "fe80:: addresses mean something on one cable only: give another one of that host"
		}
		return ""
	}
	if host == "" || len(host) > 253 {
		return "the host is missing or too long"
	}
	for _, r := range host {
		ok := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.' || r == '_' || r > 127
		if !ok {
			return fmt.Sprintf("a host name holds no %q", r)
		}
	}
	return ""
}

// String is HOST:PORT.
func (h Hint) String() string { return net.JoinHostPort(h.Host, strconv.Itoa(int(h.Port))) }

// Resolve is where the hint leads now: the address itself, or all that DNS has
// for the name.
func (h Hint) Resolve(ctx context.Context, r Resolver) ([]netip.AddrPort, error) {
	if ip, err := netip.ParseAddr(h.Host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(ip.Unmap(), h.Port)}, nil
	}
	family := h.family
	if family == "" {
		family = "ip"
	}
	ips, err := r.LookupNetIP(ctx, family, h.Host)
	if err != nil {
		return nil, fmt.Errorf("cannot resolve %s: %w", h.Host, err)
	}
	out := make([]netip.AddrPort, 0, len(ips))
	for _, ip := range ips[:min(len(ips), maxAnswers)] {
		out = append(out, netip.AddrPortFrom(ip.Unmap(), h.Port))
	}
	return out, nil
}
