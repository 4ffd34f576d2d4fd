package exec

import (
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/need"
	"p2pnode/test/score"

	"golang.org/x/sys/unix"
)

// A number that a service's process had is given to somebody else. Whatever exec
// still does about the one that ended, the stranger gets no signal. It leads a
// session and a group of the same number, and is a child of the same process.
// P2PNODE_CYCLES is how often.
func TestARecycledNumberIsLeftAlone(t *testing.T) {
	need.Root(t, "a pid namespace is wanted, in which the next number can be chosen")
	cycles := "200"
	if more := os.Getenv("P2PNODE_CYCLES"); more != "" {
		cycles = more
	}
	cmd := osexec.Command("/proc/self/exe", "part:recycler", cycles, t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	var recycled, hit int
	if _, scanErr := fmt.Sscanf(string(out), "recycled %d hit %d", &recycled, &hit); err != nil || scanErr != nil {
		t.Fatalf("%v, %v: %s", err, scanErr, out)
	}
	if want, _ := strconv.Atoi(cycles); recycled < want {
		t.Errorf("only %d of %d numbers were given out again", recycled, want)
	}
	if hit != 0 {
		t.Errorf("%d of %d strangers were hit", hit, recycled)
	}
	score.Record(t, score.Figure{
		Row: "27", Text: fmt.Sprintf("%d signals to a wrong process", hit), N: recycled, Chance: fmt.Sprintf("%d numbers given out again, each asked for in six ways", recycled),
		Where: "a pid namespace", Kept: hit == 0,
	})
}

// recyclerPart is process 1 of a pid namespace.
func recyclerPart(cycles int, dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return err
	}
	id := identity{service: "web", folder: "x", lockPath: filepath.Join(dir, "lock"), mains: &sync.Map{}}
	recycled, hit := 0, 0
	for tries := 0; recycled < cycles && tries < 2*cycles; tries++ {
		old, err := sleeper()
		if err != nil {
			return err
		}
		time.Sleep(2 * time.Second / ticksPerSecond) // the kernel tells start times in ticks
		old.signal(unix.SIGKILL)
		if err := old.wait(); err != nil {
			return err
		}
		old.reap()
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(old.pid-1)), 0); err != nil {
			return err
		}
		stranger, err := sleeper()
		if err != nil {
			return err
		}
		same := stranger.pid == old.pid // a thread of ours may have been quicker
		if same {
			recycled++
			pursue(id, old)
		}
		// Of several signals the lowest is delivered first: any other than this one was
		// not ours.
		stranger.signal(unix.SIGIO)
		stranger.wait()
		if exit := stranger.reap(); same && exit.Signal != unix.SignalName(unix.SIGIO) {
			hit++
		}
		stranger.close()
		old.close()
	}
	fmt.Println("recycled", recycled, "hit", hit)
	return nil
}

// pursue is all that exec may still do about a process that has ended.
func pursue(id identity, old *process) {
	inc := p2pnode.Incarnation{Epoch: 1, N: 1}
	old.signal(unix.SIGTERM)
	id.killTree(old)
	id.killRest(inc, stillSession(old.being()))
	id.sweep(inc, old.being(), 0)
	id.killAll(leftover{session: old.being()})
	if p, ok := watchPID(old.pid, old.ticks); ok {
		p.signal(unix.SIGKILL)
		p.close()
	}
}

// sleeper is a process in a session of its own that any signal ends.
func sleeper() (*process, error) {
	fd := -1
	p, err := os.StartProcess("/bin/sleep", strings.Fields("sleep 3600"), &os.ProcAttr{Sys: &syscall.SysProcAttr{Setsid: true, PidFD: &fd}})
	if err != nil {
		return nil, err
	}
	pid := p.Pid
	p.Release()
	return newProcess(pid, fd, true)
}
