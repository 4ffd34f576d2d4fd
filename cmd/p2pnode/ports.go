package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"p2pnode"
)

// ports are the addresses of a host's two listeners as they were chosen at its
// first start; ports.json in the data folder keeps them, so that peers that
// cached them find the host again.
type ports struct {
	Listen string `json:"listen"`
	Door   string `json:"door"`
}

// choosePorts turns what was asked for into real ports. mine says that sockets
// of this host's own processes may hold them already (exec alone was restarted):
// then nothing is probed. notes are sentences for the person who starts it.
func choosePorts(dir, listen, door string, mine bool) (p ports, notes []string, err error) {
	kept := loadPorts(dir)
	host, port, err := splitAddr("--listen", listen)
	if err != nil {
		return ports{}, nil, err
	}
	switch keptHost, keptPort := keptAddr(kept.Listen); {
	case port == 0 && keptPort != 0 && keptHost == host && (mine || free(host, keptPort)):
		port = keptPort
	case port == 0:
		if port, err = pickPort(host, 2); err != nil {
			return ports{}, nil, err
		}
		notes = append(notes, fmt.Sprintf("chose port %d and keeps it", port))
	case !mine && !free(host, port):
		return ports{}, nil, portTaken("--listen", host, port)
	}
	p.Listen = net.JoinHostPort(host, strconv.Itoa(port))
	if p.Door, notes, err = chooseDoor(kept, door, host, port, mine, notes); err != nil {
		return ports{}, nil, err
	}
	// Where others of this host run, a second start is about to be refused: what
	// they listen on stays what is written down.
	if p != kept && (!mine || kept == ports{}) {
		err = savePorts(dir, p)
	}
	return p, notes, err
}

// chooseDoor prefers what was asked for, then what was kept, then the port after
// the node's; the last is a wish, so a taken one is replaced and said.
func chooseDoor(kept ports, door, host string, port int, mine bool, notes []string) (string, []string, error) {
	doorPort := 0
	if door != "" {
		var err error
		if host, doorPort, err = splitAddr("--door", door); err != nil {
			return "", nil, err
		}
		if doorPort != 0 && doorPort == port {
			return "", nil, usage("--door and --listen have the same port %d: the door needs one of its own", port)
		}
		if doorPort != 0 && !mine && !free(host, doorPort) {
			return "", nil, portTaken("--door", host, doorPort)
		}
	}
	if doorPort == 0 {
		if keptHost, keptPort := keptAddr(kept.Door); keptPort != 0 && keptHost == host && keptPort != port && (mine || free(host, keptPort)) {
			doorPort = keptPort
		}
	}
	if doorPort == 0 && door == "" && port < 65535 && (mine || free(host, port+1)) {
		doorPort = port + 1
	}
	if doorPort == 0 {
		var err error
		if doorPort, err = pickPort(host, 1); err != nil {
			return "", nil, err
		}
		notes = append(notes, fmt.Sprintf("chose port %d for the door and keeps it", doorPort))
	}
	return net.JoinHostPort(host, strconv.Itoa(doorPort)), notes, nil
}

func splitAddr(flag, addr string) (string, int, error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, usage("%s is %q, should be HOST:PORT, for example 0.0.0.0:%d", flag, addr, defaultPort)
	}
	port, err := strconv.Atoi(text)
	if err != nil || port < 0 || port > 65535 {
		return "", 0, usage("%s is %q: the port should be a number from 0 to 65535", flag, addr)
	}
	if host == "" {
		host = "0.0.0.0"
	}
	if net.ParseIP(host) == nil {
		ips, err := net.LookupIP(host)
		if err != nil || len(ips) == 0 {
			return "", 0, usage("%s is %q: no address of this host is called that", flag, addr)
		}
		host = ips[0].String()
	}
	return host, port, nil
}

func keptAddr(addr string) (string, int) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0
	}
	port, _ := strconv.Atoi(text)
	return host, port
}

// free reports whether TCP and UDP of port can be had on host.
func free(host string, port int) bool {
	addr := net.JoinHostPort(host, strconv.Itoa(port))
	tcp, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", addr)
	if err != nil {
		return false
	}
	udp.Close()
	return true
}

// pickPort finds n free ports in a row outside the range from which the kernel
// gives ports to clients: one from there could be in use at the next start.
func pickPort(host string, n int) (int, error) {
	low, high := 10240, ephemeralLow()-n
	if high-low < 1000 {
		low, high = 1024, 10240
	}
	for range 200 {
		port := low + rand.IntN(high-low)
		ok := true
		for i := range n {
			ok = ok && free(host, port+i)
		}
		if ok {
			return port, nil
		}
	}
	return 0, &p2pnode.Error{Code: "no-free-port", Text: fmt.Sprintf("no free port found on %s", host), Fix: "name one with --listen HOST:PORT", Exit: p2pnode.ExitFailed}
}

func ephemeralLow() int {
	raw, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err == nil {
		if fields := strings.Fields(string(raw)); len(fields) == 2 {
			if low, err := strconv.Atoi(fields[0]); err == nil && low > 0 {
				return low
			}
		}
	}
	return 32768
}

func portTaken(flag, host string, port int) error {
	addr := net.JoinHostPort(host, strconv.Itoa(port))
	text := fmt.Sprintf("port %d on %s is taken by another program", port, host)
	fix := fmt.Sprintf("end that program, or let p2pnode pick one with %s %s", flag, net.JoinHostPort(host, "0"))
	if ln, err := net.Listen("tcp", addr); err == nil {
		ln.Close()
	} else if !errors.Is(err, errAddrInUse) {
		text = fmt.Sprintf("cannot listen on %s: %v", addr, bareNet(err))
		fix = fmt.Sprintf("give %s an address of this host, or 0.0.0.0 for all, and a port that this user may open", flag)
	}
	return &p2pnode.Error{Code: "port-taken", Text: text, Exit: p2pnode.ExitFailed, Fix: fix}
}

func loadPorts(dir string) (p ports) {
	raw, err := os.ReadFile(filepath.Join(dir, "ports.json"))
	if err == nil && json.Unmarshal(raw, &p) != nil {
		return ports{}
	}
	return p
}

// savePorts keeps p. Only a full or broken disk makes it fail, and that must not
// keep a host from running: the error is for the log.
func savePorts(dir string, p ports) error {
	raw, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return p2pnode.WriteFile(filepath.Join(dir, "ports.json"), append(raw, '\n'), 0o600)
}
