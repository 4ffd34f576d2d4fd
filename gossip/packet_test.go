package gossip

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"google.golang.org/protobuf/proto"

	"p2pnode"
	"p2pnode/gossip/gossippb"
)

// forgedDeath is memberlist's dead message.
func forgedDeath(name string, incarnation uint32, from ...string) []byte {
	var b bytes.Buffer
	b.WriteByte(5)
	err := codec.NewEncoder(&b, &codec.MsgpackHandle{}).Encode(struct {
		Incarnation uint32
		Node, From  string
	}{incarnation, name, strings.Join(append(from, "forger")[:1], "")})
	if err != nil {
		panic(err)
	}
	return b.Bytes()
}

// forgedSuspicion is memberlist's suspect message.
func forgedSuspicion(name, from string, incarnation uint32) []byte {
	return append([]byte{swimSuspectMsg}, forgedDeath(name, incarnation, from)[1:]...)
}

func TestSealRefusesEveryFlippedBit(t *testing.T) {
	s, err := newSealer(bytes.Repeat([]byte{7}, 32), testID(1))
	if err != nil {
		t.Fatal(err)
	}
	p := s.seal(packetProbe, []byte("12345678"))
	k, from, payload, err := s.open(p)
	if err != nil || k != packetProbe || from != testID(1) || string(payload) != "12345678" {
		t.Fatalf("%v %v %q %v", k, from, payload, err)
	}
	for i := range p {
		bad := bytes.Clone(p)
		bad[i] ^= 1
		if _, _, _, err := s.open(bad); err == nil {
			t.Errorf("opened with byte %d flipped", i)
		}
	}
	other, _ := newSealer(bytes.Repeat([]byte{8}, 32), testID(1))
	if _, _, _, err := other.open(p); !errors.Is(err, refused{reasonKey}) {
		t.Errorf("another cluster's packet: %v", err)
	}
}

func FuzzOpenPacket(f *testing.F) {
	s, err := newSealer(make([]byte, 32), testID(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.seal(packetSWIM, []byte("x")))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, from, payload, err := s.open(b); err == nil && (len(from) != senderSize || len(payload)+sealOverhead != len(b)) {
			t.Fatal("opened into something else than was sealed")
		}
	})
}

func FuzzOverheard(f *testing.F) {
	f.Add([]byte{swimSuspectMsg, 0x80})
	f.Add([]byte{swimCompoundMsg, 2, 0, 1, 0, 1, 3, 3})
	f.Add([]byte{swimCRCMsg, 0, 0, 0, 0, swimSuspectMsg, 0x80})
	f.Fuzz(func(_ *testing.T, b []byte) { overheard(b) })
}

func FuzzObservation(f *testing.F) {
	good, _ := proto.Marshal(&gossippb.Observation{Subject: []byte(testID(2)), Kind: string(kindSilent), Boot: 1})
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		ev, err := decodeObservation(p2pnode.Record{Domain: p2pnode.DomainObservation, Signer: testID(1), Expires: time.Unix(9, 0), Body: b})
		if err == nil && ev.subject == ev.witness {
			t.Fatal("a witness of itself")
		}
	})
}
