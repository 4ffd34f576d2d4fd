package node

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"p2pnode"
	"p2pnode/exec"
	"p2pnode/test/bubble"
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

// openLog is an exec that lets a manager read.
type openLog struct {
	Exec
	pieces chan exec.SealedLog
	begun  int
	ctx    context.Context
}

func (x *openLog) SignedLogs(ctx context.Context, raw []byte) (<-chan exec.SealedLog, error) {
	x.begun++
	x.ctx = ctx
	if string(raw) == "refused" {
		return nil, &p2pnode.Error{Code: "not-trusted", Exit: p2pnode.ExitNotPermitted}
	}
	return x.pieces, nil
}

// The answer to an order that came twice is begun once; a piece is handed out again to
// who lost it, in order and never skipped; who says good-bye, or asks no more, ends it.
func TestALogIsFetchedPieceByPiece(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		x := &openLog{pieces: make(chan exec.SealedLog, 4)}
		n := &Node{exec: x}
		if _, err := n.takeReading(t.Context(), "", []byte("early")); err == nil {
			t.Error("taken before the node runs")
		}
		n.orders.ctx = t.Context()
		take := func(raw string) (p piece) {
			answer, err := n.takeReading(t.Context(), "", []byte(raw))
			if err != nil || json.Unmarshal(answer, &p) != nil {
				t.Fatalf("%s, %v", answer, err)
			}
			return p
		}
		ask := func(raw string, number uint64) (p piece) {
			key := sha256.Sum256([]byte(raw))
			answer, err := n.tellLines(t.Context(), "", binary.BigEndian.AppendUint64(key[:], number))
			if err != nil || json.Unmarshal(answer, &p) != nil {
				t.Fatalf("%s, %v", answer, err)
			}
			return p
		}
		if p := take("refused"); p.Error == nil || p.Error.Code != "not-trusted" || p.Error.Exit != p2pnode.ExitNotPermitted {
			t.Errorf("%+v", p)
		}
		if !ask("refused", 1).Over {
			t.Error("a refused one has lines")
		}
		take("read")
		take("read")
		if x.begun != 2 {
			t.Errorf("begun %d times", x.begun)
		}
		if p := ask("read", 1); p.Piece != nil || p.Over {
			t.Errorf("nothing is there, and: %+v", p)
		}
		x.pieces <- exec.SealedLog{Sealed: []byte("one")}
		x.pieces <- exec.SealedLog{Sealed: []byte("two")}
		if !ask("read", 2).Over {
			t.Error("a piece was skipped")
		}
		for _, number := range []uint64{1, 1, 2, 2} {
			if p := ask("read", number); p.Piece == nil || string(p.Piece.Sealed) != []string{"", "one", "two"}[number] {
				t.Errorf("%d: %+v", number, p)
			}
		}
		ask("read", lastPiece)
		synctest.Wait()
		if x.ctx.Err() == nil || !ask("read", 3).Over {
			t.Error("it goes on after the good-bye")
		}
		take("left")
		for range 3 {
			time.Sleep(readingIdle - time.Second)
			ask("left", 1)
		}
		if x.ctx.Err() != nil {
			t.Error("ended while it was asked for")
		}
		time.Sleep(readingIdle + time.Second)
		synctest.Wait()
		if x.ctx.Err() == nil || len(n.readings.open) != 0 {
			t.Error("it goes on although nobody asks")
		}
		for i := range maxReadings {
			if p := take(string(rune('a' + i))); p.Error != nil {
				t.Fatal(p.Error)
			}
		}
		if p := take("one more"); p.Error == nil || p.Error.Code != "busy" {
			t.Errorf("one too many: %+v", p)
		}
	})
}
