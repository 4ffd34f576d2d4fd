package route

import (
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"p2pnode/overlay/route/routepb"
)

//go:generate protoc --go_out=../.. --go_opt=module=p2pnode -I . routepb/route.proto

// ErrLinks means that bytes are no body of a link record.
var ErrLinks = errors.New("link record damaged")

// bodyVersion is the first byte of every body.
const bodyVersion = 1

// EncodeLinks is the body of the link record of a node with these links. More
// than MaxEdges are cut off.
func EncodeLinks(edges []Edge) []byte {
	msg := &routepb.Links{}
	for _, e := range edges[:min(len(edges), MaxEdges)] {
		msg.Edges = append(msg.Edges, &routepb.Edge{Peer: []byte(e.Peer), Class: uint32(e.Class)})
	}
	// Deterministic, so that equal links are equal bytes and need no new record.
	body, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend([]byte{bodyVersion}, msg)
	if err != nil {
		panic("route: a message made here does not encode: " + err.Error())
	}
	return body
}

// DecodeLinks reads the body of a link record that of signed. Links of a node to
// itself, repeated ones and unreadable IDs make the whole record invalid; an
// unknown class reads as the slowest.
func DecodeLinks(of peer.ID, body []byte) (Links, error) {
	if len(body) > MaxBody {
		return Links{}, fmt.Errorf("%w: %d bytes", ErrLinks, len(body))
	}
	if len(body) == 0 || body[0] != bodyVersion {
		return Links{}, fmt.Errorf("%w: unknown version", ErrLinks)
	}
	var msg routepb.Links
	if err := proto.Unmarshal(body[1:], &msg); err != nil {
		return Links{}, fmt.Errorf("%w: %v", ErrLinks, err)
	}
	if len(msg.Edges) > MaxEdges {
		return Links{}, fmt.Errorf("%w: %d links", ErrLinks, len(msg.Edges))
	}
	out := Links{Of: of}
	seen := make(map[peer.ID]bool, len(msg.Edges))
	for _, e := range msg.Edges {
		id, err := peer.IDFromBytes(e.Peer)
		if err != nil || id == of || seen[id] {
			return Links{}, fmt.Errorf("%w: impossible neighbour", ErrLinks)
		}
		seen[id] = true
		out.Edges = append(out.Edges, Edge{Peer: id, Class: Class(min(e.Class, uint32(MaxClass)))})
	}
	return out, nil
}
