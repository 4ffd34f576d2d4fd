package papers

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"p2pnode"
	"p2pnode/overlay/papers/paperspb"
)

// RenewBefore is how long before its end a certificate is renewed: a host that is off
// for a month misses nothing.
const RenewBefore = 60 * 24 * time.Hour

// ErrNoGain means that a new certificate would not last longer than the one that is
// there: the issuer's own ends as early.
var ErrNoGain = errors.New("a new certificate would not last longer: the issuer's own ends, too")

// Renewal is the answer to a member's request for a certificate in place of old, which
// is what its present one makes of it.
func (i *Issuer) Renewal(raw []byte, old p2pnode.Certificate, now time.Time) ([]byte, error) {
	req, refused := readRequest(raw, i.Cluster.Root)
	switch {
	case refused != "":
		return nil, refused.Error(old.ID)
	case req.Joiner != old.ID:
		return nil, fmt.Errorf("%w: the request is another node's", p2pnode.ErrCertificate)
	case old.Role == p2pnode.RoleManager && !old.Privileged(now):
		return nil, fmt.Errorf("%w: a manager's that has ended: promote it again", p2pnode.ErrCertificate)
	}
	chain, err := p2pnode.Renew(i.Cluster.Root, i.Cluster.Chain, i.Key, old, now)
	if err != nil {
		return nil, err
	}
	if err := gains(i.Cluster.Root, chain, old); err != nil {
		return nil, err
	}
	return encode(&paperspb.Answer{Root: i.Cluster.Root, Chain: chain}), nil
}

// gains reports why chain is not worth having in place of old.
func gains(root []byte, chain [][]byte, old p2pnode.Certificate) error {
	cert, err := p2pnode.VerifyChain(root, chain, nil)
	switch {
	case err != nil:
		return err
	case cert.ID != old.ID || cert.Role != old.Role:
		return fmt.Errorf("%w: a renewal to %s", p2pnode.ErrCertificate, cert.Role)
	case cert.Until.Sub(old.Until) < 24*time.Hour:
		return ErrNoGain
	}
	return nil
}

// AcceptRenewal takes in what Renewal made, in place of old.
func (c *Cluster) AcceptRenewal(dir string, key ed25519.PrivateKey, old p2pnode.Certificate, answer []byte) (*Cluster, error) {
	var m paperspb.Answer
	if err := decode(answer, MaxAnswer, &m); err != nil {
		return nil, err
	}
	if !bytes.Equal(m.Root, c.Root) {
		return nil, fmt.Errorf("%w: a renewal by another cluster", p2pnode.ErrCertificate)
	}
	return c.with(dir, key, old, m.Chain)
}

// RenewByRoot makes a new certificate with the root's key, where it is in dir. Without
// one the error is fs.ErrNotExist.
func (c *Cluster) RenewByRoot(dir string, key ed25519.PrivateKey, old p2pnode.Certificate, now time.Time) (*Cluster, error) {
	path := filepath.Join(dir, rootFile)
	if _, err := os.Stat(path); err != nil {
		return nil, err
	}
	root, err := p2pnode.LoadOrCreateKey(path)
	if err != nil {
		return nil, err
	}
	chain, err := p2pnode.Renew(c.Root, nil, root, old, now)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if _, err := p2pnode.VerifyChain(c.Root, chain, nil); err != nil {
		return nil, fmt.Errorf("%s is another cluster's: %w", path, fs.ErrNotExist)
	}
	return c.with(dir, key, old, chain)
}

func (c *Cluster) with(dir string, key ed25519.PrivateKey, old p2pnode.Certificate, chain [][]byte) (*Cluster, error) {
	if err := gains(c.Root, chain, old); err != nil {
		return nil, err
	}
	next := *c
	next.Chain = chain
	if err := next.check(key); err != nil {
		return nil, err
	}
	return &next, next.Save(dir)
}
