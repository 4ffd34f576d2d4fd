package script

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"p2pnode"
	"p2pnode/test/host"
)

// yaml is a configuration of the story, for host a.
func (s *story) yaml(a *actor, raw string) string {
	return strings.NewReplacer("%WEB%", strconv.Itoa(a.port), "%VICTIM%", s.victim, "%DIR%", a.Dir).Replace(raw)
}

func (s *story) configure(ts *testscript.TestScript, a *actor, args []string) {
	raw, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	a.Configure(s.yaml(a, string(raw)))
}

func (s *story) signal(ts *testscript.TestScript, a *actor, args []string) {
	pid, _ := s.pid(ts, a, args[0])
	sig := unix.SignalNum("SIG" + args[1])
	if pid == 0 || sig == 0 {
		ts.Fatalf("no signal %s to %s (pid %d)", args[1], args[0], pid)
	}
	ts.Check(syscall.Kill(pid, sig))
}

func (s *story) state(ts *testscript.TestScript, a *actor, args []string) {
	var last p2pnode.PSDoc
	ok := host.Eventually(15*time.Second, func() bool {
		if !a.JSON(&last, "ps") {
			return false
		}
		for _, svc := range last.Services {
			if svc.Name == args[0] {
				return string(svc.State) == args[1]
			}
		}
		return args[1] == "unknown"
	})
	if !ok {
		ts.Fatalf("%s on %s does not become %s: %+v", args[0], a.Name, args[1], last.Services)
	}
}

func (s *story) ends(ts *testscript.TestScript, a *actor, args []string) {
	if code := a.Wait(); fmt.Sprint(code) != args[0] {
		ts.Fatalf("%s ended with %d, want %s", a.Name, code, args[0])
	}
	must(ts, 5*time.Second, "nothing of "+a.Name+" is left", func() bool { return len(s.fleet.Processes(a.Dir)) == 0 })
}
