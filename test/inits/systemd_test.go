package inits

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	kept "p2pnode/exec"
	"p2pnode/test/bin"
	"p2pnode/test/host"
)

// Where things are in the machine.
const (
	unitFile   = "/etc/systemd/system/p2pnode.service"
	unitWanted = "/etc/systemd/system/multi-user.target.wants/p2pnode.service"
	unitBinary = "/usr/local/bin/p2pnode"
	unitConfig = "/etc/p2pnode.yaml"
	unitData   = "/var/lib/p2pnode"
	daemonLog  = "/var/log/p2pnode.log"
	farewells  = "/var/lib/farewells"
)

// dropIn is all that the test has otherwise than the unit of deploy/: half a minute is
// long to wait, and no journal runs here.
var dropIn = fmt.Sprintf("[Service]\nWatchdogSec=%d\nStandardError=append:%s\n", int(allowed.Seconds()), daemonLog)

// unitServices are two victims: each copy writes itself down, and who tells it to end.
const unitServices = `listen: 127.0.0.1:7744
door: 127.0.0.1:7745
services:
  db:
    command: [/usr/local/bin/victim, -port, "8081", -count, 100ms, -ledger, /var/lib/db, -bye, ` + farewells + `]
    check: {http: "http://127.0.0.1:8081/"}
  web:
    command: [/usr/local/bin/victim, -port, "8080", -ledger, /var/lib/web, -bye, ` + farewells + `]
    check: {http: "http://127.0.0.1:8080/"}
    after: [db]
`

// crew are the processes of p2pnode in the machine, by what they run.
type crew struct {
	pids
	db, more int
	twice    bool // one of them is there more than once
}

func (c crew) whole() bool { return c.pids.whole() && c.db != 0 && !c.twice }

// unit is a p2pnode whose exec systemd starts.
type unit struct {
	*machine
	was crew
}

func (u *unit) look() (now crew) {
	for pid, argv := range u.processes() {
		var of *int
		switch line := strings.Join(argv, " "); {
		case strings.Contains(line, " -port 8080 "):
			of = &now.web
		case strings.Contains(line, " -port 8081 "):
			of = &now.db
		case line == "sleep 100000":
			of = &now.more
		case len(argv) > 1 && argv[1] == "door":
			of = &now.door
		case len(argv) > 1 && argv[1] == "node":
			of = &now.node
		default:
			of = &now.exec
		}
		now.twice = now.twice || *of != 0
		*of = pid
	}
	return now
}

// becomes waits until the processes are as ok wants them, and notes them.
func (u *unit) becomes(what string, ok func(now crew) bool) {
	u.t.Helper()
	var now crew
	if !host.Eventually(patience, func() bool { now = u.look(); return now.whole() && ok(now) }) {
		u.t.Fatalf("not within %v: %s: %+v, was %+v\n%v", patience, what, now, u.was, u.processes())
	}
	u.was = now
}

// otherExec is what is expected where exec alone was replaced.
func (u *unit) otherExec(now crew) bool {
	other := now.exec != u.was.exec
	now.exec = u.was.exec
	return other && now == u.was
}

// is waits until the unit has these properties.
func (u *unit) is(when string, want map[string]string) {
	u.t.Helper()
	var now map[string]string
	if !host.Eventually(patience, func() bool { now = u.properties(want); return maps.Equal(now, want) }) {
		u.t.Fatalf("%s: unit is %v, want %v", when, now, want)
	}
}

func (u *unit) properties(of map[string]string) map[string]string {
	now := map[string]string{}
	for line := range strings.Lines(u.ok("systemctl", "show", "p2pnode", "--property", strings.Join(slices.Collect(maps.Keys(of)), ","))) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		now[k] = v
	}
	return now
}

// active is a unit that works and whose exec was started again so many times since
// somebody last started it.
func (u *unit) active(again int) map[string]string {
	return map[string]string{"ActiveState": "active", "SubState": "running", "Result": "success", "NRestarts": fmt.Sprint(again), "MainPID": inner(u.was.exec)}
}

// down is a unit that was ended on purpose.
var down = map[string]string{"ActiveState": "inactive", "SubState": "dead", "Result": "success", "NRestarts": "0", "MainPID": "0", "ExecMainStatus": "0"}

// ended waits until the unit is down, and looks whether it stays so; left are the
// services that live on.
func (u *unit) ended(when string, left crew) {
	u.t.Helper()
	u.is(when, down)
	u.stays(when+" nothing is started", func() bool { return u.look() == left && u.properties(down)["ActiveState"] == "inactive" })
}

func (u *unit) stays(what string, holds func() bool) {
	u.t.Helper()
	if stays(u.t, what, holds); u.t.Failed() {
		u.t.FailNow()
	}
}

// What `p2pnode service install` promises, under a systemd that is PID 1: each step is
// judged by this host's /proc, by files, ports and what systemctl says.
func TestSystemd(t *testing.T) {
	t.Parallel()
	u := &unit{machine: boot(t)}
	bin.Copy(t, bin.P2pnode(t), u.file(unitBinary), "")
	bin.Copy(t, bin.Victim(t), u.file("/usr/local/bin/victim"), "")
	u.write(unitConfig, unitServices)
	u.write(unitFile+".d/test.conf", dropIn)

	u.installs()
	u.installsAgain()
	u.killed()
	u.stopsAndStarts()
	u.hangs()
	u.isBusy()
	u.isStuck()
	u.reloads()
	u.upgrades()
	u.shutDown()
	u.uninstalls()
	for name, starts := range map[string]int{"/var/lib/db": 4, "/var/lib/web": 4} {
		if ledger := u.read(name); strings.Contains(ledger, "second") || strings.Count(ledger, "\n") != starts {
			t.Errorf("%s was started:\n%s want %d times, and never beside a living copy", name, ledger, starts)
		}
	}
}

// The unit is that of deploy/, enabled, and works.
func (u *unit) installs() {
	u.ok("p2pnode", "service", "install")
	if state := u.properties(map[string]string{"ActiveState": ""})["ActiveState"]; state != "active" {
		u.t.Errorf("installed, and the unit is %s", state)
	}
	deployed, err := os.ReadFile(filepath.Join(bin.Root(u.t), "deploy/p2pnode.service"))
	if err != nil {
		u.t.Fatal(err)
	}
	if u.read(unitFile) != string(deployed) || !u.has(unitWanted) {
		u.t.Errorf("the unit is another one than in deploy/, or not enabled:\n%s", u.read(unitFile))
	}
	u.becomes("all runs", func(crew) bool { return true })
	u.is("installed", u.active(0))
	for _, port := range []int{7744, 7745, 8080, 8081} {
		if !host.Eventually(patience, func() bool { return u.listens(port) }) {
			u.t.Fatalf("nobody listens on %d", port)
		}
	}
	if info, err := os.Stat(u.file(unitData)); err != nil || info.Mode().Perm() != 0o700 {
		u.t.Errorf("data folder: %v %v", info, err)
	}
}

// Over a unit that is active, install writes the file, touches nothing that runs, and
// says what holds from when.
func (u *unit) installsAgain() {
	said := u.ok("p2pnode", "service", "install")
	if !strings.Contains(said, "what runs goes on as it was started:") {
		u.t.Errorf("installed again: %s", said)
	}
	u.write(unitFile, u.read(unitFile)+"# an earlier version\n")
	said = u.ok("p2pnode", "service", "install")
	if !strings.Contains(said, "the new unit holds from the next start on") || strings.Contains(u.read(unitFile), "earlier") {
		u.t.Errorf("installed over another unit: %s", said)
	}
	u.stays("nothing that runs was touched", func() bool { return u.look() == u.was })
	u.is("installed again", u.active(0))
}

// kill -9 of exec: systemd starts one, which adopts everything.
func (u *unit) killed() {
	for again := range 2 {
		u.kill(syscall.SIGKILL)
		u.becomes("exec is back, alone", u.otherExec)
		u.is("killed", u.active(again+1))
	}
	u.stays("one exec, and all as it was", func() bool { return u.look() == u.was })
}

func (u *unit) kill(s syscall.Signal) {
	u.t.Helper()
	if err := syscall.Kill(u.was.exec, s); err != nil {
		u.t.Fatal(err)
	}
}

// A stop ends all in order; after a start the unit is active only when exec has said
// that it is ready, which it is not while somebody holds its folder.
func (u *unit) stopsAndStarts() {
	u.ok("systemctl", "stop", "p2pnode")
	if now := u.look(); now != (crew{}) {
		u.t.Errorf("stopped, and %+v is left", now)
	}
	stopped := maps.Clone(down)
	stopped["NRestarts"] = "2"
	u.is("stopped", stopped)
	if told := u.read(farewells); told != "web terminated\ndb terminated\n" {
		u.t.Errorf("services ended as %q", told)
	}

	lock, err := os.OpenFile(u.file(unitData+"/run/exec.lock"), os.O_RDWR, 0)
	if err != nil {
		u.t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.FcntlFlock(lock.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}); err != nil {
		u.t.Fatal(err)
	}
	u.ok("systemctl", "start", "--no-block", "p2pnode")
	starting := map[string]string{"ActiveState": "activating", "SubState": "start"}
	u.is("started while somebody holds the folder", starting)
	u.stays("the unit is not active before exec is ready", func() bool { return maps.Equal(u.properties(starting), starting) })
	lock.Close()
	u.becomes("all runs again", func(crew) bool { return true })
	u.is("started", u.active(0))
}

// An exec that gives no sign of life is ended by systemd and replaced.
func (u *unit) hangs() {
	u.kill(syscall.SIGSTOP)
	u.becomes("an exec that hangs is replaced", u.otherExec)
	u.is("after the watchdog", u.active(1))
}

// A loop that is asked more than it can answer, for longer than the watchdog waits, is
// left alone: it answers.
func (u *unit) isBusy() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*allowed)
	defer cancel()
	var answers atomic.Int64
	var askers sync.WaitGroup
	used, began := host.CPU(u.was.exec), time.Now()
	for range 32 {
		askers.Go(func() {
			c, err := kept.Dial(ctx, u.file(unitData), kept.RoleCLI)
			if err != nil {
				u.t.Error(err)
				return
			}
			defer c.Close()
			for {
				if _, err := c.Status(ctx); err != nil {
					if ctx.Err() == nil {
						u.t.Error(err)
					}
					return
				}
				answers.Add(1)
			}
		})
	}
	askers.Wait()
	u.t.Logf("a busy exec: %d answers and %v of CPU time in %v", answers.Load(), host.CPU(u.was.exec)-used, time.Since(began).Round(time.Second))
	u.stays("a busy exec is left alone", func() bool { return u.look() == u.was })
	u.is("after an exec that was busy", u.active(1))
}

// A loop that waits for itself (a bug that is planted), while all else in exec goes on:
// it takes connections and what services print. Systemd's watchdog ends that exec, the
// next one adopts.
func (u *unit) isStuck() {
	plant := unitFile + ".d/plant.conf"
	u.runs(bin.Planted(u.t), plant, "[Service]\nEnvironment=P2PNODE_PLANT=loop-asks-itself\n")
	u.is("with a bug", u.active(2))
	ended := strings.Count(u.read("/dev/kmsg"), "Watchdog timeout")

	asked := make(chan int, 1)
	go func() {
		_, code := u.in("p2pnode", "observe", "on", "all")
		asked <- code
	}()
	printed := func() int64 {
		info, err := os.Stat(u.file(unitData + "/logs/db.log"))
		if err != nil {
			u.t.Fatal(err)
		}
		return info.Size()
	}
	// Each time that exec, which hangs, has taken more of what db prints.
	stuck, start, size, goesOn := u.was.exec, host.StartTicks(u.was.exec), printed(), 0
	if !host.Eventually(patience, func() bool {
		if now := printed(); now > size && host.Running(stuck, start) {
			size, goesOn = now, goesOn+1
		}
		return !host.Running(stuck, start)
	}) {
		u.t.Fatal("nobody ends an exec whose loop is stuck")
	}
	code := <-asked // until it has ended it may be taken for an exec
	u.becomes("an exec whose loop was stuck is replaced", u.otherExec)
	if now := strings.Count(u.read("/dev/kmsg"), "Watchdog timeout"); now != ended+1 || goesOn < 10 {
		u.t.Errorf("the watchdog ended %d execs; the one that was stuck took what db printed %d times", now-ended, goesOn)
	}
	if code == 0 {
		u.t.Error("observe succeeds at a loop that is stuck")
	}
	u.is("after a loop that was stuck", u.active(3))
	u.runs(bin.P2pnode(u.t), plant, "")
	u.is("without the bug", u.active(4))
}

// runs puts another binary in place, with a drop-in, and has exec started from it.
func (u *unit) runs(binary, dropIn, text string) {
	u.t.Helper()
	bin.Copy(u.t, binary, u.file(unitBinary)+".new", "")
	if err := os.Rename(u.file(unitBinary)+".new", u.file(unitBinary)); err != nil {
		u.t.Fatal(err)
	}
	u.write(dropIn, text)
	u.ok("systemctl", "daemon-reload")
	u.kill(syscall.SIGKILL)
	u.becomes("exec of another binary is there", u.otherExec)
}

// A reload reads the file again; a file that is wrong changes nothing.
func (u *unit) reloads() {
	u.write(unitConfig, unitServices+"  more:\n    command: [sleep, \"100000\"]\n")
	u.ok("systemctl", "reload", "p2pnode")
	u.becomes("what is new runs, and what is not stays", func(now crew) bool {
		more := now.more
		now.more = 0
		return more != 0 && now == u.was
	})
	u.is("reloaded", u.active(4))
	u.write(unitConfig, unitServices+"nonsense: 1\n")
	if out, code := u.in("systemctl", "reload", "p2pnode"); code == 0 {
		u.t.Errorf("a wrong file is loaded: %s", out)
	}
	u.stays("a wrong file changes nothing", func() bool { return u.look() == u.was })
	u.is("after a reload of a wrong file", map[string]string{"ActiveState": "active", "NRestarts": "4", "MainPID": inner(u.was.exec)})
	u.write(unitConfig, unitServices)
	u.ok("systemctl", "reload", "p2pnode")
	u.becomes("what is no longer there ends", func(now crew) bool {
		gone := now.more == 0
		now.more = u.was.more
		return gone && now == u.was
	})
}

// A reload goes over to the binary that is installed by then.
func (u *unit) upgrades() {
	next := u.file(unitBinary)
	bin.Copy(u.t, bin.P2pnode(u.t), next+".new", "next")
	if err := os.Rename(next+".new", next); err != nil {
		u.t.Fatal(err)
	}
	u.ok("systemctl", "reload", "p2pnode")
	u.becomes("exec keeps its pid, services theirs, door and node process are new", func(now crew) bool {
		other := now.door != u.was.door && now.node != u.was.node
		now.door, now.node = u.was.door, u.was.node
		return other && now == u.was
	})
	installed, err := os.Stat(next)
	for _, pid := range []int{u.was.exec, u.was.door, u.was.node} {
		runs, errRuns := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
		if err = errors.Join(err, errRuns); err != nil {
			u.t.Fatal(err)
		}
		if !os.SameFile(runs, installed) {
			u.t.Errorf("%d runs another binary than the installed one", pid)
		}
	}
	u.is("upgraded", u.active(4))
	u.kill(syscall.SIGKILL)
	u.becomes("exec of the new binary is back", u.otherExec)
	u.is("killed after an upgrade", u.active(5))
}

// shutDown is final; the services that it is to keep are adopted by the next exec.
func (u *unit) shutDown() {
	u.ok("systemctl", "restart", "p2pnode")
	u.becomes("all runs again", func(now crew) bool { return now.exec != u.was.exec && now.web != u.was.web && now.db != u.was.db })
	u.ok("p2pnode", "shutdown", "--keep-services")
	u.ended("after shutdown --keep-services", crew{pids: pids{web: u.was.web}, db: u.was.db})
	u.ok("systemctl", "start", "p2pnode")
	u.becomes("services are adopted", func(now crew) bool { return now.web == u.was.web && now.db == u.was.db })
	u.is("started", u.active(0))
	u.ok("p2pnode", "shutdown")
	u.ended("after shutdown", crew{})
}

// uninstalls: nothing runs, and nothing would be started.
func (u *unit) uninstalls() {
	u.ok("systemctl", "start", "p2pnode")
	u.becomes("all runs again", func(crew) bool { return true })
	u.ok("p2pnode", "service", "uninstall")
	if now := u.look(); now != (crew{}) {
		u.t.Errorf("uninstalled, and %+v is left", now)
	}
	if u.has(unitFile) || u.has(unitWanted) || !u.has(unitConfig) || !u.has(unitData+"/node.key") {
		u.t.Error("uninstalled: the unit should be gone, configuration and data not")
	}
	if groups, _ := filepath.Glob(filepath.Join(u.group, "system.slice", "p2pnode*")); len(groups) > 0 {
		u.t.Errorf("cgroups are left: %q", groups)
	}
	u.ended("uninstalled", crew{})
}
