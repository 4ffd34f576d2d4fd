package overlay

import (
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"p2pnode/overlay/overlaypb"
	"p2pnode/overlay/papers"
	"p2pnode/test/bubble"
	"p2pnode/test/memnet"
)

func (m *member) cluster() string {
	c, _ := m.Cluster()
	return c.ID
}

// A host that was started alone by mistake gives its cluster of one up for the one that
// it is told to join, once that lets it in; one with a second member never does.
func TestAClusterOfOneDissolves(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		net := memnet.New(137, time.Millisecond, 0)
		a := inMemory(t, net, 1, nil).admitted(time.Second)
		w := inMemory(t, net, 2, joins("10.0.0.1"))
		allKnowAll(t, 10*time.Second, a, w)
		time.Sleep(papers.Window)
		dir := t.TempDir()
		start := at(t, net, 3, dir)
		b := start().admitted(time.Second)
		own := b.cluster()
		if err := b.Join("10.0.0.2:7744"); err != nil {
			t.Fatal(err)
		}
		code := papers.Code(b.self)
		eventually(t, time.Minute, "it says how it may come in", func() bool { return strings.Contains(knocks(b), "p2pnode approve "+code) })
		if b.cluster() != own || !b.isAdmitted() {
			t.Error("it gave up before it was let in")
		}
		if err := a.Approve(b.self); err != nil {
			t.Fatal(err)
		}
		if err := <-b.done; !errors.Is(err, ErrDissolved) {
			t.Fatalf("its life ended with %v", err)
		}
		b.done <- nil
		// Its old cluster says nothing more: the papers on disk are the other one's.
		_, late, _ := ed25519.GenerateKey(nil)
		req, err := papers.NewRequest(late, "late", nil)
		if err != nil {
			t.Fatal(err)
		}
		b.grant(&overlaypb.Relayed{Request: req, Local: true, Address: "10.0.0.9"})
		b = start()
		allKnowAll(t, 20*time.Second, a, w, b)
		if b.cluster() != a.cluster() || len(papers.LoadReaders(dir)) != 0 {
			t.Error("it is somewhere else, or kept its reader key")
		}
		if aside, _ := filepath.Glob(filepath.Join(dir, "root.key.*")); len(aside) != 1 {
			t.Errorf("the root key of the cluster that was given up: %v", aside)
		}
		// Two members are a cluster: it stays, whomever it is told to join.
		dirC := t.TempDir()
		startC := at(t, net, 4, dirC)
		c := startC().admitted(time.Second)
		d := inMemory(t, net, 5, joins("10.0.0.4"))
		allKnowAll(t, 10*time.Second, c, d)
		stays := c.cluster()
		if _, err := a.Open(time.Hour); err != nil {
			t.Fatal(err)
		}
		if err := c.Join("10.0.0.1:7744"); err != nil {
			t.Fatal(err)
		}
		d.stop()
		remains := func(what string) {
			time.Sleep(5 * time.Minute)
			kept, err := papers.Load(dirC, c.key)
			if err != nil || kept == nil || kept.ID() != stays || len(c.done) > 0 || c.JoinError() == nil {
				t.Errorf("%s dissolved: %v, %v", what, c.JoinError(), err)
			}
		}
		remains("a cluster of two")
		// Nor does one that has forgotten whom it let in.
		c.stop()
		if err := os.Remove(filepath.Join(dirC, "peers.json")); err != nil {
			t.Error(err)
		}
		c = startC()
		if err := c.Join("10.0.0.1:7744"); err != nil {
			t.Fatal(err)
		}
		remains("a cluster that had let somebody in")
	})
}

// Two founders that are told to join each other become one cluster, not none.
func TestTwoFoundersTellEachOther(t *testing.T) {
	for seed := range uint64(10) {
		bubble.Test(t, func(t *testing.T) { meet(t, seed) })
	}
}

func meet(t *testing.T, seed uint64) {
	net := memnet.New(139+seed, time.Millisecond, 0)
	startA, startB := at(t, net, 1, t.TempDir()), at(t, net, 2, t.TempDir())
	a, b := startA().admitted(time.Second), startB().admitted(time.Second)
	for m, to := range map[*member]string{a: "10.0.0.2:7744", b: "10.0.0.1:7744"} {
		if err := m.Join(to); err != nil {
			t.Fatal(err)
		}
	}
	for began := time.Now(); a.cluster() != b.cluster() || !a.linked(b); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > 5*time.Minute {
			t.Fatal("two clusters still")
		}
		for m, again := range map[**member]func() *member{&a: startA, &b: startB} {
			select {
			case err := <-(*m).done:
				(*m).done <- err
				*m = again()
			default:
			}
		}
	}
}
