package store

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"p2pnode"
	"p2pnode/store/storepb"
)

func FuzzDecodeReport(f *testing.F) {
	f.Add(signed(f, 1, func(*p2pnode.Report) {}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if d, _, err := decodeReport(raw); err == nil && (d.report.Seq == 0 || d.report.Epoch == "") {
			t.Error("a report without identity")
		}
	})
}

func FuzzDecodePull(f *testing.F) {
	raw, err := frame(&storepb.Pull{Have: []*storepb.Have{{Origin: []byte("A"), Epoch: "e", Spans: spans{{1, 3}, {7, 7}}.encode(), Papers: true}}, First: []byte("a"), Most: 7})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte{1, 10, 4, 34, 2, 5, 1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		q, err := decodePull(raw)
		if err != nil {
			return
		}
		for l, h := range q.theirs {
			for i, s := range h.here {
				if s.lo == 0 || s.hi < s.lo || s.hi > maxSeq || i > 0 && s.lo <= h.here[i-1].hi+1 {
					t.Errorf("%v: %v is no set", l, h.here)
				}
			}
		}
	})
}

func FuzzDecodeBatchAndHead(f *testing.F) {
	raw, err := encodeBatch(batch{reports: [][]byte{{1}, {2}}, more: true, papers: [][][]byte{{{3}, {4}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	head, err := encodeHead(Head{"e", 1, 2, 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(head)
	f.Fuzz(func(t *testing.T, raw []byte) {
		decodeBatch(raw)
		decodePapers(raw)
		if h, err := decodeHead(raw); err == nil && (h.Floor == 0 || h.Highest > maxSeq) {
			t.Errorf("head %+v", h)
		}
	})
}

// What rests in a file is read back, and nothing else: any flipped bit shows.
func FuzzUnpack(f *testing.F) {
	f.Add(pack(sketch{at: 1, incident: 2, node: 3, thing: 4, phase: 5, flags: 1}, []byte("raw")), 17)
	f.Fuzz(func(t *testing.T, v []byte, bit int) {
		k, raw, err := unpack(v)
		if err != nil {
			return
		}
		if !bytes.Equal(pack(k, raw), v) {
			t.Fatalf("%x became %x", v, pack(k, raw))
		}
		b := bytes.Clone(v)
		b[(bit&0x7fffffff/8)%len(b)] ^= 1 << (bit & 7)
		if _, _, err := unpack(b); err == nil {
			t.Fatalf("bit %d of %x is not noticed", bit, v)
		}
	})
}

func FuzzCarve(f *testing.F) {
	one := pack(sketch{at: 1}, []byte("raw"))
	f.Add(append([]byte("p2p2r1"), one...))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = append(b, one...)
		found := false
		err := carve(bytes.NewReader(b), int64(len(b)), func(v []byte) {
			if _, _, err := unpack(v); err != nil {
				t.Errorf("%x was carved out: %v", v, err)
			}
			found = found || bytes.Equal(v, one)
		})
		// It may stand in what looks like a longer one; then that one is sound.
		if err != nil || !found && !bytes.Contains(b[:len(b)-len(one)], []byte(magic)) {
			t.Errorf("%v, found %v in %x", err, found, b)
		}
	})
}

// Counts hold before anything is decoded.
func TestFieldsAreCountedFirst(t *testing.T) {
	raw := []byte{wireVersion}
	for range maxBatch/minReport + 1 {
		raw = protowire.AppendTag(raw, 1, protowire.BytesType)
		raw = protowire.AppendBytes(raw, nil)
	}
	if _, err := decodeBatch(raw); err == nil {
		t.Error("a batch of empty reports was decoded")
	}
	raw = []byte{wireVersion}
	for range maxLines + 1 {
		raw = protowire.AppendTag(raw, 1, protowire.BytesType)
		raw = protowire.AppendBytes(raw, nil)
	}
	if _, err := decodePull(raw); err == nil {
		t.Error("a question of empty lines was decoded")
	}
	if n := fields([]byte{wireVersion, 0x0a, 0x05, 1}, 1); n != 0 {
		t.Errorf("%d whole fields in half a one", n)
	}
}

// What this version wrote is read by every later one.
func TestGolden(t *testing.T) {
	r := p2pnode.Report{
		Origin: id(1).String(), Epoch: "epoch", Seq: 7, At: time.Unix(1700000000, 5).UTC(), Phase: p2pnode.PhaseActed, Incident: "i-0011223344",
		Kind: p2pnode.KindService, Node: id(2).String(), Service: "web", By: p2pnode.By{Kind: p2pnode.ByAgent},
	}
	report, err := encodeReport(key(1), r, nil)
	if err != nil {
		t.Fatal(err)
	}
	pull, err := frame(&storepb.Pull{Have: []*storepb.Have{{Origin: []byte("A"), Epoch: "e", Spans: spans{{1, 3}, {7, 7}}.encode(), Papers: true}}, First: []byte("a"), Upto: []byte("b"), Most: 7})
	if err != nil {
		t.Fatal(err)
	}
	answer, err := encodeBatch(batch{reports: [][]byte{{1}, {2}}, more: true, papers: [][][]byte{{{3}, {4}}}})
	if err != nil {
		t.Fatal(err)
	}
	rests, err := newTaken(report)
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{
		"report": report, "pull": pull, "batch": answer, "rests": rests.packed,
		"head": must2(encodeHead(Head{"e", 1, 2, 1})), "papers": must2(encodePapers([][]byte{{1}, {2}})),
	} {
		path := filepath.Join("testdata", "v1", name)
		if os.Getenv("UPDATE_GOLDEN") != "" {
			os.MkdirAll(filepath.Dir(path), 0o755)
			if err := os.WriteFile(path, raw, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if name == "report" || name == "rests" {
			continue // its JSON may gain fields; how old ones are read is below
		}
		if err != nil || !bytes.Equal(raw, want) {
			t.Errorf("%s: version 1 is written as %x, was %x (%v)", name, raw, want, err)
		}
	}
	old, err := os.ReadFile(filepath.Join("testdata", "v1", "report"))
	if err != nil {
		t.Fatal(err)
	}
	d, l, err := decodeReport(old)
	if err != nil || l != (line{id(1), "epoch"}) || !reflect.DeepEqual(d.report, r) {
		t.Errorf("a report of version 1 reads as %+v (%v)", d.report, err)
	}
	old, err = os.ReadFile(filepath.Join("testdata", "v1", "rests"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := takenFrom(old); err != nil || got.incident != fingerprint(r.Incident) || got.phase != phaseActed {
		t.Errorf("a report at rest of version 1 reads as %+v (%v)", got.sketch, err)
	}
}
