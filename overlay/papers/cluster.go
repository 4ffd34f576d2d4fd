package papers

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"p2pnode"
)

// Names of the files in a data folder.
const (
	clusterFile = "cluster.json"
	readerFile  = "reader.key"
	rootFile    = "root.key"
)

// GossipKeySize is the length of the key that seals gossip packets.
const GossipKeySize = 32

// Cluster is what a member holds. Treat it as immutable; Save writes a changed
// copy.
type Cluster struct {
	Root   []byte   `json:"root"`  // X.509 DER
	Chain  [][]byte `json:"chain"` // this node's, leaf first, without the root
	Gossip []byte   `json:"gossip_key"`
	Reader []byte   `json:"reader_public"` // excerpts are sealed to it; rotated, see package overlay
	// Trusted: by token, or this node founded it. A root taken on first sight gives
	// its managers less (see docs/SECURITY.md).
	Trusted bool `json:"trusted"`
	// Issued: this node has let somebody in. Until then who founded a cluster alone by
	// mistake may give it up for another one.
	Issued bool `json:"issued,omitempty"`
}

// ID is the cluster's public name.
func (c *Cluster) ID() string { return p2pnode.ClusterID(c.Root) }

// Born is when the cluster was founded, by its founder's clock; zero if the root
// cannot be read.
func (c *Cluster) Born() time.Time {
	root, err := x509.ParseCertificate(c.Root)
	if err != nil {
		return time.Time{}
	}
	// Certificates begin an hour early, for clocks that are behind.
	return root.NotBefore.Add(time.Hour)
}

// Certificate verifies this node's chain and says what it makes of it.
func (c *Cluster) Certificate() (p2pnode.Certificate, error) {
	return p2pnode.VerifyChain(c.Root, c.Chain, nil)
}

func (c *Cluster) check(key ed25519.PrivateKey) error {
	cert, err := c.Certificate()
	if err != nil {
		return err
	}
	if cert.ID != p2pnode.PeerID(key.Public().(ed25519.PublicKey)) {
		return fmt.Errorf("%w: it was issued to %s", p2pnode.ErrCertificate, p2pnode.ShortID(cert.ID))
	}
	if cert.Role == p2pnode.RoleDoor {
		return fmt.Errorf("%w: a door's", p2pnode.ErrCertificate)
	}
	if len(c.Gossip) != GossipKeySize {
		return fmt.Errorf("gossip key of %d bytes", len(c.Gossip))
	}
	_, err = ecdh.X25519().NewPublicKey(c.Reader)
	return err
}

// Load reads the papers in dir. Both results are nil if there are none.
func Load(dir string, key ed25519.PrivateKey) (*Cluster, error) {
	raw, err := os.ReadFile(filepath.Join(dir, clusterFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var c Cluster
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, damaged(dir, err)
	}
	if err := c.check(key); err != nil {
		return nil, damaged(dir, err)
	}
	return &c, nil
}

func damaged(dir string, err error) error {
	path := filepath.Join(dir, clusterFile)
	return &p2pnode.Error{
		Code: "cluster-papers", Exit: p2pnode.ExitFailed,
		Text: fmt.Sprintf("%s does not fit this node: %v", path, err),
		Fix:  "restore it and node.key from the same backup, or move it away and join again with a token",
	}
}

// Save writes the papers as a whole.
func (c *Cluster) Save(dir string) error {
	raw, err := json.MarshalIndent(c, "", " ")
	if err != nil {
		return err
	}
	if err := p2pnode.WriteFile(filepath.Join(dir, clusterFile), append(raw, '\n'), 0o600); err != nil {
		return fmt.Errorf("cannot keep the cluster's papers: %w", err)
	}
	return nil
}

// Forget removes the papers from dir: the node is no member any more. Its own key
// stays; a founder's root key is moved aside, since it is still the cluster's.
func Forget(dir string) error {
	errs := []error{rootAside(dir)}
	for _, name := range []string{clusterFile, readerFile, grantsFile} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Alone reports whether the papers in dir are of a cluster that this node founded and
// in which it never let anybody in. A root key beside them may be another cluster's, that
// was given up and whose key could not be moved aside.
func (c *Cluster) Alone(dir string) bool {
	if c.Issued {
		return false
	}
	key, err := p2pnode.LoadKey(filepath.Join(dir, rootFile))
	if err != nil {
		return false
	}
	root, err := p2pnode.SubjectOf(c.Root)
	return err == nil && root == p2pnode.PeerID(key.Public().(ed25519.PublicKey))
}

// GiveUp removes what is left in dir of a cluster that was given up for the one whose
// papers are there now.
func GiveUp(dir string) error {
	errs := []error{rootAside(dir)}
	for _, name := range []string{readerFile, grantsFile} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// rootAside renames a root key that is in dir, so that no other cluster is founded
// with it: each would believe the other's certificates.
func rootAside(dir string) error {
	path := filepath.Join(dir, rootFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	key, err := p2pnode.LoadOrCreateKey(path)
	if err != nil {
		return err
	}
	return os.Rename(path, path+"."+p2pnode.ShortID(p2pnode.PeerID(key.Public().(ed25519.PublicKey))))
}

// Found makes a cluster of one: root, a manager's certificate for key, the gossip
// key and the reader's key pair. The papers that make it a member are written
// last. A root.key that is there already is another cluster's, or an attempt's that
// broke off, and is moved aside.
func Found(dir string, key ed25519.PrivateKey, name string, now time.Time) (*Cluster, error) {
	if err := rootAside(dir); err != nil {
		return nil, err
	}
	rootKey, err := p2pnode.LoadOrCreateKey(filepath.Join(dir, rootFile))
	if err != nil {
		return nil, err
	}
	root, err := p2pnode.NewRoot(rootKey, now)
	if err != nil {
		return nil, err
	}
	chain, err := p2pnode.Issue(root, nil, rootKey, key.Public().(ed25519.PublicKey), p2pnode.RoleManager, name, now)
	if err != nil {
		return nil, err
	}
	reader, err := kem().GenerateKey()
	if err != nil {
		return nil, err
	}
	private, err := reader.Bytes()
	if err != nil {
		return nil, err
	}
	c := &Cluster{Root: root, Chain: chain, Gossip: make([]byte, GossipKeySize), Reader: reader.PublicKey().Bytes(), Trusted: true}
	rand.Read(c.Gossip)
	if err := SaveReaders(dir, [][]byte{private}); err != nil {
		return nil, err
	}
	return c, c.Save(dir)
}

func kem() hpke.KEM { return hpke.DHKEM(ecdh.X25519()) }
