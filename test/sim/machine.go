package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"p2pnode"
	"p2pnode/exec"
	"p2pnode/exec/door"
	"p2pnode/node"
	"p2pnode/overlay/discover"
	"p2pnode/test/memnet"
)

// startTime is how long a simulated process takes from fork to ready.
const startTime = 5 * time.Millisecond

// Machine is a simulated host: a real node process, and an exec, a door and
// services that keep exec's promises without processes.
type Machine struct {
	w     *World
	name  string
	host  *memnet.Host
	dir   string
	deny  []string
	join  []string
	token string // "": the lan window

	execHistory *p2pnode.History
	metrics     *prometheus.Registry // of the node process that runs

	mu       sync.Mutex
	node     *node.Node
	nodeEnd  context.CancelFunc
	nodeDone chan struct{}
	pid      int // of the newest thing started
	self     thing
	life     p2pnode.Life
	peerID   string
	links    int
	orders   int
	services map[string]*thing
	ops      map[string]p2pnode.RecoverAnswer
	ring     []p2pnode.ExecEvent
	subs     map[chan p2pnode.ExecEvent]bool
	vanished bool
	restarts int // of anything, by anybody
	Observe  bool
	// Maintenance names what is not to be touched.
	Maintenance map[string]bool
}

// thing is a simulated process: a service, or the node process.
type thing struct {
	name    string
	inc     p2pnode.Incarnation
	alive   bool
	died    time.Time
	excerpt p2pnode.Excerpt
}

func newMachine(w *World, name string, host *memnet.Host) *Machine {
	m := &Machine{
		w: w, name: name, host: host, dir: filepath.Join(w.dir, name), pid: 100,
		services: map[string]*thing{"web": {name: "web", inc: p2pnode.Incarnation{Epoch: 7, N: 1}, alive: true}},
		ops:      map[string]p2pnode.RecoverAnswer{}, subs: map[chan p2pnode.ExecEvent]bool{}, Maintenance: map[string]bool{},
	}
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		w.T.Fatal(err)
	}
	var err error
	if m.execHistory, err = p2pnode.OpenHistory(w.historyFile(name), name, "exec"); err != nil {
		w.T.Fatal(err)
	}
	m.record(p2pnode.HistoryEvent{Event: p2pnode.HistStarted, Service: "web", New: m.services["web"].inc.String(), PID: 1})
	return m
}

func (m *Machine) record(e p2pnode.HistoryEvent) { m.execHistory.Record(e) }

func (m *Machine) address() string { return netip.AddrPortFrom(m.host.Addr, 7744).String() }

// serves reports whether the service runs.
func (m *Machine) serves() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.services["web"].alive
}

func (m *Machine) gone() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.vanished
}

// boot starts the node process.
func (m *Machine) boot() {
	history, err := p2pnode.OpenHistory(m.w.historyFile(m.name), m.name, "node")
	if err != nil {
		m.w.T.Fatal(err)
	}
	cfg := node.Config{
		Dir: m.dir, Name: m.name, Version: "sim", Listen: m.address(), Door: netip.AddrPortFrom(m.host.Addr, 7745).String(),
		Advertise: []string{m.address()}, Join: m.join, DenyLinks: m.deny, History: history,
	}
	m.metrics = prometheus.NewRegistry()
	cfg.Metrics = m.metrics
	if m.token != "" {
		cfg.TokenFile = filepath.Join(m.dir, "token")
		if err := os.WriteFile(cfg.TokenFile, []byte(m.token), 0o600); err != nil {
			m.w.T.Fatal(err)
		}
	}
	env := node.Env{
		Network: m.host, Exec: m, Doors: doors{m}, Rand: rand.NewPCG(m.w.rng.Uint64(), 2), NoSocket: true, NoPush: m.w.noPush, Interfaces: m.interfaces,
	}
	n, err := node.New(cfg, env)
	if err != nil {
		m.w.T.Fatalf("%s: %v", m.name, err)
	}
	ctx, cancel := context.WithCancel(m.w.ctx)
	done := make(chan struct{})
	m.mu.Lock()
	m.node, m.nodeEnd, m.nodeDone = n, cancel, done
	m.pid++
	m.self.alive = true
	m.life = n.Life()
	m.mu.Unlock()
	go func() {
		defer close(done)
		defer history.Close()
		if err := n.Run(ctx); err != nil && ctx.Err() == nil {
			m.w.T.Errorf("%s: %v", m.name, err)
		}
	}()
}

// interfaces say that all machines stand on one private network.
func (m *Machine) interfaces() ([]discover.Interface, error) {
	return []discover.Interface{{Name: "eth0", Up: true, Addrs: []netip.Prefix{netip.PrefixFrom(m.host.Addr, 16)}}}, nil
}

// halt ends the node process in good order.
func (m *Machine) halt() {
	m.mu.Lock()
	cancel, done := m.nodeEnd, m.nodeDone
	m.mu.Unlock()
	if cancel != nil {
		cancel()
		<-done
	}
	m.execHistory.Close()
}

// API asks the node process what the CLI would ask; nil while it is dead.
func (m *Machine) running() *node.Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.self.alive {
		return nil
	}
	return m.node
}

// verdicts are what this machine's node believes, by name; nil while it is dead.
func (m *Machine) verdicts() map[string]p2pnode.Verdict {
	n := m.running()
	if n == nil {
		return nil
	}
	doc, err := n.API().Nodes(context.Background())
	if err != nil {
		return nil
	}
	out := make(map[string]p2pnode.Verdict, len(doc.Nodes))
	for _, x := range doc.Nodes {
		out[x.Name] = x.Verdict
	}
	return out
}

func (m *Machine) verdict(other *Machine) p2pnode.Verdict { return m.verdicts()[other.name] }

// Reports is `reports -o json` of this machine; "" while its node process is dead.
func (m *Machine) Reports() string {
	n := m.running()
	if n == nil {
		return ""
	}
	doc, err := n.API().Reports(context.Background())
	if err != nil {
		return ""
	}
	raw, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return ""
	}
	return string(raw)
}

// Metric is the sum of a counter or gauge over its labels.
func (m *Machine) Metric(name string) float64 { return m.Reason(name, "") }

// Reason is the same of those that have the label reason; "": of all.
func (m *Machine) Reason(name, reason string) (sum float64) {
	families, _ := m.metrics.Gather()
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, x := range f.GetMetric() {
			if reason != "" && !slices.ContainsFunc(x.GetLabel(), func(l *dto.LabelPair) bool { return l.GetName() == "reason" && l.GetValue() == reason }) {
				continue
			}
			sum += x.GetCounter().GetValue() + x.GetGauge().GetValue()
		}
	}
	return sum
}

// Incidents are what this machine's node knows.
func (m *Machine) Incidents() []p2pnode.Incident {
	n := m.running()
	if n == nil {
		return nil
	}
	doc, err := n.API().Incidents(context.Background())
	if err != nil {
		return nil
	}
	return doc.Incidents
}

// Incident finds the newest about a machine and service ("": the node process).
func (m *Machine) Incident(about *Machine, service string) (found p2pnode.Incident, ok bool) {
	for _, i := range m.Incidents() {
		if i.Node == about.name && i.Service == service && !i.DetectedAt.Before(found.DetectedAt) {
			found, ok = i, true
		}
	}
	return found, ok
}

func (m *Machine) describe() string {
	var out []string
	for _, o := range m.w.Machines {
		if v := m.verdict(o); v != p2pnode.Alive {
			out = append(out, o.name+"="+string(v))
			if n := m.running(); n != nil {
				why, _ := n.API().Why(context.Background(), o.name)
				out = append(out, fmt.Sprintf("%+v", why.Evidence))
			}
		}
	}
	return fmt.Sprintf("node alive %v, not alive to it: %s", m.running() != nil, strings.Join(out, " "))
}

// KillNode is kill -9 of the node process: its sockets close at once, nothing is
// announced, exec notices.
func (m *Machine) KillNode() {
	m.mu.Lock()
	cancel, done := m.nodeEnd, m.nodeDone
	m.self.alive, m.self.died = false, time.Now()
	life := m.life
	m.mu.Unlock()
	m.host.Kill()
	cancel()
	<-done
	m.record(p2pnode.HistoryEvent{Event: p2pnode.HistEnded, Service: p2pnode.SelfNode, Old: life.String(), Class: p2pnode.ClassProcessDead})
	if grace := m.w.Grace.Node; grace > 0 {
		time.AfterFunc(grace, func() { m.fallback(p2pnode.SelfNode, life.String()) })
	}
}

// KillService kills the service web; exec sees it and tells the node process.
func (m *Machine) KillService() {
	m.mu.Lock()
	s := m.services["web"]
	s.alive, s.died = false, time.Now()
	s.excerpt = p2pnode.Excerpt{Lines: []string{"last words of web on " + m.name}}
	inc := s.inc.String()
	m.record(p2pnode.HistoryEvent{Event: p2pnode.HistEnded, Service: "web", Old: inc, Class: p2pnode.ClassSignalled})
	m.emitLocked(p2pnode.ExecEvent{
		Event: p2pnode.FactFailed, Service: "web", Target: inc, Class: p2pnode.ClassSignalled, Held: m.heldLocked("web"),
		Exit: &p2pnode.Exit{Signal: "SIGKILL"}, Excerpt: &s.excerpt, DetectedAt: s.died,
	})
	m.mu.Unlock()
	if grace := m.w.Grace.Agent; grace > 0 {
		time.AfterFunc(grace, func() { m.fallback("web", inc) })
	}
}

func (m *Machine) heldLocked(service string) p2pnode.Held {
	switch {
	case m.Maintenance[service]:
		return p2pnode.HeldMaintenance
	case m.Observe:
		return p2pnode.HeldObserve
	}
	return ""
}

// Vanish takes the whole machine off the network and ends it, for good.
func (m *Machine) Vanish() {
	m.host.SetUp(false)
	m.mu.Lock()
	m.vanished = true
	m.self.alive = false
	cancel, done := m.nodeEnd, m.nodeDone
	m.mu.Unlock()
	cancel()
	<-done
}

// Start is a person's start of the node process.
func (m *Machine) Start() {
	m.mu.Lock()
	life := m.life.String()
	m.mu.Unlock()
	m.recover(p2pnode.RecoverRequest{Op: "start/" + life, Target: p2pnode.SelfNode, Expected: life}, p2pnode.By{Kind: p2pnode.ByOperator})
}

// fallback is exec acting alone because nobody came.
func (m *Machine) fallback(target, expected string) {
	m.mu.Lock()
	vanished := m.vanished
	m.mu.Unlock()
	if !vanished && m.w.ctx.Err() == nil {
		m.recover(p2pnode.RecoverRequest{Op: "fallback/" + target + "/" + expected, Target: target, Expected: expected}, p2pnode.By{Kind: p2pnode.ByExec, Fallback: true})
	}
}

// recover is exec's decision, by what it sees itself: one effect per life,
// whoever asks, however often.
func (m *Machine) recover(req p2pnode.RecoverRequest, by p2pnode.By) p2pnode.RecoverAnswer {
	m.mu.Lock()
	if a, ok := m.ops[req.Op]; ok {
		m.mu.Unlock()
		return a
	}
	a, start := m.decideLocked(req, by)
	m.ops[req.Op] = a
	m.mu.Unlock()
	if start != nil {
		start()
	}
	return a
}

func (m *Machine) decideLocked(req p2pnode.RecoverRequest, by p2pnode.By) (p2pnode.RecoverAnswer, func()) {
	refuse := func(r p2pnode.Refusal) (p2pnode.RecoverAnswer, func()) {
		m.record(p2pnode.HistoryEvent{Event: p2pnode.HistRefused, Service: req.Target, Old: req.Expected, Reason: string(r), Op: req.Op, By: by})
		return p2pnode.RecoverAnswer{Outcome: p2pnode.OutcomeRefused, Reason: r}, nil
	}
	now := time.Now()
	if held := m.heldLocked(req.Target); held != "" && by.Kind != p2pnode.ByOperator {
		return refuse(p2pnode.Refusal(held))
	}
	if req.Target == p2pnode.SelfNode {
		old := m.life.String()
		switch {
		case m.self.alive && req.Expected == old:
			return refuse(p2pnode.RefusedHealthy)
		case req.Expected != old:
			return p2pnode.RecoverAnswer{Outcome: p2pnode.OutcomeAlreadyDone, New: old}, nil
		}
		m.self.alive = true // single flight: it is being started from now on
		m.startedLocked(req, by, old, "")
		return p2pnode.RecoverAnswer{
			Outcome: p2pnode.OutcomeDone, Old: old, PID: m.pid, By: by, Class: p2pnode.ClassProcessDead,
			DetectedAt: m.self.died, VerifiedAt: now, StartedAt: now,
		}, m.boot
	}
	s := m.services[req.Target]
	switch {
	case s == nil:
		return refuse(p2pnode.RefusedUnknown)
	case req.Expected != s.inc.String():
		return p2pnode.RecoverAnswer{Outcome: p2pnode.OutcomeAlreadyDone, New: s.inc.String()}, nil
	case s.alive:
		return refuse(p2pnode.RefusedHealthy)
	}
	old, excerpt := s.inc, s.excerpt
	s.inc, s.alive = s.inc.Next(), true
	m.startedLocked(req, by, old.String(), s.inc.String())
	a := p2pnode.RecoverAnswer{
		Outcome: p2pnode.OutcomeDone, Old: old.String(), New: s.inc.String(), PID: m.pid, By: by, Class: p2pnode.ClassSignalled,
		Exit: &p2pnode.Exit{Signal: "SIGKILL"}, Excerpt: &excerpt, DetectedAt: s.died, VerifiedAt: now, StartedAt: now,
	}
	m.emitLocked(p2pnode.ExecEvent{
		Event: p2pnode.FactActed, Service: s.name, Target: old.String(), New: s.inc.String(), PID: m.pid, Class: a.Class, Exit: a.Exit,
		Excerpt: &excerpt, By: by, DetectedAt: s.died, VerifiedAt: now, StartedAt: now,
	})
	inc := s.inc
	return a, func() {
		time.AfterFunc(startTime, func() {
			m.mu.Lock()
			defer m.mu.Unlock()
			if s.inc == inc && s.alive {
				m.emitLocked(p2pnode.ExecEvent{Event: p2pnode.FactUp, Service: s.name, New: inc.String(), State: p2pnode.StateUp})
			}
		})
	}
}

// startedLocked writes what exec writes around a restart.
func (m *Machine) startedLocked(req p2pnode.RecoverRequest, by p2pnode.By, old, new string) {
	m.pid++
	m.restarts++
	class := p2pnode.ClassSignalled
	if req.Target == p2pnode.SelfNode {
		class = p2pnode.ClassProcessDead
	}
	m.record(p2pnode.HistoryEvent{Event: p2pnode.HistLooked, Service: req.Target, Old: old, Class: class, Op: req.Op})
	m.record(p2pnode.HistoryEvent{Event: p2pnode.HistStarted, Service: req.Target, Old: old, New: new, PID: m.pid, By: by, Op: req.Op})
}

// emitLocked tells the node process, and remembers for the next one.
func (m *Machine) emitLocked(e p2pnode.ExecEvent) {
	e.Seq, e.At = uint64(len(m.ring)+1), time.Now()
	m.ring = append(m.ring, e)
	for ch := range m.subs {
		select {
		case ch <- e:
		default: // a gap in Seq tells the reader
		}
	}
}

// Status implements node.Exec.
func (m *Machine) Status(context.Context) (p2pnode.ExecStatus, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	st := p2pnode.ExecStatus{PID: 1, Observe: m.Observe, NodeLife: m.life, Node: p2pnode.ServiceStatus{Name: p2pnode.SelfNode, State: state(m.self.alive)}}
	if m.self.alive {
		st.Node.PID = m.pid
	}
	for _, name := range slices.Sorted(maps.Keys(m.services)) {
		s := m.services[name]
		st.Services = append(st.Services, p2pnode.ServiceStatus{Node: m.name, Name: name, State: state(s.alive), Incarnation: s.inc.String(), Recover: p2pnode.RecoverAgent})
	}
	return st, nil
}

func state(alive bool) p2pnode.ServiceState {
	if alive {
		return p2pnode.StateUp
	}
	return p2pnode.StateExited
}

// Recover implements node.Exec: the caller is this host's own node process.
func (m *Machine) Recover(_ context.Context, req p2pnode.RecoverRequest) (p2pnode.RecoverAnswer, error) {
	m.mu.Lock()
	id := m.peerID
	m.mu.Unlock()
	return m.recover(req, p2pnode.By{Kind: p2pnode.ByAgent, Agent: req.Agent, Node: id}), nil
}

// Events implements node.Exec.
func (m *Machine) Events(ctx context.Context, after uint64) (<-chan p2pnode.ExecEvent, error) {
	ch := make(chan p2pnode.ExecEvent, 256)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.ring {
		if e.Seq > after {
			ch <- e
		}
	}
	m.subs[ch] = true
	context.AfterFunc(ctx, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.subs[ch] {
			delete(m.subs, ch)
			close(ch)
		}
	})
	return ch, nil
}

// Health implements node.Exec.
func (m *Machine) Health(_ context.Context, h exec.NodeHealth) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.life, m.links, m.orders, m.peerID = h.Life, h.Links, h.Orders, h.PeerID
	return nil
}

// doors is what the node process of from sees of all doors.
type doors struct{ from *Machine }

var errSilent = errors.New("no answer")

// reach finds the machine behind a door's address, if a packet gets there and back.
func (d doors) reach(ctx context.Context, addr string) (*Machine, error) {
	ap, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	for _, m := range d.from.w.Machines {
		if m.host.Addr != ap.Addr() {
			continue
		}
		if !d.from.w.Net.Reaches(d.from.host.Addr, m.host.Addr) {
			<-ctx.Done()
			return nil, fmt.Errorf("%w: %w", errSilent, ctx.Err())
		}
		// The handshake is two round trips.
		time.Sleep(4 * d.from.w.latency)
		return m, nil
	}
	return nil, syscall.EHOSTUNREACH
}

// Status implements node.Doors.
func (d doors) Status(ctx context.Context, addr string, _ peer.ID) (door.Status, error) {
	m, err := d.reach(ctx, addr)
	if err != nil {
		return door.Status{}, err
	}
	st, _ := m.Status(ctx)
	return door.Status{ExecAlive: true, NodeAlive: st.Node.PID != 0, NodeState: st.Node.State, NodeLife: st.NodeLife, At: time.Now()}, nil
}

// Recover implements node.Doors: the caller is whom the handshake would have
// shown.
func (d doors) Recover(ctx context.Context, addr string, _ peer.ID, req p2pnode.RecoverRequest) (p2pnode.RecoverAnswer, error) {
	m, err := d.reach(ctx, addr)
	if err != nil {
		return p2pnode.RecoverAnswer{}, err
	}
	d.from.mu.Lock()
	id := d.from.peerID
	d.from.mu.Unlock()
	return m.recover(req, p2pnode.By{Kind: p2pnode.ByAgent, Agent: req.Agent, Node: id}), nil
}
