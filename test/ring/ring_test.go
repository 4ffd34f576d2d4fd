package ring

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/history"
	"p2pnode/test/host"
	"p2pnode/test/score"
)

// rounds is how often the main fault is made in a row; `make missions` asks for 20.
func rounds() int {
	if n, err := strconv.Atoi(os.Getenv("P2PNODE_ROUNDS")); err == nil {
		return n
	}
	return 1
}

// launchOne asks for so little that one agent is enough for these few hosts: where
// it is, is where the next mission starts.
func launchOne(h *host.Host) { h.OK("agents", "launch", "--slo", "30s", "--confidence", "0.85") }

// killFar kills the node process of a host that the agent has to travel to, and
// checks that it came back once, by that agent, on the way that `path` names.
func (r *Ring) killFar(witness *host.Host, skip ...*host.Host) time.Duration {
	r.T.Helper()
	var target *host.Host
	ways := map[string][]string{}
	at := r.Resting(witness, func(at []string) bool {
		for i := len(r.Hosts) - 1; i >= 0; i-- {
			h := r.Hosts[i]
			if h == witness || slices.Contains(skip, h) || r.Tired(h) || !r.Far(i, at) {
				continue
			}
			target = h
			for _, end := range r.Hosts {
				ways[end.Name] = Path(witness, at[0], end.Name)
			}
			return true
		}
		return false
	})
	r.Killing(target)
	life, old := Life(target), target.Role("node")
	began := time.Now()
	target.Kill(p2pnode.SelfNode, p2pnode.ClassProcessDead, old)
	next := r.Back(target, old, 10*time.Second)
	took := time.Since(began)
	story := r.Story(witness, target, life)
	r.T.Logf("%s: agent on %v, back after %v; hops %d, trail %v, timing %+v", target.Name, at, took.Round(time.Millisecond), story.Hops, story.Trail, story.Timing)
	r.ByAgentFrom(story, target)
	if story.Hops < 1 {
		r.T.Errorf("the agent on %v did not travel to %s", at, target.Name)
	}
	// The mission ends at the neighbour that is the nearest: up to there its trail is
	// what path says.
	end := story.Trail[max(0, len(story.Trail)-2)]
	if story.Trail[0] == at[0] && !slices.Equal(story.Trail[:len(story.Trail)-1], ways[end]) {
		r.T.Errorf("trail %v, path said %v", story.Trail, ways[end])
	}
	if pid := target.Role("node"); pid != next {
		r.T.Errorf("%s was restarted more than once: %d, then %d, now %d", target.Name, old, next, pid)
	}
	r.Settled(len(r.Hosts), skip...)
	return took
}

// A node process that is killed comes back by an agent that travelled: many times
// in a row, and also when the host that launched the agents is gone for good.
func TestKilledNodeProcess(t *testing.T) {
	r := New(t, 5, farFallback)
	launchOne(r.Hosts[0])
	var took []time.Duration
	for range rounds() {
		took = append(took, r.killFar(r.Hosts[1]))
	}
	slices.Sort(took)
	t.Logf("n=%d p50=%v max=%v", len(took), took[len(took)/2], took[len(took)-1])
	if most := took[len(took)-1]; most > time.Second {
		t.Errorf("the slowest came back after %v, want 1 s at most", most)
	}
	r.Judge(history.Options{EndView: true})
}

func TestLauncherDead(t *testing.T) {
	r := New(t, 6, farFallback)
	founder := r.Hosts[0]
	launchOne(founder)
	r.Must(30*time.Second, "an agent", func() bool { return len(Agents(r.Hosts[2])) > 0 })
	founder.Gone()
	r.Must(15*time.Second, "the founder is gone for the others", func() bool {
		v := r.Hosts[2].Nodes()[founder.Name].Verdict
		return v == p2pnode.Unreachable || v == p2pnode.ExecDead
	})
	for range rounds() {
		r.killFar(r.Hosts[2], founder)
	}
	r.Judge(history.Options{Gone: []string{founder.Name}, EndView: true})
}

// The host that carries the mission loses its node process in the middle.
func TestCarrierKilled(t *testing.T) {
	r := New(t, 6, farFallback)
	launchOne(r.Hosts[0])
	for range rounds() {
		var target, carrier *host.Host
		at := r.Resting(r.Hosts[1], func(at []string) bool {
			for i, h := range r.Hosts {
				way := Path(r.Hosts[1], at[0], h.Name)
				if len(way) < 4 || slices.Contains(way[1:], r.Hosts[1].Name) || r.Tired(h) || r.Tired(r.byName(way[1])) || !r.Far(i, at) {
					continue
				}
				target, carrier = h, r.byName(way[1])
				return true
			}
			return false
		})
		r.Killing(target, carrier)
		lives := map[*host.Host]string{target: Life(target), carrier: Life(carrier)}
		old, carrying := target.Role("node"), carrier.Role("node")
		hops := hopsWritten(r, carrier)
		target.Kill(p2pnode.SelfNode, p2pnode.ClassProcessDead, old)
		caught := host.Eventually(time.Second, func() bool { return hopsWritten(r, carrier) > hops })
		carrier.Kill(p2pnode.SelfNode, p2pnode.ClassProcessDead, carrying)
		r.Back(target, old, 10*time.Second)
		r.Back(carrier, carrying, 10*time.Second)
		for h, life := range lives {
			story := r.Story(r.Hosts[1], h, life)
			t.Logf("%s: agent was on %v, caught on its way %v; hops %d, trail %v, timing %+v", h.Name, at, caught, story.Hops, story.Trail, story.Timing)
			r.ByAgentFrom(story, h)
		}
		r.Settled(len(r.Hosts))
	}
	r.Judge(history.Options{EndView: true})
}

func (r *Ring) byName(name string) *host.Host {
	for _, h := range r.Hosts {
		if h.Name == name {
			return h
		}
	}
	return nil
}

func hopsWritten(r *Ring, h *host.Host) int {
	raw, _ := os.ReadFile(r.HistoryFile(h.Name))
	return bytes.Count(raw, []byte(`"event":"hop"`))
}

// Two node processes at once, neighbours or not.
func TestTwoAtOnce(t *testing.T) {
	r := New(t, 6, farFallback)
	launchOne(r.Hosts[0])
	for round := range rounds() {
		pair := [][2]int{{3, 4}, {3, 5}}[round%2]
		a, b := r.Hosts[pair[0]], r.Hosts[pair[1]]
		r.Killing(a, b)
		r.Must(30*time.Second, "an agent", func() bool { return len(Agents(r.Hosts[1])) > 0 })
		lives := map[*host.Host]string{a: Life(a), b: Life(b)}
		olds := map[*host.Host]int{a: a.Role("node"), b: b.Role("node")}
		for h, pid := range olds {
			h.Fault(p2pnode.SelfNode, p2pnode.ClassProcessDead, pid)
		}
		for _, pid := range olds {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		for h, old := range olds {
			r.Back(h, old, 10*time.Second)
		}
		for h, life := range lives {
			story := r.Story(r.Hosts[1], h, life)
			t.Logf("%s: hops %d, trail %v, timing %+v", h.Name, story.Hops, story.Trail, story.Timing)
			r.ByAgentFrom(story, h)
		}
		r.Settled(len(r.Hosts))
	}
	r.Judge(history.Options{EndView: true})
}

// Exec and node process at once: only the door is left, and a peer's agent has it
// start exec, and exec the node process.
func TestExecAndNodeAtOnce(t *testing.T) {
	r := New(t, 5, farFallback)
	launchOne(r.Hosts[0])
	r.Must(30*time.Second, "an agent", func() bool { return len(Agents(r.Hosts[1])) > 0 })
	h := r.Hosts[3]
	exec, node, door := h.Exec(), h.Role("node"), h.Role("door")
	h.Fault(p2pnode.SelfExec, p2pnode.ClassExecDead, exec)
	h.Fault(p2pnode.SelfNode, p2pnode.ClassProcessDead, node)
	began := time.Now()
	for _, pid := range []int{exec, node} {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	var next int
	r.Must(20*time.Second, "exec again", func() bool { next = h.Exec(); return next != 0 && next != exec })
	execBack := time.Since(began)
	pid := r.Back(h, node, 20*time.Second)
	t.Logf("exec back after %v, node process after %v, door %d -> %d", execBack, time.Since(began), door, h.Role("door"))
	r.Settled(len(r.Hosts))
	r.Must(30*time.Second, "its story is told", func() bool {
		_, ok := r.Hosts[1].Incident(h.Name, "", func(i p2pnode.Incident) bool { return !i.VerifiedAt.IsZero() })
		return ok
	})
	for _, i := range r.Hosts[1].Incidents() {
		t.Logf("%s %q %s by %+v trail %v", i.Node, i.Service, i.State, i.By, i.Trail)
	}
	if now := h.Role("node"); now != pid {
		t.Errorf("another node process: %d, then %d", pid, now)
	}
	r.Judge(history.Options{EndView: true})
}

// A node process that is stopped for less than its grace is left alone; for
// longer, it is restarted once.
func TestStoppedNodeProcess(t *testing.T) {
	r := New(t, 5, farFallback+"services:\n  web: {shell: exec sleep 100000, ready: started}\n")
	launchOne(r.Hosts[0])
	r.Must(30*time.Second, "an agent", func() bool { return len(Agents(r.Hosts[1])) > 0 })
	short, long := r.Hosts[3], r.Hosts[4]
	web := func(h *host.Host) (s p2pnode.ServiceStatus) {
		var d p2pnode.PSDoc
		if h.JSON(&d, "ps") && len(d.Services) == 1 {
			s = d.Services[0]
		}
		return s
	}
	webs := map[*host.Host]int{}
	for _, h := range []*host.Host{short, long} {
		r.Must(10*time.Second, "a service", func() bool { webs[h] = web(h).PID; return webs[h] != 0 })
	}
	pid := short.Role("node")
	short.Fault(p2pnode.SelfNode, p2pnode.ClassFrozen, pid)
	if err := Stop(pid); err != nil {
		t.Fatal(err)
	}
	r.Must(8*time.Second, "the others say hung", func() bool { return r.Hosts[1].Nodes()[short.Name].Verdict == p2pnode.Hung })
	time.Sleep(5 * time.Second)
	if err := Continue(pid); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	r.Must(5*time.Second, "alive again", func() bool { return r.Hosts[1].Nodes()[short.Name].Verdict == p2pnode.Alive })
	thawed := time.Since(began)
	score.Record(t, score.Figure{
		Row: "5", How: "a node process stopped for some seconds, until another node says alive again", Text: score.Millis(thawed), N: 1,
		Chance: "1 stop, called hung", Where: "five hosts on loopback", Kept: thawed <= time.Second,
	})
	r.Settled(len(r.Hosts))
	if now := short.Role("node"); now != pid {
		t.Errorf("a node process that was stopped for some seconds was replaced: %d, now %d", pid, now)
	}

	old, life := long.Role("node"), Life(long)
	long.Fault(p2pnode.SelfNode, p2pnode.ClassFrozen, old)
	if err := Stop(old); err != nil {
		t.Fatal(err)
	}
	began = time.Now()
	next := r.Back(long, old, 20*time.Second)
	took := time.Since(began)
	t.Logf("restarted %v after SIGSTOP", took)
	if took < 9*time.Second {
		t.Errorf("restarted after %v, before its grace of 10 s", took)
	}
	story := r.Story(r.Hosts[1], long, life)
	r.ByAgentFrom(story, long)
	r.Settled(len(r.Hosts))
	if now := long.Role("node"); now != next {
		t.Errorf("restarted twice: %d, %d, now %d", old, next, now)
	}
	for h, pid := range webs {
		if now := web(h); now.PID != pid || now.Restarts != 0 {
			t.Errorf("the service of %s was %d and is %+v", h.Name, pid, now)
		}
	}
	r.Judge(history.Options{EndView: true})
}
