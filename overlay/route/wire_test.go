package route

import (
	"bytes"
	"encoding/hex"
	"errors"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"p2pnode/overlay/route/routepb"
)

func TestLinksRoundTrip(t *testing.T) {
	want := []Edge{{id(1), 0}, {id(2), 5}}
	got, err := DecodeLinks(id(0), EncodeLinks(want))
	if err != nil || got.Of != id(0) || !slices.Equal(got.Edges, want) {
		t.Fatalf("%+v %v", got, err)
	}
	if got, err := DecodeLinks(id(0), EncodeLinks(nil)); err != nil || len(got.Edges) != 0 {
		t.Fatalf("no links: %+v %v", got, err)
	}
}

// The bytes of version 1, for ever.
func TestLinksGolden(t *testing.T) {
	const golden = "010a2a0a260024080112200000000200000000000000000000000000000000000000000000000000000000" +
		"1003"
	raw, _ := hex.DecodeString(golden)
	got, err := DecodeLinks(id(0), raw)
	if err != nil || !slices.Equal(got.Edges, []Edge{{id(1), 3}}) {
		t.Fatalf("%+v %v", got, err)
	}
	if enc := EncodeLinks(got.Edges); !bytes.Equal(enc, raw) {
		t.Fatalf("encodes as %x", enc)
	}
}

func TestLinksRefused(t *testing.T) {
	raw := func(edges ...*routepb.Edge) []byte {
		b, _ := proto.Marshal(&routepb.Links{Edges: edges})
		return append([]byte{bodyVersion}, b...)
	}
	one := &routepb.Edge{Peer: []byte(id(1))}
	many := make([]*routepb.Edge, MaxEdges+1)
	for i := range many {
		many[i] = &routepb.Edge{Peer: []byte(id(i + 1))}
	}
	for name, body := range map[string][]byte{
		"empty":         nil,
		"version":       append([]byte{9}, raw(one)[1:]...),
		"too long":      make([]byte, MaxBody+1),
		"no protobuf":   {bodyVersion, 0xff, 0xff},
		"no peer ID":    raw(&routepb.Edge{Peer: []byte("x")}),
		"to itself":     raw(&routepb.Edge{Peer: []byte(id(0))}),
		"twice":         raw(one, one),
		"too many":      raw(many...),
		"missing bytes": raw(one)[:20],
	} {
		if _, err := DecodeLinks(id(0), body); !errors.Is(err, ErrLinks) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got, err := DecodeLinks(id(0), raw(&routepb.Edge{Peer: []byte(id(1)), Class: 4e9})); err != nil || got.Edges[0].Class != MaxClass {
		t.Errorf("a class of the future: %+v %v", got, err)
	}
}

func FuzzDecodeLinks(f *testing.F) {
	f.Add(EncodeLinks([]Edge{{id(1), 1}, {id(2), 2}}))
	f.Add([]byte{bodyVersion})
	f.Fuzz(func(t *testing.T, body []byte) {
		links, err := DecodeLinks(id(0), body)
		if err != nil {
			return
		}
		again, err := DecodeLinks(id(0), EncodeLinks(links.Edges))
		if err != nil || !slices.Equal(again.Edges, links.Edges) {
			t.Fatalf("%+v came back as %+v: %v", links, again, err)
		}
		Build(id(0), []Links{links}, nil).Next(id(1))
	})
}
