package store

import (
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"p2pnode"
)

// An excerpt is sealed with HPKE (RFC 9180, base mode, X25519, HKDF-SHA256,
// ChaCha20-Poly1305). The report's identity goes in as info: an excerpt that was
// cut out of one report does not open in another. The reader key's ID stands
// beside it: when the key is rotated old excerpts stay sealed to the old one, and
// whoever holds that still reads them.

// readerID names a reader key: 8 bytes of the SHA-256 of its public half.
type readerID string

func idOf(public []byte) readerID {
	sum := sha256.Sum256(public)
	return readerID(sum[:8])
}

func (id readerID) String() string { return hex.EncodeToString([]byte(id)) }

// sealKey is the public half that excerpts are sealed to.
type sealKey struct {
	id  readerID
	key hpke.PublicKey
}

func newSealKey(public []byte) (*sealKey, error) {
	if len(public) == 0 {
		return nil, nil
	}
	key, err := kem().NewPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("reader key: %w", err)
	}
	return &sealKey{idOf(public), key}, nil
}

// readers are the private halves that this node holds, by ID.
type readers map[readerID]hpke.PrivateKey

func newReaders(private [][]byte) (readers, error) {
	out := readers{}
	for _, raw := range private {
		key, err := kem().NewPrivateKey(raw)
		if err != nil {
			return nil, fmt.Errorf("reader key: %w", err)
		}
		out[idOf(key.PublicKey().Bytes())] = key
	}
	return out, nil
}

func kem() hpke.KEM { return hpke.DHKEM(ecdh.X25519()) }

func sealInfo(r p2pnode.Report) []byte {
	return fmt.Appendf(nil, "p2pnode excerpt %s %s %d", r.Origin, r.Epoch, r.Seq)
}

// sealExcerpt seals r.Excerpt; nil where there is nothing to seal or nobody to
// seal it to.
func sealExcerpt(r p2pnode.Report, to *sealKey) ([]byte, error) {
	if r.Excerpt == nil || r.Excerpt.Sealed || to == nil {
		return nil, nil
	}
	plain, err := json.Marshal(r.Excerpt)
	if err != nil {
		return nil, err
	}
	return hpke.Seal(to.key, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), sealInfo(r), plain)
}

// open is the excerpt of d as whoever holds these keys sees it. One that stays
// sealed says why.
func (keys readers) open(d decoded) *p2pnode.Excerpt {
	if len(d.sealed) == 0 {
		return nil
	}
	closed := func(why string) *p2pnode.Excerpt {
		return &p2pnode.Excerpt{Lines: []string{}, Sealed: true, Why: why}
	}
	if len(keys) == 0 {
		return closed("only managers read excerpts; this node holds no reader key")
	}
	key, ok := keys[d.sealedTo]
	if !ok {
		return closed(fmt.Sprintf("it is sealed to reader key %s, which this node does not hold", d.sealedTo))
	}
	plain, err := hpke.Open(key, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), sealInfo(d.report), d.sealed)
	var e p2pnode.Excerpt
	if err != nil || json.Unmarshal(plain, &e) != nil {
		return closed("it does not open with the key that it names")
	}
	e.Sealed, e.Why = false, ""
	return fitExcerpt(e)
}
