package store

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/libp2p/go-libp2p/core/peer"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"p2pnode"
	"p2pnode/store/storepb"
)

//go:generate protoc --go_out=. --go_opt=paths=source_relative storepb/store.proto

// A signed report is an envelope of this domain around a version byte and a
// storepb.Report.
const (
	reportDomain = "report"
	wireVersion  = 1
)

var errWire = errors.New("damaged message")

// decoded is a verified report with its excerpt still sealed.
type decoded struct {
	report   p2pnode.Report
	sealed   []byte
	sealedTo readerID
}

// encodeReport signs r, whose identity is complete and which fits, with its sealed
// excerpt.
func encodeReport(key ed25519.PrivateKey, r p2pnode.Report, seal *sealKey) ([]byte, error) {
	sealed, err := sealExcerpt(r, seal)
	if err != nil {
		return nil, err
	}
	m := &storepb.Report{Sealed: sealed}
	if len(sealed) > 0 {
		m.SealedTo = []byte(seal.id)
	}
	r.Excerpt = nil
	if m.Body, err = json.Marshal(r); err != nil {
		return nil, err
	}
	raw, err := frame(m)
	if err != nil {
		return nil, err
	}
	out := p2pnode.Seal(reportDomain, key, raw)
	if len(out) > maxReport {
		return nil, fmt.Errorf("report of %d bytes, at most %d are kept", len(out), maxReport)
	}
	return out, nil
}

// decodeReport verifies one signed report: its signature, that its origin is who
// signed, and its limits.
func decodeReport(raw []byte) (decoded, line, error) {
	if len(raw) > maxReport {
		return decoded{}, line{}, fmt.Errorf("%w: a report of %d bytes", errWire, len(raw))
	}
	env, err := p2pnode.Open(reportDomain, raw)
	if err != nil {
		return decoded{}, line{}, err
	}
	var m storepb.Report
	if err := unframe(env.Payload, &m); err != nil {
		return decoded{}, line{}, err
	}
	d := decoded{sealed: m.GetSealed(), sealedTo: readerID(m.GetSealedTo())}
	if err := json.Unmarshal(m.GetBody(), &d.report); err != nil {
		return decoded{}, line{}, fmt.Errorf("%w: %v", errWire, err)
	}
	d.report.Excerpt = nil
	if d.report.Origin != env.Signer.String() {
		return decoded{}, line{}, fmt.Errorf("%w: signed by another than its origin", errWire)
	}
	return d, line{env.Signer, d.report.Epoch}, check(d.report)
}

// frame puts the version byte ahead of a message.
func frame(m proto.Message) ([]byte, error) {
	return proto.MarshalOptions{}.MarshalAppend([]byte{wireVersion}, m)
}

func unframe(raw []byte, m proto.Message) error {
	if len(raw) == 0 || raw[0] != wireVersion {
		return fmt.Errorf("%w: unknown version", errWire)
	}
	if err := proto.Unmarshal(raw[1:], m); err != nil {
		return fmt.Errorf("%w: %v", errWire, err)
	}
	return nil
}

// fields counts the fields of a message with number n, before it is decoded: an
// element costs more in memory than the two bytes that it takes on the wire.
func fields(raw []byte, n protowire.Number) (count int) {
	for raw = raw[min(1, len(raw)):]; len(raw) > 0; {
		num, typ, head := protowire.ConsumeTag(raw)
		if head < 0 {
			return count
		}
		body := protowire.ConsumeFieldValue(num, typ, raw[head:])
		if body < 0 {
			return count
		}
		if num == n {
			count++
		}
		raw = raw[head+body:]
	}
	return count
}

// pull is a decoded question.
type pull struct {
	theirs      index            // numbers that they know, as here
	papers      map[peer.ID]bool // true: they hold the certificates
	digest      []byte           // alone: are we the same?
	first, upto []byte           // bounds of the lines that are asked about
	most        int
}

func (p *pull) covers(l line) bool {
	k := lineKey(l)
	return bytes.Compare(k, p.first) >= 0 && (len(p.upto) == 0 || bytes.Compare(k, p.upto) <= 0)
}

// decodePull reads a question.
func decodePull(raw []byte) (*pull, error) {
	if len(raw) > maxQuestion+1<<10 {
		return nil, fmt.Errorf("%w: a question of %d bytes", errWire, len(raw))
	}
	if n := fields(raw, 1); n > maxLines {
		return nil, fmt.Errorf("%w: %d lines", errWire, n)
	}
	var m storepb.Pull
	if err := unframe(raw, &m); err != nil {
		return nil, err
	}
	p := &pull{theirs: index{}, papers: map[peer.ID]bool{}, digest: m.GetDigest(), first: m.GetFirst(), upto: m.GetUpto(), most: maxBatch}
	if n := int(m.GetMost()); n > 0 && n < maxBatch {
		p.most = n
	}
	for _, have := range m.GetHave() {
		known, ok := decodeSpans(have.GetSpans(), maxSpans)
		if !ok {
			return nil, fmt.Errorf("%w: no set of numbers", errWire)
		}
		l := line{peer.ID(have.GetOrigin()), have.GetEpoch()}
		p.theirs[l] = &held{here: known}
		if have.GetPapers() {
			p.papers[l.origin] = true
		}
	}
	return p, nil
}

// batch is a decoded answer.
type batch struct {
	reports    [][]byte
	more, same bool
	papers     [][][]byte
}

func encodeBatch(b batch) ([]byte, error) {
	m := &storepb.Batch{Reports: b.reports, More: b.more, Same: b.same}
	for _, chain := range b.papers {
		m.Papers = append(m.Papers, &storepb.Papers{Chain: chain})
	}
	return frame(m)
}

func decodeBatch(raw []byte) (batch, error) {
	if len(raw) > 4<<20 {
		return batch{}, fmt.Errorf("%w: a batch of %d bytes", errWire, len(raw))
	}
	if n := fields(raw, 1); n > maxBatch/minReport {
		return batch{}, fmt.Errorf("%w: %d reports", errWire, n)
	}
	if n := fields(raw, 4); n > maxLines {
		return batch{}, fmt.Errorf("%w: papers of %d origins", errWire, n)
	}
	var m storepb.Batch
	if err := unframe(raw, &m); err != nil {
		return batch{}, err
	}
	b := batch{reports: m.GetReports(), more: m.GetMore(), same: m.GetSame()}
	for _, p := range m.GetPapers() {
		b.papers = append(b.papers, p.GetChain())
	}
	return b, nil
}

func encodePapers(chain [][]byte) ([]byte, error) { return frame(&storepb.Papers{Chain: chain}) }

func decodePapers(raw []byte) ([][]byte, error) {
	if len(raw) > maxChain {
		return nil, fmt.Errorf("%w: papers of %d bytes", errWire, len(raw))
	}
	var m storepb.Papers
	if err := unframe(raw, &m); err != nil {
		return nil, err
	}
	return m.GetChain(), nil
}

// Head is an origin's own word on its reports.
type Head struct {
	Epoch                 string
	Count, Highest, Floor uint64
}

func encodeHead(h Head) ([]byte, error) {
	return frame(&storepb.Head{Epoch: h.Epoch, Count: h.Count, Highest: h.Highest, Floor: h.Floor})
}

func decodeHead(raw []byte) (Head, error) {
	var m storepb.Head
	if err := unframe(raw, &m); err != nil {
		return Head{}, err
	}
	h := Head{m.GetEpoch(), m.GetCount(), m.GetHighest(), max(1, m.GetFloor())}
	if h.Highest > maxSeq || h.Epoch == "" || len(h.Epoch) > maxEpoch {
		return Head{}, fmt.Errorf("%w: a head beyond all numbers", errWire)
	}
	return h, nil
}
