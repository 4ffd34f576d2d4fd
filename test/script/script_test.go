// Package script tells p2pnode's stories as scripts against the real binary.
//
// Each testdata/*.txtar is a story. Files in it named HOST.yaml are the hosts'
// configs; %WEB% and %VICTIM% in them become the host's own web port and the
// test victim. Commands beside testscript's own:
//
//	host NAME [flags]          start p2pnode on loopback; joins JOIN if --join HOST is given
//	on NAME ARGS...            run a CLI command there; stdout and stderr can be matched after
//	exits CODE ARGS...         run the binary without a daemon; it must exit with CODE
//	exits-on NAME CODE ARGS... the same against NAME's folder
//	follows NAME TIME ARGS...  run a CLI command there for so long, which goes on by itself
//	answers NAME               wait until its web service answers
//	silent NAME                prove that it does not
//	sigkill NAME web|@node|@exec|@door SIGKILL, proved from outside
//	freeze NAME web|@node      SIGSTOP, proved from outside
//	thaw NAME                  SIGCONT to what was frozen
//	deadlock NAME              the web service stops answering, its port stays open
//	same NAME                  the web service that answers is the one that answered last
//	other NAME                 another one answers by now (waits)
//	back NAME                  wait until another exec runs there and knows web as up
//	copies NAME N              N processes of the web service run
//	gone NAME                  the whole host is killed for good
//	route NAME A B             wait until NAME knows a chain of links from A to B
//	sees NAME VERDICT HOST...  wait until NAME's verdict on each is that; unlisted: it has none
//	story NAME HOST SVC|@node K=V...   wait until NAME knows a verified incident with
//	                           by=, at= (by.node), hops=, minhops=, class=, state=, fallback=, count=
//	quotes NAME HOST SVC TEXT  its excerpt, read on NAME, holds TEXT
//	tells NAME HOST SVC TEXT   incidents show, read on NAME, says TEXT of the newest one
//	noted NAME TEXT            the host's own program, that notify: names, was told TEXT
//	document NAME SCHEMA ARGS... -- KEY...   -o json holds what INTERFACE promises; see there
//	configure NAME FILE        FILE of the story is its configuration from now on; it is not told
//	signal NAME @exec SIG      that signal, like HUP, to that process
//	state NAME SVC STATE       wait until ps there says so
//	ends NAME CODE             wait until exec has ended with that code and nothing of the host is left
//	judge [GONE...]            the offline checker, at the end of every story
package script

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"p2pnode"
	"p2pnode/test/bin"
	"p2pnode/test/history"
	"p2pnode/test/host"
)

func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	binary := bin.P2pnode(t)
	victim := bin.Victim(t)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			s := &story{t: t, fleet: host.NewFleet(t, binary), victim: victim, hosts: map[string]*actor{}}
			// testscript runs its own subtest in parallel: the end of the story comes
			// after this function.
			t.Cleanup(func() {
				if !s.judged && !t.Failed() {
					t.Error("a story ends with judge")
				}
			})
			testscript.Run(t, testscript.Params{Files: []string{file}, Cmds: s.commands()})
		})
	}
}

// actor is a host in a story, with what was last seen of it from outside.
type actor struct {
	*host.Host
	port   int
	web    int // pid that answered last
	frozen int
	exec   int // pid of exec that was killed last
}

type story struct {
	t      *testing.T
	fleet  *host.Fleet
	victim string
	hosts  map[string]*actor
	judged bool
}

type command = func(ts *testscript.TestScript, neg bool, args []string)

func (s *story) commands() map[string]command {
	verbs := map[string]func(ts *testscript.TestScript, a *actor, args []string){
		"answers": s.answers, "silent": s.silent, "sigkill": s.kill, "freeze": s.freeze, "thaw": s.thaw,
		"deadlock": s.deadlock, "same": s.same, "other": s.other, "back": s.back, "copies": s.copies, "gone": s.gone,
		"sees": s.sees, "route": s.route, "story": s.story, "quotes": s.quotes, "tells": s.tells, "noted": s.noted, "trusts": s.trusts, "audited": s.audited, "unaudited": s.unaudited, "document": s.document,
		"configure": s.configure, "signal": s.signal, "state": s.state, "ends": s.ends,
	}
	out := map[string]command{"host": s.host, "on": s.on, "judge": s.judge, "exits": s.exits, "exits-on": s.exitsOn, "follows": s.follows}
	for name, verb := range verbs {
		out[name] = func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) == 0 {
				ts.Fatalf("usage: %s HOST ...", name)
			}
			verb(ts, s.actor(ts, args[0]), args[1:])
		}
	}
	return out
}

func (s *story) actor(ts *testscript.TestScript, name string) *actor {
	a := s.hosts[name]
	if a == nil {
		ts.Fatalf("no host %s was started", name)
	}
	return a
}

func must(ts *testscript.TestScript, timeout time.Duration, what string, cond func() bool) {
	if !host.Eventually(timeout, cond) {
		ts.Fatalf("not within %v: %s", timeout, what)
	}
}

func (s *story) host(ts *testscript.TestScript, _ bool, args []string) {
	name, args := args[0], args[1:]
	a := s.hosts[name]
	if a == nil {
		a = &actor{Host: s.fleet.Add(name), port: freePort(ts)}
		s.hosts[name] = a
	}
	if raw, err := os.ReadFile(ts.MkAbs(name + ".yaml")); err == nil {
		a.Configure(s.yaml(a, string(raw)))
	}
	for i := range args {
		if i > 0 && args[i-1] == "--join" && s.hosts[args[i]] != nil {
			args[i] = s.address(ts, s.hosts[args[i]])
		}
	}
	a.Start(append([]string{"--listen", "127.0.0.1:0", "--door", "127.0.0.1:0"}, args...)...)
	must(ts, 15*time.Second, name+" answers its CLI", func() bool {
		var st p2pnode.StatusDoc
		return a.JSON(&st, "status") && st.Exec != nil
	})
}

func (s *story) address(ts *testscript.TestScript, a *actor) (addr string) {
	must(ts, 15*time.Second, a.Name+" listens", func() bool {
		var st p2pnode.StatusDoc
		if a.JSON(&st, "status") && st.Node != nil && len(st.Node.Listen) > 0 {
			addr = st.Node.Listen[0]
		}
		return addr != ""
	})
	return addr
}

func freePort(ts *testscript.TestScript) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (s *story) on(ts *testscript.TestScript, neg bool, args []string) {
	a := s.actor(ts, args[0])
	if len(args) == 3 && args[1] == "join" {
		args[2] = s.address(ts, s.actor(ts, args[2]))
	}
	err := ts.Exec("env", append([]string{"NO_COLOR=1", "P2PNODE_DATA=" + a.Dir, s.fleet.Bin}, args[1:]...)...)
	if (err != nil) != neg {
		ts.Fatalf("on %s: %v\n%s%s", strings.Join(args, " "), err, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
	}
}

// exits runs the binary with a data folder of its own that no daemon uses.
func (s *story) exits(ts *testscript.TestScript, _ bool, args []string) {
	s.exitsIn(ts, filepath.Join(s.fleet.Dir, "empty"), args)
}

func (s *story) exitsOn(ts *testscript.TestScript, _ bool, args []string) {
	s.exitsIn(ts, s.actor(ts, args[0]).Dir, args[1:])
}

func (s *story) exitsIn(ts *testscript.TestScript, dir string, args []string) {
	want, rest := args[0], args[1:]
	if len(rest) > 0 && rest[0] == "--" {
		rest = rest[1:]
	}
	// The code must come through: testscript only knows good and bad.
	line := []string{"-c", `"$0" "$@"; echo $? >"$CODE"`, s.fleet.Bin}
	code := filepath.Join(s.fleet.Dir, "code")
	argv := append([]string{"CODE=" + code, "NO_COLOR=1", "P2PNODE_DATA=" + dir, "timeout", "20", "sh"}, append(line, rest...)...)
	ts.Check(ts.Exec("env", argv...))
	if got := strings.TrimSpace(ts.ReadFile(code)); got != want {
		ts.Fatalf("p2pnode %s: exit %s, want %s\n%s", strings.Join(rest, " "), got, want, ts.ReadFile("stderr"))
	}
}

// follows interrupts a command that has no end.
func (s *story) follows(ts *testscript.TestScript, _ bool, args []string) {
	a := s.actor(ts, args[0])
	err := ts.Exec("env", append([]string{"NO_COLOR=1", "P2PNODE_DATA=" + a.Dir, "timeout", "-s", "INT", args[1], s.fleet.Bin}, args[2:]...)...)
	if e, ok := errors.AsType[*exec.ExitError](err); !ok || e.ExitCode() != 124 {
		ts.Fatalf("%q ended by itself: %v\n%s", args, err, ts.ReadFile("stderr"))
	}
}

func (a *actor) ask() int {
	pid, _ := strconv.Atoi(host.Get(fmt.Sprintf("http://127.0.0.1:%d/", a.port)))
	return pid
}

func (s *story) answers(ts *testscript.TestScript, a *actor, _ []string) {
	must(ts, 15*time.Second, "web of "+a.Name+" answers", func() bool { a.web = a.ask(); return a.web != 0 })
}

func (s *story) silent(ts *testscript.TestScript, a *actor, _ []string) {
	must(ts, 2*time.Second, "web of "+a.Name+" does not answer", func() bool { return a.ask() == 0 })
}

func (s *story) same(ts *testscript.TestScript, a *actor, _ []string) {
	if pid := a.ask(); pid == 0 || pid != a.web {
		ts.Fatalf("web of %s was %d and is %d", a.Name, a.web, pid)
	}
}

func (s *story) other(ts *testscript.TestScript, a *actor, _ []string) {
	old := a.web
	must(ts, 20*time.Second, fmt.Sprintf("another web than %d answers on %s", old, a.Name), func() bool {
		a.web = a.ask()
		return a.web != 0 && a.web != old
	})
}

func (s *story) pid(ts *testscript.TestScript, a *actor, what string) (pid int, class p2pnode.Class) {
	switch what {
	case "web":
		return a.web, p2pnode.ClassSignalled
	case p2pnode.SelfNode, p2pnode.SelfDoor:
		return a.Role(what[1:]), p2pnode.ClassProcessDead
	case p2pnode.SelfExec:
		return a.Exec(), p2pnode.ClassExecDead
	}
	var d p2pnode.PSDoc
	a.JSON(&d, "ps")
	for _, one := range d.Services {
		if one.Name == what && one.PID != 0 {
			return one.PID, p2pnode.ClassSignalled
		}
	}
	ts.Fatalf("what is %s?", what)
	return 0, ""
}

func (s *story) kill(ts *testscript.TestScript, a *actor, args []string) {
	pid, class := s.pid(ts, a, args[0])
	if args[0] == p2pnode.SelfExec {
		a.exec = pid
	}
	a.Kill(args[0], class, pid)
}

func (s *story) back(ts *testscript.TestScript, a *actor, _ []string) {
	must(ts, 10*time.Second, "another exec runs on "+a.Name, func() bool {
		var d p2pnode.PSDoc
		pid := a.Exec()
		return pid != 0 && pid != a.exec && a.JSON(&d, "ps") && len(d.Services) > 0 && d.Services[0].State == p2pnode.StateUp
	})
}

func (s *story) freeze(ts *testscript.TestScript, a *actor, args []string) {
	pid, _ := s.pid(ts, a, args[0])
	a.Fault(args[0], p2pnode.ClassFrozen, pid)
	ts.Check(syscall.Kill(pid, syscall.SIGSTOP))
	a.frozen = pid
}

func (s *story) thaw(ts *testscript.TestScript, a *actor, _ []string) {
	ts.Check(syscall.Kill(a.frozen, syscall.SIGCONT))
}

func (s *story) deadlock(ts *testscript.TestScript, a *actor, _ []string) {
	a.Fault("web", p2pnode.ClassHung, a.web)
	ts.Check(syscall.Kill(a.web, syscall.SIGUSR1))
}

func (s *story) copies(ts *testscript.TestScript, a *actor, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	for _, pid := range s.fleet.Processes(strconv.Itoa(a.port)) {
		if argv, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && strings.HasPrefix(string(argv), s.victim+"\x00") {
			got++
		}
	}
	if got != want {
		ts.Fatalf("%d copies of web on %s, want %d", got, a.Name, want)
	}
}

func (s *story) gone(_ *testscript.TestScript, a *actor, _ []string) { a.Gone() }

func (s *story) sees(ts *testscript.TestScript, a *actor, args []string) {
	for _, name := range args[1:] {
		must(ts, 20*time.Second, fmt.Sprintf("%s sees %s %s", a.Name, name, args[0]), func() bool {
			nodes := a.Nodes()
			n, listed := nodes[name]
			return len(nodes) > 0 && (string(n.Verdict) == args[0] || !listed && args[0] == "unlisted")
		})
	}
}

func (s *story) route(ts *testscript.TestScript, a *actor, args []string) {
	must(ts, 10*time.Second, fmt.Sprintf("%s knows a way from %s to %s", a.Name, args[0], args[1]), func() bool {
		var p p2pnode.PathDoc
		return a.JSON(&p, "path", args[0], args[1]) && len(p.Hops) > 1
	})
}

func service(s string) string {
	if s == p2pnode.SelfNode {
		return ""
	}
	return s
}

func (s *story) story(ts *testscript.TestScript, a *actor, args []string) {
	var last p2pnode.Incident
	defer func() {
		if last.ID != "" {
			ts.Logf("%s: %s %s by %+v hops %d trail %v %+v", last.ID, last.Class, last.State, last.By, last.Hops, last.Trail, last.Timing)
		}
	}()
	ok := host.Eventually(25*time.Second, func() bool {
		_, found := a.Incident(args[0], service(args[1]), func(i p2pnode.Incident) bool {
			last = i
			for _, want := range args[2:] {
				if !matches(i, want) {
					return false
				}
			}
			return true
		})
		return found
	})
	if !ok {
		ts.Fatalf("%s knows no story of %s %s with %v; last %+v", a.Name, args[0], args[1], args[2:], last)
	}
}

func matches(i p2pnode.Incident, want string) bool {
	key, value, _ := strings.Cut(want, "=")
	switch key {
	case "by":
		return string(i.By.Kind) == value
	case "at":
		return i.By.Node == value
	case "notat":
		return i.By.Node != value
	case "hops":
		return strconv.Itoa(i.Hops) == value
	case "minhops":
		n, _ := strconv.Atoi(value)
		return i.Hops >= n
	case "class":
		return string(i.Class) == value
	case "state":
		return string(i.State) == value
	case "count":
		return strconv.Itoa(i.Count) == value
	case "held":
		return string(i.Held) == value
	case "fallback":
		return strconv.FormatBool(i.By.Fallback) == value
	case "verified":
		return strconv.FormatBool(!i.VerifiedAt.IsZero()) == value
	}
	return false
}

func (s *story) quotes(ts *testscript.TestScript, a *actor, args []string) {
	must(ts, 15*time.Second, fmt.Sprintf("%s reads %q in a story of %s", a.Name, args[2], args[0]), func() bool {
		_, ok := a.Incident(args[0], service(args[1]), func(i p2pnode.Incident) bool {
			return i.Excerpt != nil && strings.Contains(strings.Join(i.Excerpt.Lines, "\n"), args[2])
		})
		return ok
	})
}

func (s *story) tells(ts *testscript.TestScript, a *actor, args []string) {
	var said string
	must(ts, 15*time.Second, fmt.Sprintf("%s tells %q of %s", a.Name, args[2], args[0]), func() bool {
		i, ok := a.Incident(args[0], service(args[1]), func(p2pnode.Incident) bool { return true })
		if ok {
			said = a.OK("incidents", "show", i.ID)
		}
		return strings.Contains(said, args[2])
	})
}

func (s *story) noted(ts *testscript.TestScript, a *actor, args []string) {
	must(ts, 15*time.Second, fmt.Sprintf("%s notes %q", a.Name, args[0]), func() bool {
		raw, _ := os.ReadFile(a.Dir + ".notices")
		return strings.Contains(string(raw), args[0])
	})
}

// trusts says on a that its cluster is the right one.
func (s *story) trusts(ts *testscript.TestScript, a *actor, _ []string) {
	var st p2pnode.StatusDoc
	if !a.JSON(&st, "status") || st.Cluster == nil {
		ts.Fatalf("%s does not say which cluster it is in", a.Name)
	}
	a.OK("trust", st.Cluster.ID)
}

// audited waits for a line of a's audit log that holds all of args.
func (s *story) audited(ts *testscript.TestScript, a *actor, args []string) {
	must(ts, 15*time.Second, fmt.Sprintf("the audit log of %s has a line with %q", a.Name, args), func() bool { return a.auditLine(args) != "" })
}

// unaudited wants no such line.
func (s *story) unaudited(ts *testscript.TestScript, a *actor, args []string) {
	if line := a.auditLine(args); line != "" {
		ts.Fatalf("the audit log of %s has %s", a.Name, line)
	}
}

func (a *actor) auditLine(parts []string) string {
	raw, _ := os.ReadFile(filepath.Join(a.Dir, "audit.log"))
	for line := range strings.Lines(string(raw)) {
		if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(line, part) }) {
			return line
		}
	}
	return ""
}

func (s *story) judge(_ *testscript.TestScript, _ bool, gone []string) {
	s.judged = true
	for _, v := range s.fleet.Violations(history.Options{EndView: true, Gone: gone}, 20*time.Second) {
		s.t.Errorf("history: %s", v)
	}
}
