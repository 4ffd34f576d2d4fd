package exec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// On a host with cgroup v2 alone a controller is handed on only by a group without
// processes, and exec's own group, the unit that systemd starts it in, has exec. So
// services with limits on all of their processes live in a scope beside that unit: a
// transient unit with Delegate=, which systemd makes when it is asked to and in which it
// never starts anything (docs/adr/0013).
//
//	system.slice/
//	  p2pnode.service/            exec, door, node process
//	    p2pnode-TAG/web@3         services without such limits
//	  p2pnode-TAG-WHEN.scope/     no process of its own
//	    hold                      who keeps it open, as long as exec lives
//	    db@7                      services with limits
//
// systemd ends a scope that is empty. So an exec puts services only into one that it
// asked for itself and holds open; those of execs before it end with their last service.
type scopes struct {
	root  string // of the v2 hierarchy
	slice string // path of the slice that exec's unit is in
	unit  string // exec's unit, "" where no systemd started it
	name  string // how the names of our scopes begin

	known atomic.Pointer[[]string] // folders of ours, also of execs before this one

	wait    time.Duration // how long systemd may take
	asking  chan struct{} // of one: whoever asks systemd, or looks at what follows, has it
	held    *scope        // the one for what is started now
	refused error         // what systemd said last, if it was no
	refusal time.Time
}

// scope is one that this exec holds open, by a child in it that waits for the end of its
// input: exec's death is that, too.
type scope struct {
	dir   string
	child *osexec.Cmd
	ended chan struct{} // closed when the child has ended
}

// openScopes finds the scopes of a data folder beside the unit that owns the group own.
func openScopes(root, own, tag string) *scopes {
	s := &scopes{root: root, name: "p2pnode-" + tag + "-", wait: scopeWait, asking: make(chan struct{}, 1)}
	s.slice, s.unit = unitOf(own)
	var there []string
	if s.unit != "" {
		for _, name := range namesIn(filepath.Join(root, s.slice)) {
			if strings.HasPrefix(name, s.name) && strings.HasSuffix(name, ".scope") {
				there = append(there, filepath.Join(root, s.slice, name))
			}
		}
		slices.Sort(there)
	}
	s.known.Store(&there)
	return s
}

// unitOf is the slice and the unit of a group in the tree of a systemd that is PID 1.
func unitOf(group string) (slice, unit string) {
	for part := range strings.SplitSeq(strings.TrimPrefix(group, "/"), "/") {
		if strings.HasSuffix(part, ".slice") {
			slice = filepath.Join(slice, part)
			continue
		}
		if isUnit(part) {
			unit = part
		}
		break
	}
	return slice, unit
}

// isUnit reports whether a group of this name is a unit of systemd's with processes.
func isUnit(group string) bool {
	return strings.HasSuffix(group, ".service") || strings.HasSuffix(group, ".scope")
}

// folders are the scopes of ours.
func (s *scopes) folders() []string {
	if s == nil {
		return nil
	}
	return *s.known.Load()
}

// hold returns the folder of a scope that this exec holds open and that has a
// controller. It asks systemd where there is none yet, as long as s.wait at most.
func (s *scopes) hold(ctx context.Context, controller string) (string, error) {
	if s == nil || s.unit == "" || os.Geteuid() != 0 || !listed(filepath.Join(s.root, "cgroup.controllers"), controller) {
		return "", errNoGroup
	}
	select {
	case s.asking <- struct{}{}:
		defer func() { <-s.asking }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if s.held == nil || s.held.over() {
		if s.refused != nil && time.Since(s.refusal) < s.wait {
			return "", s.refused // who queued up behind a question does not ask it again
		}
		held, err := s.open(ctx)
		if ctx.Err() != nil && err != nil {
			return "", ctx.Err() // systemd said nothing yet
		}
		if s.refused, s.refusal = err, time.Now(); err != nil {
			return "", err
		}
		s.held = held
		there := slices.DeleteFunc(slices.Clone(s.folders()), func(dir string) bool { _, err := os.Stat(dir); return err != nil })
		there = append(there, held.dir)
		s.known.Store(&there)
	}
	if err := os.WriteFile(filepath.Join(s.held.dir, "cgroup.subtree_control"), []byte("+"+controller), 0); err != nil {
		return "", fmt.Errorf("the scope that systemd gave has no %s controller: %w", controller, err)
	}
	return s.held.dir, nil
}

// errNoGroup is a host, or an exec, that can have no group with the controller.
var errNoGroup = errors.New("that wants root, and the controller")

// listed reports whether a file of controllers names one.
func listed(file, controller string) bool {
	raw, _ := os.ReadFile(file)
	return slices.Contains(strings.Fields(string(raw)), controller)
}

// open asks systemd for a scope. The program that asks is in it from then on, and
// becomes cat, which says so by what it prints.
func (s *scopes) open(ctx context.Context) (*scope, error) {
	name := s.name + strconv.FormatInt(time.Now().UnixMilli(), 36) + ".scope"
	slice := filepath.Base(s.slice)
	if s.slice == "" {
		slice = "-.slice"
	}
	// At a shutdown of the host what is ordered before the unit is stopped after it: exec
	// stops its services itself.
	cmd := osexec.Command("systemd-run", "--scope", "--quiet", "--collect", "--unit="+name, "--slice="+slice,
		"--description=p2pnode: services with limits", "--property=Before="+s.unit,
		"--property=Delegate=cpu memory pids", "--property=TasksMax=infinity", "--", "cat")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, w, err := os.Pipe()
	if err != nil {
		in.Close()
		return nil, err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start() // closes in where it fails
	w.Close()
	if err != nil {
		return nil, fmt.Errorf("systemd cannot be asked for a scope: %w", err)
	}
	held := &scope{child: cmd, ended: make(chan struct{})}
	go func() {
		cmd.Wait()
		close(held.ended)
	}()
	if held.dir, err = s.enter(ctx, held, name, in, out); err != nil {
		held.close()
		return nil, err
	}
	return held, nil
}

// enter waits until the child is in the scope, and moves it to a group below: a group
// with processes hands no controller on.
func (s *scopes) enter(ctx context.Context, held *scope, name string, in io.Writer, out *os.File) (dir string, err error) {
	const word = "held\n"
	io.WriteString(in, word)
	out.SetReadDeadline(time.Now().Add(s.wait))
	defer context.AfterFunc(ctx, func() { out.SetReadDeadline(time.Now()) })()
	var said []byte
	for buf := make([]byte, 512); !bytes.HasSuffix(said, []byte(word)); {
		n, err := out.Read(buf)
		if said = append(said, buf[:n]...); err == nil && len(said) < maxWhy {
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return "", fmt.Errorf("systemd gives no scope within %v", s.wait)
		}
		return "", fmt.Errorf("systemd gives no scope: %s", firstLine(said, err))
	}
	pid := strconv.Itoa(held.child.Process.Pid)
	dir = filepath.Join(s.root, groupsOf(pid).v2)
	if filepath.Base(dir) != name {
		return "", fmt.Errorf("systemd gives no scope: what was to be in %s is in %s", name, dir)
	}
	leaf := filepath.Join(dir, "hold")
	if err = os.Mkdir(leaf, 0o755); err == nil {
		err = os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte(pid), 0)
	}
	return dir, err
}

func (h *scope) over() bool {
	select {
	case <-h.ended:
		return true
	default:
		return false
	}
}

func (h *scope) close() {
	h.child.Process.Kill()
	<-h.ended
}

// close lets go of the scope: what is in it lives on, and systemd takes it away when it
// is empty.
func (s *scopes) close() {
	if s != nil && s.held != nil {
		s.held.close()
	}
}
