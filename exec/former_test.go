package exec

import (
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pnode"
)

// Programs of checks that sleep when exec is killed are ended by the next one, whatever
// they did to leave, and only they: not those of another p2pnode, not one that has the
// file of the note open, and not what lived on. Nothing is looked for after an orderly end.
func TestProgramsOfAKilledExec(t *testing.T) {
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
	note := filepath.Join(runDir(h.dir), "programs")
	eventually(t, "it is noted", func() bool { _, err := os.Stat(note); return err == nil })
	byHand := osexec.Command("/bin/sh", "-c", checkKey+"="+environ(t, processesWith(word(0))[0], checkKey)+" sleep "+word(99)+" <"+note+" & wait")
	byHand.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := byHand.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Kill(-byHand.Process.Pid, syscall.SIGKILL); byHand.Wait() })
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
	if len(processesWith(word(99))) != 1 {
		t.Error("who tries a check by hand was ended")
	}
	h.c.Shutdown(t.Context(), false)
	eventually(t, "nothing is left to look for after an orderly end", func() bool {
		_, err := os.Stat(note)
		return os.IsNotExist(err) && len(all()) == 0
	})
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
