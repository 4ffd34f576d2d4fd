package exec

import (
	"context"
	"encoding/json"
	"regexp"
	"sync"
	"time"

	"p2pnode"
	"p2pnode/exec/logs"
)

// streams are the requests that take their connection for themselves.
var streams = map[string]func(*session, message){
	"events":      (*session).events,
	"logs":        (*session).logs,
	"signed-logs": (*session).signedLogs,
	"keeper":      (*session).keep,
}

// untilClosed returns a channel that closes when the client hangs up: nothing
// more is expected from it.
func (ss *session) untilClosed() <-chan struct{} {
	gone := make(chan struct{})
	ss.wg.Go(func() {
		defer close(gone)
		for {
			if _, _, err := ss.conn.read(); err != nil {
				return
			}
		}
	})
	return gone
}

func (ss *session) events(m message) {
	b, err := decode[eventsBody](m.Body)
	if err != nil {
		ss.conn.write(message{ID: m.ID, Error: asError(err)})
		return
	}
	past, ch := ss.r.feed.subscribe(b.After)
	defer ss.r.feed.unsubscribe(ch)
	if ss.conn.write(message{ID: m.ID}) != nil {
		return
	}
	gone := ss.untilClosed()
	for _, ev := range past {
		if ss.conn.write(message{ID: m.ID, Body: body(ev), More: true}) != nil {
			return
		}
	}
	for {
		select {
		case ev := <-ch:
			if ss.conn.write(message{ID: m.ID, Body: body(ev), More: true}) != nil {
				return
			}
		case <-gone:
			return
		case <-ss.r.gone:
			return
		}
	}
}

func (ss *session) logs(m message) {
	q, err := decode[LogQuery](m.Body)
	var sources map[string]*logs.Log
	var grep *regexp.Regexp
	if err == nil {
		if grep, err = regexp.Compile(q.Grep); err != nil {
			err = &p2pnode.Error{Code: "bad-request", Text: "logs that match " + quoted(q.Grep) + ": " + err.Error(), Exit: p2pnode.ExitUsage}
		}
	}
	if err == nil {
		sources, err = ss.logSources(q.Services)
	}
	if err != nil {
		ss.conn.write(message{ID: m.ID, Error: asError(err)})
		return
	}
	if ss.conn.write(message{ID: m.ID}) != nil {
		return
	}
	// One at a time: many that look through large logs would keep the loop from its core.
	matches := func(line string) bool {
		if q.Grep == "" {
			return true
		}
		ss.r.grepping.Lock()
		defer ss.r.grepping.Unlock()
		return grep.MatchString(line)
	}
	gone := ss.untilClosed()
	ctx, cancel := context.WithCancel(ss.ctx)
	done := make(chan struct{})
	var readers sync.WaitGroup
	for name, log := range sources {
		readers.Go(func() {
			tell := func(l LogLine) bool {
				return ss.conn.write(message{ID: m.ID, Body: body(l), More: true}) == nil
			}
			if q.Lines != 0 { // else nothing of the past is asked for
				if note := log.Untimed(q.Since); note != "" && !tell(LogLine{Service: name, Text: note, Note: true}) {
					return
				}
			}
			log.Query(ctx, q.Lines, q.Since, q.Follow, func(at time.Time, line string) bool {
				return !matches(line) || tell(LogLine{Service: name, At: at, Text: line})
			})
		})
	}
	ss.wg.Go(func() { readers.Wait(); close(done) })
	defer cancel()
	select {
	case <-done:
		ss.conn.write(message{ID: m.ID})
	case <-gone:
	case <-ss.r.gone:
	}
	ss.conn.close()
}

func (ss *session) logSources(names []string) (map[string]*logs.Log, error) {
	out := map[string]*logs.Log{}
	var missing error
	err := ss.r.ask(func() {
		if len(names) == 0 {
			for name, k := range ss.r.kids {
				if name[0] != '@' {
					out[name] = k.log
				}
			}
			return
		}
		for _, want := range names {
			found, err := ss.r.targets(want)
			if err != nil {
				missing = err
			}
			for _, name := range found {
				out[name] = ss.r.kids[name].log
			}
		}
	})
	if err == nil {
		err = missing
	}
	return out, err
}

// takeLate reads what a keeper wrote that came when adoption was through: exec had
// not waited for it any longer.
func (r *runner) takeLate() {
	var all []*logs.Log
	r.ask(func() {
		if !r.policy.booted {
			return // adoption does it
		}
		for _, k := range r.kids {
			all = append(all, k.log)
		}
	})
	for _, l := range all {
		l.TakeAway()
	}
}

// keep serves the keeper: first it gives back what it held while no exec was
// there, then it takes what is to be held.
func (ss *session) keep(m message) {
	if err := ss.only(RoleDoor); err != nil {
		ss.conn.write(message{ID: m.ID, Error: asError(err)})
		return
	}
	var count int
	if json.Unmarshal(m.Body, &count) != nil || count < 0 || count > maxServices {
		return
	}
	held := map[string]Kept{}
	for range count {
		h, files, err := ss.conn.read()
		var head keptHead
		if err != nil || len(files) != 2 || json.Unmarshal(h.Body, &head) != nil {
			for _, f := range files {
				f.Close()
			}
			return
		}
		held[head.Service] = Kept{head.Service, head.Incarnation, head.PID, files[0], files[1]}
	}
	ss.r.keeper.attach(ss.conn, held)
	ss.r.takeLate()
	defer ss.r.keeper.detach(ss.conn)
	select {
	case <-ss.untilClosed():
	case <-ss.r.gone:
	}
}
