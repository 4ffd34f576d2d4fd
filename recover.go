package p2pnode

import (
	"encoding/json"
	"time"
)

// ByKind says what sort of actor restarted something.
type ByKind string

// The actors.
const (
	ByAgent    ByKind = "agent"
	ByExec     ByKind = "exec"
	ByOperator ByKind = "operator"
)

// By is who acted. Exec sets it from the connection that the request came in
// on, never from what the request says of its sender.
type By struct {
	Kind     ByKind `json:"kind"`
	Agent    string `json:"agent,omitempty"` // agent ID as the caller named it
	Node     string `json:"node,omitempty"`  // ID of the node where the agent was (from its certificate or the local node process)
	Fallback bool   `json:"fallback"`        // exec acted since no agent came
}

// RecoverRequest asks a host's exec to look at one of its things and bring it
// back if it is dead. It is a hint: it carries no evidence, and exec reads
// nothing in it but names.
type RecoverRequest struct {
	Op       string `json:"op"`       // idempotency key: the same op for the same target and life has one effect; a done or already-done is answered again
	Target   string `json:"target"`   // service, or @node, @exec
	Expected string `json:"expected"` // Incarnation of a service, Life of a node process; "" is refused as stale
	Agent    string `json:"agent,omitempty"`
	Incident string `json:"incident,omitempty"`
}

// Outcome is the sort of answer to a RecoverRequest.
type Outcome string

// The five answers.
const (
	OutcomeDone        Outcome = "done"         // this request restarted it
	OutcomeAlreadyDone Outcome = "already-done" // another did; New names the life that is there
	OutcomeScheduled   Outcome = "scheduled"    // At says when exec starts it (backoff, slow lane)
	OutcomeBusy        Outcome = "busy"         // another recovery of it is in flight
	OutcomeRefused     Outcome = "refused"      // Reason says why
)

// Refusal is why exec will not act.
type Refusal string

// The reasons of a refusal. A used-up budget is none: exec starts the thing itself when
// there is room again, and that answer is scheduled.
const (
	RefusedHealthy     Refusal = "healthy"
	RefusedStopped     Refusal = "stopped"
	RefusedMaintenance Refusal = "maintenance"
	RefusedObserve     Refusal = "observe"
	RefusedOff         Refusal = "off"
	RefusedTraced      Refusal = "traced"
	RefusedStale       Refusal = "stale"
	RefusedExecDead    Refusal = "exec-dead"
	RefusedUnknown     Refusal = "unknown"
)

// RecoverAnswer is exec's word on a RecoverRequest.
type RecoverAnswer struct {
	Outcome Outcome   `json:"outcome"`
	Reason  Refusal   `json:"reason,omitempty"`
	Old     string    `json:"old,omitempty"` // incarnation or life that exec found dead
	New     string    `json:"new,omitempty"` // incarnation that runs now (of @node: "" until it says its life)
	PID     int       `json:"pid,omitempty"`
	At      time.Time `json:"at,omitzero"` // Scheduled: when
	By      By        `json:"by,omitzero"` // who acted, also in AlreadyDone
	Class   Class     `json:"class,omitempty"`
	Exit    *Exit     `json:"exit,omitempty"`
	Excerpt *Excerpt  `json:"excerpt,omitempty"`
	// DetectedAt is when exec knew of the failure, VerifiedAt when it had looked
	// for itself, StartedAt when the new process ran: all on exec's clock.
	DetectedAt time.Time `json:"detected_at,omitzero"`
	VerifiedAt time.Time `json:"verified_at,omitzero"`
	StartedAt  time.Time `json:"started_at,omitzero"`
}

// Exit is how a process ended. Unknown is true where the kernel kept no status
// for us (an adopted process on kernels before 6.15): never a guessed 0.
type Exit struct {
	Code    int    `json:"code"`
	Signal  string `json:"signal,omitempty"` // "SIGKILL"; "" when it exited by itself
	Core    bool   `json:"core,omitempty"`
	OOM     bool   `json:"oom,omitempty"`
	Unknown bool   `json:"unknown,omitempty"`
	Why     string `json:"why,omitempty"` // why exec ended it: the check that failed, with its last answers

	// What it used, where the kernel told: of the process and of its children that it
	// waited for. 0 is unknown.
	MaxRSS   int64   `json:"max_rss,omitempty"` // bytes
	UserMS   float64 `json:"user_ms,omitempty"`
	SystemMS float64 `json:"system_ms,omitempty"`
	UptimeMS float64 `json:"uptime_ms,omitempty"`
}

// MarshalJSON leaves out what is not known: the code of a process that a signal
// ended, and everything where nobody saw the end.
func (e Exit) MarshalJSON() ([]byte, error) {
	out := struct {
		Code    *int   `json:"code,omitempty"`
		Signal  string `json:"signal,omitempty"`
		Core    *bool  `json:"core,omitempty"`
		OOM     bool   `json:"oom,omitempty"` // known only where a cgroup counts it or the kernel log says it
		Unknown bool   `json:"unknown,omitempty"`
		Why     string `json:"why,omitempty"`

		MaxRSS   int64   `json:"max_rss,omitempty"`
		UserMS   float64 `json:"user_ms,omitempty"`
		SystemMS float64 `json:"system_ms,omitempty"`
		UptimeMS float64 `json:"uptime_ms,omitempty"`
	}{
		Signal: e.Signal, OOM: e.OOM, Unknown: e.Unknown, Why: e.Why,
		MaxRSS: e.MaxRSS, UserMS: e.UserMS, SystemMS: e.SystemMS, UptimeMS: e.UptimeMS,
	}
	if !e.Unknown {
		out.Core = &e.Core
	}
	if !e.Unknown && e.Signal == "" {
		out.Code = &e.Code
	}
	return json.Marshal(out)
}

// Excerpt is the end (and the first lines of that run) of a failed process's
// log: at most 4 KiB, masked before it leaves exec.
type Excerpt struct {
	Lines     []string `json:"lines"`
	Truncated bool     `json:"truncated"`
	Masked    int      `json:"masked"`        // secrets replaced
	Sealed    bool     `json:"sealed"`        // true where this node may not read it: Lines is empty
	Why       string   `json:"why,omitempty"` // it is sealed, in a phrase
}

// MarshalJSON leaves out what a sealed excerpt does not tell.
func (e Excerpt) MarshalJSON() ([]byte, error) {
	if e.Sealed {
		return json.Marshal(struct {
			Lines  []string `json:"lines"`
			Sealed bool     `json:"sealed"`
			Why    string   `json:"why,omitempty"`
		}{[]string{}, true, e.Why})
	}
	type plain Excerpt
	return json.Marshal(plain(e))
}

// ExecEvent is what exec tells the node process of its host, in order of Seq.
// A gap in Seq means events were dropped; the reader asks for Status again.
type ExecEvent struct {
	Seq     uint64       `json:"seq"`
	At      time.Time    `json:"at"`
	Event   ExecFact     `json:"event"`
	Service string       `json:"service,omitempty"` // or @node, @door
	Target  string       `json:"target,omitempty"`  // old incarnation or life the fact is about
	New     string       `json:"new,omitempty"`     // new incarnation
	PID     int          `json:"pid,omitempty"`
	Class   Class        `json:"class,omitempty"`
	State   ServiceState `json:"state,omitempty"`
	Held    Held         `json:"held,omitempty"`
	Exit    *Exit        `json:"exit,omitempty"`
	Excerpt *Excerpt     `json:"excerpt,omitempty"`
	By      By           `json:"by,omitzero"`
	// DetectedAt/VerifiedAt/StartedAt as in RecoverAnswer, set on FactActed.
	DetectedAt time.Time `json:"detected_at,omitzero"`
	VerifiedAt time.Time `json:"verified_at,omitzero"`
	StartedAt  time.Time `json:"started_at,omitzero"`
	Peer       string    `json:"peer,omitempty"` // FactPeerDeath: ID of the peer whose life ended
	Life       Life      `json:"life,omitzero"`
	Detail     string    `json:"detail,omitempty"`
}

// ExecFact names what an ExecEvent says.
type ExecFact string

// The facts.
const (
	FactFailed    ExecFact = "failed"     // dead, frozen past its grace, hung, missing: a recovery is due (Held says why not)
	FactActed     ExecFact = "acted"      // started again; By says who
	FactUp        ExecFact = "up"         // ready
	FactState     ExecFact = "state"      // any other change of state (frozen, unready, stopping, stopped, backoff ...)
	FactPeerDeath ExecFact = "peer-death" // a door's signed word: that peer's node process life ended
)
