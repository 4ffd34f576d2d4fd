package exec

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"p2pnode"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// asked is one answer that somebody got who wanted a service restarted.
type asked struct {
	Service string
	Outcome p2pnode.Outcome
	Reason  p2pnode.Refusal
}

// pushPart asks for the recovery of whatever fails, over and over and whatever
// holds it, and writes the answers down.
func pushPart(dir string, role Role, recover func(context.Context, *Client, p2pnode.RecoverRequest) (p2pnode.RecoverAnswer, error)) {
	ctx := guardPart(dir)
	out, err := os.OpenFile(filepath.Join(dir, "answers"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		os.Exit(1)
	}
	c, err := Dial(ctx, dir, role)
	if err != nil {
		os.Exit(1)
	}
	if role == RoleNode {
		c.Health(ctx, NodeHealth{Life: p2pnode.NewLife(1), Links: 1, Orders: 1, PeerID: "self"})
	}
	events, err := c.Events(ctx, 0)
	if err != nil {
		os.Exit(1)
	}
	for ev := range events {
		if ev.Event != p2pnode.FactFailed || ev.Service[0] == '@' {
			continue
		}
		for i := range 3 {
			ans, err := recover(ctx, c, p2pnode.RecoverRequest{Op: fmt.Sprint(ev.Seq, "-", i), Target: ev.Service, Expected: ev.Target, Agent: "pushy"})
			if err != nil {
				os.Exit(1)
			}
			raw, _ := json.Marshal(asked{ev.Service, ans.Outcome, ans.Reason})
			out.Write(append(raw, '\n'))
		}
	}
}

// somebody is a peer that the door could have authenticated.
func somebody() peer.ID {
	_, public, _ := crypto.GenerateEd25519Key(rand.Reader)
	id, _ := peer.IDFromPublicKey(public)
	return id
}

func answersOf(dir string) (out []asked) {
	f, err := os.Open(filepath.Join(dir, "answers"))
	if err != nil {
		return nil
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var a asked
		if json.Unmarshal(lines.Bytes(), &a) == nil {
			out = append(out, a)
		}
	}
	return out
}

// A hold is a hold on every path by which a service could be started again: an
// agent by the socket, a peer at the door, exec's own hand when its grace is over,
// exec's own hand when no node process is there. Nobody acts, each refusal is
// named, and when the hold ends the service comes back.
func TestAHoldHoldsOnEveryPath(t *testing.T) {
	for _, path := range []struct {
		name string
		dc   daemonConfig
		asks bool // somebody asks, and is told the reason
	}{
		{"agent", daemonConfig{NodePart: "push-node", Grace: longGrace}, true},
		{"door", daemonConfig{DoorPart: "push-door", Grace: longGrace}, true},
		{"fallback", daemonConfig{NodePart: "mute-node", Grace: p2pnode.Grace{Agent: 20 * time.Millisecond, Node: time.Minute, NodeStop: time.Minute}}, false},
		{"node process dead", daemonConfig{Grace: longGrace}, false},
	} {
		t.Run(path.name, func(t *testing.T) { holdOnPath(t, path.dc, path.asks) })
	}
}

func holdOnPath(t *testing.T, dc daemonConfig, asks bool) {
	sign := filepath.Join(t.TempDir(), "hang")
	hung := service("traced", "part:confess", sign)
	hung.Ready, hung.Watchdog = p2pnode.ReadyNotify, time.Hour
	off := service("off", "part:sleep")
	off.Recover = p2pnode.RecoverOff
	dc.Services = []p2pnode.ServiceSpec{service("maintained", "part:sleep"), service("observed", "part:sleep"), off, hung}
	h := newHost(t, dc)
	names := []string{"maintained", "observed", "off", "traced"}
	want := map[string]p2pnode.Held{"maintained": p2pnode.HeldMaintenance, "observed": p2pnode.HeldObserve, "off": p2pnode.HeldOff, "traced": p2pnode.HeldTraced}
	was := map[string]p2pnode.ServiceStatus{}
	for _, name := range names {
		was[name] = h.await(name, p2pnode.StateUp)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(h.c.Maintenance(t.Context(), "maintained", time.Now().Add(time.Hour)))
	must(h.c.Observe(t.Context(), "observed", true))
	events, err := h.c.Events(t.Context(), 0)
	must(err)
	time.Sleep(freeLife) // no backoff stands before a start
	release := seize(t, was["traced"].PID)
	for _, name := range names[:3] {
		kill9(t, was[name].PID)
	}
	must(os.WriteFile(sign, nil, 0o600)) // the traced one says itself that it hangs
	seen := map[string]p2pnode.Held{}
	for len(seen) < len(names) {
		ev := awaitAny(t, events, p2pnode.FactFailed)
		if ev.Held == want[ev.Service] {
			seen[ev.Service] = ev.Held
		}
	}
	if asks {
		eventually(t, "everybody was answered", func() bool { return len(answersOf(h.dir)) >= 3*len(names) })
	}
	time.Sleep(300 * time.Millisecond) // every grace and backoff of this test is over
	for _, a := range answersOf(h.dir) {
		if a.Outcome != p2pnode.OutcomeRefused || string(a.Reason) != string(want[a.Service]) {
			t.Errorf("%s: %+v, want refused: %s", a.Service, a, want[a.Service])
		}
	}
	for _, name := range names {
		if s := h.status(name); s.PID != 0 && s.PID != was[name].PID || s.Restarts != 0 {
			t.Errorf("%s was acted on: %+v", name, s)
		}
	}
	if !alive(was["traced"].PID) {
		t.Error("the traced process was killed")
	}
	must(h.c.Maintenance(t.Context(), "maintained", time.Time{}))
	must(h.c.Observe(t.Context(), "observed", false))
	release()
	for _, name := range []string{"maintained", "observed", "traced"} {
		h.awaitNewPID(name, was[name].PID)
	}
	if s := h.status("off"); s.PID != 0 {
		t.Errorf("off: %+v", s)
	}
}

func awaitAny(t *testing.T, events <-chan p2pnode.ExecEvent, fact p2pnode.ExecFact) p2pnode.ExecEvent {
	t.Helper()
	timeout := time.After(15 * time.Second)
	for {
		select {
		case ev, ok := <-events:
			if !ok {
				t.Fatal("events ended")
			}
			if ev.Event == fact {
				return ev
			}
		case <-timeout:
			t.Fatalf("no %s within 15 s", fact)
		}
	}
}
