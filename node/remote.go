package node

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/exec"
)

// Orders of managers for services of other hosts. A routed call is answered in less
// than a second or carried again another way, and a service may take longer to stop: so
// an order is handed over by one call, and its outcome asked for by others. The node
// process decides nothing: exec does, see exec.Act.

const (
	routedChallenge = "act-challenge"
	routedAct       = "act"
	routedOutcome   = "act-outcome"

	maxOrders  = 64 // whose outcome is remembered
	maxUnder   = 16 // that exec has in hand at once
	maxOrder   = 32 << 10
	orderTime  = 25 * time.Second
	outcomeGap = 100 * time.Millisecond
)

// signedExec is the part of exec that takes managers' orders.
type signedExec interface {
	Challenge(ctx context.Context) ([]byte, error)
	Signed(ctx context.Context, envelope []byte) (exec.VerbResult, error)
}

// outcome is what became of an order.
type outcome struct {
	Done   bool            `json:"done"`
	Result exec.VerbResult `json:"result,omitzero"`
	Error  *p2pnode.Error  `json:"error,omitempty"`
}

// orders are those that this host was given, by the hash of their envelopes.
type orders struct {
	wg sync.WaitGroup

	mu    sync.Mutex
	ctx   context.Context // of the node's run; nil before it
	seen  map[[32]byte]*outcome
	row   [][32]byte
	under int // how many are under way
}

var errBusy = errors.New("too many orders at once, or one that is too long")

// runOrders waits, at the end, for orders under way.
func (n *Node) runOrders(ctx context.Context) error {
	n.orders.mu.Lock()
	n.orders.ctx = ctx
	n.orders.mu.Unlock()
	<-ctx.Done()
	n.orders.mu.Lock()
	n.orders.ctx = nil // whoever found it has begun by now
	n.orders.mu.Unlock()
	n.orders.wg.Wait()
	return nil
}

func (n *Node) signedExec() (signedExec, error) {
	x, ok := n.exec.(signedExec)
	if !ok {
		return nil, errors.New("this host's exec takes no orders from afar")
	}
	return x, nil
}

func (n *Node) giveChallenge(ctx context.Context, _ peer.ID, _ []byte) ([]byte, error) {
	x, err := n.signedExec()
	if err != nil {
		return nil, err
	}
	return x.Challenge(ctx)
}

// takeOrder begins an order, once however often it comes.
func (n *Node) takeOrder(_ context.Context, _ peer.ID, raw []byte) ([]byte, error) {
	x, err := n.signedExec()
	if err != nil {
		return nil, err
	}
	key := sha256.Sum256(raw)
	o := &n.orders
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ctx == nil || o.ctx.Err() != nil {
		return nil, errStarting
	}
	if o.seen[key] != nil {
		return nil, nil
	}
	if o.seen == nil {
		o.seen = map[[32]byte]*outcome{}
	}
	if len(raw) > maxOrder || o.under >= maxUnder {
		return nil, errBusy
	}
	if len(o.row) >= maxOrders {
		done := slices.IndexFunc(o.row, func(k [32]byte) bool { return o.seen[k].Done }) // there are more than maxUnder
		delete(o.seen, o.row[done])
		o.row = slices.Delete(o.row, done, done+1)
	}
	o.seen[key], o.row = &outcome{}, append(o.row, key)
	o.under++
	ctx, cancel := context.WithTimeout(o.ctx, orderTime)
	o.wg.Go(func() {
		defer cancel()
		res, err := x.Signed(ctx, raw)
		out := outcome{Done: true, Result: res, Error: told(err)}
		o.mu.Lock()
		defer o.mu.Unlock()
		*o.seen[key] = out // it was under way until now, and is kept for that
		o.under--
	})
	return nil, nil
}

// told is err as another host is told of it.
func told(err error) *p2pnode.Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*p2pnode.Error](err); ok {
		return e
	}
	return &p2pnode.Error{Code: "failed", Text: err.Error()}
}

// tellOutcome answers who knows an order's hash.
func (n *Node) tellOutcome(_ context.Context, _ peer.ID, raw []byte) ([]byte, error) {
	o := &n.orders
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(raw) != sha256.Size || o.seen[[32]byte(raw)] == nil {
		return nil, errors.New("no such order")
	}
	return json.Marshal(o.seen[[32]byte(raw)])
}

// remote gives orders; it is manage.Remote.
type remote struct{ n *Node }

// Act implements manage.Remote.
func (r remote) Act(ctx context.Context, host peer.ID, verb, target string, options exec.VerbOptions) (exec.VerbResult, error) {
	o := r.n.overlay
	challenge, _, err := o.Route(ctx, host, routedChallenge, nil)
	if err != nil {
		return exec.VerbResult{}, err
	}
	raw, err := exec.SignAct(o.Key(), exec.Act{Host: host.String(), Challenge: challenge, Verb: verb, Target: target, Options: options, Chain: r.n.chain()})
	if err != nil {
		return exec.VerbResult{}, err
	}
	if _, _, err := o.Route(ctx, host, routedAct, raw); err != nil {
		return exec.VerbResult{}, err
	}
	key := sha256.Sum256(raw)
	for {
		answer, _, err := o.Route(ctx, host, routedOutcome, key[:])
		var out outcome
		if err == nil {
			err = json.Unmarshal(answer, &out)
		}
		switch {
		case err != nil:
			return exec.VerbResult{}, fmt.Errorf("what became of it is not known: %w", err)
		case out.Error != nil:
			return exec.VerbResult{}, out.Error
		case out.Done:
			return out.Result, nil
		}
		select {
		case <-ctx.Done():
			return exec.VerbResult{}, fmt.Errorf("what became of it is not known: %w", ctx.Err())
		case <-time.After(outcomeGap):
		}
	}
}
