package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/bin"
	"p2pnode/test/history"
	"p2pnode/test/host"
)

// Two victims on one ledger: the second one says so, in the words that the judge
// reads.
func TestLedgerTellsASecondCopy(t *testing.T) {
	victim := bin.Victim(t)
	ledger := filepath.Join(t.TempDir(), "web.ledger")
	lines := func() []string {
		raw, _ := os.ReadFile(ledger)
		return strings.Split(strings.TrimRight(string(raw), "\n"), "\n")
	}
	start := func(n int) *exec.Cmd {
		cmd := exec.Command(victim, "-ledger", ledger)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		if !host.Eventually(5*time.Second, func() bool { return len(lines()) == n && lines()[n-1] != "" }) {
			t.Fatalf("start %d is not in the ledger: %q", n, lines())
		}
		return cmd
	}
	one := start(1)
	two := start(2)
	for _, cmd := range []*exec.Cmd{one, two} {
		cmd.Process.Kill()
		cmd.Wait()
	}
	start(3)
	got := lines()
	for i, second := range []bool{false, true, false} {
		if strings.HasSuffix(got[i], " second") != second {
			t.Errorf("start %d: %q", i+1, got[i])
		}
	}
}

// What the victims wrote is held against what exec says: each lie is a violation.
func TestLedgersAreJudged(t *testing.T) {
	at := time.Now()
	started := p2pnode.HistoryEvent{At: at, Event: p2pnode.HistStarted, Node: "a", Service: "web", PID: 7}
	killed := p2pnode.HistoryEvent{At: at.Add(time.Second), Proc: history.Harness, Event: p2pnode.HistFault, Target: "a", Class: p2pnode.ClassUnreachable}
	for _, c := range []struct {
		what, ledger string
		events       []p2pnode.HistoryEvent
		want         int
	}{
		{"as it should be", fmt.Sprintf("7 %d", at.UnixNano()), []p2pnode.HistoryEvent{started}, 0},
		{"a second copy", fmt.Sprintf("7 %d second", at.UnixNano()), []p2pnode.HistoryEvent{started}, 1},
		{"a start that exec does not know", fmt.Sprintf("8 %d", at.UnixNano()), []p2pnode.HistoryEvent{started}, 1},
		{"the right pid, long after", fmt.Sprintf("7 %d", at.Add(time.Minute).UnixNano()), []p2pnode.HistoryEvent{started}, 1},
		{"exec was killed before it could say so", fmt.Sprintf("8 %d", at.UnixNano()), []p2pnode.HistoryEvent{started, killed}, 0},
		{"a torn line", "7", []p2pnode.HistoryEvent{started}, 1},
	} {
		f := &Fleet{t: t}
		f.judgeStart(c.events, "a", "web", strings.Fields(c.ledger))
		if len(f.violations) != c.want {
			t.Errorf("%s: %q", c.what, f.violations)
		}
	}
}

// Availability is the time that a service answered, of the time that its container
// ran; below 99 % is a violation, but for a second of each start of the container.
func TestAvailabilityIsJudged(t *testing.T) {
	for _, c := range []struct{ downMS, starts, want int }{{0, 0, 0}, {90, 0, 0}, {110, 0, 1}, {1090, 1, 0}, {1110, 1, 1}, {2090, 2, 0}} {
		f := &Fleet{t: t}
		b := &Box{Name: "a", fleet: f, starts: c.starts}
		p := &prober{box: b, service: "web"}
		b.probers = []*prober{p}
		f.boxes = []*Box{b}
		began := time.Now()
		down := time.Duration(c.downMS) * time.Millisecond
		p.count(7, began, began.Add(10*time.Second-down))
		p.count(0, began.Add(10*time.Second-down), began.Add(10*time.Second))
		f.judgeAvailability()
		if len(f.violations) != c.want {
			t.Errorf("down %v of 10 s, %d starts: %q", down, c.starts, f.violations)
		}
	}
}

// A mission that was watching when the whole fleet was killed owes no word; one that
// had acted does, and so does one of another time.
func TestWhatDiedWithTheFleetIsForgiven(t *testing.T) {
	killed := time.Unix(1_700_000_000, 0)
	f := &Fleet{fleetDead: []span{{killed, killed.Add(time.Second)}}}
	for name, c := range map[string]struct {
		before time.Duration
		op     string
		want   bool
	}{
		"it was watching":   {2 * time.Second, "", true},
		"it had acted":      {2 * time.Second, "i-1/0/0", false},
		"another had acted": {2 * time.Second, "i-2/0/0", true},
		"long before":       {time.Minute, "", false},
	} {
		claim := p2pnode.HistoryEvent{At: killed.Add(-c.before), Node: "a", Event: p2pnode.HistClaimed, Target: "d", Incident: "i-1"}
		events := []p2pnode.HistoryEvent{claim, {At: claim.At, Node: "d", Event: p2pnode.HistStarted, Op: c.op}}
		if got := f.diedWithAll(history.Violation{Rule: "missions-told", At: claim.At, Node: "a"}, events); got != c.want {
			t.Errorf("%s: forgiven %v", name, got)
		}
	}
}
