package store

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"p2pnode"
)

// The clear text of an excerpt is never in the file, and another report's
// identity does not open it.
func TestExcerptsRestSealed(t *testing.T) {
	cfg := config(t, 1)
	private, public := readerPair(t)
	cfg.SealTo = public
	s, stop := running(t, cfg)
	r := must(t, s, 7)
	raw, err := s.raw(placeOf(s, r))
	if err != nil {
		t.Fatal(err)
	}
	d, _, err := decodeReport(raw)
	if err != nil {
		t.Fatal(err)
	}
	keys := func(private ...[]byte) readers {
		k, err := newReaders(private)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	if e := keys(private).open(d); e.Sealed || e.Why != "" || len(e.Lines) != 2 {
		t.Errorf("the reader's own key gives %+v", e)
	}
	moved := d
	moved.report.Seq++
	if e := keys(private).open(moved); !e.Sealed || e.Why == "" {
		t.Error("an excerpt opens in another report")
	}
	other, _ := readerPair(t)
	if e := keys(other).open(d); !e.Sealed || !strings.Contains(e.Why, idOf(public).String()) {
		t.Errorf("another key: %+v", e)
	}
	if e := keys().open(d); !e.Sealed || !strings.Contains(e.Why, "manager") {
		t.Errorf("no key: %+v", e)
	}
	stop()
	file, err := os.ReadFile(cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(file, []byte("last words")) {
		t.Error("the excerpt is in the file in the clear")
	}
}

// After a rotation new excerpts are sealed to the new key; who holds the old one
// as well reads all, who holds one of them reads its part.
func TestRotation(t *testing.T) {
	cfg := config(t, 1)
	oldPrivate, oldPublic := readerPair(t)
	newPrivate, newPublic := readerPair(t)
	cfg.SealTo = oldPublic
	s, stop := running(t, cfg)
	must(t, s, 1)
	if err := s.SetSeal(newPublic); err != nil {
		t.Fatal(err)
	}
	must(t, s, 2)
	stop()
	s, _ = running(t, cfg)
	for _, c := range []struct {
		keys [][]byte
		open []bool
	}{
		{nil, []bool{false, false}},
		{[][]byte{oldPrivate}, []bool{true, false}},
		{[][]byte{newPrivate}, []bool{false, true}},
		{[][]byte{newPrivate, oldPrivate}, []bool{true, true}},
		{[][]byte{oldPrivate}, []bool{true, false}},
	} {
		if err := s.SetReaders(c.keys...); err != nil {
			t.Fatal(err)
		}
		for i, r := range all(s) {
			if open := !r.Excerpt.Sealed; open != c.open[i] {
				t.Errorf("with %d keys report %d is open: %v", len(c.keys), i+1, open)
			}
		}
	}
	if err := s.SetReaders([]byte("short")); err == nil {
		t.Error("a key of five bytes was taken")
	}
	if err := s.SetSeal([]byte("short")); err == nil {
		t.Error("a public key of five bytes was taken")
	}
}

// Without a reader key of the cluster nothing is stored in the clear.
func TestNobodyToSealTo(t *testing.T) {
	s, _ := running(t, config(t, 1))
	must(t, s, 1)
	if e := all(s)[0].Excerpt; e != nil {
		t.Errorf("excerpt %+v", e)
	}
	r := sample(2)
	r.Excerpt = &p2pnode.Excerpt{Sealed: true}
	if _, err := s.Put(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}
