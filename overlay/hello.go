package overlay

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	manet "github.com/multiformats/go-multiaddr/net"

	"p2pnode"
	"p2pnode/overlay/overlaypb"
)

// connection is one libp2p connection and what hello showed over it.
type connection struct {
	conn   network.Conn
	peer   peer.ID
	addr   netip.AddrPort // the other end's
	opened time.Time

	mu     sync.Mutex
	passed chan struct{} // closed once hello was accepted
	cert   p2pnode.Certificate
	life   p2pnode.Life
	name   string
	link   bool // the other side wants a link over it
	hellos int  // that the other side has said
	used   time.Time
}

func newConnection(c network.Conn) *connection {
	out := &connection{conn: c, peer: c.RemotePeer(), opened: time.Now(), passed: make(chan struct{}), used: time.Now()}
	if a, err := manet.ToNetAddr(c.RemoteMultiaddr()); err == nil {
		out.addr, _ = netip.ParseAddrPort(a.String())
	}
	return out
}

// waitHello waits for hello to pass, at most for d.
func (c *connection) waitHello(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-c.passed:
	case <-t.C:
	}
}

// certificate is what hello showed; ok is false before it has passed.
func (c *connection) certificate() (p2pnode.Certificate, bool) {
	select {
	case <-c.passed:
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.cert, true
	default:
		return p2pnode.Certificate{}, false
	}
}

// mayHello counts a hello. Each costs a chain of signatures to check: whoever does
// not pass with the first few has no certificate.
func (c *connection) mayHello() bool {
	_, passed := c.certificate()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hellos++
	return passed || c.hellos <= maxHellos
}

func (c *connection) pass(cert p2pnode.Certificate, h *overlaypb.Hello) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cert, c.name, c.link = cert, h.Name, h.Link
	c.life = p2pnode.Life{Boot: h.Boot, Nonce: h.Nonce}
	select {
	case <-c.passed:
	default:
		close(c.passed)
	}
}

// ownHello is what this node says of itself.
func (o *Overlay) ownHello(link bool) *overlaypb.Hello {
	o.mu.Lock()
	defer o.mu.Unlock()
	return &overlaypb.Hello{
		Chain: o.cert.Chain, Name: o.cfg.Name, Boot: o.life.Boot, Nonce: o.life.Nonce,
		Version: o.cfg.Version, Link: link, Listen: o.addr.String(),
	}
}

// checkHello judges the other side's hello against our papers; "" is welcome.
func (o *Overlay) checkHello(c *connection, h *overlaypb.Hello) (p2pnode.Certificate, string) {
	if !p2pnode.ValidNodeName(h.Name) || len(h.Version) > maxName || len(h.Listen) > maxName {
		return p2pnode.Certificate{}, ReasonFrame
	}
	o.mu.Lock()
	own, revoked := o.papers, o.revoked
	o.mu.Unlock()
	if own == nil && o.joining() {
		return p2pnode.Certificate{}, ReasonJoining
	}
	if own == nil {
		return p2pnode.Certificate{}, ReasonNoCluster
	}
	if len(h.Chain) == 0 {
		return p2pnode.Certificate{}, ReasonStranger
	}
	cert, err := p2pnode.VerifyChain(own.Root, h.Chain, revoked)
	switch {
	case errors.Is(err, p2pnode.ErrRevoked):
		return cert, ReasonRevoked
	case err != nil:
		return cert, ReasonForeign
	}
	if cert.ID != c.peer || cert.Role == p2pnode.RoleDoor {
		return cert, ReasonStranger
	}
	return cert, ""
}

// serveHello answers the other side's hello.
func (o *Overlay) serveHello(c *connection, s network.Stream) {
	defer s.Close()
	if !c.mayHello() {
		o.count(ReasonNoHello)
		c.conn.Close()
		return
	}
	s.SetDeadline(time.Now().Add(joinTime))
	var h overlaypb.Hello
	if err := readFrame(s, &h, maxHello); err != nil {
		o.count(ReasonFrame)
		s.Reset()
		return
	}
	writeFrame(s, o.answerHello(c, &h), maxHello)
}

func (o *Overlay) answerHello(c *connection, h *overlaypb.Hello) *overlaypb.HelloAnswer {
	out := &overlaypb.HelloAnswer{Hello: o.ownHello(false)}
	cert, reason := o.checkHello(c, h)
	if reason == ReasonStranger && len(h.Chain) == 0 && len(h.Join) > 0 {
		ctx, cancel := context.WithTimeout(o.ctx, joinTime-time.Second)
		defer cancel()
		out.Admission = o.admit(ctx, h.Join, c.addr.Addr().Unmap())
		return out
	}
	if reason == "" && h.Link && o.denies(c, h) {
		reason = ReasonDenied
	}
	if reason != "" {
		o.count(reason)
		out.Refused, out.Text = reason, helloText[reason]
		return out
	}
	if cert, reason = o.noteCert(cert); reason != "" {
		o.count(reason)
		out.Refused, out.Text = reason, helloText[reason]
		return out
	}
	c.pass(cert, h)
	return out
}

// denies reports whether no link with the other side is wanted. Of one that
// dialled us the address where it listens counts, not the port that it came from.
func (o *Overlay) denies(c *connection, h *overlaypb.Hello) bool {
	addrs := []string{c.addr.String()}
	if l, err := netip.ParseAddrPort(h.Listen); err == nil {
		addrs = append(addrs, netip.AddrPortFrom(c.addr.Addr().Unmap(), l.Port()).String())
	}
	return o.deny.Match(c.peer, h.Name, addrs...)
}

var helloText = map[string]string{
	ReasonForeign:   "that is another cluster",
	ReasonRevoked:   "its key was revoked, or that of the manager who let it in",
	ReasonStranger:  "a certificate of this cluster is needed",
	ReasonNoCluster: "this node is not a member of a cluster itself yet",
	ReasonJoining:   "this node is not a member of a cluster itself yet, it is to join another",
	ReasonDenied:    "links with this node are denied here",
	ReasonFrame:     "damaged hello",
}

// refusedError is a hello that the other side did not accept.
type refusedError struct{ reason, text string }

func (e *refusedError) Error() string { return fmt.Sprintf("refused (%s): %s", e.reason, e.text) }

// refusal is the other side's word as it may be shown: a stranger's text must not
// paint terminals or fill logs.
func refusal(a *overlaypb.HelloAnswer) *refusedError {
	if own, ok := helloText[a.Refused]; ok {
		return &refusedError{a.Refused, own}
	}
	text := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, a.Text)
	return &refusedError{"refused", strings.ToValidUTF8(text[:min(len(text), maxText)], "")}
}

// sayHello opens hello on c and waits for the other side's. With join it asks for
// admission where this node has no certificate.
func (o *Overlay) sayHello(ctx context.Context, c *connection, link bool, join []byte) (*overlaypb.HelloAnswer, error) {
	limit := helloTime
	if join != nil {
		limit = joinTime
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	s, err := c.conn.NewStream(ctx)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if err := o.open(c, protoHello, s); err != nil {
		return nil, err
	}
	s.SetDeadline(time.Now().Add(limit))
	stop := context.AfterFunc(ctx, func() { s.Reset() })
	defer stop()
	h := o.ownHello(link)
	if join != nil {
		h.Join, h.Chain = join, nil // as who is in no cluster
	}
	var a overlaypb.HelloAnswer
	if err := writeFrame(s, h, maxHello); err != nil {
		return nil, err
	}
	if err := readFrame(s, &a, maxHello); err != nil {
		return nil, err
	}
	if a.Refused != "" {
		return &a, refusal(&a)
	}
	if a.Hello == nil {
		return nil, fmt.Errorf("%w: no hello in the answer", errFrame)
	}
	if len(a.Admission) > 0 {
		return &a, nil
	}
	cert, reason := o.checkHello(c, a.Hello)
	if reason != "" {
		o.count(reason)
		return &a, &refusedError{reason, helloText[reason]}
	}
	if link && o.denies(c, a.Hello) {
		return &a, &refusedError{ReasonDenied, helloText[ReasonDenied]}
	}
	if cert, reason = o.noteCert(cert); reason != "" {
		o.count(reason)
		return &a, &refusedError{reason, helloText[reason]}
	}
	c.pass(cert, a.Hello)
	return &a, nil
}

// certEntry is a member's certificate as it was last shown.
type certEntry struct {
	cert p2pnode.Certificate
	raw  string // of the chain, to know it again
}

// noteCert keeps a certificate that hello showed, as what it is by now: its holder may
// have been revoked or demoted since it was looked at. "" is kept.
func (o *Overlay) noteCert(cert p2pnode.Certificate) (p2pnode.Certificate, string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	cert, err := p2pnode.VerifyChain(o.papers.Root, cert.Chain, o.revoked)
	if err != nil {
		return cert, ReasonRevoked
	}
	o.noteCertLocked(cert)
	return cert, ""
}

// noteCertLocked keeps a certificate that hello or a peer record showed; a manager's is
// not replaced by an older worker's, nor any by an older one of the same role.
func (o *Overlay) noteCertLocked(cert p2pnode.Certificate) {
	old, ok := o.certs[cert.ID]
	if ok && old.cert.Role == p2pnode.RoleManager && cert.Role == p2pnode.RoleWorker {
		return
	}
	if ok && old.cert.Role == cert.Role && cert.From.Before(old.cert.From) {
		return // a record from before its renewal
	}
	o.certs[cert.ID] = certEntry{cert: cert, raw: chainText(cert.Chain)}
}

func chainText(chain [][]byte) string {
	if len(chain) == 0 {
		return ""
	}
	return string(chain[0])
}

func (o *Overlay) memberLocked(id peer.ID) bool { _, ok := o.certs[id]; return ok }

// linkedLocked reports whether two others have a link, by what they say.
func (o *Overlay) linkedLocked(a, b peer.ID) bool {
	_, ok := o.view.Table.Class(a, b)
	return ok
}

func (o *Overlay) managerLocked(id peer.ID) bool {
	return o.certs[id].cert.Privileged(o.clockLocked(time.Now()))
}
