package p2pnode

import (
	"crypto/ed25519"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"pgregory.net/rapid"
)

func TestIncarnationAndLifeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		i := Incarnation{Epoch: rapid.Uint64().Draw(t, "epoch"), N: rapid.Uint64().Draw(t, "n")}
		if got, err := ParseIncarnation(i.String()); err != nil || got != i {
			t.Fatalf("%v came back as %v, %v", i, got, err)
		}
		l := Life{Boot: i.Epoch, Nonce: i.N}
		if got, err := ParseLife(l.String()); err != nil || got != l {
			t.Fatalf("%v came back as %v, %v", l, got, err)
		}
	})
	for _, bad := range []string{"x", "1", "1-", "-1", "zz-1", "1-2-3"} {
		if _, err := ParseIncarnation(bad); err == nil {
			t.Errorf("%q was taken as an incarnation", bad)
		}
	}
}

func TestNewLifeRisesAndDiffers(t *testing.T) {
	a, b := NewLife(7), NewLife(7)
	if a.Boot != 8 || a == b {
		t.Fatalf("lives %v and %v after boot 7", a, b)
	}
}

// PeerID must be libp2p's own idea of an Ed25519 peer ID, or nobody connects.
func TestPeerIDIsLibp2ps(t *testing.T) {
	key, err := LoadOrCreateKey(filepath.Join(t.TempDir(), "node.key"))
	if err != nil {
		t.Fatal(err)
	}
	lk, err := crypto.UnmarshalEd25519PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	want, err := peer.IDFromPrivateKey(lk)
	if err != nil {
		t.Fatal(err)
	}
	got := PeerID(key.Public().(ed25519.PublicKey))
	if got != want {
		t.Fatalf("PeerID %s, libp2p says %s", got, want)
	}
	if pub, ok := PublicKey(got); !ok || !pub.Equal(key.Public()) {
		t.Fatalf("the key did not come back out of %s", got)
	}
	if s := ShortID(got); len(s) != 6 || !strings.HasSuffix(got.String(), s) {
		t.Fatalf("short form %q of %s", s, got)
	}
}

func TestTwoProcessesThatMakeAKeyShareIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "door.key")
	var wg sync.WaitGroup
	keys := make([]string, 8)
	for i := range keys {
		wg.Go(func() {
			k, err := LoadOrCreateKey(path)
			if err != nil {
				t.Error(err)
			}
			keys[i] = string(k)
		})
	}
	wg.Wait()
	for _, k := range keys {
		if k != keys[0] {
			t.Fatal("racers hold different keys")
		}
	}
	left, _ := filepath.Glob(path + ".*")
	if len(left) != 0 {
		t.Fatalf("temporary files left: %v", left)
	}
}

func TestKeyThatOthersCanReadIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "node.key")
	if _, err := LoadOrCreateKey(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrCreateKey(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Fatalf("err = %v", err)
	}
	os.WriteFile(path, []byte("not a key"), 0o600)
	os.Chmod(path, 0o600)
	if _, err := LoadOrCreateKey(path); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Fatalf("err = %v", err)
	}
}

// What a killed process did not finish goes; what one that lives is at stays, and so
// does what only looks like it.
func TestRemoveUnfinished(t *testing.T) {
	dir := t.TempDir()
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	mine := fmt.Sprintf("trust.json.%d.tmp", os.Getpid())
	fresh := fmt.Sprintf("ports.json.%d.tmp", ended.Process.Pid)
	keep := []string{"trust.json", "notes.tmp", "report.20261127.tmp", mine, fresh}
	for _, name := range append([]string{fmt.Sprintf("trust.json.%d.tmp", ended.Process.Pid)}, keep...) {
		path, old := filepath.Join(dir, name), time.Now().Add(-time.Hour)
		err := os.WriteFile(path, nil, 0o600)
		if err == nil && name != fresh {
			err = os.Chtimes(path, old, old)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	RemoveUnfinished(dir)
	left, _ := filepath.Glob(filepath.Join(dir, "*"))
	for i := range left {
		left[i] = filepath.Base(left[i])
	}
	slices.Sort(keep)
	if !slices.Equal(left, keep) {
		t.Errorf("left %q, want %q", left, keep)
	}
}

func TestWriteFileReplacesWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, want := range []string{"one", "two"} {
		if err := WriteFile(path, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(path); string(got) != want {
			t.Fatalf("%q, want %q", got, want)
		}
	}
	if left, _ := filepath.Glob(path + ".*"); len(left) != 0 {
		t.Fatalf("left: %v", left)
	}
}
