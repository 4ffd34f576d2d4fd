package exec

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"p2pnode"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Client is a connection to exec's control socket. Calls may run side by side;
// streams (Events, Logs, ServeKeeper) open a connection of their own.
type Client struct {
	dir  string
	role Role
	conn *frameConn
	done chan struct{}

	mu      sync.Mutex
	next    uint64
	waiting map[uint64]chan message // nil once the connection is gone
}

// Dial connects to the exec of the data folder dir. The error of a daemon that
// does not answer is a *p2pnode.Error with exit code 4; a role that exec does not
// grant is one with exit code 5.
func Dial(ctx context.Context, dir string, role Role) (*Client, error) {
	conn, err := connect(ctx, dir, role)
	if err != nil {
		return nil, err
	}
	c := &Client{dir: dir, role: role, conn: conn, done: make(chan struct{}), waiting: map[uint64]chan message{}}
	go c.receive() // ends with the connection
	return c, nil
}

// connect dials and says hello.
func connect(ctx context.Context, dir string, role Role) (*frameConn, error) {
	raw, err := dialSocket(ctx, SocketPath(dir))
	if err != nil {
		return nil, unreachable(dir, err)
	}
	conn := newFrameConn(raw)
	stop := context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := conn.write(message{ID: 1, Verb: "hello", Body: body(helloBody{role})}); err != nil {
		conn.close()
		return nil, unreachable(dir, err)
	}
	m, _, err := conn.read()
	if err != nil {
		conn.close()
		return nil, unreachable(dir, err)
	}
	if m.Error != nil {
		conn.close()
		return nil, m.Error
	}
	return conn, nil
}

// dialSocket connects also where the path is longer than a socket address may be,
// through the folder's descriptor.
func dialSocket(ctx context.Context, path string) (*net.UnixConn, error) {
	short, release, err := shortPath(path)
	if err != nil {
		return nil, err
	}
	defer release()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", short)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

// maxSocketPath is sizeof(sockaddr_un.sun_path) - 1.
const maxSocketPath = 107

// shortPath names a socket path by the descriptor of its folder if it is too long.
func shortPath(path string) (string, func(), error) {
	if len(path) <= maxSocketPath {
		return path, func() {}, nil
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	return "/proc/self/fd/" + strconv.Itoa(int(d.Fd())) + "/" + filepath.Base(path), func() { d.Close() }, nil
}

func unreachable(dir string, err error) error {
	return &p2pnode.Error{
		Code: "daemon-unreachable", Text: "no p2pnode answers in " + dir + " (" + plain(err) + ")",
		Fix: "start it, or name its folder with --data", Exit: p2pnode.ExitUnreachable,
	}
}

// plain is the innermost text of an error.
func plain(err error) string {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}

// Close ends the connection; calls under way fail.
func (c *Client) Close() error { return c.conn.close() }

// Done is closed when the connection is gone.
func (c *Client) Done() <-chan struct{} { return c.done }

func (c *Client) receive() {
	defer close(c.done)
	defer c.conn.dropFDs()
	defer c.conn.close()
	for {
		m, files, err := c.conn.read()
		for _, f := range files {
			f.Close()
		}
		c.mu.Lock()
		if err != nil {
			for _, ch := range c.waiting {
				close(ch)
			}
			c.waiting = nil
			c.mu.Unlock()
			return
		}
		ch := c.waiting[m.ID]
		delete(c.waiting, m.ID)
		c.mu.Unlock()
		if ch != nil {
			ch <- m // buffered: one answer per call
		}
	}
}

// call sends a request and decodes its answer into out (nil: none expected).
func (c *Client) call(ctx context.Context, verb string, in, out any) error {
	ch := make(chan message, 1)
	c.mu.Lock()
	if c.waiting == nil {
		c.mu.Unlock()
		return unreachable(c.dir, net.ErrClosed)
	}
	c.next++
	id := c.next
	c.waiting[id] = ch
	c.mu.Unlock()
	if err := c.conn.write(message{ID: id, Verb: verb, Body: body(in)}); err != nil {
		c.forget(id)
		return unreachable(c.dir, err)
	}
	select {
	case m, ok := <-ch:
		switch {
		case !ok:
			return unreachable(c.dir, net.ErrClosed)
		case m.Error != nil:
			return m.Error
		case out == nil:
			return nil
		}
		return json.Unmarshal(m.Body, out)
	case <-ctx.Done():
		c.forget(id)
		return ctx.Err()
	}
}

func (c *Client) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

// Status is the host as exec sees it.
func (c *Client) Status(ctx context.Context) (st p2pnode.ExecStatus, err error) {
	return st, c.call(ctx, "status", nil, &st)
}

// Usage is what the children of exec use, by name; exec itself is @exec.
func (c *Client) Usage(ctx context.Context) (used map[string]p2pnode.Usage, err error) {
	return used, c.call(ctx, "usage", nil, &used)
}

// Recover asks exec to look at a target and bring it back if it is dead.
func (c *Client) Recover(ctx context.Context, req p2pnode.RecoverRequest) (ans p2pnode.RecoverAnswer, err error) {
	return ans, c.call(ctx, "recover", req, &ans)
}

// RecoverFor is Recover on behalf of caller, whom the door has authenticated. Only
// the door may.
func (c *Client) RecoverFor(ctx context.Context, caller peer.ID, req p2pnode.RecoverRequest) (ans p2pnode.RecoverAnswer, err error) {
	return ans, c.call(ctx, "recover-for", recoverForBody{caller.String(), req}, &ans)
}

// Start starts what target names and waits for it to be up.
func (c *Client) Start(ctx context.Context, target string, o VerbOptions) (VerbResult, error) {
	return c.verb(ctx, verbStart, target, o)
}

// Stop stops what target names; it stays down until somebody starts it.
func (c *Client) Stop(ctx context.Context, target string, o VerbOptions) (VerbResult, error) {
	return c.verb(ctx, verbStop, target, o)
}

// Restart stops and starts what target names.
func (c *Client) Restart(ctx context.Context, target string, o VerbOptions) (VerbResult, error) {
	return c.verb(ctx, verbRestart, target, o)
}

func (c *Client) verb(ctx context.Context, verb, target string, o VerbOptions) (res VerbResult, err error) {
	return res, c.call(ctx, verb, verbBody{target, o}, &res)
}

// Challenge draws what a manager signs together with an order for this host. The node
// process's client only.
func (c *Client) Challenge(ctx context.Context) ([]byte, error) {
	var out challengeBody
	err := c.call(ctx, "challenge", nil, &out)
	return out.Challenge, err
}

// Signed hands over a manager's order, see SignAct. The node process's client only.
func (c *Client) Signed(ctx context.Context, envelope []byte) (res VerbResult, err error) {
	err = c.call(ctx, "signed", signedBody{envelope}, &res)
	return res, err
}

// Maintenance leaves target alone until the given time; zero ends it.
func (c *Client) Maintenance(ctx context.Context, target string, until time.Time) error {
	return c.call(ctx, VerbMaintain, maintenanceBody{target, until}, nil)
}

// Observe makes exec only say what it would do about target; "" is the whole host.
func (c *Client) Observe(ctx context.Context, target string, on bool) error {
	return c.call(ctx, VerbObserve, observeBody{target, on}, nil)
}

// Reload reads the configuration again; a dry run only says what would change.
func (c *Client) Reload(ctx context.Context, dryRun bool) (res ReloadResult, err error) {
	return res, c.call(ctx, "reload", reloadBody{dryRun}, &res)
}

// Shutdown begins an orderly stop of everything, or of all but the services. It
// returns when exec has accepted; Done tells when exec is gone.
func (c *Client) Shutdown(ctx context.Context, keepServices bool) error {
	return c.call(ctx, "shutdown", shutdownBody{KeepServices: keepServices}, nil)
}

// Upgrade has exec look at the binary that req names and, unless it is unfit or runs
// already, put it in its own place and then in those of door and node process. It
// returns when exec is about to be replaced; Status of a new connection tells how it
// goes on.
func (c *Client) Upgrade(ctx context.Context, req UpgradeRequest) (plan p2pnode.UpgradePlan, err error) {
	return plan, c.call(ctx, "upgrade", req, &plan)
}

// DoorRefused tells how often the door refused since it was started, by reason. The
// door's client only.
func (c *Client) DoorRefused(ctx context.Context, count map[string]uint64) error {
	return c.call(ctx, "refused", refusedBody{count}, nil)
}

func (c *Client) takeOver(ctx context.Context) error {
	return c.call(ctx, "shutdown", shutdownBody{TakeOver: true}, nil)
}

// Health is the node process's heartbeat; the first one is its hello.
func (c *Client) Health(ctx context.Context, h NodeHealth) error {
	return c.call(ctx, verbHealth, h, nil)
}

// NoteDeath passes on a peer's death notice that the door took in and verified.
func (c *Client) NoteDeath(ctx context.Context, id peer.ID, life p2pnode.Life) error {
	return c.call(ctx, "death", deathBody{id.String(), life}, nil)
}
