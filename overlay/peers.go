package overlay

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/overlay/discover"
	"p2pnode/overlay/overlaypb"
	"p2pnode/overlay/papers"
	"p2pnode/overlay/records"
)

// Peer is a member as its newest signed record tells it.
type Peer struct {
	ID       peer.ID
	Name     string
	Addrs    []string // host:port
	Door     string   // host:port
	Life     p2pnode.Life
	Labels   map[string]string
	Role     p2pnode.Role
	Managing bool
	Version  string
	BoxKey   []byte         // X25519: what is sealed to it only this node opens
	Left     bool           // it left, or stopped in good order, in this life
	ForGood  bool           // it left the cluster
	Proven   netip.AddrPort // where it last proved its key to this node; zero: never
	From     netip.Addr     // the host at the other end of the last link with it
	Until    time.Time      // when its certificate's privilege ends
	Said     time.Time      // when it signed its record, by this node's clock; zero: of ephemeral ones that is not known
	// Ephemeral: its identity ends with its container or its memory, and its record
	// with it soon after.
	Ephemeral bool
	Twice     time.Time // when two processes with its key were last known to live; zero: never
}

// peerLocked reads a peer record.
func (o *Overlay) peerLocked(r p2pnode.Record) (Peer, bool) {
	var m overlaypb.PeerRecord
	if decode(r.Body, &m) != nil {
		return Peer{}, false
	}
	cert := o.certs[r.Signer].cert
	p := Peer{
		ID: r.Signer, Name: m.Name, Addrs: m.Addrs, Door: m.Door, Life: p2pnode.Life{Boot: m.Boot, Nonce: m.Nonce},
		Labels: m.Labels, Role: cert.Role, Managing: m.Managing && cert.Role == p2pnode.RoleManager, Version: m.Version, BoxKey: m.BoxKey,
		Proven: o.proven[r.Signer], From: o.from[r.Signer], Until: cert.Until, Ephemeral: m.Ephemeral, Twice: o.twiceLocked(r.Signer),
	}
	if !p.Proven.IsValid() {
		p.Proven = provenBy(p.From, m.Addrs)
	}
	if !m.Ephemeral {
		p.Said = r.Expires.Add(-peerTTL)
	}
	return p, true
}

// provenBy is, of a peer that was never dialled from here, the address of its own
// where its connections come from.
func provenBy(from netip.Addr, addrs []string) netip.AddrPort {
	for _, a := range addrs {
		if ap, err := netip.ParseAddrPort(a); err == nil && from.IsValid() && ap.Addr() == from {
			return ap
		}
	}
	return netip.AddrPort{}
}

// admitPeer decides on peer records: the chain in the body must lead to our root
// and be the signer's.
func (o *Overlay) admitPeer(r p2pnode.Record) error {
	var m overlaypb.PeerRecord
	if err := decode(r.Body, &m); err != nil {
		return err
	}
	if !p2pnode.ValidNodeName(m.Name) || len(m.Addrs) > maxAddrs || len(m.Labels) > maxLabels || len(m.BoxKey) != 32 || !printable(&m) {
		return errFrame
	}
	if o.forgottenLocked(r) {
		return errForgotten
	}
	if have, ok := o.certs[r.Signer]; ok && have.raw == chainText(m.Chain) && have.raw != "" {
		return nil
	}
	if o.papers == nil {
		return errNotMember
	}
	cert, err := p2pnode.VerifyChain(o.papers.Root, m.Chain, o.revoked)
	if err != nil {
		return err
	}
	if cert.ID != r.Signer || cert.Role == p2pnode.RoleDoor {
		return p2pnode.ErrCertificate
	}
	o.noteCertLocked(cert)
	return nil
}

// printable reports whether what people will see of a member's record is text, and
// short: names and labels end up on terminals.
func printable(m *overlaypb.PeerRecord) bool {
	bad := func(s string) bool { return len(s) > maxText || strings.ContainsFunc(s, unicode.IsControl) }
	for k, v := range m.Labels {
		if bad(k) || bad(v) {
			return false
		}
	}
	return !slices.ContainsFunc(append(m.Addrs[:len(m.Addrs):len(m.Addrs)], m.Door, m.Version), bad)
}

// ownDomains registers the overlay's records; first what is refused, then peer
// records: with their certificates the others are believed.
func (o *Overlay) ownDomains() {
	o.records.Domain(o.refusedSpec(p2pnode.DomainRevoked, revokedProof))
	o.records.Domain(o.refusedSpec(p2pnode.DomainDemoted, demotedProof))
	o.records.Domain(o.forgottenSpec())
	o.records.Domain(o.gossipKeySpec())
	o.kept = append(o.kept, p2pnode.DomainRevoked, p2pnode.DomainDemoted, p2pnode.DomainForgotten, p2pnode.DomainReader, p2pnode.DomainGossipKey)
	o.privileged = append(o.privileged, domainToken, p2pnode.DomainAdmission, p2pnode.DomainReader)
	o.records.Domain(records.Spec{Domain: p2pnode.DomainPeer, TTL: peerTTL, Urgent: true, AntiEntropy: true, MaxKeys: 1, Admit: o.admitPeer})
	o.records.Domain(records.Spec{Domain: p2pnode.DomainLink, TTL: linkTTL, Urgent: true, AntiEntropy: true, MaxKeys: 1})
	o.records.Domain(records.Spec{Domain: p2pnode.DomainLeave, TTL: leaveTTL, Urgent: true, AntiEntropy: true, MaxKeys: 1})
	o.records.Domain(records.Spec{Domain: domainToken, TTL: papers.MaxTokenTTL, Urgent: true, AntiEntropy: true, ManagersOnly: true, MaxKeys: maxGrants})
	o.records.Domain(records.Spec{Domain: p2pnode.DomainAdmission, TTL: maxOpen, Urgent: true, AntiEntropy: true, ManagersOnly: true, MaxKeys: 2*maxPending + 1})
	o.records.Domain(records.Spec{Domain: p2pnode.DomainReader, Urgent: true, AntiEntropy: true, MaxKeys: 1, ManagersOnly: true, Admit: o.admitProof(readerProof)})
}

// freshLocked takes note of a new record and delivers it.
func (o *Overlay) freshLocked(r p2pnode.Record) {
	switch r.Domain {
	case p2pnode.DomainPeer:
		delete(o.gone, r.Signer)
		o.noteLifeLocked(r)
		o.dirtyLocked(hurry)
	case p2pnode.DomainLeave:
		o.dirtyLocked(hurry)
		if r.Signer == o.self && !o.ownLeave(r.Body) {
			o.publishPeerLocked() // an earlier life's: we are back
		}
	case p2pnode.DomainLink:
		o.dirtyLocked(coalesce)
	case domainToken:
		o.takeGrantLocked(r)
	case p2pnode.DomainRevoked, p2pnode.DomainDemoted:
		o.takeRefusedLocked(r)
	case p2pnode.DomainForgotten:
		o.takeForgottenLocked(r)
	case p2pnode.DomainReader:
		o.takeReaderLocked(r)
	}
	o.keptDirty = o.keptDirty || slices.Contains(o.kept, r.Domain)
	if f := o.deliver[r.Domain]; f != nil {
		o.call(func() { f(r) })
	}
}

// ownLeave reports whether a leave record speaks of this life.
func (o *Overlay) ownLeave(body []byte) bool {
	var l overlaypb.LeaveRecord
	return decode(body, &l) == nil && l.Boot == o.life.Boot && l.Nonce == o.life.Nonce
}

// Publish signs and spreads a record of this node; of (domain, key) the newest
// counts. ttl 0 means the domain's own.
func (o *Overlay) Publish(domain p2pnode.Domain, key string, body []byte, ttl time.Duration) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.publishLocked(domain, key, body, ttl)
}

func (o *Overlay) publishLocked(domain p2pnode.Domain, key string, body []byte, ttl time.Duration) error {
	if o.papers == nil {
		return errNotMember
	}
	r, err := o.records.Publish(time.Now(), domain, key, body, ttl)
	if err != nil {
		return fmt.Errorf("cannot publish %s record: %w", domain, err)
	}
	o.freshLocked(r)
	o.flushLocked()
	return nil
}

// Records are the records of a domain that are in force, this node's too.
func (o *Overlay) Records(domain p2pnode.Domain) []p2pnode.Record {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.records.Records(time.Now(), domain)
}

// SetDoor changes where this host's door is said to be.
func (o *Overlay) SetDoor(addr string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.door != addr {
		o.door = addr
		o.publishPeerLocked()
	}
}

// publishPeerLocked says who and where this node is.
func (o *Overlay) publishPeerLocked() {
	if o.papers == nil || o.closing {
		return
	}
	box, err := papers.BoxPublic(o.key)
	if err != nil {
		o.cfg.Log.Error().Err(err).Msg("no box key")
		return
	}
	addrs := o.addresses()
	m := &overlaypb.PeerRecord{
		Name: o.cfg.Name, Addrs: addrs, Door: doorAddress(o.door, addrs), Boot: o.life.Boot, Nonce: o.life.Nonce,
		Labels: o.cfg.Labels, Managing: o.managing, Version: o.cfg.Version, BoxKey: box, Chain: o.papers.Chain,
		Ephemeral: o.cfg.Ephemeral > 0,
	}
	o.peerSaid, o.addrs = time.Now(), addrs
	if err := o.publishLocked(p2pnode.DomainPeer, "", encode(m), o.peerTTL()); err != nil {
		o.cfg.Log.Error().Err(err).Msg("cannot publish own peer record")
	}
}

// addresses are where others may find this node.
func (o *Overlay) addresses() []string {
	ifs, err := o.cfg.Interfaces()
	if err != nil {
		o.cfg.Log.Warn().Err(err).Msg("cannot list network interfaces")
	}
	addrs, err := discover.Advertisable(ifs, o.addr, o.cfg.Advertise)
	if err != nil {
		o.cfg.Log.Warn().Err(err).Msg("no address to tell others")
	}
	return addrs[:min(len(addrs), maxAddrs)]
}

// doorAddress gives the door the node's first host where its own is unspecified; ""
// where there is none.
func doorAddress(door string, addrs []string) string {
	host, port, err := net.SplitHostPort(door)
	if err != nil {
		return door
	}
	if ip, err := netip.ParseAddr(host); host != "" && (err != nil || !ip.IsUnspecified()) {
		return door
	}
	if len(addrs) == 0 {
		return ""
	}
	first, _, err := net.SplitHostPort(addrs[0])
	if err != nil {
		return door
	}
	return net.JoinHostPort(first, port)
}
