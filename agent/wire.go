package agent

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"p2pnode"
	"p2pnode/agent/agentpb"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/proto"
)

//go:generate protoc --go_out=agentpb --go_opt=paths=source_relative -I agentpb agentpb/agent.proto

// wireVersion is the byte ahead of every message.
const wireVersion = 1

// refused is why bytes from outside were not taken; it is also the label under
// which they are counted.
type refused string

func (r refused) Error() string { return "refused: " + string(r) }

const (
	refusedEmpty   refused = "empty"
	refusedTooLong refused = "too-long"
	refusedVersion refused = "version"
	refusedDamaged refused = "damaged"
	refusedLimits  refused = "limits"
	refusedFull    refused = "full"
	refusedExpired refused = "expired"
	refusedTrail   refused = "forged-trail"
	refusedTarget  refused = "unknown-target"
	refusedOrder   refused = "unknown-order"
	refusedFlood   refused = "flood"
)

func encode(m proto.Message, limit int) ([]byte, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.MarshalAppend([]byte{wireVersion}, m)
	if err != nil {
		return nil, err
	}
	if len(b) > limit {
		return nil, fmt.Errorf("agent: message of %d bytes, at most %d", len(b), limit)
	}
	return b, nil
}

func decode(raw []byte, limit int, m proto.Message) error {
	switch {
	case len(raw) == 0:
		return refusedEmpty
	case len(raw) > limit:
		return refusedTooLong
	case raw[0] != wireVersion:
		return refusedVersion
	}
	if proto.Unmarshal(raw[1:], m) != nil {
		return refusedDamaged
	}
	return nil
}

func shortStrings(ss ...string) bool {
	return !slices.ContainsFunc(ss, func(s string) bool { return len(s) > maxID })
}

// validPeer takes Ed25519 IDs only: nothing else can be a member.
func validPeer(b []byte) bool {
	_, ok := p2pnode.PublicKey(peer.ID(b))
	return ok
}

func validPeerOrNone(b []byte) bool { return len(b) == 0 || validPeer(b) }

func validPeers(list [][]byte, most int) bool {
	return len(list) <= most && !slices.ContainsFunc(list, func(b []byte) bool { return !validPeer(b) })
}

func toIDs(list [][]byte) []peer.ID {
	var out []peer.ID
	for _, b := range list {
		out = append(out, peer.ID(b))
	}
	return out
}

func fromIDs(list []peer.ID) [][]byte {
	var out [][]byte
	for _, id := range list {
		out = append(out, []byte(id))
	}
	return out
}

// span reads a relative time that a peer sent: never negative, never over most.
func span(n int64, unit, most time.Duration) time.Duration {
	if n <= 0 {
		return 0
	}
	if n > int64(most/unit) {
		return most
	}
	return time.Duration(n) * unit
}

const longAgo = 24 * time.Hour

func encodeTraveller(now time.Time, t *traveller) ([]byte, error) {
	m := &agentpb.Traveller{
		Id: t.id, Order: t.order, Hop: t.hop, HopsLeft: uint32(t.hopsLeft),
		TtlMs: t.expires.Sub(now).Milliseconds(), SloMs: t.slo.Milliseconds(),
		AgeMs: now.Sub(t.born).Milliseconds(), Visited: uint32(t.visited), Goal: []byte(t.goal),
	}
	for _, k := range t.marks {
		m.Marks = append(m.Marks, &agentpb.Mark{Node: []byte(k.node), AgeMs: now.Sub(k.at).Milliseconds()})
	}
	if s := t.mission; s != nil {
		m.Mission = &agentpb.Mission{
			Target: []byte(s.target), Service: s.service, Failed: s.failed, Class: string(s.class),
			Attempt: uint32(s.attempt), Hops: uint32(s.hops), Trail: fromIDs(s.trail), VerifyOnly: s.verifyOnly,
			KnownUs: now.Sub(s.knownAt).Microseconds(), ClaimedUs: now.Sub(s.claimedAt).Microseconds(),
			Avoid: fromIDs(s.avoid),
		}
	}
	return encode(m, maxTravellerBytes)
}

func decodeTraveller(now time.Time, raw []byte) (*traveller, error) {
	var m agentpb.Traveller
	if err := decode(raw, maxTravellerBytes, &m); err != nil {
		return nil, err
	}
	if m.Id == "" || !shortStrings(m.Id, m.Order) || len(m.Marks) > maxMarks || (len(m.Goal) > 0 && !validPeer(m.Goal)) {
		return nil, refusedLimits
	}
	if m.TtlMs <= 0 || m.HopsLeft > missionHops {
		return nil, refusedExpired
	}
	t := &traveller{
		id: m.Id, order: m.Order, hop: m.Hop, hopsLeft: int(m.HopsLeft),
		expires: now.Add(span(m.TtlMs, time.Millisecond, patrolTTL)),
		slo:     span(m.SloMs, time.Millisecond, longAgo),
		born:    now.Add(-span(m.AgeMs, time.Millisecond, 365*longAgo)),
		visited: int(m.Visited), goal: peer.ID(m.Goal),
	}
	for _, k := range m.Marks {
		if !validPeer(k.Node) {
			return nil, refusedLimits
		}
		t.marks = append(t.marks, mark{peer.ID(k.Node), now.Add(-span(k.AgeMs, time.Millisecond, longAgo))})
	}
	if m.Mission == nil {
		return t, nil
	}
	var err error
	t.mission, err = missionOf(now, m.Mission)
	return t, err
}

func missionOf(now time.Time, m *agentpb.Mission) (*mission, error) {
	if !validPeer(m.Target) || m.Failed == "" || !shortStrings(m.Service, m.Failed, m.Class) ||
		!validPeers(m.Trail, maxTrail) || !validPeers(m.Avoid, maxAvoid) || m.Hops > missionHops || m.Attempt > maxAttempt {
		return nil, refusedLimits
	}
	return &mission{
		failure: failureOf(peer.ID(m.Target), m.Service, m.Failed, p2pnode.Class(m.Class)),
		attempt: int(m.Attempt), hops: int(m.Hops), trail: toIDs(m.Trail), verifyOnly: m.VerifyOnly,
		knownAt:   now.Add(-span(m.KnownUs, time.Microsecond, longAgo)),
		claimedAt: now.Add(-span(m.ClaimedUs, time.Microsecond, longAgo)),
		avoid:     toIDs(m.Avoid),
	}, nil
}

// maxAttempt bounds what a forged claim can push an incident to.
const maxAttempt = 1 << 16

func encodeAck(reason refused) []byte {
	b, err := encode(&agentpb.Ack{Ok: reason == "", Reason: string(reason)}, maxAckBytes)
	if err != nil {
		panic("agent: an ack that is too long: " + err.Error())
	}
	return b
}

// decodeAck is nil for a yes.
func decodeAck(raw []byte) error {
	var m agentpb.Ack
	if err := decode(raw, maxAckBytes, &m); err != nil {
		return err
	}
	if !m.Ok {
		return refused(m.Reason)
	}
	return nil
}

// stamp is a visited node's word on its last visit and on who is there.
type stamp struct {
	at     time.Time
	agents []present
	needs  []need // how many agents orders need, as the node measures it
}

type need struct {
	order  string
	agents int
}

type present struct {
	id, kind, order, incident string
	hop                       uint64
	visited                   int
	born                      time.Time
	next                      peer.ID
	why
}

// encodeStamp leaves out agents that do not fit: their names may come from peers.
func encodeStamp(now time.Time, s stamp) ([]byte, error) {
	m := &agentpb.Stamp{AtMs: s.at.UnixMilli()}
	for _, n := range s.needs {
		m.Needs = append(m.Needs, &agentpb.Need{Order: n.order, Agents: uint32(n.agents)})
	}
	for _, p := range s.agents[:min(len(s.agents), maxPresent)] {
		one := &agentpb.Present{
			Id: p.id, Kind: p.kind, Hop: p.hop, Visited: uint32(p.visited), AgeMs: now.Sub(p.born).Milliseconds(),
			Next: []byte(p.next), Order: p.order, Incident: p.incident,
			Doing: string(p.doing), Target: []byte(p.target), Service: p.service, UnseenMs: p.unseen.Milliseconds(),
		}
		if !p.since.IsZero() {
			one.DoingMs = now.Sub(p.since).Milliseconds()
		}
		if m.Agents = append(m.Agents, one); proto.Size(m) >= maxStampBytes {
			m.Agents = m.Agents[:len(m.Agents)-1]
			break
		}
	}
	return encode(m, maxStampBytes)
}

func decodeStamp(now time.Time, raw []byte) (stamp, error) {
	var m agentpb.Stamp
	if err := decode(raw, maxStampBytes, &m); err != nil {
		return stamp{}, err
	}
	if len(m.Agents) > maxPresent || len(m.Needs) > maxOrders {
		return stamp{}, refusedLimits
	}
	s := stamp{}
	if m.AtMs > 0 {
		s.at = time.UnixMilli(m.AtMs)
	}
	for _, n := range m.Needs {
		if n.Order == "" || !shortStrings(n.Order) || n.Agents > maxPopulation {
			return stamp{}, refusedLimits
		}
		s.needs = append(s.needs, need{n.Order, int(n.Agents)})
	}
	for _, p := range m.Agents {
		if p.Id == "" || !shortStrings(p.Id, p.Kind, p.Order, p.Incident, p.Doing, p.Service) || !validPeerOrNone(p.Next) || !validPeerOrNone(p.Target) {
			return stamp{}, refusedLimits
		}
		one := present{
			id: p.Id, kind: p.Kind, order: p.Order, incident: p.Incident, hop: p.Hop, visited: int(p.Visited),
			born: now.Add(-span(p.AgeMs, time.Millisecond, 365*longAgo)), next: peer.ID(p.Next),
			why: why{doing: Doing(p.Doing), target: peer.ID(p.Target), service: p.Service, unseen: span(p.UnseenMs, time.Millisecond, longAgo)},
		}
		if p.Doing != "" {
			one.since = now.Add(-span(p.DoingMs, time.Millisecond, longAgo))
		}
		s.agents = append(s.agents, one)
	}
	return s, nil
}

func encodeClaim(c claim) ([]byte, error) {
	return encode(&agentpb.Claim{
		Target: []byte(c.target), Service: c.service, Failed: c.failed, Class: string(c.class),
		Attempt: uint32(c.attempt), Agent: c.agent, Phase: string(c.phase), LeaseMs: c.lease.Milliseconds(),
	}, maxClaimBytes)
}

func decodeClaim(raw []byte) (claim, error) {
	var m agentpb.Claim
	if err := decode(raw, maxClaimBytes, &m); err != nil {
		return claim{}, err
	}
	if !validPeer(m.Target) || m.Failed == "" || m.Agent == "" || m.Attempt > maxAttempt ||
		!shortStrings(m.Service, m.Failed, m.Class, m.Agent, m.Phase) {
		return claim{}, refusedLimits
	}
	return claim{
		failure: failureOf(peer.ID(m.Target), m.Service, m.Failed, p2pnode.Class(m.Class)),
		attempt: int(m.Attempt), agent: m.Agent, phase: claimPhase(m.Phase),
		lease: span(m.LeaseMs, time.Millisecond, maxLease),
	}, nil
}

// Order is a standing order: the population of agents that a manager wants.
type Order struct {
	ID         string
	SLO        time.Duration     // no node goes unvisited for longer
	Confidence float64           // that it holds although agents are lost; 0 < c < 1
	Labels     map[string]string // only members with all of these; empty: all
	By         peer.ID           // who signed it
	At         time.Time
	Recalled   bool
	Chain      [][]byte // certificates of who signed it, DER

	// As this node measures it, not on the wire.
	Agents       int           // asked for now
	WorstGap     time.Duration // the longest that a node waits for its next visit now
	WorstHour    time.Duration // the longest gap of the last hour
	Visits, Late uint64        // visits since this node knows the order, and those that came later than SLO
}

// EncodeOrder is the body of an order's record, checked against the limits.
func EncodeOrder(o Order) ([]byte, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	return encode(&agentpb.Order{
		Id: o.ID, SloMs: o.SLO.Milliseconds(), Confidence: o.Confidence, Labels: o.Labels,
		Recalled: o.Recalled, AtMs: o.At.UnixMilli(), Chain: o.Chain,
	}, maxOrderBytes)
}

// OrderProof is the chain of certificates inside an order's body, and when the order
// says that it was given. An order outlives its manager, and what others know of
// him: it proves itself.
func OrderProof(body []byte) (chain [][]byte, at time.Time) {
	var m agentpb.Order
	if decode(body, maxOrderBytes, &m) != nil {
		return nil, time.Time{}
	}
	return m.Chain, time.UnixMilli(m.AtMs)
}

func (o Order) validate() error {
	switch {
	case o.ID == "" || len(o.ID) > maxID:
		return errors.New("agent: an order needs an ID")
	case o.Recalled:
		return nil
	case o.SLO < time.Second || o.SLO > longAgo:
		return &p2pnode.Error{Code: "bad-slo", Text: fmt.Sprintf("cannot launch agents with a service level of %s", o.SLO), Fix: "choose one from 1s to 24h, e.g. --slo 15s", Exit: p2pnode.ExitUsage}
	case !(o.Confidence > 0 && o.Confidence < 1):
		return &p2pnode.Error{Code: "bad-confidence", Text: fmt.Sprintf("cannot launch agents with a confidence of %v", o.Confidence), Fix: "choose one between 0 and 1, e.g. --confidence 0.99", Exit: p2pnode.ExitUsage}
	case len(o.Labels) > maxLabels:
		return &p2pnode.Error{Code: "too-many-labels", Text: "cannot launch agents on more than 16 labels", Fix: "name fewer", Exit: p2pnode.ExitUsage}
	}
	for k, v := range o.Labels {
		if !shortStrings(k, v) {
			return &p2pnode.Error{Code: "label-too-long", Text: "a label is longer than 64 bytes", Fix: "shorten it", Exit: p2pnode.ExitUsage}
		}
	}
	return nil
}

func decodeOrder(raw []byte) (Order, error) {
	var m agentpb.Order
	if err := decode(raw, maxOrderBytes, &m); err != nil {
		return Order{}, err
	}
	o := Order{
		ID: m.Id, SLO: span(m.SloMs, time.Millisecond, longAgo), Confidence: m.Confidence,
		Labels: maps.Clone(m.Labels), Recalled: m.Recalled, At: time.UnixMilli(m.AtMs).UTC(),
	}
	if o.validate() != nil {
		return Order{}, refusedLimits
	}
	return o, nil
}
