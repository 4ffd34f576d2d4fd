package papers

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"p2pnode"
	"p2pnode/overlay/papers/paperspb"
)

//go:generate protoc --go_out=../.. --go_opt=module=p2pnode -I . paperspb/papers.proto

// ErrMessage means that bytes are no message of this package.
var ErrMessage = errors.New("admission message damaged")

// wireVersion is the first byte of every message and record body.
const wireVersion = 1

func encode(msg proto.Message) []byte {
	raw, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend([]byte{wireVersion}, msg)
	if err != nil {
		panic("papers: a message made here does not encode: " + err.Error())
	}
	return raw
}

func decode(raw []byte, limit int, msg proto.Message) error {
	if len(raw) > limit {
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

// EncodeGrant is the body of a token record.
func EncodeGrant(g Grant) []byte {
	m := &paperspb.Grant{Public: g.Public, Role: string(g.Role), Expires: g.Expires.Unix(), Uses: uint32(g.Uses)}
	for _, u := range g.Used {
		m.Used = append(m.Used, u[:]...)
	}
	return encode(m)
}

// DecodeGrant reads the body of a token record. The record's key must be the
// grant's ID: the caller compares.
func DecodeGrant(body []byte) (Grant, error) {
	var m paperspb.Grant
	if err := decode(body, MaxGrant, &m); err != nil {
		return Grant{}, err
	}
	role := p2pnode.Role(m.Role)
	if len(m.Public) != ed25519.PublicKeySize || m.Uses < 1 || m.Uses > MaxTokenUses || len(m.Used) > 2*MaxTokenUses*len(Mark{}) || len(m.Used)%len(Mark{}) != 0 ||
		role != p2pnode.RoleWorker && role != p2pnode.RoleManager {
		return Grant{}, fmt.Errorf("%w: impossible grant", ErrMessage)
	}
	g := Grant{Public: m.Public, Role: role, Expires: time.Unix(m.Expires, 0), Uses: int(m.Uses)}
	for u := range slices.Chunk(m.Used, len(Mark{})) {
		g.Used = append(g.Used, Mark(u))
	}
	return g, nil
}
