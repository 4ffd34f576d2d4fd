package p2pnode

import "time"

// Report is an immutable record of what an agent (or exec alone) saw and did,
// signed by the node that it is of. (Origin, Epoch, Seq) is its identity.
type Report struct {
	Origin   string       `json:"origin"` // node ID
	Epoch    string       `json:"epoch"`  // of the origin's store: a store that was lost starts a new one
	Seq      uint64       `json:"seq"`    // from 1, without gaps
	At       time.Time    `json:"at"`
	Phase    Phase        `json:"phase"`
	Agent    string       `json:"agent,omitempty"`
	Incident string       `json:"incident"`
	Kind     IncidentKind `json:"kind"`
	Node     string       `json:"node"` // ID of the node the report is about
	NodeName string       `json:"node_name,omitempty"`
	Service  string       `json:"service,omitempty"`
	Class    Class        `json:"class,omitempty"`
	Observed string       `json:"observed,omitempty"` // one phrase: what was seen
	Action   string       `json:"action,omitempty"`   // one phrase: what was done
	Result   string       `json:"result,omitempty"`   // one phrase: what came of it
	Held     Held         `json:"held,omitempty"`
	By       By           `json:"by,omitzero"`

	Old    string   `json:"old_incarnation,omitempty"`
	New    string   `json:"new_incarnation,omitempty"`
	Exit   *Exit    `json:"exit,omitempty"`
	Hops   int      `json:"hops"`             // moves between nodes since the claim
	Trail  []string `json:"trail,omitempty"`  // node IDs since the claim, target last
	Direct bool     `json:"direct,omitempty"` // dialled, for want of a route
	Timing Timing   `json:"timing_ms,omitzero"`

	DetectedAt  time.Time `json:"detected_at,omitzero"`
	RecoveredAt time.Time `json:"recovered_at,omitzero"`
	VerifiedAt  time.Time `json:"verified_at,omitzero"`

	// Excerpt is what the writer hands to the store in the clear; the store keeps
	// it sealed to the cluster's reader key and fills it on read where it can.
	Excerpt *Excerpt `json:"excerpt,omitempty"`
}

// Timing is how long each step took, in milliseconds; a step that did not happen
// is left out.
type Timing struct {
	Detect   float64 `json:"detect,omitempty"`
	Dispatch float64 `json:"dispatch,omitempty"`
	Travel   float64 `json:"travel,omitempty"`
	Act      float64 `json:"act,omitempty"`
	Verify   float64 `json:"verify,omitempty"`
	Total    float64 `json:"total,omitempty"`
}

// Milliseconds is d as the floating-point milliseconds of JSON.
func Milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
