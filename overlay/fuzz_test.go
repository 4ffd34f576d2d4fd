package overlay

import (
	"bytes"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"p2pnode"
	"p2pnode/overlay/overlaypb"
	"p2pnode/test/memnet"
)

func FuzzFrame(f *testing.F) {
	for _, m := range []proto.Message{
		&overlaypb.Hello{Name: "a", Chain: [][]byte{{1}}},
		&overlaypb.Frame{Body: &overlaypb.Frame_Beat{Beat: &overlaypb.Beat{Number: 3, Records: []byte{1}}}},
		&overlaypb.Frame{Body: &overlaypb.Frame_Call{Call: &overlaypb.Call{Id: 1, Kind: "k", Body: []byte("b")}}},
		&overlaypb.BulkRequest{Kind: "k"},
	} {
		raw, err := encodeFrame(m, maxFrame)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Add([]byte{255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, m := range []proto.Message{&overlaypb.Hello{}, &overlaypb.HelloAnswer{}, &overlaypb.Frame{}, &overlaypb.BulkRequest{}, &overlaypb.BulkReply{}} {
			in := bytes.NewReader(raw)
			if readFrame(in, m, maxHello) != nil {
				continue
			}
			again, err := encodeFrame(m, maxFrame)
			if err != nil {
				t.Fatal(err)
			}
			back := proto.Clone(m)
			proto.Reset(back)
			if err := readFrame(bytes.NewReader(again), back, maxFrame); err != nil || !proto.Equal(m, back) {
				t.Fatalf("%v came back as %v, %v", m, back, err)
			}
		}
	})
}

// FuzzMember feeds a member what others can send it beyond the frame: records'
// bodies, routed calls, relayed requests, promotions, hellos.
func FuzzMember(f *testing.F) {
	n := memnet.New(1, time.Millisecond, 0)
	a := inMemory(f, n, 1, nil).admitted(10 * time.Second)
	box := make([]byte, 32)
	f.Add(encode(&overlaypb.PeerRecord{Name: "n", Addrs: []string{"1.2.3.4:5"}, BoxKey: box, Chain: a.cert.Chain, Labels: map[string]string{"k": "v"}}))
	f.Add(encode(&overlaypb.Routed{Origin: []byte(a.self), Destination: []byte(a.self), Kind: kindPing, Trail: [][]byte{[]byte("x")}}))
	f.Add(encode(&overlaypb.Relayed{Request: []byte("r"), Address: "1.2.3.4"}))
	f.Add(encode(&overlaypb.Hello{Name: "x", Chain: [][]byte{{1, 2}}}))
	f.Add([]byte{1})
	stranger := newCaller(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		ctx := t.Context()
		a.mu.Lock()
		err := a.admitPeer(p2pnode.Record{Domain: p2pnode.DomainPeer, Signer: stranger.id, Body: raw})
		a.peerLocked(p2pnode.Record{Signer: stranger.id, Body: raw})
		a.takeGrantLocked(p2pnode.Record{Domain: domainToken, Signer: stranger.id, Body: raw})
		a.ownLeave(raw)
		a.mu.Unlock()
		if err == nil {
			t.Fatal("a stranger's peer record was taken in")
		}
		a.takeRouted(ctx, stranger.id, raw)
		a.admitRelayed(ctx, stranger.id, raw)
		a.takeDigest(ctx, stranger.id, raw)
		a.takeExchange(ctx, stranger.id, raw)
		if _, err := a.takePromotion(ctx, stranger.id, raw); err == nil {
			t.Fatal("promoted by rubbish")
		}
		var h overlaypb.Hello
		if decode(raw, &h) == nil {
			if _, reason := a.checkHello(&connection{peer: stranger.id}, &h); reason == "" {
				t.Fatal("a stranger is welcome")
			}
		}
	})
}
