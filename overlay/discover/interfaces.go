package discover

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"p2pnode"
)

// Interface is one of this host's network interfaces.
type Interface struct {
	Name     string
	Up       bool
	Loopback bool
	Addrs    []netip.Prefix // own addresses with the length of their subnet
}

// Interfaces lists this host's.
func Interfaces() ([]Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("cannot list network interfaces: %w", err)
	}
	out := make([]Interface, 0, len(all))
	for _, i := range all {
		addrs, err := i.Addrs()
		if err != nil {
			continue // it went away in between
		}
		own := Interface{Name: i.Name, Up: i.Flags&net.FlagUp != 0, Loopback: i.Flags&net.FlagLoopback != 0}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				own.Addrs = append(own.Addrs, unmap(p))
			}
		}
		out = append(out, own)
	}
	return out, nil
}

func unmap(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() {
		return netip.PrefixFrom(p.Addr().Unmap(), max(0, p.Bits()-96))
	}
	return p
}

// DirectPrivate reports whether addr is on this host, or in a private subnet that
// one of its interfaces is in.
func DirectPrivate(ifs []Interface, addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	if addr.IsLoopback() {
		return true
	}
	if !addr.IsPrivate() && !addr.IsLinkLocalUnicast() {
		return false
	}
	for _, i := range ifs {
		for _, p := range i.Addrs {
			if i.Up && p.Contains(addr) {
				return true
			}
		}
	}
	return false
}

// bridges are names of interfaces whose addresses mean something on this host
// only: many hosts have the same ones.
var bridges = []string{"docker", "br-", "virbr", "lxcbr", "lxdbr", "incusbr", "podman", "cni", "flannel", "cali", "cilium", "kube", "vmnet", "vboxnet"}

// Advertisable is what to tell others of where this node listens: what the
// operator named, else the address that it listens on, else those of all
// interfaces but loopback, link-local and the bridges of containers and virtual
// machines.
func Advertisable(ifs []Interface, listen netip.AddrPort, advertise []string) ([]string, error) {
	if len(advertise) > 0 {
		return named(advertise, listen.Port())
	}
	port := listen.Port()
	if !listen.Addr().IsUnspecified() {
		return []string{netip.AddrPortFrom(listen.Addr().Unmap(), port).String()}, nil
	}
	var out []string
	for _, i := range ifs {
		if !i.Up || i.Loopback || slices.ContainsFunc(bridges, func(b string) bool { return strings.HasPrefix(i.Name, b) }) {
			continue
		}
		for _, p := range i.Addrs {
			if a := p.Addr(); a.IsGlobalUnicast() && (a.Is4() || !listen.Addr().Is4()) && len(out) < maxAddrs {
				out = append(out, netip.AddrPortFrom(a, port).String())
			}
		}
	}
	return out, nil
}

// named checks what the operator wants to be told; a port that is left out is the
// one that this node listens on.
func named(advertise []string, port uint16) ([]string, error) {
	var out []string
	for _, s := range advertise {
		h, err := ParseJoin(s)
		if err != nil {
			return nil, &p2pnode.Error{
				Code: "bad-advertise", Exit: p2pnode.ExitUsage,
				Text: fmt.Sprintf("cannot advertise %.80q: it is no address", s), Fix: "give --advertise HOST:PORT as others reach it",
			}
		}
		if !hasPort(s) {
			h.Port = port
		}
		out = append(out, net.JoinHostPort(h.Host, strconv.Itoa(int(h.Port))))
	}
	return out, nil
}

func hasPort(s string) bool {
	if strings.HasPrefix(s, "/") {
		return true
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return false
	}
	_, _, err := net.SplitHostPort(s)
	return err == nil
}

// Subnet is the network that an address is taken to be in: /24 of IPv4, /64 of
// IPv6.
func Subnet(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := 64
	if addr.Is4() {
		bits = 24
	}
	p, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}
