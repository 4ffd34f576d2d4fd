package exec

import (
	"encoding/json"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"p2pnode"
	"p2pnode/exec/disk"
)

// AuditEntry is one privileged act: who asked for what, and what came of it.
type AuditEntry struct {
	At      time.Time      `json:"at"`
	Verb    string         `json:"verb"`
	Target  string         `json:"target,omitempty"`
	With    map[string]any `json:"with,omitempty"` // what else was asked: force, until, on ...
	Role    Role           `json:"role"`
	PID     int            `json:"pid"` // of the process that asked, and its user, by the kernel's word
	UID     int            `json:"uid"`
	Caller  string         `json:"caller,omitempty"` // the peer whose certificate the door saw
	Agent   string         `json:"agent,omitempty"`  // as the caller names it
	Outcome string         `json:"outcome"`          // ok | refused | failed | an answer to recover
	Text    string         `json:"text,omitempty"`
}

// AuditPath is the audit log of the data folder dir: one AuditEntry a line. When it
// is full it becomes AuditPath + ".1".
func AuditPath(dir string) string { return filepath.Join(dir, "audit.log") }

// AuditLog is the file, or this process's way to it: exec and the node process write
// into the same one, a line with one write. What the disk refuses, or does not answer,
// waits in memory, up to a bound, until the disk takes it.
type AuditLog struct {
	path string
	hand disk.Hand // writes

	mu   sync.Mutex
	wait [][]byte
}

// NewAuditLog is the audit log of the data folder dir.
func NewAuditLog(dir string) *AuditLog { return &AuditLog{path: AuditPath(dir)} }

// Add writes e; the error is the disk's.
func (a *AuditLog) Add(e AuditEntry) error {
	raw, err := json.Marshal(e)
	if err != nil {
		return err
	}
	a.mu.Lock()
	if len(a.wait) == maxAuditWait {
		a.wait = a.wait[1:]
	}
	a.wait = append(a.wait, append(raw, '\n'))
	a.mu.Unlock()
	return a.flush()
}

// flush writes what waits.
func (a *AuditLog) flush() error {
	err, done := disk.Got(&a.hand, a.write)
	if !done {
		return disk.ErrHangs
	}
	return err
}

// write is done by the hand.
func (a *AuditLog) write() error {
	a.mu.Lock()
	waits := a.wait
	a.wait = nil
	a.mu.Unlock()
	if len(waits) == 0 {
		return nil
	}
	n, err := a.append(waits)
	if n < len(waits) {
		a.mu.Lock()
		a.wait = append(waits[n:len(waits):len(waits)], a.wait...)
		a.wait = a.wait[max(0, len(a.wait)-maxAuditWait):]
		a.mu.Unlock()
	}
	return err
}

// append writes entries and says how many are in the file.
func (a *AuditLog) append(entries [][]byte) (n int, err error) {
	f, err := openForWriting(a.path, os.O_APPEND|os.O_CREATE|syscall.O_NOFOLLOW)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for _, e := range entries {
		if _, err := f.Write(e); err != nil {
			return n, err
		}
		n++
	}
	if info, err := f.Stat(); err == nil && info.Size() > maxAudit {
		return n, os.Rename(a.path, a.path+".1")
	}
	return n, nil
}

// audited says what of a request belongs into the audit log; verbs that change
// nothing are not in it.
var audited = map[string]func(json.RawMessage, *AuditEntry){
	verbStart:   auditOrder,
	verbStop:    auditOrder,
	verbRestart: auditOrder,
	VerbMaintain: func(raw json.RawMessage, e *AuditEntry) {
		b, _ := decode[maintenanceBody](raw)
		e.Target = b.Target
		if !b.Until.IsZero() {
			e.With = map[string]any{"until": b.Until}
		}
	},
	VerbObserve: func(raw json.RawMessage, e *AuditEntry) {
		b, _ := decode[observeBody](raw)
		e.Target, e.With = b.Target, map[string]any{"on": b.On}
	},
	"reload": func(raw json.RawMessage, e *AuditEntry) {
		if b, _ := decode[reloadBody](raw); b.DryRun {
			e.With = map[string]any{"dry_run": true}
		}
	},
	"shutdown": func(raw json.RawMessage, e *AuditEntry) {
		b, _ := decode[shutdownBody](raw)
		if b.KeepServices || b.TakeOver {
			e.With = map[string]any{"keep_services": b.KeepServices, "take_over": b.TakeOver}
		}
	},
	"upgrade": func(raw json.RawMessage, e *AuditEntry) {
		b, _ := decode[UpgradeRequest](raw)
		e.Target = b.File
		if b.DryRun {
			e.With = map[string]any{"dry_run": true}
		}
	},
	"recover": func(raw json.RawMessage, e *AuditEntry) {
		b, _ := decode[p2pnode.RecoverRequest](raw)
		e.Target, e.Agent = b.Target, b.Agent
	},
}

func auditOrder(raw json.RawMessage, e *AuditEntry) {
	b, _ := decode[verbBody](raw)
	e.Target = b.Target
	if b.Options.Force {
		e.With = map[string]any{"force": true}
	}
	if set := b.Options.Aside; set != nil {
		e.With = map[string]any{"on": set.On}
		if set.For > 0 {
			e.With["for"] = set.For.String()
		}
	}
}

// audit notes what a client asked for and got. Recoveries by agents are noted when
// something was started (auditAct): what exec refuses changes nothing and is
// counted, or whoever may ask could push the acts of others out of the file.
func (ss *session) audit(m message, out any, err error) {
	describe := audited[m.Verb]
	if describe == nil || m.Verb == "recover" && ss.role != RoleCLI {
		return
	}
	e := AuditEntry{Verb: m.Verb}
	outcomeOf(&e, out, err)
	describe(m.Body, &e)
	ss.note(e)
}

// outcomeOf notes how an act ended.
func outcomeOf(e *AuditEntry, out any, err error) {
	e.Outcome = "ok"
	switch out := out.(type) {
	case p2pnode.RecoverAnswer:
		e.Outcome, e.Text = string(out.Outcome), string(out.Reason)
	case VerbResult:
		if !out.OK {
			e.Outcome = "failed"
		}
		for _, s := range out.Services {
			if !s.OK {
				e.Text = s.Name + ": " + s.Text
				break
			}
		}
	}
	if err != nil {
		e.Outcome, e.Text = "failed", asError(err).Text
		if p2pnode.ExitCode(err) == p2pnode.ExitNotPermitted {
			e.Outcome = "refused"
		}
	}
}

// note writes down what the client of ss did.
func (ss *session) note(e AuditEntry) {
	e.Role, e.PID, e.UID = ss.role, int(ss.cred.Pid), int(ss.cred.Uid)
	ss.r.note(e)
}

// auditAct notes a start that an agent asked for: the local node process's, or one
// whose certificate the door saw. It runs on the loop and writes beside it.
func (r *runner) auditAct(ev p2pnode.ExecEvent) {
	if ev.By.Kind != p2pnode.ByAgent {
		return
	}
	e := AuditEntry{At: ev.At, Verb: "recover", Target: ev.Service, Role: RoleDoor, UID: os.Getuid(), Caller: ev.By.Node, Agent: ev.By.Agent, Outcome: string(p2pnode.OutcomeDone)}
	process := p2pnode.SelfDoor
	if ev.By.Node == r.nodeID {
		e.Role, process = RoleNode, p2pnode.SelfNode
	}
	if k := r.kids[process]; k != nil && k.proc != nil {
		e.PID = k.proc.pid
	}
	r.wg.Go(func() { r.note(e) })
}

// note writes e into exec's log and the audit log.
func (r *runner) note(e AuditEntry) {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	e.Target, e.Agent, e.Text = cut(e.Target), cut(e.Agent), cut(e.Text)
	r.cfg.Log.Info().Str("verb", e.Verb).Str("target", e.Target).Str("role", string(e.Role)).Int("pid", e.PID).Int("uid", e.UID).
		Str("caller", e.Caller).Str("outcome", e.Outcome).Str("detail", e.Text).Msg("audit")
	r.disk("audit log", r.audit.Add(e))
}

// cut bounds what a caller can make the file hold.
func cut(s string) string { return s[:min(len(s), maxAuditText)] }
