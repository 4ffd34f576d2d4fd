package p2pnode

import (
	"encoding/json"
	"time"
)

// Schema is the value of "schema" in a JSON document of the given name.
func Schema(name string) string { return "p2pnode/" + name + "/v1" }

// The documents that the CLI prints with -o json. Each carries its schema; a
// field that is not known is left out, never faked.

// StatusDoc is `status -o json`.
type StatusDoc struct {
	Schema    string            `json:"schema"`
	OK        bool              `json:"ok"`
	Cluster   *StatusCluster    `json:"cluster,omitempty"`
	Node      *StatusNode       `json:"node,omitempty"`
	Exec      *StatusExec       `json:"exec,omitempty"`
	Members   map[string]int    `json:"members,omitempty"` // "total" and one count per verdict
	Services  *StatusServices   `json:"services,omitempty"`
	Agents    *StatusAgents     `json:"agents,omitempty"`
	Incidents *StatusIncidents  `json:"incidents,omitempty"`
	Brake     *BrakeState       `json:"brake,omitempty"`
	Refusals  map[string]uint64 `json:"refusals,omitzero"` // by reason; only the door's where the node process was not asked
	Warnings  []Warning         `json:"warnings"`
}

// StatusCluster is the cluster as this node knows it.
type StatusCluster struct {
	ID       string `json:"id"`
	Managers int    `json:"managers"`
	Trusted  bool   `json:"trusted"` // by token or pin, or this host founded it
}

// StatusNode is this host's node process.
type StatusNode struct {
	Name     string   `json:"name"`
	ID       string   `json:"id,omitempty"`
	Role     Role     `json:"role,omitempty"` // absent until a cluster gave one
	Managing bool     `json:"managing"`
	Data     string   `json:"data"`
	Listen   []string `json:"listen,omitempty"`
	Door     string   `json:"door,omitempty"`
	Life     string   `json:"life,omitempty"`
}

// StatusExec is this host's exec service.
type StatusExec struct {
	PID        int  `json:"pid"`
	Supervised bool `json:"supervised"`
}

// StatusServices counts this host's services.
type StatusServices struct {
	Up    int `json:"up"`
	Down  int `json:"down"`
	Total int `json:"total"`
}

// StatusAgents counts the agents that this node knows of.
type StatusAgents struct {
	Patrol  int `json:"patrol"`
	Mission int `json:"mission"`
}

// StatusIncidents counts incidents.
type StatusIncidents struct {
	Open    int `json:"open"`
	Last24h int `json:"last_24h"`
}

// BrakeState is the brake: a level, not an event window.
type BrakeState struct {
	On          bool      `json:"on"`
	Unreachable int       `json:"unreachable"`
	Of          int       `json:"of"` // the last stable membership
	Since       time.Time `json:"since,omitzero"`
}

// Warning is something an operator should know; Severity is "warning" or
// "critical".
type Warning struct {
	Code     string `json:"code"`
	Severity string `json:"severity"`
	Text     string `json:"text"`
	Fix      string `json:"fix,omitempty"`
}

// NodesDoc is `nodes -o json`.
type NodesDoc struct {
	Schema string    `json:"schema"`
	Nodes  []NodeDoc `json:"nodes"`
}

// NodeDoc is one member.
type NodeDoc struct {
	Name      string            `json:"name"`
	ID        string            `json:"id"`
	Verdict   Verdict           `json:"verdict"`
	Since     time.Time         `json:"since,omitzero"`
	Life      string            `json:"life,omitempty"`
	Boot      uint64            `json:"boot,omitempty"`
	Role      Role              `json:"role,omitempty"`
	Managing  bool              `json:"managing"`
	Self      bool              `json:"self"`
	Labels    map[string]string `json:"labels"`
	Addresses []string          `json:"addresses"`
	Door      string            `json:"door,omitempty"`
	Hops      *int              `json:"hops,omitempty"` // links between here and there; absent: no route
	RTT       float64           `json:"rtt_ms,omitempty"`
	Version   string            `json:"version,omitempty"`
	// Ephemeral: its identity ends with its container or its memory; nobody waits for it.
	Ephemeral bool `json:"ephemeral,omitempty"`
}

// WhyDoc is `nodes why NODE -o json`: the evidence under a verdict.
type WhyDoc struct {
	Schema   string        `json:"schema"`
	Name     string        `json:"name"`
	ID       string        `json:"id"`
	Verdict  Verdict       `json:"verdict"`
	Since    time.Time     `json:"since,omitzero"`
	Evidence []EvidenceDoc `json:"evidence"`
	Would    []string      `json:"would_change,omitempty"` // what would change the verdict
}

// EvidenceDoc is one observation.
type EvidenceDoc struct {
	At      time.Time `json:"at"`
	Witness string    `json:"witness"` // node name
	Text    string    `json:"text"`
}

// PSDoc is `ps -o json`.
type PSDoc struct {
	Schema   string          `json:"schema"`
	Services []ServiceStatus `json:"services"`
}

// AgentsDoc is `agents ls -o json`.
type AgentsDoc struct {
	Schema string     `json:"schema"`
	Agents []AgentDoc `json:"agents"`
	Orders []OrderDoc `json:"orders,omitempty"`
	// Failures are what agents go to now, or would.
	Failures []FailureDoc `json:"failures,omitempty"`
}

// AgentDoc is one roaming agent as its last stamp tells it. At and Next are node
// names.
type AgentDoc struct {
	ID       string    `json:"id"`
	Kind     string    `json:"kind"` // patrol | mission
	At       string    `json:"at"`
	Next     string    `json:"next,omitempty"`
	Hops     int       `json:"hops"`
	Visited  int       `json:"visited"`
	Since    time.Time `json:"since,omitzero"`
	Order    string    `json:"order,omitempty"`
	Incident string    `json:"incident,omitempty"`

	Doing      string    `json:"doing,omitempty"` // visiting | travelling | at-door | asking | awaiting | settling
	DoingSince time.Time `json:"doing_since,omitzero"`
	Target     string    `json:"target,omitempty"`    // of a mission: the node that it is about
	Service    string    `json:"service,omitempty"`   // of a mission; left out: the node process
	Via        []string  `json:"via,omitempty"`       // the way from At to Next or Target as this node's table has it, both ends too
	Unseen     float64   `json:"unseen_ms,omitempty"` // of a patrol: how long nobody has been at Next, which is why it goes there
}

// FailureDoc is something elsewhere that this node believes to have failed, and why
// it is, or is not, acted on now.
type FailureDoc struct {
	Incident string    `json:"incident,omitempty"`
	Node     string    `json:"node"`
	Service  string    `json:"service,omitempty"`
	Class    Class     `json:"class,omitempty"`
	Since    time.Time `json:"since,omitzero"`
	Wait     string    `json:"wait"` // claimed | resting | rank | observe | unreachable | brake
	Agent    string    `json:"agent,omitempty"`
	Attempt  int       `json:"attempt,omitempty"`
	Phase    string    `json:"phase,omitempty"` // of the claim: travel | act | settle
	Until    time.Time `json:"until,omitzero"`  // nobody else goes before
}

// OrderDoc is a standing order: the population that managers want.
type OrderDoc struct {
	ID         string    `json:"id"`
	SLO        string    `json:"slo"` // Go duration
	Confidence float64   `json:"confidence"`
	Agents     int       `json:"agents"`                      // population that it asks for now
	WorstGap   float64   `json:"worst_gap_ms,omitempty"`      // the longest that a node waits for its next visit now
	WorstHour  float64   `json:"worst_gap_hour_ms,omitempty"` // the longest gap between two visits of a node in the last hour
	Visits     uint64    `json:"visits,omitempty"`            // that this node knows of, since it knows the order
	Late       uint64    `json:"late,omitempty"`              // those of them that came later than SLO
	By         string    `json:"by"`
	At         time.Time `json:"at"`
}

// IncidentsDoc is `incidents ls -o json` and, of one incident and with the reports
// that its last failure made, `incidents show`.
type IncidentsDoc struct {
	Schema    string     `json:"schema"`
	Incidents []Incident `json:"incidents"`
	More      int        `json:"more,omitempty"` // older ones that are not listed
	Reports   []Report   `json:"reports,omitempty"`
}

// ReportsDoc is `reports -o json`.
type ReportsDoc struct {
	Schema  string   `json:"schema"`
	Reports []Report `json:"reports"`
}

// EventDoc is one line of `events -o jsonl`.
type EventDoc struct {
	Seq    uint64          `json:"seq"`
	At     time.Time       `json:"at"`
	Node   string          `json:"node,omitempty"`
	Event  string          `json:"event"` // verdict | incident | report | agent | brake | service | gap
	Fields json.RawMessage `json:"fields,omitempty"`
}

// PathDoc is `path A B -o json`: what an agent at A would do to reach B.
type PathDoc struct {
	Schema       string     `json:"schema"`
	Hops         []PathHop  `json:"hops"` // A first, B last
	Alternatives [][]string `json:"alternatives,omitempty"`
}

// PathHop is one node on a path; RTT is of the link that leads to it.
type PathHop struct {
	Node    string  `json:"node"`
	RTT     float64 `json:"rtt_ms,omitempty"`
	Relayed bool    `json:"relayed"`
}

// PingDoc is `ping NODE -o json`: a message that really went, hop by hop.
type PingDoc struct {
	Schema string   `json:"schema"`
	Trail  []string `json:"trail"` // names, this node first
	RTT    float64  `json:"rtt_ms"`
}

// TokenDoc is `token create -o json`.
type TokenDoc struct {
	Schema    string    `json:"schema"`
	ID        string    `json:"id"`
	Token     string    `json:"token,omitempty"`
	Role      Role      `json:"role"`
	Uses      int       `json:"uses,omitempty"`
	ExpiresAt time.Time `json:"expires_at"`
}

// TokensDoc is `token ls -o json`; without the tokens themselves.
type TokensDoc struct {
	Schema string     `json:"schema"`
	Tokens []TokenDoc `json:"tokens"`
}

// RevokedDoc is `revoke NODE -o json`. Kept are the members that the node had let in,
// and that stay.
type RevokedDoc struct {
	Schema string   `json:"schema"`
	Node   string   `json:"node"`
	ID     string   `json:"id"`
	Kept   []string `json:"kept,omitempty"`
}

// ForgottenDoc is `forget NODE -o json`. Verdict is what was believed of it.
type ForgottenDoc struct {
	Schema  string  `json:"schema"`
	Node    string  `json:"node"`
	ID      string  `json:"id"`
	Verdict Verdict `json:"verdict"`
}

// PendingDoc is `pending -o json`: who asks to be let in without a token.
type PendingDoc struct {
	Schema  string        `json:"schema"`
	Pending []PendingNode `json:"pending"`
}

// PendingNode is one of them. Code is for `approve`; the node itself shows the same.
// Name is what it calls itself.
type PendingNode struct {
	Code    string    `json:"code"`
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Address string    `json:"address"`
	Since   time.Time `json:"since"`
}

// OpenDoc is `open -o json`. Until is left out when the door was closed.
type OpenDoc struct {
	Schema string    `json:"schema"`
	Until  time.Time `json:"until,omitzero"`
}

// DemotedDoc is `demote NODE -o json`. Kept are the members that the node had let in,
// and that stay.
type DemotedDoc struct {
	Schema string   `json:"schema"`
	Node   string   `json:"node"`
	ID     string   `json:"id"`
	Was    Role     `json:"was"`
	Kept   []string `json:"kept,omitempty"`
}

// VersionDoc is `version -o json`.
type VersionDoc struct {
	Schema  string `json:"schema"`
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

// TargetError is why nothing came of one target of several.
type TargetError struct {
	Target string `json:"target"`
	*Error
}

// ErrorDoc is what -o json prints on stdout when a command fails.
type ErrorDoc struct {
	Schema string        `json:"schema"`
	Error  *Error        `json:"error"`            // where several targets failed, that of the first
	Errors []TargetError `json:"errors,omitempty"` // and of each
}
