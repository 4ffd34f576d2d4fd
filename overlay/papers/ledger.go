package papers

import (
	"crypto/ed25519"
	"maps"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Ledger is what is known of grants: each manager's word on each. Uses are sets,
// joined over managers, so that one who counts never overwrites another's count;
// two managers that cannot hear each other may both let the last one in. The zero
// value is empty. Not safe for concurrent use.
type Ledger struct {
	grants map[string]map[peer.ID]Grant // by grant ID, then by who signed
}

// Set takes in one manager's word, in place of its earlier one.
func (l *Ledger) Set(by peer.ID, g Grant) {
	if l.grants == nil {
		l.grants = map[string]map[peer.ID]Grant{}
	}
	id := g.ID()
	if l.grants[id] == nil {
		l.grants[id] = map[peer.ID]Grant{}
	}
	l.grants[id][by] = g
}

// Find sums up what is known of the grant for a token's public key. Where words
// differ the stricter one counts.
func (l *Ledger) Find(public ed25519.PublicKey) (Grant, bool) { return l.find(grantID(public)) }

func (l *Ledger) find(id string) (Grant, bool) {
	var sum Grant
	for _, g := range l.grants[id] {
		if sum.Public == nil {
			sum = g
			sum.Used = slices.Clone(g.Used)
			continue
		}
		sum.Used = append(sum.Used, g.Used...)
		sum.Uses = min(sum.Uses, g.Uses)
		if g.Expires.Before(sum.Expires) {
			sum.Expires = g.Expires
		}
		if g.Role != sum.Role {
			return Grant{}, false
		}
	}
	slices.SortFunc(sum.Used, func(a, b Mark) int { return slices.Compare(a[:], b[:]) })
	sum.Used = slices.Compact(sum.Used)
	return sum, sum.Public != nil
}

// Use notes that joiner used the grant and returns the word to publish.
func (l *Ledger) Use(by peer.ID, public ed25519.PublicKey, joiner peer.ID) (Grant, bool) {
	g, ok := l.Find(public)
	if !ok {
		return Grant{}, false
	}
	if m := MarkOf(joiner); !slices.Contains(g.Used, m) {
		g.Used = append(g.Used, m)
	}
	l.Set(by, g)
	return g, true
}

// End is the word that ends a grant now; ok is false if it is not known.
func (l *Ledger) End(by peer.ID, id string, now time.Time) (g Grant, ok bool) {
	if g, ok = l.find(id); ok {
		g.Expires = now.Truncate(time.Second)
		l.Set(by, g)
	}
	return g, ok
}

// Words are what by has said of grants, those that have ended too, by ID.
func (l *Ledger) Words(by peer.ID) []Grant {
	var out []Grant
	for _, id := range slices.Sorted(maps.Keys(l.grants)) {
		if g, ok := l.grants[id][by]; ok {
			out = append(out, g)
		}
	}
	return out
}

// Said reports whether by has said anything of a grant.
func (l *Ledger) Said(by peer.ID, id string) bool {
	_, ok := l.grants[id][by]
	return ok
}

// All lists the grants in force, by ID.
func (l *Ledger) All(now time.Time) []Grant {
	var out []Grant
	for _, id := range slices.Sorted(maps.Keys(l.grants)) {
		if g, ok := l.find(id); ok && now.Before(g.Expires) {
			out = append(out, g)
		}
	}
	return out
}

// Forget drops what by has said: tokens that nobody else knows end.
func (l *Ledger) Forget(by peer.ID) {
	for id, words := range l.grants {
		delete(words, by)
		if len(words) == 0 {
			delete(l.grants, id)
		}
	}
}

// Sweep forgets words on grants that ended some time before now: long enough ago
// that no earlier word, from a manager that was away, could revive one.
func (l *Ledger) Sweep(now time.Time) {
	for id, words := range l.grants {
		for by, g := range words {
			if now.After(g.Expires.Add(MaxTokenTTL)) {
				delete(words, by)
			}
		}
		if len(words) == 0 {
			delete(l.grants, id)
		}
	}
}
