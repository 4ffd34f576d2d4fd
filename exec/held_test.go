package exec

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"p2pnode"
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
	hold := map[string]time.Duration{"cold": 600 * time.Millisecond, "colder": 3 * time.Second}
	for name, d := range hold {
		path := freezerOf(pids[name])
		if path == "" {
			t.Logf("no freezer here: %s is not held", name)
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
	ev, _ := ask(context.Background(), c, os.Getpid(), progress{}, evChecked{})
	fmt.Println("timeout", ev.timeout, "late", ev.late)
}
