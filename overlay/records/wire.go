package records

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"p2pnode"
	"p2pnode/overlay/records/recordspb"
)

//go:generate protoc --go_out=../.. --go_opt=module=p2pnode -I . recordspb/records.proto

// ErrMessage means that bytes are no message of this package.
var ErrMessage = errors.New("records message damaged")

// wireVersion is the first byte of every message.
const wireVersion = 1

func encode(msg proto.Message) []byte {
	raw, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend([]byte{wireVersion}, msg)
	if err != nil {
		panic("records: a message made here does not encode: " + err.Error())
	}
	return raw
}

func decode(raw []byte, msg proto.Message) error {
	if len(raw) > MaxMessage {
		return fmt.Errorf("%w: %d bytes", ErrMessage, len(raw))
	}
	if len(raw) == 0 || raw[0] != wireVersion {
		return fmt.Errorf("%w: unknown version", ErrMessage)
	}
	if err := proto.Unmarshal(raw[1:], msg); err != nil {
		return fmt.Errorf("%w: %v", ErrMessage, err)
	}
	return nil
}

// Item is a signed record as it travels: a domain, the envelope over the
// payload, and what is left of its time (0: nothing ends it).
type Item struct {
	Domain   p2pnode.Domain
	Envelope []byte
	LeftMS   uint64
}

// DecodeBatch splits what Core.Batch made. The items are not verified: that is
// Take's work.
func DecodeBatch(raw []byte) ([]Item, error) {
	var msg recordspb.Batch
	if err := decode(raw, &msg); err != nil {
		return nil, err
	}
	return itemsOf(msg.Items)
}

func itemsOf(msgs []*recordspb.Item) ([]Item, error) {
	if len(msgs) > maxItems {
		return nil, fmt.Errorf("%w: %d records", ErrMessage, len(msgs))
	}
	out := make([]Item, len(msgs))
	for i, m := range msgs {
		out[i] = Item{Domain: p2pnode.Domain(m.Domain), Envelope: m.Envelope, LeftMS: m.LeftMs}
	}
	return out, nil
}

func (i Item) message() *recordspb.Item {
	return &recordspb.Item{Domain: string(i.Domain), Envelope: i.Envelope, LeftMs: i.LeftMS}
}

// size is what the item adds to a message: fields, tags and lengths.
func (i Item) size() int {
	return proto.Size(i.message()) + 4
}

// signingDomain keeps records apart from everything else that is signed.
func signingDomain(d p2pnode.Domain) string { return "record/" + string(d) }

// entryKey orders and names records: a comparable value.
type entryKey struct {
	domain p2pnode.Domain
	signer peer.ID
	key    string
}

// bucket is the digest bucket of a record, the same on all nodes.
func (k entryKey) bucket() int {
	h := fnv.New64a()
	h.Write([]byte(k.domain))
	h.Write([]byte{0})
	h.Write([]byte(k.signer))
	h.Write([]byte(k.key))
	return int(h.Sum64() % buckets)
}

// mark is what one version of a record adds to its bucket's sum.
func (k entryKey) mark(seq, hash uint64) uint64 {
	h := fnv.New64a()
	h.Write([]byte(k.domain))
	h.Write([]byte{0})
	h.Write([]byte(k.signer))
	h.Write([]byte(k.key))
	var tail [17]byte
	binary.BigEndian.PutUint64(tail[1:], seq)
	binary.BigEndian.PutUint64(tail[9:], hash)
	h.Write(tail[:])
	return h.Sum64()
}
