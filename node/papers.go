package node

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"

	"p2pnode"
	"p2pnode/exec/door"
)

// The papers that a node process writes for its host's door: the certificate
// that makes the door believed, and whom the door may believe. The door runs on
// with the last ones while the node process is dead.

// keepPapers writes door.crt and trust.json whenever what is in them changes.
func (n *Node) keepPapers(ctx context.Context) error {
	if !n.awaitAdmission(ctx) {
		return nil
	}
	var trust door.Trust
	for {
		changed := n.overlay.Changed()
		n.certifyDoor()
		if now := n.trust(); !reflect.DeepEqual(now, trust) {
			if err := door.SaveTrust(n.cfg.Dir, now); err != nil {
				n.cfg.Log.Error().Err(err).Msg("door's trust not written")
			} else {
				trust = now
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// certifyDoor gives the door a certificate below this node's own, unless it has
// one.
func (n *Node) certifyDoor() {
	chain := n.chain()
	have := loadChain(filepath.Join(n.cfg.Dir, "door.crt"))
	if len(have) > 1 && slices.EqualFunc(have[1:], chain, slices.Equal[[]byte]) {
		return
	}
	key, err := p2pnode.LoadOrCreateKey(filepath.Join(n.cfg.Dir, "door.key"))
	if err == nil {
		chain, err = n.overlay.IssueDoor(key.Public().(ed25519.PublicKey))
	}
	if err == nil {
		err = door.SaveChain(n.cfg.Dir, chain)
	}
	if err != nil {
		n.cfg.Log.Error().Err(err).Msg("door not certified: a dead node process here cannot be repaired from afar")
	}
}

func loadChain(path string) [][]byte {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var chain [][]byte
	if json.Unmarshal(raw, &chain) != nil {
		return nil
	}
	return chain
}

// trust is what the door may know: neighbours first, since death notices go to
// those in front.
func (n *Node) trust() door.Trust {
	view := n.overlay.View()
	t := door.Trust{Root: n.root(), Revoked: n.overlay.Revoked()}
	for id, p := range view.Peers {
		if id != n.overlay.ID() && p.Door != "" && !p.ForGood {
			t.Peers = append(t.Peers, door.TrustPeer{ID: id, Name: p.Name, Door: doorAt(p)})
		}
	}
	slices.SortFunc(t.Peers, func(a, b door.TrustPeer) int {
		_, aNear := view.Links[a.ID]
		_, bNear := view.Links[b.ID]
		switch {
		case aNear == bNear && a.ID < b.ID, aNear && !bNear:
			return -1
		}
		return 1
	})
	return t
}

func (n *Node) chain() [][]byte {
	c, _ := n.overlay.Certificate()
	return c.Chain
}

func (n *Node) root() []byte {
	c, _ := n.overlay.Cluster()
	return c.Root
}
