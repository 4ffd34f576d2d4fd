package overlay

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/overlay/discover"
	"p2pnode/overlay/keeper"
	"p2pnode/overlay/overlaypb"
)

// ownHandlers registers the overlay's own calls.
func (o *Overlay) ownHandlers() {
	o.HandleCall(kindDigest, o.takeDigest)
	o.HandleCall(kindExchange, o.takeExchange)
	o.HandleCall(kindRoute, o.takeRouted)
	o.HandleCall(kindGossipKey, o.giveGossipKey)
	o.HandleRouted(kindAdmit, o.admitRelayed)
	o.HandleRouted(kindPromote, o.takePromotion)
	o.HandleRouted(kindReaders, o.handReaders)
	o.HandleRouted(kindRenew, o.giveRenewal)
	o.HandleRouted(kindPing, func(context.Context, peer.ID, []byte) ([]byte, error) { return nil, nil })
}

// Run is the node's life in the network. It returns when ctx has ended, good-bye
// has been said and everything that it started has stopped.
func (o *Overlay) Run(ctx context.Context) error {
	// What answers others lives until good-bye has been said.
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	o.ctx = inner
	var err error
	if o.stack, err = compose(o.key, o.cfg.Network, o.listen, func() { o.count(ReasonHandshake) }); err != nil {
		o.listen.Close()
		return err
	}
	if o.isAdmitted() {
		o.restoreKept() // before anybody is answered: what this node may do is among it
	}
	close(o.running)
	o.stack.swarm.Notify(notifiee{o})
	o.stack.swarm.SetStreamHandler(o.accept)
	if err := o.stack.swarm.Listen(multiaddr(o.addr.String())); err != nil {
		return err
	}
	o.work.Go(func() { o.runCallbacks(inner) })
	o.work.Go(func() { o.discoverOnLAN(ctx) })
	o.work.Go(func() { o.trimForEver(inner) })
	if err = o.becomeMember(ctx); err == nil {
		o.reviveGrants()
		o.mu.Lock()
		o.publishPeerLocked()
		o.stepLocked(keeper.Known{List: o.candidatesLocked()})
		o.mu.Unlock()
		err = o.keepGoing(ctx)
	}
	cancel()
	o.mu.Lock()
	o.closing = true
	o.mu.Unlock()
	o.stack.close()
	o.work.Wait()
	o.saveKept()
	if o.isLeaving() {
		o.book.Clear() // who is joined next is not to be mistaken for them
		os.Remove(o.keptPath())
	}
	if errors.Is(err, ErrDissolved) {
		o.book.Put(o.admitter)
		os.Remove(o.keptPath())
	}
	if err := o.book.Save(); err != nil {
		o.cfg.Log.Warn().Err(err).Msg("peer book not kept")
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (o *Overlay) runCallbacks(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-o.events:
			f()
		}
	}
}

// keepGoing is the member's loop; it says good-bye at its end.
func (o *Overlay) keepGoing(ctx context.Context) error {
	pace := tickEvery
	ticker := time.NewTicker(pace)
	defer ticker.Stop()
	beat, entropy := time.Now(), time.Now()
	for {
		select {
		case <-ctx.Done():
			o.sayGoodbye(o.isLeaving() || o.cfg.Ephemeral > 0)
			return nil
		case <-o.leaving:
			o.sayGoodbye(true)
			return ErrLeft
		case <-o.dissolved:
			return ErrDissolved
		case <-o.poke:
			o.collectFound()
		case <-ticker.C:
		case <-o.nextDue():
		}
		now := time.Now()
		o.settle(now)
		if p := o.pace(now); p != pace {
			pace = p
			ticker.Reset(pace)
		}
		if now.Sub(beat) >= beatEvery-tickEvery/2 {
			beat = now
			o.watchLinks(now)
			o.refresh(now)
			o.saveKept()
			o.seekGossip()
		}
		if now.Sub(entropy) >= entropyEvery {
			entropy = now
			if l := o.someLink(); l != nil {
				o.work.Go(func() { o.reconcile(l) })
			}
		}
	}
}

// pace is how often to look at the links. What becomes due at a moment of its own
// wakes the loop by itself.
func (o *Overlay) pace(now time.Time) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	if now.Sub(o.movedAt) < steadyAfter {
		return tickEvery
	}
	return beatEvery
}

// isLeaving reports whether Leave was called: whoever ends Run because of that must
// not turn it into an ordinary stop.
func (o *Overlay) isLeaving() bool {
	select {
	case <-o.leaving:
		return true
	default:
		return false
	}
}

// nextDue fires when a view or a link record is due before the next tick.
func (o *Overlay) nextDue() <-chan time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	due := o.viewDue
	if due.IsZero() || (!o.linkDue.IsZero() && o.linkDue.Before(due)) {
		due = o.linkDue
	}
	if due.IsZero() {
		return nil
	}
	return time.After(time.Until(due))
}

// settle does what has become due.
func (o *Overlay) settle(now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.viewDue.IsZero() && !o.viewDue.After(now) {
		o.rebuildLocked()
	}
	if !o.linkDue.IsZero() && !o.linkDue.After(now) {
		o.publishLinksLocked(now)
	}
	if o.knownAt != o.view {
		o.knownAt = o.view
		o.noteBookLocked(now)
		o.stepLocked(keeper.Known{List: o.candidatesLocked()})
	}
	o.stepLocked(keeper.Tick{})
}

// noteBookLocked writes members into the peer book.
func (o *Overlay) noteBookLocked(now time.Time) {
	for id, p := range o.view.Peers {
		switch {
		case id == o.self:
		case p.ForGood:
			o.book.Remove(id)
		default:
			o.book.Put(discover.Entry{ID: id, Name: p.Name, Addrs: p.Addrs, Seen: now})
		}
	}
}

// refresh says our records again before they lapse, and lets go of what has.
func (o *Overlay) refresh(now time.Time) {
	moved := o.moved(now)
	o.mu.Lock()
	if moved || now.Sub(o.peerSaid) > min(peerEvery, o.peerTTL()/6) {
		o.publishPeerLocked()
	}
	o.ledger.Sweep(now)
	o.tendReadersLocked(now)
	o.tendCertificateLocked(now)
	if now.Sub(o.linkPace.at) > linkEvery {
		o.publishLinksLocked(now)
	}
	for _, r := range o.records.Sweep(now) {
		switch r.Domain {
		case p2pnode.DomainPeer:
			o.lapseLocked(r.Signer)
			o.dirtyLocked(coalesce)
		case p2pnode.DomainForgotten:
			o.recallForgottenLocked(now)
		case p2pnode.DomainLink, p2pnode.DomainLeave:
			o.dirtyLocked(coalesce)
		}
	}
	o.flushLocked()
	save := now.Sub(o.bookSaved) > time.Minute
	if save {
		o.bookSaved = now
	}
	o.mu.Unlock()
	if save {
		if err := o.book.Save(); err != nil {
			o.cfg.Log.Warn().Err(err).Msg("cannot save the peer book")
		}
	}
}

// moved reports whether this host's addresses are others than we said.
func (o *Overlay) moved(now time.Time) bool {
	if now.Sub(o.addrsAt) < addrsEvery {
		return false
	}
	o.addrsAt = now
	addrs := o.addresses()
	o.mu.Lock()
	defer o.mu.Unlock()
	return !slices.Equal(addrs, o.addrs)
}

// someLink is a link by chance.
func (o *Overlay) someLink() *link {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, l := range o.links {
		return l // map order is chance enough
	}
	return nil
}

// sayGoodbye tells everybody that this life ends in good order; forGood, that the
// node leaves the cluster.
func (o *Overlay) sayGoodbye(forGood bool) {
	o.mu.Lock()
	o.closing = true // nothing else is said from here on
	m := &overlaypb.LeaveRecord{Boot: o.life.Boot, Nonce: o.life.Nonce, ForGood: forGood}
	if err := o.publishLocked(p2pnode.DomainLeave, "", encode(m), leaveTTL); err != nil {
		o.cfg.Log.Warn().Err(err).Msg("good-bye not said")
	}
	all := slices.Collect(maps.Values(o.links))
	o.mu.Unlock()
	var parted sync.WaitGroup
	for _, l := range all {
		parted.Go(func() { o.part(l, byeStops, CauseBye) })
	}
	parted.Wait()
}
