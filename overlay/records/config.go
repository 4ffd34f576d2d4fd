package records

import (
	"crypto/ed25519"
	"errors"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
)

// Config is what a Core needs to know of its node.
type Config struct {
	// Self and Key sign what Publish is given.
	Self peer.ID
	Key  ed25519.PrivateKey
	// Boot is the boot number of this life. Sequence numbers start at Boot << 32:
	// a boot number that repeats makes the node's new records lose against its old
	// ones until it sees one of them.
	Boot uint64
	// Member and Manager say what a signer's certificate makes of it. They are
	// asked for each new record and must be fast. A nil Member admits nobody.
	Member, Manager func(peer.ID) bool
	// Linked says whether two neighbours have a link with each other, by their link
	// records. A nil one knows of none. It is asked for each new record of a Lean domain.
	Linked func(a, b peer.ID) bool
}

// Spec is what a domain's owner wants of it.
type Spec struct {
	Domain p2pnode.Domain
	// TTL is the longest time that a record lives, whatever its signer says, and
	// what it lives if the signer says nothing. 0: no end but a newer one.
	TTL time.Duration
	// Urgent records go out at once instead of with the next heartbeat.
	Urgent bool
	// Lean records are not passed on to who has a link with the sender: he has them
	// from there. In a full mesh of n a record then crosses n-1 links instead of all
	// of them twice; what is lost on its one way comes by anti-entropy. For what is
	// said often and may come late.
	Lean bool
	// AntiEntropy includes the domain in digests. Short-lived ones do without.
	AntiEntropy bool
	// ManagersOnly refuses signers that are no managers; with Admit, Admit decides on
	// what others signed.
	ManagersOnly bool
	// MaxKeys per signer and MaxTotal records; 0: the defaults in limits.go.
	MaxKeys, MaxTotal int
	// Admit, if set, replaces Config.Member: a domain whose body proves who the
	// signer is (a certificate) decides by that. ErrManager says why.
	Admit func(p2pnode.Record) error
}

// Verdict is what became of a record that came in.
type Verdict uint8

// The verdicts of Take.
const (
	Refused Verdict = iota // Reason says why
	Stale                  // known, or older than what is known
	Fresh                  // kept and queued to all other links
	Refuted                // this node's own key signed it, but not this life; Sweep answers with a newer one
)

// Result is Take's answer.
type Result struct {
	Verdict Verdict
	Reason  string         // of Refused, kebab-case, also the name of its counter
	Record  p2pnode.Record // of Fresh and Refuted
	// Conflict: another record with the same number was known. One key is in use
	// twice, or its holder lies.
	Conflict bool
}

// Reasons for a refusal, and counters.
const (
	ReasonDomain   = "unknown-domain"
	ReasonSize     = "too-big"
	ReasonForged   = "forged"
	ReasonDamaged  = "damaged"
	ReasonStranger = "not-a-member"
	ReasonManager  = "not-a-manager"
	ReasonRate     = "rate"
	ReasonFull     = "full"
	// CountDropped counts records that fell out of a link's full queue.
	CountDropped = "queue-dropped"
	// CountConflict counts Conflict.
	CountConflict = "conflict"
)

// Errors of Publish.
var (
	ErrDomain  = errors.New("no such record domain")
	ErrSize    = errors.New("record too big")
	ErrManager = errors.New("only a manager may publish this")
)
