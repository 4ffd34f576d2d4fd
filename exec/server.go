package exec

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/user"
	"strconv"
	"sync"
	"time"

	"p2pnode"

	"golang.org/x/sys/unix"
)

// server answers on the control socket.
type server struct {
	r     *runner
	l     *net.UnixListener
	wg    sync.WaitGroup
	mu    sync.Mutex
	conns map[*frameConn]struct{}
	most  int // of conns
}

// listen opens DIR/run/exec.sock, or goes on with the one that was handed over. The
// lock on the folder is held: a socket file that is there is a dead exec's.
func (r *runner) listen(ctx context.Context) (*server, error) {
	l, err := r.handed.listener()
	if err != nil {
		if l, err = newListener(SocketPath(r.cfg.Dir)); err != nil {
			return nil, err
		}
	}
	l.SetUnlinkOnClose(false)
	srv := &server{r: r, l: l, conns: map[*frameConn]struct{}{}, most: p2pnode.ShareOfFiles(maxClients)}
	srv.wg.Go(func() { srv.accept(ctx) })
	return srv, nil
}

func newListener(path string) (*net.UnixListener, error) {
	os.Remove(path)
	short, release, err := shortPath(path)
	if err != nil {
		return nil, err
	}
	defer release()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return nil, &p2pnode.Error{Code: "control-socket", Text: "cannot listen on " + path + ": " + plain(err), Fix: "check the data folder: it must be on a local file system"}
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// doorAdopted reports whether an earlier exec's door lives, and makes the keeper
// link wait for it.
func (s *server) doorAdopted() (adopted bool) {
	s.r.ask(func() {
		if d := s.r.policy.svcs[p2pnode.SelfDoor]; d != nil && d.phase == running {
			adopted = true
		}
	})
	return adopted
}

func (s *server) close() {
	if !s.r.handsOver(s.l) {
		os.Remove(SocketPath(s.r.cfg.Dir))
	}
	s.l.Close()
	s.mu.Lock()
	for c := range s.conns {
		c.close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

func (s *server) accept(ctx context.Context) {
	for {
		raw, err := s.l.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // out of descriptors: wait for some to come back
			continue
		}
		c := newFrameConn(raw)
		s.mu.Lock()
		full := len(s.conns) >= s.most
		if !full {
			s.conns[c] = struct{}{}
		}
		s.mu.Unlock()
		if full {
			s.r.metrics.refusedClient()
			c.close()
			continue
		}
		s.wg.Go(func() { s.serve(ctx, c) })
	}
}

// session is one client: its role is what its process is, not what it says.
type session struct {
	r    *runner
	conn *frameConn
	role Role
	cred unix.Ucred // of the client's process
	ctx  context.Context
	wg   sync.WaitGroup
	open chan struct{} // bounds requests under way
}

func (s *server) serve(ctx context.Context, c *frameConn) {
	ctx, cancel := context.WithCancel(ctx)
	ss := &session{r: s.r, conn: c, ctx: ctx, open: make(chan struct{}, 32)}
	defer func() {
		cancel()
		c.close()
		ss.wg.Wait()
		c.dropFDs()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
		ss.ended()
	}()
	if !ss.hello() {
		return
	}
	for {
		m, files, err := c.read()
		if err != nil {
			return
		}
		for _, f := range files {
			f.Close() // only a keeper sends descriptors, and it has a loop of its own
		}
		if stream := streams[m.Verb]; stream != nil {
			stream(ss, m)
			return
		}
		if m.Verb == verbHealth { // they must stay in order, and a goroutine for each would wake a thread
			ss.answer(m)
			continue
		}
		ss.open <- struct{}{}
		ss.wg.Go(func() {
			defer func() { <-ss.open }()
			ss.answer(m)
		})
	}
}

// hello settles the role of the connection: node and door are the processes that
// exec started as such; everybody else of the same user, and root, is a CLI.
func (ss *session) hello() bool {
	ss.conn.conn.SetReadDeadline(time.Now().Add(helloWait))
	m, _, err := ss.conn.read()
	ss.conn.conn.SetReadDeadline(time.Time{})
	var hello helloBody
	if err != nil || m.Verb != "hello" || json.Unmarshal(m.Body, &hello) != nil {
		return false
	}
	refusal := ss.admit(hello.Role)
	ss.role = hello.Role
	if refusal != nil {
		ss.note(AuditEntry{Verb: "hello", Outcome: "refused", Text: refusal.Text})
	}
	ss.conn.write(message{ID: m.ID, Error: refusal})
	return refusal == nil
}

func (ss *session) admit(role Role) *p2pnode.Error {
	cred, err := peerCred(ss.conn.conn)
	if err == nil {
		ss.cred = *cred
	}
	if err != nil || cred.Uid != 0 && int(cred.Uid) != os.Getuid() {
		return &p2pnode.Error{Code: "not-permitted", Text: "this user may not talk to this p2pnode", Fix: "run it as the user that started p2pnode, or as root", Exit: p2pnode.ExitNotPermitted}
	}
	name := map[Role]string{RoleNode: p2pnode.SelfNode, RoleDoor: p2pnode.SelfDoor}[role]
	if role == RoleCLI {
		return nil
	}
	if role == RoleNode { // one that lived on is often back before it is recognised
		select {
		case <-ss.r.adopted:
		case <-ss.ctx.Done():
		case <-time.After(keeperWait + helloWait):
		}
	}
	ok := false
	ss.r.ask(func() {
		k := ss.r.kids[name]
		ok = name != "" && k != nil && k.proc != nil && k.proc.pid == int(cred.Pid) && !k.proc.dead()
	})
	if !ok {
		return &p2pnode.Error{Code: "not-permitted", Text: "only the " + string(role) + " process of this p2pnode may do that", Exit: p2pnode.ExitNotPermitted}
	}
	return nil
}

// who is the person behind a client, by the name that this host has for him.
func (ss *session) who() string {
	if ss.role != RoleCLI {
		return "@" + string(ss.role)
	}
	if u, err := user.LookupId(strconv.Itoa(int(ss.cred.Uid))); err == nil {
		return u.Username
	}
	return "uid " + strconv.Itoa(int(ss.cred.Uid))
}

func peerCred(c *net.UnixConn) (*unix.Ucred, error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var inner error
	if err := rc.Control(func(fd uintptr) { cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return nil, err
	}
	return cred, inner
}

// ended: a node process that closes its connection is not there to claim.
func (ss *session) ended() {
	ss.r.keeper.detach(ss.conn)
	if ss.role == RoleNode {
		ss.r.do(func() { ss.r.nodeGone(ss) })
	}
}

// answer carries out one request.
func (ss *session) answer(m message) {
	verb := verbs[m.Verb]
	var out any
	var err error
	if verb == nil {
		err = &p2pnode.Error{Code: "unknown-verb", Text: "this p2pnode does not know " + quoted(m.Verb), Fix: "the client is newer or older than the daemon: use the same version", Exit: p2pnode.ExitUsage}
	} else {
		out, err = verb(ss, m.Body)
	}
	ss.audit(m, out, err)
	last, ends := out.(afterwards)
	if ends {
		out = last.answer
	}
	reply := message{ID: m.ID}
	switch {
	case err != nil:
		reply.Error = asError(err)
	case out != nil || !ends:
		reply.Body = body(out)
	}
	ss.conn.write(reply)
	if ends && err == nil {
		ss.r.do(last.then)
	}
}
