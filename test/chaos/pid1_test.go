package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// orphans is how many children of ended children a service leaves behind.
const orphans = 20

// stopWithin is what docker stop waits before it kills.
const stopWithin = 10 * time.Second

// The static binary as the first process of a container, and behind docker's own
// init: what orphans leave is reaped, each signal has the effect that
// docs/OPERATIONS.md names, services are told to stop one after the other, and the
// container ends with the documented code before docker loses patience. When exec is
// killed the container ends. An image takes longer than all of this: it is that of
// another test.
func (f *Fleet) firstProcesses(t *testing.T) {
	for _, c := range []struct {
		name  string
		flags []string
		end   func(b *Box) error
		code  int
		order []string // what the services were told, by time
	}{
		{"docker stop", nil, stop, 0, []string{"web.ledger terminated", "db.ledger interrupt"}},
		{"docker stop behind an init", []string{"--init"}, stop, 0, []string{"web.ledger terminated", "db.ledger interrupt"}},
		{"SIGINT", nil, sent(syscall.SIGINT), 0, []string{"web.ledger terminated", "db.ledger interrupt"}},
		{"SIGHUP and shutdown", nil, reloadedAndShutDown, 0, []string{"web.ledger terminated", "db.ledger interrupt"}},
		{"SIGKILL of exec behind an init", []string{"--init"}, killed, 137, nil},
	} {
		b := f.first(strings.ReplaceAll(c.name, " ", "-"), c.flags...)
		t.Run(c.name, func(t *testing.T) {
			f.eventually(20*time.Second, "its services are up", func() bool {
				return len(b.find("web")) == 1 && len(b.find("db")) == 1 && len(b.find("stubborn")) == 1
			})
			f.eventually(10*time.Second, "no orphan is left, dead or alive", func() bool {
				_, err := os.Stat(filepath.Join(b.folder, "web.ledger")) // signed when they have been left
				return err == nil && len(b.strays()) == 0
			})
			if f.docker("exec", b.container, "/p2pnode", "ps", "-o", "json"); len(b.strays()) > 0 {
				t.Errorf("left by docker exec: %v", b.strays())
			}
			began := time.Now()
			if err := c.end(b); err != nil {
				t.Fatal(err)
			}
			f.eventually(2*stopWithin, "the container has ended", func() bool { return f.docker("inspect", "-f", "{{.State.Running}}", b.container) == "false" })
			took := time.Since(began)
			if code := f.docker("inspect", "-f", "{{.State.ExitCode}}", b.container); code != strconv.Itoa(c.code) {
				t.Errorf("the container's exit code is %s, want %d", code, c.code)
			}
			if took > stopWithin {
				t.Errorf("it took %v", took)
			}
			raw, _ := os.ReadFile(filepath.Join(b.folder, "bye"))
			if told := strings.Split(strings.TrimSpace(string(raw)), "\n"); c.order != nil && !slices.Equal(told, c.order) {
				t.Errorf("services were told %q, want %q", told, c.order)
			}
			t.Logf("ended after %d ms", took.Milliseconds())
		})
	}
}

// first starts a container with three services, one of which ignores what it is told.
func (f *Fleet) first(name string, flags ...string) *Box {
	f.t.Helper()
	b := &Box{Name: name, fleet: f, container: f.run + "-" + name, folder: filepath.Join(f.dir, name)}
	f.must(os.Mkdir(b.folder, 0o700))
	f.must(os.WriteFile(filepath.Join(b.folder, "p2pnode.yaml"), fmt.Appendf(nil, `shutdown_timeout: 3s
services:
  db: {command: [/victim, -ledger, /chaos/db.ledger, -bye, /chaos/bye], stop: {signal: INT}}
  web: {command: [/victim, -ledger, /chaos/web.ledger, -bye, /chaos/bye, -orphans, "%d"], after: [db]}
  stubborn: {command: [/victim, -ledger, /chaos/stubborn.ledger, -deaf], stop: {timeout: 500ms}}
`, orphans), 0o600))
	args := slices.Concat([]string{"run", "-d", "--name", b.container, "--label", label + "=" + f.run, "--network", f.run, "-v", b.folder + ":/chaos"}, flags,
		[]string{f.image, "--config", "/chaos/p2pnode.yaml", "--ephemeral", "no"})
	f.docker(args...)
	if err := b.started(); err != nil {
		out, _ := exec.Command("docker", "logs", b.container).CombinedOutput()
		f.t.Fatalf("%v: %s", err, out)
	}
	if slices.Contains(flags, "--init") { // exec is the init's only child
		f.eventually(10*time.Second, "the init starts exec", func() bool {
			for pid := range b.children() {
				b.pid = pid
				return true
			}
			return false
		})
	}
	return b
}

func stop(b *Box) error {
	_, err := docker("stop", b.container)
	return err
}

func sent(s syscall.Signal) func(b *Box) error {
	return func(b *Box) error { return syscall.Kill(b.PID(), s) }
}

// reloadedAndShutDown: SIGHUP is a reload, also of PID 1, and ends nothing; p2pnode
// shutdown, from inside, ends all.
func reloadedAndShutDown(b *Box) error {
	path := filepath.Join(b.folder, "p2pnode.yaml")
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	was := b.children()
	if err = os.WriteFile(path, append(raw, "  more: {command: [/victim, -ledger, /chaos/more.ledger]}\n"...), 0o600); err != nil {
		return err
	}
	if _, err = docker("kill", "--signal", "HUP", b.container); err != nil {
		return err
	}
	b.fleet.eventually(20*time.Second, "a reload starts what is new", func() bool { return len(b.find("more")) == 1 })
	for pid, argv := range was {
		if now := b.children()[pid]; !slices.Equal(now, argv) {
			return fmt.Errorf("after a reload %d is %q, was %q", pid, now, argv)
		}
	}
	docker("exec", b.container, "/p2pnode", "shutdown") // it may end with the container
	return nil
}

func killed(b *Box) error { return sent(syscall.SIGKILL)(b) }

// strays are the children of exec that are none of its own: ended and not waited for,
// or somebody else's orphans.
func (b *Box) strays() (out []string) {
	for pid, state := range childStates(b.PID()) {
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		argv := strings.ReplaceAll(strings.TrimRight(string(cmdline), "\x00"), "\x00", " ")
		if state == 'Z' || strings.HasSuffix(argv, " orphan") || strings.HasSuffix(argv, " parent") {
			out = append(out, fmt.Sprintf("%d %c %s", pid, state, argv))
		}
	}
	return out
}

// childStates are the children of a process, also those that have ended.
func childStates(of int) map[int]byte {
	out := map[int]byte{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		pid, rest, _ := strings.Cut(string(raw), " ")
		fields := strings.Fields(rest[strings.LastIndexByte(rest, ')')+1:])
		if n, err := strconv.Atoi(pid); err == nil && len(fields) > 1 && fields[1] == strconv.Itoa(of) {
			out[n] = fields[0][0]
		}
	}
	return out
}
