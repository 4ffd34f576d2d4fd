package p2pnode

import (
	"maps"
	"regexp"
	"slices"
	"time"
)

// ServiceSpec declares one service of a host: what p2pnode.yaml says of it with
// defaults filled in. Durations of 0 mean "off" or "at once" where the comment
// says so.
type ServiceSpec struct {
	Name     string            `json:"name"`    // [A-Za-z0-9_-]+, replicas "web.1"
	Command  []string          `json:"command"` // argv; Shell is already wrapped as /bin/sh -c
	Cwd      string            `json:"cwd,omitempty"`
	Env      map[string]string `json:"env,omitempty"`
	EnvFile  []string          `json:"env_file,omitempty"` // read at each start; Env wins over them, a later one over an earlier
	Before   [][]string        `json:"before,omitempty"`   // programs that must end well, in this order, before Command is started
	User     string            `json:"user,omitempty"`
	Group    string            `json:"group,omitempty"` // instead of the user's own
	Limits   Limits            `json:"limits,omitzero"`
	Umask    *int              `json:"umask,omitempty"`          // nil: exec's own
	Nice     int               `json:"nice,omitempty"`           // -20 (first) to 19 (last)
	OOM      *int              `json:"oom_score,omitempty"`      // oom_score_adj: -1000 (never killed for memory) to 1000; nil: exec's own
	HangDump bool              `json:"hang_dump,omitempty"`      // SIGQUIT before a hung one is killed: a Go program prints its stacks
	Gain     bool              `json:"new_privileges,omitempty"` // a service with User may gain rights by setuid and setcap programs
	Labels   map[string]string `json:"labels,omitempty"`
	After    []string          `json:"after,omitempty"`    // started when these are ready
	Requires []string          `json:"requires,omitempty"` // likewise, and stopped and begun anew with each of these

	Manual      bool          `json:"manual,omitempty"` // start: manual
	StartWithin time.Duration `json:"start_within"`     // no failed check counts before this or the first success
	Restart     RestartPolicy `json:"restart"`
	Recover     RecoverMode   `json:"recover"`
	Ready       ReadyMode     `json:"ready"`
	Watchdog    time.Duration `json:"watchdog,omitempty"` // 0: none declared
	StopGrace   time.Duration `json:"stop_grace"`         // a SIGSTOP longer than this is a failure; 0: at once
	StopSignal  string        `json:"stop_signal"`        // "TERM"
	StopTimeout time.Duration `json:"stop_timeout"`       // then the tree is killed
	Check       *Check        `json:"check,omitempty"`    // asks for start, ready and live at once
	Checks      *Checks       `json:"checks,omitempty"`   // instead of Check: each for itself
	Log         LogMode       `json:"log,omitempty"`      // where its output goes
	LogFile     string        `json:"log_file,omitempty"` // where the program logs by itself, or with LogFile its output goes
	LogSize     int64         `json:"log_size,omitempty"` // bytes of a file of its output when it is rotated; 0: exec/logs.DefaultSize
	LogKeep     int           `json:"log_keep,omitempty"` // rotated files that are kept; 0: exec/logs.DefaultKeep
}

// LogMode is where the output of a service goes; "" is LogCapture.
type LogMode string

// Where output goes.
const (
	LogCapture LogMode = "capture" // exec reads it: bounded, rotated, in memory too
	LogFile    LogMode = "file"    // straight to a file; p2pnode only reads its end
)

// Limits bound what a service may use; a nil one is not set. NoFile, Core and
// Memory hold for each of its processes.
type Limits struct {
	NoFile *uint64 `json:"nofile,omitempty"` // open descriptors
	Core   *uint64 `json:"core,omitempty"`   // bytes of a core dump
	Memory *uint64 `json:"memory,omitempty"` // bytes of private memory (RLIMIT_DATA)
	PIDs   *uint64 `json:"pids,omitempty"`   // processes and threads of all of it, where a cgroup holds them; else of its user
	CPU    *uint64 `json:"cpu,omitempty"`    // thousandths of a core that all of it may use, where a cgroup holds them

	MemoryTotal *uint64 `json:"memory_total,omitempty"` // bytes of RAM that all of it may use, where a cgroup holds them
}

// Unlimited lifts a limit.
const Unlimited = ^uint64(0)

// Defaults of a service, as INTERFACE documents them.
const (
	DefaultStartWithin = 60 * time.Second
	DefaultStopGrace   = 5 * time.Second
	DefaultStopTimeout = 10 * time.Second
	DefaultCheckEvery  = time.Second
	DefaultFailures    = 3
	DefaultJitterPart  = 10 // a tenth of Every
	DefaultNewer       = 10 * time.Second
)

// Check is a question put to a service over and over. Exactly one of HTTP, TCP,
// Exec, Unix, GRPC and File is set.
type Check struct {
	HTTP     string        `json:"http,omitempty"`   // URL; 2xx and 3xx are good
	Status   []StatusRange `json:"status,omitempty"` // instead of those, of HTTP
	Body     string        `json:"body,omitempty"`   // must be in the first 64 KiB of HTTP's answer
	TCP      string        `json:"tcp,omitempty"`    // address; Send is written, Expect must come back (any byte if "")
	Send     string        `json:"send,omitempty"`
	Expect   string        `json:"expect,omitempty"`
	Exec     []string      `json:"exec,omitempty"`    // run as the service is; exit 0 is good
	Unix     string        `json:"unix,omitempty"`    // path; Send and Expect as for TCP
	GRPC     string        `json:"grpc,omitempty"`    // address; grpc.health.v1 without TLS must say SERVING
	Service  string        `json:"service,omitempty"` // that GRPC is asked about; "" is the whole server
	File     string        `json:"file,omitempty"`    // path that the service touches
	Newer    time.Duration `json:"newer,omitempty"`   // File must be at most this old
	Every    time.Duration `json:"every"`
	Jitter   time.Duration `json:"jitter"` // a question comes up to this much after Every, so that hosts do not ask in step; 0: never
	Timeout  time.Duration `json:"timeout"`
	Failures int           `json:"failures"`          // in a row
	Good     int           `json:"successes"`         // in a row, that make it ready: at its start, and after failures
	Unready  bool          `json:"unready,omitempty"` // failures make it unready and nothing more: it is not restarted for them
}

// Checks are the questions whether a service has started, is ready and lives; what is
// nil is not asked. At least one is set.
type Checks struct {
	Start *Check `json:"start,omitempty"` // until its first success; the others are not asked before
	Ready *Check `json:"ready,omitempty"` // failures make it unready; without it what Live, else Start, says makes it ready
	Live  *Check `json:"live,omitempty"`  // failures make it hung: it is restarted
}

// The names of the three.
const (
	CheckStart = "start"
	CheckReady = "ready"
	CheckLive  = "live"
)

// EachCheck yields what a service is asked: its Check under the name "", or its Checks
// in the order of a life.
func (s *ServiceSpec) EachCheck(yield func(which string, c *Check) bool) {
	ask := func(which string, c *Check) bool { return c == nil || yield(which, c) }
	three := s.Checks
	if three == nil {
		three = &Checks{}
	}
	if ask("", s.Check) && ask(CheckStart, three.Start) && ask(CheckReady, three.Ready) {
		ask(CheckLive, three.Live)
	}
}

// OwnChecks gives s checks that no other spec has, so that they may be changed.
func (s *ServiceSpec) OwnChecks() {
	own := func(c *Check) *Check {
		if c == nil {
			return nil
		}
		return new(*c)
	}
	s.Check = own(s.Check)
	if c := s.Checks; c != nil {
		s.Checks = &Checks{own(c.Start), own(c.Ready), own(c.Live)}
	}
}

// Asked reports whether s has a check.
func (s *ServiceSpec) Asked() bool {
	for range s.EachCheck {
		return true
	}
	return false
}

// StatusRange is HTTP status codes from Low to High, both included.
type StatusRange struct {
	Low  int `json:"low"`
	High int `json:"high"`
}

// RestartPolicy says when an ended service is started again.
type RestartPolicy string

// RecoverMode says who restarts a failed service.
type RecoverMode string

// ReadyMode says what makes a started service ready.
type ReadyMode string

// The policies and modes.
const (
	RestartAlways    RestartPolicy = "always"
	RestartOnFailure RestartPolicy = "on-failure"
	RestartNo        RestartPolicy = "no"

	RecoverAgent RecoverMode = "agent" // an agent, or exec alone after the grace
	RecoverLocal RecoverMode = "local" // exec at once
	RecoverOff   RecoverMode = "off"   // watch and report only

	ReadyCheck   ReadyMode = "check"
	ReadyNotify  ReadyMode = "notify"
	ReadyStarted ReadyMode = "started"
)

// Order is what s is started after: After, and what it requires.
func (s ServiceSpec) Order() []string {
	out := slices.Clone(s.After)
	for _, name := range s.Requires {
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}

var serviceName = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[0-9]+)?$`)

// ValidServiceName reports whether s may name a service.
func ValidServiceName(s string) bool { return len(s) <= 64 && serviceName.MatchString(s) }

// Grace is how long exec leaves a failure to agents before it acts alone.
type Grace struct {
	Agent    time.Duration `json:"agent"`     // a service that failed (default 50 ms)
	Node     time.Duration `json:"node"`      // the node process is dead (default 1 s)
	NodeStop time.Duration `json:"node_stop"` // the node process is stopped (default 10 s)
}

// DefaultGrace is what holds where the config says nothing.
func DefaultGrace() Grace {
	return Grace{Agent: 50 * time.Millisecond, Node: time.Second, NodeStop: 10 * time.Second}
}

// ServiceStatus is one service as `ps` shows it.
type ServiceStatus struct {
	Node             string            `json:"node"`
	Name             string            `json:"name"`
	State            ServiceState      `json:"state"`
	PID              int               `json:"pid,omitempty"`
	Incarnation      string            `json:"incarnation,omitempty"`
	Adopted          bool              `json:"adopted"`
	Restarts         int               `json:"restarts"`
	Since            time.Time         `json:"since,omitzero"`
	Labels           map[string]string `json:"labels"`
	Recover          RecoverMode       `json:"recover,omitempty"`
	Observe          bool              `json:"observe"`
	MaintenanceUntil time.Time         `json:"maintenance_until,omitzero"`
	LastExit         *Exit             `json:"last_exit,omitempty"`
	Check            *CheckStatus      `json:"check,omitempty"`
	NextTry          time.Time         `json:"next_try,omitzero"`
	Why              string            `json:"why,omitempty"`         // why it is not up, in one phrase
	StatusText       string            `json:"status_text,omitempty"` // what this life says of itself (sd_notify STATUS)
	StoppedAt        time.Time         `json:"stopped_at,omitzero"`   // by a person, on purpose
	StoppedBy        string            `json:"stopped_by,omitempty"`  // his name on this host
	Usage            *Usage            `json:"usage,omitempty"`
	LogDropped       uint64            `json:"log_dropped,omitempty"`  // bytes of output that the disk refused, since exec's start
	LogLeftOut       uint64            `json:"log_left_out,omitempty"` // bytes that were too many in one second for the file
}

// Usage is what a service's processes use, all together.
type Usage struct {
	CPUPercent float64 `json:"cpu_percent"`  // of one core, since it was last asked (at least a second ago), at first since its start
	CPUMS      int64   `json:"cpu_ms"`       // of all living processes and the children that they have waited for
	Memory     uint64  `json:"memory_bytes"` // what is private to each, and of what they share the largest part
	Processes  int     `json:"processes"`
}

// CheckStatus is the last word of a service's check; of several that of the worst.
type CheckStatus struct {
	Which     string `json:"which,omitempty"` // start | ready | live: that one of checks does not pass
	State     string `json:"state"`           // passing | failing | pending
	LastError string `json:"last_error,omitempty"`
}

// ExecStatus is a host as its exec sees it, without the network.
type ExecStatus struct {
	PID        int             `json:"pid"`
	Version    string          `json:"version,omitempty"` // of the binary that works
	Supervised bool            `json:"supervised"`
	Observe    bool            `json:"observe,omitempty"`
	Degraded   []string        `json:"degraded,omitempty"` // e.g. "disk: ..."
	Node       ServiceStatus   `json:"node_process"`       // @node
	NodeLife   Life            `json:"node_life,omitzero"` // life that the node process last said
	Door       ServiceStatus   `json:"door_process"`       // @door
	Services   []ServiceStatus `json:"services"`
	Upgrade    *Upgrade        `json:"upgrade,omitempty"` // the newest one; nil where there was none

	DoorRefused map[string]uint64 `json:"door_refused,omitempty"` // by the door process that runs, by reason
}

// Refusals are those of others and the door's, as door-REASON; others may be nil.
func (st ExecStatus) Refusals(others map[string]uint64) map[string]uint64 {
	if len(st.DoorRefused) == 0 {
		return others
	}
	out := maps.Clone(others)
	if out == nil {
		out = map[string]uint64{}
	}
	for reason, n := range st.DoorRefused {
		out["door-"+reason] = n
	}
	return out
}
