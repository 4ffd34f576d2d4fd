package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"p2pnode"
	"p2pnode/manage"
)

// agents are the roaming agents as h tells it, by a poll that is light enough to
// be made often.
func (h *demoHost) agents(ctx context.Context) []p2pnode.AgentDoc {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	client, err := manage.Dial(ctx, h.dir)
	if err != nil {
		return nil
	}
	defer client.Close()
	doc, err := client.Agents(ctx)
	if err != nil {
		return nil
	}
	return doc.Agents
}

// justArrived is how long an agent may have been where it is for the demo to rely
// on it: it rests for a second.
const justArrived = 600 * time.Millisecond

// whereabouts is when each agent was first seen where it is.
type whereabouts map[string]arrival

type arrival struct {
	at    string
	hops  int
	since time.Time // zero: it was there when the watch began
}

// resting notes where the agents are and names the places, if all of them will
// stay there for a moment yet; nil if one may be about to leave, is busy with a
// mission, or is said to be on a host that is dead.
func (w whereabouts) resting(agents []p2pnode.AgentDoc, dead func(name string) bool, now time.Time) []string {
	var at []string
	settled := true
	for _, a := range agents {
		was, known := w[a.ID]
		switch {
		case !known:
			w[a.ID] = arrival{at: a.At, hops: a.Hops}
		case was.at != a.At || was.hops != a.Hops:
			w[a.ID] = arrival{a.At, a.Hops, now}
		}
		if now.Sub(w[a.ID].since) > justArrived || dead(a.At) || a.Kind != "patrol" {
			settled = false
		}
		at = append(at, a.At)
	}
	if !settled {
		return nil
	}
	return at
}

func (d *demo) isGone(name string) bool {
	return slices.ContainsFunc(d.hosts, func(h *demoHost) bool { return h.gone && h.name == name })
}

// farTarget is a living host such that no agent is on it or next to it: a
// mission to it must travel. The founder is spared: its time comes later.
func (d *demo) farTarget(agents []string) *demoHost {
	if len(agents) == 0 {
		return nil
	}
	for i := len(d.hosts) - 1; i > 0; i-- {
		before, after := d.ring(i)
		near := []string{d.hosts[before].name, d.hosts[i].name, d.hosts[after].name}
		if d.hosts[i].gone || slices.ContainsFunc(agents, func(at string) bool { return slices.Contains(near, at) }) {
			continue
		}
		return d.hosts[i]
	}
	return nil
}

// killNode kills a node process that agents have to travel to.
func (d *demo) killNode(ctx context.Context) error {
	var target *demoHost
	var agents []string
	lookouts := map[*demoHost]lookout{}
	for _, h := range d.living()[1:] {
		l, err := d.lookAt(ctx, h)
		if err != nil {
			return err
		}
		lookouts[h] = l
	}
	witness, seen := d.living()[0], whereabouts{}
	found := until(20*time.Second, 5*time.Millisecond, func() bool {
		agents = seen.resting(witness.agents(ctx), d.isGone, time.Now())
		target = d.farTarget(agents)
		return ctx.Err() != nil || lookouts[target].node.pid != 0
	})
	if !found || ctx.Err() != nil {
		return fmt.Errorf("in 20 s no host was ever two links away from every agent (now: %v)", witness.agents(ctx))
	}
	old, web, life := lookouts[target].node, lookouts[target].web, lookouts[target].life
	f, err := d.inject(faultNode, target, "", p2pnode.ClassProcessDead, old.pid, func() error { return old.kill(syscall.SIGKILL) })
	if err != nil {
		return err
	}
	d.say("kill -9 of the node process on %s (pid %d); %s on %s, not next to it", target.name, old.pid, areOn(len(agents)), strings.Join(agents, " and "))
	if !until(time.Second, 200*time.Microsecond, func() bool { return !old.running() }) {
		return errors.New("the node process outlived its SIGKILL")
	}
	return d.nodeBack(ctx, f, target, old, web, life)
}

func areOn(agents int) string {
	if agents == 1 {
		return "the agent is"
	}
	return "the agents are"
}

// lookout is what a host looks like from outside before anything is done to it.
type lookout struct {
	node, web process
	life      string
}

func (d *demo) lookAt(ctx context.Context, h *demoHost) (lookout, error) {
	old := roleOf("node", h.dir)
	if len(old) != 1 {
		return lookout{}, fmt.Errorf("%d node processes on %s, should be 1", len(old), h.name)
	}
	web, err := d.copyOf(h)
	self, ok := askSelf(ctx, h.dir)
	if err == nil && !ok {
		err = fmt.Errorf("the node process of %s does not answer", h.name)
	}
	return lookout{old[0], web, self.Life}, err
}

// nodeBack waits until the next life of the node process answers, then for
// another host to call it alive.
func (d *demo) nodeBack(ctx context.Context, f demoFault, h *demoHost, old, web process, life string) error {
	back := until(patience, 2*time.Millisecond, func() bool {
		return ctx.Err() != nil || nodeAnswers(ctx, h.dir, life)
	})
	f.OutageMS = p2pnode.Milliseconds(time.Since(f.InjectedAt))
	if !back || ctx.Err() != nil {
		return d.notRepaired(ctx, f, fmt.Sprintf("the node process of %s does not answer after %s", h.name, patience))
	}
	now := roleOf("node", h.dir)
	if len(now) != 1 || now[0] == old {
		return d.notRepaired(ctx, f, fmt.Sprintf("%d node processes on %s, should be one new one", len(now), h.name))
	}
	if copies := webCopies(h.web); len(copies) != 1 || copies[0] != web {
		return d.notRepaired(ctx, f, "its web service was touched")
	}
	witness := d.other(h)
	if !until(patience, 50*time.Millisecond, func() bool {
		n := witness.nodes(ctx)[h.name]
		return ctx.Err() != nil || n.Verdict == p2pnode.Alive && n.Life != life
	}) {
		return d.notRepaired(ctx, f, fmt.Sprintf("%s does not see %s alive again", witness.name, h.name))
	}
	d.detail("answers again after %s, new pid %d; its web service never noticed (pid %d)", millis(f.OutageMS), now[0].pid, web.pid)
	return d.told(ctx, f, h, func(i p2pnode.Incident) string {
		switch {
		case i.Hops < 1:
			return "the agent had to travel, yet its hops are 0"
		case i.By.Node == h.name:
			return "the agent is said to have been on the dead node"
		}
		return ""
	})
}

// loseManager makes a second manager and then kills the first host for good.
func (d *demo) loseManager(ctx context.Context) error {
	founder, heir := d.hosts[0], d.hosts[1]
	if err := founder.cli(ctx, nil, "promote", heir.name); err != nil {
		return err
	}
	if !until(patience, 100*time.Millisecond, func() bool {
		return ctx.Err() != nil || heir.cli(ctx, nil, "manage", "on") == nil
	}) {
		return heir.cli(ctx, nil, "manage", "on")
	}
	d.say("%s is a second manager; now %s, who founded the cluster and launched the agents, dies for good", heir.name, founder.name)
	f, err := d.inject(faultHost, founder, "", p2pnode.ClassUnreachable, founder.cmd.Process.Pid, func() error {
		if !founder.killAll() {
			return fmt.Errorf("%s could not be killed for good", founder.name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if answer(founder.web, 100*time.Millisecond) != 0 || len(founder.everything()) > 0 {
		return errors.New(founder.name + " is not dead")
	}
	noticed := until(patience, 50*time.Millisecond, func() bool {
		for _, h := range d.living() {
			v := h.nodes(ctx)[founder.name].Verdict
			if v == p2pnode.Alive || v == p2pnode.Doubtful || v == "" {
				return ctx.Err() != nil
			}
		}
		return true
	})
	brake, err := d.brake(ctx)
	f.Brake = brake
	for _, what := range []string{"", p2pnode.SelfExec} {
		if i, ok := heir.incident(ctx, founder.name, what, f.InjectedAt.Add(-time.Second)); ok && f.Incident == nil {
			f.Incident = &i
			f.KnownBy = d.heldBy(ctx, i.ID)
		}
	}
	d.doc.Faults = append(d.doc.Faults, f)
	switch {
	case !noticed || ctx.Err() != nil:
		return fmt.Errorf("not all of the living say that %s is gone", founder.name)
	case err != nil:
		return err
	case f.Brake:
		return errors.New("the brake is on with one host of five gone; it should be off")
	}
	d.detail("all %d others say %s; the brake stays off; %s reads every report so far", len(d.living()), heir.nodes(ctx)[founder.name].Verdict, heir.name)
	return d.heirReads(ctx, heir)
}

// heldBy counts the living hosts that know the incident at all.
func (d *demo) heldBy(ctx context.Context, id string) int {
	known := 0
	for _, h := range d.living() {
		var doc p2pnode.IncidentsDoc
		if h.cli(ctx, &doc, "incidents", "show", id) == nil && len(doc.Incidents) == 1 {
			known++
		}
	}
	return known
}

// heirReads proves that the new manager reads what was sealed before it was one.
func (d *demo) heirReads(ctx context.Context, heir *demoHost) error {
	for _, f := range d.doc.Faults {
		if f.Service == "" || f.Incident == nil {
			continue
		}
		readable := until(patience, 100*time.Millisecond, func() bool {
			var doc p2pnode.IncidentsDoc
			if ctx.Err() != nil || heir.cli(ctx, &doc, "incidents", "show", f.Incident.ID) != nil || len(doc.Incidents) != 1 {
				return ctx.Err() != nil
			}
			e := doc.Incidents[0].Excerpt
			return e != nil && !e.Sealed && len(e.Lines) > 0
		})
		if !readable || ctx.Err() != nil {
			return fmt.Errorf("%s is a manager and cannot read the last words of web on %s (%s)", heir.name, f.Node, f.Incident.ID)
		}
	}
	return nil
}

// nodeAnswers reports whether the node process of dir answers in another life than
// the given one: a poll from outside, on a connection of its own.
func nodeAnswers(ctx context.Context, dir, life string) bool {
	self, ok := askSelf(ctx, dir)
	return ok && self.Life != life
}

// isMember reports whether the node process of dir is in a cluster.
func isMember(ctx context.Context, dir string) bool {
	_, ok := askSelf(ctx, dir)
	return ok
}

func askSelf(ctx context.Context, dir string) (p2pnode.NodeDoc, bool) {
	ctx, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	client, err := manage.Dial(ctx, dir)
	if err != nil {
		return p2pnode.NodeDoc{}, false
	}
	defer client.Close()
	doc, err := client.Nodes(ctx)
	if i := slices.IndexFunc(doc.Nodes, func(n p2pnode.NodeDoc) bool { return n.Self }); err == nil && i >= 0 {
		return doc.Nodes[i], true
	}
	return p2pnode.NodeDoc{}, false
}
