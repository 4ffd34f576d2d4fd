package inits

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"p2pnode/test/bin"
	"p2pnode/test/host"
	"p2pnode/test/need"
)

// supervisor is a program that starts what is in a service folder, and again.
type supervisor struct {
	program, pkg string
	finish       string // docs/OPERATIONS.md: what was ended on purpose is not started again
}

var supervisors = []supervisor{
	{"runsv", "runit", `[ "$1" != 0 ] || sv down .`},
	{"s6-supervise", "s6", `[ "$1" != 0 ] || exit 125`},
}

// under is a p2pnode whose exec a supervisor starts.
type under struct {
	supervisor
	*host.Host
	t      *testing.T
	folder string
	cmd    *exec.Cmd
}

func start(t *testing.T, s supervisor) *under {
	t.Helper()
	need.Program(t, s.program, s.pkg)
	h := newHost(t)
	u := &under{supervisor: s, Host: h, t: t, folder: h.Dir + ".service"}
	daemon := h.Daemon(append(alone, "--supervised", "yes")...)
	run := "#!/bin/sh\nexec >>" + h.Dir + ".log 2>&1 " + strings.Join(daemon.Args, " ") + "\n"
	if err := os.Mkdir(u.folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"run": run, "finish": "#!/bin/sh\n" + s.finish + "\n"} {
		bin.Write(t, filepath.Join(u.folder, name), []byte(text))
	}
	u.supervise(daemon)
	return u
}

// supervise starts the supervisor, which has the leash as p2pnode does.
func (u *under) supervise(daemon *exec.Cmd) {
	u.t.Helper()
	u.cmd = exec.Command(u.program, u.folder)
	u.cmd.Env, u.cmd.ExtraFiles = daemon.Env, daemon.ExtraFiles
	u.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := u.cmd.Start(); err != nil {
		u.t.Fatal(err)
	}
	u.t.Cleanup(func() { u.cmd.Process.Kill(); u.cmd.Wait() }) // once more is no harm
}

// Under an init that restarts at once: an exec that is killed is followed by exactly
// one, which adopts everything; when the init itself was killed, the exec of the next
// one waits for its turn and does not fail; and a shutdown is final where a finish says
// so.
func TestSupervisors(t *testing.T) {
	for _, s := range supervisors {
		t.Run(s.program, func(t *testing.T) {
			t.Parallel()
			u := start(t, s)
			was := settled(u.Host)
			for range 3 {
				if p := host.Parent(was.exec); p != u.cmd.Process.Pid {
					t.Fatalf("exec %d is a child of %d, not of %s", was.exec, p, s.program)
				}
				syscall.Kill(was.exec, syscall.SIGKILL)
				was = becomes(u.Host, "exec is back", func(p pids) bool { return p.exec != was.exec && p == pids{p.exec, was.door, was.node, was.web} })
			}
			stays(t, "one exec", func() bool { return slices.Equal(execs(u.Host), []int{was.exec}) })

			u.cmd.Process.Kill()
			u.cmd.Wait()
			u.supervise(u.Daemon())
			var both []int
			u.Fleet.Must(patience, "the next init's exec is there", func() bool { both = execs(u.Host); return len(both) == 2 })
			stays(t, "the next init's exec waits for its turn", func() bool {
				return slices.Equal(execs(u.Host), both) && host.Running(was.web, host.StartTicks(was.web))
			})
			next := both[0] + both[1] - was.exec
			u.OK("shutdown")
			u.Fleet.Must(patience, "the next init's exec goes on where the old one ended", func() bool {
				return slices.Equal(execs(u.Host), []int{next}) && look(u.Host).web != 0 && look(u.Host).web != was.web
			})

			u.OK("shutdown")
			u.Fleet.Must(patience, "exec ends", func() bool { return len(execs(u.Host)) == 0 })
			stays(t, "nothing is started after a shutdown", func() bool { return len(execs(u.Host)) == 0 })
			u.cmd.Process.Kill()
			u.cmd.Wait()
			empty(u.Host, "after shutdown")
		})
	}
}
