package door

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/exec"
	"p2pnode/test/bubble"
	"p2pnode/test/score"
)

// A member's handshake at a byte a second is ended after the time that a handshake
// has, and counted, beside others that are answered.
func TestSlowHandshakesEnd(t *testing.T) {
	f := newFleet(t)
	m, b := f.member("a", p2pnode.RoleWorker), f.member("b", p2pnode.RoleWorker)
	s := m.serve()
	var slow sync.WaitGroup
	for range maxConns - 1 {
		slow.Go(func() {
			if err := b.greetSlowly(t.Context(), m.addr); err == nil {
				t.Error("a handshake at a byte a second came to its end")
			}
		})
	}
	eventually(t, "all are in", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.conns) == maxConns-1 })
	if _, err := b.knocker().Status(t.Context(), m.addr, m.peer().ID); err != nil {
		t.Errorf("a member is kept out: %v", err)
	}
	slow.Wait()
	eventually(t, "each is counted", func() bool { return s.count.all()["handshake-slow"] == maxConns-1 })
	eventually(t, "and gone", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.conns) == 0 })
}

// So is a member whose request comes at a byte a second once it has proved itself.
func TestSlowRequestsEnd(t *testing.T) {
	f := newFleet(t)
	m, b := f.member("a", p2pnode.RoleWorker), f.member("b", p2pnode.RoleWorker)
	s := m.serve()
	in := s.in(b, m.addr, memberConns)
	began := time.Now()
	var slow sync.WaitGroup
	for _, conn := range in {
		slow.Go(func() { writeFrame(trickle{conn}, request{Verb: verbStatus}) }) // fails, or writes to nobody
		slow.Go(func() {
			if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Error("a request at a byte a second was answered")
			}
			if took := time.Since(began); took < requestTime/2 || took > 2*requestTime {
				t.Errorf("it was ended after %v", took)
			}
			conn.NetConn().Close()
		})
	}
	if _, err := b.knocker().Status(t.Context(), m.addr, m.peer().ID); err != nil {
		t.Errorf("a member is kept out: %v", err)
	}
	slow.Wait()
	eventually(t, "each is counted", func() bool { return s.count.all()["request-slow"] == memberConns })
	eventually(t, "and gone", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.conns) == 0 })
}

// trickle is a connection on which a byte a second is written.
type trickle struct{ net.Conn }

func (c trickle) Write(b []byte) (n int, err error) {
	for i := range b {
		if _, err := c.Conn.Write(b[i : i+1]); err != nil {
			return i, err
		}
		time.Sleep(time.Second)
	}
	return len(b), nil
}

// greetSlowly is a whole handshake with the member's papers, a byte a second.
func (m *member) greetSlowly(ctx context.Context, addr string) error {
	raw, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return err
	}
	defer raw.Close()
	return tls.Client(trickle{raw}, config(m.chain, m.key, func([][]byte) error { return nil })).HandshakeContext(ctx)
}

// Thousands of strangers open connections to the door and say nothing, some say a
// byte now and then, and members prove themselves at a byte a second: another member
// is answered all the while, exec repairs as fast as before, and the door has no more
// open than its limit and little more in memory. All of it is counted where an operator
// sees it.
func TestAFloodAtTheDoor(t *testing.T) {
	f := newFleet(t)
	a, b := f.member("a", p2pnode.RoleWorker), f.member("b", p2pnode.RoleWorker)
	const repairs = 5 // before the flood, and in it: the first crash of each is mended at once
	for i := range 1 + 2*repairs {
		a.services = append(a.services, p2pnode.ServiceSpec{Name: fmt.Sprint("s", i), Command: []string{"sleep", "100000"}, StopGrace: time.Second})
	}
	a.host(false)
	c := a.client()
	eventually(t, "all are up", func() bool {
		up := 0
		for _, s := range a.states(c) {
			if s.State == p2pnode.StateUp && time.Since(s.Since) > time.Second { // its first restart is at once
				up++
			}
		}
		return up == len(a.services)
	})
	well := a.states(c)["s0"]
	k, want := b.knocker(), a.peer().ID
	eventually(t, "the door answers", func() bool { _, err := k.Status(t.Context(), a.addr, want); return err == nil })
	door := a.doorPID(c)
	rss := residentKiB(door)
	next := 1
	repair := func() (took score.Samples) {
		for range repairs {
			took = append(took, a.killed(c, fmt.Sprint("s", next)))
			next++
		}
		return took
	}
	before := repair()

	var opened atomic.Int64
	stop := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		var open []net.Conn
		defer func() {
			for _, s := range open {
				s.Close()
			}
		}()
		for range strangers() {
			select {
			case <-stop:
				return
			default:
			}
			s, err := net.DialTimeout("tcp", a.addr, time.Second)
			if err != nil {
				continue
			}
			open = append(open, s)
			if opened.Add(1)%7 == 0 {
				s.Write([]byte{22}) // the first byte of a handshake, and nothing after it
			}
		}
		<-stop
	}()
	var slow sync.WaitGroup
	for range 8 {
		slow.Go(func() {
			for range 2 {
				if b.greetSlowly(t.Context(), a.addr) == nil {
					t.Error("a handshake at a byte a second came to its end")
				}
			}
		})
	}
	var during score.Samples
	most, grown, asked, answered := 0, 0, 0, 0
	var tries [5]int // how many were answered at the first, the second ...
	for began := time.Now(); time.Since(began) < 3*time.Minute && (opened.Load() < int64(strangers())*9/10 || asked < 50); asked++ {
		for try := range tries { // crowded out while it proved itself: a caller tries again
			ans, err := k.Recover(t.Context(), a.addr, want, p2pnode.RecoverRequest{Op: fmt.Sprint("flood ", asked), Target: "s0", Expected: well.Incarnation})
			if err == nil && ans.Reason != p2pnode.RefusedHealthy {
				t.Errorf("beside a flood: %+v", ans)
			}
			if err == nil {
				answered++
				tries[try]++
				break
			}
		}
		if during == nil && opened.Load() > 500 {
			during = repair()
		}
		most, grown = max(most, descriptors(door)), max(grown, residentKiB(door)-rss)
	}
	t.Logf("%d strangers; %d of %d requests answered, %v by try; at most %d descriptors and %d KiB more in the door", opened.Load(), answered, asked, tries, most, grown)
	if opened.Load() < int64(strangers())*9/10 {
		t.Errorf("%d strangers of %d are no flood", opened.Load(), strangers())
	}
	if answered*10 < asked*9 {
		t.Errorf("%d of %d members' requests were answered", answered, asked)
	}
	if most > 100 || grown > 10<<10 && !bubble.RaceDetector {
		t.Errorf("the door had %d descriptors open and grew by %d KiB", most, grown)
	}
	if now := a.states(c)["s0"]; now.PID != well.PID {
		t.Errorf("s0 has pid %d, had %d", now.PID, well.PID)
	}
	if len(during) == 0 {
		t.Fatal("nothing was mended in the flood")
	}
	p50, was := during.At(0.5), before.At(0.5)
	t.Logf("kill to the next life: p50 %v before, %v in the flood: x%.1f", was, p50, float64(p50)/float64(was))
	if p50 > 3*was && p50 > was+250*time.Millisecond { // the flood has its share of the cores, in this process
		t.Errorf("a repair took %v before and %v in the flood", before, during)
	}
	slow.Wait() // each was ended
	close(stop)
	<-ended
	last, err := net.DialTimeout("tcp", a.addr, 5*time.Second) // nobody crowds this one out
	if err != nil {
		t.Fatal(err)
	}
	defer last.Close()
	eventually(t, "all of it is counted, where exec is asked", func() bool {
		st, err := c.Status(t.Context())
		return err == nil && st.DoorRefused["crowded-out"] > uint64(opened.Load())*9/10 && st.DoorRefused["handshake-slow"] > 0
	})
}

// A door that is killed is back at once and answers a member.
func TestAKilledDoorIsBack(t *testing.T) {
	f := newFleet(t)
	b := f.member("b", p2pnode.RoleWorker)
	k := b.knocker()
	var took score.Samples
	for i := range 10 { // hosts: the second kill of one door would have to wait for its backoff
		a := f.member(fmt.Sprint("host", i), p2pnode.RoleWorker)
		a.services = []p2pnode.ServiceSpec{{Name: "web", Command: []string{"sleep", "100000"}, StopGrace: time.Second}}
		a.host(false)
		c := a.client()
		want := a.peer().ID
		eventually(t, "the door is there for a second", func() bool {
			_, err := k.Status(t.Context(), a.addr, want)
			st, serr := c.Status(t.Context())
			return err == nil && serr == nil && st.Door.State == p2pnode.StateUp && time.Since(st.Door.Since) > time.Second
		})
		door := a.doorPID(c)
		began := time.Now()
		if err := syscall.Kill(door, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "another door answers", func() bool {
			_, err := k.Status(t.Context(), a.addr, want)
			return err == nil
		})
		took = append(took, time.Since(began))
		if now := a.doorPID(c); now == door || now == 0 {
			t.Errorf("door %d was killed, %d answered", door, now)
		}
	}
	worst := took.At(1)
	score.Record(t, score.Figure{
		Row: "20", How: "the door killed, until it answers a member again", Text: took.Text("p50", "max"), N: len(took),
		Chance: "10 kills", Where: "one host", Kept: worst < 2*time.Second,
	})
	if worst > 10*time.Second { // on a machine with ten whole hosts by then
		t.Errorf("a door was back after %v", took)
	}
}

// killed kills a service and is how long it takes until its next life runs.
func (m *member) killed(c *exec.Client, name string) time.Duration {
	m.f.t.Helper()
	was := m.states(c)[name]
	began := time.Now()
	if err := syscall.Kill(was.PID, syscall.SIGKILL); err != nil {
		m.f.t.Fatal(err)
	}
	for ; ; time.Sleep(200 * time.Microsecond) {
		took := time.Since(began)
		now := m.states(c)[name]
		if now.State == p2pnode.StateUp && now.PID != was.PID {
			return took
		}
		if took > 20*time.Second {
			m.f.t.Fatalf("%s is not back: %+v", name, now)
		}
	}
}

// states are this host's services by name.
func (m *member) states(c *exec.Client) map[string]p2pnode.ServiceStatus {
	m.f.t.Helper()
	out := map[string]p2pnode.ServiceStatus{}
	st, err := c.Status(m.f.t.Context())
	if err != nil {
		m.f.t.Fatal(err)
	}
	for _, s := range st.Services {
		out[s.Name] = s
	}
	return out
}

// residentKiB is the memory of a process.
func residentKiB(pid int) (n int) {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(raw)) {
		fmt.Sscanf(line, "VmRSS: %d kB", &n)
	}
	return n
}

// A member with a valid certificate asks a thousand times for each that needs no help
// or must not be helped: no pid changes, exec starts nothing meanwhile, and each answer
// says exactly why.
func TestAMemberCannotMakeExecAct(t *testing.T) {
	f := newFleet(t)
	a, b := f.member("a", p2pnode.RoleWorker), f.member("b", p2pnode.RoleWorker)
	sleeps := func(name string) p2pnode.ServiceSpec {
		return p2pnode.ServiceSpec{Name: name, Command: []string{"sleep", "100000"}, StopGrace: time.Hour}
	}
	off := sleeps("off")
	off.Recover = p2pnode.RecoverOff
	a.services = []p2pnode.ServiceSpec{
		sleeps("web"), sleeps("stopped"), sleeps("maintained"), sleeps("observed"), sleeps("frozen"), off,
		{Name: "crashing", Command: []string{"/bin/false"}, StopGrace: time.Second},
	}
	a.host(true)
	c := a.client()
	eventually(t, "six run and one loops", func() bool {
		all := a.states(c)
		up := 0
		for _, s := range all {
			if s.State == p2pnode.StateUp {
				up++
			}
		}
		return up == 6 && all["crashing"].State == p2pnode.StateCrashLooping
	})
	if _, err := c.Stop(t.Context(), "stopped", exec.VerbOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Maintenance(t.Context(), "maintained", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := c.Observe(t.Context(), "observed", true); err != nil {
		t.Fatal(err)
	}
	for name, sig := range map[string]syscall.Signal{"maintained": syscall.SIGKILL, "observed": syscall.SIGKILL, "off": syscall.SIGKILL, "frozen": syscall.SIGSTOP} {
		syscall.Kill(a.states(c)[name].PID, sig)
	}
	eventually(t, "four are down and one is stopped", func() bool {
		s := a.states(c)
		return s["stopped"].PID == 0 && s["maintained"].PID == 0 && s["observed"].PID == 0 && s["off"].PID == 0 && s["frozen"].State == p2pnode.StateFrozen
	})
	var host p2pnode.ExecStatus
	eventually(t, "node process and door are there", func() bool {
		var err error
		host, err = c.Status(t.Context())
		return err == nil && !host.NodeLife.IsZero() && host.Node.State == p2pnode.StateUp && host.Door.State == p2pnode.StateUp
	})
	was := a.states(c)
	asks := []struct {
		target, expected string
		outcome          p2pnode.Outcome
		reason           p2pnode.Refusal
	}{
		{"crashing", was["crashing"].Incarnation, p2pnode.OutcomeScheduled, ""}, // first: its slow lane ends after a minute
		{"web", was["web"].Incarnation, p2pnode.OutcomeRefused, p2pnode.RefusedHealthy},
		{"stopped", was["stopped"].Incarnation, p2pnode.OutcomeRefused, p2pnode.RefusedStopped},
		{"maintained", was["maintained"].Incarnation, p2pnode.OutcomeRefused, p2pnode.RefusedMaintenance},
		{"observed", was["observed"].Incarnation, p2pnode.OutcomeRefused, p2pnode.RefusedObserve},
		{"off", was["off"].Incarnation, p2pnode.OutcomeRefused, p2pnode.RefusedOff},
		{"frozen", was["frozen"].Incarnation, p2pnode.OutcomeScheduled, ""},
		{p2pnode.SelfNode, host.NodeLife.String(), p2pnode.OutcomeRefused, p2pnode.RefusedHealthy},
		{p2pnode.SelfDoor, host.Door.Incarnation, p2pnode.OutcomeRefused, p2pnode.RefusedHealthy},
		{"web", "1-1", p2pnode.OutcomeRefused, p2pnode.RefusedStale},
	}
	_, daemon := exec.ExecAlive(a.dir)
	had := children(daemon)
	stop, fresh := make(chan struct{}), map[int]bool{}
	looks := 0
	var watcher sync.WaitGroup
	watcher.Go(func() {
		for tick := time.NewTicker(time.Millisecond); ; looks++ {
			for pid := range children(daemon) {
				if !had[pid] {
					fresh[pid] = true
				}
			}
			select {
			case <-tick.C:
			case <-stop:
				tick.Stop()
				return
			}
		}
	})
	for i, ask := range asks {
		var members sync.WaitGroup
		for j := range 8 {
			members.Go(func() {
				for n := range 2 {
					for ans, err := range b.asks(a.addr, maxRequests, func(k int) p2pnode.RecoverRequest {
						return p2pnode.RecoverRequest{Op: fmt.Sprint(i, j, n, k), Target: ask.target, Expected: ask.expected, Agent: "x"}
					}) {
						if err != nil || ans.Outcome != ask.outcome || ans.Reason != ask.reason {
							t.Errorf("recover %s %s: %+v, %v", ask.target, ask.expected, ans, err)
							return
						}
					}
				}
			})
		}
		members.Wait()
		if ask.target == "crashing" { // its next start is exec's own, and may come
			continue
		}
		if now, had := a.states(c)[ask.target], was[ask.target]; now.PID != had.PID || now.Restarts != had.Restarts || now.Incarnation != had.Incarnation {
			t.Errorf("%s: %+v, was %+v", ask.target, now, had)
		}
	}
	close(stop)
	watcher.Wait()
	now, err := c.Status(t.Context())
	if err != nil || now.Node.PID != host.Node.PID || now.Door.PID != host.Door.PID || now.NodeLife != host.NodeLife {
		t.Errorf("%+v, was %+v, %v", now, host, err)
	}
	t.Logf("%d looks at exec's children", looks)
	if crashed := a.states(c)["crashing"].Restarts - was["crashing"].Restarts; len(fresh) > crashed || looks < 100 {
		t.Errorf("exec started %d processes, %d of them of the service that crashes by itself; %d looks", len(fresh), crashed, looks)
	}
}

// asks puts n questions over one connection, proved as m.
func (m *member) asks(addr string, n int, ask func(int) p2pnode.RecoverRequest) iter.Seq2[p2pnode.RecoverAnswer, error] {
	return func(yield func(p2pnode.RecoverAnswer, error) bool) {
		conn, err := greet(addr, m.chain, m.key)
		if err != nil {
			yield(p2pnode.RecoverAnswer{}, err)
			return
		}
		defer conn.Close()
		for i := range n {
			conn.SetDeadline(time.Now().Add(15 * time.Second))
			req := ask(i)
			var a answer
			err := errors.Join(writeFrame(conn, request{Verb: verbRecover, Recover: &req}), readFrame(conn, &a))
			if err == nil && a.Recover == nil {
				err = fmt.Errorf("no word on recover: %+v", a.Error)
			}
			if err != nil {
				yield(p2pnode.RecoverAnswer{}, err)
				return
			}
			if !yield(*a.Recover, nil) {
				return
			}
		}
	}
}

// children are the processes that pid, by any of its threads, started and has not
// reaped.
func children(pid int) map[int]bool {
	out := map[int]bool{}
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		raw, _ := os.ReadFile(list)
		for field := range strings.FieldsSeq(string(raw)) {
			if n, err := strconv.Atoi(field); err == nil {
				out[n] = true
			}
		}
	}
	return out
}

// strangers is how many connections this process can have.
func strangers() int {
	var lim syscall.Rlimit
	syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim)
	return int(min(10_000, lim.Cur*3/4))
}

func descriptors(pid int) int {
	entries, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(entries)
}

// doorPID is the door's.
func (m *member) doorPID(c *exec.Client) int {
	m.f.t.Helper()
	st, err := c.Status(m.f.t.Context())
	if err != nil {
		m.f.t.Fatal(err)
	}
	return st.Door.PID
}
