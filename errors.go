package p2pnode

import "errors"

// Exit codes of the program, the same in every output format.
const (
	ExitOK           = 0
	ExitFailed       = 1
	ExitUsage        = 2
	ExitUnhealthy    = 3
	ExitUnreachable  = 4 // the daemon does not answer
	ExitNotPermitted = 5
	ExitTimeout      = 6
	ExitInterrupted  = 130
)

// Error is an error that a person reads: what could not be done and why (Text),
// and the way out (Fix). It crosses sockets as JSON.
type Error struct {
	Code string `json:"code"` // kebab-case, stable: "unknown-service", "port-taken"
	Text string `json:"text"`
	Fix  string `json:"fix,omitempty"`
	Exit int    `json:"exit,omitempty"` // process exit code; 0 means ExitFailed
}

// Error implements error.
func (e *Error) Error() string {
	if e.Fix == "" {
		return e.Text
	}
	return e.Text + "; " + e.Fix
}

// ExitCode is the process exit code that err asks for.
func ExitCode(err error) int {
	if err == nil {
		return ExitOK
	}
	if e, ok := errors.AsType[*Error](err); ok && e.Exit != 0 {
		return e.Exit
	}
	return ExitFailed
}
