package gossip

import (
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
)

// Why is the evidence under the verdict on a member; ok is false for strangers and
// while Gossip does not run.
func (g *Gossip) Why(id peer.ID) (doc p2pnode.WhyDoc, ok bool) {
	reply := make(chan whyAnswer, 1)
	g.enqueue(whyAsked{id, reply})
	select {
	case a := <-reply:
		for i := range a.doc.Evidence {
			if a.doc.Evidence[i].Witness == "" {
				a.doc.Evidence[i].Witness = g.cfg.Name
			}
		}
		return a.doc, a.ok
	case <-time.After(time.Second):
		return doc, false
	}
}

// why tells a subject's evidence; an empty witness is this node.
func (c *core) why(now time.Time, id peer.ID) (p2pnode.WhyDoc, bool) {
	s := c.peers[id]
	if s == nil {
		return p2pnode.WhyDoc{}, false
	}
	doc := p2pnode.WhyDoc{Schema: p2pnode.Schema("why"), Name: s.Name, ID: id.String(), Verdict: s.verdict, Since: s.since}
	own := func(at time.Time, text string, args ...any) {
		if !at.IsZero() {
			doc.Evidence = append(doc.Evidence, p2pnode.EvidenceDoc{At: at, Text: fmt.Sprintf(text, args...)})
		}
	}
	if s.linked {
		own(now, "a link with it is up, %d heartbeats missed", s.missed)
	}
	own(s.heardAt, "the last sign of life of it arrived")
	own(s.lostAt, "the link with it broke")
	own(s.burstFail, "%d probes to it went unanswered", burstProbes)
	own(s.suspect, "our gossip suspects it")
	own(s.swimDead, "gossip calls it dead")
	own(s.notice, "a door gave notice that its node process ended")
	own(s.portShut, "its port refused a connection")
	own(s.portOpen, "its port accepted a connection")
	own(s.doorErr, "its door did not answer")
	own(s.unrouted, "no route leads to it")
	if s.damped {
		own(s.flapAt, "it comes and goes: it must be quiet for a while to be called alive")
	}
	if !s.wordAt.IsZero() {
		own(s.wordAt, "its door says: exec %s, node process %s%s", livesOrNot(s.word.ExecAlive), livesOrNot(s.word.NodeAlive), stateText(s.word.NodeState))
	}
	if !s.Twice.IsZero() {
		own(s.Twice, "two processes sign with its key, by turns")
	}
	if x := c.successor(s); x != nil {
		own(x.first, "%s has proved another key at its address %s", c.nameOf(x.ID), s.Proven)
	}
	for _, w := range sortedWitnesses(s.claims) {
		cl := s.claims[w]
		text := "says: " + string(cl.kind)
		if cl.life != s.Life {
			text += " (of an earlier life)"
		}
		doc.Evidence = append(doc.Evidence, p2pnode.EvidenceDoc{At: cl.at, Witness: c.nameOf(w), Text: text})
	}
	slices.SortStableFunc(doc.Evidence, func(a, b p2pnode.EvidenceDoc) int { return a.At.Compare(b.At) })
	doc.Would = would(s)
	return doc, true
}

func livesOrNot(alive bool) string {
	if alive {
		return "lives"
	}
	return "is dead"
}

func stateText(state string) string {
	if state == "" {
		return ""
	}
	return " (" + state + ")"
}

func sortedWitnesses(m map[peer.ID]claim) []peer.ID {
	out := make([]peer.ID, 0, len(m))
	for id := range m {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

// would says what would change a verdict.
func would(s *subject) []string {
	switch s.verdict {
	case p2pnode.Alive:
		return []string{"a broken link, two missed heartbeats, unanswered gossip or a refused dial would make it doubtful"}
	case p2pnode.Doubtful:
		return []string{
			"a packet, a heartbeat or an answered probe would make it alive", "its door's word would make it process-dead, exec-dead or hung",
			"unanswered probes at two witnesses would make it unreachable",
		}
	case p2pnode.Unreachable:
		return []string{"any packet, heartbeat or answered probe would make it alive"}
	case p2pnode.DuplicateIdentity:
		return []string{"a minute in which only one process signs with its key would make it what that one is"}
	case p2pnode.IdentityChanged:
		return []string{"a link or an answered probe with its old key would make it alive"}
	case p2pnode.Left:
		return []string{"a new life that it signs would make it alive"}
	}
	return []string{"a new life that it signs, or a heartbeat of this one, would make it alive"}
}
