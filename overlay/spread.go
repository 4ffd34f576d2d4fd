package overlay

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/overlay/overlaypb"
	"p2pnode/overlay/papers"
	"p2pnode/overlay/records"
)

func (o *Overlay) takeRecords(l *link, batch []byte) bool {
	o.mu.Lock()
	results, err := o.records.TakeBatch(time.Now(), batch, l.peer)
	o.takenLocked(results)
	o.mu.Unlock()
	if err != nil {
		o.count(ReasonFrame)
		o.endLink(l, CauseLost)
		return false
	}
	return true
}

// takenLocked delivers what is new and passes it on.
func (o *Overlay) takenLocked(results []records.Result) {
	for _, r := range results {
		switch r.Verdict {
		case records.Fresh:
			o.freshLocked(r.Record)
		case records.Refuted:
			o.count(ReasonElsewhere)
			o.outrankLocked(r.Record)
			if r.Record.Domain == p2pnode.DomainPeer {
				o.noteLifeLocked(r.Record)
			}
		}
	}
	o.flushLocked()
}

// outrankLocked sees to it that the next life of this node is above all that the
// cluster remembers, also when the boot number's file was lost.
func (o *Overlay) outrankLocked(r p2pnode.Record) {
	var m overlaypb.PeerRecord
	if r.Domain != p2pnode.DomainPeer || decode(r.Body, &m) != nil || m.Boot < o.life.Boot || m.Nonce == o.life.Nonce {
		return
	}
	o.cfg.Log.Error().Str("life", p2pnode.Life{Boot: m.Boot, Nonce: m.Nonce}.String()).
		Msg("another process signs with this node's key, or the boot number was lost")
	if err := papers.RaiseBoot(o.cfg.Dir, m.Boot); err != nil {
		o.cfg.Log.Error().Err(err).Msg("boot number not kept")
	}
}

// flushLocked hands urgent records to the links.
func (o *Overlay) flushLocked() {
	now := time.Now()
	for _, p := range o.records.Urgent() {
		l := o.linkOfLocked(p)
		if l == nil {
			continue
		}
		for {
			batch := o.records.Batch(now, p, false, records.MaxMessage)
			if batch == nil || !l.send(&overlaypb.Frame{Body: &overlaypb.Frame_Records{Records: batch}}) {
				break
			}
		}
	}
}

// reconcile runs anti-entropy with a neighbour once.
func (o *Overlay) reconcile(l *link) {
	ctx, cancel := context.WithTimeout(o.ctx, 10*time.Second)
	defer cancel()
	o.mu.Lock()
	digest := o.records.Digest()
	o.mu.Unlock()
	listing, err := o.callLink(ctx, l, kindDigest, digest)
	if err != nil || len(listing) == 0 {
		return
	}
	o.mu.Lock()
	exchange, err := o.records.Resolve(time.Now(), listing)
	o.mu.Unlock()
	if err != nil || len(exchange) == 0 {
		return
	}
	batch, err := o.callLink(ctx, l, kindExchange, exchange)
	if err == nil && len(batch) > 0 {
		o.takeRecords(l, batch)
	}
}

// Kinds of calls that are the overlay's own.
const (
	kindDigest   = "records.digest"
	kindExchange = "records.exchange"
	kindRoute    = "route"
)

func (o *Overlay) takeDigest(_ context.Context, _ peer.ID, digest []byte) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.records.Compare(digest)
}

func (o *Overlay) takeExchange(_ context.Context, from peer.ID, exchange []byte) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	batch, results, err := o.records.Exchange(time.Now(), exchange, from)
	o.takenLocked(results)
	return batch, err
}
