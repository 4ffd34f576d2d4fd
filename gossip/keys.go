package gossip

import "time"

// A rotation of the key has three steps: the new key opens at once, it seals when
// everybody may be expected to have it, and the old ones open nothing any more when
// everybody seals with it.
type rotation struct {
	next   *sealer
	useAt  time.Time
	dropAt time.Time
}

// evKey brings another key.
type evKey struct{ key []byte }

// SetKey makes gossip change over to another key. The one that is in use already
// changes nothing.
func (g *Gossip) SetKey(key []byte) { g.enqueue(evKey{key}) }

// takeKey is the first step.
func (g *Gossip) takeKey(now time.Time, key []byte) {
	s, err := newSealer(key, g.cfg.Self)
	if err != nil {
		g.cfg.Log.Error().Err(err).Msg("gossip key unusable")
		return
	}
	old := g.keys.Load()
	if s.id == old.use.id && g.rotation.next == nil || g.rotation.next != nil && s.id == g.rotation.next.id {
		return
	}
	g.keys.Store(&keyring{use: old.use, open: append(old.open[:len(old.open):len(old.open)], s)})
	g.rotation = rotation{next: s, useAt: now.Add(keyUseAfter), dropAt: now.Add(keyDropAfter)}
	g.count("keys-rotated")
}

// turnKey is the second step and the third.
func (g *Gossip) turnKey(now time.Time) {
	r := g.rotation
	switch {
	case r.next == nil || now.Before(r.useAt):
	case now.Before(r.dropAt):
		if old := g.keys.Load(); old.use != r.next {
			g.keys.Store(&keyring{use: r.next, open: old.open})
		}
	default:
		g.keys.Store(&keyring{use: r.next, open: []*sealer{r.next}})
		g.rotation = rotation{}
	}
}
