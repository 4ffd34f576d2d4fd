package exec

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/need"

	"golang.org/x/sys/unix"
)

// ownDisk mounts a file system of its own, which the test may freeze.
func ownDisk(t *testing.T) (dir string) {
	t.Helper()
	need.Root(t, "a file system is mounted and frozen")
	need.Program(t, "mkfs.ext4", "e2fsprogs")
	image, dir := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	need.Had(t, os.WriteFile(image, nil, 0o600))
	need.Had(t, os.Truncate(image, 64<<20))
	for _, argv := range [][]string{{"mkfs.ext4", "-q", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := osexec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			need.Had(t, fmt.Errorf("%q: %w: %s", argv, err, out))
		}
	}
	t.Cleanup(func() {
		freeze(t, dir, false)
		if out, err := osexec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir
}

// freeze makes every write to the file system of dir wait, or lets it go on.
func freeze(t *testing.T, dir string, on bool) {
	t.Helper()
	const fiFreeze, fiThaw = 0xc0045877, 0xc0045878
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	what := uint(fiThaw)
	if on {
		what = fiFreeze
	}
	if err := unix.IoctlSetInt(int(f.Fd()), what, 0); err != nil && on {
		t.Fatalf("cannot freeze %s: %v", dir, err)
	}
}

// talkPart prints numbered lines, each with its pid, and says on addr who it is and
// how many there are.
func talkPart(addr string) {
	said := make(chan int)
	go http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, os.Getpid(), <-said)
	}))
	for i := 0; ; {
		select {
		case <-time.After(2 * time.Millisecond):
			fmt.Println("talk", os.Getpid(), i)
			i++
		case said <- i:
		}
	}
}

// whoTalks is what a talking service says: its pid, and how many lines it has printed; 0
// where nobody answers.
func whoTalks(addr string) (pid, lines int) {
	c := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Get("http://" + addr)
	if err != nil {
		return 0, 0
	}
	defer res.Body.Close()
	raw, _ := io.ReadAll(res.Body)
	fmt.Sscan(string(raw), &pid, &lines)
	return pid, lines
}

// A disk on which every write hangs holds up no restart and no service; what was
// printed meanwhile, and who lives, is on it once it goes on.
func TestAHangingDiskDelaysNoRestart(t *testing.T) {
	disk := ownDisk(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	h := newHost(t, daemonConfig{On: disk, Services: []p2pnode.ServiceSpec{service("web", "part:talk", addr)}})
	pids := []int{h.await("web", p2pnode.StateUp).PID}
	eventually(t, "the service talks", func() bool { _, n := whoTalks(addr); return n > 100 })
	time.Sleep(freeLife)
	freeze(t, disk, true)
	defer freeze(t, disk, false)
	for range 2 {
		was := pids[len(pids)-1]
		_, before := whoTalks(addr)
		eventually(t, "the service is not held up", func() bool { _, n := whoTalks(addr); return n > before+500 })
		kill9(t, was)
		began := time.Now()
		for pid := 0; pid == 0 || pid == was; time.Sleep(2 * time.Millisecond) {
			if pid, _ = whoTalks(addr); pid != 0 && pid != was {
				pids = append(pids, pid)
			}
			if time.Since(began) > 10*time.Second {
				t.Fatal("nobody answers while the disk hangs")
			}
		}
		took := time.Since(began)
		t.Logf("another process answers %v after the kill", took)
		if took > 3*time.Second { // a few hundred milliseconds of it are ours
			t.Errorf("the restart took %v", took)
		}
	}
	if st, err := h.c.Status(t.Context()); err != nil || !strings.Contains(strings.Join(st.Degraded, " "), "disk") {
		t.Errorf("while the disk hangs: %v, %v", st.Degraded, err)
	}
	_, before := whoTalks(addr)
	eventually(t, "the last one is not held up", func() bool { _, n := whoTalks(addr); return n > before+500 })
	freeze(t, disk, false)
	eventually(t, "the disk is fine again", func() bool {
		st, err := h.c.Status(t.Context())
		return err == nil && len(st.Degraded) == 0
	})
	st, err := openState(stateDir(h.dir), runDir(h.dir))
	if err != nil {
		t.Fatal(err)
	}
	if rec, ok := st.get("web"); !ok || rec.PID != pids[2] || rec.Starting {
		t.Errorf("recorded is %+v, what lives is %d", rec, pids[2])
	}
	_, printed := whoTalks(addr)
	eventually(t, "the newest lines are on disk", func() bool { return said(t, h.dir)[pids[2]] >= printed })
	eventually(t, "no pipe is left behind", func() bool {
		paths, _ := filepath.Glob(filepath.Join(runDir(h.dir), "*.fifo"))
		return len(paths) == 0
	})
	kill9(t, h.cmd.Process.Pid) // the pipe of the last life has no name
	h.cmd.Wait()
	_, before = whoTalks(addr)
	h.start()
	if now := h.await("web", p2pnode.StateUp).PID; now != pids[2] {
		t.Errorf("the next exec has %d, not %d", now, pids[2])
	}
	eventually(t, "the next exec reads on", func() bool { return said(t, h.dir)[pids[2]] > before+200 })
	for _, pid := range pids {
		t.Logf("of %d there are %d lines on disk", pid, said(t, h.dir)[pid])
	}
}

// said counts the lines on disk of each process, which must be all that it printed, from
// the first one on, in their order.
func said(t *testing.T, dir string) map[int]int {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(logDir(dir), "web.log"))
	if err != nil {
		t.Fatal(err)
	}
	next := map[int]int{}
	for line := range bytes.Lines(raw) {
		words := strings.Fields(string(line))
		if len(words) != 3 || words[0] != "talk" || !strings.HasSuffix(string(line), "\n") {
			continue
		}
		pid, _ := strconv.Atoi(words[1])
		n, _ := strconv.Atoi(words[2])
		if n != next[pid] {
			t.Fatalf("of %d line %d follows %d", pid, n, next[pid]-1)
		}
		next[pid]++
	}
	return next
}
