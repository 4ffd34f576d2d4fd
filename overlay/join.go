package overlay

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/overlay/discover"
	"p2pnode/overlay/papers"
)

// foundPeer is somebody that multicast discovery has seen: a hint, not a fact.
type foundPeer struct {
	id    peer.ID
	addrs []string
}

const (
	joinFirst    = 200 * time.Millisecond
	joinEager    = 10 * time.Second // so long it is asked every joinFirst
	joinMost     = 2 * time.Second
	joinRefused  = 15 * time.Second // between asking those that said no
	troubleEvery = 30 * time.Second
	mdnsService  = "_p2pnode._tcp"
)

// becomeMember returns once the node has a certificate: it had one, was admitted,
// or founded a cluster. With --join it tries for ever.
func (o *Overlay) becomeMember(ctx context.Context) error {
	if o.isAdmitted() {
		return nil
	}
	if err := o.waitUnlessLeft(ctx); err != nil {
		return err
	}
	began, wait := time.Now(), joinFirst
	lobby := map[peer.ID]bool{}
	for turn := 0; ; turn++ {
		o.collectFound()
		if o.offline() {
			began = time.Now() // whoever sees nobody may not conclude that it is alone
		}
		targets := o.joinTargets(turn)
		if len(targets) == 0 && o.mayFound(time.Since(began), lobby) {
			return o.foundCluster()
		}
		for _, t := range targets {
			if o.tryJoin(ctx, t, lobby) {
				return nil
			}
		}
		if !o.joining() && o.mayFound(time.Since(began), lobby) {
			return o.foundCluster()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		wait = o.nextTry(wait, time.Since(began))
	}
}

// nextTry is how long to wait before everybody is asked again. Hosts that are
// started together wait for each other: at first it is asked often.
func (o *Overlay) nextTry(last, waited time.Duration) time.Duration {
	switch {
	case p2pnode.ExitCode(o.JoinError()) == p2pnode.ExitNotPermitted:
		return min(2*last, joinRefused)
	case !o.joining() || waited < joinEager:
		return joinFirst
	}
	return min(2*last, joinMost)
}

// joining reports whether somebody else was named to join: then nothing is founded.
// A fleet that shares one configuration names each node to itself, too.
func (o *Overlay) joining() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.ContainsFunc(o.hints, func(h string) bool { return !o.itself[h] })
}

// mayFound reports whether this node may be the first of a cluster: nobody else was
// named, and either it listens on loopback only, or the search is over and, of
// those in the same position, its ID is the lowest. After three searches it no
// longer waits for a lower one that founds nothing.
func (o *Overlay) mayFound(waited time.Duration, lobby map[peer.ID]bool) bool {
	if o.joining() {
		return false
	}
	o.mu.Lock()
	named := len(o.hints) > 0
	o.mu.Unlock()
	if !named && (o.addr.Addr().IsLoopback() || !o.cfg.MDNS) {
		return true
	}
	if waited < searchTime {
		return false
	}
	for id := range lobby {
		if id < o.self && waited < 3*searchTime {
			return false
		}
	}
	return true
}

// offline reports whether this host has no address but loopback while it was told
// to be found by others.
func (o *Overlay) offline() bool {
	if o.addr.Addr().IsLoopback() || !o.cfg.MDNS || len(o.cfg.Advertise) > 0 {
		return false
	}
	ifs, err := o.cfg.Interfaces()
	if err != nil {
		return false
	}
	addrs, err := discover.Advertisable(ifs, o.addr, nil)
	return err == nil && len(addrs) == 0
}

// joinTargets are whom to ask now: all hints, and some of those that the book knows
// and that discovery found, others with each turn: addresses that nobody answers at
// must not hold up the ones that the operator gave.
func (o *Overlay) joinTargets(turn int) []foundPeer {
	o.mu.Lock()
	defer o.mu.Unlock()
	var out, others []foundPeer
	for _, h := range o.hints {
		out = append(out, foundPeer{addrs: []string{h}})
	}
	for _, e := range o.book.Entries() {
		if e.ID != o.self {
			others = append(others, foundPeer{id: e.ID, addrs: e.Addrs})
		}
	}
	others = append(others, o.seen...)
	for i := range min(len(others), maxAsked) {
		out = append(out, others[(turn*maxAsked+i)%len(others)])
	}
	return out
}

// collectFound moves what discovery found into the list of targets.
func (o *Overlay) collectFound() {
	for {
		select {
		case f := <-o.found:
			o.mu.Lock()
			o.noteFoundLocked(f)
			o.mu.Unlock()
		default:
			return
		}
	}
}

// noteFoundLocked adds what discovery says of a peer: one address at a time.
func (o *Overlay) noteFoundLocked(f foundPeer) {
	if f.id == o.self {
		return
	}
	i := slices.IndexFunc(o.seen, func(s foundPeer) bool { return s.id == f.id })
	switch {
	case i < 0:
		if len(o.seen) >= maxFound {
			o.seen = slices.Delete(o.seen, 0, 1) // what is real is announced again
			o.count(ReasonFound)
		}
		o.seen = append(o.seen, f)
	case slices.Contains(o.seen[i].addrs, f.addrs[0]) || len(o.seen[i].addrs) >= maxAddrs:
		return
	default:
		o.seen[i].addrs = append(slices.Clone(o.seen[i].addrs), f.addrs[0])
	}
	o.knownAt = nil
}

// tryJoin asks one target for admission; true once this node is a member. Those
// that have no cluster either, and might found one, are remembered in lobby.
func (o *Overlay) tryJoin(ctx context.Context, t foundPeer, lobby map[peer.ID]bool) bool {
	ctx, cancel := context.WithTimeout(ctx, dialTime+joinTime)
	defer cancel()
	id, err := o.askAdmission(ctx, t)
	o.mu.Lock()
	if t.id == "" && errors.Is(err, errItself) {
		o.itself[t.addrs[0]] = true
	} else if t.id == "" {
		delete(o.itself, t.addrs[0])
	}
	o.mu.Unlock()
	if err == nil {
		return o.isAdmitted()
	}
	delete(lobby, id)
	if r, ok := errors.AsType[*refusedError](err); ok && r.reason == ReasonNoCluster {
		lobby[id] = true
	}
	o.noteTrouble(err, t.addrs)
	return false
}

// noteTrouble keeps why no member could be joined, for JoinError, and says it
// loudly: each reason when it is new, and every troubleEvery. Of several hosts that
// wait for each other each has its own reason, ten times a second.
func (o *Overlay) noteTrouble(err error, addrs []string) {
	err = forPeople(err, addrs)
	o.mu.Lock()
	defer o.mu.Unlock()
	now, text := time.Now(), err.Error()
	o.joinError = err
	if said, ok := o.troubles[text]; ok && now.Sub(said) < troubleEvery {
		return
	}
	if o.troubles == nil || len(o.troubles) >= maxTroubles {
		o.troubles = map[string]time.Time{}
	}
	o.troubles[text] = now
	o.cfg.Log.Warn().Strs("addrs", addrs).Msg(err.Error() + "; it is tried again")
}

// forPeople makes an error with a way out of what went wrong at addrs.
func forPeople(err error, addrs []string) error {
	where := strings.Join(addrs, ", ")
	if e, done := errors.AsType[*p2pnode.Error](err); done {
		if e.Code != "wrong-id" {
			return err
		}
		said := *e
		said.Text = fmt.Sprintf("cannot join at %s: %s", where, e.Text)
		return &said
	}
	if r, ok := errors.AsType[*refusedError](err); ok {
		e := &p2pnode.Error{Code: r.reason, Exit: p2pnode.ExitNotPermitted, Text: fmt.Sprintf("%s refuses this node: %s", where, r.text)}
		switch r.reason {
		case ReasonForeign:
			e.Fix = "check --join; to change clusters, run p2pnode leave there, or move cluster.json in the data folder away, and join with a token"
		case ReasonRevoked:
			e.Fix = "as another node it may join: move node.key and cluster.json in the data folder away, then --token-file"
		case ReasonNoCluster, ReasonJoining:
			e.Exit = p2pnode.ExitUnreachable
			e.Fix = "start that node without --join first, or name another member"
		}
		return e
	}
	return &p2pnode.Error{
		Code: "join-unreachable", Exit: p2pnode.ExitUnreachable, Text: fmt.Sprintf("cannot join at %s: %v", where, err),
		Fix: "check the address, that p2pnode runs there, and what stands in between",
	}
}

// askAdmission asks t, or who answers at its addresses, for admission. id is who
// answered.
func (o *Overlay) askAdmission(ctx context.Context, t foundPeer) (id peer.ID, err error) {
	return o.requestAdmission(ctx, t, func(by foundPeer, admission []byte, tok *papers.Token) error {
		if err := o.takeAdmission(admission, tok); err != nil {
			return err
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		o.admittedByLocked(by)
		return nil
	})
}

// requestAdmission shows this node's request to t, or to who answers at its addresses,
// until one answers with an admission that take accepts.
func (o *Overlay) requestAdmission(ctx context.Context, t foundPeer, take func(by foundPeer, admission []byte, tok *papers.Token) error) (peer.ID, error) {
	tok, err := o.readToken()
	if err != nil {
		return "", err
	}
	req, err := papers.NewRequest(o.key, o.cfg.Name, tok)
	if err != nil {
		return "", err
	}
	return o.firstOf(ctx, t.id, t.addrs, func(ctx context.Context, id peer.ID, addrs []string) error {
		c, err := o.dial(ctx, id, addrs)
		if err != nil {
			return err
		}
		defer c.conn.Close()
		a, err := o.sayHello(ctx, c, false, req)
		if err != nil {
			return err
		}
		if len(a.Admission) == 0 {
			return fmt.Errorf("%w: no word on admission", errFrame)
		}
		return take(foundPeer{id: id, addrs: addrs}, a.Admission, tok)
	})
}

// admittedByLocked notes who can be found at once in the cluster that lets us in.
func (o *Overlay) admittedByLocked(by foundPeer) {
	o.admitter = discover.Entry{ID: by.id, Addrs: by.addrs, Seen: time.Now()}
}

// JoinError is why this node is not a member yet, nil before the first try; of a
// member, that an address which it was to join belongs to another cluster. It is a
// *p2pnode.Error.
func (o *Overlay) JoinError() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.joinError
}

func (o *Overlay) leftPath() string { return filepath.Join(o.cfg.Dir, "left") }

// waitUnlessLeft waits for Join on a node that has left a cluster for good.
func (o *Overlay) waitUnlessLeft(ctx context.Context) error {
	for {
		if _, err := os.Stat(o.leftPath()); err != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// Join adds a hint of whom to have a link with. On a node that has left its
// cluster it ends the waiting.
func (o *Overlay) Join(addr string) error {
	if _, err := discover.ParseJoin(addr); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if !slices.Contains(o.hints, addr) {
		o.hints = append(o.hints, addr)
	}
	o.knownAt = nil
	o.wake()
	// Last: whoever waits for this must find the hint, or it founds a cluster.
	if err := os.Remove(o.leftPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// ErrLeft is what Run returns after Leave.
var ErrLeft = errors.New("this node has left its cluster")

// Leave says good-bye for good and forgets the cluster; Run ends with ErrLeft. The
// node stays out, also after a restart, until Join.
func (o *Overlay) Leave(context.Context) error {
	if !o.isAdmitted() {
		return errNotMember
	}
	if err := p2pnode.WriteFile(o.leftPath(), []byte(time.Now().Format(time.RFC3339)+"\n"), 0o600); err != nil {
		return err
	}
	if err := papers.Forget(o.cfg.Dir); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case <-o.leaving:
	default:
		close(o.leaving)
	}
	return nil
}

// discoverOnLAN looks for others by multicast until ctx ends. What it finds is a
// hint; that it cannot start is no failure.
func (o *Overlay) discoverOnLAN(ctx context.Context) {
	if !o.cfg.MDNS || o.addr.Addr().IsLoopback() {
		return
	}
	err := o.multicast(ctx, discover.MDNSConfig{
		Service: mdnsService, ID: o.self, Port: o.addr.Port(), Log: o.cfg.Log,
		Alone: func() bool { return len(o.View().Links) == 0 },
		Found: func(h discover.Hint) {
			select {
			case o.found <- foundPeer{id: h.ID, addrs: []string{netip.AddrPortFrom(addrOf(h.Host), h.Port).String()}}:
				o.wake()
			default:
			}
		},
	})
	if err != nil && ctx.Err() == nil {
		o.cfg.Log.Info().Err(err).Msg("no multicast discovery on this host")
	}
}

func addrOf(s string) netip.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}
	}
	return a
}
