package p2pnode

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Certificate is a verified X.509 chain of this cluster, leaf first, and what it
// says. The grammar of a chain is
//
//	door? node manager* root
//
// where node is a worker or a manager, only managers (and the root) certify
// nodes, and a node certifies nothing but its own door. Expiry is not looked at
// here: it takes privilege away, never membership (see Privileged).
type Certificate struct {
	Chain   [][]byte // DER, leaf first, without the root
	ID      peer.ID  // of the leaf's key
	Node    peer.ID  // the node itself; for a door the node that it belongs to
	Role    Role
	Name    string
	Cluster string    // ClusterID of the root
	From    time.Time // NotBefore of the leaf
	Until   time.Time // earliest NotAfter of the chain
}

// Privileged reports whether the holder may use a manager's verbs at time now.
func (c Certificate) Privileged(now time.Time) bool {
	return c.Role == RoleManager && now.Before(c.Until)
}

// Life spans of what is issued. A node's certificate outlives its privilege on
// purpose: members stay members.
const (
	rootLife    = 50 * 365 * 24 * time.Hour
	managerLife = 365 * 24 * time.Hour
	workerLife  = 365 * 24 * time.Hour
	maxChain    = 8
	clockSlack  = time.Hour // certificates begin earlier, for clocks that are behind
)

// ErrCertificate means that a chain does not lead to the root, or breaks the
// grammar of Certificate.
var ErrCertificate = errors.New("certificate not of this cluster")

// NewRoot makes the self-signed root of a new cluster for key.
func NewRoot(key ed25519.PrivateKey, now time.Time) ([]byte, error) {
	t := template(key.Public().(ed25519.PublicKey), "root", "", now.Add(-clockSlack), now.Add(rootLife))
	t.IsCA, t.BasicConstraintsValid, t.KeyUsage = true, true, x509.KeyUsageCertSign
	return x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
}

// ClusterID is the public name of the cluster that root (DER) founds: the first
// 16 hex digits of its SHA-256.
func ClusterID(root []byte) string {
	h := sha256.Sum256(root)
	return hex.EncodeToString(h[:8])
}

// Issue certifies subject as role under the issuer's chain (its leaf must belong
// to key; chain nil means key is the root's and root the issuer). It returns
// the new chain, leaf first, without the root.
func Issue(root []byte, chain [][]byte, key ed25519.PrivateKey, subject ed25519.PublicKey, role Role, name string, now time.Time) ([][]byte, error) {
	return issue(root, chain, key, subject, role, name, now.Add(-clockSlack), now)
}

// Renew certifies old's holder again, as what old makes of it. The new certificate
// begins when the old one began: a demotion that the issuer has not heard of counts for
// it, too.
func Renew(root []byte, chain [][]byte, key ed25519.PrivateKey, old Certificate, now time.Time) ([][]byte, error) {
	subject, ok := PublicKey(old.ID)
	if !ok {
		return nil, fmt.Errorf("%w: no key in its ID", ErrCertificate)
	}
	return issue(root, chain, key, subject, old.Role, old.Name, old.From, now)
}

func issue(root []byte, chain [][]byte, key ed25519.PrivateKey, subject ed25519.PublicKey, role Role, name string, from, now time.Time) ([][]byte, error) {
	parentDER := root
	if len(chain) > 0 {
		parentDER = chain[0]
	}
	parent, err := x509.ParseCertificate(parentDER)
	if err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	life := workerLife
	if role == RoleManager {
		life = managerLife
	}
	t := template(subject, role, name, from, now.Add(life))
	// Every node is technically a CA, since it certifies its own door; what it
	// may certify is decided by the grammar in VerifyChain.
	t.IsCA, t.BasicConstraintsValid = role != RoleDoor, true
	t.KeyUsage = x509.KeyUsageDigitalSignature
	if t.IsCA {
		t.KeyUsage |= x509.KeyUsageCertSign
	}
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	der, err := x509.CreateCertificate(rand.Reader, t, parent, subject, key)
	if err != nil {
		return nil, fmt.Errorf("cannot certify %s: %w", name, err)
	}
	return append([][]byte{der}, chain...), nil
}

func template(pub ed25519.PublicKey, role Role, name string, from, until time.Time) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	return &x509.Certificate{
		SerialNumber: serial,
		Subject: pkix.Name{
			CommonName:         PeerID(pub).String(),
			OrganizationalUnit: []string{string(role)},
			Organization:       []string{name},
		},
		NotBefore: from,
		NotAfter:  until,
	}
}

// CertMark stands for one certificate: the head of its SHA-256.
type CertMark [16]byte

// MarkOfCert is the mark of a certificate (DER).
func MarkOfCert(der []byte) CertMark {
	sum := sha256.Sum256(der)
	return CertMark(sum[:16])
}

// MarshalText implements encoding.TextMarshaler.
func (m CertMark) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, m[:]), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *CertMark) UnmarshalText(b []byte) error {
	raw, err := hex.DecodeString(string(b))
	if err != nil || len(raw) != len(m) {
		return fmt.Errorf("%q is no mark of a certificate", b)
	}
	*m = CertMark(raw)
	return nil
}

// Revocation is what managers have said against a key.
type Revocation struct {
	// At is when the last of them said it (Unix seconds, by that one's clock).
	At int64 `json:"at"`
	// Demoted: the key stays a member's. Only what its manager's certificates gave
	// that began until At is gone: they make a worker, and what they issued counts
	// where it is kept. A later promotion is not touched.
	Demoted bool `json:"demoted,omitempty"`
	// Kept are certificates that the key had issued and that stay good all the same: a
	// fleet whose first manager was stolen must not lose everybody that he admitted.
	Kept []CertMark `json:"kept,omitempty"`
}

// Revocations are the keys that are refused for good, or count for less. nil refuses
// nobody.
type Revocations map[peer.ID]Revocation

// Refused reports whether a key was refused for good.
func (r Revocations) Refused(id peer.ID) bool {
	what, ok := r[id]
	return ok && !what.Demoted
}

// With is r and one more word against id. What was refused for good stays so.
func (r Revocations) With(id peer.ID, word Revocation) Revocations {
	out := make(Revocations, len(r)+1)
	maps.Copy(out, r)
	old, known := r[id]
	next := word
	switch {
	case !known:
	case old.Demoted == word.Demoted:
		next.At = max(old.At, word.At)
	case word.Demoted:
		next.At, next.Demoted = old.At, false
	}
	next.Kept = append(slices.Clone(old.Kept), word.Kept...)
	slices.SortFunc(next.Kept, func(a, b CertMark) int { return slices.Compare(a[:], b[:]) })
	next.Kept = slices.Compact(next.Kept)
	out[id] = next
	return out
}

// MarshalJSON implements json.Marshaler: an ID's bytes are no text.
func (r Revocations) MarshalJSON() ([]byte, error) {
	out := make(map[string]Revocation, len(r))
	for id, what := range r {
		out[id.String()] = what
	}
	return json.Marshal(out)
}

// UnmarshalJSON implements json.Unmarshaler.
func (r *Revocations) UnmarshalJSON(raw []byte) error {
	var in map[string]Revocation
	if err := json.Unmarshal(raw, &in); err != nil {
		return err
	}
	*r = make(Revocations, len(in))
	for text, what := range in {
		id, err := peer.Decode(text)
		if err != nil {
			return err
		}
		(*r)[id] = what
	}
	return nil
}

// demotes reports whether cert, a manager's certificate of id, makes only a worker.
func (r Revocations) demotes(id peer.ID, cert *x509.Certificate) bool {
	what, ok := r[id]
	return ok && what.Demoted && roleOf(cert) == RoleManager && cert.NotBefore.Unix() <= what.At
}

// refuses reports whether id may not stand at depth i of a chain.
func (r Revocations) refuses(id peer.ID, chain [][]byte, certs []*x509.Certificate, i int) bool {
	what, ok := r[id]
	if !ok || i > 0 && slices.Contains(what.Kept, MarkOfCert(chain[i-1])) {
		return false
	}
	// A demoted node is a member, and its door is its own.
	return !what.Demoted || r.demotes(id, certs[i]) && i > 0 && (i > 1 || roleOf(certs[0]) != RoleDoor)
}

// ErrRevoked means that a chain leads to a key that was revoked, or over one. It is
// an ErrCertificate, too.
var ErrRevoked = fmt.Errorf("%w: revoked", ErrCertificate)

// VerifyChain checks chain (DER, leaf first, without the root) against root, the
// grammar of Certificate, and what was revoked.
func VerifyChain(root []byte, chain [][]byte, revoked Revocations) (Certificate, error) {
	if len(chain) == 0 || len(chain) > maxChain {
		return Certificate{}, fmt.Errorf("%w: a chain of %d", ErrCertificate, len(chain))
	}
	certs := make([]*x509.Certificate, 0, len(chain)+1)
	for _, der := range append(chain[:len(chain):len(chain)], root) {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return Certificate{}, fmt.Errorf("%w: %v", ErrCertificate, err)
		}
		certs = append(certs, c)
	}
	out := Certificate{Chain: chain, Cluster: ClusterID(root), Until: certs[0].NotAfter}
	for i := range chain {
		child, parent := certs[i], certs[i+1]
		if err := child.CheckSignatureFrom(parent); err != nil {
			return Certificate{}, fmt.Errorf("%w: %v", ErrCertificate, err)
		}
		id, err := subjectID(child)
		if err != nil {
			return Certificate{}, err
		}
		if revoked.refuses(id, chain, certs, i) {
			return Certificate{}, fmt.Errorf("%w: %s", ErrRevoked, ShortID(id))
		}
		role, isRoot := roleOf(child), i+1 == len(chain)
		if err := mayIssue(roleOf(parent), role, isRoot, i); err != nil {
			return Certificate{}, err
		}
		if i == 0 {
			out.ID, out.Node, out.Role, out.Name, out.From = id, id, role, nameOf(child), child.NotBefore
			if revoked.demotes(id, child) {
				out.Role = RoleWorker
			}
		}
		if i == 1 && out.Role == RoleDoor {
			out.Node, out.Name = id, nameOf(child)
		}
		if child.NotAfter.Before(out.Until) {
			out.Until = child.NotAfter
		}
	}
	return out, nil
}

// mayIssue is the grammar, one link at a time; depth 0 is the leaf.
func mayIssue(parent, child Role, parentIsRoot bool, depth int) error {
	ok := false
	switch child {
	case RoleDoor:
		ok = depth == 0 && !parentIsRoot && (parent == RoleWorker || parent == RoleManager)
	case RoleWorker:
		ok = depth <= 1 && (parentIsRoot || parent == RoleManager)
	case RoleManager:
		ok = parentIsRoot || parent == RoleManager
	}
	if !ok {
		return fmt.Errorf("%w: a %s may not certify a %s here", ErrCertificate, parent, child)
	}
	return nil
}

func roleOf(c *x509.Certificate) Role {
	if len(c.Subject.OrganizationalUnit) != 1 {
		return ""
	}
	return Role(c.Subject.OrganizationalUnit[0])
}

func nameOf(c *x509.Certificate) string {
	if len(c.Subject.Organization) != 1 {
		return ""
	}
	return c.Subject.Organization[0]
}

// SubjectOf is whose certificate der is, by what it says alone.
func SubjectOf(der []byte) (peer.ID, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return "", fmt.Errorf("%w: %v", ErrCertificate, err)
	}
	return subjectID(c)
}

func subjectID(c *x509.Certificate) (peer.ID, error) {
	pub, ok := c.PublicKey.(ed25519.PublicKey)
	if !ok || PeerID(pub).String() != c.Subject.CommonName {
		return "", fmt.Errorf("%w: its name is not its key's", ErrCertificate)
	}
	return PeerID(pub), nil
}
