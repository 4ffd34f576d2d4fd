// Package netlab runs real p2pnode hosts in network namespaces of their own,
// wired by virtual cables that a test can cut.
//
// Each wire is a subnet of its own (10.77.N.0/24, or fd77:N::/64) and no host forwards packets:
// hosts without a wire between them cannot reach each other whatever they try.
// All namespaces carry the test's pid in their name and are removed at its end; what
// a killed test left is removed by the next one.
//
// Read next: chain_test.go.
package netlab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"p2pnode/test/host"
	"p2pnode/test/need"
)

// Lab is the hosts and wires of one test.
type Lab struct {
	*host.Fleet
	t     testing.TB
	IPv6  bool // wires carry that and nothing else
	wires int
	addrs map[string][]string // host name -> its addresses, one a wire
	ends  map[[2]string]string
}

// New prepares a lab; it wants root and iproute2, nftables, nsenter.
func New(t testing.TB, binary string) *Lab {
	t.Helper()
	need.Root(t, "network namespaces")
	need.Program(t, "ip", "iproute2")
	need.Program(t, "nft", "nftables")
	need.Program(t, "nsenter", "util-linux")
	sweep(t)
	return &Lab{Fleet: host.NewFleet(t, binary), t: t, addrs: map[string][]string{}, ends: map[[2]string]string{}}
}

// Host makes a namespace and a host in it that is not started yet.
func (l *Lab) Host(name string) *host.Host {
	l.t.Helper()
	ns := l.space(name)
	l.run("ip", "netns", "add", ns)
	l.t.Cleanup(func() { exec.Command("ip", "netns", "del", ns).Run() })
	l.run("ip", "-n", ns, "link", "set", "lo", "up")
	h := l.Add(name)
	// nsenter, not `ip netns exec`: that would also remount /sys.
	h.Prefix = []string{"nsenter", "--net=/run/netns/" + ns, "--"}
	return h
}

// sweep removes the namespaces of tests that ended without removing them.
func sweep(t testing.TB) {
	t.Helper()
	left, err := filepath.Glob("/run/netns/p2pnode-*-*")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range left {
		ns := filepath.Base(path)
		pid, err := strconv.Atoi(strings.Split(ns, "-")[1])
		if err == nil && syscall.Kill(pid, 0) == syscall.ESRCH {
			exec.Command("ip", "netns", "del", ns).Run()
		}
	}
}

func (l *Lab) space(name string) string { return fmt.Sprintf("p2pnode-%d-%s", os.Getpid(), name) }

// Wire lays a cable between two hosts, on a subnet of its own.
func (l *Lab) Wire(a, b string) {
	l.t.Helper()
	l.wires++
	if l.wires > 250 {
		l.t.Fatal("a lab has at most 250 wires")
	}
	for i, end := range [][2]string{{a, b}, {b, a}} {
		l.ends[end] = fmt.Sprintf("w%d%c", l.wires, 'a'+i)
	}
	from, to := l.ends[[2]string{a, b}], l.ends[[2]string{b, a}]
	l.run("ip", "link", "add", from, "netns", l.space(a), "type", "veth", "peer", "name", to, "netns", l.space(b))
	for i, name := range []string{a, b} {
		dev := []string{from, to}[i]
		addr := l.addr(l.wires, i+1)
		if l.IPv6 {
			l.run("ip", "-n", l.space(name), "addr", "add", addr+"/64", "dev", dev, "nodad")
		} else {
			l.run("ip", "-n", l.space(name), "addr", "add", addr+"/24", "dev", dev)
		}
		l.run("ip", "-n", l.space(name), "link", "set", dev, "up")
		l.addrs[name] = append(l.addrs[name], addr)
	}
}

// Addr is the address that b has on its wire with a: what a dials.
func (l *Lab) Addr(a, b string) string {
	l.t.Helper()
	dev, ok := l.ends[[2]string{b, a}]
	if !ok {
		l.t.Fatalf("no wire between %s and %s", a, b)
	}
	var n int
	var side rune
	fmt.Sscanf(dev, "w%d%c", &n, &side)
	return l.addr(n, int(side-'a')+1)
}

func (l *Lab) addr(wire, end int) string {
	if l.IPv6 {
		return fmt.Sprintf("fd77:%x::%d", wire, end)
	}
	return fmt.Sprintf("10.77.%d.%d", wire, end)
}

// Cut makes the wire between a and b swallow every packet in both directions,
// without telling anybody: no carrier loss, no ICMP. It writes nothing into the
// history: while another way leads around it, nobody may be called unreachable.
func (l *Lab) Cut(a, b string) {
	l.t.Helper()
	for _, end := range [][2]string{{a, b}, {b, a}} {
		dev := l.ends[end]
		rules := fmt.Sprintf(`table inet cut_%[1]s {
  chain in { type filter hook input priority -100; iifname "%[1]s" drop; }
  chain out { type filter hook output priority -100; oifname "%[1]s" drop; }
}`, dev)
		cmd := exec.Command("nsenter", "--net=/run/netns/"+l.space(end[0]), "--", "nft", "-f", "-")
		cmd.Stdin = strings.NewReader(rules)
		if out, err := cmd.CombinedOutput(); err != nil {
			l.t.Fatalf("cannot cut %s-%s: %v\n%s", a, b, err, out)
		}
	}
}

// Mend ends a Cut.
func (l *Lab) Mend(a, b string) {
	l.t.Helper()
	for _, end := range [][2]string{{a, b}, {b, a}} {
		l.run("nsenter", "--net=/run/netns/"+l.space(end[0]), "--", "nft", "delete", "table", "inet", "cut_"+l.ends[end])
	}
}

// Part cuts every wire between the two sides, and writes down that they are cut off
// from each other.
func (l *Lab) Part(left, right []string) {
	l.t.Helper()
	l.CutOff(append(append([]string{}, left...), right...)...)
	l.between(left, right, l.Cut)
}

// Join mends what Part cut.
func (l *Lab) Join(left, right []string) {
	l.t.Helper()
	l.between(left, right, l.Mend)
}

func (l *Lab) between(left, right []string, do func(a, b string)) {
	for _, a := range left {
		for _, b := range right {
			if _, wired := l.ends[[2]string{a, b}]; wired {
				do(a, b)
			}
		}
	}
}

func (l *Lab) run(argv ...string) {
	l.t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		l.t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
}
