package keep

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pnode"
	kept "p2pnode/exec"
	"p2pnode/manage"
	"p2pnode/test/history"
	"p2pnode/test/host"
	"p2pnode/test/score"
)

const webs = 10 // services that die; they take turns, since exec is patient with those that keep failing

// killed are services that must not notice and services that die, of each kind some
// that a launcher becomes.
func killed(victim, dir string) string {
	var b strings.Builder
	limits := func(i int) string { return map[bool]string{true: ", limits: {nofile: 512}"}[i%2 == 1] }
	for i := range steady {
		fmt.Fprintf(&b, "  steady%d: {command: [%s, -ledger, %s/steady%d, -count, 2ms]%s}\n", i, victim, dir, i, limits(i))
	}
	for i := range webs {
		fmt.Fprintf(&b, "  web%d: {command: [%s, -ledger, %s/web%d]%s}\n", i, victim, dir, i, limits(i))
	}
	return b.String()
}

// TestKills: exec, door and node process are killed, in all orders and at all
// moments, also while a service dies and while exec takes over from one that was
// killed, twenty times in a row. No service ever has two copies, those that live are
// not touched, no line is lost.
func TestKills(t *testing.T) {
	t.Parallel()
	h := New(t, killed)
	dir := h.Fleet.Dir
	var ledgers []string
	for i := range steady {
		ledgers = append(ledgers, filepath.Join(dir, fmt.Sprintf("steady%d", i)))
	}
	for i := range webs {
		ledgers = append(ledgers, filepath.Join(dir, fmt.Sprintf("web%d", i)))
	}
	h.Fleet.Must(20*time.Second, "all are up", func() bool { return len(h.pids("")) == steady+webs })
	before := h.pids("steady")
	watch := watchCopies(ledgers)

	rng, began := dice(t), time.Now()
	orders := permutations(p2pnode.SelfExec, p2pnode.SelfDoor, p2pnode.SelfNode)
	kills, inRow, rows := 0, 0, 0
	var hit stages
	for round := 0; kills < rounds(t, 60); round++ {
		var targets []string
		switch round % 5 {
		case 0: // all orders of all three, as fast as it goes
			targets = orders[round/5%len(orders)]
		case 1: // a service, and exec while it is being restarted
			targets = []string{fmt.Sprintf("web%d", rng.IntN(webs)), p2pnode.SelfExec}
		case 2:
			targets = []string{p2pnode.SelfExec, fmt.Sprintf("web%d", rng.IntN(webs)), p2pnode.SelfDoor}
		case 3:
			targets = []string{fmt.Sprintf("web%d", rng.IntN(webs)), p2pnode.SelfNode, p2pnode.SelfExec}
		}
		if targets != nil {
			kills += h.killInTurn(rng, targets)
		} else if rows*30 <= kills { // about as many kills as the others come to
			rows++
			inRow += h.killInARow(rng, ledgers[steady:], &hit)
		}
		h.recovered(round)
		if now := h.pids("steady"); !maps.Equal(now, before) {
			t.Errorf("pids were %v, now %v", before, now)
		}
		single(t, ledgers)
		if t.Failed() {
			t.Fatalf("round %d, %v", round, targets)
		}
	}
	lines, lost := 0, 0
	for name := range before {
		if n, second := starts(t, filepath.Join(dir, name)); n != 1 || second != 0 {
			t.Errorf("%s: %d starts, %d of them second copies", name, n, second)
		}
		gaps, count := h.gaps(name)
		if lines, lost = lines+count, lost+len(gaps); len(gaps) > 0 {
			t.Errorf("%s: %d lines, %d gaps: %q", name, count, len(gaps), gaps[:min(len(gaps), 5)])
		}
	}
	for i := range webs {
		if _, second := starts(t, filepath.Join(dir, fmt.Sprintf("web%d", i))); second != 0 {
			t.Errorf("web%d: %d second copies", i, second)
		}
	}
	looks := watch.end(t)
	if os.Getenv("P2PNODE_ROUNDS") != "" && rows > 0 && (hit.fresh == 0 || hit.locked+hit.adopting == 0) {
		t.Errorf("the moments were not all hit: %+v", hit)
	}
	t.Logf("%d kills and %d in a row in %d s; of those in a row %d before exec had the folder, %d before it took anything over, %d in the middle of that, %d after it",
		kills, inRow, int(time.Since(began).Seconds()), hit.fresh, hit.locked, hit.adopting, hit.adopted)
	score.Record(t, score.Figure{
		Row: "3", How: "exec, door and node process killed in all orders and at all moments",
		Text: fmt.Sprintf("0 of %d services touched, at most %d copy in %d looks, %d of %d lines lost", len(before), watch.most, looks, lost, lines),
		N:    kills + inRow, Chance: fmt.Sprintf("%d kills, %d of them of an exec in the middle of taking over", kills+inRow, hit.locked+hit.adopting), Where: "one host", Kept: !t.Failed(),
	})
	h.tellStored()
	h.Fleet.Judge(history.Options{})
}

// tellStored adds to the histories the reports that the node process has in its store
// and had no time to write a line about before it was killed.
func (h *Host) tellStored() {
	h.T.Helper()
	written, err := history.ReadFiles(h.Fleet.HistoryFile("*"))
	if err != nil {
		h.T.Fatal(err)
	}
	known := map[string]bool{}
	for _, e := range written {
		known[e.Report] = true
	}
	stored, err := p2pnode.OpenHistory(h.Fleet.HistoryFile("stored"), h.Name, "node")
	if err != nil {
		h.T.Fatal(err)
	}
	defer stored.Close()
	ctx := h.Fleet.Within(10 * time.Second)
	c, err := manage.Dial(ctx, h.Dir)
	if err != nil {
		h.T.Fatal(err)
	}
	defer c.Close()
	doc, err := c.Reports(ctx)
	if err != nil {
		h.T.Fatal(err)
	}
	n := 0
	for _, r := range doc.Reports {
		id := fmt.Sprintf("%s/%s/%d", r.Origin, r.Epoch, r.Seq)
		if known[id] {
			continue
		}
		n++
		stored.Record(p2pnode.HistoryEvent{
			At: r.At, Event: p2pnode.HistReport, Report: id, Phase: r.Phase, Incident: r.Incident, Target: h.Name,
			Service: r.Service, Class: r.Class, By: r.By, Old: r.Old, New: r.New, Agent: r.Agent,
		})
	}
	h.T.Logf("%d reports are in the store, %d of them without a line of history", len(doc.Reports), n)
}

// dice are random; SEED=N throws them again.
func dice(t *testing.T) *rand.Rand {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	t.Logf("SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// TestLastWords: what a service prints just before it dies is in the incident and in
// the log, once, also when exec is killed up to 10 ms before or after.
func TestLastWords(t *testing.T) {
	t.Parallel()
	const talkers, atOnce = 30, 3
	h := New(t, func(victim, dir string) string {
		var b strings.Builder
		for i := range talkers {
			fmt.Fprintf(&b, "  say%d: {command: [%s, -ledger, %s/say%d]}\n", i, victim, dir, i)
		}
		return b.String()
	})
	h.Fleet.Must(20*time.Second, "all are up and heed their signal", func() bool {
		for i := range talkers { // who has not signed may not: Go ignores it until then
			if raw, _ := os.ReadFile(filepath.Join(h.Fleet.Dir, fmt.Sprintf("say%d", i))); len(raw) == 0 {
				return false
			}
		}
		return len(h.pids("")) == talkers
	})
	rng := dice(t)
	told, logged := 0, 0
	n := rounds(t, talkers)
	for i := 0; i < n; i += atOnce {
		dying := min(atOnce, n-i)
		st := h.status()
		if st == nil {
			t.Fatal("exec does not answer")
		}
		execAt := time.Duration(rng.IntN(20_000)) * time.Microsecond
		h.Fault(p2pnode.SelfExec, p2pnode.ClassExecDead, st.PID)
		time.AfterFunc(execAt, func() { syscall.Kill(st.PID, syscall.SIGKILL) })
		time.Sleep(10 * time.Millisecond)
		for j := range dying {
			s := service(st, fmt.Sprintf("say%d", (i+j)%talkers))
			h.Fault(s.Name, p2pnode.ClassSignalled, s.PID)
			syscall.Kill(s.PID, syscall.SIGUSR2)
		}
		h.recovered(i)
		for j := range dying {
			name := fmt.Sprintf("say%d", (i+j)%talkers)
			word := ""
			heard := host.Eventually(20*time.Second, func() bool {
				raw, err := os.ReadFile(filepath.Join(h.Fleet.Dir, name+".word"))
				word = "last word " + string(raw)
				_, there := h.Incident("solo", name, func(i p2pnode.Incident) bool { return i.Excerpt != nil && count(i.Excerpt.Lines, word) == 1 })
				return err == nil && there
			})
			if heard {
				told++
			} else {
				inc, _ := h.Incident("solo", name, func(p2pnode.Incident) bool { return true })
				t.Errorf("%s said %q, exec killed %v after 10 ms before: %+v, %+v", name, word, execAt, inc, inc.Excerpt)
			}
			if text := h.logged(name); count(text, word) == 1 {
				logged++
			} else {
				t.Errorf("%s said %q, exec killed %v after 10 ms before; its log: %q", name, word, execAt, text)
			}
		}
		if t.Failed() {
			break
		}
	}
	score.Record(t, score.Figure{
		Row: "3", How: "a service prints a word and dies, exec is killed up to 10 ms before or after",
		Text: fmt.Sprintf("%d of %d last words are told, %d are in the log once", told, n, logged),
		N:    n, Chance: fmt.Sprintf("%d deaths, %d kills of exec", n, (n+atOnce-1)/atOnce), Where: "one host", Kept: !t.Failed(),
	})
	h.Fleet.Judge(history.Options{})
}

// count is how many of lines are line.
func count(lines []string, line string) (n int) {
	for _, l := range lines {
		if l == line {
			n++
		}
	}
	return n
}

func permutations(of ...string) (out [][]string) {
	if len(of) == 1 {
		return [][]string{of}
	}
	for i := range of {
		rest := append(append([]string{}, of[:i]...), of[i+1:]...)
		for _, p := range permutations(rest...) {
			out = append(out, append([]string{of[i]}, p...))
		}
	}
	return out
}

// killInTurn kills one after the other with up to 10 ms between them, and returns
// how many there were.
func (h *Host) killInTurn(rng *rand.Rand, targets []string) (n int) {
	st := h.status()
	if st == nil {
		h.T.Errorf("exec does not answer")
		return 0
	}
	for _, name := range targets {
		pid := map[string]int{p2pnode.SelfExec: st.PID, p2pnode.SelfDoor: st.Door.PID, p2pnode.SelfNode: st.Node.PID}[name]
		class := p2pnode.ClassProcessDead
		switch {
		case name == p2pnode.SelfExec:
			class = p2pnode.ClassExecDead
		case name[0] != '@':
			pid, class = service(st, name).PID, p2pnode.ClassSignalled
		}
		if pid <= 1 {
			continue // it is on its way back from the last round
		}
		h.Fault(name, class, pid)
		syscall.Kill(pid, syscall.SIGKILL)
		n++
		time.Sleep(time.Duration(rng.IntN(10_000)) * time.Microsecond)
	}
	return n
}

// recovered waits until all is up again. Where nobody of ours is left to start exec,
// an init would; what exec is patient with, an operator starts.
func (h *Host) recovered(round int) {
	started := time.Time{}
	ok := host.Eventually(60*time.Second, func() bool {
		if h.Exec() == 0 && h.Role("door") == 0 && h.Role("node") == 0 && time.Since(started) > 2*time.Second {
			started = time.Now()
			h.Wait()
			h.Start("--listen", "127.0.0.1:0", "--door", "127.0.0.1:0")
		}
		st := h.status()
		if st == nil {
			return false
		}
		up := st.Door.State == p2pnode.StateUp && st.Node.State == p2pnode.StateUp
		for _, s := range append(st.Services, st.Door, st.Node) {
			up = up && s.State == p2pnode.StateUp
			if time.Until(s.NextTry) > 3*time.Second {
				h.start(s.Name)
			}
		}
		return up
	})
	if !ok {
		st := h.status()
		h.T.Errorf("round %d: not up again: %+v", round, st)
	}
}

func (h *Host) start(name string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if c, err := kept.Dial(ctx, h.Dir, kept.RoleCLI); err == nil {
		c.Start(ctx, name, kept.VerbOptions{NoWait: true})
		c.Close()
	}
}
