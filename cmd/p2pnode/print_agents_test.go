package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"p2pnode"
)

// What people read of agents: where, why, for whom, and why nobody goes.
func TestAgentsInWords(t *testing.T) {
	ago := time.Now().Add(-3 * time.Second)
	patrol := p2pnode.AgentDoc{
		ID: "a-1", Kind: "patrol", At: "kestrel", Next: "merlin", Order: "o-1", Doing: "visiting", DoingSince: ago,
		Via: []string{"kestrel", "hobby", "merlin"}, Unseen: 9000,
	}
	mission := p2pnode.AgentDoc{ID: "a-2", Kind: "mission", At: "hobby", Incident: "i-1", Doing: "at-door", DoingSince: ago, Target: "merlin"}
	resident := p2pnode.AgentDoc{ID: "r-3", Kind: "mission", At: "kite", Incident: "i-2", Doing: "settling", DoingSince: ago, Target: "kite", Service: "web"}
	doc := p2pnode.AgentsDoc{
		Agents: []p2pnode.AgentDoc{patrol, mission, resident},
		Orders: []p2pnode.OrderDoc{{ID: "o-1", SLO: "15s", Confidence: 0.99, Agents: 3, By: "kite", WorstGap: 8000, WorstHour: 15500, Visits: 400, Late: 1}},
		Failures: []p2pnode.FailureDoc{
			{Incident: "i-1", Node: "merlin", Class: p2pnode.ClassProcessDead, Since: ago, Wait: "claimed", Agent: "a-2", Phase: "travel"},
			{Node: "saker", Class: p2pnode.ClassUnreachable, Since: ago, Wait: "brake"},
			{Incident: "i-4", Node: "lanner", Service: "@exec", Class: p2pnode.ClassExecDead, Since: ago, Wait: "resting", Until: time.Now().Add(time.Hour)},
		},
	}
	said := func(f func(p *printer)) string {
		var b bytes.Buffer
		f(&printer{w: &b, wide: true})
		return b.String()
	}
	list := said(func(p *printer) { printAgents(p, doc) })
	for _, want := range []string{
		"every node within 15s, for 99 % of the visits; 3 agents",
		"longest wait now 8000 ms; longest of the last hour 15.5 s; 400 visits, 1 late (99.75 % in time)",
		"goes to merlin, where nobody has been for 9s, by kestrel > hobby > merlin",
		"knocks at the door of merlin for 3s, and has no answer yet that it can act on",
		"stays for 3s to see whether web of kite holds",
		"the node process of merlin is process-dead for 3s (i-1): a-2 has it in hand (attempt 1: travel), so all others leave it alone",
		"host saker is unreachable for 3s: nobody reaches it, and the brake is on",
		"@exec of lanner is exec-dead for 3s (i-4): it was seen to or refused just now, and nobody goes again for 59m",
	} {
		if !strings.Contains(list, want) {
			t.Errorf("not said: %s\nin\n%s", want, list)
		}
	}
	doc.Agents = []p2pnode.AgentDoc{patrol}
	page := said(func(p *printer) { printAgent(p, doc) })
	for _, want := range []string{
		"a-1 is on kestrel: it goes to merlin", "o-1, given by kite: every node within 15s", "kestrel > hobby > merlin",
		"goes not to the node process of merlin is process-dead",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("not said: %s\nin\n%s", want, page)
		}
	}
}
