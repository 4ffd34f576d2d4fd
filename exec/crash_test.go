package exec

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/need"

	"golang.org/x/sys/unix"
)

// actedOn is the next event that tells of a restart of name.
func (h *host) actedOn(name string) func() p2pnode.ExecEvent {
	h.t.Helper()
	events, err := h.c.Events(h.t.Context(), 0)
	if err != nil {
		h.t.Fatal(err)
	}
	return func() p2pnode.ExecEvent {
		h.t.Helper()
		for late := time.After(20 * time.Second); ; {
			select {
			case ev := <-events:
				if ev.Event == p2pnode.FactActed && ev.Service == name {
					return ev
				}
			case <-late:
				h.t.Fatalf("%s was not restarted within 20 s", name)
			}
		}
	}
}

// What a process used and how long it lived is told with its end.
func TestAnEndTellsWhatWasUsed(t *testing.T) {
	burn := p2pnode.ServiceSpec{Name: "burn", Command: []string{"sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; sleep 0.2; exit 3"}, StopGrace: p2pnode.DefaultStopGrace}
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{burn}})
	acted := h.actedOn("burn")
	e := acted().Exit
	if e == nil || e.Code != 3 || e.MaxRSS < 100<<10 || e.MaxRSS > 1<<30 || e.UserMS < 5 || e.UptimeMS < 200+e.UserMS/2 || e.UptimeMS > 20_000 {
		t.Errorf("%+v", e)
	}
}

// A service that is killed since its check fails: the report has the answers, and the
// next life is told how the last one ended, not the one before it, and which life it is
// itself, as ps says.
func TestTheNextLifeIsToldOfAKill(t *testing.T) {
	told := filepath.Join(t.TempDir(), "told")
	deaf := p2pnode.ServiceSpec{
		Name: "deaf", StopGrace: p2pnode.DefaultStopGrace, StartWithin: time.Millisecond,
		Command: []string{"sh", "-c", "echo \"<$P2PNODE_LAST_EXIT>$P2PNODE_INCARNATION\" >>" + told + "; exec sleep 1000"},
		Check:   &p2pnode.Check{Exec: []string{"false"}, Every: 50 * time.Millisecond, Timeout: 15 * time.Second, Failures: 3},
	}
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{deaf}})
	acted := h.actedOn("deaf")
	var want []string
	for range 2 {
		ev := acted()
		if e := ev.Exit; e == nil || e.Signal != "SIGKILL" || e.Why != "false: exit status 1 (3 times)" {
			t.Fatalf("%+v", e)
		}
		if want == nil {
			want = []string{"<>" + ev.Target}
		}
		want = append(want, "<SIGKILL>"+ev.New)
	}
	eventually(t, "each life was told "+strings.Join(want, " "), func() bool {
		raw, _ := os.ReadFile(told)
		lives := strings.Fields(string(raw))
		return len(lives) >= 3 && slices.Equal(lives[:3], want)
	})
	if _, err := h.c.Stop(t.Context(), "deaf", VerbOptions{}); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(told)
	if ps := h.status("deaf").Incarnation; err != nil || ps == "" || !strings.HasSuffix(strings.TrimSpace(string(raw)), ">"+ps) {
		t.Errorf("ps says %q, the lives were told %q, %v", ps, raw, err)
	}
}

// Of a check that says something else each time, what it said last is told, in order,
// and of very long answers the end.
func TestTheLastAnswersAreTold(t *testing.T) {
	counts := func(name, more string) p2pnode.ServiceSpec {
		file := filepath.Join(t.TempDir(), "n")
		return p2pnode.ServiceSpec{
			Name: name, Command: []string{"sleep", "1000"}, StopGrace: p2pnode.DefaultStopGrace, StartWithin: time.Millisecond,
			Check: &p2pnode.Check{Exec: []string{"sh", "-c", "n=$(cat " + file + " 2>/dev/null || echo 0); n=$((n+1)); echo $n >" + file + "; echo answer $n" + more + "; exit 1"}, Every: 50 * time.Millisecond, Timeout: 15 * time.Second, Failures: 5},
		}
	}
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{counts("short", ""), counts("long", strings.Repeat(" x", 150))}})
	short, long := h.actedOn("short"), h.actedOn("long")
	// The last three of five; one of six where the host stood still for one and that was not counted.
	three := regexp.MustCompile(`^sh: exit status 1: answer [234]; sh: exit status 1: answer [345]; sh: exit status 1: answer ([56])$`)
	if e := short().Exit; e == nil || !three.MatchString(e.Why) {
		t.Errorf("%+v", e)
	}
	e := long().Exit
	if e == nil || len(e.Why) > maxWhy || len(e.Why) < maxWhy/2 || strings.Count(e.Why, "answer") > 2 || !strings.Contains(e.Why, "answer 5 x") && !strings.Contains(e.Why, "answer 6 x") {
		t.Errorf("%+v", e)
	}
}

// A core dump is told of, and of a service that may not leave one it is not.
func TestACoreDumpIsToldOf(t *testing.T) {
	var hard syscall.Rlimit
	pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	err = errors.Join(err, syscall.Getrlimit(syscall.RLIMIT_CORE, &hard))
	if where := strings.TrimSpace(string(pattern)); err == nil && (where == "" || where[0] == '|' || where[0] == '/' || hard.Max < 64<<20) {
		err = fmt.Errorf("no core dump comes into a service's folder here: core_pattern %q, limit %d", where, hard.Max)
	}
	need.Had(t, err)
	size, none := uint64(64<<20), uint64(0)
	dumps := func(name string, core *uint64) p2pnode.ServiceSpec {
		return p2pnode.ServiceSpec{
			Name: name, Cwd: t.TempDir(), StopGrace: p2pnode.DefaultStopGrace, Limits: p2pnode.Limits{Core: core},
			Command: []string{"sh", "-c", "[ -n \"$P2PNODE_LAST_EXIT\" ] && exec sleep 1000; kill -SEGV $$"},
		}
	}
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{dumps("with", &size), dumps("without", &none)}})
	with, without := h.actedOn("with"), h.actedOn("without")
	if e := with().Exit; e == nil || e.Signal != "SIGSEGV" || !e.Core {
		t.Errorf("with a core: %+v", e)
	}
	if e := without().Exit; e == nil || e.Signal != "SIGSEGV" || e.Core {
		t.Errorf("core: 0: %+v", e)
	}
}

// A hung Go program prints its stacks before it is killed, if that is asked for.
func TestAHungProgramPrintsItsStacks(t *testing.T) {
	addr := freeAddr(t)
	deaf := service("deaf", "part:deaf", addr)
	deaf.Check = &p2pnode.Check{HTTP: "http://" + addr, Every: 50 * time.Millisecond, Timeout: 100 * time.Millisecond, Failures: 3}
	deaf.HangDump = true
	stubborn := deaf
	stubborn.Name, stubborn.Command = "sleeper", []string{"sh", "-c", "trap '' QUIT; while :; do sleep 0.1; done"}
	stubborn.Check = &p2pnode.Check{Exec: []string{"false"}, Every: 50 * time.Millisecond, Timeout: time.Second, Failures: 3}
	stubborn.StartWithin = time.Millisecond
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{deaf, stubborn}})
	sleeper := h.actedOn("sleeper")
	ev := h.actedOn("deaf")()
	if ev.Exit == nil || ev.Exit.Code != 2 || ev.Exit.Why == "" || ev.Excerpt == nil || !strings.Contains(strings.Join(ev.Excerpt.Lines, "\n"), "SIGQUIT") {
		t.Errorf("%+v %+v", ev.Exit, ev.Excerpt)
	}
	raw, err := os.ReadFile(filepath.Join(logDir(h.dir), "deaf.log"))
	if err != nil || !strings.Contains(string(raw), "goroutine ") || !strings.Contains(string(raw), "deafPart") {
		t.Errorf("no stacks in the log: %v\n%s", err, raw)
	}
	ev = sleeper()
	if ev.Exit == nil || ev.Exit.Signal != "SIGKILL" {
		t.Errorf("one that does not heed: %+v", ev.Exit)
	}
	if took := ev.StartedAt.Sub(ev.DetectedAt); took < dumpFor || took > dumpFor+4*time.Second {
		t.Errorf("it was given %v to print its stacks", took)
	}
}

// The kernel log tells of a kill for want of memory where no group of ours counts it:
// here in a group of cgroup v1 that the service entered by itself.
func TestTheKernelLogTellsOfAnOOMKill(t *testing.T) {
	need.Root(t, "a memory limit")
	group := filepath.Join("/sys/fs/cgroup/memory", "p2pnode-test-"+filepath.Base(t.TempDir()))
	_, err := os.Stat("/sys/fs/cgroup/memory/memory.limit_in_bytes")
	if log := openKernelLog(); log == nil {
		err = errors.Join(err, errors.New("the kernel log is not ours to read"))
	} else {
		log.close()
	}
	need.Had(t, err)
	if err := os.Mkdir(group, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { eventually(t, "the group is removed", func() bool { return os.Remove(group) == nil }) })
	if err := os.WriteFile(filepath.Join(group, "memory.limit_in_bytes"), []byte("8388608"), 0); err != nil {
		t.Fatal(err)
	}
	hog := p2pnode.ServiceSpec{
		Name: "hog", StopGrace: p2pnode.DefaultStopGrace,
		Command: []string{"sh", "-c", "[ -n \"$P2PNODE_LAST_EXIT\" ] && exec sleep 1000; echo $$ >" + group + "/cgroup.procs; x=0123456789abcdef; while :; do x=$x$x; done"},
	}
	killed := p2pnode.ServiceSpec{Name: "killed", Command: []string{"sh", "-c", "[ -n \"$P2PNODE_LAST_EXIT\" ] && exec sleep 1000; kill -9 $$"}, StopGrace: p2pnode.DefaultStopGrace}
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{hog, killed}})
	ev := h.actedOn("hog")()
	if ev.Exit == nil || ev.Exit.Signal != "SIGKILL" || !ev.Exit.OOM {
		t.Errorf("%+v", ev.Exit)
	}
	if said := environ(t, ev.PID, "P2PNODE_LAST_EXIT"); said != "SIGKILL oom" {
		t.Errorf("the next life is told %q", said)
	}
	if ev := h.actedOn("killed")(); ev.Exit == nil || ev.Exit.OOM {
		t.Errorf("somebody's kill: %+v", ev.Exit)
	}
}

// Records of the kernel log, as /dev/kmsg has them.
func TestRecordsOfTheKernelLog(t *testing.T) {
	const tail = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/x,task_memcg=/x,task=sh,pid=4711,uid=0"
	for record, pid := range map[string]int{
		"6,1234,98765,-;" + tail + "\n SUBSYSTEM=x\n":                                                           4711,
		"14,1234,98765,-;" + tail + "\n":                                                                        0, // said by a program: facility 1
		"6,1234,98765,-;docker0: port 1(veth) entered disabled state\n":                                         0,
		"6,1,2,-;oom-kill:constraint=x,task=a,pid=1,uid=0,pid=2\n":                                              0,
		"3,1,2,-;Out of memory: Killed process 42 (a) total-vm:9kB, UID:0 pgtables:3kB oom_score_adj:0\n":       42,
		"3,1,2,-;Memory cgroup out of memory: Killed process 43 (x: Killed process 7 (y) total-vm:9kB, UID:0\n": 43,
		"3,1,2,-;Out of memory (oom_kill_allocating_task): Killed process 44 (a) total-vm:9kB\n":                44,
		"11,1,2,-;Out of memory: Killed process 45 (a) total-vm:9kB\n":                                          0, // said by a program
		"6,1,2,-;traps: Out of memory: Killed process 46 (a) trap\n":                                            0, // a process that calls itself so
		"3,1,2,-;oom_reaper: reaped process 47 (a), now anon-rss:0kB\n":                                         0,
		"6;":       0,
		tail:       0,
		"":         0,
		"x,1,2,-;": 0,
	} {
		if got, _ := outOfMemory([]byte(record)); got != pid {
			t.Errorf("%q: pid %d, want %d", record, got, pid)
		}
	}
}

// The kernel kills much that is no service, and nobody asks about that: it does not fill
// what is remembered.
func TestForeignKillsAreForgotten(t *testing.T) {
	// As /dev/kmsg: a read is one record.
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ends[1])
	k := &kernelLog{fd: ends[0]}
	defer k.close()
	oom := func(pid int) bool {
		return k.blame(pid, p2pnode.Exit{Signal: "SIGKILL"}).OOM
	}
	for pid := range 3 * maxKilled {
		if _, err := unix.Write(ends[1], fmt.Appendf(nil, "6,1,2,-;oom-kill:constraint=CONSTRAINT_NONE,task=x,pid=%d,uid=0\n", pid+1)); err != nil {
			t.Fatal(err)
		}
		if pid%100 == 0 && oom(99999) {
			t.Fatal("blamed for somebody's death")
		}
	}
	if last := 3 * maxKilled; !oom(last) || oom(last) || oom(1) || len(k.killed) > maxKilled {
		t.Errorf("the last one counts once, the first no more: %d remembered", len(k.killed))
	}
}

// However much the kernel has logged, the newest is reached; a kill that has only the
// second record counts, and one that has both counts once, whenever they are read.
func TestAKillIsFoundBehindMuchElse(t *testing.T) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ends[1])
	unix.SetNonblock(ends[0], true)
	k := &kernelLog{fd: ends[0]}
	defer k.close()
	ctx, stop := context.WithCancel(t.Context())
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		k.follow(ctx)
	}()
	defer func() { stop(); <-followed }()
	say := func(text string) {
		if _, err := unix.Write(ends[1], []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	for range 5000 { // the socket holds fewer: it is read meanwhile
		say("6,1,2,-;docker0: port 1(veth) entered disabled state\n")
	}
	oom := func(pid int) bool { return k.blame(pid, p2pnode.Exit{Signal: "SIGKILL"}).OOM }
	say("3,1,2,-;Out of memory: Killed process 42 (a) total-vm:9kB\n")
	if !oom(42) || oom(42) {
		t.Error("one of whom there is only the second record")
	}
	say("6,1,2,-;oom-kill:constraint=CONSTRAINT_NONE,task=x,pid=43,uid=0\n")
	if !oom(43) {
		t.Error("one of whom there is the first record")
	}
	say("3,1,2,-;Out of memory: Killed process 43 (x) total-vm:9kB\n")
	if oom(43) {
		t.Error("the second record of a kill that was told is taken for another kill")
	}
	say("3,1,2,-;Out of memory: Killed process 43 (x) total-vm:9kB\n")
	if !oom(43) || len(k.killed) > 0 {
		t.Errorf("the number came again; remembered: %v", k.killed)
	}
}

// Read at one look too.
func TestALookAtTheKernelLogReachesItsEnd(t *testing.T) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(ends[1])
	if err := unix.SetsockoptInt(ends[1], unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 32<<20); err != nil {
		need.Root(t, "5000 records in a socket")
	}
	k := &kernelLog{fd: ends[0]}
	defer k.close()
	for range 5000 {
		if _, err := unix.Write(ends[1], []byte("6,1,2,-;x\n")); err != nil {
			t.Fatal(err)
		}
	}
	unix.Write(ends[1], []byte("6,1,2,-;oom-kill:constraint=CONSTRAINT_NONE,task=x,pid=43,uid=0\n"))
	if !k.blame(43, p2pnode.Exit{Signal: "SIGKILL"}).OOM {
		t.Error("the newest record was not reached")
	}
}

// An orderly stop leaves no FIFO and no group behind, and a start removes what an exec
// that was killed has left.
func TestNothingIsLeftInTheRunFolder(t *testing.T) {
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:sleep"), service("other", "part:sleep")}})
	web, other := h.await("web", p2pnode.StateUp), h.await("other", p2pnode.StateUp)
	fifos := func() []string {
		paths, _ := filepath.Glob(filepath.Join(runDir(h.dir), "*.fifo"))
		return paths
	}
	if got := fifos(); len(got) != 2 {
		t.Fatalf("FIFOs of two services: %v", got)
	}
	kill9(t, h.cmd.Process.Pid)
	kill9(t, other.PID)
	h.cmd.Wait()
	stale := filepath.Join(runDir(h.dir), "gone-"+web.Incarnation+".fifo")
	if err := syscall.Mkfifo(stale, 0o600); err != nil {
		t.Fatal(err)
	}
	h.start()
	if now := h.await("web", p2pnode.StateUp); now.PID != web.PID {
		t.Errorf("web: pid %d, then %d", web.PID, now.PID)
	}
	h.awaitNew("other", other.PID)
	eventually(t, "one FIFO a service", func() bool { return len(fifos()) == 2 })
	st, err := openState(stateDir(h.dir), runDir(h.dir))
	if err != nil {
		t.Fatal(err)
	}
	group := openCgroups(st.identity())
	if err := h.c.Shutdown(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	h.cmd.Wait()
	if got := fifos(); len(got) != 0 {
		t.Errorf("left after an orderly stop: %v", got)
	}
	if group != nil {
		if _, err := os.Stat(group.base); err == nil {
			t.Errorf("left: %s", group.base)
		}
	}
}

// A service that says in its stop that it needs more time gets it.
func TestAStopIsExtended(t *testing.T) {
	slow := p2pnode.ServiceSpec{
		Name: "slow", Ready: p2pnode.ReadyNotify, StopTimeout: 300 * time.Millisecond, StopGrace: p2pnode.DefaultStopGrace,
		Command: []string{"/proc/self/exe", "part:slow-stop"},
	}
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{slow}})
	h.await("slow", p2pnode.StateUp)
	if _, err := h.c.Stop(t.Context(), "slow", VerbOptions{}); err != nil {
		t.Fatal(err)
	}
	if e := h.status("slow").LastExit; e == nil || e.Code != 5 {
		t.Errorf("it was not given its time: %+v", e)
	}
}
