package netlab

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/bin"
	"p2pnode/test/history"
	"p2pnode/test/host"
)

// attempts is how often a fault is made until the agent stood where the test wants
// it: it rests for a second and moves on while we look.
const attempts = 6

// On a chain where a cannot reach d, an agent that is on a takes the way that
// `path a d` shows, hop by hop, and brings d's node process back.
func TestAgentTravelsAChain(t *testing.T) {
	l, hosts := chain(t, "a", "b", "c", "d")
	a, b, d := hosts[0], hosts[1], hosts[3]
	l.Must(10*time.Second, "a knows the way to d", func() bool { return slices.Equal(path(a, "a", "d"), []string{"a", "b", "c", "d"}) })
	launchOne(a)
	for range attempts {
		arrives(l, a)
		way := path(a, "a", "d")
		r := killNode(l, b, d)
		if r.story.Trail[0] != "a" {
			continue // it left while we looked
		}
		if !slices.Equal(r.story.Trail, way) || r.story.Hops != len(way)-2 {
			t.Errorf("trail %v with %d hops, path %v", r.story.Trail, r.story.Hops, way)
		}
		l.Judge(history.Options{EndView: true})
		return
	}
	t.Fatalf("no agent started from a in %d repairs", attempts)
}

// A host with two addresses names its door with one of them: its neighbour on the
// other wire knocks at the right one all the same.
func TestTheDoorOnTheOtherWire(t *testing.T) {
	l, hosts := chain(t, "a", "b", "c", "d")
	a, b, c, d := hosts[0], hosts[1], hosts[2], hosts[3]
	named := a.Nodes()["c"].Door
	if named != l.Addr("b", "c")+":7745" {
		t.Fatalf("c names its door %s: this test shows nothing", named)
	}
	launchOne(a)
	for range attempts {
		arrives(l, d)
		r := killNode(l, b, c)
		if r.story.Trail[0] != "d" {
			l.Must(15*time.Second, "all are well", func() bool { return d.Sees("a", "b", "c", "d") })
			continue // it left while we looked
		}
		if !slices.Equal(r.story.Trail, []string{"d", "c"}) || r.took > 400*time.Millisecond {
			t.Errorf("trail %v, back after %v", r.story.Trail, r.took)
		}
		l.Judge(history.Options{EndView: true})
		return
	}
	t.Fatalf("no agent started from d in %d repairs", attempts)
}

// The main job, word for word. Exec's own hand is a minute away; a launched the
// agents and is dead for good; b cannot reach d. The killed node process of d comes
// back once, by an agent that moved; a killed service comes back once, by its
// resident agent; the reports are on every living node, the excerpt is readable on
// every living manager and on nobody else.
func TestDoneMeans(t *testing.T) {
	l, hosts := chain(t, "a", "b", "c", "d")
	a, b, c, d := hosts[0], hosts[1], hosts[2], hosts[3]
	for _, heir := range []*host.Host{b, d} {
		l.Must(10*time.Second, "a reaches "+heir.Name, func() bool { _, _, code := a.Run("ping", heir.Name); return code == 0 })
		a.OK("promote", heir.Name)
		l.Must(5*time.Second, heir.Name+" is a manager", func() bool { return heir.Nodes()[heir.Name].Role == p2pnode.RoleManager })
	}
	launchOne(a)
	l.Must(30*time.Second, "the agent", func() bool { return len(b.Agents()) == 1 })
	a.Gone()
	l.Must(15*time.Second, "b believes that a is gone", func() bool {
		return b.Nodes()["a"].Verdict == p2pnode.Unreachable || b.Nodes()["a"].Verdict == p2pnode.ExecDead
	})

	var node repair
	for range attempts {
		arrives(l, b)
		if node = killNode(l, b, d); node.story.Hops >= 1 {
			break
		}
		l.Must(15*time.Second, "d is a member again", func() bool { return d.Sees("b", "c", "d") })
	}
	if node.story.Hops < 1 {
		t.Fatalf("no agent had to travel in %d repairs", attempts)
	}
	l.Must(15*time.Second, "d is a member again", func() bool { return d.Sees("b", "c", "d") })
	web := killWeb(l, b, d)

	for _, h := range []*host.Host{b, c, d} {
		for _, want := range []p2pnode.Incident{node.story, web} {
			var got p2pnode.Incident
			l.Must(20*time.Second, h.Name+" holds both stories", func() (ok bool) {
				got, ok = h.Incident(want.Node, want.Service, func(i p2pnode.Incident) bool { return i.ID == want.ID && verified(i) })
				return ok
			})
			if got.By != want.By || got.Hops != want.Hops || !slices.Equal(got.Trail, want.Trail) {
				t.Errorf("%s tells %+v, b tells %+v", h.Name, got, want)
			}
		}
	}
	for _, h := range []*host.Host{b, d} {
		if read, _ := h.Incident("d", "web", verified); read.Excerpt == nil || !slices.ContainsFunc(read.Excerpt.Lines, func(s string) bool { return strings.Contains(s, "last words of web") }) {
			t.Errorf("the manager on %s reads %+v", h.Name, read.Excerpt)
		}
	}
	sealed, _ := c.Incident("d", "web", verified)
	if sealed.Excerpt == nil || !sealed.Excerpt.Sealed || len(sealed.Excerpt.Lines) > 0 {
		t.Errorf("a worker reads %+v", sealed.Excerpt)
	}
	l.Judge(history.Options{EndView: true, Gone: []string{"a"}})
}

// The host that an agent has just left dies with everything on it, a millisecond
// later: the mission does not notice.
func TestDepartureHostDiesBehindTheAgent(t *testing.T) {
	l, hosts := chain(t, "a", "b", "c", "d")
	a, b, d := hosts[0], hosts[1], hosts[3]
	launchOne(a)
	for range attempts {
		arrives(l, a)
		all := l.Processes(a.Dir) // found beforehand: a millisecond is short
		arrived := hopsWritten(l, b)
		life, old := d.Nodes()["d"].Life, d.Role("node")
		began := time.Now()
		d.Kill(p2pnode.SelfNode, p2pnode.ClassProcessDead, old)
		died := false
		for time.Since(began) < 250*time.Millisecond && !died {
			if hopsWritten(l, b) == arrived {
				time.Sleep(200 * time.Microsecond)
				continue
			}
			a.Fault("", p2pnode.ClassUnreachable, a.PID())
			time.Sleep(time.Millisecond)
			for _, pid := range all {
				syscall.Kill(pid, syscall.SIGKILL)
			}
			died = true
		}
		behind := time.Now()
		if died {
			a.Gone() // whatever was being started meanwhile
		}
		r := repair{}
		l.Must(10*time.Second, "d has a node process again", func() bool { pid := d.Role("node"); return pid != 0 && pid != old })
		r.took = time.Since(began)
		r = told(l, b, d, life, r)
		if !died {
			l.Must(15*time.Second, "d is well again", func() bool { return d.Sees("b", "d") })
			continue
		}
		if r.story.Trail[0] != "a" {
			t.Errorf("the agent came from %s, a was killed for nothing", r.story.Trail[0])
		}
		t.Logf("a was dead %v after b had written down that the agent came", behind.Sub(lastHop(t, l, b)))
		l.Judge(history.Options{Gone: []string{"a"}, EndView: true})
		return
	}
	t.Fatalf("no agent left a in %d repairs", attempts)
}

// hopsWritten counts the arrivals of agents that h wrote into its history.
func hopsWritten(l *Lab, h *host.Host) int {
	raw, _ := os.ReadFile(l.HistoryFile(h.Name))
	return bytes.Count(raw, []byte(`"event":"hop"`))
}

// lastHop is when an agent with a mission came to h.
func lastHop(t *testing.T, l *Lab, h *host.Host) (at time.Time) {
	t.Helper()
	events, err := history.ReadFiles(l.HistoryFile(h.Name))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if e.Event == p2pnode.HistHop && e.Incident != "" {
			at = e.At
		}
	}
	return at
}

// diamond starts five hosts: two ways lead from a to d, and e is behind d.
func diamond(t *testing.T) (*Lab, []*host.Host, []string) {
	t.Helper()
	names := []string{"a", "b", "c", "d", "e"}
	l := New(t, bin.P2pnode(t))
	hosts := l.hosts(names, farFallback+service("web"))
	// a - b - d - e and a - c - d - e
	for _, w := range [][2]string{{"a", "b"}, {"a", "c"}, {"b", "d"}, {"c", "d"}, {"d", "e"}} {
		l.Wire(w[0], w[1])
	}
	via := map[int]string{1: "a", 2: "a", 3: "b", 4: "d"}
	start(l, names, hosts, func(i int) string { return l.Addr(names[i], via[i]) })
	return l, hosts, names
}

// twoWays reports whether from knows two ways to another host that is not near.
func twoWays(from *host.Host, to string) bool {
	var p p2pnode.PathDoc
	return from.JSON(&p, "path", from.Name, to) && len(p.Hops) >= 3 && len(p.Alternatives) > 0
}

// Whoever has said "I go" dies with everything on his host before he has gone: the
// wire to his next hop swallows the agent. His word lapses, and somebody else goes.
func TestCarrierDiesOnItsWay(t *testing.T) {
	l, hosts, names := diamond(t)
	d, e := hosts[3], hosts[4]
	launchOne(hosts[0])
	for range attempts {
		// All that takes time is done before the agent comes: it rests for a second.
		l.Must(30*time.Second, "all are well and know two ways to e", func() bool {
			return d.Sees(names...) && e.Sees(names...) && !slices.ContainsFunc(hosts[:3], func(h *host.Host) bool { return !twoWays(h, "e") })
		})
		life, old := d.Nodes()["e"].Life, e.Role("node")
		first, all := map[*host.Host]string{}, map[*host.Host][]int{}
		for _, h := range hosts[:3] {
			first[h], all[h] = path(h, h.Name, "e")[1], l.Processes(h.Dir)
		}
		var carrier *host.Host
		hops := -1
		l.Must(90*time.Second, "the only agent comes to where two ways lead to e", func() bool {
			agents := d.Agents()
			if len(agents) != 1 || agents[0].Kind != "patrol" {
				return false
			}
			came := hops >= 0 && agents[0].Hops != hops
			hops = agents[0].Hops
			i := slices.IndexFunc(hosts[:3], func(h *host.Host) bool { return agents[0].At == h.Name })
			if !came || i < 0 {
				return false
			}
			carrier = hosts[i]
			return true
		})
		before := claims(l, carrier, "e")
		l.Cut(carrier.Name, first[carrier])
		e.Kill(p2pnode.SelfNode, p2pnode.ClassProcessDead, old)
		if !host.Eventually(3*time.Second, func() bool { return claims(l, carrier, "e") > before }) {
			l.Mend(carrier.Name, first[carrier]) // it had moved on
			continue
		}
		carrier.Fault("", p2pnode.ClassUnreachable, carrier.PID())
		for _, pid := range all[carrier] {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		carrier.Gone()
		l.Must(15*time.Second, "somebody else went", func() bool { pid := e.Role("node"); return pid != 0 && pid != old })
		told(l, d, e, life, repair{})
		l.Judge(history.Options{Gone: []string{carrier.Name}, EndView: true})
		return
	}
	t.Fatalf("no agent was caught between its word and its act in %d repairs", attempts)
}

// claims counts how often an agent on h has said that it goes to another host.
func claims(l *Lab, h *host.Host, to string) (n int) {
	events, err := history.ReadFiles(l.HistoryFile(h.Name))
	if err != nil {
		l.T.Fatal(err)
	}
	for _, e := range events {
		if e.Event == p2pnode.HistClaimed && e.Target == to {
			n++
		}
	}
	return n
}

// Two ways lead to the target's neighbours; the one that the agent would take is
// cut without a word while it is asked to go. It takes the other in < 1 s.
func TestSecondChoiceWhenTheNextHopIsCut(t *testing.T) {
	l, hosts, names := diamond(t)
	a, d, e := hosts[0], hosts[3], hosts[4]
	launchOne(a)
	for range attempts {
		l.Must(30*time.Second, "both ways are known, all are well", func() bool { return twoWays(a, "e") && a.Sees(names...) && e.Sees(names...) })
		arrives(l, a)
		first := path(a, "a", "e")[1]
		other := map[string]string{"b": "c", "c": "b"}[first]
		l.Cut("a", first)
		r := killNode(l, d, e)
		l.Mend("a", first)
		for _, h := range hosts {
			l.Must(30*time.Second, h.Name+" sees all alive again", func() bool { return h.Sees(names...) })
		}
		if r.story.Trail[0] != "a" {
			continue // an agent was nearer than it looked
		}
		if r.story.Trail[1] != other {
			t.Errorf("trail %v goes through the cut wire to %s", r.story.Trail, first)
		}
		// Without the cut it takes some 50 ms from the kill.
		if r.took > 1200*time.Millisecond || r.story.Timing.Travel > 1000 {
			t.Errorf("with the first choice cut it took %v, %.0f ms of it to travel", r.took, r.story.Timing.Travel)
		}
		l.Judge(history.Options{EndView: true})
		return
	}
	t.Fatalf("no agent started from a in %d repairs", attempts)
}
