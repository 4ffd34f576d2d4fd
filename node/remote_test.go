package node

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/exec"
)

// slowExec obeys when it is told to.
type slowExec struct {
	Exec
	begun chan string
	free  chan error
}

func (x *slowExec) Challenge(context.Context) ([]byte, error) { return []byte("c"), nil }

func (x *slowExec) Signed(ctx context.Context, raw []byte) (exec.VerbResult, error) {
	x.begun <- string(raw)
	select {
	case err := <-x.free:
		return exec.VerbResult{OK: err == nil}, err
	case <-ctx.Done():
		return exec.VerbResult{}, ctx.Err()
	}
}

// An order that comes twice, by two ways, is begun once; its outcome is told to who
// knows its hash, when it is there; the end of the node process waits for none.
func TestAnOrderIsBegunOnce(t *testing.T) {
	x := &slowExec{begun: make(chan string, 8), free: make(chan error)}
	n := &Node{exec: x}
	if _, err := n.takeOrder(t.Context(), "", []byte("early")); err == nil {
		t.Error("taken before the node runs")
	}
	ctx, end := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- n.runOrders(ctx) }()
	take := func(raw string) {
		for began := time.Now(); ; time.Sleep(time.Millisecond) {
			_, err := n.takeOrder(t.Context(), "", []byte(raw))
			if err == nil {
				return
			}
			if time.Since(began) > 10*time.Second {
				t.Fatal(err)
			}
		}
	}
	ask := func(raw string) (out outcome) {
		key := sha256.Sum256([]byte(raw))
		answer, err := n.tellOutcome(t.Context(), "", key[:])
		if err == nil {
			err = json.Unmarshal(answer, &out)
		}
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	done := func(raw string) outcome {
		for began := time.Now(); ; time.Sleep(time.Millisecond) {
			if out := ask(raw); out.Done {
				return out
			}
			if time.Since(began) > 10*time.Second {
				t.Fatal("no outcome")
			}
		}
	}
	take("stop")
	take("stop")
	if got := <-x.begun; got != "stop" || ask("stop").Done {
		t.Errorf("begun: %q, done already: %v", got, ask("stop").Done)
	}
	x.free <- nil
	if out := done("stop"); !out.Result.OK || out.Error != nil {
		t.Errorf("%+v", out)
	}
	take("stop")
	take("refused")
	if got := <-x.begun; got != "refused" {
		t.Errorf("begun again: %q", got)
	}
	x.free <- &p2pnode.Error{Code: "not-trusted", Exit: p2pnode.ExitNotPermitted}
	if out := done("refused"); out.Error == nil || out.Error.Code != "not-trusted" || out.Error.Exit != p2pnode.ExitNotPermitted {
		t.Errorf("%+v", out)
	}
	if _, err := n.tellOutcome(t.Context(), "", []byte("short")); err == nil {
		t.Error("an outcome for a guess")
	}
	take("hangs")
	<-x.begun
	end()
	if err := <-over; err != nil {
		t.Error(err)
	}
	if _, err := n.takeOrder(t.Context(), "", []byte("late")); err == nil {
		t.Error("taken after the end")
	}
}
