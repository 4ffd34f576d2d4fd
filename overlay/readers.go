package overlay

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/overlay/overlaypb"
	"p2pnode/overlay/papers"
)

// The reader key is what excerpts are sealed to: its public half is everybody's, its
// private half the managers'. It is rotated without a master. The rule is about a
// state, not about an event, so that it holds over restarts and for who was away:
//
//   - A key is fit if its record names every revocation and demotion that is known
//     here: to nobody of those was it given.
//   - While the key that counts is not fit, a manager makes a new one: at once if it
//     revoked or demoted somebody itself, else by rank, readerStep apart.
//   - Of several keys the highest number counts; of one number the one that lacks
//     fewer of those names, then the lower public half. Two managers that rotate at once
//     agree so; if each left out whom only it knew of, neither key is fit and one more
//     follows.
//
// A record carries the private half for each manager, sealed to its box key, and is
// kept on disk by everybody: whoever seals to a key also holds what opens it for those
// who may. The maker writes the key to its disk before it tells anybody. Who was left out (away for
// a day, promoted in between) asks other managers, and gets all keys that they hold.

// mark stands for one word against a key.
type mark [8]byte

// word is a reader key as a manager's record, or this node's papers, tell it.
type word struct {
	public  []byte
	number  uint64 // 0: of the papers
	against map[mark]bool
	lacks   int // of the words that are known here
}

func (w word) fit() bool { return w.lacks == 0 }

// keeping is what is due about the reader key; guarded by Overlay.mu.
type keeping struct {
	unfit  time.Time // since when the key is not fit; zero: it is
	asked  time.Time // when another manager was last asked for keys
	got    time.Time // when one answered
	turn   int
	asking bool
}

// readerProof is the signer's chain inside a reader record, and when it signed.
func readerProof(body []byte) ([][]byte, time.Time) {
	var m overlaypb.ReaderRecord
	if decode(body, &m) != nil {
		return nil, time.Time{}
	}
	return m.Chain, time.Unix(m.At, 0)
}

// Readers is what excerpts are sealed to, and what opens them: on managers only.
type Readers struct {
	Seal    []byte   // X25519
	Private [][]byte // of this one and of those before it
}

// Readers are the reader keys as this node knows them.
func (o *Overlay) Readers() Readers {
	o.mu.Lock()
	defer o.mu.Unlock()
	return Readers{Seal: o.seal.public, Private: o.readers}
}

// wordsLocked are the marks of what was said against keys, of the newest maxWords.
func (o *Overlay) wordsLocked() []mark {
	ids := slices.SortedFunc(maps.Keys(o.revoked), func(a, b peer.ID) int {
		return cmp.Or(cmp.Compare(o.revoked[b].At, o.revoked[a].At), cmp.Compare(a, b))
	})
	var out []mark
	for _, id := range ids[:min(len(ids), maxWords)] {
		what := o.revoked[id]
		raw := []byte(id)
		if what.Demoted {
			// One that is promoted and demoted again held the keys in between.
			raw = binary.BigEndian.AppendUint64(append(raw, 0), uint64(what.At))
		}
		sum := sha256.Sum256(raw)
		out = append(out, mark(sum[:8]))
	}
	return out
}

// sealLocked is the reader key that counts.
func (o *Overlay) sealLocked() word {
	if o.papers == nil {
		return word{}
	}
	known := o.wordsLocked()
	best := word{public: o.papers.Reader, lacks: len(known)}
	for _, r := range o.records.Records(time.Now(), p2pnode.DomainReader) {
		w, _, err := readReader(r.Body)
		if err != nil {
			continue
		}
		for _, m := range known {
			if !w.against[m] {
				w.lacks++
			}
		}
		if better(w, best) {
			best = w
		}
	}
	return best
}

func better(a, b word) bool {
	return cmp.Or(cmp.Compare(b.number, a.number), cmp.Compare(a.lacks, b.lacks), bytes.Compare(a.public, b.public)) < 0
}

// readReader reads the body of a reader record.
func readReader(body []byte) (word, []*overlaypb.Share, error) {
	var m overlaypb.ReaderRecord
	if err := decode(body, &m); err != nil {
		return word{}, nil, err
	}
	if len(m.Public) != papers.ReaderKeySize || m.Number == 0 || len(m.Against)%len(mark{}) != 0 {
		return word{}, nil, errFrame
	}
	w := word{public: m.Public, number: m.Number, against: map[mark]bool{}}
	for raw := range slices.Chunk(m.Against, len(mark{})) {
		w.against[mark(raw)] = true
	}
	return w, m.Shares, nil
}

// takeReaderLocked takes in a reader key: its private half where there is a share for
// this manager.
func (o *Overlay) takeReaderLocked(r p2pnode.Record) {
	w, shares, err := readReader(r.Body)
	if err != nil {
		o.count(ReasonFrame)
		return
	}
	if o.cert.Role == p2pnode.RoleManager && papers.ReaderFor(o.readers, w.public) == nil {
		i := slices.IndexFunc(shares, func(s *overlaypb.Share) bool { return peer.ID(s.To) == o.self })
		if i >= 0 {
			keys, err := papers.OpenReaders(o.key, shares[i].Sealed)
			if err != nil || papers.ReaderFor(keys, w.public) == nil {
				o.count(ReasonShare)
			} else {
				o.addReadersLocked(keys)
			}
		}
	}
	o.resealLocked()
}

// addReadersLocked keeps keys beside those that are there.
func (o *Overlay) addReadersLocked(keys [][]byte) error {
	next := papers.JoinReaders(o.readers, keys)
	if slices.EqualFunc(next, o.readers, bytes.Equal) {
		return nil
	}
	o.readers = next // also where the disk does not take it: it is read with now
	o.standingChanged()
	return papers.SaveReaders(o.cfg.Dir, next)
}

func (o *Overlay) dropReadersLocked() {
	o.readers = nil
	if err := papers.SaveReaders(o.cfg.Dir, nil); err != nil {
		o.cfg.Log.Error().Err(err).Msg("reader keys of a former manager not removed")
	}
}

// resealLocked lets the key that counts now be the one that is sealed to, also after a
// restart without the records.
func (o *Overlay) resealLocked() {
	o.seal = o.sealLocked()
	if bytes.Equal(o.seal.public, o.papers.Reader) {
		return
	}
	next := *o.papers
	next.Reader = o.seal.public
	o.papers = &next
	if err := next.Save(o.cfg.Dir); err != nil {
		o.cfg.Log.Warn().Err(err).Msg("the new reader key is not in the papers on disk")
	}
	o.cfg.Log.Info().Uint64("number", o.seal.number).Msg("excerpts are sealed to a new reader key")
	o.standingChanged()
}

// rotateReaderLocked makes a new reader key if the one that counts is not fit and this
// node may.
func (o *Overlay) rotateReaderLocked(now time.Time) {
	if o.seal.fit() || o.managesLocked(now) != nil {
		return
	}
	private, public, err := papers.NewReader()
	next := papers.JoinReaders(o.readers, [][]byte{private})
	if err == nil {
		err = papers.SaveReaders(o.cfg.Dir, next)
	}
	if err == nil {
		o.readers = next
		err = o.sayReaderLocked(private, public, now)
	}
	if err != nil {
		o.cfg.Log.Error().Err(err).Msg("no new reader key: another manager makes one, or it is tried again")
	}
}

func (o *Overlay) sayReaderLocked(private, public []byte, now time.Time) error {
	m := &overlaypb.ReaderRecord{Public: public, Number: o.seal.number + 1, At: now.Unix(), Chain: o.papers.Chain}
	for _, w := range o.wordsLocked() {
		m.Against = append(m.Against, w[:]...)
	}
	for _, id := range slices.Sorted(maps.Keys(o.certs)) {
		p, known := o.view.Peers[id]
		if !known || id == o.self || !o.managerLocked(id) || len(m.Shares) >= maxShares {
			continue // it asks when it is back
		}
		sealed, err := papers.SealReaders(p.BoxKey, [][]byte{private})
		if err != nil { // one manager's bad box key must not keep the others from a new key
			o.cfg.Log.Warn().Err(err).Str("peer", p.Name).Msg("no share of the new reader key")
			continue
		}
		m.Shares = append(m.Shares, &overlaypb.Share{To: []byte(id), Sealed: sealed})
	}
	return o.publishLocked(p2pnode.DomainReader, "", encode(m), 0)
}

// tendReadersLocked is a manager's part with each heartbeat: a key that is not fit is
// followed by a new one, and keys that it lacks are asked for.
func (o *Overlay) tendReadersLocked(now time.Time) {
	if o.managesLocked(now) != nil {
		return
	}
	k := &o.sealLeft
	switch {
	case o.seal.fit():
		k.unfit = time.Time{}
	case k.unfit.IsZero():
		k.unfit = now
	case now.Sub(k.unfit) > time.Duration(o.rankLocked()+1)*readerStep:
		k.unfit = now
		o.rotateReaderLocked(now)
	}
	if k.asking || now.Sub(k.asked) < readerSoon {
		return
	}
	if !k.got.IsZero() && now.Sub(k.asked) < readerEvery && papers.ReaderFor(o.readers, o.seal.public) != nil {
		return
	}
	others := o.otherManagersLocked()
	if len(others) == 0 {
		return
	}
	to := others[k.turn%len(others)]
	k.turn, k.asked, k.asking = k.turn+1, now, true
	o.work.Go(func() { o.askReaders(to) })
}

// otherManagersLocked are the managers that can be reached, by ID.
func (o *Overlay) otherManagersLocked() []peer.ID {
	var out []peer.ID
	for id, p := range o.view.Peers {
		if _, reached := o.view.Table.Hops(o.self, id); id != o.self && reached && !p.Left && o.managerLocked(id) {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// rankLocked is this node's place among the managers that can be reached.
func (o *Overlay) rankLocked() int {
	rank, _ := slices.BinarySearch(o.otherManagersLocked(), o.self)
	return rank
}

// FirstManager reports whether this node is the first of the managers that can be
// reached: what one of them has to do is its to do.
func (o *Overlay) FirstManager() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.managesLocked(time.Now()) == nil && o.rankLocked() == 0
}

// handoverDomain is the envelope domain of keys that one manager hands another.
const handoverDomain = "reader-keys"

// askReaders asks another manager for all reader keys that it holds.
func (o *Overlay) askReaders(to peer.ID) {
	ctx, cancel := context.WithTimeout(o.ctx, relayTime)
	defer cancel()
	raw, _, err := o.Route(ctx, to, kindReaders, nil)
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sealLeft.asking = false
	if err == nil {
		err = o.takeHandoverLocked(to, raw)
	}
	if err != nil {
		o.cfg.Log.Debug().Err(err).Str("manager", p2pnode.ShortID(to)).Msg("reader keys not handed over")
		return
	}
	o.sealLeft.got = time.Now()
}

// takeHandoverLocked opens what a manager handed over: it must have signed it.
func (o *Overlay) takeHandoverLocked(from peer.ID, raw []byte) error {
	env, err := p2pnode.Open(handoverDomain, raw)
	if err != nil {
		return err
	}
	if env.Signer != from || !o.managerLocked(from) {
		o.count(ReasonShare)
		return errors.New("signed by somebody else")
	}
	keys, err := papers.OpenReaders(o.key, env.Payload)
	if err != nil {
		return err
	}
	if err := o.managesLocked(time.Now()); err != nil {
		return err
	}
	return o.addReadersLocked(keys)
}

// handReaders is the handler of a manager's question for reader keys. Who asks is only
// what the request says; the answer opens for that manager alone.
func (o *Overlay) handReaders(_ context.Context, from peer.ID, _ []byte) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p, known := o.view.Peers[from]
	switch {
	case o.managesLocked(time.Now()) != nil:
		return nil, errNoManager
	case !known || !o.managerLocked(from):
		o.count(ReasonShare)
		return nil, errors.New("reader keys are for managers")
	case len(o.readers) == 0:
		return nil, errors.New("no reader keys here")
	}
	sealed, err := papers.SealReaders(p.BoxKey, o.readers)
	if err != nil {
		return nil, err
	}
	return p2pnode.Seal(handoverDomain, o.key, sealed), nil
}
