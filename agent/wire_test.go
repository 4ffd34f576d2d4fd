package agent

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"p2pnode"

	"github.com/libp2p/go-libp2p/core/peer"
)

var update = flag.Bool("update", false, "write golden files anew")

var goldenNow = time.UnixMilli(1_700_000_000_000)

func goldenTraveller() *traveller {
	return &traveller{
		id: "a-0011223344", order: "o-1", hop: 41, hopsLeft: 60, expires: goldenNow.Add(time.Minute), slo: 15 * time.Second,
		born: goldenNow.Add(-time.Hour), visited: 40, goal: testID(3), marks: []mark{{testID(1), goldenNow.Add(-2 * time.Second)}},
		mission: &mission{
			failure: failureOf(testID(2), "", "3-abc", p2pnode.ClassProcessDead), attempt: 2, hops: 1,
			trail: []peer.ID{testID(0), testID(1)}, verifyOnly: true, knownAt: goldenNow.Add(-80 * time.Millisecond),
			claimedAt: goldenNow.Add(-70 * time.Millisecond), avoid: []peer.ID{testID(4)},
		},
	}
}

func goldenStamp() stamp {
	return stamp{at: goldenNow, agents: []present{{
		id: "a-1", kind: kindPatrol, order: "o-1", incident: "", hop: 7, visited: 8, born: goldenNow.Add(-time.Second), next: testID(2),
	}}}
}

func goldenClaim() claim {
	return claim{failure: failureOf(testID(2), "", "3-abc", p2pnode.ClassHung), attempt: 1, agent: "a-1", phase: phaseAct, lease: claimLease}
}

func goldenOrder() Order {
	return Order{ID: "o-1", SLO: 15 * time.Second, Confidence: 0.99, Labels: map[string]string{"site": "home", "tier": "web"}, At: goldenNow.UTC()}
}

// TestGolden: what version 1 wrote is read for ever, and written the same.
func TestGolden(t *testing.T) {
	trav, err1 := encodeTraveller(goldenNow, goldenTraveller())
	st, err2 := encodeStamp(goldenNow, goldenStamp())
	cl, err3 := encodeClaim(goldenClaim())
	or, err4 := EncodeOrder(goldenOrder())
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{"traveller": trav, "stamp": st, "claim": cl, "order": or, "ack": encodeAck(refusedFull)} {
		path := filepath.Join("testdata", name+".v1.hex")
		if *update {
			if err := os.WriteFile(path, []byte(hex.EncodeToString(raw)+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want, err := hex.DecodeString(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(raw, want) {
			t.Errorf("%s is written as\n%x, was\n%x", name, raw, want)
		}
		checkGolden(t, name, want)
	}
}

func checkGolden(t *testing.T, name string, raw []byte) {
	t.Helper()
	var got, want any
	var err error
	switch name {
	case "traveller":
		got, err = decodeTraveller(goldenNow, raw)
		want = goldenTraveller()
	case "stamp":
		var s stamp
		s, err = decodeStamp(goldenNow, raw)
		got, want = s, goldenStamp()
	case "claim":
		got, err = decodeClaim(raw)
		want = goldenClaim()
	case "order":
		got, err = decodeOrder(raw)
		want = goldenOrder()
	case "ack":
		got, want = decodeAck(raw), refusedFull
	}
	if err != nil || !reflect.DeepEqual(fmt.Sprintf("%+v", deref(got)), fmt.Sprintf("%+v", deref(want))) {
		t.Errorf("%s: read %+v (%v), want %+v", name, deref(got), err, deref(want))
	}
}

// deref lets %+v print what a mission pointer holds.
func deref(v any) any {
	if t, ok := v.(*traveller); ok {
		c := *t
		m := *c.mission
		c.mission = nil
		return []any{c, m}
	}
	return v
}

// TestRefusals: bytes that are wrong are refused by name, before anything is
// made of them.
func TestRefusals(t *testing.T) {
	good, err := encodeTraveller(goldenNow, goldenTraveller())
	if err != nil {
		t.Fatal(err)
	}
	change := func(edit func(*traveller)) []byte {
		tr := goldenTraveller()
		edit(tr)
		b, err := encodeTraveller(goldenNow, tr)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, c := range map[string]struct {
		raw  []byte
		want refused
	}{
		"empty":    {nil, refusedEmpty},
		"long":     {append([]byte{wireVersion}, make([]byte, maxTravellerBytes)...), refusedTooLong},
		"version":  {append([]byte{9}, good[1:]...), refusedVersion},
		"cut":      {good[:len(good)-3], refusedDamaged},
		"no id":    {change(func(t *traveller) { t.id = "" }), refusedLimits},
		"long id":  {change(func(t *traveller) { t.id = strings.Repeat("x", 65) }), refusedLimits},
		"expired":  {change(func(t *traveller) { t.expires = goldenNow }), refusedExpired},
		"no peer":  {change(func(t *traveller) { t.mission.target = "somebody" }), refusedLimits},
		"far hops": {change(func(t *traveller) { t.hopsLeft = missionHops + 1 }), refusedExpired},
		"attempts": {change(func(t *traveller) { t.mission.attempt = maxAttempt + 1 }), refusedLimits},
	} {
		if _, err := decodeTraveller(goldenNow, c.raw); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if _, err := decodeTraveller(goldenNow, good); err != nil {
		t.Errorf("a good one: %v", err)
	}
}

func FuzzTraveller(f *testing.F) {
	raw, _ := encodeTraveller(goldenNow, goldenTraveller())
	f.Add(raw)
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		tr, err := decodeTraveller(goldenNow, raw)
		if err != nil {
			return
		}
		if _, err := encodeTraveller(goldenNow, tr); err != nil {
			t.Fatalf("taken in and cannot be sent on: %v", err)
		}
	})
}

func FuzzStamp(f *testing.F) {
	raw, _ := encodeStamp(goldenNow, goldenStamp())
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		if s, err := decodeStamp(goldenNow, raw); err == nil && len(s.agents) > maxPresent {
			t.Fatal("too many")
		}
	})
}

func FuzzClaim(f *testing.F) {
	raw, _ := encodeClaim(goldenClaim())
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		if c, err := decodeClaim(raw); err == nil && (c.lease < 0 || c.lease > maxLease || c.agent == "") {
			t.Fatalf("%+v", c)
		}
	})
}

func FuzzOrder(f *testing.F) {
	raw, _ := EncodeOrder(goldenOrder())
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		if o, err := decodeOrder(raw); err == nil && o.validate() != nil {
			t.Fatalf("%+v", o)
		}
	})
}

func FuzzAck(f *testing.F) {
	f.Add(encodeAck(""))
	f.Add(encodeAck(refusedFull))
	f.Fuzz(func(t *testing.T, raw []byte) { _ = decodeAck(raw) })
}
