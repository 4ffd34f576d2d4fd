package exec

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/json"
	"errors"

	"p2pnode"

	"github.com/libp2p/go-libp2p/core/peer"
)

// A log on its way to the manager who asked for it: batches of lines, sealed one after
// the other with HPKE (X25519, HKDF-SHA256, ChaCha20-Poly1305) to the key in his order.
// Their numbers are part of the sealing, so none can be left out, repeated or moved. The
// head, which comes first, holds what opens them and the hash of the order, signed by
// this host: nobody on the way can answer in its place.

// logDomain is the envelope domain of a head.
const logDomain = "host-log"

// SealedLog is one piece of an answer.
type SealedLog struct {
	Head   []byte `json:"head,omitempty"`   // the first piece's
	Sealed []byte `json:"sealed,omitempty"` // the others': a LogBatch
}

// LogBatch is what a sealed piece holds. An answer without one that is done is not
// complete.
type LogBatch struct {
	Lines []LogLine      `json:"lines,omitempty"`
	Done  bool           `json:"done,omitempty"`
	Error *p2pnode.Error `json:"error,omitempty"` // why it ends; with Done
}

type logHead struct {
	Order []byte `json:"order"` // SHA-256 of the order's envelope
	Enc   []byte `json:"enc"`
}

func logKEM() hpke.KEM { return hpke.DHKEM(ecdh.X25519()) }

type logSealer struct{ to *hpke.Sender }

// sealLog begins an answer to order, sealed to key.
func sealLog(own ed25519.PrivateKey, order, key []byte) (*logSealer, []byte, error) {
	pub, err := logKEM().NewPublicKey(key)
	if err != nil {
		return nil, nil, err
	}
	enc, to, err := hpke.NewSender(pub, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte("p2pnode "+logDomain))
	if err != nil {
		return nil, nil, err
	}
	sum := sha256.Sum256(order)
	return &logSealer{to}, p2pnode.Seal(logDomain, own, body(logHead{sum[:], enc})), nil
}

func (s *logSealer) batch(b LogBatch) ([]byte, error) { return s.to.Seal(nil, body(b)) }

// LogKey opens one answer.
type LogKey struct {
	private hpke.PrivateKey
	from    *hpke.Recipient // nil before the head
}

// NewLogKey makes one; its public half goes into LogRead.Key.
func NewLogKey() (*LogKey, error) {
	private, err := logKEM().GenerateKey()
	if err != nil {
		return nil, err
	}
	return &LogKey{private: private}, nil
}

// Public is the public half.
func (k *LogKey) Public() []byte { return k.private.PublicKey().Bytes() }

var errForgedLog = errors.New("what came is not this host's answer")

// Open opens the next piece of host's answer to order. Of the head there is nothing to
// show.
func (k *LogKey) Open(host peer.ID, order []byte, s SealedLog) (b LogBatch, err error) {
	if k.from != nil {
		plain, err := k.from.Open(nil, s.Sealed)
		if err != nil {
			return b, errForgedLog
		}
		return b, json.Unmarshal(plain, &b)
	}
	env, err := p2pnode.Open(logDomain, s.Head)
	var head logHead
	if err == nil {
		err = json.Unmarshal(env.Payload, &head)
	}
	if sum := sha256.Sum256(order); err != nil || env.Signer != host || string(head.Order) != string(sum[:]) {
		return b, errForgedLog
	}
	k.from, err = hpke.NewRecipient(head.Enc, k.private, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte("p2pnode "+logDomain))
	return b, err
}
