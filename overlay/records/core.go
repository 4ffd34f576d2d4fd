package records

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"

	"p2pnode"
	"p2pnode/overlay/records/recordspb"
)

// Core holds the records; see the package comment. Not safe for concurrent use.
type Core struct {
	cfg     Config
	shelves map[p2pnode.Domain]*shelf
	order   []p2pnode.Domain // as registered: what matters most goes first
	seq     uint64
	sums    [buckets]uint64
	seen    seen
	rates   map[peer.ID]*rate
	links   map[peer.ID]*outbox
	counts  map[string]uint64
	refutes map[entryKey]bool // own records that somebody else overtook
	turn    int               // where the next listing starts
	cuts    int               // answers that had to be cut
	skip    int               // where the next odd one of them starts, see fit
}

// shelf holds the records of one domain.
type shelf struct {
	spec    Spec
	rank    int
	entries map[entryKey]*entry
	of      map[peer.ID]int // entries per signer
}

// entry is a kept record, or the memory of one that expired.
type entry struct {
	entryKey
	seq, hash uint64
	envelope  []byte
	body      []byte    // aliases envelope
	expires   time.Time // zero: never
	forget    time.Time // set: expired, remembered until then
	bucket    int
}

func (e *entry) gone() bool { return !e.forget.IsZero() }

func (e *entry) record() p2pnode.Record {
	return p2pnode.Record{Domain: e.domain, Signer: e.signer, Key: e.key, Seq: e.seq, Expires: e.expires, Body: e.body}
}

// New makes an empty Core that knows no domain.
func New(cfg Config) *Core {
	return &Core{
		cfg:     cfg,
		shelves: map[p2pnode.Domain]*shelf{},
		seq:     cfg.Boot << 32,
		seen:    seen{at: map[[16]byte]struct{}{}},
		rates:   map[peer.ID]*rate{},
		links:   map[peer.ID]*outbox{},
		counts:  map[string]uint64{},
		refutes: map[entryKey]bool{},
	}
}

// Domain registers a domain; records of others are refused. In anti-entropy
// domains are served in the order of registration: put first what others need to
// be believed (peer records, with their certificates).
func (c *Core) Domain(spec Spec) {
	if _, twice := c.shelves[spec.Domain]; twice || spec.Domain == "" || len(spec.Domain) > maxDomain {
		panic("records: domain registered twice or misnamed: " + string(spec.Domain))
	}
	spec.MaxKeys = cmp.Or(spec.MaxKeys, DefaultMaxKeys)
	spec.MaxTotal = cmp.Or(spec.MaxTotal, DefaultMaxTotal)
	c.shelves[spec.Domain] = &shelf{spec: spec, rank: len(c.order), entries: map[entryKey]*entry{}, of: map[peer.ID]int{}}
	c.order = append(c.order, spec.Domain)
}

// Publish signs a record of this node and queues it to all links. ttl 0 means
// the domain's. The body is copied.
func (c *Core) Publish(now time.Time, domain p2pnode.Domain, key string, body []byte, ttl time.Duration) (p2pnode.Record, error) {
	sh := c.shelves[domain]
	if sh == nil {
		return p2pnode.Record{}, fmt.Errorf("%w: %q", ErrDomain, domain)
	}
	if len(body) > MaxBody || len(key) > MaxKey {
		return p2pnode.Record{}, fmt.Errorf("%w: %s record of %d bytes, key of %d", ErrSize, domain, len(body), len(key))
	}
	if sh.spec.ManagersOnly && !allowed(c.cfg.Manager, c.cfg.Self) {
		return p2pnode.Record{}, fmt.Errorf("%w: %s record", ErrManager, domain)
	}
	k := entryKey{domain: domain, signer: c.cfg.Self, key: key}
	if old := sh.entries[k]; old != nil {
		c.seq = max(c.seq, old.seq)
	}
	c.seq++
	payload, err := proto.Marshal(&recordspb.Payload{Key: key, Seq: c.seq, TtlMs: milliseconds(ttl), Body: body})
	if err != nil {
		return p2pnode.Record{}, fmt.Errorf("cannot encode %s record: %w", domain, err) // the key is no UTF-8
	}
	envelope := p2pnode.Seal(signingDomain(domain), c.cfg.Key, payload)
	e := &entry{entryKey: k, seq: c.seq, hash: hashOf(envelope), envelope: envelope}
	e.body = slices.Clone(body)
	e.expires = expiry(now, milliseconds(ttl), 0, sh.spec.TTL)
	if !c.makeRoom(sh, e) {
		return p2pnode.Record{}, fmt.Errorf("%w: domain %s is full", ErrSize, domain)
	}
	c.put(sh, e)
	c.queue(e, "")
	return e.record(), nil
}

// Take judges an item that a neighbour sent. What is new is kept and queued to
// all links but the sender's; the item's bytes are kept as they are.
func (c *Core) Take(now time.Time, item Item, from peer.ID) Result {
	sh := c.shelves[item.Domain]
	if sh == nil {
		return c.refuse(ReasonDomain)
	}
	if len(item.Envelope) > maxEnvelope {
		return c.refuse(ReasonSize)
	}
	digest := seenKey(item)
	if c.seen.has(digest) {
		return Result{Verdict: Stale}
	}
	e, ttl, reason := open(item)
	if reason != "" {
		c.seen.add(digest) // the same bytes will never be better
		return c.refuse(reason)
	}
	e.expires = expiry(now, ttl, item.LeftMS, sh.spec.TTL)
	if reason := c.admit(now, sh, e); reason != "" {
		return c.refuse(reason) // may be better later: not remembered
	}
	res := c.merge(sh, e, from)
	if res.Verdict != Refused {
		c.seen.add(digest)
	}
	return res
}

// open verifies an item and reads its payload.
func open(item Item) (e *entry, ttl uint64, reason string) {
	env, err := p2pnode.Open(signingDomain(item.Domain), item.Envelope)
	if err != nil {
		return nil, 0, ReasonForged
	}
	var p recordspb.Payload
	if err := proto.Unmarshal(env.Payload, &p); err != nil {
		return nil, 0, ReasonDamaged
	}
	if len(p.Body) > MaxBody || len(p.Key) > MaxKey {
		return nil, 0, ReasonSize
	}
	return &entry{
		entryKey: entryKey{domain: item.Domain, signer: env.Signer, key: p.Key},
		seq:      p.Seq, hash: hashOf(item.Envelope), envelope: item.Envelope, body: p.Body,
	}, p.TtlMs, ""
}

// admit decides whether the signer may say this now.
func (c *Core) admit(now time.Time, sh *shelf, e *entry) (reason string) {
	switch {
	case e.signer == c.cfg.Self:
	case sh.spec.Admit != nil:
		if err := sh.spec.Admit(e.record()); errors.Is(err, ErrManager) {
			return ReasonManager
		} else if err != nil {
			return ReasonStranger
		}
	case !allowed(c.cfg.Member, e.signer):
		return ReasonStranger
	}
	if sh.spec.ManagersOnly && sh.spec.Admit == nil && !allowed(c.cfg.Manager, e.signer) {
		return ReasonManager
	}
	if c.rateOf(e.signer).over(now) {
		return ReasonRate
	}
	return ""
}

// merge lets the newer of e and what is known stand.
func (c *Core) merge(sh *shelf, e *entry, from peer.ID) Result {
	old := sh.entries[e.entryKey]
	var res Result
	if old != nil {
		res.Conflict = old.seq == e.seq && old.hash != e.hash
		if res.Conflict {
			c.counts[CountConflict]++
		}
		if !newer(e.seq, e.hash, old) {
			res.Verdict = Stale
			return res
		}
	}
	if e.signer == c.cfg.Self {
		c.seq = max(c.seq, e.seq)
		if old != nil && !old.gone() {
			c.refutes[e.entryKey] = true
			res.Verdict, res.Record = Refuted, e.record()
			return res
		}
	}
	c.rateOf(e.signer).n++
	if !c.makeRoom(sh, e) {
		return c.refuse(ReasonFull)
	}
	c.put(sh, e)
	c.queue(e, from)
	res.Verdict, res.Record = Fresh, e.record()
	return res
}

// refute says again, above the foreign records' numbers, what this life says.
// It waits for Sweep, so that two processes with one key answer each other once
// per heartbeat and not as fast as the network carries it.
func (c *Core) refute(now time.Time) {
	for k := range c.refutes {
		mine := c.shelves[k.domain].entries[k]
		if mine == nil || !mine.alive(now) {
			continue
		}
		var ttl time.Duration
		if !mine.expires.IsZero() {
			ttl = mine.expires.Sub(now)
		}
		if _, err := c.Publish(now, k.domain, k.key, mine.body, ttl); err != nil {
			c.counts[ReasonFull]++
		}
	}
	clear(c.refutes)
}

// newer is the total order of versions of one record.
func newer(seq, hash uint64, than *entry) bool {
	return seq > than.seq || seq == than.seq && hash > than.hash
}

// Records lists the living records of a domain, by signer and key.
func (c *Core) Records(now time.Time, domain p2pnode.Domain) []p2pnode.Record {
	sh := c.shelves[domain]
	if sh == nil {
		return nil
	}
	out := make([]p2pnode.Record, 0, len(sh.entries))
	for _, e := range sh.entries {
		if e.alive(now) {
			out = append(out, e.record())
		}
	}
	slices.SortFunc(out, compareRecords)
	return out
}

// Items are the living records of a domain as they were signed.
func (c *Core) Items(now time.Time, domain p2pnode.Domain) []Item {
	sh := c.shelves[domain]
	if sh == nil {
		return nil
	}
	var out []Item
	for _, e := range sh.entries {
		if e.alive(now) {
			out = append(out, Item{Domain: domain, Envelope: e.envelope})
		}
	}
	return out
}

// Get is one living record.
func (c *Core) Get(now time.Time, domain p2pnode.Domain, signer peer.ID, key string) (p2pnode.Record, bool) {
	sh := c.shelves[domain]
	if sh == nil {
		return p2pnode.Record{}, false
	}
	e := sh.entries[entryKey{domain: domain, signer: signer, key: key}]
	if e == nil || !e.alive(now) {
		return p2pnode.Record{}, false
	}
	return e.record(), true
}

// Forget drops what a signer published in some domains and returns what was in force:
// its certificate was revoked, or is worth less.
func (c *Core) Forget(signer peer.ID, in func(p2pnode.Domain) bool) []p2pnode.Record {
	var out []p2pnode.Record
	for d, sh := range c.shelves {
		if !in(d) {
			continue
		}
		for k, e := range sh.entries {
			if k.signer != signer {
				continue
			}
			if !e.gone() {
				out = append(out, e.record())
			}
			c.drop(sh, e)
		}
	}
	c.seen = seen{at: map[[16]byte]struct{}{}} // what it signed may count again one day
	return out
}

// Raise makes this node number what it publishes above seq: a number that others
// hold against it.
func (c *Core) Raise(seq uint64) {
	if seq < 1<<63 {
		c.seq = max(c.seq, seq)
	}
}

// Counters says how often what was refused or dropped, by reason.
func (c *Core) Counters() map[string]uint64 { return maps.Clone(c.counts) }

func (c *Core) refuse(reason string) Result {
	c.counts[reason]++
	return Result{Verdict: Refused, Reason: reason}
}

func compareRecords(a, b p2pnode.Record) int {
	return cmp.Or(cmp.Compare(a.Domain, b.Domain), cmp.Compare(a.Signer, b.Signer), cmp.Compare(a.Key, b.Key))
}

func allowed(ask func(peer.ID) bool, id peer.ID) bool { return ask != nil && ask(id) }
