package overlay

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/overlay/overlaypb"
	"p2pnode/overlay/papers"
	"p2pnode/overlay/records"
)

// A revoked node holds the key that seals gossip packets, so a revocation brings
// another one. A manager's signed record says what the new key's digest is; whoever
// lacks the key asks its neighbours for it, link by link. A neighbour gives it to
// members only, and not before it has heard of the revocation itself: links with the
// revoked have ended by then. Who was away hears of it when it is back.

// gossipKeySpec is the domain of rotations; after revocations in anti-entropy.
func (o *Overlay) gossipKeySpec() records.Spec {
	return records.Spec{Domain: p2pnode.DomainGossipKey, Urgent: true, AntiEntropy: true, MaxKeys: 1, Admit: o.admitProof(gossipKeyProof)}
}

func gossipKeyProof(body []byte) ([][]byte, time.Time) {
	var m overlaypb.GossipKeyRecord
	if decode(body, &m) != nil {
		return nil, time.Time{}
	}
	return m.Chain, time.Unix(m.At, 0)
}

// gossipDigest names a key without telling it.
func gossipDigest(key []byte) []byte {
	h := sha256.Sum256(append([]byte("p2pnode gossip key digest\x00"), key...))
	return h[:]
}

// wantedGossipLocked is the rotation that counts; nil where none was ever said.
func (o *Overlay) wantedGossipLocked() (wanted *overlaypb.GossipKeyRecord) {
	for _, r := range o.records.Records(time.Now(), p2pnode.DomainGossipKey) {
		m := &overlaypb.GossipKeyRecord{}
		if decode(r.Body, m) != nil || len(m.Digest) != sha256.Size {
			continue
		}
		if wanted == nil || m.Generation > wanted.Generation || m.Generation == wanted.Generation && bytes.Compare(m.Digest, wanted.Digest) > 0 {
			wanted = m
		}
	}
	return wanted
}

// rotateGossip makes a new key because id was revoked. Managers only.
func (o *Overlay) rotateGossip(id peer.ID) error {
	key := make([]byte, papers.GossipKeySize)
	rand.Read(key)
	o.mu.Lock()
	m := &overlaypb.GossipKeyRecord{Generation: 1, Digest: gossipDigest(key), Revoked: []byte(id), At: time.Now().Unix(), Chain: o.papers.Chain}
	if last := o.wantedGossipLocked(); last != nil && last.Generation < 1<<63 {
		m.Generation = last.Generation + 1
	}
	o.mu.Unlock()
	if err := o.takeGossipKey(key); err != nil {
		return err
	}
	return o.Publish(p2pnode.DomainGossipKey, "", encode(m), 0)
}

// takeGossipKey keeps a key and hands it to gossip.
func (o *Overlay) takeGossipKey(key []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	next := *o.papers
	next.Gossip = key
	if err := next.Save(o.cfg.Dir); err != nil {
		return err
	}
	o.papers = &next
	if o.onGossipKey != nil {
		o.call(func() { o.onGossipKey(key) })
	}
	return nil
}

// lacksGossipLocked is the digest of the key that this node should have and has not.
func (o *Overlay) lacksGossipLocked() []byte {
	if o.papers == nil || o.closing {
		return nil
	}
	if m := o.wantedGossipLocked(); m != nil && !bytes.Equal(m.Digest, gossipDigest(o.papers.Gossip)) {
		return m.Digest
	}
	return nil
}

// seekGossip asks neighbours for the key that this node lacks; once a second is
// enough, it is only about packets.
func (o *Overlay) seekGossip() {
	o.mu.Lock()
	defer o.mu.Unlock()
	digest := o.lacksGossipLocked()
	if digest == nil || o.seeking {
		return
	}
	var ask []peer.ID
	for _, l := range o.links {
		ask = append(ask, l.peer)
	}
	slices.Sort(ask)
	o.seeking = true
	o.work.Go(func() {
		o.askGossip(digest, slices.Compact(ask))
		o.mu.Lock()
		defer o.mu.Unlock()
		o.seeking = false
	})
}

func (o *Overlay) askGossip(digest []byte, neighbours []peer.ID) {
	for _, p := range neighbours {
		ctx, cancel := context.WithTimeout(o.ctx, helloTime)
		key, err := o.Call(ctx, p, kindGossipKey, digest)
		cancel()
		if err != nil || len(key) != papers.GossipKeySize || !bytes.Equal(gossipDigest(key), digest) {
			continue
		}
		if err := o.takeGossipKey(key); err != nil {
			o.cfg.Log.Error().Err(err).Msg("new gossip key not kept: asked for again")
			return
		}
		o.cfg.Log.Info().Str("from", p2pnode.ShortID(p)).Msg("gossip is sealed with a new key")
		return
	}
}

var errNotYet = errors.New("not here yet")

// giveGossipKey is the handler of a neighbour's question for the key.
func (o *Overlay) giveGossipKey(_ context.Context, from peer.ID, digest []byte) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	m := o.wantedGossipLocked()
	if o.papers == nil || m == nil || !bytes.Equal(digest, m.Digest) || !bytes.Equal(digest, gossipDigest(o.papers.Gossip)) {
		return nil, errNotYet
	}
	if !o.revoked.Refused(peer.ID(m.Revoked)) || !o.memberLocked(from) {
		o.count(ReasonStranger)
		return nil, errNotYet
	}
	return o.papers.Gossip, nil
}
