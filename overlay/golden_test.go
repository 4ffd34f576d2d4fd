package overlay

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"p2pnode/overlay/overlaypb"
)

// Frames of version 1, one file each: whoever changes a message must still read
// what is out there. A new message gets its file on the first run.
func TestGoldenFrames(t *testing.T) {
	id := func(b byte) []byte { return bytes.Repeat([]byte{b}, 4) }
	hello := &overlaypb.Hello{
		Chain: [][]byte{{1, 2}, {3}}, Name: "kestrel", Boot: 7, Nonce: 9, Version: "v1", Link: true, Join: []byte{4}, Listen: "10.0.0.1:7744",
	}
	for name, m := range map[string]proto.Message{
		"hello":            hello,
		"hello-answer":     &overlaypb.HelloAnswer{Hello: hello, Refused: "r", Text: "t", Admission: []byte{5}},
		"frame-beat":       &overlaypb.Frame{Body: &overlaypb.Frame_Beat{Beat: &overlaypb.Beat{Number: 3, Records: []byte{6}}}},
		"frame-echo":       &overlaypb.Frame{Body: &overlaypb.Frame_Echo{Echo: 3}},
		"frame-records":    &overlaypb.Frame{Body: &overlaypb.Frame_Records{Records: []byte{7}}},
		"frame-call":       &overlaypb.Frame{Body: &overlaypb.Frame_Call{Call: &overlaypb.Call{Id: 1, Kind: "k", Body: []byte{8}}}},
		"frame-reply":      &overlaypb.Frame{Body: &overlaypb.Frame_Reply{Reply: &overlaypb.Reply{Id: 1, Body: []byte{9}, Error: "e"}}},
		"frame-bye":        &overlaypb.Frame{Body: &overlaypb.Frame_Bye{Bye: byeStops}},
		"relayed":          &overlaypb.Relayed{Request: []byte{1}, Local: true, Address: "10.0.0.1"},
		"routed":           &overlaypb.Routed{Origin: id(1), Destination: id(2), Kind: "k", Body: []byte{3}, Trail: [][]byte{id(1)}},
		"routed-reply":     &overlaypb.RoutedReply{Body: []byte{3}, Trail: [][]byte{id(1), id(2)}, Error: "e"},
		"bulk-request":     &overlaypb.BulkRequest{Kind: "k", Body: []byte{3}},
		"bulk-reply":       &overlaypb.BulkReply{Body: []byte{3}, Error: "e"},
		"record-leave":     &overlaypb.LeaveRecord{Boot: 7, Nonce: 9, ForGood: true},
		"record-revoked":   &overlaypb.RevokedRecord{Subject: id(1), At: 7, Chain: [][]byte{{1}}, Kept: bytes.Repeat([]byte{2}, 16)},
		"record-demoted":   &overlaypb.DemotedRecord{Subject: id(1), At: 7, Chain: [][]byte{{1}}, Kept: bytes.Repeat([]byte{2}, 16)},
		"record-admission": &overlaypb.AdmissionRecord{At: 7, OpenMs: 9, Joiner: id(1), Name: "n", Address: "10.0.0.1", Since: 8},
		"record-reader": &overlaypb.ReaderRecord{
			Public: bytes.Repeat([]byte{1}, 32), Number: 2, At: 7, Chain: [][]byte{{1}}, Against: bytes.Repeat([]byte{2}, 8),
			Shares: []*overlaypb.Share{{To: id(3), Sealed: []byte{4}}},
		},
		"record-peer": &overlaypb.PeerRecord{
			Name: "kestrel", Addrs: []string{"10.0.0.1:7744"}, Door: "10.0.0.1:7745", Boot: 7, Nonce: 9,
			Labels: map[string]string{"site": "home"}, Managing: true, Version: "v1", BoxKey: id(1), Chain: [][]byte{{1}},
		},
	} {
		raw, err := encodeFrame(m, maxFrame)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", "wire-v1", name+".hex")
		file, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(hex.EncodeToString(raw)+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			t.Errorf("%s: written, look at it and commit it", path)
			continue
		}
		want, err := hex.DecodeString(strings.TrimSpace(string(file)))
		if err != nil {
			t.Fatal(err)
		}
		back := m.ProtoReflect().New().Interface()
		if err := readFrame(bytes.NewReader(want), back, maxFrame); err != nil || !proto.Equal(m, back) {
			t.Errorf("%s reads as %v, %v", name, back, err)
		}
	}
}
