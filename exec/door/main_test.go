package door

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"net"
	"os"
	osexec "os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"p2pnode"
	"p2pnode/exec"
)

// The test binary plays exec, its door and node process, and a service.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], "part:") {
		part(strings.TrimPrefix(os.Args[1], "part:"), os.Args[2:])
		return
	}
	os.Exit(m.Run())
}

// hostConfig is what an exec under test is told.
type hostConfig struct {
	Dir, Addr string
	Node      bool
	Services  []p2pnode.ServiceSpec
}

// counting is a service that prints numbers.
func counting(name string) p2pnode.ServiceSpec {
	return p2pnode.ServiceSpec{Name: name, Command: []string{"/proc/self/exe", "part:count"}, StopGrace: time.Second, StopTimeout: 200 * time.Millisecond}
}

func part(name string, args []string) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	switch name {
	case "exec":
		var h hostConfig
		if err := json.Unmarshal([]byte(args[0]), &h); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		cfg := exec.Config{
			Dir: h.Dir, NodeName: "host", ShutdownTimeout: 4 * time.Second, Supervised: "no",
			Services: h.Services,
			DoorArgv: []string{"/proc/self/exe", "part:door", h.Dir, h.Addr},
			SelfArgv: []string{"exec", "part:exec", args[0]},
			Leash:    leash(args[1:]), Log: zerolog.Nop(),
		}
		if h.Node {
			cfg.NodeArgv = []string{"/proc/self/exe", "part:node", h.Dir}
		}
		if err := exec.Run(ctx, cfg); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case "door": // without a guard: exec stays dead until somebody asks
		end := leash(args[2:])
		go func() { end.Read(make([]byte, 1)); os.Exit(0) }()
		Run(ctx, Config{Dir: args[0], Listen: args[1], Leash: end, Log: zerolog.Nop()})
	case "node":
		end := leash(args[1:])
		go func() { end.Read(make([]byte, 1)); os.Exit(0) }()
		life := p2pnode.NewLife(uint64(os.Getpid()))
		for ; ; time.Sleep(10 * time.Millisecond) {
			if c, err := exec.Dial(ctx, args[0], exec.RoleNode); err == nil {
				for c.Health(ctx, exec.NodeHealth{Life: life, Links: 1, Orders: 1, PeerID: "self"}) == nil {
					time.Sleep(200 * time.Millisecond)
				}
				c.Close()
			}
		}
	case "take":
		take(args[0])
	case "count": // one number a line, for ever
		for i := 0; ; i++ {
			fmt.Println(i)
			time.Sleep(time.Millisecond)
		}
	}
}

func leash(args []string) *os.File {
	if len(args) == 2 && args[0] == "--leash" {
		if fd, err := strconv.Atoi(args[1]); err == nil {
			return os.NewFile(uintptr(fd), "leash")
		}
	}
	fmt.Fprintln(os.Stderr, "no leash")
	os.Exit(2)
	return nil
}

// fleet is a cluster with a root, whose members are hosts on loopback.
type fleet struct {
	t    testing.TB
	root []byte
	key  ed25519.PrivateKey
}

// member is one node, its door and its data folder.
type member struct {
	f         *fleet
	dir, addr string
	key, door ed25519.PrivateKey
	chain     [][]byte
	doorChain [][]byte
	services  []p2pnode.ServiceSpec // of its host; nil: web, which counts
}

func newFleet(t testing.TB) *fleet {
	t.Helper()
	f := &fleet{t: t, key: newKey(t)}
	var err error
	if f.root, err = p2pnode.NewRoot(f.key, time.Now()); err != nil {
		t.Fatal(err)
	}
	return f
}

func newKey(t testing.TB) ed25519.PrivateKey {
	_, k, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (f *fleet) issue(chain [][]byte, by, to ed25519.PrivateKey, role p2pnode.Role, name string) [][]byte {
	f.t.Helper()
	out, err := p2pnode.Issue(f.root, chain, by, to.Public().(ed25519.PublicKey), role, name, time.Now())
	if err != nil {
		f.t.Fatal(err)
	}
	return out
}

// member makes a node with its papers in a fresh folder.
func (f *fleet) member(name string, role p2pnode.Role) *member {
	f.t.Helper()
	m := &member{f: f, key: newKey(f.t), dir: f.t.TempDir()}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	m.addr = l.Addr().String()
	l.Close()
	if m.door, err = p2pnode.LoadOrCreateKey(filepath.Join(m.dir, "door.key")); err != nil {
		f.t.Fatal(err)
	}
	m.chain = f.issue(nil, f.key, m.key, role, name)
	m.doorChain = f.issue(m.chain, m.key, m.door, p2pnode.RoleDoor, name)
	if err := SaveChain(m.dir, m.doorChain); err != nil {
		f.t.Fatal(err)
	}
	m.trust(Trust{})
	return m
}

func (m *member) trust(t Trust) {
	m.f.t.Helper()
	t.Root = m.f.root
	if err := SaveTrust(m.dir, t); err != nil {
		m.f.t.Fatal(err)
	}
}

func (m *member) peer() TrustPeer {
	return TrustPeer{ID: p2pnode.PeerID(m.key.Public().(ed25519.PublicKey)), Name: m.addr, Door: m.addr}
}

// knocker proves itself as the node m.
func (m *member) knocker() *Knocker {
	return NewKnocker(m.key, func() [][]byte { return m.chain }, func() []byte { return m.f.root }, nil, nil)
}

// serve runs m's door in this process, without an exec.
func (m *member) serve() *server {
	m.f.t.Helper()
	s, err := newServer(Config{Dir: m.dir, Log: zerolog.Nop()})
	if err != nil {
		m.f.t.Fatal(err)
	}
	l, err := net.Listen("tcp", m.addr)
	if err != nil {
		m.f.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.run(ctx, l) }()
	m.f.t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			m.f.t.Error(err)
		}
	})
	return s
}

// host runs m's exec with its door, a counting service and, if wanted, a node
// process, all real processes on one leash.
func (m *member) host(node bool) {
	if testing.Short() {
		m.f.t.Skip("SKIPPED: real processes are not run with -short")
	}
	m.f.t.Helper()
	if m.services == nil {
		m.services = []p2pnode.ServiceSpec{counting("web")}
	}
	raw, err := json.Marshal(hostConfig{m.dir, m.addr, node, m.services})
	if err != nil {
		m.f.t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		m.f.t.Fatal(err)
	}
	cmd := osexec.Command("/proc/self/exe", "part:exec", string(raw), "--leash", "3")
	cmd.ExtraFiles, cmd.Stderr = []*os.File{r}, os.Stderr
	if err := cmd.Start(); err != nil {
		m.f.t.Fatal(err)
	}
	r.Close()
	go cmd.Wait()
	m.f.t.Cleanup(func() {
		w.Close()
		eventually(m.f.t, "exec ends with its leash", func() bool { alive, _ := exec.ExecAlive(m.dir); return !alive })
	})
}

func (m *member) client() (c *exec.Client) {
	m.f.t.Helper()
	eventually(m.f.t, "exec answers", func() (ok bool) {
		var err error
		c, err = exec.Dial(context.Background(), m.dir, exec.RoleCLI)
		return err == nil
	})
	m.f.t.Cleanup(func() { c.Close() })
	return c
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}
