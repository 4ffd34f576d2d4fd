package node

import (
	"slices"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Whoever has what is missing is asked within two rounds, wherever he stands.
func TestEveryNeighbourIsAskedInTurn(t *testing.T) {
	near := []peer.ID{"a", "b", "c", "d"}
	for _, c := range []struct {
		name    string
		missing []peer.ID
		want    string // of eight turns
	}{
		{"nothing known to be missing", nil, "abcdabcd"},
		{"the origin is far", []peer.ID{"x"}, "abcdabcd"},
		{"the origin is near: every other turn is its own", []peer.ID{"x", "c"}, "cacbcccd"},
	} {
		var got []byte
		for turn := range 8 {
			got = append(got, whomToAsk(near, c.missing, turn)...)
		}
		if string(got) != c.want {
			t.Errorf("%s: asked %s, want %s", c.name, got, c.want)
		}
	}
	if whomToAsk(nil, near, 3) != "" {
		t.Error("somebody was asked where there is nobody")
	}
	if !slices.IsSorted(near) {
		t.Error("the list was changed")
	}
}
