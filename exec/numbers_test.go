package exec

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/need"

	"golang.org/x/sys/unix"
)

// inPidSpace runs the calling test once more, as root of a pid namespace of its own,
// and reports whether this is that run.
func inPidSpace(t *testing.T) bool {
	t.Helper()
	const inside = "P2PNODE_TEST_PIDSPACE"
	if os.Getenv(inside) == t.Name() {
		return true
	}
	if testing.Short() {
		t.Skip("SKIPPED: real processes are not run with -short")
	}
	need.Root(t, "a pid namespace is wanted")
	cmd := osexec.Command("/proc/self/exe", "part:init", "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), inside+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		need.Had(t, fmt.Errorf("no pid namespace may be made here: %w", err))
	}
	if err != nil || !bytes.Contains(out, []byte("--- PASS: "+t.Name())) {
		t.Fatalf("in its pid namespace: %v\n%s", err, out)
	}
	t.Logf("%s", out)
	return false
}

// initPart is the first process of a pid namespace: it mounts that one's /proc, runs
// argv and reaps.
func initPart(argv []string) {
	err := errors.Join(syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""), syscall.Mount("proc", "/proc", "proc", 0, ""))
	cmd := osexec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err = errors.Join(err, cmd.Start()); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for {
		var ws syscall.WaitStatus
		if pid, err := syscall.Wait4(-1, &ws, 0, nil); pid == cmd.Process.Pid {
			os.Exit(ws.ExitStatus())
		} else if err != nil && err != syscall.EINTR {
			os.Exit(1)
		}
	}
}

// innocents are processes that have the numbers of dead ones.
type innocents []*osexec.Cmd

// take starts a process with exactly this number, which leads a session of its own.
func (all *innocents) take(t *testing.T, pid int) {
	t.Helper()
	for range 50 { // a thread of somebody may come between
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(pid-1)), 0); err != nil {
			t.Fatal(err)
		}
		cmd := osexec.Command("/bin/sleep", "1000")
		cmd.Env, cmd.SysProcAttr = []string{}, &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if cmd.Process.Pid == pid {
			*all = append(*all, cmd)
			return
		}
		cmd.Process.Kill()
		cmd.Wait()
	}
	t.Fatalf("number %d could not be had", pid)
}

// unharmed are ended; a signal of anybody else came first.
func (all innocents) unharmed(t *testing.T) {
	t.Helper()
	for _, cmd := range all {
		if err := cmd.Process.Signal(syscall.SIGUSR2); err != nil {
			t.Errorf("innocent %d: %v", cmd.Process.Pid, err)
		}
		cmd.Wait()
		if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signal() != syscall.SIGUSR2 {
			t.Errorf("innocent %d ended by %v", cmd.Process.Pid, ws.Signal())
		}
	}
}

// The numbers of a dead service and of its dead children are given to others, under a
// living exec and while there is none: nobody else is taken for the service, and
// nobody else is sent a signal.
func TestARecycledNumberIsSomebodyElse(t *testing.T) {
	if !inPidSpace(t) {
		return
	}
	var all innocents
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:family")}, NoCgroups: true, Door: true})
	was := h.await("web", p2pnode.StateUp)
	for round := range 4 {
		var children []int
		eventually(t, "it has a child", func() bool { children = childrenOf(was.PID); return len(children) == 1 })
		die := func() {
			kill9(t, was.PID)
			syscall.Kill(children[0], syscall.SIGKILL) // or exec was quicker
			eventually(t, "their numbers are free", func() bool {
				return errors.Is(syscall.Kill(was.PID, 0), syscall.ESRCH) && errors.Is(syscall.Kill(children[0], 0), syscall.ESRCH)
			})
			all.take(t, was.PID)
			all.take(t, children[0])
		}
		switch round % 2 {
		case 0:
			die()
		case 1:
			h.withoutExec(die)
		}
		now := h.awaitNew("web", was.PID)
		if now.PID == was.PID || now.Adopted {
			t.Fatalf("round %d: %+v, was %+v", round, now, was)
		}
		was = now
	}
	if res, err := h.c.Stop(t.Context(), "web", VerbOptions{}); err != nil || !res.OK {
		t.Errorf("stop: %+v, %v", res, err)
	}
	time.Sleep(sweepAfter + 200*time.Millisecond) // the last look through the whole host
	all.unharmed(t)
}

// Numbers run out all the time: four hundred for everybody. Strangers live for a
// moment each, in sessions and groups of their own; services with children die. What
// ended of the strangers ended by itself.
func TestFewNumbersMisleadNobody(t *testing.T) {
	if !inPidSpace(t) {
		return
	}
	// Since Linux 6.14 each pid namespace has its own limit; before, it is everybody's.
	var uts unix.Utsname
	var major, minor int
	unix.Uname(&uts)
	fmt.Sscanf(unix.ByteSliceToString(uts.Release[:]), "%d.%d", &major, &minor)
	if major < 6 || major == 6 && minor < 14 {
		need.Had(t, fmt.Errorf("this kernel has one pid_max for all: %d.%d", major, minor))
	}
	if err := os.WriteFile("/proc/sys/kernel/pid_max", []byte("400"), 0); err != nil {
		t.Fatal(err)
	}
	strangers := osexec.Command("/proc/self/exe", "part:strangers")
	in, _ := strangers.StdinPipe()
	var told bytes.Buffer
	strangers.Stdout = &told
	if err := strangers.Start(); err != nil {
		t.Fatal(err)
	}
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:family"), service("api", "part:tree")}, NoCgroups: true})
	deaths := 0
	for round := range 8 {
		for _, name := range []string{"web", "api"} {
			was := h.await(name, p2pnode.StateUp)
			if round%4 == 3 {
				h.withoutExec(func() { kill9(t, was.PID) })
			} else {
				kill9(t, was.PID)
			}
			deaths++
			eventually(t, name+" lives again", func() bool {
				s := h.status(name)
				if time.Until(s.NextTry) > 100*time.Millisecond {
					h.c.Start(t.Context(), name, VerbOptions{})
				}
				return s.State == p2pnode.StateUp && s.Incarnation != was.Incarnation
			})
			if st, err := readStat(h.status(name).PID); err != nil || st.session != st.pid {
				t.Fatalf("%s: %+v, %v", name, st, err)
			}
		}
	}
	in.Close()
	if err := strangers.Wait(); err != nil {
		t.Errorf("of the strangers: %v", err)
	}
	t.Logf("%d deaths of services, strangers: %s", deaths, strings.TrimSpace(told.String()))
}

// strangersPart starts short lives until its input ends, and tells whether one ended
// by a signal. /bin/true is waited for later than it ends: its group is empty then.
func strangersPart() {
	over := make(chan struct{})
	go func() {
		os.Stdin.Read(make([]byte, 1))
		close(over)
	}()
	lives, killed := 0, 0
	for {
		var some []*osexec.Cmd
		for range 16 {
			cmd := osexec.Command("/bin/sleep", "0.01")
			cmd.Env, cmd.SysProcAttr = []string{}, &syscall.SysProcAttr{Setsid: true}
			if cmd.Start() == nil { // sometimes all numbers are taken
				some = append(some, cmd)
			}
		}
		for _, cmd := range some {
			lives++
			cmd.Wait()
			if cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
				killed++
			}
		}
		select {
		case <-over:
			fmt.Printf("%d lives, %d killed\n", lives, killed)
			os.Exit(min(killed, 1))
		default:
		}
	}
}

// What was seen under a number is not done to whoever has it now.
func TestASightingIsOfOneProcess(t *testing.T) {
	self := osexec.Command("/bin/sleep", "1000")
	if err := self.Start(); err != nil {
		t.Fatal(err)
	}
	defer self.Wait()
	defer self.Process.Kill()
	pid := self.Process.Pid
	st, err := readStat(pid)
	if err != nil {
		t.Fatal(err)
	}
	now, before := being{pid, st.ticks}, being{pid, st.ticks - 1}
	if n := (copies{before}).kill(); n != 0 || !alive(pid) {
		t.Errorf("%d signals to who came after", n)
	}
	looks := 0
	gone := func(int) bool { looks++; return looks == 1 } // it carried the mark, and has been replaced
	if found := surely([]int{pid}, gone); len(found) != 0 {
		t.Errorf("found %v by the mark of another", found)
	}
	if found := descendants(being{os.Getpid(), 1}); found.has(pid) {
		t.Errorf("%v: children of who came after", found)
	}
	if stillSession(before) != (being{}) || stillSession(now) != now {
		t.Error("the session of who came after")
	}
	id := identity{}
	if id.marked(pid, p2pnode.Incarnation{N: 1}, being{st.session, 1}, nil) {
		t.Error("marked by a session whose number was given away")
	}
	if n := (copies{now}).kill(); n != 1 {
		t.Errorf("%d signals to itself", n)
	}
}
