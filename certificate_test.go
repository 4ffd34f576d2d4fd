package p2pnode

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// authority is a cluster with one manager, one worker and keys to misuse.
type authority struct {
	t                        *testing.T
	now                      time.Time
	root                     []byte
	rootKey, mgrKey, workKey ed25519.PrivateKey
	mgr, work                [][]byte
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, now: time.Now()}
	a.rootKey, a.mgrKey, a.workKey = newKey(t), newKey(t), newKey(t)
	var err error
	if a.root, err = NewRoot(a.rootKey, a.now); err != nil {
		t.Fatal(err)
	}
	a.mgr = a.issue(nil, a.rootKey, a.mgrKey, RoleManager)
	a.work = a.issue(a.mgr, a.mgrKey, a.workKey, RoleWorker)
	return a
}

func newKey(t *testing.T) ed25519.PrivateKey {
	_, k, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (a *authority) issue(chain [][]byte, by, to ed25519.PrivateKey, role Role) [][]byte {
	a.t.Helper()
	out, err := Issue(a.root, chain, by, to.Public().(ed25519.PublicKey), role, string(role)+"-1", a.now)
	if err != nil {
		a.t.Fatal(err)
	}
	return out
}

func TestChainGrammar(t *testing.T) {
	a := newAuthority(t)
	other := newAuthority(t)
	k := newKey(t)
	second := a.issue(a.mgr, a.mgrKey, k, RoleManager)
	cases := []struct {
		name  string
		chain [][]byte
		role  Role // "" = must be refused
	}{
		{"manager of the root", a.mgr, RoleManager},
		{"worker of a manager", a.work, RoleWorker},
		{"worker of the root", a.issue(nil, a.rootKey, k, RoleWorker), RoleWorker},
		{"manager of a manager", second, RoleManager},
		{"worker of a manager of a manager", a.issue(second, k, newKey(t), RoleWorker), RoleWorker},
		{"door of a worker", a.issue(a.work, a.workKey, newKey(t), RoleDoor), RoleDoor},
		{"door of a manager", a.issue(a.mgr, a.mgrKey, newKey(t), RoleDoor), RoleDoor},
		{"door of the root", a.issue(nil, a.rootKey, newKey(t), RoleDoor), ""},
		{"worker of a worker", a.issue(a.work, a.workKey, k, RoleWorker), ""},
		{"manager of a worker", a.issue(a.work, a.workKey, k, RoleManager), ""},
		{"door of a worker of a worker", a.issue(a.issue(a.work, a.workKey, k, RoleWorker), k, newKey(t), RoleDoor), ""},
		{"of another cluster", other.work, ""},
		{"of a role that does not exist", a.issue(a.mgr, a.mgrKey, k, "king"), ""},
		{"empty", nil, ""},
		{"longer than allowed", make([][]byte, maxChain+1), ""},
		{"rubbish", [][]byte{[]byte("rubbish")}, ""},
	}
	for _, c := range cases {
		got, err := VerifyChain(a.root, c.chain, nil)
		if c.role == "" {
			if !errors.Is(err, ErrCertificate) {
				t.Errorf("%s: taken as %q, err %v", c.name, got.Role, err)
			}
			continue
		}
		if err != nil || got.Role != c.role {
			t.Errorf("%s: role %q, err %v", c.name, got.Role, err)
		}
	}
}

func TestIssueRefusesAKeyThatIsNotTheChains(t *testing.T) {
	a := newAuthority(t)
	pub := newKey(t).Public().(ed25519.PublicKey)
	if _, err := Issue(a.root, a.mgr, a.workKey, pub, RoleWorker, "w", a.now); err == nil {
		t.Fatal("a worker's key signed in the manager's name")
	}
}

func TestDoorSpeaksForItsNode(t *testing.T) {
	a := newAuthority(t)
	door := newKey(t)
	c, err := VerifyChain(a.root, a.issue(a.work, a.workKey, door, RoleDoor), nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Node != PeerID(a.workKey.Public().(ed25519.PublicKey)) || c.ID != PeerID(door.Public().(ed25519.PublicKey)) {
		t.Fatalf("door %s of node %s", c.ID, c.Node)
	}
}

func TestRevokedAnywhereInTheChain(t *testing.T) {
	a := newAuthority(t)
	mgr := PeerID(a.mgrKey.Public().(ed25519.PublicKey))
	_, err := VerifyChain(a.root, a.work, Revocations{mgr: {}})
	if !errors.Is(err, ErrCertificate) {
		t.Fatalf("err = %v", err)
	}
}

func TestExpiryTakesPrivilegeNotMembership(t *testing.T) {
	a := newAuthority(t)
	c, err := VerifyChain(a.root, a.mgr, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !c.Privileged(a.now) {
		t.Error("a fresh manager certificate has no privilege")
	}
	if late := a.now.Add(10 * managerLife); c.Privileged(late) {
		t.Error("an expired manager certificate keeps its privilege")
	}
}

func TestEnvelopeRefusesEveryFlippedBit(t *testing.T) {
	key := newKey(t)
	raw := Seal("claim", key, []byte("I go"))
	env, err := Open("claim", raw)
	if err != nil || string(env.Payload) != "I go" || env.Signer != PeerID(key.Public().(ed25519.PublicKey)) {
		t.Fatalf("%+v, %v", env, err)
	}
	if _, err := Open("stamp", raw); !errors.Is(err, ErrEnvelope) {
		t.Error("an envelope of one domain opened under another")
	}
	for i := range raw {
		bad := append([]byte(nil), raw...)
		bad[i] ^= 1
		if _, err := Open("claim", bad); !errors.Is(err, ErrEnvelope) {
			t.Errorf("opened with byte %d flipped", i)
		}
	}
}

func FuzzOpen(f *testing.F) {
	_, key, _ := ed25519.GenerateKey(nil)
	f.Add(Seal("x", key, []byte("payload")))
	f.Add([]byte{})
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		env, err := Open("x", raw)
		if err == nil && len(env.Payload)+envelopeOverhead != len(raw) {
			t.Fatal("payload of the wrong length")
		}
	})
}

// A revoked key is refused as a leaf always, above one but for what was kept.
func TestRevocationsKeepWhatTheyName(t *testing.T) {
	key := func() ed25519.PrivateKey { _, k, _ := ed25519.GenerateKey(nil); return k }
	now := time.Now()
	rootKey, manager, old, late := key(), key(), key(), key()
	root, err := NewRoot(rootKey, now)
	if err != nil {
		t.Fatal(err)
	}
	issue := func(chain [][]byte, by, to ed25519.PrivateKey, role Role) [][]byte {
		out, err := Issue(root, chain, by, to.Public().(ed25519.PublicKey), role, "x", now)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	m := issue(nil, rootKey, manager, RoleManager)
	kept, lost := issue(m, manager, old, RoleWorker), issue(m, manager, late, RoleWorker)
	revoked := Revocations{PeerID(manager.Public().(ed25519.PublicKey)): {At: 7, Kept: []CertMark{MarkOfCert(kept[0])}}}
	for name, c := range map[string]struct {
		chain [][]byte
		ok    bool
	}{"the revoked one": {m, false}, "kept": {kept, true}, "not kept": {lost, false}, "a door below one that is kept": {issue(kept, old, key(), RoleDoor), true}} {
		if _, err := VerifyChain(root, c.chain, revoked); (err == nil) != c.ok || err != nil && !errors.Is(err, ErrRevoked) {
			t.Errorf("%s: %v", name, err)
		}
	}
	raw, err := json.Marshal(revoked)
	if err != nil {
		t.Fatal(err)
	}
	var back Revocations
	if err := json.Unmarshal(raw, &back); err != nil || !reflect.DeepEqual(back, revoked) {
		t.Errorf("%s: %v, %v", raw, back, err)
	}
}

// A demoted manager's certificates make a worker; its door is its own, and whom it let
// in stays where that is said. What begins after the demotion is not touched.
func TestADemotedManagerIsAWorker(t *testing.T) {
	key := func() ed25519.PrivateKey { _, k, _ := ed25519.GenerateKey(nil); return k }
	now := time.Now()
	rootKey, manager := key(), key()
	id := PeerID(manager.Public().(ed25519.PublicKey))
	root, err := NewRoot(rootKey, now)
	if err != nil {
		t.Fatal(err)
	}
	issue := func(chain [][]byte, by, to ed25519.PrivateKey, role Role, at time.Time) [][]byte {
		out, err := Issue(root, chain, by, to.Public().(ed25519.PublicKey), role, "x", at)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	m := issue(nil, rootKey, manager, RoleManager, now)
	again := issue(nil, rootKey, manager, RoleManager, now.Add(3*time.Hour))
	old, err := VerifyChain(root, m, nil)
	if err != nil {
		t.Fatal(err)
	}
	renewed, err := Renew(root, nil, rootKey, old, now.Add(300*24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	worker, second := key(), key()
	kept, lost := issue(m, manager, worker, RoleWorker, now), issue(m, manager, key(), RoleWorker, now)
	deputy := issue(m, manager, second, RoleManager, now)
	revoked := Revocations{}.With(id, Revocation{Demoted: true, At: now.Unix(), Kept: []CertMark{MarkOfCert(kept[0]), MarkOfCert(deputy[0])}})
	for name, c := range map[string]struct {
		chain [][]byte
		role  Role // "": refused
	}{
		"itself":                            {m, RoleWorker},
		"its door":                          {issue(m, manager, key(), RoleDoor, now), RoleDoor},
		"whom it had let in":                {kept, RoleWorker},
		"that one's door":                   {issue(kept, worker, key(), RoleDoor, now), RoleDoor},
		"a manager that it had made":        {deputy, RoleManager},
		"whom that one let in":              {issue(deputy, second, key(), RoleWorker, now), RoleWorker},
		"whom it let in and nobody knew of": {lost, ""},
		"whom it made a manager":            {issue(m, manager, key(), RoleManager, now), ""},
		"itself, renewed by who knew not":   {renewed, RoleWorker},
		"itself, promoted again":            {again, RoleManager},
		"whom it let in since":              {issue(again, manager, key(), RoleWorker, now), RoleWorker},
	} {
		got, err := VerifyChain(root, c.chain, revoked)
		if (err == nil) != (c.role != "") || err == nil && got.Role != c.role || err != nil && !errors.Is(err, ErrRevoked) {
			t.Errorf("%s: %q, %v", name, got.Role, err)
		}
	}
	if revoked.Refused(id) || !revoked.With(id, Revocation{At: 1}).Refused(id) {
		t.Error("demoted is not revoked, and revoked is more than demoted")
	}
}

// Words against a key may come in any order, any number of times.
func TestWordsAgainstAKeyCommute(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := rapid.Custom(func(t *rapid.T) Revocation {
			r := Revocation{At: rapid.Int64Range(0, 3).Draw(t, "at"), Demoted: rapid.Bool().Draw(t, "demoted")}
			for range rapid.IntRange(0, 3).Draw(t, "n") {
				r.Kept = append(r.Kept, CertMark{rapid.Byte().Draw(t, "mark") % 4})
			}
			return r
		})
		words := rapid.SliceOfN(draw, 1, 6).Draw(t, "words")
		one, other := Revocations{}, Revocations{}
		for _, w := range words {
			one = one.With("x", w)
		}
		for _, w := range rapid.Permutation(words).Draw(t, "order") {
			other = other.With("x", w).With("x", w)
		}
		if !reflect.DeepEqual(one, other) {
			t.Fatalf("%+v, in another order %+v", one, other)
		}
	})
}
