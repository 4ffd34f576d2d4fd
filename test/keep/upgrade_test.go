package keep

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"p2pnode"
	kept "p2pnode/exec"
	"p2pnode/test/bin"
	"p2pnode/test/history"
	"p2pnode/test/host"
)

const (
	steady  = 4 // services that must not notice
	mortals = 8 // each lives 300 ms: one death in 40 ms
)

func loaded(victim, dir string) string {
	var b strings.Builder
	for i := range steady {
		fmt.Fprintf(&b, "  steady%d: {command: [%s, -ledger, %s/steady%d, -count, 2ms]}\n", i, victim, dir, i)
	}
	for i := range mortals {
		fmt.Fprintf(&b, "  mortal%d: {command: [%s, -ledger, %s/mortal%d, -lives, 300ms], restart: \"no\"}\n", i, victim, dir, i)
	}
	return b.String()
}

// upgraded is what `upgrade -o json` prints.
type upgraded struct {
	OK    bool                  `json:"ok"`
	Same  bool                  `json:"same"`
	State p2pnode.UpgradeState  `json:"state"`
	Text  string                `json:"text"`
	Steps []p2pnode.UpgradeStep `json:"steps"`
	Error struct{ Code, Text string }
}

func (h *Host) upgrade(args ...string) (doc upgraded, code int) {
	out, _, code := h.Run(append(append([]string{"upgrade"}, args...), "-o", "json")...)
	if err := json.Unmarshal([]byte(out), &doc); err != nil {
		h.T.Errorf("upgrade %v: exit %d, %q", args, code, out)
	}
	return doc, code
}

// runs reports whether a process runs exactly the installed file.
func (h *Host) runs(pid int) bool {
	self, errA := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
	there, errB := os.Stat(h.Binary)
	return errA == nil && errB == nil && os.SameFile(self, there)
}

// TestUpgradesUnderLoad: the binary is replaced again and again while services work
// and die. Nothing of those that live changes, every exit code is known, no line is
// missing.
func TestUpgradesUnderLoad(t *testing.T) {
	h := New(t, loaded)
	dir := h.Fleet.Dir
	next := [2]string{variant(t, h.Binary, filepath.Join(dir, "a"), "A"), variant(t, h.Binary, filepath.Join(dir, "b"), "B")}
	h.Fleet.Must(10*time.Second, "the steady ones are up", func() bool { return len(h.pids("steady")) == steady })
	before, exec := h.pids("steady"), h.PID()

	stop := make(chan struct{})
	var load sync.WaitGroup
	var deaths atomic.Int64
	for i := range mortals {
		load.Go(func() { h.killing(fmt.Sprintf("mortal%d", i), stop, &deaths) })
	}
	fds := 0
	n := rounds(t, 10)
	for i := range n {
		doc, code := h.upgrade("--settle", "30ms", next[i%2])
		if code != 0 || !doc.OK || doc.State != p2pnode.UpgradeDone || len(doc.Steps) != 3 {
			t.Fatalf("upgrade %d: exit %d, %+v", i, code, doc)
		}
		st := h.status()
		if st == nil || st.PID != exec || !h.runs(exec) || !h.runs(st.Door.PID) || !h.runs(st.Node.PID) {
			t.Fatalf("upgrade %d: not everything runs the new binary: %+v", i, st)
		}
		if i == 1 {
			fds = descriptors(exec)
		}
	}
	close(stop)
	load.Wait()
	after := h.pids("steady")
	for name, pid := range before {
		if after[name] != pid {
			t.Errorf("%s: pid %d, then %d", name, pid, after[name])
		}
		if gaps, count := h.gaps(name); len(gaps) > 0 || count < 10*n {
			t.Errorf("%s: %d lines, %d gaps: %q", name, count, len(gaps), gaps[:min(len(gaps), 3)])
		}
		if n, second := starts(t, filepath.Join(dir, name)); n != 1 || second != 0 {
			t.Errorf("%s: %d starts, %d of them second copies", name, n, second)
		}
	}
	died := 0
	for i := range mortals {
		n, second := starts(t, filepath.Join(dir, fmt.Sprintf("mortal%d", i)))
		if second != 0 {
			t.Errorf("mortal%d: %d second copies", i, second)
		}
		died += n
	}
	if got := int(deaths.Load()); got != died || died < 2*n {
		t.Errorf("%d deaths, %d exit codes", died, got)
	}
	if now := descriptors(exec); now > fds+5 {
		t.Errorf("%d descriptors after the second upgrade, %d after the last", fds, now)
	}
	t.Logf("%d upgrades, %d deaths, %d exit codes", n, died, deaths.Load())
	h.Fleet.Judge(history.Options{})
}

func descriptors(pid int) int {
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(entries)
}

// killing has a mortal service die again and again, and looks at each code.
func (h *Host) killing(name string, stop <-chan struct{}, deaths *atomic.Int64) {
	seen := ""
	ctx := context.Background()
	for {
		c, err := kept.Dial(ctx, h.Dir, kept.RoleCLI)
		for err == nil {
			var st p2pnode.ExecStatus
			if st, err = c.Status(ctx); err != nil {
				break // exec is another image now
			}
			s := service(&st, name)
			if s.State == p2pnode.StateExited && s.LastExit != nil && s.Incarnation != seen {
				seen = s.Incarnation
				inc, err := p2pnode.ParseIncarnation(seen)
				if want := int(inc.N%250) + 1; err != nil || s.LastExit.Unknown || s.LastExit.Code != want {
					h.T.Errorf("%s %s: exit %+v, should be %d", name, seen, *s.LastExit, want)
				}
				deaths.Add(1)
			}
			if s.State == p2pnode.StateExited {
				select {
				case <-stop:
					c.Close()
					return
				default:
				}
				_, err = c.Start(ctx, name, kept.VerbOptions{NoWait: true})
			}
			time.Sleep(20 * time.Millisecond)
		}
		if c != nil {
			c.Close()
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestUnfitBinariesChangeNothing: what cannot take over is refused by name and
// reason.
func TestUnfitBinariesChangeNothing(t *testing.T) {
	h := New(t, func(victim, dir string) string { return "  web: {command: [" + victim + "]}\n" })
	dir := h.Fleet.Dir
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		bin.Write(t, path, []byte(text))
		return path
	}
	check := func(doc string) string { return "#!/bin/sh\necho '" + doc + "'\n" }
	before := h.status()
	for _, c := range []struct{ file, why string }{
		{filepath.Join(dir, "nowhere"), "no such file"},
		{dir, "no regular file"},
		{"/bin/true", "does not know how to check the state"},
		{write("text", "hello"), "does not know how to check the state"},
		{write("newer", check(`{"schema":"p2pnode/state-check/v1","version":"v9","formats":[7],"services":99,"problems":[]}`)), "v9 does not read the state"},
		{write("blind", check(`{"schema":"p2pnode/state-check/v1","version":"v9","formats":[1],"services":1,"problems":[]}`)), "the state of 1 of 3 processes"},
		{write("picky", check(`{"schema":"p2pnode/state-check/v1","version":"v9","formats":[1],"services":9,"problems":["cannot read the epoch: no"]}`)), "cannot read the epoch"},
	} {
		doc, code := h.upgrade(c.file)
		if code != 1 || doc.Error.Code != "unfit-binary" || !strings.Contains(doc.Error.Text, c.why) {
			t.Errorf("%s: exit %d, %+v, should say %q", c.file, code, doc, c.why)
		}
	}
	good := variant(t, h.Binary, filepath.Join(dir, "good"), "G")
	if doc, code := h.upgrade("--dry-run", good); code != 0 || !doc.OK || doc.State != "" {
		t.Errorf("dry run: exit %d, %+v", code, doc)
	}
	if doc, code := h.upgrade(h.Binary); code != 0 || !doc.Same {
		t.Errorf("the same binary: exit %d, %+v", code, doc)
	}
	after := h.status()
	if after == nil || after.PID != before.PID || after.Door.PID != before.Door.PID || after.Node.PID != before.Node.PID || after.Upgrade != nil {
		t.Errorf("something changed: %+v", after)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(h.Binary), "*")); len(left) != 1 {
		t.Errorf("files left: %v", left)
	}
	if hidden, _ := filepath.Glob(filepath.Join(filepath.Dir(h.Binary), ".*")); len(hidden) != 0 {
		t.Errorf("files left: %v", hidden)
	}
	// A package manager has put another file there: it is taken without a name.
	if err := os.Rename(good, h.Binary); err != nil {
		t.Fatal(err)
	}
	if doc, code := h.upgrade("--settle", "30ms"); code != 0 || !doc.OK || doc.Same || !h.runs(before.PID) {
		t.Errorf("the installed one: exit %d, %+v", code, doc)
	}
}

// TestAFailingBinaryIsTakenBack: it passes the trial and then does not live. The old
// one goes on, services are untouched, and everybody is told.
func TestAFailingBinaryIsTakenBack(t *testing.T) {
	for _, c := range []struct {
		name string
		kill string // the process of the new binary that is killed while it settles
		why  string
	}{
		{"exec crashes", "", "exec died of the new binary"},
		{"exec is killed", p2pnode.SelfExec, "exec died of the new binary"},
		{"door", p2pnode.SelfDoor, "@door did not live"},
		{"node process", p2pnode.SelfNode, "@node did not live"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := New(t, func(victim, dir string) string {
				return "  web: {command: [" + victim + ", -ledger, " + dir + "/web, -count, 5ms]}\n"
			})
			old, err := os.ReadFile(h.Binary)
			if err != nil {
				t.Fatal(err)
			}
			file := variant(t, h.Binary, filepath.Join(h.Fleet.Dir, "new"), "N")
			if c.kill == "" {
				script := "#!/bin/sh\n[ \"$1\" = state-check ] && exec " + file + " \"$@\"\nexit 3\n"
				file = filepath.Join(h.Fleet.Dir, "bad")
				bin.Write(t, file, []byte(script))
			}
			h.Fleet.Must(10*time.Second, "web is up", func() bool { return len(h.pids("web")) == 1 })
			web := h.pids("web")["web"]
			killed := make(chan struct{})
			go func() {
				defer close(killed)
				if c.kill != "" {
					h.killWhileSettling(c.kill)
				}
			}()
			doc, code := h.upgrade("--settle", "1s", file)
			<-killed
			if code != 1 || doc.OK || doc.State != p2pnode.UpgradeFailed || !strings.Contains(doc.Text, c.why) {
				t.Fatalf("exit %d, %+v", code, doc)
			}
			if now, err := os.ReadFile(h.Binary); err != nil || string(now) != string(old) {
				t.Errorf("the installed file is not the old one: %v", err)
			}
			h.Fleet.Must(20*time.Second, "all run the old binary", func() bool {
				st := h.status()
				return st != nil && st.Node.State == p2pnode.StateUp && same(st.PID, old) && same(st.Door.PID, old) && same(st.Node.PID, old)
			})
			if now := h.pids("web")["web"]; now != web {
				t.Errorf("web: pid %d, then %d", web, now)
			}
			if n, _ := starts(t, filepath.Join(h.Fleet.Dir, "web")); n != 1 {
				t.Errorf("web: %d starts", n)
			}
			st := h.status()
			if st == nil || !strings.Contains(strings.Join(st.Degraded, "; "), c.why) {
				t.Errorf("status does not tell: %+v", st)
			}
		})
	}
}

// same reports whether a process runs a file of the given content.
func same(pid int, content []byte) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/exe", pid))
	return err == nil && string(raw) == string(content)
}

// killWhileSettling waits for a process of the new binary and kills it.
func (h *Host) killWhileSettling(name string) {
	host.Eventually(20*time.Second, func() bool {
		st := h.status()
		if st == nil || st.Upgrade == nil || st.Upgrade.State != p2pnode.UpgradeRunning {
			return false
		}
		pid := map[string]int{p2pnode.SelfExec: st.PID, p2pnode.SelfDoor: st.Door.PID, p2pnode.SelfNode: st.Node.PID}[name]
		state := map[string]p2pnode.ServiceState{p2pnode.SelfExec: p2pnode.StateUp, p2pnode.SelfDoor: st.Door.State, p2pnode.SelfNode: st.Node.State}[name]
		if st.Upgrade.Step != name || pid == 0 || state != p2pnode.StateUp || !h.runs(pid) {
			return false
		}
		return syscall.Kill(pid, syscall.SIGKILL) == nil
	})
}
