package exec

import (
	"os"
	"time"

	"p2pnode"
)

// Role is what a client of the control socket is.
type Role string

// The roles. Exec grants RoleNode and RoleDoor only to the processes that it
// started as such.
const (
	RoleCLI  Role = "cli"
	RoleNode Role = "node"
	RoleDoor Role = "door"
)

// VerbOptions are how start, stop and restart are carried out.
type VerbOptions struct {
	NoWait  bool          `json:"no_wait,omitempty"` // answer when it has begun
	Force   bool          `json:"force,omitempty"`   // start although a copy seems to live
	Timeout time.Duration `json:"timeout,omitempty"` // 0: a minute

	Aside *Aside `json:"aside,omitempty"` // of a manager's maintenance or observe, and of nothing else
}

// VerbResult is what became of a start, stop or restart.
type VerbResult struct {
	OK       bool            `json:"ok"`
	Services []ServiceResult `json:"services"`
}

// ServiceResult is the outcome for one service.
type ServiceResult struct {
	Name        string               `json:"name"`
	State       p2pnode.ServiceState `json:"state"`
	OK          bool                 `json:"ok"`
	TimedOut    bool                 `json:"timed_out,omitempty"` // not ok yet, and nothing speaks against it
	Text        string               `json:"text"`
	PID         int                  `json:"pid,omitempty"`
	Incarnation string               `json:"incarnation,omitempty"`
}

// UpgradeRequest names the binary that is to take this one's place.
type UpgradeRequest struct {
	File   string        `json:"file,omitempty"` // absolute; "": the file from which this one was started, as it is now
	DryRun bool          `json:"dry_run,omitempty"`
	Settle time.Duration `json:"settle,omitempty"` // 0: two seconds
}

// LogQuery asks for lines of services' logs.
type LogQuery struct {
	Services []string  `json:"services,omitempty"` // none: all
	Lines    int       `json:"lines,omitempty"`
	Since    time.Time `json:"since,omitzero"`
	Follow   bool      `json:"follow,omitempty"`
	Grep     string    `json:"grep,omitempty"` // of these only lines that match; an exec that does not know it yet tells all
}

// LogLine is one line of a service's log. At is zero for lines read from a file. Of a
// note about what is not shown Text is no line of the log; it comes before these.
type LogLine struct {
	Service string    `json:"service"`
	At      time.Time `json:"at,omitzero"`
	Text    string    `json:"text"`
	Note    bool      `json:"note,omitempty"`
}

// NodeHealth is the node process's hello and, every few seconds, its heartbeat.
type NodeHealth struct {
	Life   p2pnode.Life `json:"life"`
	Links  int          `json:"links"`  // to neighbours, now
	Orders int          `json:"orders"` // standing orders that it knows
	PeerID string       `json:"peer_id"`
}

// Keeper holds what must outlive exec: the reading ends of services' output and
// pidfds. The door is one.
type Keeper interface {
	// Held is asked once per connection, before anything else. The files stay the
	// keeper's: exec gets duplicates.
	Held() []Kept
	// Keep hands over files, which the keeper owns from then on. The same service
	// again replaces what is held for it.
	Keep(Kept)
	// Drop ends the keeping of a service.
	Drop(service string)
	// Spread says that the node process's life ended. It must not block.
	Spread(p2pnode.Life)
}

// Kept is what a keeper holds of one child.
type Kept struct {
	Service     string
	Incarnation p2pnode.Incarnation
	PID         int // 0: it is about to be started, and Pidfd is none yet
	FIFO        *os.File
	Pidfd       *os.File
}

// keptHead is a Kept on the wire; its files travel beside it.
type keptHead struct {
	Service     string              `json:"service"`
	Incarnation p2pnode.Incarnation `json:"incarnation"`
	PID         int                 `json:"pid"`
}

// The bodies of requests that have no type of their own.
type (
	helloBody struct {
		Role Role `json:"role"`
	}
	recoverForBody struct {
		Caller  string                 `json:"caller"`
		Request p2pnode.RecoverRequest `json:"request"`
	}
	eventsBody struct {
		After uint64 `json:"after"`
	}
	verbBody struct {
		Target  string      `json:"target"`
		Options VerbOptions `json:"options"`
	}
	maintenanceBody struct {
		Target string    `json:"target"`
		Until  time.Time `json:"until,omitzero"`
	}
	observeBody struct {
		Target string `json:"target"`
		On     bool   `json:"on"`
	}
	reloadBody struct {
		DryRun bool `json:"dry_run,omitempty"`
	}
	shutdownBody struct {
		KeepServices bool `json:"keep_services,omitempty"`
		TakeOver     bool `json:"take_over,omitempty"`
	}
	deathBody struct {
		Peer string       `json:"peer"`
		Life p2pnode.Life `json:"life"`
	}
	refusedBody struct {
		Count map[string]uint64 `json:"count"`
	}
)
