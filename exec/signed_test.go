package exec

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"p2pnode"
)

type orderCase struct {
	key  ed25519.PrivateKey
	act  Act
	want string
}

// Whoever carries an order can do nothing with it but carry it: each way to forge, alter,
// repeat or misdirect one is refused, and so is everybody who is no manager in force of
// the cluster that this host trusts.
func TestWhoMayGiveOrders(t *testing.T) {
	dir := t.TempDir()
	own, err := p2pnode.LoadOrCreateKey(filepath.Join(dir, "node.key"))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	key := func() ed25519.PrivateKey { _, k, _ := ed25519.GenerateKey(nil); return k }
	rootKey, manager, worker, ended, demoted, revoked := key(), key(), key(), key(), key(), key()
	id := func(k ed25519.PrivateKey) string { return p2pnode.PeerID(k.Public().(ed25519.PublicKey)).String() }
	root, err := p2pnode.NewRoot(rootKey, now)
	if err != nil {
		t.Fatal(err)
	}
	issue := func(k ed25519.PrivateKey, role p2pnode.Role, at time.Time) [][]byte {
		chain, err := p2pnode.Issue(root, nil, rootKey, k.Public().(ed25519.PublicKey), role, "x", at)
		if err != nil {
			t.Fatal(err)
		}
		return chain
	}
	write := func(name string, v any) {
		raw, err := json.Marshal(v)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), raw, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	trust := func(on bool) { write("cluster.json", pinnedPapers{Root: root, Trusted: on}) }
	trust(true)
	peerOf := func(k ed25519.PrivateKey) p2pnode.Revocations {
		return p2pnode.Revocations{}.With(p2pnode.PeerID(k.Public().(ed25519.PublicKey)), p2pnode.Revocation{At: now.Unix()})
	}
	refused := peerOf(revoked).With(p2pnode.PeerID(demoted.Public().(ed25519.PublicKey)), p2pnode.Revocation{At: now.Unix(), Demoted: true})
	write("trust.json", pinnedPapers{Revoked: refused})

	r := &runner{cfg: Config{Dir: dir}}
	chains := map[string][][]byte{
		id(manager): issue(manager, p2pnode.RoleManager, now), id(worker): issue(worker, p2pnode.RoleWorker, now),
		id(ended): issue(ended, p2pnode.RoleManager, now.Add(-400*24*time.Hour)), id(demoted): issue(demoted, p2pnode.RoleManager, now), id(revoked): issue(revoked, p2pnode.RoleManager, now),
	}
	good := func(k ed25519.PrivateKey) Act {
		return Act{Host: id(own), Challenge: r.challenges.draw(time.Now()), Verb: "stop", Target: "web", Chain: chains[id(k)]}
	}
	give := func(k ed25519.PrivateKey, a Act) error {
		raw, err := SignAct(k, a)
		if err != nil {
			t.Fatal(err)
		}
		signer, back, err := readAct(raw, verbStart, verbStop, verbRestart, VerbMaintain, VerbObserve, verbLogs)
		if err != nil {
			return err
		}
		return r.mayAct(signer, back)
	}
	code := func(err error) string {
		e, _ := errors.AsType[*p2pnode.Error](err)
		if e == nil {
			return ""
		}
		return e.Code
	}
	if err := give(manager, good(manager)); err != nil {
		t.Fatalf("a manager's order: %v", err)
	}
	used := good(manager)
	give(manager, used)
	late := good(manager)
	late.Challenge = r.challenges.draw(now.Add(-challengeLife))
	cases := func() map[string]orderCase {
		return map[string]orderCase{
			"again":                         {manager, used, "stale-order"},
			"too late":                      {manager, late, "stale-order"},
			"a challenge of nobody's":       {manager, func() Act { a := good(manager); a.Challenge = make([]byte, 16); return a }(), "stale-order"},
			"for another host":              {manager, func() Act { a := good(manager); a.Host = id(worker); return a }(), "wrong-host"},
			"a worker's":                    {worker, good(worker), "not-permitted"},
			"a worker's with a's papers":    {worker, func() Act { a := good(worker); a.Chain = chains[id(manager)]; return a }(), "not-permitted"},
			"of one whose papers ended":     {ended, good(ended), "not-permitted"},
			"of one that was demoted":       {demoted, good(demoted), "not-permitted"},
			"of one that was revoked":       {revoked, good(revoked), "not-permitted"},
			"without papers":                {manager, func() Act { a := good(manager); a.Chain = nil; return a }(), "not-permitted"},
			"the root's own":                {rootKey, func() Act { a := good(manager); a.Chain = [][]byte{root}; return a }(), "not-permitted"},
			"a verb that managers have not": {manager, func() Act { a := good(manager); a.Verb = "shutdown"; return a }(), "bad-request"},
		}
	}
	for _, verb := range []string{verbStart, verbStop, verbRestart, VerbMaintain, VerbObserve, verbLogs} {
		for name, c := range cases() {
			if c.act.Verb == "stop" {
				c.act.Verb = verb
			}
			if err := give(c.key, c.act); code(err) != c.want {
				t.Errorf("%s, %s: %v, want %s", verb, name, err, c.want)
			}
		}
	}
	for verb, others := range map[string][]string{verbLogs: {verbStart, verbStop, verbRestart}, verbStop: {verbLogs}} {
		a := good(manager)
		a.Verb = verb
		raw, _ := SignAct(manager, a)
		if _, _, err := readAct(raw, others...); code(err) != "bad-request" {
			t.Errorf("%s was taken for another verb: %v", verb, err)
		}
	}
	trust(false)
	if err := give(manager, good(manager)); code(err) != notTrusted || p2pnode.ExitCode(err) != p2pnode.ExitNotPermitted {
		t.Errorf("on a host that does not trust: %v", err)
	}
	trust(true)
	raw, err := SignAct(manager, good(manager))
	if err != nil {
		t.Fatal(err)
	}
	for n := range raw {
		bad := append([]byte(nil), raw...)
		bad[n] ^= 1
		if signer, a, err := readAct(bad, verbStop); err == nil && r.mayAct(signer, a) == nil {
			t.Fatalf("byte %d changed, and it was obeyed", n)
		}
	}
	if _, _, err := readAct(make([]byte, maxSigned+1), verbStop); err == nil {
		t.Error("an endless order was read")
	}
	// Any member may ask for challenges. They crowd out nobody's, and nor do orders of
	// those who may not give any.
	mine := good(manager)
	for range 2 * maxChallenges {
		r.challenges.draw(time.Now())
	}
	wasted := good(manager)
	give(worker, Act{Host: wasted.Host, Challenge: wasted.Challenge, Verb: "stop", Target: "web", Chain: chains[id(worker)]})
	if err := errors.Join(give(manager, mine), give(manager, wasted)); err != nil {
		t.Errorf("after a flood of challenges: %v", err)
	}
	// A clock that stands before the program was built makes no ended certificate good.
	chains[id(ended)] = issue(ended, p2pnode.RoleManager, now.Add(-364*24*time.Hour))
	if err := give(ended, good(ended)); err != nil {
		t.Errorf("a day before its end: %v", err)
	}
	r.cfg.Built = now.Add(10 * 24 * time.Hour)
	if err := give(ended, good(ended)); code(err) != "not-permitted" {
		t.Errorf("ended by the day of the build: %v", err)
	}
}

// What is remembered of challenges is bounded, and gone with their time.
func TestSpentChallengesAreForgotten(t *testing.T) {
	var c challenges
	now := time.Now()
	spend := func(at time.Time) bool { return c.spend(c.draw(at), at) }
	for range maxChallenges {
		if !spend(now) {
			t.Fatal("a fresh challenge is not good")
		}
	}
	if spend(now) {
		t.Error("more orders than can be remembered")
	}
	if later := now.Add(challengeLife); !spend(later) || len(c.spent) != 1 {
		t.Errorf("%d are remembered after their time", len(c.spent))
	}
}

// Only the node process carries orders, and it may give none itself.
func TestOrdersAreCarriedByTheNode(t *testing.T) {
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:sleep")}})
	h.await("web", p2pnode.StateUp)
	if _, err := h.c.Challenge(t.Context()); p2pnode.ExitCode(err) != p2pnode.ExitNotPermitted {
		t.Errorf("a client drew a challenge: %v", err)
	}
	if _, err := h.c.Signed(t.Context(), []byte("x")); p2pnode.ExitCode(err) != p2pnode.ExitNotPermitted {
		t.Errorf("a client handed over an order: %v", err)
	}
	node := &session{role: RoleNode}
	for _, verb := range []string{verbStart, verbStop, verbRestart, VerbMaintain, VerbObserve} {
		if _, err := verbs[verb](node, json.RawMessage(`{"target":"web"}`)); p2pnode.ExitCode(err) != p2pnode.ExitNotPermitted {
			t.Errorf("the node process gave an order of its own: %s, %v", verb, err)
		}
	}
}
