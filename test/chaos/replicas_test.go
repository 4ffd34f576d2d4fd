package chaos

import (
	"slices"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/bin"
)

// forgetAfter is the hour of ephemeral members, made short.
const forgetAfter = "10s"

// replica is a container without a volume: each start is a new identity, at the
// address of the one before.
type replica struct {
	f         *Fleet
	name      string
	addr      string
	container string
}

func (r replica) start() {
	r.f.t.Helper()
	r.f.docker("run", "-d", "--name", r.container, "--hostname", r.name, "--label", label+"="+r.f.run, "--network", r.f.run, "--ip", r.addr,
		r.f.image, "--join", names[0], "--forget-after", forgetAfter)
}

// kill ends the container and all that it had.
func (r replica) kill() {
	r.f.t.Helper()
	r.f.docker("rm", "-fv", r.container)
}

// Three replicas without a volume are killed and started anew, each a new identity: those
// who stay never brake, see the new ones alive, and at the end nobody else.
func TestReplicasWithoutAVolume(t *testing.T) {
	f := New(t, bin.P2pnode(t))
	t.Run("first process", f.firstProcesses)
	f.Start(2)
	var all []replica
	for _, name := range []string{"r1", "r2", "r3"} {
		all = append(all, replica{f, name, f.newAddr(), f.run + "-" + name})
	}
	seen := map[string]bool{} // identities
	listed := func(b *Box) (alive, others []p2pnode.NodeDoc) {
		var st p2pnode.StatusDoc
		if b.JSON(&st, "status"); st.Brake != nil && (st.Brake.On || st.Brake.Of > len(f.boxes)) {
			t.Errorf("%s: brake %+v", b.Name, *st.Brake)
		}
		var d p2pnode.NodesDoc
		b.JSON(&d, "nodes")
		for _, n := range d.Nodes {
			switch {
			case n.Name == names[0] || n.Name == names[1]:
			case n.Verdict == p2pnode.Alive:
				alive = append(alive, n)
			default:
				others = append(others, n)
			}
		}
		return alive, others
	}
	for round := range 2 {
		for _, r := range all {
			if round > 0 {
				r.kill()
			}
			r.start()
		}
		f.eventually(30*time.Second, "all replicas of a round are seen", func() bool {
			return !slices.ContainsFunc(f.boxes, func(b *Box) bool {
				alive, _ := listed(b)
				n := 0
				for _, doc := range alive {
					if !doc.Ephemeral {
						t.Fatalf("%s is not ephemeral: %+v", doc.Name, doc)
					}
					if !seen[doc.ID] {
						n++
					}
				}
				return n != len(all)
			})
		})
		alive, _ := listed(f.boxes[0])
		for _, n := range alive {
			seen[n.ID] = true
		}
	}
	f.docker("stop", all[0].container)
	f.eventually(5*time.Second, "who is stopped in order has left", func() bool {
		_, others := listed(f.boxes[1])
		return slices.ContainsFunc(others, func(n p2pnode.NodeDoc) bool { return n.Name == all[0].name && n.Verdict == p2pnode.Left })
	})
	for _, r := range all {
		r.kill()
	}
	began := time.Now()
	f.eventually(40*time.Second, "the lists are clean", func() bool {
		return !slices.ContainsFunc(f.boxes, func(b *Box) bool { alive, others := listed(b); return len(alive)+len(others) > 0 })
	})
	t.Logf("%d identities came and went; forgotten by all %.1f s after the last one was killed", len(seen), time.Since(began).Seconds())
	for _, b := range f.boxes {
		f.eventually(30*time.Second, "no story is open on "+b.Name, func() bool { _, code := b.CLI("wait", "--for", "settled", "--timeout", "1s"); return code == 0 })
	}
	var told []string
	var d p2pnode.IncidentsDoc
	f.boxes[0].JSON(&d, "incidents", "ls")
	for _, i := range d.Incidents {
		told = append(told, string(i.Kind)+" "+i.Node+" "+string(i.Class)+" "+string(i.State))
		// A replica may be told of by its ID alone: who tells it may have forgotten its name.
		stays := slices.ContainsFunc(f.boxes, func(b *Box) bool { return b.Name == i.Node })
		if stays || i.State == p2pnode.IncidentOpen {
			t.Errorf("a story of %s: %+v", i.Node, i)
		}
	}
	t.Logf("stories: %v", told)
}
