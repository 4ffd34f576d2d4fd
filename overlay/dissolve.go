package overlay

import (
	"context"
	"errors"
	"time"

	"p2pnode/overlay/papers"
)

// A host that was started without --join founds a cluster. If that was a mistake, and
// nobody was ever let in, it gives the cluster up when it is told whom to join: no other
// two clusters ever become one. Its life ends with it, the next one is a member there.

// ErrDissolved is what Run returns when the node's papers are another cluster's now.
var ErrDissolved = errors.New("this node's own cluster of one was given up for another")

// mayDissolveLocked reports whether nobody would miss this node's cluster.
func (o *Overlay) mayDissolveLocked() bool {
	return o.papers != nil && o.papers.Alone(o.cfg.Dir) && len(o.certs) == 1 && len(o.book.Entries()) == 0 && len(o.ledger.All(time.Now())) == 0
}

// dissolve asks who answers at addrs, a member of another cluster, for admission to it.
func (o *Overlay) dissolve(addrs []string) {
	o.mu.Lock()
	busy := o.dissolving || !o.mayDissolveLocked()
	if !busy {
		o.dissolving = true
	}
	o.mu.Unlock()
	if busy {
		return
	}
	ctx, cancel := context.WithTimeout(o.ctx, dialTime+joinTime)
	defer cancel()
	err := o.askOther(ctx, addrs)
	if err == nil {
		return // for good: the papers on disk are the other cluster's, and nobody is let in here any more
	}
	o.mu.Lock()
	o.dissolving = false
	o.mu.Unlock()
	o.noteTrouble(err, addrs)
}

// askOther takes the papers of the cluster at addrs if it lets this node in.
func (o *Overlay) askOther(ctx context.Context, addrs []string) error {
	_, err := o.requestAdmission(ctx, foundPeer{addrs: addrs}, func(by foundPeer, admission []byte, tok *papers.Token) error {
		o.mu.Lock()
		defer o.mu.Unlock()
		if !o.mayDissolveLocked() {
			return errors.New("somebody was let in here meanwhile")
		}
		p, err := papers.Accept(o.cfg.Dir, o.key, tok, admission)
		if err != nil {
			return err
		}
		if err := papers.GiveUp(o.cfg.Dir); err != nil {
			o.cfg.Log.Error().Err(err).Msg("keys of the cluster that was given up are still there")
		}
		o.cfg.Log.Warn().Str("cluster", p.ID()).Strs("addrs", by.addrs).Msg("this node's own cluster of one is given up for another; the next life is a member there")
		o.admittedByLocked(by)
		close(o.dissolved)
		return nil
	})
	return err
}
