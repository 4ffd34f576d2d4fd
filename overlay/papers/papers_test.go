package papers

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
)

var t0 = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func newKey(t testing.TB) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func idOf(key ed25519.PrivateKey) peer.ID { return p2pnode.PeerID(key.Public().(ed25519.PublicKey)) }

// found makes a cluster in a folder of its own and its first issuer.
func found(t testing.TB) *Issuer {
	t.Helper()
	key, dir := newKey(t), t.TempDir()
	c, err := Found(dir, key, "first", t0)
	if err != nil {
		t.Fatal(err)
	}
	return &Issuer{Cluster: c, Key: key, Readers: LoadReaders(dir), Ledger: &Ledger{}}
}

func (i *Issuer) token(t testing.TB, role p2pnode.Role, ttl time.Duration, uses int) Token {
	t.Helper()
	tok, g, err := NewToken(i.Cluster.Root, role, ttl, uses, t0)
	if err != nil {
		t.Fatal(err)
	}
	i.Ledger.Set(idOf(i.Key), g)
	return tok
}

// ask runs a whole admission and gives the joiner's new papers.
func ask(t testing.TB, i *Issuer, key ed25519.PrivateKey, tok *Token, local bool, now time.Time) (*Cluster, [][]byte, Admitted, error) {
	t.Helper()
	raw, err := NewRequest(key, "joiner", tok)
	if err != nil {
		t.Fatal(err)
	}
	if len(raw) > MaxRequest {
		t.Fatalf("a request of %d bytes", len(raw))
	}
	a, err := i.Admit(raw, local, now)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c, err := Accept(dir, key, tok, a.Answer)
	return c, LoadReaders(dir), a, err
}

func TestFoundingSurvivesARestart(t *testing.T) {
	key, dir := newKey(t), t.TempDir()
	if c, err := Load(dir, key); c != nil || err != nil {
		t.Fatalf("papers in an empty folder: %v, %v", c, err)
	}
	c, err := Found(dir, key, "first", t0)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Load(dir, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := again.Certificate()
	if err != nil || cert.Role != p2pnode.RoleManager || cert.Name != "first" || again.ID() != c.ID() || !again.Trusted {
		t.Fatalf("%+v, %v", cert, err)
	}
	if !again.Born().Equal(t0) {
		t.Errorf("born %v", again.Born())
	}
	if len(LoadReaders(dir)) != 1 {
		t.Error("the founder does not hold the reader's key")
	}
	for _, f := range []string{clusterFile, readerFile, rootFile} {
		if info, err := os.Stat(filepath.Join(dir, f)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, info, err)
		}
	}
}

func TestPapersOfAnotherNodeAreRefused(t *testing.T) {
	i := found(t)
	dir := t.TempDir()
	if err := i.Cluster.Save(dir); err != nil {
		t.Fatal(err)
	}
	_, err := Load(dir, newKey(t))
	if e, ok := errors.AsType[*p2pnode.Error](err); !ok || e.Code != "cluster-papers" || e.Fix == "" {
		t.Fatalf("err = %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, clusterFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir, i.Key); err == nil {
		t.Fatal("half a file was taken for papers")
	}
}

func TestEveryDamagedPaperIsRefused(t *testing.T) {
	i, other := found(t), found(t)
	cases := map[string]func(*Cluster){
		"other root":       func(c *Cluster) { c.Root = other.Cluster.Root },
		"no chain":         func(c *Cluster) { c.Chain = nil },
		"short gossip key": func(c *Cluster) { c.Gossip = c.Gossip[1:] },
		"no reader":        func(c *Cluster) { c.Reader = nil },
	}
	for name, spoil := range cases {
		c := *i.Cluster
		spoil(&c)
		dir := t.TempDir()
		raw, _ := json.Marshal(c)
		if err := os.WriteFile(filepath.Join(dir, clusterFile), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(dir, i.Key); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestAdmission(t *testing.T) {
	late := t0.Add(Window + time.Second)
	cases := []struct {
		name  string
		token string // "", worker, manager, used, foreign, unknown
		local bool
		now   time.Time
		want  p2pnode.Role
		why   Refusal
	}{
		{"neighbour in the window", "", true, t0.Add(Window), p2pnode.RoleWorker, ""},
		{"neighbour after it", "", true, late, "", RefusedClosed},
		{"far away in the window", "", false, t0, "", RefusedFar},
		{"worker's token from afar", "worker", false, t0, p2pnode.RoleWorker, ""},
		{"worker's token after the window", "worker", false, late, p2pnode.RoleWorker, ""},
		{"manager's token", "manager", false, t0, p2pnode.RoleManager, ""},
		{"token that ran out", "worker", true, t0.Add(time.Hour), "", RefusedExpired},
		{"token used before", "used", true, t0, "", RefusedUsed},
		{"token of another cluster", "foreign", true, t0, "", RefusedForeign},
		{"token that nobody made", "unknown", true, t0, "", RefusedUnknown},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			i := found(t)
			papers, reader, a, err := ask(t, i, newKey(t), tokenFor(t, i, c.token), c.local, c.now)
			if a.Role != c.want || a.Refused != c.why {
				t.Fatalf("role %q, refused %q", a.Role, a.Refused)
			}
			if c.want == "" {
				if e, ok := errors.AsType[*p2pnode.Error](err); !ok || e.Code != string(c.why) || e.Fix == "" {
					t.Fatalf("the joiner hears %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if (len(reader) > 0) != (c.want == p2pnode.RoleManager) {
				t.Errorf("a %s got a reader key of %d bytes", c.want, len(reader))
			}
			if papers.Trusted != (c.token != "") {
				t.Errorf("trusted: %v", papers.Trusted)
			}
			if (a.Grant != nil) != (c.token != "") {
				t.Errorf("grant %v", a.Grant)
			}
		})
	}
}

func tokenFor(t *testing.T, i *Issuer, kind string) *Token {
	t.Helper()
	var tok Token
	switch kind {
	case "":
		return nil
	case "foreign":
		tok = found(t).token(t, p2pnode.RoleWorker, time.Hour, 1)
	case "unknown":
		tok = i.token(t, p2pnode.RoleWorker, time.Hour, 1)
		i.Ledger = &Ledger{}
	case "used":
		tok = i.token(t, p2pnode.RoleWorker, time.Hour, 1)
		if _, ok := i.Ledger.Use(idOf(newKey(t)), tok.key().Public().(ed25519.PublicKey), idOf(newKey(t))); !ok {
			t.Fatal("not counted")
		}
	default:
		tok = i.token(t, p2pnode.Role(kind), time.Hour, 1)
	}
	return &tok
}

func TestAnOpenedWindow(t *testing.T) {
	i := found(t)
	late := t0.Add(24 * time.Hour)
	i.Open = true
	if _, _, a, err := ask(t, i, newKey(t), nil, true, late); err != nil || a.Role != p2pnode.RoleWorker {
		t.Fatalf("%+v, %v", a, err)
	}
	if _, _, a, _ := ask(t, i, newKey(t), nil, false, late); a.Refused != RefusedFar {
		t.Fatalf("the door is open to neighbours only: %+v", a)
	}
	// One who was approved comes in from anywhere, and nobody else.
	may := newKey(t)
	i.Open, i.Approved = false, func(id peer.ID) bool { return id == idOf(may) }
	if _, _, a, err := ask(t, i, may, nil, false, late); err != nil || a.Role != p2pnode.RoleWorker {
		t.Fatalf("%+v, %v", a, err)
	}
	other := newKey(t)
	_, _, a, err := ask(t, i, other, nil, true, late)
	if e, ok := errors.AsType[*p2pnode.Error](err); a.Refused != RefusedClosed || !ok || !strings.Contains(e.Fix, "p2pnode approve "+Code(idOf(other))) {
		t.Fatalf("%+v, %v", a, err)
	}
}

func TestWorkersCertifyNobody(t *testing.T) {
	i := found(t)
	workerKey := newKey(t)
	c, _, _, err := ask(t, i, workerKey, nil, true, t0)
	if err != nil {
		t.Fatal(err)
	}
	worker := &Issuer{Cluster: c, Key: workerKey, Ledger: &Ledger{}}
	if _, _, a, _ := ask(t, worker, newKey(t), nil, true, t0); a.Refused != RefusedIssuer {
		t.Fatalf("%+v", a)
	}
}

func TestExpiryTakesAdmissionAway(t *testing.T) {
	i := found(t)
	tok := i.token(t, p2pnode.RoleWorker, time.Hour, 1)
	if _, _, a, _ := ask(t, i, newKey(t), &tok, true, t0.Add(10*365*24*time.Hour)); a.Refused != RefusedIssuer {
		t.Fatalf("%+v", a)
	}
}

func TestAStolenRequestAdmitsTheThiefNot(t *testing.T) {
	i := found(t)
	tok := i.token(t, p2pnode.RoleManager, time.Hour, 5)
	raw, err := NewRequest(newKey(t), "joiner", &tok)
	if err != nil {
		t.Fatal(err)
	}
	a, err := i.Admit(raw, true, t0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Accept(t.TempDir(), newKey(t), nil, a.Answer); err == nil {
		t.Error("somebody else accepted the answer")
	}
	if bytes.Contains(a.Answer, i.Readers[0]) {
		t.Error("the reader's private key lies open in the answer")
	}
	if bytes.Contains(raw, tok.secret[:]) {
		t.Error("the token's secret lies open in the request")
	}
	// The thief signs the proof that it overheard into a request of its own.
	env, _ := p2pnode.Open(requestDomain, raw)
	stolen := p2pnode.Seal(requestDomain, newKey(t), env.Payload)
	if a, _ := i.Admit(stolen, true, t0); a.Role != "" {
		t.Errorf("the thief became a %s", a.Role)
	}
}

func TestATokenPinsTheCluster(t *testing.T) {
	real, fake := found(t), found(t)
	tok := real.token(t, p2pnode.RoleWorker, time.Hour, 1)
	key := newKey(t)
	raw, err := NewRequest(key, "joiner", nil) // what a fake member would ask in its name
	if err != nil {
		t.Fatal(err)
	}
	a, err := fake.Admit(raw, true, t0)
	if err != nil || a.Role == "" {
		t.Fatalf("%+v, %v", a, err)
	}
	dir := t.TempDir()
	_, err = Accept(dir, key, &tok, a.Answer)
	if e, ok := errors.AsType[*p2pnode.Error](err); !ok || e.Code != "foreign-cluster" {
		t.Fatalf("err = %v", err)
	}
	if c, _ := Load(dir, key); c != nil {
		t.Error("papers were written all the same")
	}
}

func TestEveryFlippedBitOfARequestIsRefused(t *testing.T) {
	i := found(t)
	tok := i.token(t, p2pnode.RoleWorker, time.Hour, 100)
	raw, err := NewRequest(newKey(t), "joiner", &tok)
	if err != nil {
		t.Fatal(err)
	}
	for n := range raw {
		bad := bytes.Clone(raw)
		bad[n] ^= 4
		if a, err := i.Admit(bad, true, t0); err != nil || a.Role != "" {
			t.Fatalf("byte %d: %+v, %v", n, a, err)
		}
	}
}

func TestPromotion(t *testing.T) {
	i := found(t)
	key, dir := newKey(t), t.TempDir()
	raw, _ := NewRequest(key, "w", nil)
	a, err := i.Admit(raw, true, t0)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Accept(dir, key, nil, a.Answer)
	if err != nil {
		t.Fatal(err)
	}
	box, _ := BoxPublic(key)
	older, _, err := NewReader()
	if err != nil {
		t.Fatal(err)
	}
	i.Readers = append(i.Readers, older)
	p, err := i.Promotion(idOf(key), "w", box, t0)
	if err != nil {
		t.Fatal(err)
	}
	next, err := c.AcceptPromotion(dir, key, p, nil)
	readers := LoadReaders(dir)
	if err != nil || !slices.EqualFunc(readers, i.Readers, bytes.Equal) {
		t.Fatalf("%d reader keys, %v", len(readers), err)
	}
	cert, _ := next.Certificate()
	if !cert.Privileged(t0) || len(LoadReaders(dir)) != 2 {
		t.Fatalf("%+v", cert)
	}
	// The new manager lets others in by itself, and its workers are members.
	second := &Issuer{Cluster: next, Key: key, Readers: readers, Ledger: &Ledger{}}
	if _, _, a, err := ask(t, second, newKey(t), nil, true, t0); err != nil || a.Role != p2pnode.RoleWorker {
		t.Fatalf("%+v, %v", a, err)
	}
	other := found(t)
	foreign, err := other.Promotion(idOf(key), "w", box, t0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := next.AcceptPromotion(dir, key, foreign, nil); err == nil {
		t.Error("promoted by another cluster")
	}
	if _, err := next.AcceptPromotion(dir, key, a.Answer, nil); err == nil {
		t.Error("a worker's certificate passed for a promotion")
	}
}

func TestTokenText(t *testing.T) {
	i := found(t)
	tok := i.token(t, p2pnode.RoleWorker, time.Hour, 1)
	got, err := ParseToken("  " + tok.String() + "\n")
	if err != nil || got != tok {
		t.Fatalf("%v, %v", got, err)
	}
	s := tok.String()
	for n := range s {
		other := byte('a')
		if s[n] == other {
			other = 'b'
		}
		for _, bad := range []string{s[:n] + s[n+1:], s[:n] + string(other) + s[n+1:], s[:n]} {
			if _, err := ParseToken(bad); err == nil {
				t.Fatalf("taken: %q for %q", bad, s)
			}
		}
	}
	if !got.Matches(i.Cluster.Root) || got.Matches(found(t).Cluster.Root) {
		t.Error("the pin is wrong")
	}
	if !strings.HasPrefix(i.Cluster.ID(), got.Cluster()) {
		t.Errorf("token of %s, cluster %s", got.Cluster(), i.Cluster.ID())
	}
}

func TestTokenFile(t *testing.T) {
	tok := found(t).token(t, p2pnode.RoleWorker, time.Hour, 1)
	path := filepath.Join(t.TempDir(), "token")
	if _, err := ReadTokenFile(path); err == nil {
		t.Error("a file that is not there was read")
	}
	for text, ok := range map[string]bool{"# for host b\n\n" + tok.String() + "\n": true, "": false, "# nothing\n": false} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadTokenFile(path); (err == nil) != ok || ok && got != tok {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestTokenOptions(t *testing.T) {
	i := found(t)
	for _, c := range []struct {
		role p2pnode.Role
		ttl  time.Duration
		uses int
	}{{p2pnode.RoleDoor, time.Hour, 1}, {"", time.Hour, 1}, {p2pnode.RoleWorker, 0, 1}, {p2pnode.RoleWorker, MaxTokenTTL + 1, 1}, {p2pnode.RoleWorker, time.Hour, 0}, {p2pnode.RoleWorker, time.Hour, MaxTokenUses + 1}} {
		_, _, err := NewToken(i.Cluster.Root, c.role, c.ttl, c.uses, t0)
		if p2pnode.ExitCode(err) != p2pnode.ExitUsage {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestUsesAddUpOverManagers(t *testing.T) {
	i := found(t)
	tok := i.token(t, p2pnode.RoleWorker, time.Hour, 2)
	second := &Issuer{Cluster: i.Cluster, Key: i.Key, Ledger: &Ledger{}}
	public := tok.key().Public().(ed25519.PublicKey)
	first, _ := i.Ledger.Find(public)
	mgr := idOf(newKey(t))
	second.Ledger.Set(idOf(i.Key), first)
	// Both let one in; each hears of the other's use by its record.
	joiner := newKey(t)
	a, _ := i.Ledger.Use(idOf(i.Key), public, idOf(joiner))
	b, _ := second.Ledger.Use(mgr, public, idOf(newKey(t)))
	i.Ledger.Set(mgr, b)
	second.Ledger.Set(idOf(i.Key), a)
	for _, iss := range []*Issuer{i, second} {
		if _, _, a, _ := ask(t, iss, newKey(t), &tok, true, t0); a.Refused != RefusedUsed {
			t.Errorf("%+v", a)
		}
		// One that joined before and lost the answer is no further use.
		if _, _, a, err := ask(t, iss, joiner, &tok, true, t0); err != nil || a.Role == "" {
			t.Errorf("the same node again: %+v, %v", a, err)
		}
	}
	if g, _ := i.Ledger.Find(public); len(g.Used) != 2 {
		t.Errorf("%d uses", len(g.Used))
	}
}

func TestAnEndedTokenStaysEnded(t *testing.T) {
	i := found(t)
	tok := i.token(t, p2pnode.RoleWorker, time.Hour, 2)
	if got := i.Ledger.All(t0); len(got) != 1 || got[0].Uses != 2 {
		t.Fatalf("%+v", got)
	}
	before, _ := i.Ledger.Find(tok.key().Public().(ed25519.PublicKey))
	if _, ok := i.Ledger.End(idOf(i.Key), before.ID(), t0); !ok {
		t.Fatal("not known")
	}
	i.Ledger.Set(idOf(newKey(t)), before) // another manager's older word
	if _, _, a, _ := ask(t, i, newKey(t), &tok, true, t0); a.Refused != RefusedExpired {
		t.Fatalf("%+v", a)
	}
	if got := i.Ledger.All(t0); len(got) != 0 {
		t.Errorf("%+v", got)
	}
	i.Ledger.Sweep(t0.Add(time.Hour))
	if _, ok := i.Ledger.Find(before.Public); !ok {
		t.Error("forgotten while an older word could still come")
	}
	i.Ledger.Sweep(t0.Add(2*time.Hour + MaxTokenTTL))
	if _, ok := i.Ledger.Find(before.Public); ok {
		t.Error("kept for ever")
	}
}

func TestBoxPurposes(t *testing.T) {
	key := newKey(t)
	box, err := BoxPublic(key)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := SealTo(box, "a", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := OpenBox(key, "a", sealed); err != nil || string(plain) != "secret" {
		t.Fatalf("%q, %v", plain, err)
	}
	if _, err := OpenBox(key, "b", sealed); err == nil {
		t.Error("opened for another purpose")
	}
	if _, err := OpenBox(newKey(t), "a", sealed); err == nil {
		t.Error("opened by another key")
	}
}

func TestLivesRise(t *testing.T) {
	dir := t.TempDir()
	a, err := NextLife(dir, 0)
	if err != nil || a.Boot != 1 {
		t.Fatalf("%v, %v", a, err)
	}
	b, err := NextLife(dir, 41)
	if err != nil || b.Boot != 42 || b.Nonce == a.Nonce {
		t.Fatalf("%v, %v", b, err)
	}
	if c, _ := NextLife(dir, 3); c.Boot != 43 {
		t.Fatalf("%v", c)
	}
	if err := os.WriteFile(filepath.Join(dir, bootFile), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if d, err := NextLife(dir, 7); err == nil || d.Boot != 8 {
		t.Fatalf("%v, %v", d, err)
	}
}

func FuzzAdmit(f *testing.F) {
	i := found(f)
	tok := i.token(f, p2pnode.RoleWorker, time.Hour, 1)
	raw, err := NewRequest(newKey(f), "joiner", &tok)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte{1})
	key := newKey(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		// The payload is what fuzzing can change: it stands in a good envelope.
		a, err := i.Admit(p2pnode.Seal(requestDomain, key, raw), false, t0)
		if err != nil || a.Role != "" {
			t.Fatalf("%+v, %v", a, err)
		}
	})
}

func FuzzAccept(f *testing.F) {
	i := found(f)
	raw, _ := NewRequest(newKey(f), "joiner", nil)
	a, err := i.Admit(raw, true, t0)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(a.Answer)
	f.Add(RefusalAnswer(RefusedClosed))
	key := newKey(f)
	f.Fuzz(func(t *testing.T, answer []byte) {
		if _, err := Accept(t.TempDir(), key, nil, answer); err == nil {
			t.Fatal("admitted by rubbish")
		}
	})
}

func FuzzDecodeGrant(f *testing.F) {
	_, g, err := NewToken([]byte("root"), p2pnode.RoleWorker, time.Hour, 3, t0)
	if err != nil {
		f.Fatal(err)
	}
	g.Used = []Mark{{1}, {2}}
	f.Add(EncodeGrant(g))
	f.Fuzz(func(t *testing.T, body []byte) {
		g, err := DecodeGrant(body)
		if err != nil {
			return
		}
		again, err := DecodeGrant(EncodeGrant(g))
		if err != nil || again.ID() != g.ID() || !again.Expires.Equal(g.Expires) || again.Uses != g.Uses || !slices.Equal(again.Used, g.Used) {
			t.Fatalf("%+v came back as %+v, %v", g, again, err)
		}
	})
}

func FuzzParseToken(f *testing.F) {
	f.Add(found(f).token(f, p2pnode.RoleWorker, time.Hour, 1).String())
	f.Add("p2pnode1-")
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := ParseToken(s)
		if err == nil && tok.String() != strings.ToLower(strings.TrimSpace(s)) {
			t.Fatalf("%q is spelled %q", s, tok)
		}
	})
}

// Two clusters never share a root key: each would believe the other's members.
func TestARootKeyFoundsOneCluster(t *testing.T) {
	key, dir := newKey(t), t.TempDir()
	first, err := Found(dir, key, "first", t0)
	if err != nil {
		t.Fatal(err)
	}
	if err := Forget(dir); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, rootFile+"*")); len(left) != 1 || left[0] == filepath.Join(dir, rootFile) {
		t.Errorf("root keys left: %v", left)
	}
	second, err := Found(dir, key, "first", t0.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	// The papers are lost, the root key is not.
	if err := os.Remove(filepath.Join(dir, clusterFile)); err != nil {
		t.Fatal(err)
	}
	third, err := Found(dir, key, "first", t0.Add(2*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	all := []*Cluster{first, second, third}
	for i, a := range all {
		for j, b := range all {
			if _, err := p2pnode.VerifyChain(a.Root, b.Chain, nil); (err == nil) != (i == j) {
				t.Errorf("cluster %d believes a certificate of cluster %d: %v", i, j, err == nil)
			}
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, rootFile+"*")); len(left) != 3 {
		t.Errorf("root keys left: %v", left)
	}
}

// The papers are another cluster's by now, and the root key of the one that was given up
// could not be moved aside: the node is no founder alone, and gives nothing up again.
func TestAloneIsByTheRootKey(t *testing.T) {
	i, key, dir := found(t), newKey(t), t.TempDir()
	own, err := Found(dir, key, "second", t0)
	if err != nil || !own.Alone(dir) {
		t.Fatalf("it founded a cluster alone: %v", err)
	}
	joined, _, _, err := ask(t, i, key, nil, true, t0)
	if err != nil {
		t.Fatal(err)
	}
	if joined.Alone(dir) {
		t.Error("a member of another cluster would give that one up")
	}
}
