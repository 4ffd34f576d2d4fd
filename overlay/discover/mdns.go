package discover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/zeroconf/v2"
	"github.com/rs/zerolog"
)

// MDNSConfig is what to announce and look for on the local network.
type MDNSConfig struct {
	// Service is a DNS-SD service type such as "_p2pnode._tcp". Nodes that use
	// different ones do not see each other.
	Service string
	// ID and Port are announced.
	ID   peer.ID
	Port uint16
	// Alone says whether this node is linked with nobody: then it searches without a
	// pause. Nil: always.
	Alone func() bool
	// Found is told of others, from one goroutine, once per address and round; it
	// must not block.
	Found func(Hint)
	Log   zerolog.Logger
}

const (
	mdnsDomain = "local"
	idText     = "id="
)

// StartMDNS announces this node and tells of others until ctx ends; then it
// returns nil. An error means that multicast is not to be had here (no interface
// but loopback, for instance), which keeps nobody from working by --join.
func StartMDNS(ctx context.Context, cfg MDNSConfig) error {
	ifs, err := Interfaces()
	if err != nil {
		return err
	}
	use, ips := multicast(ifs)
	if len(use) == 0 {
		return errors.New("no interface for multicast but loopback")
	}
	name := cfg.ID.String()
	server, err := zeroconf.RegisterProxy(name[max(0, len(name)-16):], cfg.Service, mdnsDomain, int(cfg.Port),
		name[max(0, len(name)-16):], ips, []string{idText + name}, use, zeroconf.TTL(announceTTL))
	if err != nil {
		return fmt.Errorf("cannot announce by multicast: %w", err)
	}
	defer server.Shutdown()
	for ctx.Err() == nil {
		if err := browse(ctx, cfg, use); err != nil && ctx.Err() == nil {
			cfg.Log.Debug().Err(err).Msg("multicast search failed")
			wait(ctx, browseFor)
		}
		// Each question is asked on each interface and answered by every host there. Who
		// comes new asks for himself: those who have links need not.
		for rested := time.Duration(0); rested < restFor && ctx.Err() == nil && cfg.Alone != nil && !cfg.Alone(); rested += browseFor {
			wait(ctx, browseFor)
		}
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// multicast picks the interfaces to speak on and the addresses to announce.
func multicast(ifs []Interface) (use []net.Interface, ips []string) {
	for _, i := range ifs {
		if !i.Up || i.Loopback {
			continue
		}
		real, err := net.InterfaceByName(i.Name)
		if err != nil || real.Flags&net.FlagMulticast == 0 {
			continue
		}
		own, _ := Advertisable([]Interface{i}, netip.AddrPortFrom(netip.IPv6Unspecified(), 1), nil)
		for _, a := range own {
			if ap, err := netip.ParseAddrPort(a); err == nil {
				ips = append(ips, ap.Addr().String())
			}
		}
		if len(own) > 0 {
			use = append(use, *real)
		}
	}
	return use, ips
}

// browse is one round of listening.
func browse(ctx context.Context, cfg MDNSConfig, use []net.Interface) error {
	ctx, cancel := context.WithTimeout(ctx, browseFor)
	defer cancel()
	// Listening for both families fails as a whole where a host has only one.
	err := listen(ctx, cfg, use, zeroconf.IPv4)
	if err != nil && ctx.Err() == nil {
		err = listen(ctx, cfg, use, zeroconf.IPv6)
	}
	return err
}

// listen tells of others until ctx ends.
func listen(ctx context.Context, cfg MDNSConfig, use []net.Interface, family zeroconf.IPType) error {
	entries := make(chan *zeroconf.ServiceEntry, maxFound)
	failed := make(chan struct{})
	var told sync.WaitGroup
	told.Go(func() { tell(cfg, entries, failed) })
	err := zeroconf.Browse(ctx, cfg.Service, mdnsDomain, entries, zeroconf.SelectIfaces(use), zeroconf.SelectIPTraffic(family))
	close(failed) // Browse closes entries, but not where it could not begin
	told.Wait()
	return err
}

func tell(cfg MDNSConfig, entries <-chan *zeroconf.ServiceEntry, failed <-chan struct{}) {
	n := 0
	for {
		select {
		case e, ok := <-entries:
			if !ok {
				return
			}
			for _, h := range hints(e, cfg.ID) {
				if n++; n <= maxFound {
					cfg.Found(h)
				}
			}
		case <-failed:
			return
		}
	}
}

// hints are the places that an announcement names; none for our own.
func hints(e *zeroconf.ServiceEntry, self peer.ID) (out []Hint) {
	var id peer.ID
	for _, t := range e.Text {
		if text, ok := strings.CutPrefix(t, idText); ok {
			id, _ = peer.Decode(text)
		}
	}
	if id == "" || id == self || e.Port <= 0 || e.Port > 65535 {
		return nil
	}
	for _, ip := range append(e.AddrIPv4[:len(e.AddrIPv4):len(e.AddrIPv4)], e.AddrIPv6...) {
		a, ok := netip.AddrFromSlice(ip)
		if a = a.Unmap(); ok && a.IsGlobalUnicast() && len(out) < maxAddrs {
			out = append(out, Hint{Text: "mdns", Host: a.String(), Port: uint16(e.Port), ID: id, family: "ip"})
		}
	}
	return out
}
