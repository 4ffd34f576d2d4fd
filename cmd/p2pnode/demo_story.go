package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"time"

	"p2pnode"
)

// The faults that the demo makes.
const (
	faultService  = "service-kill"
	faultNode     = "node-kill"
	faultStop     = "service-stop"
	faultDeadlock = "service-deadlock"
	faultHost     = "host-gone"
)

// patience is how long one repair may take before the demo calls it failed.
const patience = 10 * time.Second

// story is the demo from start to end; it ends at the first thing that is not as
// it should be.
func (d *demo) story(ctx context.Context) error {
	d.say("%d hosts on this machine, each exec + door + node + one web service, in a ring; exec would wait 60 s before it acts alone", len(d.hosts))
	if err := d.startAll(ctx); err != nil {
		return err
	}
	if err := d.waitForAll(ctx, d.hosts); err != nil {
		return err
	}
	d.say("all up: every host sees %d alive, every web service answers", len(d.hosts))
	founder := d.hosts[0]
	if err := founder.cli(ctx, nil, "agents", "launch", "--slo", demoSLO, "--confidence", demoConfidence); err != nil {
		return err
	}
	if !until(patience, 50*time.Millisecond, func() bool { return ctx.Err() != nil || len(founder.agents(ctx)) > 0 }) {
		return errors.New("an agent was launched on " + founder.name + ", none is on patrol")
	}
	d.say("%s launched by one standing order that every node keeps", count(len(founder.agents(ctx)), "agent"))

	steps := []func(context.Context) error{
		func(ctx context.Context) error { return d.killService(ctx, d.hosts[1]) },
		func(ctx context.Context) error { return d.killNode(ctx) },
		func(ctx context.Context) error { return d.stopService(ctx, d.hosts[2]) },
		func(ctx context.Context) error { return d.deadlock(ctx, d.hosts[3]) },
		func(ctx context.Context) error { return d.loseManager(ctx) },
		func(ctx context.Context) error { return d.killNode(ctx) },
		func(ctx context.Context) error { return d.killService(ctx, d.hosts[len(d.hosts)-1]) },
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("not done after %s", time.Since(d.began).Round(time.Second))
		}
	}
	if err := d.settle(ctx); err != nil {
		return err
	}
	if err := d.waitForAll(ctx, d.living()); err != nil {
		return err
	}
	d.rest = time.Now()
	return nil
}

// demoSLO and demoConfidence ask for so little that one agent is enough for five
// hosts: then there is always a host that it is far from, and it rests for a second
// on each, time to see where it is. Which of two agents is near is a matter of luck.
const (
	demoSLO        = "30s"
	demoConfidence = "0.85"
)

// waitForAll waits until each of hosts sees all of them alive and its web service
// answers.
func (d *demo) waitForAll(ctx context.Context, hosts []*demoHost) error {
	for _, h := range hosts {
		ok := until(20*time.Second, 50*time.Millisecond, func() bool {
			return ctx.Err() != nil || d.allAlive(ctx, h)
		})
		if !ok || ctx.Err() != nil {
			return fmt.Errorf("%s does not see all %d hosts alive; its output is in %s.log", h.name, len(hosts), h.files)
		}
		if !until(patience, 20*time.Millisecond, func() bool { return answer(h.web, 200*time.Millisecond) != 0 }) {
			return fmt.Errorf("the web service of %s does not answer; its output is in %s.log", h.name, h.files)
		}
	}
	return nil
}

func (d *demo) allAlive(ctx context.Context, h *demoHost) bool {
	alive := 0
	for _, n := range h.nodes(ctx) {
		if n.Verdict == p2pnode.Alive {
			alive++
		}
	}
	return alive == len(d.living())
}

// inject writes a fault down and makes it.
func (d *demo) inject(fault string, h *demoHost, service string, class p2pnode.Class, pid int, do func() error) (demoFault, error) {
	f := demoFault{Fault: fault, Node: h.name, Service: service, InjectedAt: time.Now()}
	d.history.Record(p2pnode.HistoryEvent{Event: p2pnode.HistFault, Target: h.name, Service: faulted(fault, service), Class: class, PID: pid})
	return f, do()
}

// faulted is what a history line calls the broken thing: "" is the whole host.
func faulted(fault, service string) string {
	if service == "" && fault != faultHost {
		return p2pnode.SelfNode
	}
	return service
}

// copyOf is the one process that serves h's web service, cross-checked: the one
// that /proc shows is the one that answers.
func (d *demo) copyOf(h *demoHost) (process, error) {
	copies := webCopies(h.web)
	if len(copies) != 1 {
		return process{}, fmt.Errorf("%d copies of web run on %s, should be 1", len(copies), h.name)
	}
	if pid := answer(h.web, time.Second); pid != copies[0].pid {
		return process{}, fmt.Errorf("web on %s runs as pid %d, but %d answers", h.name, copies[0].pid, pid)
	}
	return copies[0], nil
}

// freeLife is how long a service must have lived for exec's policy to let it start
// again at once; before that it waits 100 ms, which is not what the demo measures.
const freeLife = 1100 * time.Millisecond

func (d *demo) killService(ctx context.Context, h *demoHost) error {
	old, err := d.copyOf(h)
	if err != nil {
		return err
	}
	until(freeLife, 10*time.Millisecond, func() bool { return ctx.Err() != nil || old.age() > freeLife })
	d.say("kill -9 of service web on %s (pid %d)", h.name, old.pid)
	f, err := d.inject(faultService, h, "web", p2pnode.ClassSignalled, old.pid, func() error { return old.kill(syscall.SIGKILL) })
	if err != nil {
		return err
	}
	return d.serviceBack(ctx, f, h, old, func() bool { return !old.running() })
}

func (d *demo) stopService(ctx context.Context, h *demoHost) error {
	old, err := d.copyOf(h)
	if err != nil {
		return err
	}
	d.say("SIGSTOP of service web on %s (pid %d, stop_grace: 0)", h.name, old.pid)
	f, err := d.inject(faultStop, h, "web", p2pnode.ClassFrozen, old.pid, func() error { return old.kill(syscall.SIGSTOP) })
	if err != nil {
		return err
	}
	return d.serviceBack(ctx, f, h, old, func() bool { return old.stopped() || !old.running() })
}

func (d *demo) deadlock(ctx context.Context, h *demoHost) error {
	old, err := d.copyOf(h)
	if err != nil {
		return err
	}
	d.say("deadlock of service web on %s (pid %d): the port stays open, no answer comes", h.name, old.pid)
	f, err := d.inject(faultDeadlock, h, "web", p2pnode.ClassHung, old.pid, func() error {
		resp, err := (&http.Client{Timeout: time.Second}).Post(fmt.Sprintf("http://127.0.0.1:%d/deadlock", h.web), "", nil)
		if err == nil {
			resp.Body.Close()
		}
		return err
	})
	if err != nil {
		return err
	}
	return d.serviceBack(ctx, f, h, old, func() bool { return old.running() && answer(h.web, 50*time.Millisecond) == 0 })
}

// serviceBack proves the fault, waits for the first good answer of another
// process, and looks at what is there then.
func (d *demo) serviceBack(ctx context.Context, f demoFault, h *demoHost, old process, broken func() bool) error {
	if !until(time.Second, 200*time.Microsecond, broken) {
		return d.notRepaired(ctx, f, fmt.Sprintf("the fault could not be seen from outside: pid %d is as before", old.pid))
	}
	back := until(patience, time.Millisecond, func() bool {
		pid := answer(h.web, 50*time.Millisecond)
		return ctx.Err() != nil || (pid != 0 && pid != old.pid)
	})
	f.OutageMS = p2pnode.Milliseconds(time.Since(f.InjectedAt))
	if !back || ctx.Err() != nil {
		return d.notRepaired(ctx, f, fmt.Sprintf("web on %s does not answer after %s", h.name, patience))
	}
	if !until(time.Second, 10*time.Millisecond, func() bool { return !old.running() }) {
		return d.notRepaired(ctx, f, fmt.Sprintf("the old copy of web on %s (pid %d) still runs", h.name, old.pid))
	}
	now, err := d.copyOf(h)
	if err != nil {
		return d.notRepaired(ctx, f, err.Error())
	}
	d.detail("answers again after %s, new pid %d, one copy", millis(f.OutageMS), now.pid)
	return d.told(ctx, f, h, func(i p2pnode.Incident) string {
		if i.Hops != 0 {
			return "its own host's agent did it, so hops should be 0"
		}
		return ""
	})
}

// told asks the other hosts how the repair came about, and holds their story
// against what was seen from outside.
func (d *demo) told(ctx context.Context, f demoFault, h *demoHost, wrong func(p2pnode.Incident) string) error {
	witness := d.other(h)
	var i p2pnode.Incident
	found := until(patience, 50*time.Millisecond, func() bool {
		var ok bool
		i, ok = witness.incident(ctx, h.name, f.Service, f.InjectedAt.Add(-time.Second))
		return ctx.Err() != nil || ok && i.State == p2pnode.IncidentRecovered && d.knownBy(ctx, i.ID) == len(d.living())
	})
	if i.ID != "" {
		f.Incident = &i
		f.KnownBy = d.knownBy(ctx, i.ID)
	}
	brake, err := d.brake(ctx)
	f.Brake = brake
	switch {
	case err != nil:
		return d.notRepaired(ctx, f, err.Error())
	case i.ID == "":
		return d.notRepaired(ctx, f, witness.name+" knows of no incident")
	case i.State != p2pnode.IncidentRecovered:
		return d.notRepaired(ctx, f, fmt.Sprintf("%s calls it %s", witness.name, i.State))
	case !found:
		return d.notRepaired(ctx, f, fmt.Sprintf("only %d of %d nodes hold the report", f.KnownBy, len(d.living())))
	case f.Brake:
		return d.notRepaired(ctx, f, "the brake is on; it should be off")
	case i.By.Kind != p2pnode.ByAgent:
		return d.notRepaired(ctx, f, fmt.Sprintf("repaired by %s, should be an agent", i.By.Kind))
	}
	if why := wrong(i); why != "" {
		return d.notRepaired(ctx, f, why)
	}
	f.Repaired = true
	d.doc.Faults = append(d.doc.Faults, f)
	d.history.Record(p2pnode.HistoryEvent{Event: p2pnode.HistHealed, Target: h.name, Service: faulted(f.Fault, f.Service)})
	d.detail("%s says: %s by an agent on %s, %s%s; the report is on %d of %d nodes", witness.name, i.ID, i.By.Node, count(i.Hops, "hop"), trailText(i), f.KnownBy, len(d.living()))
	if text := timingText(i.Timing); text != "" {
		d.detail("%s", text)
	}
	return nil
}

func trailText(i p2pnode.Incident) string {
	if len(i.Trail) < 2 {
		return ""
	}
	return " (" + strings.Join(i.Trail, " > ") + ")"
}

func timingText(t p2pnode.Timing) string {
	var parts []string
	for _, step := range []struct {
		name string
		ms   float64
	}{{"detect", t.Detect}, {"dispatch", t.Dispatch}, {"travel", t.Travel}, {"act", t.Act}, {"verify", t.Verify}} {
		if step.ms > 0 {
			parts = append(parts, step.name+" "+millis(step.ms))
		}
	}
	return strings.Join(parts, " · ")
}

// knownBy counts the living hosts whose own CLI shows the incident with a report
// of an act.
func (d *demo) knownBy(ctx context.Context, id string) int {
	known := 0
	for _, h := range d.living() {
		var doc p2pnode.IncidentsDoc
		if h.cli(ctx, &doc, "incidents", "show", id) == nil && len(doc.Incidents) == 1 && doc.Incidents[0].State == p2pnode.IncidentRecovered {
			known++
		}
	}
	return known
}

// brake reports whether the brake is on at any living host; one that does not say
// is an error.
func (d *demo) brake(ctx context.Context) (on bool, err error) {
	for _, h := range d.living() {
		var doc p2pnode.StatusDoc
		if err := h.cli(ctx, &doc, "status"); err != nil {
			return on, err
		}
		if doc.Brake == nil {
			return on, fmt.Errorf("%s does not say how its brake stands", h.name)
		}
		on = on || doc.Brake.On
	}
	return on, nil
}

// notRepaired ends the story with the fault's name and its incident's.
func (d *demo) notRepaired(ctx context.Context, f demoFault, why string) error {
	if f.Incident == nil {
		for _, h := range d.living() {
			if i, ok := h.incident(context.WithoutCancel(ctx), f.Node, f.Service, f.InjectedAt.Add(-time.Second)); ok {
				f.Incident = &i
				break
			}
		}
	}
	d.doc.Faults = append(d.doc.Faults, f)
	id := "no incident is known"
	if f.Incident != nil {
		id = fmt.Sprintf("incident %s, %s", f.Incident.ID, f.Incident.State)
	}
	return fmt.Errorf("%s on %s was not repaired as it should be (%s): %s", f.Fault, f.Node, id, why)
}

// settle waits until every repair has been verified, as another host tells it.
func (d *demo) settle(ctx context.Context) error {
	witness := d.living()[0]
	open := 0
	ok := until(patience, 200*time.Millisecond, func() bool {
		open = 0
		for _, f := range d.doc.Faults {
			if f.Fault == faultHost || f.Incident == nil {
				continue
			}
			var doc p2pnode.IncidentsDoc
			if witness.cli(ctx, &doc, "incidents", "show", f.Incident.ID) != nil || len(doc.Incidents) != 1 || doc.Incidents[0].VerifiedAt.IsZero() {
				open++
			} else {
				*f.Incident = doc.Incidents[0]
			}
		}
		return ctx.Err() != nil || open == 0
	})
	if !ok || ctx.Err() != nil {
		return fmt.Errorf("%s still to be verified", count(open, "repair"))
	}
	d.say("every repair was looked at again after it had settled, and holds")
	return nil
}
