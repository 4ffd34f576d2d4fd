// Package sim runs whole fleets in one process: real nodes (node.New, with the
// real overlay, memberlist, agents, store, signatures) in a testing/synctest
// bubble, over a network in memory and machines whose processes are simulated.
//
// Only node.Env is replaced. A simulated machine keeps the promises of exec that
// the rest relies on (compare-and-set, single flight, `by` from the caller's
// connection, its own fallback after the grace), and writes the history lines
// that exec would write, so that the offline checker judges a simulated run by
// the same rules as a real one.
//
// Read next: machine.go, then sim_test.go.
package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"p2pnode"
	"p2pnode/test/bubble"
	"p2pnode/test/history"
	"p2pnode/test/memnet"
)

// World is one simulated fleet. Its methods run inside the bubble.
type World struct {
	T        testing.TB
	Net      *memnet.Net
	Machines []*Machine
	Grace    p2pnode.Grace
	dir      string
	rng      *rand.Rand
	harness  *p2pnode.History
	latency  time.Duration
	noPush   bool
	ctx      context.Context
	gone     []string // killed for good
}

// Options of a run.
type Options struct {
	Seed    uint64
	Nodes   int
	Latency time.Duration
	Loss    float64
	Grace   p2pnode.Grace
	// Deny keeps links away: it returns the names that node i refuses.
	Deny func(i int) []string
	// NoPush: reports spread by anti-entropy alone.
	NoPush bool
}

// Run builds a fleet of o.Nodes, waits until all see all, hands it to story and
// judges the histories at the end. gone names what story killed for good.
func Run(t *testing.T, o Options, story func(w *World), gone ...string) {
	t.Helper()
	dir := t.TempDir()
	bubble.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		w := &World{
			T: t, Net: memnet.New(o.Seed, o.Latency, o.Loss), Grace: o.Grace, dir: dir, ctx: ctx, latency: o.Latency, noPush: o.NoPush,
			rng: rand.New(rand.NewPCG(o.Seed, 1)),
		}
		var err error
		if w.harness, err = p2pnode.OpenHistory(w.historyFile("harness"), "", history.Harness); err != nil {
			t.Fatal(err)
		}
		defer w.harness.Close()
		defer w.stop(cancel)
		w.build(o)
		w.Must(60*time.Second, "all see all alive", func() bool { return w.OneView() })
		story(w)
		w.judge(append(w.gone, gone...))
	})
}

func (w *World) historyFile(name string) string { return filepath.Join(w.dir, name+".history.jsonl") }

func (w *World) build(o Options) {
	for i := range o.Nodes {
		m := w.add()
		if o.Deny != nil {
			m.deny = o.Deny(i)
		}
		if i > 0 {
			m.join = []string{w.Machines[w.rng.IntN(i)].address()}
			if len(m.deny) > 0 {
				m.join = []string{w.Machines[i-1].address()}
			}
		}
		m.boot()
	}
}

// add is one more machine; nothing runs on it yet.
func (w *World) add() *Machine {
	i := len(w.Machines)
	addr := netip.AddrFrom4([4]byte{10, 0, byte(i / 250), byte(i%250 + 1)})
	m := newMachine(w, fmt.Sprintf("n%02d", i), w.Net.Host(addr))
	w.Machines = append(w.Machines, m)
	return m
}

// stop ends every machine in good order and waits for what they started.
func (w *World) stop(cancel context.CancelFunc) {
	for _, m := range w.Machines {
		if !m.gone() {
			m.halt()
		}
	}
	cancel()
	// memberlist does not wait for its goroutines: let them notice.
	time.Sleep(time.Minute)
	synctest.Wait()
}

// Must waits, in simulated time, until cond holds.
func (w *World) Must(limit time.Duration, what string, cond func() bool) time.Duration {
	w.T.Helper()
	began := time.Now()
	for !cond() {
		if time.Since(began) > limit {
			for _, m := range w.Machines {
				w.T.Logf("%s: %.1500s", m.name, m.describe())
			}
			w.keep()
			w.T.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return time.Since(began)
}

// keep saves the histories of a failed run where KEEP_HISTORY says.
func (w *World) keep() {
	dir := os.Getenv("KEEP_HISTORY")
	if dir == "" {
		return
	}
	files, _ := filepath.Glob(w.historyFile("*"))
	for _, f := range files {
		if raw, err := os.ReadFile(f); err == nil {
			os.WriteFile(filepath.Join(dir, filepath.Base(f)), raw, 0o600)
		}
	}
}

// Fault writes down a fault before it is made.
func (w *World) Fault(m *Machine, service string, class p2pnode.Class) {
	w.harness.Record(p2pnode.HistoryEvent{Event: p2pnode.HistFault, Target: m.name, Service: service, Class: class})
}

// CutOff writes down that machines are about to be separated: nothing on them
// breaks.
func (w *World) CutOff(ms ...*Machine) {
	for _, m := range ms {
		w.harness.Record(p2pnode.HistoryEvent{Event: p2pnode.HistFault, Target: m.name, Class: p2pnode.ClassUnreachable, Reason: history.Cut})
	}
}

// named finds a machine.
func (w *World) named(name string) *Machine {
	for _, m := range w.Machines {
		if m.name == name {
			return m
		}
	}
	return nil
}

// OneView reports whether every running node believes every running machine
// alive.
func (w *World) OneView() bool {
	for _, m := range w.Machines {
		if m.gone() {
			continue
		}
		view := m.verdicts()
		for _, other := range w.Machines {
			if !other.gone() && view[other.name] != p2pnode.Alive {
				return false
			}
		}
	}
	return true
}

// restPatience is how long a fleet may take, in simulated time, to come to rest.
const restPatience = time.Minute

func (w *World) judge(gone []string) {
	began := time.Now()
	for {
		events, err := history.ReadFiles(w.historyFile("*"))
		if err != nil {
			w.T.Fatal(err)
		}
		broken := history.Check(events, history.Options{EndView: true, Gone: gone})
		if len(broken) > 0 && history.MaySettle(broken) && time.Since(began) < restPatience {
			time.Sleep(time.Second)
			continue
		}
		for _, v := range broken {
			w.T.Errorf("history: %s", v)
		}
		if len(broken) > 0 {
			w.keep()
		}
		w.T.Logf("history: %d lines judged", len(events))
		return
	}
}

// addrs are the machines' addresses.
func addrs(ms []*Machine) []netip.Addr {
	out := make([]netip.Addr, 0, len(ms))
	for _, m := range ms {
		out = append(out, m.host.Addr)
	}
	return out
}
