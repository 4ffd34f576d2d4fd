package p2pnode

import (
	"crypto/ed25519"
	"errors"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Envelope is what every signed thing of p2pnode travels and rests in.
//
//	+---------+--------------+---------------+-----------------+
//	| 1 byte  | 32 bytes     | 64 bytes      | the rest        |
//	| version | public key   | signature     | payload         |
//	+---------+--------------+---------------+-----------------+
//
// The signature (Ed25519, RFC 8032) covers "p2pnode/" + domain + "\x00" +
// payload: bytes signed as one kind of thing never verify as another.
type Envelope struct {
	Signer  peer.ID
	Payload []byte // raw bytes as signed; decode these, never re-encode
}

const (
	envelopeVersion  = 1
	envelopeOverhead = 1 + ed25519.PublicKeySize + ed25519.SignatureSize
)

// ErrEnvelope means that bytes are no envelope of the asked domain: too short,
// another version, or a signature that does not match.
var ErrEnvelope = errors.New("envelope damaged or forged")

// Seal signs payload under domain and returns the envelope's bytes.
func Seal(domain string, key ed25519.PrivateKey, payload []byte) []byte {
	sig := ed25519.Sign(key, signedBytes(domain, payload))
	out := make([]byte, 0, envelopeOverhead+len(payload))
	out = append(out, envelopeVersion)
	out = append(out, key.Public().(ed25519.PublicKey)...)
	out = append(out, sig...)
	return append(out, payload...)
}

// Open verifies raw under domain. The payload aliases raw. It says who signed,
// not whether that signer may say so: certificates decide that.
func Open(domain string, raw []byte) (Envelope, error) {
	if len(raw) < envelopeOverhead || raw[0] != envelopeVersion {
		return Envelope{}, ErrEnvelope
	}
	pub := ed25519.PublicKey(raw[1 : 1+ed25519.PublicKeySize])
	sig := raw[1+ed25519.PublicKeySize : envelopeOverhead]
	payload := raw[envelopeOverhead:]
	if !ed25519.Verify(pub, signedBytes(domain, payload), sig) {
		return Envelope{}, ErrEnvelope
	}
	return Envelope{Signer: PeerID(pub), Payload: payload}, nil
}

func signedBytes(domain string, payload []byte) []byte {
	b := make([]byte, 0, len("p2pnode/")+len(domain)+1+len(payload))
	b = append(b, "p2pnode/"...)
	b = append(b, domain...)
	b = append(b, 0)
	return append(b, payload...)
}
