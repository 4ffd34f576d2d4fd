package exec

import (
	"fmt"
	"os"
	osexec "os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/need"

	"golang.org/x/sys/unix"
)

// Programs of checks that sleep when exec is killed are ended by the next one, whatever
// they did to leave, and only they: not those of another p2pnode, not who was given a
// mark by somebody else, and not what lived on. Nothing is looked for after an orderly end.
func TestProgramsOfAKilledExec(t *testing.T) {
	need.Root(t, "files of other users are wanted")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	word := func(i int) string { return fmt.Sprintf("6%d%03d", os.Getpid(), i) }
	scripts := []string{
		"exec sleep WORD",
		"sleep WORD & wait",
		"sleep WORD & exec 1>&- 2>&-; wait",
		"setsid sleep WORD & wait",
		"setsid sh -c 'sleep WORD & exit 0' & exec sleep WORD",
		"exec env -i sleep WORD",
		"env -i setsid sleep WORD & exec sleep WORD",
		"env -i setsid sh -c 'sleep WORD & exit 0' & exec env -i sleep WORD",
		"exec " + self + " part:shy WORD",
		"setsid " + self + " part:shy WORD & exec sleep WORD",
		"trap '' TERM HUP; sleep WORD; sleep WORD",
	}
	var services, others []p2pnode.ServiceSpec
	for i, script := range scripts {
		s := withProgram(fmt.Sprint("s", i), strings.ReplaceAll(script, "WORD", word(i)))
		s.Check.Timeout = time.Hour
		services = append(services, s)
	}
	other := withProgram("other", "exec sleep "+word(len(scripts)))
	other.Check.Timeout = time.Hour
	others = append(others, other)
	h, o := newHost(t, daemonConfig{Services: services}), newHost(t, daemonConfig{Services: others})
	all := func() (out []int) {
		for i := range scripts {
			out = append(out, processesWith(word(i))...)
		}
		return out
	}
	t.Cleanup(func() {
		for _, pid := range append(all(), processesWith(word(len(scripts)))...) {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	each := func(what string) {
		t.Helper()
		for i, script := range scripts {
			want := strings.Count(strings.TrimSuffix(script, "; sleep WORD"), "WORD")
			eventually(t, fmt.Sprintf("%s: %d are there %s", script, want, what), func() bool { return len(processesWith(word(i))) == want })
		}
	}
	each("at first")
	eventually(t, "the other one's runs", func() bool { return len(processesWith(word(len(scripts)))) == 1 })
	var mark string
	eventually(t, "a program has its mark", func() bool {
		link, err := os.Readlink(procPath(processesWith(word(0))[0], fmt.Sprint("fd/", lockDescriptor())))
		mark, _, _ = strings.Cut(strings.TrimPrefix(link, "/memfd:"), " ")
		return err == nil && strings.HasPrefix(mark, heldName)
	})
	variable := checkKey + "=" + environ(t, processesWith(word(0))[0], checkKey)
	byHand := osexec.Command("/bin/sh", "-c", variable+" sleep "+word(99)+" & wait")
	byHand.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	spared := map[string]int{
		"who tries a check by hand":                  stays(t, byHand),
		"who has somebody else's file of that name":  holding(t, fileOf(t, mark, 65534), lockDescriptor()),
		"who was given a file of ours":               holding(t, fileOf(t, mark, 0), lockDescriptor()-1),
		"who was given one, which is closed at exec": received(t, fileOf(t, mark, 0), lockDescriptor()),
	}
	eventually(t, "somebody tries a check by hand", func() bool { return len(processesWith(word(99))) == 1 })
	theirs := processesWith(word(len(scripts)))
	for range 3 {
		was := all()
		kill9(t, h.cmd.Process.Pid)
		h.cmd.Wait()
		if left := all(); len(left) != len(was) {
			t.Fatalf("%d run before the kill, %d after it", len(was), len(left))
		}
		h.start()
		for _, pid := range was {
			eventually(t, fmt.Sprint(pid, " of the exec before is gone"), func() bool { return !alive(pid) })
		}
		each("after a kill of exec")
		for _, s := range services {
			if now := h.status(s.Name); !now.Adopted || now.Restarts != 0 {
				t.Errorf("%+v", now)
			}
		}
	}
	if now := processesWith(word(len(scripts))); len(now) != 1 || now[0] != theirs[0] || o.status("other").Restarts != 0 {
		t.Errorf("the other one's program was %v, is %v", theirs, now)
	}
	for who, pid := range spared {
		if !alive(pid) {
			t.Error("ended: ", who)
		}
	}
	if len(processesWith(word(99))) != 1 {
		t.Error("the check that is tried by hand was ended")
	}
	h.c.Shutdown(t.Context(), false)
	h.cmd.Wait()
	eventually(t, "nothing is left after an orderly end", func() bool { return len(all()) == 0 })
	one := holding(t, fileOf(t, mark, 0), lockDescriptor())
	h.start()
	each("after an orderly end")
	time.Sleep(5 * sweepAfter)
	if !alive(one) {
		t.Error("after an orderly end programs were looked for")
	}
	kill9(t, h.cmd.Process.Pid)
	h.cmd.Wait()
	h.start()
	eventually(t, "who has a program's mark is ended after a kill of exec", func() bool { return !alive(one) })
}

// fileOf is a memory file of a user.
func fileOf(t *testing.T, name string, uid int) *os.File {
	t.Helper()
	fd, err := memoryFile(name)
	if err == nil {
		err = syscall.Fchown(fd, uid, uid)
	}
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), name)
	t.Cleanup(func() { f.Close() })
	return f
}

// holding is the pid of a process that has f open as a number, from its start.
func holding(t *testing.T, f *os.File, number int) int {
	t.Helper()
	cmd := osexec.Command("sleep", "1000")
	cmd.ExtraFiles = make([]*os.File, number-2)
	cmd.ExtraFiles[number-3] = f
	return stays(t, cmd)
}

// received is the same for a process that got f later, as through a socket.
func received(t *testing.T, f *os.File, number int) int {
	t.Helper()
	cmd := osexec.Command("/proc/self/exe", "part:closes", fmt.Sprint(number))
	cmd.ExtraFiles = make([]*os.File, number-2)
	cmd.ExtraFiles[number-3] = f
	pid := stays(t, cmd)
	eventually(t, "it has it closed at exec", func() bool { return closedAtExec(pid, fmt.Sprint(number)) })
	return pid
}

// stays starts cmd, which is killed with its group when the test is over.
func stays(t *testing.T, cmd *osexec.Cmd) int {
	t.Helper()
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go cmd.Wait()
	t.Cleanup(func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	return cmd.Process.Pid
}

// The mark is no file that could be executed, where the kernel knows such: a host may
// refuse all others.
func TestTheMarkIsNoProgram(t *testing.T) {
	fd, err := unix.MemfdCreate("probe", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if err != nil {
		need.Had(t, fmt.Errorf("a memory file that nobody can execute: %w", err))
	}
	unix.Close(fd)
	f := fileOf(t, "mark", os.Getuid())
	if seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0); err != nil || seals&unix.F_SEAL_EXEC == 0 {
		t.Errorf("its seals are %#x: %v", seals, err)
	}
}

func TestMarksOfPrograms(t *testing.T) {
	p := &programs{folder: "1.2.ab.", life: "1.2.ab.NOW"}
	for mark, want := range map[string]bool{
		"1.2.ab.BEFORE.RUN": true, "1.2.ab.BEFORE (deleted)": true, "1.2.ab.NOW.RUN": false, "1.2.ab.NOW (deleted)": false,
		"1.2.abc.BEFORE.RUN": false, "11.2.ab.BEFORE.RUN": false, "": false,
	} {
		if p.isFormer(mark, true) != want || p.isFormer(mark, false) {
			t.Errorf("%q is of an exec before: %v", mark, !want)
		}
	}
}
