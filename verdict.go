package p2pnode

// Verdict is the fused belief about a node; DESIGN of each: docs/ARCHITECTURE.md.
type Verdict string

// The verdicts. Add freely, rename never.
const (
	Alive             Verdict = "alive"
	Doubtful          Verdict = "doubtful"
	ProcessDead       Verdict = "process-dead"
	ExecDead          Verdict = "exec-dead"
	Hung              Verdict = "hung"
	Unreachable       Verdict = "unreachable"
	Left              Verdict = "left"
	IdentityChanged   Verdict = "identity-changed"
	DuplicateIdentity Verdict = "duplicate-identity"
)

// Verdicts lists all verdicts in the order in which status prints them.
func Verdicts() []Verdict {
	return []Verdict{Alive, Doubtful, ProcessDead, ExecDead, Hung, Unreachable, Left, IdentityChanged, DuplicateIdentity}
}

// Actionable reports whether a recovery agent has something to restart there.
func (v Verdict) Actionable() bool { return v == ProcessDead || v == ExecDead || v == Hung }

// Role is what a certificate makes of a node.
type Role string

// The roles; RoleDoor is the certificate that a node issues to its own door.
const (
	RoleWorker  Role = "worker"
	RoleManager Role = "manager"
	RoleDoor    Role = "door"
)

// ServiceState is where a service is in its life. Readers treat an unknown one
// as not up.
type ServiceState string

// The service states.
const (
	StateStarting     ServiceState = "starting"
	StateUp           ServiceState = "up"
	StateUnready      ServiceState = "unready"
	StateFrozen       ServiceState = "frozen" // SIGSTOP
	StateHung         ServiceState = "hung"
	StateBackoff      ServiceState = "backoff"
	StateCrashLooping ServiceState = "crash-looping"
	StateMissing      ServiceState = "missing" // the start never ran: ENOENT, EACCES, ENOEXEC, cwd, user
	StateBlocked      ServiceState = "blocked" // something says that a copy lives and it cannot be seen
	StateExited       ServiceState = "exited"  // ended and its restart policy leaves it so
	StateStopping     ServiceState = "stopping"
	StateStopped      ServiceState = "stopped" // on purpose
	StateUnkillable   ServiceState = "unkillable"
)

// Class says how something failed.
type Class string

// The classes of failure.
const (
	ClassExited            Class = "exited"
	ClassSignalled         Class = "signalled"
	ClassFrozen            Class = "frozen"
	ClassHung              Class = "hung"
	ClassMissing           Class = "missing"
	ClassCheckFailed       Class = "check-failed"
	ClassProcessDead       Class = "process-dead"
	ClassExecDead          Class = "exec-dead"
	ClassUnreachable       Class = "unreachable"
	ClassIdentityChanged   Class = "identity-changed"
	ClassDuplicateIdentity Class = "duplicate-identity"
)

// IncidentKind says what an incident is about.
type IncidentKind string

// The incident kinds; of KindNode the incarnation is a Life.
const (
	KindService IncidentKind = "service"
	KindNode    IncidentKind = "node"
	KindHost    IncidentKind = "host"
)

// IncidentState is where an incident's story stands.
type IncidentState string

// The incident states.
const (
	IncidentOpen      IncidentState = "open"
	IncidentActing    IncidentState = "acting"
	IncidentRecovered IncidentState = "recovered"
	IncidentFailed    IncidentState = "failed"
	IncidentObserved  IncidentState = "observed"
)

// Held says why nobody acts on a failure.
type Held string

// The reasons for holding back.
const (
	HeldMaintenance Held = "maintenance"
	HeldObserve     Held = "observe"
	HeldOff         Held = "off"
	HeldBrake       Held = "brake"
	HeldBudget      Held = "budget"
	HeldBackoff     Held = "backoff"
	HeldTraced      Held = "traced"
)

// Phase is what a report speaks of.
type Phase string

// The phases of a report.
const (
	PhaseObserved Phase = "observed"
	PhaseRefused  Phase = "refused"
	PhaseActed    Phase = "acted"
	PhaseVerified Phase = "verified"
	PhaseFailed   Phase = "failed"
)

// Names of a host's own processes where a service name is expected.
const (
	SelfExec = "@exec"
	SelfDoor = "@door"
	SelfNode = "@node"
)
