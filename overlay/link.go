package overlay

import (
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode/overlay/discover"
	"p2pnode/overlay/keeper"
	"p2pnode/overlay/overlaypb"
	"p2pnode/overlay/records"
)

// missedToClose is how many silent heartbeats end a link: long after everybody who
// judges has been told of the second.
const missedToClose = 6

// link is a kept stream with a neighbour. Its reader and writer end with it.
type link struct {
	id       uint64
	peer     peer.ID
	conn     *connection
	stream   network.Stream
	outbound bool
	since    time.Time
	out      chan []byte
	done     chan struct{}
	end      sync.Once
	busy     chan struct{} // a token per call that is being handled

	mu      sync.Mutex
	parting string // set: this side ends it, and why
	beat    uint64
	asked   uint64 // the beat that an echo is awaited of; 0: none
	askedAt time.Time
	heard   time.Time
	missed  int
	rtt     time.Duration
	callID  uint64
	waiting map[uint64]chan *overlaypb.Reply
}

// startLink makes stream s the link with c's peer.
func (o *Overlay) startLink(c *connection, s network.Stream, outbound bool) {
	now := time.Now()
	l := &link{
		peer: c.peer, conn: c, stream: s, outbound: outbound, since: now, heard: now,
		out: make(chan []byte, linkQueue), done: make(chan struct{}), busy: make(chan struct{}, maxCallsPerLink),
		waiting: map[uint64]chan *overlaypb.Reply{},
	}
	c.mu.Lock()
	life, name := c.life, c.name
	c.mu.Unlock()
	o.mu.Lock()
	if o.closing || o.linksOfLocked(c.peer) >= maxLinksPerPeer {
		if !o.closing {
			o.count(ReasonLinks)
		}
		o.mu.Unlock()
		s.Reset()
		return
	}
	first := o.linkOfLocked(c.peer) == nil
	o.nextID++
	l.id = o.nextID
	o.links[l.id] = l
	o.from[c.peer] = c.addr.Addr().Unmap()
	o.records.Link(c.peer)
	o.noteAdmitterLocked(c.peer)
	o.linkChangedLocked(now)
	o.stepLocked(keeper.Up{Conn: l.id, Peer: c.peer, Name: name, Addr: c.addr.String(), Outbound: outbound})
	o.rebuildLocked() // before the event: who hears of it finds it in the view
	if first {
		o.event(LinkEvent{Peer: c.peer, Up: true, Life: life, At: now})
	}
	// Begun under the lock: Run waits for nothing that begins after closing.
	o.work.Go(func() { o.writeLink(l) })
	o.work.Go(func() { o.readLink(l) })
	o.work.Go(func() { o.reconcile(l) })
	o.mu.Unlock()
	o.sendBeat(l, now)
}

// noteAdmitterLocked sees to a link with the member that let this node in, where the
// first link is with somebody else. Behind one name there may be several hosts that
// were let in together: linked with each other alone they would know nobody else.
func (o *Overlay) noteAdmitterLocked(first peer.ID) {
	if o.admitter.ID != "" && o.admitter.ID != first {
		o.book.Put(o.admitter)
		o.knownAt = nil
	}
	o.admitter = discover.Entry{}
}

func (o *Overlay) event(e LinkEvent) {
	if o.onLink != nil {
		o.call(func() { o.onLink(e) })
	}
}

// endLink ends a link, once, for a cause.
func (o *Overlay) endLink(l *link, cause string) {
	l.end.Do(func() {
		close(l.done)
		l.stream.Reset()
		l.mu.Lock()
		if l.parting != "" {
			cause = l.parting
		}
		l.mu.Unlock()
		now := time.Now()
		o.mu.Lock()
		delete(o.links, l.id)
		last := o.linkOfLocked(l.peer) == nil
		if last {
			o.records.Unlink(l.peer)
		}
		o.linkChangedLocked(now)
		o.stepLocked(keeper.Down{Conn: l.id})
		o.rebuildLocked()
		if last {
			l.conn.mu.Lock()
			life := l.conn.life
			l.conn.mu.Unlock()
			o.event(LinkEvent{Peer: l.peer, Life: life, Cause: cause, At: now})
		} else {
			o.sayMissedLocked(l.peer)
		}
		o.mu.Unlock()
	})
}

// linkOfLocked is the link to use with a peer: the one that was heard last, and of
// several the oldest.
func (o *Overlay) linkOfLocked(p peer.ID) *link {
	var best *link
	least := 0
	for _, l := range o.links {
		if l.peer != p {
			continue
		}
		if missed := l.missedNow(); best == nil || missed < least || missed == least && l.id < best.id {
			best, least = l, missed
		}
	}
	return best
}

func (o *Overlay) linksOfLocked(p peer.ID) (n int) {
	for _, l := range o.links {
		if l.peer == p {
			n++
		}
	}
	return n
}

// send enqueues a frame; false when the link is over or its queue is full.
func (l *link) send(f *overlaypb.Frame) bool {
	raw, err := encodeFrame(f, maxFrame)
	if err != nil {
		return false
	}
	select {
	case <-l.done:
		return false
	case l.out <- raw:
		return true
	default:
		return false
	}
}

func (o *Overlay) writeLink(l *link) {
	for {
		select {
		case <-l.done:
			return
		case raw := <-l.out:
			l.stream.SetWriteDeadline(time.Now().Add(writeTime))
			if _, err := l.stream.Write(raw); err != nil {
				o.endLink(l, lostOrSilent(err))
				return
			}
		}
	}
}

func lostOrSilent(err error) string {
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return CauseSilent
	}
	return CauseLost
}

func (o *Overlay) readLink(l *link) {
	for {
		var f overlaypb.Frame
		if err := readFrame(l.stream, &f, maxFrame); err != nil {
			if errors.Is(err, errFrame) {
				o.count(ReasonFrame)
			}
			o.endLink(l, CauseLost)
			return
		}
		l.hear(o)
		if !o.takeFrame(l, &f) {
			return
		}
	}
}

// hear notes that the neighbour is there.
func (l *link) hear(o *Overlay) {
	l.mu.Lock()
	was := l.missed
	l.heard, l.missed = time.Now(), 0
	l.mu.Unlock()
	if was > 0 {
		o.mu.Lock()
		o.sayMissedLocked(l.peer)
		o.mu.Unlock()
	}
}

// sayMissedLocked tells how many heartbeats of a neighbour are missed: on the link
// that hears most of it. A second one that leads nowhere says nothing, also when it
// is given up with its count at the highest.
func (o *Overlay) sayMissedLocked(p peer.ID) {
	best := o.linkOfLocked(p)
	if best == nil || o.onMissed == nil {
		return
	}
	missed := best.missedNow()
	o.call(func() { o.onMissed(p, missed) })
}

func (l *link) missedNow() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.missed
}

// takeFrame handles one frame; false when the link is over.
func (o *Overlay) takeFrame(l *link, f *overlaypb.Frame) bool {
	switch b := f.Body.(type) {
	case *overlaypb.Frame_Beat:
		if echoed(b.Beat.Number) {
			l.send(&overlaypb.Frame{Body: &overlaypb.Frame_Echo{Echo: b.Beat.Number}})
		}
		if len(b.Beat.Records) > 0 {
			return o.takeRecords(l, b.Beat.Records)
		}
	case *overlaypb.Frame_Echo:
		o.takeEcho(l, b.Echo)
	case *overlaypb.Frame_Records:
		return o.takeRecords(l, b.Records)
	case *overlaypb.Frame_Call:
		o.takeCall(l, b.Call)
	case *overlaypb.Frame_Reply:
		l.mu.Lock()
		ch := l.waiting[b.Reply.Id]
		delete(l.waiting, b.Reply.Id)
		l.mu.Unlock()
		if ch != nil {
			ch <- b.Reply
		}
	case *overlaypb.Frame_Bye:
		cause := CauseClosed
		if b.Bye == byeStops {
			cause = CauseBye
		}
		o.endLink(l, cause)
		return false
	}
	return true
}

// echoed reports whether a beat is answered: the first one, and one of four. That
// both ends are alive is told by the beats themselves, which go both ways.
func echoed(number uint64) bool { return number%echoEach == 1 }

// sendBeat is the heartbeat: with it goes what waited for it.
func (o *Overlay) sendBeat(l *link, now time.Time) {
	o.mu.Lock()
	batch := o.records.Batch(now, l.peer, true, records.MaxMessage)
	o.mu.Unlock()
	l.mu.Lock()
	l.beat++
	number := l.beat
	if echoed(number) {
		l.asked, l.askedAt = number, now
	}
	l.mu.Unlock()
	if !l.send(&overlaypb.Frame{Body: &overlaypb.Frame_Beat{Beat: &overlaypb.Beat{Number: number, Records: batch}}}) {
		o.count("beats-dropped")
	}
}

func (o *Overlay) takeEcho(l *link, number uint64) {
	l.mu.Lock()
	ok := number != 0 && number == l.asked
	if ok {
		l.asked = 0
		took := time.Since(l.askedAt)
		if l.rtt == 0 {
			l.rtt = took
		} else {
			l.rtt += (took - l.rtt) / 4
		}
	}
	rtt := l.rtt
	l.mu.Unlock()
	if !ok {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stepLocked(keeper.RTT{Peer: l.peer, RTT: rtt})
	if o.classMovedLocked(l.peer, rtt) {
		o.linkChangedLocked(time.Now())
		o.dirtyLocked(coalesce)
	}
}

// watchLinks counts silent heartbeats and sends our own; once a second.
func (o *Overlay) watchLinks(now time.Time) {
	o.mu.Lock()
	all := slices.Collect(maps.Values(o.links))
	// A host that slept, or a thawed process, heard nobody for want of a clock.
	late := !o.watched.IsZero() && now.Sub(o.watched) > 2*beatEvery
	o.watched = now
	o.mu.Unlock()
	for _, l := range all {
		o.sendBeat(l, now)
		l.mu.Lock()
		if late {
			l.heard = now
		}
		missed := int((now.Sub(l.heard) - beatEvery/2) / beatEvery)
		rose := missed > l.missed
		if rose {
			l.missed = missed
		}
		l.mu.Unlock()
		if rose {
			o.mu.Lock()
			o.sayMissedLocked(l.peer)
			o.mu.Unlock()
		}
		if missed >= missedToClose {
			o.endLink(l, CauseSilent)
			o.drop(l.conn)
		}
	}
}

// What a good-bye says.
const (
	byeStops  = "stops"  // the life ends in good order
	byeClosed = "closed" // one link of many ends
)

// part ends a link on purpose: the other side is told and lets go of it; if it
// does not within byeTime the end comes all the same.
func (o *Overlay) part(l *link, bye, cause string) {
	l.mu.Lock()
	l.parting = cause
	l.mu.Unlock()
	if l.send(&overlaypb.Frame{Body: &overlaypb.Frame_Bye{Bye: bye}}) {
		t := time.NewTimer(byeTime)
		defer t.Stop()
		select {
		case <-l.done:
		case <-t.C:
		}
	}
	o.endLink(l, cause)
}

// serveLink takes in a link that the other side opens.
func (o *Overlay) serveLink(c *connection, s network.Stream) {
	c.mu.Lock()
	wanted := c.link
	c.mu.Unlock()
	if !wanted || !o.isAdmitted() {
		o.count(ReasonDenied)
		s.Reset()
		return
	}
	o.startLink(c, s, false)
}
