package door

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/rs/zerolog"

	"p2pnode"
	"p2pnode/exec"
)

var (
	past  = time.Unix(1, 0)
	never = time.Time{}
)

// Config of a door.
type Config struct {
	Dir     string   // the data folder: papers, exec's control socket, logs
	Listen  string   // host:port
	Leash   *os.File // handed to an exec that the door starts; nil: none
	Log     zerolog.Logger
	History *p2pnode.History
}

// server is one door process.
type server struct {
	cfg    Config
	key    ed25519.PrivateKey
	papers *papers
	keeper *keeper
	count  *counters

	came  chan struct{} // exec can be asked again
	mu    sync.Mutex
	exec  *exec.Client // nil while exec is away
	conns []*visitor   // by age
	work  sync.WaitGroup
}

// visitor is one connection.
type visitor struct {
	raw     net.Conn
	greeted bool    // it has sent the first message of a handshake
	node    peer.ID // whose certificate it has proved; "" before
	safe    bool    // it does not go to make room for another
}

// Run is the door process: it serves until ctx ends. The error is a
// *p2pnode.Error where the port is taken.
func Run(ctx context.Context, cfg Config) error {
	s, err := newServer(cfg)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return portError(cfg.Listen, err)
	}
	return s.run(ctx, l)
}

func newServer(cfg Config) (*server, error) {
	key, err := p2pnode.LoadOrCreateKey(filepath.Join(cfg.Dir, "door.key"))
	if err != nil {
		return nil, err
	}
	return &server{cfg: cfg, key: key, papers: &papers{dir: cfg.Dir}, count: newCounters(), came: make(chan struct{}, 1)}, nil
}

// run serves l, which it closes, until ctx ends.
func (s *server) run(ctx context.Context, l net.Listener) error {
	knock := NewKnocker(s.key, s.ownChain, s.root, s.revoked, nil)
	s.keeper = newKeeper(s.cfg.Dir, func(life p2pnode.Life) {
		spread := &spreader{knock: knock, peers: s.peers, over: s.nextLife, log: s.cfg.Log}
		s.work.Go(func() { spread.spread(ctx, life) })
	}, s.cfg.Log)
	defer s.keeper.close()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	s.work.Go(func() { s.keepExec(ctx) })
	s.work.Go(func() { s.keep(ctx) })
	err := s.accept(ctx, l)
	s.closeAll()
	s.work.Wait()
	return err
}

func portError(addr string, err error) error {
	if errors.Is(err, syscall.EADDRINUSE) {
		return &p2pnode.Error{
			Code: "port-taken", Text: fmt.Sprintf("the door cannot listen on %s: another program does", addr),
			Fix: "stop that program, or choose another port with --door HOST:PORT",
		}
	}
	return fmt.Errorf("the door cannot listen on %s: %w", addr, err)
}

func (s *server) ownChain() [][]byte { chain, _, _ := s.papers.current(); return chain }

func (s *server) root() []byte { _, t, _ := s.papers.current(); return t.Root }

func (s *server) revoked() p2pnode.Revocations { _, t, _ := s.papers.current(); return t.Revoked }

func (s *server) peers() []TrustPeer { _, t, _ := s.papers.current(); return t.Peers }

func (s *server) accept(ctx context.Context, l net.Listener) error {
	for {
		raw, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			s.cfg.Log.Warn().Err(err).Msg("accept failed")
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		v := &visitor{raw: raw}
		if !s.admit(v) {
			raw.Close()
			continue
		}
		s.work.Go(func() {
			defer s.leave(v)
			s.serve(ctx, v)
		})
	}
}

// admit makes room for v: one that is not safe goes.
func (s *server) admit(v *visitor) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) >= maxConns {
		i := s.dispensable()
		if i < 0 {
			s.count.add("full")
			return false
		}
		s.count.add("crowded-out")
		s.conns[i].raw.Close()
		s.conns = slices.Delete(s.conns, i, i+1)
	}
	s.conns = append(s.conns, v)
	return true
}

// dispensable is which visitor goes for another one, -1 for none: the oldest that a node
// has beyond its share; else the oldest of the silent ones, or of those that have sent
// the first message of a handshake, of which there are more. So who only connects does
// not keep out a member whose handshake is under way, however many they are, and who
// only greets does not keep out who is about to.
func (s *server) dispensable() int {
	const (
		beyond = iota
		silent
		greeted
		kinds
	)
	oldest, n := [kinds]int{-1, -1, -1}, [kinds]int{}
	for i, c := range s.conns {
		if c.safe {
			continue
		}
		kind := silent
		switch {
		case c.node != "":
			kind = beyond
		case c.greeted:
			kind = greeted
		}
		if n[kind]++; n[kind] == 1 {
			oldest[kind] = i
		}
	}
	switch {
	case n[beyond] > 0:
		return oldest[beyond]
	case n[silent] >= n[greeted]:
		return oldest[silent]
	}
	return oldest[greeted]
}

// greet notes that v has sent the first message of a handshake.
func (s *server) greet(v *visitor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v.greeted = true
}

// prove notes who v is. A node's first connections are safe from then on; more than
// memberConns of one node are served as well, and go as strangers do when others need
// room: nobody's certificates keep everybody else out.
func (s *server) prove(v *visitor, node peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	safe := 0
	for _, c := range s.conns {
		if c.safe && c.node == node {
			safe++
		}
	}
	v.node, v.safe = node, safe < memberConns
}

func (s *server) leave(v *visitor) {
	v.raw.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, c := range s.conns {
		if c == v {
			s.conns = slices.Delete(s.conns, i, i+1)
			return
		}
	}
}

func (s *server) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.conns {
		c.raw.Close()
	}
}

// serve is one visitor from handshake to good-bye.
func (s *server) serve(ctx context.Context, v *visitor) {
	v.raw.SetDeadline(time.Now().Add(handshakeTime))
	chain, trust, err := s.papers.current()
	if err != nil {
		s.count.add("no-papers")
		return
	}
	var who p2pnode.Certificate
	handshake := config(chain, s.key, verifyMember(trust, &who))
	handshake.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		s.greet(v)
		return nil, nil
	}
	conn := tls.Server(v.raw, handshake)
	if err := conn.HandshakeContext(ctx); err != nil {
		if !errors.Is(err, net.ErrClosed) && ctx.Err() == nil { // the door closed it: crowded out, or its own end
			s.count.add(handshakeReason(err))
		}
		return
	}
	s.prove(v, who.Node)
	for range maxRequests {
		conn.SetDeadline(time.Now().Add(requestTime))
		var req request
		if err := readFrame(conn, &req); err != nil {
			switch {
			case errors.Is(err, errFrame):
				s.count.add("bad-frame")
			case errors.Is(err, os.ErrDeadlineExceeded):
				s.count.add("request-slow")
			}
			return
		}
		conn.SetDeadline(time.Now().Add(2 * answerTime))
		if err := writeFrame(conn, s.answer(ctx, who, req)); err != nil {
			return
		}
	}
}

func handshakeReason(err error) string {
	switch {
	case errors.Is(err, errStranger):
		return "stranger"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "handshake-slow"
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return "handshake-left"
	}
	return "handshake-bad"
}

// may is the deny table: which certificate may use which verb.
func may(role p2pnode.Role, v verb) bool {
	switch v {
	case verbStatus:
		return true
	case verbRecover:
		return role == p2pnode.RoleWorker || role == p2pnode.RoleManager
	case verbNotice:
		return role == p2pnode.RoleDoor
	}
	return false
}

func (s *server) answer(ctx context.Context, who p2pnode.Certificate, req request) answer {
	if !may(who.Role, req.Verb) {
		s.count.add("denied")
		return answer{Error: &p2pnode.Error{
			Code: "denied", Exit: p2pnode.ExitNotPermitted,
			Text: fmt.Sprintf("a %s may not ask a door to %q", who.Role, req.Verb),
		}}
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	switch req.Verb {
	case verbStatus:
		return answer{Status: s.status(ctx)}
	case verbNotice:
		if c := s.client(); c != nil {
			c.NoteDeath(ctx, who.Node, req.Life)
		}
		return answer{}
	}
	if req.Recover == nil {
		s.count.add("bad-frame")
		return answer{Error: &p2pnode.Error{Code: "bad-request", Text: "recover of nothing"}}
	}
	a := s.recover(ctx, who.Node, *req.Recover)
	return answer{Recover: &a}
}

// status is exec's word where exec lives, else what the door sees with its own
// pidfds.
func (s *server) status(ctx context.Context) *Status {
	out := &Status{At: time.Now()}
	if c := s.client(); c != nil {
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		if st, err := c.Status(short); err == nil {
			out.ExecAlive = true
			out.NodeState, out.NodeLife = st.Node.State, st.NodeLife
			out.NodeAlive = st.Node.PID != 0
			return out
		}
	}
	out.ExecAlive, _ = exec.ExecAlive(s.cfg.Dir)
	out.NodeAlive, _ = s.keeper.alive(p2pnode.SelfNode)
	return out
}

func (s *server) recover(ctx context.Context, caller peer.ID, req p2pnode.RecoverRequest) p2pnode.RecoverAnswer {
	if req.Target == p2pnode.SelfExec {
		return s.recoverExec(ctx, caller, req)
	}
	c := s.client()
	if c == nil {
		c = s.startExec(ctx)
	}
	if c == nil {
		return p2pnode.RecoverAnswer{Outcome: p2pnode.OutcomeRefused, Reason: p2pnode.RefusedExecDead}
	}
	a, err := c.RecoverFor(ctx, caller, req)
	if err != nil {
		s.cfg.Log.Warn().Err(err).Str("target", req.Target).Msg("exec gave no answer to a recover")
		return p2pnode.RecoverAnswer{Outcome: p2pnode.OutcomeRefused, Reason: p2pnode.RefusedExecDead}
	}
	return a
}

// counters are refusals by reason; more says that there are others since it was read.
type counters struct {
	more chan struct{}
	mu   sync.Mutex
	m    map[string]uint64
}

func newCounters() *counters {
	return &counters{more: make(chan struct{}, 1), m: map[string]uint64{}}
}

func (c *counters) add(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.m[reason]++
	select {
	case c.more <- struct{}{}:
	default:
	}
}

func (c *counters) all() map[string]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.m)
}
