package papers

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/sha256"
	"fmt"
)

// A node's box key opens what is sealed to that node alone (HPKE, X25519). It is
// derived from the node's signing key, so there is one secret to keep; the
// derivation is one way.

func boxKey(key ed25519.PrivateKey) (hpke.PrivateKey, error) {
	seed, err := hkdf.Key(sha256.New, key.Seed(), nil, "p2pnode box key", 32)
	if err != nil {
		return nil, err
	}
	return kem().DeriveKeyPair(seed)
}

// BoxPublic is the public half of key's box key, as it stands in peer records.
func BoxPublic(key ed25519.PrivateKey) ([]byte, error) {
	box, err := boxKey(key)
	if err != nil {
		return nil, err
	}
	return box.PublicKey().Bytes(), nil
}

// SealTo encrypts plain to a box key. purpose must be the same when it is opened:
// what was sealed for one use opens for no other.
func SealTo(box []byte, purpose string, plain []byte) ([]byte, error) {
	to, err := kem().NewPublicKey(box)
	if err != nil {
		return nil, fmt.Errorf("box key: %w", err)
	}
	return hpke.Seal(to, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte("p2pnode "+purpose), plain)
}

// OpenBox decrypts what SealTo sealed to key's box key.
func OpenBox(key ed25519.PrivateKey, purpose string, sealed []byte) ([]byte, error) {
	box, err := boxKey(key)
	if err != nil {
		return nil, err
	}
	plain, err := hpke.Open(box, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte("p2pnode "+purpose), sealed)
	if err != nil {
		return nil, fmt.Errorf("cannot open what was sealed for %s: %w", purpose, err)
	}
	return plain, nil
}
