package node

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/exec"
)

// Logs of other hosts, read by a manager. One routed call hands his order over, see
// exec.LogRead; then he fetches piece after piece by number. A piece may be asked for
// again, so nothing is lost where a call was; who stops asking is not waited for. What
// the pieces hold is sealed: this process, and those on the way, only carry it.

const (
	routedLogs  = "act-logs"
	routedLines = "act-lines"

	maxReadings = 8                      // that are open at once
	readingIdle = 10 * time.Second       // an answer that nobody asks for ends
	linesWait   = 300 * time.Millisecond // for the next piece; a routed call is answered within a second
	linesLost   = 5 * time.Second        // a way that fails is tried again this long
	linesAgain  = 200 * time.Millisecond // ... so often
	maxAnswer   = 4 << 20                // bytes of the past that are taken of one host, whatever it sends
)

// lastPiece is asked for by who wants no more.
const lastPiece = math.MaxUint64

// signedLogs is the part of exec that lets managers read.
type signedLogs interface {
	SignedLogs(ctx context.Context, envelope []byte) (<-chan exec.SealedLog, error)
}

// piece answers for one number.
type piece struct {
	Piece *exec.SealedLog `json:"piece,omitempty"` // nil: not there yet, or Over
	Over  bool            `json:"over,omitempty"`  // there are no more
	Error *p2pnode.Error  `json:"error,omitempty"` // why there is none
}

// readings are the answers that are being fetched, by the hash of their orders.
type readings struct {
	mu   sync.Mutex
	open map[[32]byte]*reading
}

// reading is one of them. Asked for from one goroutine at a time.
type reading struct {
	pieces <-chan exec.SealedLog
	end    context.CancelFunc
	idle   *time.Timer

	mu   sync.Mutex
	n    uint64 // of last
	last piece
}

// takeReading begins to read, once however often the order comes.
func (n *Node) takeReading(_ context.Context, _ peer.ID, raw []byte) ([]byte, error) {
	x, ok := n.exec.(signedLogs)
	if !ok {
		return nil, errors.New("this host's exec lets nobody read from afar")
	}
	key := sha256.Sum256(raw)
	n.orders.mu.Lock()
	run := n.orders.ctx
	n.orders.mu.Unlock()
	if run == nil {
		return nil, errStarting
	}
	rs := &n.readings
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.open[key] != nil {
		return json.Marshal(piece{})
	}
	if len(raw) > maxOrder || len(rs.open) >= maxReadings {
		return json.Marshal(piece{Error: &p2pnode.Error{Code: "busy", Text: errBusy.Error(), Fix: "try again in some seconds"}})
	}
	ctx, cancel := context.WithCancel(run)
	slow := time.AfterFunc(linesLost, cancel)
	pieces, err := x.SignedLogs(ctx, raw)
	slow.Stop()
	if err != nil {
		cancel()
		return json.Marshal(piece{Error: told(err)})
	}
	rd := &reading{pieces: pieces, end: cancel}
	rd.idle = time.AfterFunc(readingIdle, cancel)
	if rs.open == nil {
		rs.open = map[[32]byte]*reading{}
	}
	rs.open[key] = rd
	context.AfterFunc(ctx, func() {
		rs.mu.Lock()
		defer rs.mu.Unlock()
		delete(rs.open, key)
	})
	return json.Marshal(piece{})
}

// tellLines hands out the piece whose number is asked for: the last one again, or the
// next one.
func (n *Node) tellLines(ctx context.Context, _ peer.ID, raw []byte) ([]byte, error) {
	if len(raw) != sha256.Size+8 {
		return nil, errors.New("no piece of a log")
	}
	number := binary.BigEndian.Uint64(raw[sha256.Size:])
	n.readings.mu.Lock()
	rd := n.readings.open[[32]byte(raw[:sha256.Size])]
	n.readings.mu.Unlock()
	switch {
	case rd == nil:
		return json.Marshal(piece{Over: true})
	case number == lastPiece:
		rd.end()
		return json.Marshal(piece{Over: true})
	}
	return json.Marshal(rd.ask(ctx, number))
}

func (rd *reading) ask(ctx context.Context, number uint64) piece {
	rd.mu.Lock()
	defer rd.mu.Unlock()
	rd.idle.Reset(readingIdle)
	switch number {
	case rd.n:
		return rd.last
	case rd.n + 1:
	default:
		return piece{Over: true}
	}
	wait := time.NewTimer(linesWait)
	defer wait.Stop()
	select {
	case p, ok := <-rd.pieces:
		rd.n, rd.last = number, piece{Piece: &p}
		if !ok {
			rd.last = piece{Over: true} // the last answer stays there to be asked for again
		}
		return rd.last
	case <-wait.C:
	case <-ctx.Done():
	}
	return piece{}
}

// Logs implements manage.Remote.
func (r remote) Logs(ctx context.Context, host peer.ID, target string, read exec.LogRead, f func(exec.LogLine) error) error {
	o := r.n.overlay
	key, err := exec.NewLogKey()
	if err != nil {
		return err
	}
	read.Key = key.Public()
	challenge, _, err := o.Route(ctx, host, routedChallenge, nil)
	if err != nil {
		return err
	}
	order, err := exec.SignAct(o.Key(), exec.Act{Host: host.String(), Challenge: challenge, Verb: "logs", Target: target, Read: &read, Chain: r.n.chain()})
	if err != nil {
		return err
	}
	if p, err := r.piece(ctx, host, routedLogs, order); err != nil {
		return err
	} else if p.Error != nil {
		return p.Error
	}
	hash := sha256.Sum256(order)
	number := func(i uint64) []byte { return binary.BigEndian.AppendUint64(hash[:len(hash):len(hash)], i) }
	defer func() {
		bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		r.piece(bye, host, routedLines, number(lastPiece))
	}()
	good, room := time.Now(), maxAnswer
	for i := uint64(1); ; {
		p, err := r.piece(ctx, host, routedLines, number(i))
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && time.Since(good) > linesLost:
			return fmt.Errorf("the way there was lost: %w", err)
		case err != nil:
			select {
			case <-ctx.Done():
			case <-time.After(linesAgain):
			}
			continue
		case p.Over:
			return errors.New("its answer ended early: p2pnode was started anew there, or nobody asked for too long")
		}
		good = time.Now()
		if p.Piece == nil {
			continue
		}
		i++
		b, err := key.Open(host, order, *p.Piece)
		if err != nil {
			return err
		}
		for _, l := range b.Lines {
			l.Service, l.Text = visible(l.Service), visible(l.Text)
			if room -= len(l.Text); room < 0 && !read.Follow {
				return errors.New("it answers with more than was asked for")
			}
			if err := f(l); err != nil {
				return err
			}
		}
		switch {
		case b.Error != nil:
			return b.Error
		case b.Done:
			return nil
		}
	}
}

// visible is text of another host as a terminal may show it: without what moves the
// cursor or changes colours.
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\t' {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

func (r remote) piece(ctx context.Context, host peer.ID, kind string, req []byte) (p piece, err error) {
	answer, _, err := r.n.overlay.Route(ctx, host, kind, req)
	if err == nil {
		err = json.Unmarshal(answer, &p)
	}
	if p.Error != nil {
		p.Error.Text, p.Error.Fix = visible(p.Error.Text), visible(p.Error.Fix)
	}
	return p, err
}
