package door

import (
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
)

// errStranger is a handshake whose certificate is not of this cluster, or not of
// whom the caller asked for.
var errStranger = errors.New("no certificate of this cluster")

// config is a TLS 1.3 configuration for either side. Who the other side is, is
// decided by verify alone: names and the system's authorities mean nothing here.
func config(chain [][]byte, key ed25519.PrivateKey, verify func([][]byte) error) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{{Certificate: chain, PrivateKey: key}},
		ClientAuth:             tls.RequireAnyClientCert,
		InsecureSkipVerify:     true, // verify does it, by the cluster's own grammar
		SessionTicketsDisabled: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			raw := make([][]byte, 0, len(s.PeerCertificates))
			total := 0
			for _, c := range s.PeerCertificates {
				raw = append(raw, c.Raw)
				total += len(c.Raw)
			}
			if total > maxChainBytes {
				return fmt.Errorf("%w: %d bytes of certificates", errStranger, total)
			}
			return verify(raw)
		},
	}
}

// verifyMember accepts any certificate of the cluster and keeps it in who.
func verifyMember(t Trust, who *p2pnode.Certificate) func([][]byte) error {
	return func(chain [][]byte) (err error) {
		if *who, err = p2pnode.VerifyChain(t.Root, chain, t.Revoked); err != nil {
			return fmt.Errorf("%w: %v", errStranger, err)
		}
		return nil
	}
}

// verifyDoor accepts the door of node want only.
func verifyDoor(root []byte, revoked p2pnode.Revocations, want peer.ID) func([][]byte) error {
	return func(chain [][]byte) error {
		c, err := p2pnode.VerifyChain(root, chain, revoked)
		if err != nil {
			return fmt.Errorf("%w: %v", errStranger, err)
		}
		if c.Role != p2pnode.RoleDoor || c.Node != want {
			return fmt.Errorf("%w: it is the %s of %s", errStranger, c.Role, p2pnode.ShortID(c.Node))
		}
		return nil
	}
}
