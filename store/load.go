package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.etcd.io/bbolt"
)

// contents is what a file says of itself.
type contents struct {
	ix      index
	shelf   *shelf
	epoch   string // "": this node has none here
	next    uint64
	papers  map[peer.ID][][]byte
	damaged int // reports and other things that do not match their checksums
}

// load reads the whole file once, and believes nothing of it that does not match
// its checksum.
func (d *disk) load(owner string) (c contents, err error) {
	c = contents{ix: index{}, shelf: newShelf(), next: 1, papers: map[peer.ID][][]byte{}}
	err = d.view(func(b buckets) error {
		if b.meta == nil || b.reports == nil || b.papers == nil {
			return d.foreign()
		}
		if got := string(b.meta.Get(keyOwner)); got != "" && got != owner {
			return fmt.Errorf("%w: cluster %q, this is %q", errForeign, got, owner)
		}
		// A copy that was put back has an old number of the next report: what this node
		// reported after it was made would be numbered twice.
		if bytes.Equal(b.meta.Get(keyFile), d.self()) {
			c.epoch = string(b.meta.Get(keyEpoch))
		}
		if raw := b.meta.Get(keyNext); len(raw) == 8 {
			c.next = max(1, binary.BigEndian.Uint64(raw))
		}
		return errors.Join(c.loadGone(b.meta), c.loadPapers(b.papers), c.loadReports(d, b.reports))
	})
	c.shelf.restateAll()
	return c, err
}

// foreign tells a file that was made and not written yet from one that is
// somebody else's.
func (d *disk) foreign() error {
	return d.db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, _ *bbolt.Bucket) error {
			return fmt.Errorf("%w: it has %q", errForeign, name)
		})
	})
}

// entries calls f for everything in b but the bucket that keeps it apart.
func entries(b *bbolt.Bucket, f func(k, v []byte) error) error {
	return b.ForEach(func(k, v []byte) error {
		if bytes.Equal(k, keyApart) {
			return nil
		}
		return f(k, v)
	})
}

func (c *contents) loadGone(meta *bbolt.Bucket) error {
	return entries(meta, func(k, v []byte) error {
		name, ok := strings.CutPrefix(string(k), gonePrefix)
		l, rest, isLine := parseLine([]byte(name))
		if !ok || !isLine || len(rest) > 0 {
			return nil
		}
		raw, sound := unchecked(v)
		gone, isSet := decodeSpans(raw, len(raw))
		if !sound || !isSet {
			c.damaged++
			return nil
		}
		c.ix.of(l).gone = gone
		return nil
	})
}

func (c *contents) loadPapers(papers *bbolt.Bucket) error {
	return entries(papers, func(k, v []byte) error {
		raw, sound := unchecked(v)
		chain, err := decodePapers(raw)
		if !sound || err != nil {
			c.damaged++
			return nil
		}
		c.papers[peer.ID(k)] = cloneChain(chain)
		return nil
	})
}

func (c *contents) loadReports(d *disk, reports *bbolt.Bucket) error {
	var list []sketch
	err := entries(reports, func(key, v []byte) error {
		p, ok := parseKey(key)
		k, _, err := unpack(v)
		if !ok || err != nil || p.seq == 0 || p.seq > maxSeq {
			c.damaged++
			return nil
		}
		h := c.ix.of(p.l)
		if !h.here.add(p.seq) {
			return nil
		}
		h.gone.drop(p.seq)
		k.seq, k.line = p.seq, c.shelf.number(p.l)
		c.shelf.bytes += int64(k.size)
		list = append(list, k)
		return nil
	})
	slices.SortFunc(list, c.shelf.compare)
	c.shelf.list = slices.Clip(list)
	d.used.Add(int64(len(list)))
	return err
}

func cloneChain(chain [][]byte) [][]byte {
	out := make([][]byte, len(chain))
	for i, der := range chain {
		out[i] = slices.Clone(der)
	}
	return out
}
