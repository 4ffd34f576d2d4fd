package bench

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/bin"
	"p2pnode/test/host"
	"p2pnode/test/score"
)

// contender is a supervisor of which it is measured how long it takes to mend what
// broke. All of them run the same victim.
type contender struct {
	name   string
	config string // in words, for the table
	ours   bool
	faults []fault
	ready  func(b *testing.B) // finds or gets what start needs; skips by name
	// start runs targets under the supervisor, in dir, and returns its process.
	start func(b *testing.B, dir string, targets []*target) *supervisor
}

// supervisor is a contender that runs.
type supervisor struct {
	cmd   *exec.Cmd
	again func() *exec.Cmd       // starts it once more in the same place, as an init would
	pids  func() []int           // its processes that live and look after services
	more  func() []int           // its other processes; nil: none
	agent func(b *testing.B) int // how many repairs an agent decided; nil where there are none
	stop  func()
}

// fault is one way to break a victim. It returns the moment from which the outage
// counts.
type fault struct {
	name   string
	limit  time.Duration // what takes longer is "never"
	breaks func(t *target) time.Time
	args   []string // of the victim
	around int      // processes of others on the host
	batch  bool     // all at once, then mended one by one
	mend   func(t *target) time.Time
}

const never = 10 * time.Second

func hit(sig syscall.Signal) func(*target) time.Time {
	return func(t *target) time.Time {
		began := time.Now()
		syscall.Kill(t.pid, sig)
		return began
	}
}

// anyMoment lets a fault come at no fixed time after the last question of a check that
// asks once a second: questions to all services are asked together, and a repair ends
// with one.
func anyMoment() { time.Sleep(rand.N(p2pnode.DefaultCheckEvery)) }

var (
	faultKill     = fault{name: "kill -9", limit: never, breaks: hit(syscall.SIGKILL)}
	faultStop     = fault{name: "SIGSTOP", limit: never, breaks: hit(syscall.SIGSTOP)}
	faultDeadlock = fault{name: "deadlock", limit: never, breaks: func(t *target) time.Time {
		anyMoment()
		return hit(syscall.SIGUSR1)(t)
	}}
	faultChild   = fault{name: "kill -9, a child holds stdout", limit: never, breaks: hit(syscall.SIGKILL), args: []string{"-child"}}
	faultMissing = fault{name: "binary missing for 6 s", limit: 3 * never, batch: true, breaks: func(t *target) time.Time {
		os.Rename(t.program, t.program+".away")
		return hit(syscall.SIGKILL)(t)
	}, mend: func(t *target) time.Time {
		began := time.Now()
		os.Rename(t.program+".away", t.program)
		return began
	}}
	faultCrowd      = fault{name: "kill -9 beside 2,000 processes", limit: never, breaks: hit(syscall.SIGKILL), around: 2000}
	faultFlood      = fault{name: "kill -9 beside a flood of logs", limit: never, breaks: hit(syscall.SIGKILL)}
	faultSupervisor = fault{name: "supervisor killed, then kill -9"}
	faultNone       = fault{name: "idle"}
)

// missingFor is how long a binary is away.
const missingFor = 6 * time.Second

// victims is how many services a contender looks after while they are broken in
// turn, each of them after rest.
const (
	victims = 20
	idlers  = 10 // services of an idle host
	rest    = 11 * time.Second
	hopeful = 3 // faults in a row that nothing is done about, then no more are tried
)

// outcome of one contender under one fault; one file each in docs/mttr.
type outcome struct{ score.Repair }

// BenchmarkMTTR breaks the same victim under us and under other supervisors, with
// one outside poller at 1 ms, and keeps every sample in docs/mttr; make bench-mttr
// makes the README's table of them. P2PNODE_ROUNDS is the number of faults (20, and 60
// of those that goals are set for: a quantile of 20 is one sample). A bare fork+exec
// loop is broken in turn with each, for the ratio.
func BenchmarkMTTR(b *testing.B) {
	for _, c := range slices.Concat(ours(), others()) {
		for _, f := range c.faults {
			b.Run(c.name+"/"+f.name, func(b *testing.B) {
				c.ready(b)
				dir := shortDir(b)
				program := bin.Victim(b)
				ts := targets(b, program, dir, f)
				crowd(b, f.around)
				s := c.start(b, dir, ts)
				b.Cleanup(s.stop)
				o := outcome{score.Repair{Contender: c.name, Config: c.config, Fault: f.name, At: time.Now().UTC(), Commit: score.Commit(), Host: score.Host()}}
				for b.Loop() {
					o.measure(b, f, s, ts, program)
				}
				if c.ours && o.Second > 0 {
					b.Errorf("%d starts beside a living copy", o.Second)
				}
				keep(b, o)
			})
		}
	}
}

func (o *outcome) measure(b *testing.B, f fault, s *supervisor, ts []*target, program string) {
	for _, t := range ts {
		_, t.pid = untilOther(b, t.port, 0, time.Now(), 30*time.Second)
		t.started = time.Now()
	}
	bare := newBare(b, program)
	defer bare.stop()
	switch {
	case f.name == faultNone.name:
		o.Idle = idle(b, s, ts)
		return
	case f.name == faultSupervisor.name:
		o.killSupervisor(s, ts, bare)
	case f.batch:
		o.breakAll(f, ts, bare)
	default:
		for i := 0; i < o.rounds() && !o.hopeless(); i++ {
			t := ts[i%len(ts)]
			time.Sleep(time.Until(t.started.Add(rest)))
			o.Floor = append(o.Floor, bare.again())
			o.breakOne(f.limit, t, f.breaks)
		}
	}
	o.Second = seconds(b, ts)
	if s.agent != nil {
		o.ByAgent = s.agent(b)
	}
}

func (o *outcome) hopeless() bool { return o.Never >= hopeful && len(o.Samples) == 0 }

// breakOne breaks t and waits. One that nobody brought back since its last fault is not
// broken again: nobody mends it.
func (o *outcome) breakOne(limit time.Duration, t *target, breaks func(*target) time.Time) {
	if t.pid == 0 {
		o.Never++
		return
	}
	o.wait(limit, t, breaks(t))
}

// wait polls until t answers with another process.
func (o *outcome) wait(limit time.Duration, t *target, since time.Time) {
	took, pid := pollOther(t.port, t.pid, since, limit)
	if pid == 0 {
		o.Never++
		syscall.Kill(t.pid, syscall.SIGKILL) // the next fault finds it well again
		_, pid = pollOther(t.port, t.pid, time.Now(), limit)
	} else {
		o.Samples = append(o.Samples, took)
	}
	t.pid, t.started = pid, time.Now()
}

// breakAll breaks all targets, waits, and mends them one by one.
func (o *outcome) breakAll(f fault, ts []*target, bare *bareLoop) {
	for n := 0; n < o.rounds() && !o.hopeless(); n += len(ts) {
		time.Sleep(time.Until(ts[0].started.Add(rest)))
		for _, t := range ts {
			if t.pid != 0 {
				f.breaks(t)
			}
		}
		time.Sleep(missingFor)
		for _, t := range ts[:min(len(ts), o.rounds()-n)] {
			o.Floor = append(o.Floor, bare.again())
			if since := f.mend(t); !o.hopeless() {
				o.wait(f.limit, t, since)
			}
		}
	}
}

// killSupervisor kills the process that looks after a service, starts the supervisor
// again unless something does that by itself, and then breaks the service: the
// sample is how long it is away.
func (o *outcome) killSupervisor(s *supervisor, ts []*target, bare *bareLoop) {
	const patience = 2 * time.Second
	for i := 0; i < o.rounds() && !o.hopeless(); i++ {
		t := ts[i%len(ts)]
		boss := bossOf(t, s.pids())
		if boss == 0 {
			o.Never++ // nobody looks after anything any more
			continue
		}
		syscall.Kill(boss, syscall.SIGKILL)
		if boss == s.cmd.Process.Pid {
			s.cmd.Wait()
		}
		time.Sleep(patience)
		if len(s.pids()) == 0 {
			s.cmd = s.again()
			time.Sleep(patience)
		}
		o.Floor = append(o.Floor, bare.again())
		_, t.pid = pollOther(t.port, 0, time.Now(), time.Second)
		o.breakOne(never, t, hit(syscall.SIGKILL))
	}
}

// bossOf is the process that looks after t: its parent, or the first of the
// supervisor's own; 0 where there is none.
func bossOf(t *target, pids []int) int {
	if len(pids) == 0 {
		return 0
	}
	if parent := host.Parent(ask(t.port)); slices.Contains(pids, parent) {
		return parent
	}
	return pids[0]
}

// pollOther asks every millisecond until another pid than old answers; pid 0 means
// that none did within limit.
func pollOther(port, old int, since time.Time, limit time.Duration) (time.Duration, int) {
	for time.Since(since) < limit {
		if pid := ask(port); pid != 0 && pid != old {
			return time.Since(since), pid
		}
		time.Sleep(time.Millisecond)
	}
	return 0, 0
}

// bareLoop is what the kernel takes: it waits for its child and starts it again.
type bareLoop struct {
	program string
	port    int
	pid     int
	cmd     *exec.Cmd
}

func newBare(b *testing.B, program string) *bareLoop {
	l := &bareLoop{program: program, port: freePort(b)}
	l.start()
	_, l.pid = untilOther(b, l.port, 0, time.Now(), 5*time.Second)
	return l
}

func (l *bareLoop) start() {
	l.cmd = exec.Command(l.program, "-port", strconv.Itoa(l.port))
	if err := l.cmd.Start(); err != nil {
		panic(err)
	}
}

func (l *bareLoop) again() time.Duration {
	began := time.Now()
	syscall.Kill(l.pid, syscall.SIGKILL)
	l.cmd.Wait()
	l.start()
	took, pid := pollOther(l.port, l.pid, began, 5*time.Second)
	l.pid = pid
	return took
}

func (l *bareLoop) stop() {
	l.cmd.Process.Kill()
	l.cmd.Wait()
}

// targets are victims with a program file of their own each, so that one can be
// missing.
func targets(b *testing.B, program, dir string, f fault) []*target {
	var out []*target
	n := victims
	if f.name == faultNone.name {
		n = idlers
	}
	for i := range n {
		t := &target{name: fmt.Sprintf("web%d", i), port: freePort(b)}
		t.program = filepath.Join(dir, t.name+".bin")
		if err := os.Link(program, t.program); err != nil {
			bin.Copy(b, program, t.program, "")
		}
		t.argv = append([]string{t.program, "-port", strconv.Itoa(t.port), "-ledger", t.ledger(dir)}, f.args...)
		out = append(out, t)
	}
	return out
}

func (t *target) ledger(dir string) string { return filepath.Join(dir, t.name+".ledger") }

// seconds counts starts of victims beside a living copy, by the victims' own word.
func seconds(b *testing.B, ts []*target) (n int) {
	b.Helper()
	for _, t := range ts {
		raw, err := os.ReadFile(t.argv[4])
		if err != nil {
			b.Error(err)
		}
		n += strings.Count(string(raw), " second")
	}
	return n
}

// rounds is the number of faults of a measurement.
func (o *outcome) rounds() int {
	if n, err := strconv.Atoi(os.Getenv("P2PNODE_ROUNDS")); err == nil && n > 0 {
		return n
	}
	if goal := score.GoalOf(o.Repair); goal.P95 > 0 || goal.Max > 0 {
		return 60
	}
	return 20
}

// crowd starts n processes that have nothing to do with anybody's services.
func crowd(b *testing.B, n int) {
	var all []*exec.Cmd
	b.Cleanup(func() {
		for _, cmd := range all {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	for range n {
		cmd := exec.Command("sleep", "3600")
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		all = append(all, cmd)
	}
}

// shortDir is a folder of its own with a short name, for the sockets in it.
func shortDir(b *testing.B) string {
	dir, err := os.MkdirTemp("", "mttr-")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// keep writes one outcome into docs/mttr and reports it.
func keep(b *testing.B, o outcome) {
	b.Helper()
	b.Logf("%s, %s: n=%d %s, floor p50 %s, never %d, second copies %d, by agent %d, all %v %+v", o.Contender, o.Fault, len(o.Samples),
		o.Samples.Text("p50", "p95", "p99", "max"), score.Millis(o.Floor.At(0.5)), o.Never, o.Second, o.ByAgent, o.Samples, o.Idle)
	dir := filepath.Join(bin.Root(b), "docs", "mttr")
	raw, err := json.MarshalIndent(o.Repair, "", " ")
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, strings.Map(fileRune, o.Contender+"-"+o.Fault)+".json"), append(raw, '\n'), 0o644)
	}
	if err != nil {
		b.Error(err)
	}
}

func fileRune(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r >= 'A' && r <= 'Z' {
		return r
	}
	return '-'
}
