package papers

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/overlay/papers/paperspb"
)

// requestDomain is the envelope domain of a request.
const requestDomain = "join"

// sealReader is the purpose under which the reader's private key is sealed to a
// new manager, here and by a promotion.
const sealReader = "reader key"

// sealReaders is that of several.
const sealReaders = "reader keys"

// NewRequest asks for admission of key's node, with a token or (nil) without. The
// bytes are the same for every member that is asked.
func NewRequest(key ed25519.PrivateKey, name string, token *Token) ([]byte, error) {
	if !p2pnode.ValidNodeName(name) {
		return nil, &p2pnode.Error{
			Code: "bad-name", Exit: p2pnode.ExitUsage,
			Text: fmt.Sprintf("a node cannot be called %.80q", name), Fix: "choose another --name: letters, digits, dot, - and _, at most 63",
		}
	}
	box, err := BoxPublic(key)
	if err != nil {
		return nil, err
	}
	m := &paperspb.Request{Name: name, BoxKey: box}
	if token != nil {
		tk := token.key()
		m.TokenPublic = tk.Public().(ed25519.PublicKey)
		m.TokenProof = ed25519.Sign(tk, proofBytes(token.Pin, p2pnode.PeerID(key.Public().(ed25519.PublicKey))))
	}
	return p2pnode.Seal(requestDomain, key, encode(m)), nil
}

// Request is a verified request: its signature is the joiner's, and its token's
// proof, if it has one, is good for this cluster.
type Request struct {
	Joiner peer.ID
	Name   string
	Box    []byte
	Token  ed25519.PublicKey // nil: none
}

// readRequest verifies raw for the cluster of root.
func readRequest(raw, root []byte) (Request, Refusal) {
	if len(raw) > MaxRequest {
		return Request{}, RefusedDamaged
	}
	env, err := p2pnode.Open(requestDomain, raw)
	if err != nil {
		return Request{}, RefusedDamaged
	}
	var m paperspb.Request
	if decode(env.Payload, MaxRequest, &m) != nil || !p2pnode.ValidNodeName(m.Name) {
		return Request{}, RefusedDamaged
	}
	if _, err := kem().NewPublicKey(m.BoxKey); err != nil {
		return Request{}, RefusedDamaged
	}
	req := Request{Joiner: env.Signer, Name: m.Name, Box: m.BoxKey}
	if len(m.TokenPublic) == 0 {
		return req, ""
	}
	req.Token = m.TokenPublic
	if len(m.TokenPublic) != ed25519.PublicKeySize {
		return Request{}, RefusedDamaged
	}
	if !ed25519.Verify(req.Token, proofBytes(pinOf(root), env.Signer), m.TokenProof) {
		return Request{}, RefusedForeign
	}
	return req, ""
}

// Refusal is why somebody is not let in, kebab-case; also a counter's name.
type Refusal string

// The refusals.
const (
	RefusedDamaged Refusal = "join-damaged"
	RefusedForeign Refusal = "token-foreign"    // of another cluster, or forged
	RefusedUnknown Refusal = "token-unknown"    // no manager here made it
	RefusedExpired Refusal = "token-expired"    //
	RefusedUsed    Refusal = "token-used-up"    //
	RefusedClosed  Refusal = "admission-closed" // no token, and the window is over
	RefusedFar     Refusal = "admission-far"    // no token, and not a neighbour
	RefusedRevoked Refusal = "revoked"          // this key was, for good
	RefusedIssuer  Refusal = "not-a-manager"    // the one that was asked may not certify
)

// text is the refusal as a person reads it; fix may be "".
func (r Refusal) text() (text, fix string) {
	fix = "ask for a new one: `p2pnode token create` on a manager, then --token-file"
	switch r {
	case RefusedForeign:
		return "the token is for another cluster", fix
	case RefusedUnknown:
		return "no manager of the cluster knows this token", fix
	case RefusedExpired:
		return "the token has expired", fix
	case RefusedUsed:
		return "the token was used as often as it may be", fix
	case RefusedClosed:
		return "the cluster takes nobody in without a token now", "make one with `p2pnode token create` on a manager, then --token-file"
	case RefusedFar:
		return "this host is not on the same machine or private network as the member it reached, so it needs a token",
			"make one with `p2pnode token create` on a manager, then --token-file"
	case RefusedRevoked:
		return "this node's key was revoked", "as another node it may join: move node.key and cluster.json in the data folder away, then --token-file"
	case RefusedIssuer:
		return "no manager could be asked", "it is tried again"
	default:
		return "the request could not be read", "check that both run the same version"
	}
}

// Waits reports whether a manager may still approve of who was refused so.
func (r Refusal) Waits() bool { return r == RefusedClosed || r == RefusedFar }

// Error is the refusal for the person at the joiner.
func (r Refusal) Error(joiner peer.ID) error {
	text, fix := r.text()
	if r.Waits() {
		fix = fmt.Sprintf("on a manager run: p2pnode approve %s; or %s", Code(joiner), fix)
	}
	exit := p2pnode.ExitNotPermitted
	if r == RefusedIssuer {
		exit = p2pnode.ExitUnreachable // it will pass
	}
	return &p2pnode.Error{Code: string(r), Text: "not admitted: " + text, Fix: fix, Exit: exit}
}

// Issuer is a member that lets others in.
type Issuer struct {
	Cluster *Cluster
	Key     ed25519.PrivateKey
	Readers [][]byte // the reader keys that it holds, for new managers
	Ledger  *Ledger
	Revoked p2pnode.Revocations // whose keys are let in never again
	// Open keeps the window open, also after its end.
	Open bool
	// Approved are let in as workers without a token, wherever they stand.
	Approved func(peer.ID) bool
}

// Admitted is what came of a request.
type Admitted struct {
	Request Request
	Role    p2pnode.Role // "": refused
	Refused Refusal
	Grant   *Grant // the issuer's new word on the token, to be published
	Answer  []byte // to be sent back; encoded for refusals too
}

// Admit decides about a request. local says that the member which the joiner
// reached saw it on loopback or in a directly connected private subnet.
func (i *Issuer) Admit(raw []byte, local bool, now time.Time) (Admitted, error) {
	cert, err := i.Cluster.Certificate()
	if err != nil {
		return Admitted{}, err
	}
	req, refused := readRequest(raw, i.Cluster.Root)
	if refused == "" && !cert.Privileged(now) {
		refused = RefusedIssuer
	}
	if refused == "" && i.Revoked.Refused(req.Joiner) {
		refused = RefusedRevoked
	}
	if refused != "" {
		return refusal(req, refused), nil
	}
	role, refused := i.decide(req, local, now)
	if refused != "" {
		return refusal(req, refused), nil
	}
	return i.issue(req, role, now)
}

// decide is the rule: a token says all by itself; without one the window must be
// open and the joiner near.
func (i *Issuer) decide(req Request, local bool, now time.Time) (p2pnode.Role, Refusal) {
	if req.Token == nil {
		switch {
		case i.Approved != nil && i.Approved(req.Joiner):
		case now.After(i.Cluster.Born().Add(Window)) && !i.Open:
			return "", RefusedClosed
		case !local:
			return "", RefusedFar
		}
		return p2pnode.RoleWorker, ""
	}
	g, ok := i.Ledger.Find(req.Token)
	switch {
	case !ok:
		return "", RefusedUnknown
	case !now.Before(g.Expires):
		return "", RefusedExpired
	case len(g.Used) >= g.Uses && !slices.Contains(g.Used, MarkOf(req.Joiner)):
		return "", RefusedUsed
	}
	return g.Role, ""
}

func (i *Issuer) issue(req Request, role p2pnode.Role, now time.Time) (Admitted, error) {
	pub, ok := p2pnode.PublicKey(req.Joiner)
	if !ok {
		return refusal(req, RefusedDamaged), nil
	}
	chain, err := p2pnode.Issue(i.Cluster.Root, i.Cluster.Chain, i.Key, pub, role, req.Name, now)
	if err != nil {
		return Admitted{}, err
	}
	if _, err := p2pnode.VerifyChain(i.Cluster.Root, chain, nil); err != nil {
		return Admitted{}, err // a chain that grew too long
	}
	m := paperspb.Answer{Root: i.Cluster.Root, Chain: chain, GossipKey: i.Cluster.Gossip, ReaderPublic: i.Cluster.Reader}
	if role == p2pnode.RoleManager {
		if err := i.hand(&m, req.Box); err != nil {
			return Admitted{}, err
		}
	}
	out := Admitted{Request: req, Role: role, Answer: encode(&m)}
	if req.Token != nil {
		if g, ok := i.Ledger.Use(p2pnode.PeerID(i.Key.Public().(ed25519.PublicKey)), req.Token, req.Joiner); ok {
			out.Grant = &g
		}
	}
	return out, nil
}

// hand puts the reader keys into an answer for a manager with this box key. What this
// manager does not hold itself the new one asks others for.
func (i *Issuer) hand(m *paperspb.Answer, box []byte) (err error) {
	if now := ReaderFor(i.Readers, i.Cluster.Reader); now != nil {
		if m.SealedReader, err = SealTo(box, sealReader, now); err != nil {
			return err
		}
	}
	if len(i.Readers) > 0 {
		m.SealedReaders, err = SealReaders(box, i.Readers)
	}
	return err
}

func refusal(req Request, why Refusal) Admitted {
	return Admitted{Request: req, Refused: why, Answer: RefusalAnswer(why)}
}

// RefusalAnswer is the answer of a member that cannot even ask a manager.
func RefusalAnswer(why Refusal) []byte {
	text, _ := why.text()
	return encode(&paperspb.Answer{Refused: string(why), Text: text})
}

// Accept reads the answer to key's request, checks it and, if it admits, writes
// the papers into dir, with the reader keys where the answer holds them. A refusal is
// an error for a person.
func Accept(dir string, key ed25519.PrivateKey, token *Token, answer []byte) (*Cluster, error) {
	var m paperspb.Answer
	if err := decode(answer, MaxAnswer, &m); err != nil {
		return nil, err
	}
	if m.Refused != "" {
		return nil, Refusal(m.Refused).Error(p2pnode.PeerID(key.Public().(ed25519.PublicKey)))
	}
	if token != nil && !token.Matches(m.Root) {
		return nil, &p2pnode.Error{
			Code: "foreign-cluster", Exit: p2pnode.ExitNotPermitted,
			Text: fmt.Sprintf("that node belongs to cluster %s, the token is for cluster %s", p2pnode.ClusterID(m.Root), token.Cluster()),
			Fix:  "check --join, or use a token of that cluster",
		}
	}
	c := &Cluster{Root: m.Root, Chain: m.Chain, Gossip: m.GossipKey, Reader: m.ReaderPublic, Trusted: token != nil}
	if err := c.check(key); err != nil {
		return nil, fmt.Errorf("the answer admits somebody else: %w", err)
	}
	if err := takeReaders(dir, key, m.ReaderPublic, m.SealedReader, m.SealedReaders); err != nil {
		return nil, err
	}
	return c, c.Save(dir)
}

// Promotion is a manager's certificate for a member that has papers already, with
// the reader keys sealed to its box key.
func (i *Issuer) Promotion(to peer.ID, name string, box []byte, now time.Time) ([]byte, error) {
	cert, err := i.Cluster.Certificate()
	if err != nil {
		return nil, err
	}
	if !cert.Privileged(now) {
		return nil, &p2pnode.Error{
			Code: "not-a-manager", Text: "only a manager can promote", Exit: p2pnode.ExitNotPermitted,
			Fix: "run it on a management node",
		}
	}
	if !p2pnode.ValidNodeName(name) {
		name = p2pnode.ShortID(to)
	}
	a, err := i.issue(Request{Joiner: to, Name: name, Box: box}, p2pnode.RoleManager, now)
	return a.Answer, err
}

// AcceptPromotion takes in what Promotion made. It must be of the cluster that
// the node is a member of, in force against what was revoked, and not older than the
// manager's certificate that the node has: old chains are in everybody's hands.
func (c *Cluster) AcceptPromotion(dir string, key ed25519.PrivateKey, answer []byte, revoked p2pnode.Revocations) (*Cluster, error) {
	var m paperspb.Answer
	if err := decode(answer, MaxAnswer, &m); err != nil {
		return nil, err
	}
	if !bytes.Equal(m.Root, c.Root) {
		return nil, fmt.Errorf("%w: a promotion by another cluster", p2pnode.ErrCertificate)
	}
	next := new(*c)
	next.Chain = m.Chain
	if err := next.check(key); err != nil {
		return nil, err
	}
	cert, err := p2pnode.VerifyChain(c.Root, m.Chain, revoked)
	if err != nil {
		return nil, err
	}
	if cert.Role != p2pnode.RoleManager {
		return nil, fmt.Errorf("%w: a promotion to %s", p2pnode.ErrCertificate, cert.Role)
	}
	if old, err := p2pnode.VerifyChain(c.Root, c.Chain, revoked); err == nil && old.Role == p2pnode.RoleManager && cert.From.Before(old.From) {
		return nil, fmt.Errorf("%w: a promotion that is older than the last one", p2pnode.ErrCertificate)
	}
	if err := takeReaders(dir, key, m.ReaderPublic, m.SealedReader, m.SealedReaders); err != nil {
		return nil, err
	}
	return next, next.Save(dir)
}
