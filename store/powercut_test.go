package store

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

const pageSize = 4096

// Power fails between any two writes of a commit. A commit writes pages in any
// order, waits for the disk, and then writes the page that makes them count; so
// what a cut can leave is any part of the pages, half of one, and before or after
// that last one. From each such file everything that was acknowledged is read, and
// no number is given again that somebody may have seen.
func TestPowerCutAtEveryWrite(t *testing.T) {
	cfg := config(t, 1)
	s, stop := running(t, cfg)
	rng := rand.New(rand.NewPCG(3, 4))
	acked := map[string]bool{}
	cuts := 0
	before, _ := os.ReadFile(cfg.Path)
	for n := range 25 {
		r := must(t, s, n)
		after, err := os.ReadFile(cfg.Path)
		if err != nil {
			t.Fatal(err)
		}
		for name, image := range cutsBetween(before, after, rng) {
			cuts++
			path := filepath.Join(t.TempDir(), "store.db")
			if err := os.WriteFile(path, image, 0o600); err != nil {
				t.Fatal(err)
			}
			lookAfterCut(t, fmt.Sprintf("commit %d, %s", n, name), Config{Path: path, Key: cfg.Key}, acked)
		}
		acked[identity(r)] = true
		before = after
	}
	stop()
	t.Logf("%d cuts, %d reports acknowledged", cuts, len(acked))
}

func lookAfterCut(t *testing.T, when string, cfg Config, acked map[string]bool) {
	t.Helper()
	s, stop := running(t, cfg)
	defer stop()
	here := map[string]bool{}
	for r := range s.All() {
		here[identity(r)] = true
	}
	for id := range acked {
		if !here[id] {
			t.Errorf("%s: %s was acknowledged and is lost", when, id)
		}
	}
	if next := identity(must(t, s, 999)); acked[next] || here[next] {
		t.Errorf("%s: %s is given twice", when, next)
	}
}

// cutsBetween are the files that a power cut can leave between two states.
func cutsBetween(before, after []byte, rng *rand.Rand) map[string][]byte {
	grown := append(bytes.Clone(before), make([]byte, max(0, len(after)-len(before)))...)
	var data, meta []int
	for at := 0; at+pageSize <= len(after); at += pageSize {
		if bytes.Equal(grown[at:at+pageSize], after[at:at+pageSize]) {
			continue
		}
		if at < 2*pageSize {
			meta = append(meta, at)
		} else {
			data = append(data, at)
		}
	}
	rng.Shuffle(len(data), func(i, j int) { data[i], data[j] = data[j], data[i] })
	out := map[string][]byte{"nothing written": bytes.Clone(grown)}
	if len(grown) > len(before) && len(before) > 0 {
		out["not even longer"] = bytes.Clone(before)
	}
	image := bytes.Clone(grown)
	for i, at := range data {
		half := bytes.Clone(image)
		copy(half[at:at+pageSize/2], after[at:])
		out[fmt.Sprintf("half of page %d of %d", i+1, len(data))] = half
		copy(image[at:at+pageSize], after[at:])
		out[fmt.Sprintf("%d of %d pages", i+1, len(data))] = bytes.Clone(image)
	}
	for _, at := range meta {
		for _, sector := range []int{16, 48, 512} {
			torn := bytes.Clone(image)
			copy(torn[at:at+sector], after[at:])
			out[fmt.Sprintf("%d bytes of the last page", sector)] = torn
		}
		copy(image[at:at+pageSize], after[at:])
	}
	out["all written"] = image
	return out
}
