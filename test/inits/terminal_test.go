package inits

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"p2pnode/test/host"
)

// terminal is a new one: what a person holds, and what programs get.
func terminal(t *testing.T) (person, slave *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0) // so that Close ends a Read
	if err != nil {
		t.Fatal(err)
	}
	person = os.NewFile(uintptr(fd), "terminal")
	t.Cleanup(func() { person.Close() })
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return person, slave
}

// sits is a p2pnode at a terminal.
type sits struct {
	*host.Host
	t      *testing.T
	cmd    *exec.Cmd
	person *os.File
}

// atTerminal starts it there; prefix is what starts it.
func atTerminal(t *testing.T, prefix ...string) *sits {
	t.Helper()
	h := newHost(t)
	person, slave := terminal(t)
	defer slave.Close()
	h.Prefix = prefix
	cmd := h.Daemon(alone...)
	h.Prefix = nil
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.Dir = h.Fleet.Dir // nohup would write a file here
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &sits{Host: h, t: t, cmd: cmd, person: person}
	go io.Copy(io.Discard, person) // ends with the terminal
	settled(h)
	return s
}

func (s *sits) types(key byte) {
	s.t.Helper()
	if _, err := s.person.Write([]byte{key}); err != nil {
		s.t.Fatal(err)
	}
}

// ends waits for the end of what was started, and says its exit code.
func (s *sits) ends() int {
	s.t.Helper()
	done := make(chan error, 1)
	go func() { done <- s.cmd.Wait() }()
	var err error
	if !host.Eventually(patience, func() bool {
		select {
		case err = <-done:
			return true
		default:
			return false
		}
	}) {
		s.t.Fatalf("it does not end within %v", patience)
	}
	if x, ok := errors.AsType[*exec.ExitError](err); ok {
		return x.ExitCode()
	}
	return 0
}

const ctrlC, ctrlBackslash, ctrlZ = 0x03, 0x1c, 0x1a

// Ctrl-C and a terminal that is closed end everything in order; Ctrl-Z does nothing.
func TestTerminal(t *testing.T) {
	for _, end := range []struct {
		name string
		how  func(*sits)
		code int
	}{
		{"Ctrl-C", func(s *sits) { s.types(ctrlC) }, 0},
		{"SIGHUP", func(s *sits) { syscall.Kill(settled(s.Host).exec, syscall.SIGHUP) }, 0},
		{"closed", func(s *sits) { s.person.Close() }, 0},
	} {
		t.Run(end.name, func(t *testing.T) {
			t.Parallel()
			s := atTerminal(t)
			was := settled(s.Host)
			s.types(ctrlZ)
			if now := settled(s.Host); now != was {
				t.Errorf("after Ctrl-Z: %+v, was %+v", now, was)
			}
			end.how(s)
			if code := s.ends(); code != end.code {
				t.Errorf("exit %d", code)
			}
			empty(s.Host, "after its end")
		})
	}
}

// A shell that loses its terminal tells its jobs, and a moment has passed.
func TestShellLosesItsTerminal(t *testing.T) {
	t.Parallel()
	s := atTerminal(t, "bash", "--norc", "-m", "-c", `trap 'kill -HUP $!; wait' HUP; "$@" & wait`, "bash")
	s.person.Close()
	s.ends()
	empty(s.Host, "after the shell's terminal was closed")
}

// Under nohup the terminal's end is nothing to it, and SIGHUP means reload.
func TestNohup(t *testing.T) {
	t.Parallel()
	s := atTerminal(t, "nohup")
	was := settled(s.Host)
	s.person.Close()
	s.Configure(config + "  more:\n    command: [sleep, \"100000\"]\n")
	s.Fleet.Must(patience, "a reload starts what is new", func() bool {
		syscall.Kill(was.exec, syscall.SIGHUP)
		var out string
		out, _, _ = s.Run("ps", "-o", "name")
		return out != "" && len(out) > len("web\n")
	})
	if now := settled(s.Host); now != was {
		t.Errorf("%+v, was %+v", now, was)
	}
	// A daemon without a terminal is ended from anywhere.
	s.OK("shutdown")
	if code := s.ends(); code != 0 {
		t.Errorf("exit %d", code)
	}
	empty(s.Host, "after shutdown")
}

// Ctrl-\ ends exec alone, with its stacks; the rest lives on and the door brings it
// back, without a terminal.
func TestTerminalQuit(t *testing.T) {
	t.Parallel()
	s := atTerminal(t)
	was := look(s.Host)
	s.types(ctrlBackslash)
	if code := s.ends(); code != 2 {
		t.Errorf("exit %d", code)
	}
	becomes(s.Host, "exec is back", func(p pids) bool { return p.exec != was.exec && p == pids{p.exec, was.door, was.node, was.web} })
	s.OK("shutdown")
	empty(s.Host, "after shutdown")
}
