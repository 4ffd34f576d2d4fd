package exec

import (
	"os"
	osexec "os/exec"
	"testing"

	"p2pnode"
)

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
