package p2pnode

import (
	"encoding/json"
	"os"
	"sync"
	"time"
)

// HistoryEvent is one line of a node's history, the input of the offline checker
// (test/history). Fields that do not apply are left out.
type HistoryEvent struct {
	At       time.Time       `json:"at"`
	Node     string          `json:"node"` // node name
	Proc     string          `json:"proc"` // exec | door | node | agent | harness
	Event    HistoryFact     `json:"event"`
	Service  string          `json:"service,omitempty"`
	Target   string          `json:"target,omitempty"` // node name or ID that the event is about
	Old      string          `json:"old,omitempty"`
	New      string          `json:"new,omitempty"`
	PID      int             `json:"pid,omitempty"`
	Op       string          `json:"op,omitempty"`
	Agent    string          `json:"agent,omitempty"`
	Incident string          `json:"incident,omitempty"`
	Attempt  int             `json:"attempt,omitempty"`
	Hop      int             `json:"hop,omitempty"`
	Phase    Phase           `json:"phase,omitempty"`
	Class    Class           `json:"class,omitempty"`
	Reason   string          `json:"reason,omitempty"`
	By       By              `json:"by,omitzero"`
	Verdict  Verdict         `json:"verdict,omitempty"`
	View     []string        `json:"view,omitempty"` // "name=verdict", sorted
	Report   string          `json:"report,omitempty"`
	Detail   string          `json:"detail,omitempty"`
	More     json.RawMessage `json:"more,omitempty"`
}

// HistoryFact names what a history line says.
type HistoryFact string

// The facts. Looked comes before every act: exec saw for itself.
const (
	HistLooked   HistoryFact = "looked"   // exec, before an act: Service, Old, Class = what it saw, Op
	HistStarted  HistoryFact = "started"  // exec: Service, Old, New, PID, By, Op
	HistEnded    HistoryFact = "ended"    // exec: Service, Old, PID, Class
	HistStopping HistoryFact = "stopping" // exec: an orderly stop, by an operator or a shutdown
	HistAdopted  HistoryFact = "adopted"  // exec: Service, Old, PID
	HistKilled   HistoryFact = "killed"   // exec: it killed a tree: Service, Old, Class
	HistRefused  HistoryFact = "refused"  // exec or door: Service, Reason, Op
	HistLife     HistoryFact = "life"     // node: New = its life
	HistView     HistoryFact = "view"     // node: View, on each change
	HistVerdict  HistoryFact = "verdict"  // node: Target, Verdict
	HistClaimed  HistoryFact = "claimed"  // agent: Target, Old, Attempt, Agent, Incident
	HistHop      HistoryFact = "hop"      // agent: Agent, Hop, Node = where it arrived
	HistReport   HistoryFact = "report"   // node: a report was stored here: Report = origin/epoch/seq, Phase, Incident, Target, Service
	HistFault    HistoryFact = "fault"    // harness: an injected fault: Target, Service, Class, PID, Old
	HistHealed   HistoryFact = "healed"   // harness: seen well again from outside
	HistBrake    HistoryFact = "brake"    // node: Reason = on | off
)

// History appends events to a file, one JSON line per write, so that several
// processes may share it. A nil History drops everything.
type History struct {
	node, proc string
	mu         sync.Mutex
	f          *os.File
}

// OpenHistory opens path for appending; path "" gives nil.
func OpenHistory(path, node, proc string) (*History, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	return &History{node: node, proc: proc, f: f}, nil
}

// Record writes e with the time now and the opener's node and process filled in
// where they are empty. A failed write is dropped: history never stops work.
func (h *History) Record(e HistoryEvent) {
	if h == nil {
		return
	}
	if e.At.IsZero() {
		e.At = time.Now()
	}
	if e.Node == "" {
		e.Node = h.node
	}
	if e.Proc == "" {
		e.Proc = h.proc
	}
	line, err := json.Marshal(e)
	if err != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.f.Write(append(line, '\n'))
}

// Close closes the file.
func (h *History) Close() error {
	if h == nil {
		return nil
	}
	return h.f.Close()
}
