package exec

import (
	"bytes"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pnode"
)

// signer is a service that writes its pid and its signals into its ledger.
func signer(name, ledger string) p2pnode.ServiceSpec { return service(name, "part:sign", ledger) }

// signed are the lines of a ledger: a pid each, or a pid and a signal.
func signed(ledger string) []string {
	raw, _ := os.ReadFile(ledger)
	return strings.Fields(strings.ReplaceAll(string(raw), " ", "/"))
}

// signers are the processes of this host that have the ledger in their command line.
func signers(ledger string) (pids []int) {
	for _, pid := range allPIDs() {
		raw, _ := os.ReadFile(procPath(pid, "cmdline"))
		if bytes.Contains(raw, []byte("part:sign\x00"+ledger+"\x00")) && alive(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Exec is killed when it has forked a service and has not written that down, again and
// again: what it forked is the one copy, and the next exec goes on with it. Half of the
// services go through the launcher.
func TestKilledBetweenForkAndRecord(t *testing.T) {
	for _, c := range []struct {
		name      string
		door      bool
		noCgroups bool
	}{{"by all evidence", true, false}, {"by lock and cookie", false, true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			const kills, names = 10, 5 // each dies twice: a third time it would have to wait for its next life
			dir := t.TempDir()
			var specs []p2pnode.ServiceSpec
			for i := range names {
				s := signer(fmt.Sprint("web", i), filepath.Join(dir, fmt.Sprint("web", i)))
				if i%2 == 1 {
					s.Limits.NoFile = new(uint64(512))
				}
				specs = append(specs, s)
			}
			h := newHost(t, daemonConfig{Services: specs, Door: c.door, NoCgroups: c.noCgroups, SlowRecord: true})
			for _, s := range specs {
				h.await(s.Name, p2pnode.StateUp)
			}
			for n := range kills {
				web := specs[n%names]
				ledger := web.Command[2]
				lines, hold := len(signed(ledger)), filepath.Join(h.dir, "hold-record")
				if err := os.WriteFile(hold, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if n < names {
					kill9(t, h.status(web.Name).PID)
				} else if _, err := h.c.Restart(t.Context(), web.Name, VerbOptions{NoWait: true}); err != nil {
					t.Fatal(err)
				}
				var child int
				eventually(t, "the next life has begun", func() bool {
					now := signed(ledger)[lines:]
					i := slices.IndexFunc(now, func(line string) bool { return !strings.Contains(line, "/") })
					if i >= 0 {
						fmt.Sscan(now[i], &child)
					}
					return i >= 0
				})
				began := len(signed(ledger))
				guard := 0
				if c.door { // it would start an exec before the record is read, on a machine that is slow today
					guard = h.status(p2pnode.SelfDoor).PID
					syscall.Kill(guard, syscall.SIGSTOP)
				}
				h.withoutExec(func() {
					if guard != 0 {
						defer syscall.Kill(guard, syscall.SIGCONT)
					}
					st, err := openState(stateDir(h.dir), runDir(h.dir))
					if err != nil {
						t.Fatal(err)
					}
					if rec, ok := st.get(web.Name); !ok || !rec.Starting || rec.PID != 0 {
						t.Fatalf("kill %d: its record was written: %+v: this shows nothing", n, rec)
					}
					if err := os.Remove(hold); err != nil {
						t.Fatal(err)
					}
				})
				if now := h.await(web.Name, p2pnode.StateUp); now.PID != child || !now.Adopted {
					t.Fatalf("kill %d: %+v, the last exec forked %d", n, now, child)
				}
				time.Sleep(100 * time.Millisecond) // for whatever else this exec would start
				for _, s := range specs {
					if pids := signers(s.Command[2]); len(pids) != 1 || pids[0] != h.status(s.Name).PID {
						t.Fatalf("kill %d: %s runs as %v, exec says %d", n, s.Name, pids, h.status(s.Name).PID)
					}
				}
				if now := signed(ledger); len(now) != began {
					t.Fatalf("kill %d: %s went on after its life had begun: %v", n, web.Name, now[began:])
				}
			}
		})
	}
}

// A copy of the folder of an exec that works here, with the records, locks and FIFOs of
// services that run, is started beside it: it takes nothing over and signals nothing
// of the other's, not when it starts, not when it is killed and started again, and not
// when it ends. Nor does the other one, killed beside it.
func TestACopiedFolderTakesNothingOver(t *testing.T) {
	for _, noCgroups := range []bool{false, true} {
		t.Run(fmt.Sprint("without cgroups ", noCgroups), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			var specs []p2pnode.ServiceSpec
			for i := range 3 {
				specs = append(specs, signer(fmt.Sprint("web", i), filepath.Join(dir, fmt.Sprint("web", i))))
			}
			specs[1].Limits.NoFile = new(uint64(512))
			h := newHost(t, daemonConfig{Services: specs, Door: true, Node: true, NoCgroups: noCgroups})
			was := h.all()
			twin := &host{t: t, dir: filepath.Join(dir, "copy"), cfg: h.cfg}
			if out, err := osexec.Command("cp", "-a", h.dir, twin.dir).CombinedOutput(); err != nil {
				t.Fatalf("cp: %v\n%s", err, out)
			}
			twin.cfg.Dir, twin.cfg.History = twin.dir, filepath.Join(twin.dir, "history.jsonl")
			twin.start()
			t.Cleanup(twin.stop)
			apart := func(when string) {
				t.Helper()
				ours, theirs := h.all(), twin.all()
				for name, s := range ours {
					if s.PID != was[name].PID || s.Incarnation != was[name].Incarnation {
						t.Errorf("%s: %s was %+v, now %+v", when, name, was[name], s)
					}
					if other := theirs[name]; other.PID == s.PID || other.Incarnation == s.Incarnation {
						t.Errorf("%s: the copy has %s: %+v", when, name, other)
					}
				}
			}
			apart("the copy works")
			for name, s := range twin.all() {
				if s.Adopted {
					t.Errorf("the copy took over %s: %+v", name, s)
				}
			}
			if _, err := twin.c.Restart(t.Context(), "web0", VerbOptions{}); err != nil {
				t.Fatal(err)
			}
			apart("the copy restarted a service")
			twin.killExec()
			apart("the copy's exec was killed")
			h.killExec()
			apart("the first one's exec was killed")
			last := twin.all()
			if err := twin.c.Shutdown(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			twin.cmd.Wait()
			for name, s := range h.all() {
				if s.PID != was[name].PID || !alive(s.PID) {
					t.Errorf("the copy has ended: %s was %+v, now %+v", name, was[name], s)
				}
			}
			for _, s := range specs {
				lines := signed(s.Command[2])
				if pid := fmt.Sprint(was[s.Name].PID); slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, pid+"/") }) {
					t.Errorf("%s was signalled: %v", s.Name, lines)
				}
				if end := fmt.Sprint(last[s.Name].PID, "/terminated"); !slices.Contains(lines, end) {
					t.Errorf("%s of the copy was not told to end: %v: this shows nothing", s.Name, lines)
				}
				if pids := signers(s.Command[2]); len(pids) != 1 {
					t.Errorf("%s runs as %v", s.Name, pids)
				}
			}
		})
	}
}

// all are the services and roles of a host, once they are up.
func (h *host) all() map[string]p2pnode.ServiceStatus {
	h.t.Helper()
	out := map[string]p2pnode.ServiceStatus{}
	for _, s := range h.cfg.Services {
		out[s.Name] = h.await(s.Name, p2pnode.StateUp)
	}
	for name, there := range map[string]bool{p2pnode.SelfNode: h.cfg.Node, p2pnode.SelfDoor: h.cfg.Door} {
		if there {
			out[name] = h.await(name, p2pnode.StateUp)
		}
	}
	return out
}
