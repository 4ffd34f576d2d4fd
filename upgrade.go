package p2pnode

import "time"

// UpgradeState is how far an upgrade of this host's binary is.
type UpgradeState string

// The states. Treat an unknown one as running.
const (
	UpgradeRunning UpgradeState = "running"
	UpgradeDone    UpgradeState = "done"
	UpgradeFailed  UpgradeState = "failed" // the old binary is back; Text says why
)

// Upgrade is the story of the newest upgrade of a host. It is kept in the run
// folder, so that whichever binary works next goes on with it.
type Upgrade struct {
	State    UpgradeState  `json:"state"`
	From     string        `json:"from"` // versions; two builds may bear the same one
	To       string        `json:"to"`
	Target   string        `json:"target"`   // the installed file
	Previous string        `json:"previous"` // where the old one is kept
	Step     string        `json:"step"`     // @exec, @door or @node: which one is being replaced
	Back     bool          `json:"back,omitempty"`
	Text     string        `json:"text,omitempty"`
	BeganAt  time.Time     `json:"began_at"`
	EndedAt  time.Time     `json:"ended_at,omitzero"`
	Settle   time.Duration `json:"settle"` // how long each process must live before the next one is replaced
	Steps    []UpgradeStep `json:"steps"`
}

// UpgradeStep is one process that was replaced.
type UpgradeStep struct {
	Name   string  `json:"name"` // @exec, @door, @node
	OldPID int     `json:"old_pid,omitempty"`
	PID    int     `json:"pid"` // of exec the same: it was replaced in place
	TookMS float64 `json:"took_ms"`
}

// UpgradePlan is what exec found out about a binary, and what it did with it.
type UpgradePlan struct {
	From     string    `json:"from"`
	To       string    `json:"to"`
	Target   string    `json:"target"`
	Previous string    `json:"previous,omitempty"`
	Same     bool      `json:"same,omitempty"`     // that very binary runs already
	BeganAt  time.Time `json:"began_at,omitzero"`  // names the Upgrade that goes on; zero where none was begun
	Services int       `json:"services,omitempty"` // whose state the new binary can read
	Running  int       `json:"running,omitempty"`  // processes that stay
	Trial    float64   `json:"trial_ms,omitempty"` // how long the new binary took to check the state
}

// StateCheck is what a binary says of the state folder of a running exec, before it
// may take its place.
type StateCheck struct {
	Schema   string   `json:"schema"`
	Version  string   `json:"version"`
	Formats  []int    `json:"formats"` // of state and hand-over that it can read
	Services int      `json:"services"`
	Problems []string `json:"problems"`
}
