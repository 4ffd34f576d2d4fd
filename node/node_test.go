package node

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/exec"
	"p2pnode/exec/door"
	"p2pnode/overlay/discover"
	"p2pnode/test/bubble"
	"p2pnode/test/memnet"
)

// fakeExec is a host's exec in memory: it tells events and says yes to every
// recovery of what has failed.
type fakeExec struct {
	mu      sync.Mutex
	pid     int
	web     string // incarnation
	ring    []p2pnode.ExecEvent
	subs    []chan p2pnode.ExecEvent
	asked   []uint64 // `after` of each Events call
	health  []exec.NodeHealth
	recover []p2pnode.RecoverRequest
}

func (f *fakeExec) Status(context.Context) (p2pnode.ExecStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pid == 0 {
		return p2pnode.ExecStatus{}, errors.New("away")
	}
	return p2pnode.ExecStatus{PID: f.pid, Services: []p2pnode.ServiceStatus{{Name: "web", State: p2pnode.StateUp, Incarnation: f.web}}}, nil
}

func (f *fakeExec) Recover(_ context.Context, req p2pnode.RecoverRequest) (p2pnode.RecoverAnswer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.recover = append(f.recover, req)
	f.web = "7-2"
	now := time.Now()
	return p2pnode.RecoverAnswer{
		Outcome: p2pnode.OutcomeDone, Old: req.Expected, New: "7-2", PID: 9, Class: p2pnode.ClassSignalled, By: p2pnode.By{Kind: p2pnode.ByAgent, Agent: req.Agent},
		Excerpt: &p2pnode.Excerpt{Lines: []string{"last words"}}, DetectedAt: now, VerifiedAt: now, StartedAt: now,
	}, nil
}

func (f *fakeExec) Events(ctx context.Context, after uint64) (<-chan p2pnode.ExecEvent, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, after)
	ch := make(chan p2pnode.ExecEvent, 64)
	for _, e := range f.ring {
		if e.Seq > after {
			ch <- e
		}
	}
	f.subs = append(f.subs, ch)
	return ch, nil
}

func (f *fakeExec) Health(_ context.Context, h exec.NodeHealth) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.health = append(f.health, h)
	return nil
}

// tell publishes an event as exec would.
func (f *fakeExec) tell(e p2pnode.ExecEvent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e.Seq, e.At = uint64(len(f.ring)+1), time.Now()
	f.ring = append(f.ring, e)
	for _, ch := range f.subs {
		ch <- e
	}
}

// restart is another exec process: streams end, events count from the start.
func (f *fakeExec) restart(pid int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pid, f.ring = pid, nil
	for _, ch := range f.subs {
		close(ch)
	}
	f.subs = nil
}

// take is the same exec for the next life of the node process: it tells its story
// again.
func (f *fakeExec) take(old *fakeExec) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ring, f.web = old.ring, old.web
	for _, ch := range f.subs {
		for _, e := range f.ring {
			ch <- e
		}
	}
}

func (f *fakeExec) last() exec.NodeHealth {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.health) == 0 {
		return exec.NodeHealth{}
	}
	return f.health[len(f.health)-1]
}

// noDoors is a world in which no door answers.
type noDoors struct{}

func (noDoors) Status(context.Context, string, peer.ID) (door.Status, error) {
	return door.Status{}, errors.New("no answer")
}

func (noDoors) Recover(context.Context, string, peer.ID, p2pnode.RecoverRequest) (p2pnode.RecoverAnswer, error) {
	return p2pnode.RecoverAnswer{}, errors.New("no answer")
}

// running is one node in the bubble.
type running struct {
	*Node
	exec *fakeExec
	dir  string
	stop func() error
}

type fleetOf struct {
	t   *testing.T
	net *memnet.Net
	n   byte
	dir string
	all []*running
}

// boot starts a node that joins the given ones.
func (f *fleetOf) boot(name string, join ...*running) *running {
	f.t.Helper()
	f.n++
	host := f.net.Host(netip.AddrFrom4([4]byte{10, 0, 0, f.n}))
	at := func(port uint16) string { return netip.AddrPortFrom(host.Addr, port).String() }
	r := &running{exec: &fakeExec{pid: 1}, dir: filepath.Join(f.dir, name)}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		f.t.Fatal(err)
	}
	cfg := Config{Dir: r.dir, Name: name, Listen: at(7744), Door: at(7745), Advertise: []string{at(7744)}}
	for _, j := range join {
		cfg.Join = append(cfg.Join, j.overlay.ListenAddr())
	}
	var err error
	r.Node, err = New(cfg, Env{
		Network: host, Exec: r.exec, Doors: noDoors{}, Rand: rand.NewPCG(1, uint64(f.n)), NoSocket: true,
		Interfaces: func() ([]discover.Interface, error) {
			return []discover.Interface{{Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.PrefixFrom(host.Addr, 24)}}}, nil
		},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	var once sync.Once
	r.stop = func() (err error) {
		once.Do(func() {
			cancel()
			err = <-done
		})
		return err
	}
	f.all = append(f.all, r)
	return r
}

// inBubble runs a story with simulated time and memory for a network.
func inBubble(t *testing.T, story func(t *testing.T, f *fleetOf)) {
	dir := t.TempDir()
	bubble.Test(t, func(t *testing.T) {
		f := &fleetOf{t: t, net: memnet.New(1, time.Millisecond, 0), dir: dir}
		defer func() {
			for _, r := range f.all {
				r.stop()
			}
			time.Sleep(time.Minute) // memberlist does not wait for its goroutines
			synctest.Wait()
		}()
		story(t, f)
	})
}

func (f *fleetOf) must(what string, cond func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !cond(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("not in 30 s: %s", what)
		}
	}
}

func (r *running) believes(other *running) p2pnode.Verdict {
	doc, _ := r.API().Nodes(context.Background())
	for _, n := range doc.Nodes {
		if n.ID == other.ID().String() {
			return n.Verdict
		}
	}
	return ""
}

func (r *running) incidents() []p2pnode.Incident {
	doc, _ := r.API().Incidents(context.Background())
	return doc.Incidents
}

func TestLifeOfTwoNodes(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fleetOf) {
		a := f.boot("ash")
		f.must("ash founds a cluster and manages it", func() bool {
			st, err := a.API().Status(t.Context())
			return err == nil && st.Cluster != nil && st.Node.Managing && st.Node.Role == p2pnode.RoleManager
		})
		b := f.boot("birch", a)
		f.must("both see two alive", func() bool { return a.believes(b) == p2pnode.Alive && b.believes(a) == p2pnode.Alive })
		f.must("exec hears of the link", func() bool { h := b.exec.last(); return h.Links == 1 && h.Life == b.Life() })
		checkPapers(f, a, b)

		// A service of birch fails: its resident agent asks exec, and ash reads how.
		b.exec.tell(p2pnode.ExecEvent{Event: p2pnode.FactFailed, Service: "web", Target: "7-1", PID: 8, Class: p2pnode.ClassSignalled, DetectedAt: time.Now()})
		f.must("ash knows the story", func() bool {
			i := a.incidents()
			return len(i) == 1 && i[0].Node == "birch" && i[0].Service == "web" && !i[0].VerifiedAt.IsZero()
		})
		i := a.incidents()[0]
		if i.Excerpt == nil || i.Excerpt.Sealed || len(i.Excerpt.Lines) != 1 {
			t.Errorf("the manager cannot read the last words: %+v", i.Excerpt)
		}
		if e := b.incidents()[0].Excerpt; e == nil || !e.Sealed {
			t.Errorf("a worker reads the last words: %+v", e)
		}
		checkNews(f, a)
		if err := a.API().Promote(t.Context(), "birch"); err != nil {
			t.Fatal(err)
		}
		f.must("birch reads what was reported before it was promoted", func() bool { e := b.incidents()[0].Excerpt; return e != nil && !e.Sealed })

		// An orderly stop is no incident.
		if err := b.stop(); err != nil {
			t.Errorf("an orderly stop: %v", err)
		}
		f.must("ash knows that birch left", func() bool { return a.believes(b) == p2pnode.Left })
		time.Sleep(20 * time.Second)
		if n := len(a.incidents()); n != 1 || a.believes(b) != p2pnode.Left {
			t.Errorf("%d incidents after an orderly stop, birch is %s", n, a.believes(b))
		}
		if err := a.stop(); err != nil {
			t.Error(err)
		}
	})
}

// checkNews: whoever follows events hears the story step by step.
func checkNews(f *fleetOf, n *running) {
	f.t.Helper()
	var states []string
	list, _ := n.events.After(0)
	for _, e := range list {
		var i p2pnode.Incident
		if e.Event != "incident" || json.Unmarshal(e.Fields, &i) != nil {
			continue
		}
		word := string(i.State)
		if !i.VerifiedAt.IsZero() {
			word = "verified"
		}
		states = append(states, word)
	}
	if want := []string{"recovered", "verified"}; !slices.Equal(states, want) {
		f.t.Errorf("events tell %v, want %v", states, want)
	}
}

// checkPapers: the door that reads what the node process left is believed and
// knows its peers.
func checkPapers(f *fleetOf, a, b *running) {
	f.t.Helper()
	f.must("birch's door trusts ash's", func() bool {
		trust, err := door.LoadTrust(b.dir)
		return err == nil && len(trust.Peers) == 1 && trust.Peers[0].ID == a.ID() && trust.Peers[0].Door != ""
	})
	trust, err := door.LoadTrust(b.dir)
	if err != nil {
		f.t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(b.dir, "door.crt"))
	if err != nil {
		f.t.Fatal(err)
	}
	var chain [][]byte
	if err := json.Unmarshal(raw, &chain); err != nil {
		f.t.Fatal(err)
	}
	cert, err := p2pnode.VerifyChain(trust.Root, chain, nil)
	key, _ := p2pnode.LoadOrCreateKey(filepath.Join(b.dir, "door.key"))
	if err != nil || cert.Role != p2pnode.RoleDoor || cert.Node != b.ID() || cert.ID != p2pnode.PeerID(key.Public().(ed25519.PublicKey)) {
		f.t.Errorf("door's certificate: %+v, %v", cert, err)
	}
}

// A node process that comes back has the same identity, a higher boot number, and
// its reports.
func TestNextLife(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fleetOf) {
		a := f.boot("ash")
		f.must("a cluster", func() bool { return a.believes(a) == p2pnode.Alive })
		a.exec.tell(p2pnode.ExecEvent{Event: p2pnode.FactFailed, Service: "web", Target: "7-1", PID: 8, Class: p2pnode.ClassSignalled, DetectedAt: time.Now()})
		f.must("a report", func() bool { i := a.incidents(); return len(i) == 1 && !i[0].VerifiedAt.IsZero() })
		before := a.incidents()
		if err := a.stop(); err != nil {
			t.Fatal(err)
		}
		f.n--
		again := f.boot("ash")
		again.exec.take(a.exec)
		if again.ID() != a.ID() || again.Life().Boot <= a.Life().Boot {
			t.Errorf("life %s after %s", again.Life(), a.Life())
		}
		f.must("its reports", func() bool { return len(again.incidents()) == 1 })
		time.Sleep(10 * time.Second)
		if got := again.incidents(); len(got) != 1 || got[0].Reports != before[0].Reports {
			t.Errorf("what was reported is reported again: %d reports, were %d", got[0].Reports, before[0].Reports)
		}
		again.stop()
	})
}

// A new exec counts its events from the start: none of them is skipped.
func TestNewExecIsFollowedFromTheStart(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fleetOf) {
		a := f.boot("ash")
		for range 3 {
			a.exec.tell(p2pnode.ExecEvent{Event: p2pnode.FactState, Service: "web"})
		}
		f.must("events are followed", func() bool { list, _ := a.events.After(0); return len(list) == 3 })
		a.exec.restart(1) // the stream broke, the process lives
		a.exec.restart(2)
		a.exec.tell(p2pnode.ExecEvent{Event: p2pnode.FactFailed, Service: "web", Target: "7-9", PID: 8, Class: p2pnode.ClassSignalled, DetectedAt: time.Now()})
		f.must("the new exec's first event is heard", func() bool {
			a.exec.mu.Lock()
			defer a.exec.mu.Unlock()
			return len(a.exec.recover) > 0 && slices.Contains(a.exec.asked, 0)
		})
		a.stop()
	})
}

func TestLeaveEndsThisLife(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fleetOf) {
		a := f.boot("ash")
		f.must("a cluster", func() bool { return a.believes(a) == p2pnode.Alive })
		b := f.boot("birch", a)
		f.must("both see two alive", func() bool { return a.believes(b) == p2pnode.Alive && b.believes(a) == p2pnode.Alive })
		if err := b.API().Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.must("ash knows that birch left", func() bool { return a.believes(b) == p2pnode.Left })
		select {
		case <-b.left:
		case <-time.After(time.Second):
			t.Error("the life goes on after leave")
		}
		b.stop()
		a.stop()
	})
}

func TestManagingIsRemembered(t *testing.T) {
	inBubble(t, func(t *testing.T, f *fleetOf) {
		a := f.boot("ash")
		managing := func(r *running) bool { s := standing{r.Node}.Standing(); return s != nil && s.Managing }
		f.must("the founder manages", func() bool { return managing(a) })
		if err := a.API().Manage(t.Context(), false); err != nil || managing(a) {
			t.Errorf("manage off: %v", err)
		}
		a.stop()
		f.n--
		again := f.boot("ash")
		f.must("a member", func() bool { return (standing{again.Node}).Standing() != nil })
		if managing(again) {
			t.Error("manage off is forgotten in the next life")
		}
		again.stop()
	})
}

func TestLate(t *testing.T) {
	l := newLate[int]()
	if _, ok := l.get(); ok {
		t.Error("a value before there is one")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, ok := l.wait(ctx); ok {
		t.Error("a value after the end")
	}
	l.set(7)
	if v, ok := l.wait(t.Context()); !ok || v != 7 {
		t.Error(v, ok)
	}
}
