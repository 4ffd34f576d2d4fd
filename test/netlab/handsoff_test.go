package netlab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/bin"
	"p2pnode/test/history"
	"p2pnode/test/host"
)

// handsOff is a person's word on a service, and what a story about it must say.
type handsOff struct {
	service string
	say     []string // the command, none where the file says it
	held    p2pnode.Held
}

var intents = []handsOff{
	{"kept", []string{"maintenance", "on", "kept"}, p2pnode.HeldMaintenance},
	{"seen", []string{"observe", "on", "seen"}, p2pnode.HeldObserve},
	{"off", nil, p2pnode.HeldOff},
}

// handsOffYAML are the services, and what has a line from each process that is started.
func handsOffYAML(t *testing.T) (yaml string, starts func(h *host.Host, service string) int) {
	dir := t.TempDir()
	run := "echo $$ >>" + dir + "/$P2PNODE_NODE.$P2PNODE_SERVICE; exec sleep 1000000"
	yaml = fmt.Sprintf(`grace: {agent: 300ms, node: 300ms}
services:
  kept: {shell: %[1]q, ready: started}
  seen: {shell: %[1]q, ready: started}
  off: {shell: %[1]q, ready: started, recover: "off"}
`, run)
	return yaml, func(h *host.Host, service string) int {
		raw, err := os.ReadFile(filepath.Join(dir, h.Name+"."+service))
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(raw), "\n")
	}
}

// unsay takes back what a person has said.
func unsay(h *host.Host, say []string) {
	h.Fleet.T.Helper()
	if say != nil {
		h.OK(say[0], "off", say[2])
	}
}

func upPID(h *host.Host, service string) (pid int, inc string) {
	var d p2pnode.PSDoc
	h.JSON(&d, "ps")
	for _, s := range d.Services {
		if s.Name == service && s.State == p2pnode.StateUp {
			return s.PID, s.Incarnation
		}
	}
	return 0, ""
}

// Nobody touches what a person has put aside, on every path: by the resident
// agent, by exec's own fallback, with the node process stopped or killed, by an exec
// that was dead itself, on the other side of a cut. Each refusal is named.
func TestHandsOff(t *testing.T) {
	names := []string{"a", "b"}
	yaml, starts := handsOffYAML(t)
	l, hosts := mesh(t, bin.P2pnode(t), yaml, names...)
	a, b := hosts[0], hosts[1]
	a.OK("agents", "launch", "--slo", "15s")
	member := func() {
		l.Must(20*time.Second, "one view", func() bool { return b.Sees(names...) && a.Sees(names...) })
	}
	for _, path := range []struct {
		name       string
		fault, end func()
	}{
		{"agent and fallback", func() {}, func() {}},
		{"node process stopped", func() { b.OK("stop", "@node") }, func() { b.OK("start", "@node"); member() }},
		{"node process killed", func() { b.OK("maintenance", "on", "@node"); killSelf(b) }, func() { b.OK("maintenance", "off", "@node"); b.OK("start", "@node"); member() }},
		{"exec killed", func() { b.Kill(p2pnode.SelfExec, p2pnode.ClassExecDead, b.Exec()) }, member},
		{"other side of a cut", func() { l.Part(names[:1], names[1:]) }, func() { l.Join(names[:1], names[1:]); member() }},
	} {
		pids, incs, was := map[string]int{}, map[string]string{}, map[string]int{}
		for _, in := range intents {
			l.Must(10*time.Second, in.service+" is up", func() bool { pids[in.service], incs[in.service] = upPID(b, in.service); return pids[in.service] != 0 })
			was[in.service] = starts(b, in.service)
			if in.say != nil {
				b.OK(in.say...)
			}
		}
		path.fault()
		for service, pid := range pids {
			b.Kill(service, p2pnode.ClassSignalled, pid)
		}
		time.Sleep(1500 * time.Millisecond) // five times what exec would wait for an agent
		path.end()
		for _, in := range intents {
			l.Must(20*time.Second, fmt.Sprintf("%s: the story of %s says %s", path.name, in.service, in.held), func() bool {
				_, ok := b.Incident("b", in.service, func(i p2pnode.Incident) bool { return i.OldIncarnation == incs[in.service] && i.Held == in.held })
				return ok
			})
			if n := starts(b, in.service) - was[in.service]; n != 0 {
				t.Errorf("%s: %s was started %d times", path.name, in.service, n)
			}
			unsay(b, in.say)
			b.OK("start", in.service)
		}
	}
	l.Judge(history.Options{EndView: true})
}

// killSelf kills the node process of h.
func killSelf(h *host.Host) {
	h.Fleet.T.Helper()
	h.Kill(p2pnode.SelfNode, p2pnode.ClassProcessDead, h.Role("node"))
}

// An agent that comes from another host for a node process that a person has put
// aside is refused at its door, and exec's own fallback too. The story says why
// nobody acts; once a person has started it, the story ends.
func TestHandsOffANodeProcess(t *testing.T) {
	names := []string{"a", "b"}
	yaml, _ := handsOffYAML(t)
	l, hosts := mesh(t, bin.P2pnode(t), yaml, names...)
	a, b := hosts[0], hosts[1]
	a.OK("agents", "launch", "--slo", "15s")
	l.Must(20*time.Second, "an agent on patrol", func() bool { return len(a.Agents()) > 0 })
	for _, in := range []handsOff{
		{p2pnode.SelfNode, []string{"maintenance", "on", "@node"}, p2pnode.HeldMaintenance},
		{p2pnode.SelfNode, []string{"observe", "on", "@node"}, p2pnode.HeldObserve},
	} {
		life := b.Nodes()["b"].Life
		b.OK(in.say...)
		killSelf(b)
		told := func(keep func(p2pnode.Incident) bool) func() bool {
			return func() bool {
				_, ok := a.Incident("b", "", func(i p2pnode.Incident) bool { return i.OldIncarnation == life && keep(i) })
				return ok
			}
		}
		l.Must(20*time.Second, "a tells that nobody acts: "+string(in.held), told(func(i p2pnode.Incident) bool { return i.Held == in.held }))
		time.Sleep(1500 * time.Millisecond)
		if pid := b.Role("node"); pid != 0 {
			t.Errorf("%s: the node process was started as %d", in.held, pid)
		}
		unsay(b, in.say)
		b.OK("start", "@node")
		l.Must(20*time.Second, "one view", func() bool { return a.Sees(names...) && b.Sees(names...) })
		l.Must(40*time.Second, "the story has an end", told(func(i p2pnode.Incident) bool { return i.State == p2pnode.IncidentRecovered }))
	}
	l.Judge(history.Options{EndView: true})
}
