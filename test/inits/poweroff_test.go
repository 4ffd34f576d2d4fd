package inits

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/bin"
)

// acted is a service that tells what it does, and when, in /var/lib/told. Asked to end,
// a quick one does; a deaf one goes on, and says so each tenth of a second; a slow one
// takes as long as /etc/flush says to write what it has to what is mounted at /srv/data.
const acted = `#!/bin/sh
tell() { echo "$name $1 $(date +%s.%N)" >>/var/lib/told; }
flush() {
	sleep "$(cat /etc/flush)"
	echo all of it | dd of=/srv/data/$name conv=fsync 2>/dev/null
}
name=$1 how=$2
case $how in
quick) trap 'tell asked; tell ended; exit' TERM ;;
slow) trap 'tell asked; flush; tell ended; exit' TERM ;;
deaf) trap 'tell asked' TERM ;;
esac
[ ! -e /var/lib/$name.beat ] || mv /var/lib/$name.beat /var/lib/$name.beat.last
tell started
while :; do
	[ $how != deaf ] || date +%s.%N >>/var/lib/$name.beat
	sleep 0.1
done
`

// actedServices are a chain of three and one beside it.
const actedServices = `listen: 127.0.0.1:7744
door: 127.0.0.1:7745
shutdown_timeout: 12s
services:
  db:
    command: [/usr/local/bin/acted, db, slow]
  app:
    command: [/usr/local/bin/acted, app, deaf]
    requires: [db]
    stop: {timeout: 2s}
  front:
    command: [/usr/local/bin/acted, front, quick]
    requires: [app]
  web:
    command: [/usr/local/bin/acted, web, quick]
`

// ownTime is what an orderly stop may take, by actedServices.
const ownTime = 12 * time.Second

// powered is a host with a disk, and with something mounted over the network.
type powered struct {
	*kernel
	t          *testing.T
	disk, data string
	config     string
	flush      string                // seconds
	stopped    p2pnode.ServiceStatus // web, which a person has stopped
}

// A host that goes down and comes back: what systemd and p2pnode make of it together.
// Services end in their order, the one that has much to write has the time for it, and
// what it writes to is there until then; what a person wants outlives it all.
func TestPower(t *testing.T) {
	t.Parallel()
	h := &powered{t: t, disk: newDisk(t), data: t.TempDir(), config: actedServices, flush: "3"}
	h.boots()
	h.ok("p2pnode service install")
	h.are(map[string]p2pnode.ServiceState{"web": p2pnode.StateUp})
	h.ok("p2pnode stop web && rm /var/lib/told")
	h.stopped = h.ps()["web"]

	t.Logf("powered off within %v", h.powersOff())
	h.boots()
	h.isAsBefore("powered off")
	h.wasOrdered("powered off")

	h.restarts()
	h.comesBack()
	h.isAsBefore("rebooted")
	h.wasOrdered("rebooted")

	h.cut()
	<-h.ended
	h.boots()
	h.isAsBefore("without power")
}

func (h *powered) boots() {
	h.t.Helper()
	h.kernel = bootKernel(h.t, map[string]file{
		unitBinary:             {from: bin.P2pnode(h.t)},
		"/usr/local/bin/acted": {text: acted},
		// What systemd itself says of the end.
		unitFile + ".d/test.conf":                             {text: "[Service]\nStandardError=append:" + daemonLog + "\nExecStopPost=/bin/sh -c 'echo $$SERVICE_RESULT $$EXIT_CODE $$EXIT_STATUS >>/var/lib/result'\n"},
		"/etc/systemd/system/srv-data.mount":                  {text: "[Mount]\nWhat=none\nWhere=/srv/data\nType=hostfs\nOptions=_netdev," + h.data + "\n"},
		"/etc/systemd/system/remote-fs.target.d/data.conf":    {text: "[Unit]\nRequires=srv-data.mount\n"},
		"/etc/systemd/system/multi-user.target.d/remote.conf": {text: "[Unit]\nWants=remote-fs.target\n"},
		unitConfig:   {text: h.config},
		"/etc/flush": {text: h.flush},
	}, h.disk)
}

// are waits until the chain is up, and another one as it is to be.
func (h *powered) are(want map[string]p2pnode.ServiceState) {
	h.t.Helper()
	for _, name := range []string{"db", "app", "front"} {
		want[name] = p2pnode.StateUp
	}
	h.becomes(fmt.Sprint("services are ", want), func() bool {
		now := h.ps()
		return !slices.ContainsFunc([]string{"db", "app", "front", "web"}, func(name string) bool { return now[name].State != want[name] })
	})
	h.until("they listen to signals", `[ "$(grep -c started /var/lib/told)" -ge `+strconv.Itoa(map[p2pnode.ServiceState]int{p2pnode.StateUp: 4, p2pnode.StateStopped: 3}[want["web"]])+" ]")
}

// powersOff ends the host within the time that an orderly stop has, systemd's own included.
func (h *powered) powersOff() time.Duration {
	h.t.Helper()
	took := h.goesDown()
	if took > ownTime+10*time.Second {
		h.t.Errorf("the host was down after %v", took)
	}
	return took
}

// wasOrdered judges the last end: by what services told, by what is there from outside,
// and by what systemd says of the unit.
func (h *powered) wasOrdered(when string) {
	h.t.Helper()
	told := map[string]float64{}
	var order []string
	all := h.ok("cat /var/lib/told; rm /var/lib/told")
	for line := range strings.Lines(all) {
		f := strings.Fields(line)
		if what := f[0] + " " + f[1]; len(f) == 3 && f[1] != "started" && f[0] != "web" {
			order = append(order, what)
			told[what], _ = strconv.ParseFloat(f[2], 64)
		}
	}
	if want := []string{"front asked", "front ended", "app asked", "db asked", "db ended"}; !slices.Equal(order, want) {
		h.t.Fatalf("%s: services told %q, want %q\n%s", when, order, want, all)
	}
	lived, err := strconv.ParseFloat(h.ok("tail -n 1 /var/lib/app.beat.last"), 64)
	if err != nil {
		h.t.Fatal(err)
	}
	if after := lived - told["app asked"]; after < 1.5 || lived > told["db asked"] {
		h.t.Errorf("%s: a deaf one, which has two seconds, lived %.1f s after it was asked; the next was asked %.1f s later", when, after, told["db asked"]-lived)
	}
	flushed := filepath.Join(h.data, "db")
	if raw, err := os.ReadFile(flushed); err != nil || string(raw) != "all of it\n" {
		h.t.Errorf("%s: what the slow one had is not where it belongs: %q %v", when, raw, err)
	}
	os.Remove(flushed)
	if result := h.ok("cat /var/lib/result; rm /var/lib/result"); result != "success exited 0" {
		h.t.Errorf("%s: systemd says of the unit %q", when, result)
	}
}

// isAsBefore: all runs that is to run, for the first time, and nothing tells of a
// failure.
func (h *powered) isAsBefore(when string) {
	h.t.Helper()
	h.are(map[string]p2pnode.ServiceState{"web": p2pnode.StateStopped})
	for name, s := range h.ps() {
		switch {
		case s.Restarts != 0 || s.LastExit != nil || s.Adopted:
			h.t.Errorf("%s: %s is told to have been restarted: %+v", when, name, s)
		case name == "web" && (!s.StoppedAt.Equal(h.stopped.StoppedAt) || s.StoppedBy != h.stopped.StoppedBy || s.StoppedBy == ""):
			h.t.Errorf("%s: web is stopped by %q since %v, was by %q since %v", when, s.StoppedBy, s.StoppedAt, h.stopped.StoppedBy, h.stopped.StoppedAt)
		}
	}
	var doc struct{ Incidents []p2pnode.Incident }
	h.until("the node process answers", "p2pnode incidents")
	if err := json.Unmarshal([]byte(h.ok("p2pnode incidents -o json")), &doc); err != nil || len(doc.Incidents) > 0 {
		h.t.Errorf("%s: incidents are %+v %v", when, doc.Incidents, err)
	}
	if failed := h.ok("systemctl --no-legend --failed list-units"); failed != "" {
		h.t.Errorf("%s: failed are %s", when, failed)
	}
	if told := h.ok("grep -c ^web.started /var/lib/told || true"); told != "0" {
		h.t.Errorf("%s: web, which is stopped, was started %s times", when, told)
	}
}

// restarts: where the file allows an orderly stop more time than the unit, systemd waits.
func (h *powered) restarts() {
	h.t.Helper()
	h.config, h.flush = strings.Replace(h.config, "12s", "30s", 1), "7"
	h.ok("sed -i s/12s/30s/ " + unitConfig)
	h.ok("mkdir -p " + unitFile + ".d && printf '[Service]\\nTimeoutStopSec=4\\n' >" + unitFile + ".d/hasty.conf && systemctl daemon-reload")
	h.restart("restarted")
	h.ok("echo 7 >/etc/flush")
	h.restart("restarted, and what is to be written takes longer than the unit allows")
}

func (h *powered) restart(what string) {
	h.t.Helper()
	h.ok("systemctl restart p2pnode")
	h.isAsBefore(what)
	h.wasOrdered(what)
}
