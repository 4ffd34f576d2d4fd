package netlab

import (
	"fmt"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/bin"
	"p2pnode/test/history"
	"p2pnode/test/host"
)

// farFallback keeps exec from acting alone, so that what comes back was brought
// back by an agent or not at all.
const farFallback = "grace: {agent: 60s, node: 60s}\n"

// service is a process that says who it is before it waits: the last line is
// what a report about it must quote.
func service(name string) string {
	return fmt.Sprintf("services:\n  %[1]s:\n    shell: \"echo %[1]s is up; echo last words of %[1]s; exec sleep 1000000\"\n    ready: started\n", name)
}

// hosts makes hosts of one configuration, without wires.
func (l *Lab) hosts(names []string, config string) (out []*host.Host) {
	l.T.Helper()
	for _, name := range names {
		out = append(out, l.Host(name).Configure(config))
	}
	return out
}

// chain starts hosts wired in a row, each joining through the one before it.
func chain(t *testing.T, names ...string) (*Lab, []*host.Host) {
	t.Helper()
	l := New(t, bin.P2pnode(t))
	hosts := l.hosts(names, farFallback+service("web"))
	for i, name := range names[1:] {
		l.Wire(names[i], name)
	}
	start(l, names, hosts, func(i int) string { return l.Addr(names[i], names[i-1]) })
	return l, hosts
}

// mesh starts hosts of which each has a wire to every other one.
func mesh(t *testing.T, binary, config string, names ...string) (*Lab, []*host.Host) {
	t.Helper()
	l := New(t, binary)
	hosts := l.hosts(names, config)
	for i, name := range names {
		for _, other := range names[:i] {
			l.Wire(other, name)
		}
	}
	start(l, names, hosts, func(i int) string { return l.Addr(names[i], names[0]) })
	return l, hosts
}

// start starts the first host as founder and every other one through the address
// that via gives it.
func start(l *Lab, names []string, hosts []*host.Host, via func(i int) string) {
	l.T.Helper()
	for i, h := range hosts {
		args := []string{"--listen", "0.0.0.0:7744", "--door", "0.0.0.0:7745"}
		if i > 0 {
			args = append(args, "--join", via(i))
		}
		h.Start(args...)
		l.Must(20*time.Second, h.Name+" is a member", func() bool { return h.Sees(names[:i+1]...) })
	}
	for _, h := range hosts {
		l.Must(15*time.Second, h.Name+" sees all of them alive", func() bool { return h.Sees(names...) })
	}
}

func path(h *host.Host, from, to string) []string {
	var d p2pnode.PathDoc
	h.JSON(&d, "path", from, to)
	var out []string
	for _, hop := range d.Hops {
		out = append(out, hop.Node)
	}
	return out
}

func verified(i p2pnode.Incident) bool { return !i.VerifiedAt.IsZero() }

// launchOne asks for so little that one agent is enough for these few hosts: where
// it is, is where the next mission starts.
func launchOne(h *host.Host) { h.OK("agents", "launch", "--slo", "30s", "--confidence", "0.85") }

// arrives waits until the only agent has just come to h: it rests there for a
// second.
func arrives(l *Lab, h *host.Host) {
	l.T.Helper()
	away := false
	l.Must(90*time.Second, "the only agent comes to "+h.Name, func() bool {
		agents := h.Agents()
		if len(agents) != 1 || agents[0].Kind != "patrol" || agents[0].At != h.Name {
			away = away || len(agents) == 1
			return false
		}
		return away
	})
}

// repair is what became of a killed node process.
type repair struct {
	took  time.Duration // from the kill until another one was seen from outside
	story p2pnode.Incident
}

// killNode kills target's node process and waits until another one runs there,
// seen from outside, and for its verified story as witness tells it. Every such
// repair must be an agent's, from another host, and must have happened once.
func killNode(l *Lab, witness, target *host.Host) (r repair) {
	l.T.Helper()
	life := target.Nodes()[target.Name].Life
	old := target.Role("node")
	began := time.Now()
	target.Kill(p2pnode.SelfNode, p2pnode.ClassProcessDead, old)
	l.Must(15*time.Second, target.Name+" has a node process again", func() bool {
		pid := target.Role("node")
		return pid != 0 && pid != old
	})
	r.took = time.Since(began)
	return told(l, witness, target, life, r)
}

func told(l *Lab, witness, target *host.Host, life string, r repair) repair {
	l.T.Helper()
	l.Must(25*time.Second, "a verified story of it on "+witness.Name, func() (ok bool) {
		r.story, ok = witness.Incident(target.Name, "", func(i p2pnode.Incident) bool { return i.OldIncarnation == life && verified(i) })
		return ok
	})
	l.T.Logf("node process of %s back after %v: hops %d, trail %v, timing %+v", target.Name, r.took, r.story.Hops, r.story.Trail, r.story.Timing)
	if by := r.story.By; by.Kind != p2pnode.ByAgent || by.Node == target.Name || by.Fallback || r.story.Direct {
		l.T.Fatalf("by %+v direct %v: want an agent from another host", by, r.story.Direct)
	}
	once(l, target, p2pnode.SelfNode, life)
	return r
}

// once proves by exec's own history that one thing was started once for old.
func once(l *Lab, h *host.Host, service, old string) {
	l.T.Helper()
	events, err := history.ReadFiles(l.HistoryFile(h.Name))
	if err != nil {
		l.T.Fatal(err)
	}
	starts := 0
	for _, e := range events {
		if e.Event == p2pnode.HistStarted && e.Service == service && e.Old == old {
			starts++
		}
	}
	if starts != 1 {
		l.T.Errorf("%s of %s was started %d times for %s", service, h.Name, starts, old)
	}
}

// webOf is the service web as its own host tells it, its pid held against /proc.
func webOf(h *host.Host) p2pnode.ServiceStatus {
	var d p2pnode.PSDoc
	h.JSON(&d, "ps")
	for _, s := range d.Services {
		if s.Name == "web" && s.State == p2pnode.StateUp && host.Running(s.PID, host.StartTicks(s.PID)) {
			return s
		}
	}
	return p2pnode.ServiceStatus{}
}

// killWeb kills the service and waits for the next one and for its verified story
// as witness tells it.
func killWeb(l *Lab, witness, h *host.Host) p2pnode.Incident {
	l.T.Helper()
	web := webOf(h)
	h.Kill("web", p2pnode.ClassSignalled, web.PID)
	l.Must(5*time.Second, "web of "+h.Name+" runs again", func() bool { s := webOf(h); return s.PID != 0 && s.PID != web.PID })
	var story p2pnode.Incident
	l.Must(20*time.Second, "its verified story on "+witness.Name, func() (ok bool) {
		story, ok = witness.Incident(h.Name, "web", func(i p2pnode.Incident) bool { return i.OldIncarnation == web.Incarnation && verified(i) })
		return ok
	})
	if story.By.Kind != p2pnode.ByAgent || story.By.Node != h.Name || story.By.Fallback || story.Hops != 0 {
		l.T.Errorf("a service repaired by %+v, hops %d: want its resident agent", story.By, story.Hops)
	}
	once(l, h, "web", web.Incarnation)
	return story
}
