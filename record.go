package p2pnode

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Domain is a kind of signed record. Each has one owner that encodes and reads
// its body; the overlay spreads all of them without looking inside.
type Domain string

// The domains.
const (
	DomainPeer        Domain = "peer"        // overlay: addresses, door, life, labels, role, certificate
	DomainLink        Domain = "link"        // overlay: neighbours with an RTT class
	DomainObservation Domain = "observation" // gossip: a first-hand suspicion, or an end of one
	DomainStamp       Domain = "stamp"       // agent: signed by the visited node: who is here, last visit
	DomainClaim       Domain = "claim"       // agent: "I go", lapses
	DomainOrder       Domain = "order"       // agent: standing order, manager only
	DomainHead        Domain = "head"        // store: report heads {epoch, count, highest, floor}
	DomainRevoked     Domain = "revoked"     // overlay: a key that is refused for good, manager only
	DomainDemoted     Domain = "demoted"     // overlay: a manager's certificate that makes only a worker, manager only
	DomainReader      Domain = "reader"      // overlay: the key that excerpts are sealed to, manager only
	DomainAdmission   Domain = "admission"   // overlay: the door is open, who waits, who may come in; manager only
	DomainLeave       Domain = "leave"       // overlay: "I left"
	DomainGossipKey   Domain = "gossip-key"  // overlay: which key seals gossip from now on, manager only
	DomainForgotten   Domain = "forgotten"   // overlay: a node that is not expected back, manager only
)

// Record is a verified signed record: its signature matched and its signer held
// a certificate of the cluster when it was taken in. Of (Domain, Signer, Key)
// only the highest Seq counts.
type Record struct {
	Domain  Domain
	Signer  peer.ID
	Key     string    // "" where a signer has one record of the domain
	Seq     uint64    // rises with each publication
	Expires time.Time // on the receiver's clock: time of arrival plus the record's TTL; zero: never
	Body    []byte    // the owner's protobuf, at most 16 KiB
}
