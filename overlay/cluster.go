package overlay

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/overlay/papers"
)

// Cluster is what a member knows of its cluster.
type Cluster struct {
	ID           string
	Root         []byte // DER
	GossipKey    []byte // 32 bytes
	ReaderPublic []byte // X25519, HPKE
	Trusted      bool   // joined by a token that pins the cluster, or founded here
	Born         time.Time
}

// Cluster is the node's cluster; ok is false before admission.
func (o *Overlay) Cluster() (c Cluster, ok bool) {
	o.mu.Lock()
	p := o.papers
	o.mu.Unlock()
	if p == nil {
		return c, false
	}
	return Cluster{ID: p.ID(), Root: p.Root, GossipKey: p.Gossip, ReaderPublic: p.Reader, Trusted: p.Trusted, Born: p.Born()}, true
}

// Certificate is the node's own; ok is false before admission.
func (o *Overlay) Certificate() (c p2pnode.Certificate, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.cert, o.papers != nil
}

// changePapers makes other papers of the node's: f writes them, from those that count
// now, with o.mu held. What was changed while an answer was on its way, as that a person
// trusts the cluster, is in them.
func (o *Overlay) changePapers(f func(*papers.Cluster) (*papers.Cluster, error)) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.papers == nil {
		return errNotMember
	}
	next, err := f(o.papers)
	if err != nil {
		return err
	}
	return o.adoptLocked(next)
}

// adopt makes papers the node's. It is called before Run and with what admission has
// brought.
func (o *Overlay) adopt(p *papers.Cluster) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.adoptLocked(p)
}

func (o *Overlay) adoptLocked(p *papers.Cluster) error {
	cert, err := p.Certificate()
	if err != nil {
		return err
	}
	readers := papers.LoadReaders(o.cfg.Dir)
	first := o.papers == nil
	if now, err := p2pnode.VerifyChain(p.Root, p.Chain, o.revoked); err == nil {
		cert = now // a demotion may be known here already
	}
	o.papers, o.cert, o.readers = p, cert, readers
	if o.records != nil { // not while New reads the disk
		o.seal = o.sealLocked()
	}
	o.certs[o.self] = certEntry{cert: cert, raw: chainText(cert.Chain)}
	if first {
		o.joinError = nil
		close(o.admitted)
	}
	return nil
}

// foundCluster makes this node the first manager of a new cluster.
func (o *Overlay) foundCluster() error {
	o.mu.Lock()
	now := o.clockLocked(time.Now())
	o.mu.Unlock()
	p, err := papers.Found(o.cfg.Dir, o.key, o.cfg.Name, now)
	if err != nil {
		return err
	}
	o.cfg.Log.Info().Str("cluster", p.ID()).Msg("founded a cluster")
	return o.adopt(p)
}

// issuerLocked is this node as one that lets others in.
func (o *Overlay) issuerLocked() *papers.Issuer {
	return &papers.Issuer{Cluster: o.papers, Key: o.key, Readers: o.readers, Ledger: &o.ledger, Revoked: o.revoked, Open: !o.openUntilLocked().IsZero(), Approved: o.approvedLocked}
}

// IssueDoor certifies the key of this host's door.
func (o *Overlay) IssueDoor(pub ed25519.PublicKey) ([][]byte, error) {
	o.mu.Lock()
	p := o.papers
	o.mu.Unlock()
	if p == nil {
		return nil, errNotMember
	}
	return p2pnode.Issue(p.Root, p.Chain, o.key, pub, p2pnode.RoleDoor, o.cfg.Name, time.Now())
}

var (
	errNotMember = &p2pnode.Error{Code: "not-a-member", Text: "this node is not a member of a cluster yet", Fix: "run p2pnode status to see whom it asks"}
	errNoManager = &p2pnode.Error{
		Code: "not-a-manager", Exit: p2pnode.ExitNotPermitted, Text: "this node has no manager's certificate that is in force",
		Fix: "run the command on a manager: p2pnode nodes shows them",
	}
)

// managesLocked says whether this node may use a manager's verbs now.
func (o *Overlay) managesLocked(now time.Time) error {
	switch {
	case o.papers == nil:
		return errNotMember
	case !o.cert.Privileged(o.clockLocked(now)):
		return errNoManager
	}
	return nil
}

// Promote makes a member a manager: it gets a manager's certificate and, sealed to it
// alone, the reader keys that this node holds.
func (o *Overlay) Promote(ctx context.Context, id peer.ID) error {
	p, ok := o.View().Peers[id]
	if !ok {
		return &p2pnode.Error{Code: "unknown-node", Text: fmt.Sprintf("%s is no member", id), Fix: "p2pnode nodes lists them"}
	}
	o.mu.Lock()
	if o.managerLocked(id) {
		o.mu.Unlock()
		return nil // who is one already, in force, needs nothing
	}
	err := o.managesLocked(time.Now())
	var promotion []byte
	if err == nil {
		promotion, err = o.issuerLocked().Promotion(id, p.Name, p.BoxKey, o.afterDemotionLocked(id, o.clockLocked(time.Now())))
	}
	o.mu.Unlock()
	if err != nil {
		return err
	}
	if _, _, err := o.Route(ctx, id, kindPromote, promotion); err != nil {
		return fmt.Errorf("cannot promote %s: %w", p.Name, err)
	}
	return nil
}

// takePromotion is the handler of a promotion: the chain in it is the authority.
func (o *Overlay) takePromotion(_ context.Context, from peer.ID, raw []byte) ([]byte, error) {
	err := o.changePapers(func(p *papers.Cluster) (*papers.Cluster, error) {
		return p.AcceptPromotion(o.cfg.Dir, o.key, raw, o.revoked)
	})
	switch {
	case errors.Is(err, errNotMember):
		return nil, err
	case err != nil:
		o.count(ReasonPromotion)
		return nil, err
	}
	o.cfg.Log.Info().Str("by", p2pnode.ShortID(from)).Msg("promoted to manager")
	o.mu.Lock()
	o.publishPeerLocked()
	o.mu.Unlock()
	o.standingChanged()
	return nil, nil
}

// standingChanged tells whoever asked that Certificate or Readers have changed.
func (o *Overlay) standingChanged() {
	if o.onStanding != nil {
		o.call(o.onStanding)
	}
}
