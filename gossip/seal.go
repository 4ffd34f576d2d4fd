package gossip

import (
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/crypto/chacha20poly1305"
)

// A packet on the wire:
//
//	+---------+--------+----------+-----------+----------+------------------+
//	| 1 byte  | 1 byte | 4 bytes  | 38 bytes  | 24 bytes | the rest         |
//	| version | kind   | key id   | sender    | nonce    | sealed payload   |
//	+---------+--------+----------+-----------+----------+------------------+
//
// XChaCha20-Poly1305 with a random nonce; the head up to the nonce is associated
// data. Whoever holds the cluster's gossip key can write any sender: packets
// suggest, signatures decide.
const (
	packetVersion = 1
	senderSize    = 38 // an Ed25519 peer ID
	headSize      = 1 + 1 + 4 + senderSize
	sealOverhead  = headSize + chacha20poly1305.NonceSizeX + chacha20poly1305.Overhead
)

// packetKind says what a packet carries.
type packetKind byte

const (
	packetSWIM  packetKind = 1 // memberlist's bytes
	packetProbe packetKind = 2 // 8 bytes of our own probe
	packetAck   packetKind = 3 // the same 8 bytes back
)

// Reasons of refused packets, also the names of their counters.
const (
	reasonSize    = "packet-size"
	reasonVersion = "packet-version"
	reasonKey     = "packet-key"
	reasonForged  = "packet-forged"
	reasonSender  = "packet-stranger"
)

type refused struct{ reason string }

func (e refused) Error() string { return e.reason }

// sealer seals and opens packets under one key.
type sealer struct {
	aead cipher.AEAD
	id   uint32
	self peer.ID
}

func newSealer(key []byte, self peer.ID) (*sealer, error) {
	if len(self) != senderSize {
		return nil, errors.New("gossip wants an Ed25519 identity")
	}
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, err
	}
	h := sha256.Sum256(append([]byte("p2pnode gossip key id\x00"), key...))
	return &sealer{aead: aead, id: binary.BigEndian.Uint32(h[:4]), self: self}, nil
}

func (s *sealer) seal(k packetKind, payload []byte) []byte {
	out := make([]byte, headSize+chacha20poly1305.NonceSizeX, sealOverhead+len(payload))
	out[0], out[1] = packetVersion, byte(k)
	binary.BigEndian.PutUint32(out[2:6], s.id)
	copy(out[6:headSize], s.self)
	nonce := out[headSize:]
	rand.Read(nonce)
	return s.aead.Seal(out, nonce, payload, out[:headSize])
}

// keyring is the key that seals now and those that open: after a rotation some
// members have the new one before others.
type keyring struct {
	use  *sealer
	open []*sealer
}

// seal seals with the key in use.
func (k *keyring) seal(kind packetKind, payload []byte) []byte { return k.use.seal(kind, payload) }

// opens checks a packet under the key that it names.
func (k *keyring) opens(b []byte) (kind packetKind, from peer.ID, payload []byte, err error) {
	if len(b) >= sealOverhead {
		for _, s := range k.open {
			if binary.BigEndian.Uint32(b[2:6]) == s.id {
				return s.open(b)
			}
		}
	}
	return k.use.open(b)
}

// open checks a packet; the payload is a copy.
func (s *sealer) open(b []byte) (k packetKind, from peer.ID, payload []byte, err error) {
	if len(b) < sealOverhead || len(b) > maxPacket {
		return 0, "", nil, refused{reasonSize}
	}
	if b[0] != packetVersion {
		return 0, "", nil, refused{reasonVersion}
	}
	if binary.BigEndian.Uint32(b[2:6]) != s.id {
		return 0, "", nil, refused{reasonKey}
	}
	nonce := b[headSize : headSize+chacha20poly1305.NonceSizeX]
	payload, err = s.aead.Open(nil, nonce, b[headSize+chacha20poly1305.NonceSizeX:], b[:headSize])
	if err != nil {
		return 0, "", nil, refused{reasonForged}
	}
	return packetKind(b[1]), peer.ID(b[6:headSize]), payload, nil
}
