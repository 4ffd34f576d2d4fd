package keep

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"p2pnode/test/host"
)

// watcher counts copies from outside. Each millisecond it looks how many of those that
// signed a ledger live; each fiftieth time it goes through all processes and counts
// those that have the ledger in their command line, signed or not.
type watcher struct {
	ledgers    []*signed
	began      time.Time
	stop, done chan struct{}

	looks, sweeps int
	most          int
	longest       time.Duration // from one look to the next
}

// signed is a ledger, how far it is read, and who of those in it lives.
type signed struct {
	path   string
	read   int64
	living map[int]uint64 // start ticks by pid
}

// sweepEvery is how many looks there are for one through all processes.
const sweepEvery = 50

func watchCopies(ledgers []string) *watcher {
	w := &watcher{began: time.Now(), stop: make(chan struct{}), done: make(chan struct{})}
	for _, path := range ledgers {
		w.ledgers = append(w.ledgers, &signed{path: path, living: map[int]uint64{}})
	}
	go w.watch(ledgers)
	return w
}

func (w *watcher) watch(ledgers []string) {
	defer close(w.done)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for last := time.Now(); ; {
		select {
		case <-w.stop:
			return
		case <-tick.C:
		}
		now := time.Now()
		w.longest, last = max(w.longest, now.Sub(last)), now
		for _, s := range w.ledgers {
			w.most = max(w.most, s.look())
		}
		if w.looks++; w.looks%sweepEvery == 0 {
			w.sweeps++
			for _, pids := range running(ledgers) {
				w.most = max(w.most, len(pids))
			}
		}
	}
}

// look is how many of those that signed live. All of them did when the ledger was
// read, which is before any of them is looked at: two that are counted lived at once.
func (s *signed) look() int {
	if info, err := os.Stat(s.path); err == nil && info.Size() > s.read {
		raw, _ := os.ReadFile(s.path)
		whole := raw[:bytes.LastIndexByte(raw, '\n')+1]
		for line := range bytes.Lines(whole[min(int(s.read), len(whole)):]) {
			pid, _, _ := bytes.Cut(line, []byte(" "))
			if p, err := strconv.Atoi(string(pid)); err == nil {
				s.living[p] = host.StartTicks(p)
			}
		}
		s.read = int64(len(whole))
	}
	for pid, ticks := range s.living {
		if !host.Running(pid, ticks) {
			delete(s.living, pid)
		}
	}
	return len(s.living)
}

// end stops the watching and fails the test where there was more than one copy, or
// where the looks were too few to tell. It returns how many there were.
func (w *watcher) end(t testing.TB) (looks int) {
	t.Helper()
	close(w.stop)
	<-w.done
	took := time.Since(w.began)
	t.Logf("%d looks in %v, the longest time between two %v, %d sweeps: at most %d copies of %d services",
		w.looks, took.Round(time.Second), w.longest.Round(time.Millisecond), w.sweeps, w.most, len(w.ledgers))
	if w.most != 1 {
		t.Errorf("%d copies at once", w.most)
	}
	if w.looks < min(1000, int(took/(50*time.Millisecond))) {
		t.Errorf("%d looks in %v: this shows nothing", w.looks, took)
	}
	return w.looks
}

// running are, of each ledger, the pids of the processes with it in their command
// line. All that are returned lived at one moment: between the two times that each
// was looked at.
func running(ledgers []string) map[string][]int {
	type seen struct {
		ledger string
		ticks  uint64
	}
	found := map[int]seen{}
	for _, pid := range processes() {
		raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		argv := bytes.Split(raw, []byte{0})
		if i := slices.IndexFunc(argv, func(arg []byte) bool { return string(arg) == "-ledger" }); i > 0 && i+1 < len(argv) && slices.Contains(ledgers, string(argv[i+1])) {
			found[pid] = seen{string(argv[i+1]), host.StartTicks(pid)}
		}
	}
	out := map[string][]int{}
	for pid, s := range found {
		if host.Running(pid, s.ticks) {
			out[s.ledger] = append(out[s.ledger], pid)
		}
	}
	return out
}

// single fails the test unless each service runs exactly once.
func single(t testing.TB, ledgers []string) {
	t.Helper()
	now := running(ledgers)
	for _, l := range ledgers {
		if len(now[l]) != 1 {
			t.Errorf("%s runs as %v", filepath.Base(l), now[l])
		}
	}
}

// processes are the pids of this host.
func processes() (pids []int) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer proc.Close()
	names, _ := proc.Readdirnames(-1)
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}
