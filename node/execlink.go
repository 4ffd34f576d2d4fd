package node

import (
	"context"
	"sync"
	"time"

	"p2pnode"
	"p2pnode/exec"
)

// LocalExec reaches the exec of dir over its control socket and connects again
// whenever exec was replaced. It starts nothing; Close ends it.
func LocalExec(dir string) *ExecLink { return &ExecLink{dir: dir} }

// ExecLink implements Exec over the control socket.
type ExecLink struct {
	dir string

	mu     sync.Mutex // guards client; held while dialling, which is short and local
	client *exec.Client
}

// execDialTimeout bounds one attempt: the socket is local, an exec that does not
// accept in this time is as good as away.
const execDialTimeout = time.Second

func (l *ExecLink) conn(ctx context.Context) (*exec.Client, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.client != nil {
		select {
		case <-l.client.Done():
			l.client.Close()
			l.client = nil
		default:
			return l.client, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, execDialTimeout)
	defer cancel()
	client, err := exec.Dial(ctx, l.dir, exec.RoleNode)
	if err != nil {
		return nil, err
	}
	l.client = client
	return client, nil
}

// Status implements Exec.
func (l *ExecLink) Status(ctx context.Context) (p2pnode.ExecStatus, error) {
	c, err := l.conn(ctx)
	if err != nil {
		return p2pnode.ExecStatus{}, err
	}
	return c.Status(ctx)
}

// Recover implements Exec.
func (l *ExecLink) Recover(ctx context.Context, req p2pnode.RecoverRequest) (p2pnode.RecoverAnswer, error) {
	c, err := l.conn(ctx)
	if err != nil {
		return p2pnode.RecoverAnswer{}, err
	}
	return c.Recover(ctx, req)
}

// Events implements Exec.
func (l *ExecLink) Events(ctx context.Context, after uint64) (<-chan p2pnode.ExecEvent, error) {
	c, err := l.conn(ctx)
	if err != nil {
		return nil, err
	}
	return c.Events(ctx, after)
}

// Health implements Exec.
func (l *ExecLink) Health(ctx context.Context, h exec.NodeHealth) error {
	c, err := l.conn(ctx)
	if err != nil {
		return err
	}
	return c.Health(ctx, h)
}

// Challenge draws a challenge of exec's, see exec.Act.
func (l *ExecLink) Challenge(ctx context.Context) ([]byte, error) {
	c, err := l.conn(ctx)
	if err != nil {
		return nil, err
	}
	return c.Challenge(ctx)
}

// Signed hands a manager's order to exec.
func (l *ExecLink) Signed(ctx context.Context, envelope []byte) (exec.VerbResult, error) {
	c, err := l.conn(ctx)
	if err != nil {
		return exec.VerbResult{}, err
	}
	return c.Signed(ctx, envelope)
}

// SignedLogs hands a manager's order to read logs to exec.
func (l *ExecLink) SignedLogs(ctx context.Context, envelope []byte) (<-chan exec.SealedLog, error) {
	c, err := l.conn(ctx)
	if err != nil {
		return nil, err
	}
	return c.SignedLogs(ctx, envelope)
}

// Close ends the connection.
func (l *ExecLink) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.client == nil {
		return nil
	}
	err := l.client.Close()
	l.client = nil
	return err
}
