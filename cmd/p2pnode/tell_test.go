package main

import (
	"strings"
	"testing"
	"time"

	"p2pnode"
)

var told = time.Date(2026, 11, 23, 12, 0, 0, 0, time.Local)

// after is told plus ms.
func after(ms int) time.Time { return told.Add(time.Duration(ms) * time.Millisecond) }

func TestTelling(t *testing.T) {
	service := p2pnode.Incident{
		ID: "i-1", Kind: p2pnode.KindService, Node: "birch", Service: "web", Class: p2pnode.ClassSignalled, State: p2pnode.IncidentRecovered,
		DetectedAt: told, RecoveredAt: after(3), VerifiedAt: after(3003), By: p2pnode.By{Kind: p2pnode.ByAgent, Agent: "r-7", Node: "birch"},
		Trail: []string{"birch"}, OldIncarnation: "e-1", NewIncarnation: "e-2", Exit: &p2pnode.Exit{Signal: "SIGKILL"},
		Timing: p2pnode.Timing{Detect: 0.5, Act: 2.5, Verify: 3000, Total: 3}, Count: 1,
	}
	node := service
	node.Kind, node.Service, node.Class, node.Exit = p2pnode.KindNode, "", p2pnode.ClassProcessDead, nil
	node.By, node.Trail, node.Hops = p2pnode.By{Kind: p2pnode.ByAgent, Agent: "a-1", Node: "ash"}, []string{"cedar", "ash", "birch"}, 1
	node.Timing.Travel = 1.5
	held := func(h p2pnode.Held, s p2pnode.IncidentState) p2pnode.Incident {
		i := service
		i.State, i.Held, i.By, i.RecoveredAt, i.VerifiedAt, i.NewIncarnation, i.Timing = s, h, p2pnode.By{}, time.Time{}, time.Time{}, "", p2pnode.Timing{}
		return i
	}
	change := func(i p2pnode.Incident, f func(*p2pnode.Incident)) p2pnode.Incident { f(&i); return i }
	for _, c := range []struct {
		name string
		i    p2pnode.Incident
		want string
	}{
		{"a resident repairs", service, `Service web on birch was ended by a signal (SIGKILL) at 12:00:00.000 on 2026-11-23, 9s ago.
Its exec saw the process end; who could act knew after 0.5 ms.
The resident agent of birch (r-7) took it on the spot, without a hop.
Exec looked for itself and started it again; it ran 3.0 ms after the failure, as e-2 in place of e-1.
Looked at again after 3000 ms, it was well: verified at 12:00:03.003 on 2026-11-23.
What it cost: detect 0.5 ms, act 2.5 ms, verify 3000 ms; from the failure until it ran again 3.0 ms.`},
		{"an agent travels", node, `The node process of birch died at 12:00:00.000 on 2026-11-23, 9s ago.
Its neighbours lost their links to it, and its door said that this life was over; who could act knew after 0.5 ms.
Agent a-1 went by cedar > ash > birch (1 hop, 1.5 ms) and knocked at the door of birch from ash.
Exec looked for itself and started it again; it ran 3.0 ms after the failure, as e-2 in place of e-1.
Looked at again after 3000 ms, it was well: verified at 12:00:03.003 on 2026-11-23.
What it cost: detect 0.5 ms, travel 1.5 ms, act 2.5 ms, verify 3000 ms; from the failure until it ran again 3.0 ms.`},
		{"an agent next door", change(node, func(i *p2pnode.Incident) { i.Hops, i.Trail = 0, []string{"ash", "birch"} }), "Agent a-1 was on ash already and knocked at the door of birch: no hop was needed."},
		{"exec alone", change(service, func(i *p2pnode.Incident) { i.By, i.Trail = p2pnode.By{Kind: p2pnode.ByExec, Fallback: true}, nil }), "No agent came in time, so its own exec acted alone."},
		{"a row", change(service, func(i *p2pnode.Incident) { i.Count, i.FirstAt = 4, told.Add(-time.Minute) }), "It is failure 4 in a row since 11:59:00.000 on 2026-11-23;"},
		{"maintenance", held(p2pnode.HeldMaintenance, p2pnode.IncidentOpen), "Nobody acts: it is in maintenance. On birch, p2pnode maintenance off web ends that."},
		{"observe", held(p2pnode.HeldObserve, p2pnode.IncidentObserved), "Nobody acts, it would have been restarted: observe only."},
		{"off", held(p2pnode.HeldOff, p2pnode.IncidentObserved), "recover: off."},
		{"brake", held(p2pnode.HeldBrake, p2pnode.IncidentOpen), "the brake is on"},
		{"budget", held(p2pnode.HeldBudget, p2pnode.IncidentOpen), "has used up its starts"},
		{"backoff", held(p2pnode.HeldBackoff, p2pnode.IncidentOpen), "waits before the next start"},
		{"traced", held(p2pnode.HeldTraced, p2pnode.IncidentOpen), "a debugger is attached"},
		{"open", held("", p2pnode.IncidentOpen), "Nobody has acted yet."},
		{"going on", change(service, func(i *p2pnode.Incident) {
			i.State, i.RecoveredAt, i.VerifiedAt = p2pnode.IncidentActing, time.Time{}, time.Time{}
		}), "it has not come up yet.\nThat is going on now."},
		{"not verified yet", change(service, func(i *p2pnode.Incident) { i.VerifiedAt = time.Time{} }), "that has not been reported yet."},
		{"failed", change(service, func(i *p2pnode.Incident) { i.State = p2pnode.IncidentFailed }), "The repair failed: it did not stay up."},
		{"a host is away", change(held("", p2pnode.IncidentOpen), func(i *p2pnode.Incident) {
			i.Kind, i.Service, i.Class, i.Exit = p2pnode.KindHost, "", p2pnode.ClassUnreachable, nil
		}), "Host birch could not be reached at 12:00:00.000 on 2026-11-23, 9s ago.\nWitnesses on different hosts got no answer"},
		{"a host came back", change(held("", p2pnode.IncidentRecovered), func(i *p2pnode.Incident) {
			i.Kind, i.Service, i.Class, i.Exit, i.RecoveredAt = p2pnode.KindHost, "", p2pnode.ClassUnreachable, nil, after(5000)
		}), "It was back at 12:00:05.000 on 2026-11-23 without anybody's doing."},
	} {
		reports := []p2pnode.Report{{Phase: p2pnode.PhaseFailed, Result: "it did not stay up"}}
		got := strings.Join(telling{c.i, reports, told.Add(9 * time.Second)}.sentences(), "\n")
		if !strings.Contains(got, c.want) {
			t.Errorf("%s:\n%s\nshould say\n%s", c.name, got, c.want)
		}
	}
}
