package exec

import (
	"encoding/json"
	"fmt"
	"time"

	"p2pnode"

	"github.com/libp2p/go-libp2p/core/peer"
)

// verbs are the requests with one answer. Each but verbHealth runs on a goroutine of its
// own; they reach the policy through ask and do.
var verbs = map[string]func(*session, json.RawMessage) (any, error){
	"status":      (*session).status,
	"usage":       (*session).usage,
	"recover":     (*session).recover,
	"recover-for": (*session).recoverFor,
	verbStart:     func(ss *session, b json.RawMessage) (any, error) { return ss.order(verbStart, b) },
	verbStop:      func(ss *session, b json.RawMessage) (any, error) { return ss.order(verbStop, b) },
	verbRestart:   func(ss *session, b json.RawMessage) (any, error) { return ss.order(verbRestart, b) },
	VerbMaintain:  (*session).maintenance,
	VerbObserve:   (*session).observe,
	"reload":      (*session).reload,
	"shutdown":    (*session).shutdown,
	"upgrade":     (*session).upgrade,
	"challenge":   (*session).challenge,
	"signed":      (*session).signed,
	verbHealth:    (*session).health,
	"death":       (*session).death,
	"refused":     (*session).refused,
}

// decode reads a body, or says that the request is malformed.
func decode[T any](raw json.RawMessage) (v T, err error) {
	if err := json.Unmarshal(raw, &v); err != nil {
		return v, &p2pnode.Error{Code: "bad-request", Text: "malformed request: " + err.Error(), Exit: p2pnode.ExitUsage}
	}
	return v, nil
}

func (ss *session) only(role Role) error {
	if ss.role != role {
		return &p2pnode.Error{Code: "not-permitted", Text: "only the " + string(role) + " process may ask that", Exit: p2pnode.ExitNotPermitted}
	}
	return nil
}

func (ss *session) status(json.RawMessage) (any, error) {
	var st p2pnode.ExecStatus
	err := ss.r.ask(func() { st = ss.r.status() })
	return st, err
}

// recover: who asks is known from the connection.
func (ss *session) recover(raw json.RawMessage) (any, error) {
	req, err := decode[p2pnode.RecoverRequest](raw)
	if err != nil {
		return nil, err
	}
	switch ss.role {
	case RoleNode:
		return ss.r.recover(ss, req, p2pnode.ByAgent, "")
	case RoleDoor:
		return nil, ss.only(RoleNode)
	}
	return ss.r.recover(ss, req, p2pnode.ByOperator, "")
}

func (ss *session) recoverFor(raw json.RawMessage) (any, error) {
	if err := ss.only(RoleDoor); err != nil {
		return nil, err
	}
	b, err := decode[recoverForBody](raw)
	if err != nil {
		return nil, err
	}
	if _, err := peer.Decode(b.Caller); err != nil {
		return nil, &p2pnode.Error{Code: "bad-request", Text: "the caller is no peer ID", Exit: p2pnode.ExitUsage}
	}
	return ss.r.recover(ss, b.Request, p2pnode.ByAgent, b.Caller)
}

// recover puts a request to the policy and waits for its answer. Before that exec
// looks at the target itself: the caller may know of a death a moment earlier.
func (r *runner) recover(ss *session, req p2pnode.RecoverRequest, kind p2pnode.ByKind, caller string) (p2pnode.RecoverAnswer, error) {
	if plantNoopRecover {
		return p2pnode.RecoverAnswer{Outcome: p2pnode.OutcomeDone}, nil
	}
	ch := make(chan p2pnode.RecoverAnswer, 1)
	r.lookFirst(req.Target)
	r.do(func() {
		by := p2pnode.By{Kind: kind, Agent: req.Agent, Node: caller}
		if kind == p2pnode.ByOperator {
			by.Agent = ""
		} else if caller == "" {
			by.Node = r.nodeID
		}
		r.nextID++
		r.answers[r.nextID] = ch
		r.step(evRecover{id: r.nextID, req: req, by: by})
	})
	select {
	case ans := <-ch:
		return r.withWords(req.Target, ans), nil
	case <-ss.ctx.Done():
		return p2pnode.RecoverAnswer{}, ss.ctx.Err()
	case <-r.gone:
		return p2pnode.RecoverAnswer{}, &p2pnode.Error{Code: "shutting-down", Text: "p2pnode is shutting down"}
	}
}

// lookFirst waits, briefly, for the news of a death that the pidfd already shows.
func (r *runner) lookFirst(target string) {
	var p *process
	if r.ask(func() {
		if k := r.kids[target]; k != nil {
			p = k.proc
		}
	}) != nil || p == nil || !p.dead() {
		return
	}
	for range 200 { // 100 ms: a loop and a reader of last words that are late
		told := true
		r.ask(func() {
			s := r.policy.svcs[target]
			told = s == nil || s.phase != running || r.kids[target] == nil || r.kids[target].proc != p
		})
		if told {
			return
		}
		time.Sleep(500 * time.Microsecond)
	}
}

// withWords adds the dead process's last words to an answer about it.
func (r *runner) withWords(target string, ans p2pnode.RecoverAnswer) p2pnode.RecoverAnswer {
	if ans.Class == "" && ans.Outcome != p2pnode.OutcomeAlreadyDone {
		return ans
	}
	r.ask(func() {
		if k := r.kids[target]; k != nil {
			ans.Excerpt = k.excerpt
		}
	})
	return ans
}

func (ss *session) reload(raw json.RawMessage) (any, error) {
	b, err := decode[reloadBody](raw)
	if err != nil {
		return nil, err
	}
	if ss.r.cfg.Load == nil {
		return nil, &p2pnode.Error{Code: "no-config", Text: "p2pnode was started without a config file: there is nothing to reload", Fix: "start it with --config FILE"}
	}
	loaded, err := ss.r.cfg.Load()
	if err != nil {
		return nil, err
	}
	if err := validServices(loaded.Services); err != nil {
		return nil, err
	}
	if !b.DryRun {
		if err := ss.r.replaceable(ss.ctx, func() []p2pnode.ServiceSpec { return ss.r.policy.renewedBy(time.Now(), loaded.Services) }); err != nil {
			return nil, err
		}
	}
	var res ReloadResult
	err = ss.r.ask(func() {
		if b.DryRun {
			res = ss.r.policy.compareSpecs(loaded.Services)
			return
		}
		ss.r.nextID++
		id := ss.r.nextID
		ss.r.step(evReload{id: id, loaded: loaded})
		res = ss.r.reloads[id]
		delete(ss.r.reloads, id)
	})
	res.Later = loaded.Later
	if err == nil && !b.DryRun && loaded.Applied != nil {
		loaded.Applied()
	}
	return res, err
}

func (ss *session) shutdown(raw json.RawMessage) (any, error) {
	b, err := decode[shutdownBody](raw)
	if err != nil {
		return nil, err
	}
	r := ss.r
	if b.TakeOver {
		if since := time.Since(r.began); since < takeOverPause {
			return nil, &p2pnode.Error{Code: "taken-over-just-now", Text: fmt.Sprintf("this p2pnode started %v ago: it is taken over at most once a minute", since.Round(time.Second))}
		}
		return afterwards{then: func() {
			r.leaving = &p2pnode.Error{Code: "taken-over", Text: "another p2pnode, started by the init, took over", Exit: exitTakenOver}
		}}, nil
	}
	return afterwards{then: func() { r.shutDown(evShutdown{keep: b.KeepServices, within: r.cfg.ShutdownTimeout}) }}, nil
}

// afterwards is a result with something to be carried out, on the loop, once the
// answer has been written: what it does ends the connection.
type afterwards struct {
	answer any // nil says nothing
	then   func()
}

// exitTakenOver is EX_TEMPFAIL: inits that know it do not count it as a failure.
const (
	exitTakenOver = 75
	takeOverPause = time.Minute
	takeOverAgain = 5 * time.Second       // between two requests of one that waits
	takeOverLook  = 20 * time.Millisecond // and between its looks at the lock
)

const verbHealth = "health"

// health is the node process's heartbeat.
func (ss *session) health(raw json.RawMessage) (any, error) {
	if err := ss.only(RoleNode); err != nil {
		return nil, err
	}
	h, err := decode[NodeHealth](raw)
	if err != nil {
		return nil, err
	}
	if ss.r.beats.again(ss, h) {
		return nil, nil
	}
	return nil, ss.r.ask(func() {
		ss.r.nodeID, ss.r.nodeConn = h.PeerID, ss
		ss.r.rememberLife(h.Life)
		ss.r.beats.told(ss, h)
		ss.r.step(h.event(time.Time{}))
	})
}

// nodeGone: the connection that said hello last has ended.
func (r *runner) nodeGone(ss *session) {
	if r.nodeConn == ss {
		r.nodeConn = nil
		r.step(evNode{connected: false})
	}
}

func (ss *session) death(raw json.RawMessage) (any, error) {
	if err := ss.only(RoleDoor); err != nil {
		return nil, err
	}
	b, err := decode[deathBody](raw)
	if err != nil {
		return nil, err
	}
	ss.r.feed.publish(p2pnode.ExecEvent{At: time.Now(), Event: p2pnode.FactPeerDeath, Peer: b.Peer, Life: b.Life})
	return nil, nil
}

func (ss *session) refused(raw json.RawMessage) (any, error) {
	if err := ss.only(RoleDoor); err != nil {
		return nil, err
	}
	b, err := decode[refusedBody](raw)
	if err != nil {
		return nil, err
	}
	return nil, ss.r.ask(func() { ss.r.doorRefused = b.Count })
}
