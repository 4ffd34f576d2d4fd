package overlay

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"

	"p2pnode"
	"p2pnode/overlay/discover"
)

// errItself means that nobody but this node answers at an address.
var errItself = errors.New("this node itself answers there")

// place is one of the places that an address leads to: those of one peer together,
// or an address where nobody has answered yet.
type place struct {
	id    peer.ID
	addrs []string // ip:port
	err   error
}

// firstOf tries who is to be found at addrs, one after the other, until try
// succeeds. Behind a name there may be several nodes, this one among them, and some
// that are of no use. who is the one that answered last.
func (o *Overlay) firstOf(ctx context.Context, id peer.ID, addrs []string, try func(context.Context, peer.ID, []string) error) (who peer.ID, err error) {
	id, resolved, err := o.resolve(ctx, id, addrs)
	if err != nil {
		return id, err
	}
	if id != "" {
		return id, try(ctx, id, resolved)
	}
	asking, cancel := context.WithCancel(ctx)
	var asked sync.WaitGroup
	defer asked.Wait()
	defer cancel()
	for p := range o.ask(asking, resolved, &asked) {
		switch {
		case p.err != nil:
		case p.id == o.self:
			p.err = fmt.Errorf("%s: %w", p.addrs[0], errItself)
		default:
			p.err = try(ctx, p.id, p.addrs)
		}
		if p.err == nil {
			return p.id, nil
		}
		if err == nil || telling(p.err) >= telling(err) {
			who, err = p.id, p.err
		}
	}
	return who, err
}

// telling ranks errors: of several the one to show is the one that says most.
func telling(err error) int {
	_, refused := errors.AsType[*refusedError](err)
	_, said := errors.AsType[*p2pnode.Error](err)
	switch {
	case errors.Is(err, errItself):
		return 0
	case refused || said:
		return 2
	}
	return 1
}

// ask finds out who answers at addrs, all at once; answers come as they arrive.
func (o *Overlay) ask(ctx context.Context, addrs []string, asked *sync.WaitGroup) <-chan place {
	out := make(chan place, len(addrs))
	var each sync.WaitGroup
	for _, a := range addrs {
		each.Go(func() {
			id, err := o.stack.who(ctx, a)
			out <- place{id, []string{a}, err}
		})
	}
	asked.Go(func() {
		each.Wait()
		close(out)
	})
	return out
}

// resolve makes ip:port of what was given as addresses, and takes the ID out of a
// multiaddr that has one.
func (o *Overlay) resolve(ctx context.Context, id peer.ID, addrs []string) (peer.ID, []string, error) {
	var out []string
	last := errors.New("no address")
	for _, a := range addrs {
		if _, err := netip.ParseAddrPort(a); err == nil {
			out = append(out, a)
			continue
		}
		hint, err := discover.ParseJoin(a)
		if err != nil {
			last = err
			continue
		}
		if id == "" {
			id = hint.ID
		}
		found, err := hint.Resolve(ctx, o.resolver)
		if err != nil {
			last = err
			continue
		}
		for _, f := range found {
			out = append(out, f.String())
		}
	}
	slices.Sort(out)
	out = slices.Compact(out)
	if len(out) == 0 {
		return id, nil, last
	}
	return id, out[:min(len(out), maxPlaces)], nil
}

// literal reports whether all of addrs are addresses, not names.
func literal(addrs []string) bool {
	return !slices.ContainsFunc(addrs, func(a string) bool {
		h, err := discover.ParseJoin(a)
		if err != nil {
			return true
		}
		_, err = netip.ParseAddr(h.Host)
		return err != nil
	})
}

// dialReason is why a dial failed, in a line.
func dialReason(err error) error {
	if wrong, ok := errors.AsType[sec.ErrPeerIDMismatch](err); ok {
		return &p2pnode.Error{
			Code: "wrong-id", Exit: p2pnode.ExitUnreachable,
			Text: fmt.Sprintf("%s answers there, not %s", wrong.Actual, wrong.Expected),
			Fix:  "check what stands behind /p2p/, or leave it out",
		}
	}
	d, ok := errors.AsType[*swarm.DialError](err)
	if !ok || len(d.DialErrors) == 0 {
		return err
	}
	first := d.DialErrors[0].Cause
	if n := len(d.DialErrors) - 1 + d.Skipped; n > 0 {
		return fmt.Errorf("%w (and %d more addresses)", first, n)
	}
	return first
}
