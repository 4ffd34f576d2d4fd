package overlay

import (
	"crypto/ed25519"
	"errors"
	"os"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/overlay/records"
	"p2pnode/test/memnet"
)

func keyOf(n byte) ed25519.PrivateKey {
	seed := make([]byte, ed25519.SeedSize)
	seed[0] = n
	return ed25519.NewKeyFromSeed(seed)
}

func idOfKey(k ed25519.PrivateKey) (out p2pnode.Record) {
	out.Signer = p2pnode.PeerID(k.Public().(ed25519.PublicKey))
	return out
}

// A record that proves itself is let in by the certificates inside it alone, and
// only a manager's that was made while he was one.
func TestProofInside(t *testing.T) {
	now := time.Now()
	rootKey, boss, worker, stranger := keyOf(1), keyOf(2), keyOf(3), keyOf(4)
	issue := func(root []byte, key ed25519.PrivateKey, chain [][]byte, to ed25519.PrivateKey, role p2pnode.Role) [][]byte {
		out, err := p2pnode.Issue(root, chain, key, to.Public().(ed25519.PublicKey), role, "x", now)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	newRoot := func(key ed25519.PrivateKey) []byte {
		root, err := p2pnode.NewRoot(key, now)
		if err != nil {
			t.Fatal(err)
		}
		return root
	}
	root := newRoot(rootKey)
	bossChain := issue(root, rootKey, nil, boss, p2pnode.RoleManager)
	workerChain := issue(root, boss, bossChain, worker, p2pnode.RoleWorker)
	foreign := newRoot(keyOf(9))
	foreignChain := issue(foreign, keyOf(9), nil, boss, p2pnode.RoleManager)

	m := inMemory(t, memnet.New(1, 0, 0), 1, nil)
	<-m.Admitted()
	m.mu.Lock()
	defer m.mu.Unlock()
	papers := *m.papers
	papers.Root = root
	mine := m.papers
	m.papers = &papers
	defer func() { m.papers = mine }()
	for name, c := range map[string]struct {
		signer ed25519.PrivateKey
		chain  [][]byte
		at     time.Time
		want   error // nil: let in
		any    bool  // refused, whatever the reason
	}{
		"a manager that nobody here has heard of": {boss, bossChain, now, nil, false},
		"given before his certificate ended":      {boss, bossChain, now.Add(24 * time.Hour), nil, false},
		"given after his certificate ended":       {boss, bossChain, now.Add(50 * 365 * 24 * time.Hour), records.ErrManager, true},
		"a worker":                                {worker, workerChain, now, records.ErrManager, true},
		"a worker with the manager's chain":       {worker, bossChain, now, p2pnode.ErrCertificate, true},
		"a stranger with the manager's chain":     {stranger, bossChain, now, p2pnode.ErrCertificate, true},
		"no chain":                                {boss, nil, now, p2pnode.ErrCertificate, true},
		"another cluster's manager":               {boss, foreignChain, now, p2pnode.ErrCertificate, true},
	} {
		admit := m.admitProof(func([]byte) ([][]byte, time.Time) { return c.chain, c.at })
		err := admit(idOfKey(c.signer))
		if (err != nil) != c.any || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// A file of kept records that is damaged, cut or somebody else's is no harm.
func TestKeptFileIsNotBelieved(t *testing.T) {
	m := inMemory(t, memnet.New(1, 0, 0), 1, nil)
	<-m.Admitted()
	for _, text := range []string{"", "{", "[]", `[{"domain":"order","envelope":"AAAA"}]`, `[{"domain":"peer","envelope":"AAAA"}]`} {
		if err := os.WriteFile(m.keptPath(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		m.restoreKept()
	}
}
