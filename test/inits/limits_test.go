package inits

import (
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"p2pnode"
	"p2pnode/test/bin"
)

// limitedServices are one without limits, which takes a second to stop, and those of which
// a group holds some. The one that is stopped after it says whether that was exec.
const limitedServices = `listen: 127.0.0.1:7744
door: 127.0.0.1:7745
services:
  plain:
    shell: "trap 'sleep 1; exit' TERM; sleep 100000 & wait"
    after: [calm]
  calm:
    shell: "trap 'echo exec >>/var/log/ended; exit' USR1; trap 'echo other >>/var/log/ended; exit' TERM; sleep 100000 & wait"
    stop: {signal: USR1}
    limits: {memory_total: 64M, cpu: 0.5, pids: 20}
  grows:
    command: [tail, /dev/zero]
    restart: no
    limits: {memory_total: 48M}
  bomb:
    shell: "(while :; do sleep 100001 & done) 2>/dev/null; exec sleep 100001"
    limits: {pids: 7}
  spins:
    shell: "while :; do :; done"
    user: nobody
    limits: {cpu: 0.1, pids: 5}
`

// limited is a p2pnode that runs as a unit of a kernel with cgroup v2 alone.
type limited struct{ *kernel }

// On a host with cgroup v2 alone, under systemd, what limits: says of all of a service
// holds: also of one that outlived its exec. Nothing is left of it, and no unit fails.
func TestLimitsOnCgroupV2Alone(t *testing.T) {
	t.Parallel()
	k := limited{bootKernel(t, map[string]file{
		unitBinary:                {from: bin.P2pnode(t)},
		unitConfig:                {text: limitedServices},
		"/etc/passwd":             {text: "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"},
		unitFile + ".d/test.conf": {text: "[Service]\nStandardError=append:" + daemonLog + "\n"},
	}, "")}
	k.ok("p2pnode service install")
	k.asksAgain(k.outlivesExec())
	k.outlivesUpgrade()
	k.outlivesScope()
	k.stopLeavesNothing()
	k.ok("systemctl start p2pnode")
	k.hostStops()
	k.ok("systemctl start p2pnode")
	k.holds()
	k.ok("p2pnode service uninstall")
	k.nothingIsLeft("uninstalled")
}

// living are the services that run for ever.
var living = []string{"plain", "calm", "bomb", "spins"}

// up waits until all services are as they are to be, and returns where those are that
// run for ever: PID GROUP.
func (k limited) up() map[string]string {
	k.t.Helper()
	var now map[string]p2pnode.ServiceStatus
	k.becomes("services are up, and one that grows was killed and is said to be", func() bool {
		now = k.ps()
		exit := now["grows"].LastExit
		return exit != nil && exit.OOM && exit.Signal == "SIGKILL" && !slices.ContainsFunc(living, func(name string) bool { return now[name].State != p2pnode.StateUp })
	})
	out := map[string]string{}
	for _, name := range living {
		out[name] = fmt.Sprint(now[name].PID, " ", k.groupOf(now[name].PID))
	}
	return out
}

func (k limited) groupOf(pid int) string {
	k.t.Helper()
	return strings.TrimPrefix(k.ok(fmt.Sprintf("cat /proc/%d/cgroup", pid)), "0::")
}

// value is what files of a group say.
func (k limited) value(group string, files ...string) string {
	k.t.Helper()
	return k.ok("cd /sys/fs/cgroup" + group + " && cat " + strings.Join(files, " "))
}

// holds looks at every limit, and returns where the services are and the scope in which
// those with limits are.
func (k limited) holds() (now map[string]string, scope string) {
	k.t.Helper()
	now = k.up()
	if where := now["plain"]; !regexp.MustCompile(`^\d+ /system.slice/p2pnode.service/p2pnode-[^/]+/plain@\d+$`).MatchString(where) {
		k.t.Errorf("a service without limits is %s", where)
	}
	group := map[string]string{}
	for _, name := range living[1:] {
		found := regexp.MustCompile(`^\d+ ((/system.slice/p2pnode-[^/]+\.scope)/` + name + `@\d+)$`).FindStringSubmatch(now[name])
		if found == nil || scope != "" && scope != found[2] {
			k.t.Fatalf("%s is %s, others are in %q", name, now[name], scope)
		}
		group[name], scope = found[1], found[2]
	}
	if got := k.value(group["calm"], "memory.max", "cpu.max", "pids.max"); got != "67108864\n50000 100000\n20" {
		k.t.Errorf("limits of calm are %q", got)
	}
	k.becomes("a fork bomb met its number", func() bool { return k.value(group["bomb"], "pids.events") != "max 0" })
	if n := len(strings.Fields(k.value(group["bomb"], "cgroup.procs"))); n > 7 || n < 5 {
		k.t.Errorf("a fork bomb has %d processes, 7 are allowed", n)
	}
	k.becomes("one that spins is held back", func() bool {
		return regexp.MustCompile(`nr_throttled [1-9]`).MatchString(k.value(group["spins"], "cpu.stat"))
	})
	return now, scope
}

// otherExec ends exec and waits for the next one.
func (k limited) otherExec() {
	k.t.Helper()
	was := k.ok("systemctl show -P MainPID p2pnode")
	k.ok("kill -9 " + was)
	k.until("another exec", `now=$(systemctl show -P MainPID p2pnode); [ $now != 0 -a $now != `+was+` ] && p2pnode ps`)
}

// kill -9 of exec: services live on where they are, and so do their limits; nobody holds
// their scope but they.
func (k limited) outlivesExec() (scope string) {
	k.t.Helper()
	was, scope := k.holds()
	k.otherExec()
	if now, _ := k.holds(); !maps.Equal(now, was) {
		k.t.Errorf("after the death of exec %q, before it %q", now, was)
	}
	if !k.ps()["calm"].Adopted {
		k.t.Error("it is not adopted")
	}
	k.until("who held the scope is gone", "[ -z \"$(cat /sys/fs/cgroup"+scope+"/hold/cgroup.procs)\" ]")
	return scope
}

// What an exec starts is in a scope that this exec holds open, and the one before goes
// when its last service does. Until it has one it ends nothing that is well.
func (k limited) asksAgain(before string) {
	k.t.Helper()
	was, asker := k.up(), k.ok("command -v systemd-run")
	k.ok("mount --bind /bin/false " + asker)
	if out, ok := k.in("p2pnode restart calm"); ok || !strings.Contains(out, "systemd gives no scope") {
		k.t.Errorf("a restart for which systemd gives no scope: %s", out)
	}
	if now := k.up(); !maps.Equal(now, was) {
		k.t.Errorf("without a scope %q, before it %q", now, was)
	}
	k.ok("umount " + asker)
	k.until("systemd is asked again", "p2pnode restart calm bomb spins")
	if _, now := k.holds(); now == before {
		k.t.Errorf("a service is started in a scope that another exec asked for: %s", now)
	}
	k.until("an empty scope is gone", "! test -e /sys/fs/cgroup"+before)
}

// An exec that becomes another binary keeps its services, where they are.
func (k limited) outlivesUpgrade() {
	k.t.Helper()
	exec, was := k.ok("systemctl show -P MainPID p2pnode"), k.up()
	k.ok("cd /usr/local/bin && cp p2pnode new && echo next >>new && mv new p2pnode && systemctl reload p2pnode")
	if now := k.ok("systemctl show -P MainPID p2pnode; readlink /proc/" + exec + "/exe"); now != exec+"\n"+unitBinary {
		k.t.Fatalf("not upgraded: %q, was %s", now, exec)
	}
	if now, _ := k.holds(); !maps.Equal(now, was) {
		k.t.Errorf("after an upgrade %q, before it %q", now, was)
	}
}

// A scope that somebody stops takes its services with it: they are back in another one,
// with their limits, each time.
func (k limited) outlivesScope() {
	k.t.Helper()
	for range 3 {
		_, was := k.holds()
		k.ok("systemctl stop " + filepath.Base(was))
		k.until("the scope is gone", "! test -e /sys/fs/cgroup"+was)
		if _, now := k.holds(); now == was {
			k.t.Errorf("in a scope that was stopped: %s", now)
		}
	}
}

// A stop leaves neither process nor group nor unit.
func (k limited) stopLeavesNothing() {
	k.t.Helper()
	k.ok("systemctl stop p2pnode")
	k.nothingIsLeft("stopped")
}

func (k limited) nothingIsLeft(when string) {
	k.t.Helper()
	if out, left := k.in("pgrep -a 'p2pnode|sleep|cat|tail'"); left {
		k.t.Errorf("%s, and left are processes: %s", when, out)
	}
	k.until(when+" no group is left", "! ls -d /sys/fs/cgroup/system.slice/p2pnode*")
	k.until(when+" no unit is left", "! systemctl --no-legend --all list-units 'p2pnode*' | grep -v inactive")
	if out := k.ok("systemctl --no-legend --failed list-units"); out != "" {
		k.t.Errorf("%s, and failed are %s", when, out)
	}
}

// When the host goes down systemd stops all units, in one go; exec is to end its
// services, not systemd.
func (k limited) hostStops() {
	k.t.Helper()
	_, scope := k.holds()
	k.ok("rm -f /var/log/ended; systemctl stop p2pnode.service " + filepath.Base(scope))
	k.nothingIsLeft("stopped with its scope")
	if by := k.ok("cat /var/log/ended"); by != "exec" {
		k.t.Errorf("stopped with its scope, a service was ended by %q", by)
	}
}
