package exec

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"p2pnode"

	"golang.org/x/sys/unix"
)

// Limits and the OOM score belong to a process, so they are set by the child
// itself, between fork and exec: exec forks this binary as a launcher, which sets
// them, becomes the service's user and then the service, under the same pid. It
// says on a pipe what it could not do; the pipe closes when the service runs. A
// launcher costs a start some 8 ms, so only services that need one have one.

// launchPlan is what a launcher is told, as JSON in its first argument; the rest
// of its arguments is the service's argv.
type launchPlan struct {
	Path   string         `json:"path"`
	Limits p2pnode.Limits `json:"limits,omitzero"`
	OOM    *int           `json:"oom_score,omitempty"`
	As     *credentials   `json:"as,omitempty"`
	Join   []string       `json:"join,omitempty"` // cgroup.procs of groups that hold limits on all of the service
}

// credentials is who a service runs as.
type credentials struct {
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups"`
}

// launchPipe is the descriptor on which a launcher tells what went wrong.
const launchPipe = 3

func (l *launch) needsLauncher() bool {
	return l.limits != p2pnode.Limits{} || l.oom != nil || len(l.join) > 0
}

// throughLauncher rewrites a fork to go by a launcher and returns what waits for
// its word.
func (l *launch) throughLauncher(attr *syscall.ProcAttr) (path string, argv []string, word func() error, err error) {
	if len(l.launcher) == 0 {
		return "", nil, nil, errors.New("this exec has no launcher, which limits and oom_score want")
	}
	raw, err := json.Marshal(launchPlan{Path: l.path, Limits: l.limits, OOM: l.oom, As: l.as, Join: l.join})
	if err != nil {
		return "", nil, nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return "", nil, nil, err
	}
	attr.Files[launchPipe] = w.Fd()
	attr.Sys.Credential = nil // it becomes the user itself: some limits want root
	word = func() error {
		w.Close()
		defer r.Close()
		said, err := io.ReadAll(io.LimitReader(r, 4096))
		if err != nil || len(said) == 0 {
			return err
		}
		return launchError(l, string(said))
	}
	return l.launcher[0], append(append(l.launcher[:len(l.launcher):len(l.launcher)], string(raw)), l.argv...), word, nil
}

// launchError reads what a launcher said: an errno, a space, a sentence.
func launchError(l *launch, said string) error {
	number, text, _ := strings.Cut(said, " ")
	n, _ := strconv.Atoi(number)
	if text == "" {
		return whyNot(*l, syscall.Errno(n))
	}
	return &cannotRun{startMissing, text}
}

// Launch is the launcher: it does what the plan in args says and becomes the
// service. It returns only when it could not; exec has been told then.
func Launch(args []string) error {
	err := launchAs(args)
	number, text := 0, err.Error()
	if e, ok := errors.AsType[execError](err); ok {
		number, text = int(e.errno), ""
	}
	fmt.Fprintf(os.NewFile(launchPipe, "launch"), "%d %s", number, text)
	return err
}

// execError is a program that does not run: exec words it as it does for a plain
// fork.
type execError struct{ errno syscall.Errno }

func (e execError) Error() string { return e.errno.Error() }

func launchAs(args []string) error {
	var plan launchPlan
	if len(args) < 2 || json.Unmarshal([]byte(args[0]), &plan) != nil {
		return errors.New("only p2pnode starts this: it is no command for people")
	}
	syscall.CloseOnExec(launchPipe)
	runtime.LockOSThread()
	for _, group := range plan.Join {
		if err := os.WriteFile(group, []byte("0"), 0); err != nil {
			return fmt.Errorf("limits: cannot join %w", err)
		}
	}
	for _, limit := range []struct {
		name  string
		which int
		value *uint64
	}{
		{"nofile", unix.RLIMIT_NOFILE, plan.Limits.NoFile},
		{"core", unix.RLIMIT_CORE, plan.Limits.Core},
		{"memory", unix.RLIMIT_DATA, plan.Limits.Memory},
		{"pids", unix.RLIMIT_NPROC, plan.Limits.PIDs},
	} {
		if limit.value == nil {
			continue
		}
		// The package syscall's: it then knows that the descriptors' limit is not
		// its own to give back at exec.
		if err := syscall.Setrlimit(limit.which, &syscall.Rlimit{Cur: *limit.value, Max: *limit.value}); err != nil {
			return fmt.Errorf("limits: %s is refused (%w): above the limit that p2pnode itself has it wants root", limit.name, err)
		}
	}
	if plan.OOM != nil {
		if err := os.WriteFile("/proc/self/oom_score_adj", []byte(strconv.Itoa(*plan.OOM)), 0); err != nil {
			return fmt.Errorf("oom_score %d is refused (%w): lower than p2pnode's own it wants root", *plan.OOM, err)
		}
	}
	if err := plan.As.become(); err != nil {
		return fmt.Errorf("cannot become its user: %w", err)
	}
	err := syscall.Exec(plan.Path, args[1:], os.Environ())
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return execError{errno}
	}
	return err
}

func (c *credentials) become() error {
	if c == nil {
		return nil
	}
	groups := make([]int, len(c.Groups))
	for i, g := range c.Groups {
		groups[i] = int(g)
	}
	return errors.Join(syscall.Setgroups(groups), syscall.Setresgid(int(c.GID), int(c.GID), int(c.GID)), syscall.Setresuid(int(c.UID), int(c.UID), int(c.UID)))
}
