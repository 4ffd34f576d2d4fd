// Package ring runs missions on real hosts: five or more of them on loopback,
// wired as a ring by --deny-link, so that an agent has to travel to whatever is
// broken on the far side.
//
// No fallback comes to help (grace 60 s), faults are proved from outside, and what
// came back is counted by its pids.
package ring

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/bin"
	"p2pnode/test/host"
)

// farFallback keeps exec from acting alone, so that what comes back was brought
// back by an agent or not at all.
const farFallback = "grace: {agent: 60s, node: 60s}\n"

var names = []string{"ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine"}

// Ring is a fleet in which everybody has two neighbours.
type Ring struct {
	*host.Fleet
	Hosts []*host.Host
	kills map[*host.Host][]time.Time
}

// Tired reports whether one more failure of h's node process within a minute would
// make exec call it crash-looping, which is another story than the one told here.
func (r *Ring) Tired(h *host.Host) bool {
	r.kills[h] = slices.DeleteFunc(r.kills[h], func(at time.Time) bool { return time.Since(at) > 61*time.Second })
	return len(r.kills[h]) >= 3
}

// Killing notes that h's node process is about to fail, once h is no longer tired.
func (r *Ring) Killing(hosts ...*host.Host) {
	r.T.Helper()
	r.Must(70*time.Second, "hosts whose last failures are long enough ago", func() bool { return !slices.ContainsFunc(hosts, r.Tired) })
	for _, h := range hosts {
		r.kills[h] = append(r.kills[h], time.Now())
	}
}

// New starts n hosts and waits until all see all. The first one founds the
// cluster.
func New(t testing.TB, n int, config string) *Ring {
	t.Helper()
	r := &Ring{Fleet: host.NewFleet(t, bin.P2pnode(t)), kills: map[*host.Host][]time.Time{}}
	for i := range n {
		r.grow(i, n, config)
	}
	r.Settled(n)
	return r
}

// grow starts host i of n and waits until it sees those before it. bins are
// binaries to take in place of the fleet's, turn and turn about.
func (r *Ring) grow(i, n int, config string, bins ...string) {
	r.T.Helper()
	if !strings.Contains(config, "services:") {
		config += "services: {}\n"
	}
	h := r.Add(names[i]).Configure(config)
	if len(bins) > 0 {
		h.Bin = bins[i%len(bins)]
	}
	var join []string
	if i > 0 {
		join = []string{"--join", listens(r.Hosts[i-1])}
	}
	h.Start(append(wired(i, n), join...)...)
	r.Hosts = append(r.Hosts, h)
	r.Must(15*time.Second, h.Name+" is a member", func() bool { return listens(h) != "" && h.Sees(names[:i+1]...) })
}

// wired are the flags of host i of n that make the fleet a ring.
func wired(i, n int) []string {
	args := []string{"--listen", "127.0.0.1:0", "--door", "127.0.0.1:0"}
	for j := range n {
		if j != i && j != (i+1)%n && i != (j+1)%n {
			args = append(args, "--deny-link", names[j])
		}
	}
	return args
}

func listens(h *host.Host) string {
	var s p2pnode.StatusDoc
	if !h.JSON(&s, "status") || s.Node == nil || len(s.Node.Listen) == 0 {
		return ""
	}
	return s.Node.Listen[0]
}

// Settled waits until all of the first n see each other alive and know the way to
// each other.
func (r *Ring) Settled(n int, gone ...*host.Host) {
	r.T.Helper()
	var living []string
	for _, h := range r.Hosts[:n] {
		if !slices.Contains(gone, h) {
			living = append(living, h.Name)
		}
	}
	for _, h := range r.Hosts[:n] {
		if slices.Contains(gone, h) {
			continue
		}
		r.Must(20*time.Second, h.Name+" sees all alive, with a way to each", func() bool {
			nodes := h.Nodes()
			for _, name := range living {
				if x := nodes[name]; x.Verdict != p2pnode.Alive || !x.Self && x.Hops == nil {
					return false
				}
			}
			return true
		})
	}
}

// Path is what `path` says on h.
func Path(h *host.Host, from, to string) []string {
	var d p2pnode.PathDoc
	h.JSON(&d, "path", from, to)
	var out []string
	for _, hop := range d.Hops {
		out = append(out, hop.Node)
	}
	return out
}

// Agents are the patrolling agents as h knows them.
func Agents(h *host.Host) []p2pnode.AgentDoc {
	var d p2pnode.AgentsDoc
	h.JSON(&d, "agents", "ls")
	return d.Agents
}

// Resting waits until every agent has just arrived somewhere, so that it will be
// there for a moment, and returns where they are. ok decides whether that will do.
func (r *Ring) Resting(witness *host.Host, ok func(at []string) bool) (at []string) {
	r.T.Helper()
	last := map[string]int{}
	r.Must(120*time.Second, "agents that have just arrived where the test wants them", func() bool {
		at = nil
		fresh := false
		for _, a := range Agents(witness) {
			if a.Kind != "patrol" {
				return false
			}
			if was, known := last[a.ID]; known && was != a.Hops {
				fresh = true
			}
			last[a.ID] = a.Hops
			at = append(at, a.At)
		}
		return fresh && len(at) > 0 && ok(at)
	})
	return at
}

// Far reports whether host i is neither one of at nor next to one.
func (r *Ring) Far(i int, at []string) bool {
	n := len(r.Hosts)
	for _, near := range []int{(i + n - 1) % n, i, (i + 1) % n} {
		if slices.Contains(at, r.Hosts[near].Name) {
			return false
		}
	}
	return true
}

// Back waits until a node process other than old runs on h and returns it.
func (r *Ring) Back(h *host.Host, old int, limit time.Duration) (pid int) {
	r.T.Helper()
	r.Must(limit, h.Name+" has a node process again", func() bool {
		pid = h.Role("node")
		return pid != 0 && pid != old
	})
	return pid
}

// Story waits for the verified story of the life that ended on h, also from the agent
// that acted: its own node may have been down when another one told the end.
func (r *Ring) Story(witness, h *host.Host, life string) (found p2pnode.Incident) {
	r.T.Helper()
	r.Must(30*time.Second, "a verified story of "+h.Name+" on "+witness.Name, func() (ok bool) {
		found, ok = witness.Incident(h.Name, "", func(i p2pnode.Incident) bool {
			return i.OldIncarnation == life && !i.VerifiedAt.IsZero() && (i.By.Kind != p2pnode.ByAgent || len(i.Trail) > 0)
		})
		return ok
	})
	return found
}

// ByAgentFrom fails the test unless an agent on another host than h did it.
func (r *Ring) ByAgentFrom(story p2pnode.Incident, h *host.Host) {
	r.T.Helper()
	if story.By.Kind != p2pnode.ByAgent || story.By.Node == h.Name || story.By.Fallback || story.Direct {
		r.T.Errorf("%s: by %+v, direct %v: want an agent from another host", story.Node, story.By, story.Direct)
	}
	if len(story.Trail) == 0 || story.Trail[len(story.Trail)-1] != h.Name || story.Hops != max(0, len(story.Trail)-2) {
		r.T.Errorf("%s: hops %d do not fit the trail %v", story.Node, story.Hops, story.Trail)
	}
}

// Life is what h's own node process says of itself.
func Life(h *host.Host) string { return h.Nodes()[h.Name].Life }

// Stop sends SIGSTOP, Continue SIGCONT.
func Stop(pid int) error     { return syscall.Kill(pid, syscall.SIGSTOP) }
func Continue(pid int) error { return syscall.Kill(pid, syscall.SIGCONT) }
