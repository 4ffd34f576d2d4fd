package exec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	osexec "os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"p2pnode"
	"p2pnode/exec/check"
	"p2pnode/test/need"

	"golang.org/x/sys/unix"
)

// freezerOf is the switch of the service's own cgroup; "" where it has none.
func freezerOf(pid int) string {
	for _, root := range cgroupRoots {
		path := filepath.Join(root, groupsOf(strconv.Itoa(pid)).v2, "cgroup.freeze")
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

// Who is held cannot answer, and is not hung: a SIGSTOP of 4 s, a freezer of 0.6 and
// of 3 s, with a check that fails five times in that time. Beside them one that is
// really deadlocked is restarted.
func TestHeldIsNotHung(t *testing.T) {
	checked := func(name, part string) p2pnode.ServiceSpec {
		addr := freeAddr(t)
		s := service(name, part, addr)
		s.Check = &p2pnode.Check{HTTP: "http://" + addr, Every: 100 * time.Millisecond, Timeout: 200 * time.Millisecond, Failures: 3}
		return s
	}
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{
		checked("stopped", "part:web"), checked("cold", "part:web"), checked("colder", "part:web"), checked("deaf", "part:deaf"),
	}})
	pids := map[string]int{}
	for _, name := range []string{"stopped", "cold", "colder"} {
		pids[name] = h.await(name, p2pnode.StateUp).PID
	}
	var unheld error
	hold := map[string]time.Duration{"cold": 600 * time.Millisecond, "colder": 3 * time.Second}
	for name, d := range hold {
		path := freezerOf(pids[name])
		if path == "" {
			unheld = errors.New("no freezer of cgroup v2 holds a service here")
			continue
		}
		if err := os.WriteFile(path, []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(d, func() { os.WriteFile(path, []byte("0"), 0) })
	}
	if err := syscall.Kill(pids["stopped"], syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.Sleep(4 * time.Second)
	if err := syscall.Kill(pids["stopped"], syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for name, pid := range pids {
		if s := h.await(name, p2pnode.StateUp); s.PID != pid || s.Restarts != 0 {
			t.Errorf("%s was restarted: %+v", name, s)
		}
	}
	eventually(t, "the deadlocked one was restarted", func() bool { return h.status("deaf").Restarts > 0 })
	for name, pid := range pids {
		if s := h.status(name); s.PID != pid || s.Restarts != 0 {
			t.Errorf("%s was restarted: %+v", name, s)
		}
	}
	need.Had(t, unheld) // all the rest has been seen
}

// A debugger stopped one, one waits for the kernel (state D), and neither answers:
// neither is hung. Beside them one that is really deadlocked is restarted.
func TestDebuggedOrInTheKernelIsNotHung(t *testing.T) {
	need.Program(t, "gdb", "gdb")
	var all []p2pnode.ServiceSpec
	for name, part := range map[string]string{"debugged": "part:web", "waits": "part:waits", "deaf": "part:deaf"} {
		addr := freeAddr(t)
		s := service(name, part, addr)
		s.Check = &p2pnode.Check{HTTP: "http://" + addr, Every: 100 * time.Millisecond, Timeout: 200 * time.Millisecond, Failures: 3}
		all = append(all, s)
	}
	h := newHost(t, daemonConfig{Services: all})
	debugged, waits := h.await("debugged", p2pnode.StateUp).PID, h.await("waits", p2pnode.StateUp).PID
	state := func(pid int) byte { st, _ := readStat(pid); return st.state }
	gdb := osexec.Command("gdb", "-nx", "-q", "-iex", "set debuginfod enabled off", "-p", strconv.Itoa(debugged))
	words, err := gdb.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := gdb.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { words.Close(); gdb.Wait() }() // at the end of its input it lets go
	eventually(t, "gdb holds it", func() bool { return state(debugged) == 't' })
	if err := syscall.Kill(waits, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other one waits for the kernel", func() bool { return state(waits) == 'D' })
	time.Sleep(3 * time.Second) // several rounds of three bad answers
	if state(debugged) != 't' {
		t.Error("gdb let go, or it was killed")
	}
	for _, name := range []string{"debugged", "waits"} {
		if s := h.status(name); s.State != p2pnode.StateUp {
			t.Errorf("%s is held and said to be %s: %s", name, s.State, s.Why)
		}
	}
	words.Close()
	for name, pid := range map[string]int{"debugged": debugged, "waits": waits} {
		if s := h.await(name, p2pnode.StateUp); s.PID != pid || s.Restarts != 0 {
			t.Errorf("%s was restarted: %+v", name, s)
		}
	}
	eventually(t, "the deadlocked one was restarted", func() bool { return h.status("deaf").Restarts > 0 })
}

// waitsPart answers until SIGUSR1: then its first thread waits in the kernel for 3 s,
// as the parent of a vfork does, and nothing answers meanwhile.
func waitsPart(addr string) {
	var mu sync.Mutex
	go http.ListenAndServe(addr, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { mu.Lock(); defer mu.Unlock() }))
	held := make(chan os.Signal, 1)
	signal.Notify(held, syscall.SIGUSR1)
	for range held {
		mu.Lock()
		nap := unix.Timespec{Sec: 3}
		pid, _, _ := syscall.RawSyscall(unix.SYS_CLONE, unix.CLONE_VFORK|uintptr(unix.SIGCHLD), 0, 0)
		if pid == 0 { // a copy of this thread alone: nothing of the runtime may be used
			syscall.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&nap)), 0, 0)
			syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
		unix.Wait4(int(pid), nil, 0, nil)
		mu.Unlock()
	}
}

// A part's first goroutine stays on the process's first thread, whose state is the
// process's.
func init() {
	if len(os.Args) > 1 && os.Args[1] == "part:waits" {
		runtime.LockOSThread()
	}
}

// Who asks stood still while a question was under way: the answer is late by that, and
// not for want of the service.
func TestAQuestionKnowsThatItsOwnClockWasLate(t *testing.T) {
	cmd := osexec.Command("/proc/self/exe", "part:asker", "2s")
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it stands still", func() bool {
		st, err := readStat(cmd.Process.Pid)
		return err == nil && st.state == 'T'
	})
	time.Sleep(3 * time.Second)
	syscall.Kill(cmd.Process.Pid, syscall.SIGCONT)
	cmd.Wait()
	if want := "timeout true late true\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

// askerPart puts one question to a port that never answers, stops while it is under
// way, and says what it makes of that.
func askerPart(timeout string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		os.Exit(1)
	}
	c := p2pnode.Check{TCP: l.Addr().String(), Failures: 3}
	c.Timeout, _ = time.ParseDuration(timeout)
	go func() {
		l.Accept()
		syscall.Kill(os.Getpid(), syscall.SIGSTOP)
	}()
	put := func(c p2pnode.Check) error { return check.Ask(context.Background(), c, nil) }
	ev, _ := ask(c, put, os.Getpid(), progress{}, evChecked{})
	fmt.Println("timeout", ev.timeout, "late", ev.late)
}
