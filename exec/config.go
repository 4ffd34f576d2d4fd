package exec

import (
	"io"
	"os"
	"path/filepath"
	"time"

	"p2pnode"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// Config is what Run needs to know.
type Config struct {
	// Dir is the data folder. Two daemons on one Dir are refused; a Dir on a
	// network file system makes locks and FIFOs unreliable.
	Dir string
	// NodeName is the host's name in `ps` and in what services are told.
	NodeName string
	// Version is the binary's, as `version` says it.
	Version string
	// Built is when this program was built: a clock that stands before it is wrong and
	// does not make an ended manager's certificate good again. Zero: unknown.
	Built time.Time
	// Services are the declared services; names must be unique.
	Services []p2pnode.ServiceSpec
	// Grace is how long agents have before exec acts alone; too short and agents
	// never get to act, too long and a sick host waits.
	Grace p2pnode.Grace
	// ShutdownTimeout is the one deadline of an orderly stop (default 8 s). Longer
	// than what an init allows that cannot be asked for more, as systemd can, and that
	// one kills exec in the middle of it.
	ShutdownTimeout time.Duration
	// Observe makes exec say what it would do and do nothing, for the whole host.
	Observe bool
	// Load re-reads the config file for a reload; nil refuses reloads.
	Load func() (Loaded, error)
	// NodeArgv and DoorArgv start the roles; empty means no such process.
	NodeArgv, DoorArgv []string
	// RoleEnv is added to the environment of the roles (K=V).
	RoleEnv []string
	// LaunchArgv leads to Launch in this binary: it starts the services that have
	// limits. Empty: they cannot be started.
	LaunchArgv []string
	// SelfArgv is how a guard starts exec again, without --leash; its first
	// element is ignored. Empty: nobody starts it again.
	SelfArgv []string
	// Supervised says whether an init restarts exec: auto, yes or no.
	Supervised string
	// Leash ends everything when its other end closes; nil means none.
	Leash *os.File
	// Echo gets a copy of all services' output (in a container); nil means none.
	Echo io.Writer
	// RoleEcho gets a copy of what door and node process log, so that who looks at
	// the terminal or the journal sees it; nil means none.
	RoleEcho io.Writer
	// Log is silent in its zero value.
	Log zerolog.Logger
	// History may be nil.
	History *p2pnode.History
	// Metrics may be nil.
	Metrics prometheus.Registerer
}

// Loaded is what a reload reads.
type Loaded struct {
	Services []p2pnode.ServiceSpec
	Grace    p2pnode.Grace
	Observe  bool
	Later    []string // settings that are others now and hold from p2pnode's next start
	// Applied is called once what was read holds; nil asks for nothing.
	Applied func()
}

func (c *Config) validate() error {
	if c.ShutdownTimeout <= 0 {
		c.ShutdownTimeout = 8 * time.Second
	}
	if c.Supervised == "" {
		c.Supervised = "auto"
	}
	return validServices(c.Services)
}

func validServices(specs []p2pnode.ServiceSpec) error {
	if len(specs) > maxServices {
		return &p2pnode.Error{Code: "too-many-services", Text: "more services are declared than one host may have (512)", Exit: p2pnode.ExitUsage}
	}
	seen := map[string]bool{}
	for _, s := range specs {
		bad := func(code, text, fix string) error {
			return &p2pnode.Error{Code: code, Text: text, Fix: fix, Exit: p2pnode.ExitUsage}
		}
		switch {
		case !p2pnode.ValidServiceName(s.Name):
			return bad("bad-service-name", "service name "+quoted(s.Name)+" is not allowed", "use letters, digits, _ and -")
		case seen[s.Name]:
			return bad("duplicate-service", "service "+quoted(s.Name)+" is declared twice", "rename one of them")
		case len(s.Command) == 0:
			return bad("no-command", "service "+quoted(s.Name)+" has no command", "give it command: [...]")
		}
		seen[s.Name] = true
	}
	for _, s := range specs {
		for _, dep := range s.Order() {
			if !seen[dep] {
				return &p2pnode.Error{
					Code: "unknown-service", Text: "service " + quoted(s.Name) + " is to start after " + quoted(dep) + ", which is not declared",
					Fix: "declare it or take it out of after: and requires:", Exit: p2pnode.ExitUsage,
				}
			}
		}
	}
	if loop := afterLoop(specs); loop != "" {
		return &p2pnode.Error{Code: "after-loop", Text: "service " + quoted(loop) + " waits for itself through after: or requires:", Fix: "break the circle", Exit: p2pnode.ExitUsage}
	}
	return nil
}

// afterLoop names a service on a cycle of after, or "".
func afterLoop(specs []p2pnode.ServiceSpec) string {
	after := map[string][]string{}
	for _, s := range specs {
		after[s.Name] = s.Order()
	}
	const visiting, done = 1, 2
	mark := map[string]int{}
	var visit func(string) string
	visit = func(name string) string {
		switch mark[name] {
		case visiting:
			return name
		case done:
			return ""
		}
		mark[name] = visiting
		for _, dep := range after[name] {
			if found := visit(dep); found != "" {
				return found
			}
		}
		mark[name] = done
		return ""
	}
	for _, s := range specs {
		if found := visit(s.Name); found != "" {
			return found
		}
	}
	return ""
}

func quoted(s string) string { return `"` + s + `"` }

// The folders of a data folder that exec uses.
func runDir(dir string) string   { return filepath.Join(dir, "run") }
func stateDir(dir string) string { return filepath.Join(dir, "exec") }
func logDir(dir string) string   { return filepath.Join(dir, "logs") }

// SocketPath is where exec of the data folder dir listens.
func SocketPath(dir string) string { return filepath.Join(runDir(dir), "exec.sock") }
