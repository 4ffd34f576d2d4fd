package p2pnode

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"
)

// IncidentID is the same on every node for one failure: a digest of the node,
// the service ("" for the node process) and the incarnation or life that failed.
func IncidentID(nodeID, service, failed string) string {
	h := sha256.Sum256([]byte(nodeID + "\x00" + service + "\x00" + failed))
	return "i-" + hex.EncodeToString(h[:5])
}

// Incident is the story that the reports of one failure make.
type Incident struct {
	ID             string        `json:"id"`
	Kind           IncidentKind  `json:"kind"`
	Node           string        `json:"node"` // name
	NodeID         string        `json:"node_id"`
	Service        string        `json:"service,omitempty"`
	Class          Class         `json:"class,omitempty"`
	State          IncidentState `json:"state"`
	Held           Held          `json:"held,omitempty"`
	DetectedAt     time.Time     `json:"detected_at,omitzero"`
	RecoveredAt    time.Time     `json:"recovered_at,omitzero"`
	VerifiedAt     time.Time     `json:"verified_at,omitzero"`
	By             By            `json:"by,omitzero"` // Node is a name here
	Hops           int           `json:"hops"`
	Trail          []string      `json:"trail,omitempty"` // names; nil where no agent went
	Direct         bool          `json:"direct"`
	OldIncarnation string        `json:"old_incarnation,omitempty"`
	NewIncarnation string        `json:"new_incarnation,omitempty"`
	Exit           *Exit         `json:"exit,omitempty"`
	Timing         Timing        `json:"timing_ms,omitzero"`
	Excerpt        *Excerpt      `json:"excerpt,omitempty"`
	Count          int           `json:"count"`                      // failures folded into it; all other facts are the last one's
	FirstAt        time.Time     `json:"first_detected_at,omitzero"` // where Count is more than 1
	Failures       []string      `json:"failures,omitempty"`         // their IDs, oldest first; reports name these
	Reports        int           `json:"reports"`                    // reports read for it
}

// MarshalJSON leaves out the way of an agent where none went: no hops is not the
// same as 0 hops.
func (i Incident) MarshalJSON() ([]byte, error) {
	type plain Incident
	out := struct {
		plain
		Hops   *int  `json:"hops,omitempty"`
		Direct *bool `json:"direct,omitempty"`
	}{plain: plain(i)}
	if len(i.Trail) > 0 {
		out.Hops, out.Direct = &i.Hops, &i.Direct
	}
	return json.Marshal(out)
}
