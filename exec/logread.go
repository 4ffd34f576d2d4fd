package exec

import (
	"context"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"p2pnode"
	"p2pnode/exec/logs"

	"github.com/libp2p/go-libp2p/core/peer"
)

// The logs of this host, read by a manager on another one. What leaves the host is
// masked as an excerpt is, and only then searched: a pattern must not find out what the
// mask hides. It is sealed to a key that the manager made for this one request and put
// into what he signed, since the way to him leads over members that may read no log
// (logseal.go).

const verbLogs = "logs"

// LogRead is which lines a manager asks for.
type LogRead struct {
	Lines  int           `json:"lines"`            // newest so many of each service; <= 0: none of the past
	Within time.Duration `json:"within,omitempty"` // not older than this; 0: whatever their age. Hosts share no clock
	Grep   string        `json:"grep,omitempty"`   // of what was masked
	Follow bool          `json:"follow,omitempty"`
	Key    []byte        `json:"key"` // X25519: what the answer is sealed to
}

// reads are those under way, and how many more may begin.
type reads struct {
	mu    sync.Mutex
	open  int
	spare float64
	at    time.Time // when spare was right
	past  sync.Mutex
}

// enter counts a reader in, or says that there are too many.
func (rs *reads) enter(now time.Time) error {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.spare = min(readsBurst, rs.spare+float64(now.Sub(rs.at))/float64(readsEvery))
	rs.at = now
	if rs.open >= maxReads || rs.spare < 1 {
		return &p2pnode.Error{Code: "busy", Text: "its logs are read by too many at once", Fix: "end another logs -f, or try again in some seconds"}
	}
	rs.open++
	rs.spare--
	return nil
}

func (rs *reads) leave() {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	rs.open--
}

// signedLogs answers a manager's order to read logs, until the last line or, where he
// follows them, until the node process hangs up or he is a manager no longer.
func (ss *session) signedLogs(m message) {
	refuse := func(err error) { ss.conn.write(message{ID: m.ID, Error: asError(err)}) }
	if err := ss.only(RoleNode); err != nil {
		refuse(err)
		return
	}
	b, err := decode[signedBody](m.Body)
	if err != nil {
		refuse(err)
		return
	}
	signer, act, err := readAct(b.Envelope, verbLogs)
	if err == nil && act.Read == nil {
		err = &p2pnode.Error{Code: "bad-request", Text: "a signed order that does not say which lines", Exit: p2pnode.ExitUsage}
	}
	if err != nil {
		refuse(err)
		return
	}
	err = ss.r.mayAct(signer, act)
	may := err == nil
	var rd *logReading
	if may {
		rd, err = ss.newReading(b.Envelope, signer, act)
	}
	e := AuditEntry{Verb: verbLogs, Target: act.Target, Caller: signer.String(), With: act.Read.described()}
	outcomeOf(&e, nil, err)
	ss.r.metrics.read(e.Outcome)
	if may || asError(err).Code == notTrusted { // see signed
		ss.note(e)
	}
	if err != nil {
		refuse(err)
		return
	}
	defer ss.r.reads.leave()
	if ss.conn.write(message{ID: m.ID}) == nil && ss.conn.write(message{ID: m.ID, Body: body(SealedLog{Head: rd.head}), More: true}) == nil {
		rd.run(m.ID)
	}
	ss.conn.close()
}

func (q *LogRead) described() map[string]any {
	with := map[string]any{"lines": q.Lines}
	if q.Within > 0 {
		with["within"] = q.Within.String()
	}
	if q.Grep != "" {
		with["grep"] = cut(q.Grep)
	}
	if q.Follow {
		with["follow"] = true
	}
	return with
}

// logReading is one such answer.
type logReading struct {
	ss      *session
	signer  peer.ID
	chain   [][]byte
	query   LogRead
	since   time.Time
	grep    *regexp.Regexp
	sources map[string]*logs.Log
	head    []byte
	seal    *logSealer
}

// newReading counts itself in; who got one calls leave.
func (ss *session) newReading(envelope []byte, signer peer.ID, act Act) (*logReading, error) {
	q := *act.Read
	rd := &logReading{ss: ss, signer: signer, chain: act.Chain, query: q}
	bad := func(why string) error {
		return &p2pnode.Error{Code: "bad-request", Text: "a request for logs that cannot be met: " + why, Exit: p2pnode.ExitUsage}
	}
	var err error
	if len(q.Grep) > maxReadGrep {
		return nil, bad(fmt.Sprintf("its pattern is longer than %d bytes", maxReadGrep))
	}
	if rd.grep, err = regexp.Compile(q.Grep); err != nil {
		return nil, bad(err.Error())
	}
	rd.query.Lines = min(q.Lines, maxReadLines)
	switch now := time.Now(); {
	case q.Lines <= 0:
		rd.since = now
	case q.Within > 0:
		rd.since = now.Add(-q.Within)
	}
	if rd.sources, err = ss.logSources([]string{act.Target}); err != nil {
		return nil, err
	}
	key, err := p2pnode.LoadKey(filepath.Join(ss.r.cfg.Dir, "node.key"))
	if err != nil {
		return nil, fmt.Errorf("this host's own key: %w", err)
	}
	if rd.seal, rd.head, err = sealLog(key, envelope, q.Key); err != nil {
		return nil, bad("the key that it is to be sealed to")
	}
	return rd, ss.r.reads.enter(time.Now())
}

// run sends the lines. It waits for the goroutines that read them.
func (rd *logReading) run(id uint64) {
	ctx, cancel := context.WithCancel(rd.ss.ctx)
	gone := rd.ss.untilClosed()
	lines := make(chan LogLine)
	var readers sync.WaitGroup
	defer readers.Wait()
	defer cancel()
	tell := func(l LogLine) bool {
		select {
		case lines <- l:
			return true
		case <-ctx.Done():
			return false
		}
	}
	if rd.query.Follow {
		for name, log := range rd.sources {
			readers.Go(func() { rd.follow(ctx, name, log, tell) })
		}
	} else {
		readers.Go(func() { rd.past(ctx, tell) })
	}
	over := make(chan struct{})
	go func() { readers.Wait(); close(over) }() // run waits for the same

	var look <-chan time.Time // the past is over soon
	if rd.query.Follow {
		tick := time.NewTicker(readLook)
		defer tick.Stop()
		look = tick.C
	}
	var batch LogBatch
	size := 0
	var due <-chan time.Time
	send := func() bool {
		sealed, err := rd.seal.batch(batch)
		ok := err == nil && rd.ss.conn.write(message{ID: id, Body: body(SealedLog{Sealed: sealed}), More: true}) == nil
		batch, size, due = LogBatch{}, 0, nil
		return ok
	}
	for {
		full := lines
		if size >= maxReadBatch && rd.query.Follow {
			full = nil // until it is due
		}
		select {
		case l := <-full:
			batch.Lines = append(batch.Lines, l)
			size += len(body(l))
			switch {
			case size >= maxReadBatch && !rd.query.Follow:
				if !send() {
					return
				}
			case due == nil:
				due = time.After(readBatch)
			}
		case <-due:
			if !send() {
				return
			}
		case <-over:
			batch.Done = true
			if send() {
				rd.ss.conn.write(message{ID: id})
			}
			return
		case <-look:
			papers, err := rd.ss.r.asManager(rd.signer, rd.chain)
			if err == nil {
				err = papers.trusted()
			}
			if err != nil {
				batch.Done, batch.Error = true, asError(err)
				send()
				return
			}
		case <-gone:
			return
		case <-rd.ss.r.gone:
			return
		}
	}
}

// follow tells lines as they are written, after those of the past.
func (rd *logReading) follow(ctx context.Context, name string, log *logs.Log, tell func(LogLine) bool) {
	if rd.query.Lines != 0 { // else nothing of the past is asked for
		if note := log.Untimed(rd.since); note != "" && !tell(LogLine{Service: name, Text: note, Note: true}) {
			return
		}
	}
	var mask logs.Masker
	log.Query(ctx, max(rd.query.Lines, 1), rd.since, true, func(at time.Time, text string) bool {
		text, _ = mask.Line(text)
		return !rd.grep.MatchString(text) || tell(LogLine{Service: name, At: at, Text: text})
	})
}

// past tells what has been written, in the bounds of one answer: one answer is made at
// a time, since a pattern is looked for in all of a file.
func (rd *logReading) past(ctx context.Context, tell func(LogLine) bool) {
	if rd.query.Lines <= 0 {
		return
	}
	for _, l := range rd.all(ctx) {
		if !tell(l) {
			return
		}
	}
}

func (rd *logReading) all(ctx context.Context) (kept []LogLine) {
	rd.ss.r.reads.past.Lock()
	defer rd.ss.r.reads.past.Unlock()
	for _, name := range slices.Sorted(maps.Keys(rd.sources)) {
		kept = append(kept, rd.newest(ctx, name, rd.sources[name])...)
	}
	return kept
}

// newest are the last lines of one service, as many as its share of an answer holds.
func (rd *logReading) newest(ctx context.Context, name string, log *logs.Log) []LogLine {
	ask := rd.query.Lines + 1 // one more goes through the mask: it may begin a key
	if rd.query.Grep != "" {
		ask = math.MaxInt32
	}
	var mask logs.Masker
	var kept []LogLine
	size, short := 0, false
	room := maxReadBytes / len(rd.sources)
	log.Query(ctx, ask, rd.since, false, func(at time.Time, text string) bool {
		text, _ = mask.Line(text)
		if !rd.grep.MatchString(text) {
			return ctx.Err() == nil
		}
		kept = append(kept, LogLine{Service: name, At: at, Text: text})
		size += len(text)
		for len(kept) > rd.query.Lines || size > room {
			short = short || len(kept) <= rd.query.Lines
			size -= len(kept[0].Text)
			kept = kept[1:]
		}
		return ctx.Err() == nil
	})
	if short && len(kept) > 0 {
		said := LogLine{Service: name, At: kept[0].At, Text: fmt.Sprintf("[older lines are left out: what another host answers has at most %d KiB]", maxReadBytes>>10)}
		kept = slices.Insert(kept, 0, said)
	}
	if note := log.Untimed(rd.since); note != "" {
		kept = slices.Insert(kept, 0, LogLine{Service: name, Text: note, Note: true})
	}
	return kept
}
