package keep

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"p2pnode"
	"p2pnode/test/host"
)

// inARow is how often exec is killed in a row, each time as soon as it is there.
const inARow = 20

// stages are how far those came that were killed so: whose lock the folder did not
// have yet, who had it, and who had taken over some of what runs, or all of it.
type stages struct{ fresh, locked, adopting, adopted int }

// target is a process that is to be killed.
type target struct {
	name  string
	class p2pnode.Class
	pid   int
}

// killInARow kills exec as soon as it is there again, inARow times: within 10 ms of its
// first sight, or of its lock on the folder, or of the first thing that it takes over.
// Now and then one that signed a ledger, the door or the node process dies with it,
// before or after. It returns how many were killed.
func (h *Host) killInARow(rng *rand.Rand, ledgers []string, hit *stages) (kills int) {
	next := h.execs()
	for i := range inARow {
		var targets []target
		switch n := rng.IntN(6); {
		case n == 0:
			targets = append(targets, target{p2pnode.SelfDoor, p2pnode.ClassProcessDead, h.Role("door")})
		case i == 0 && n < 4: // only now: a life of the node process that no exec has heard of yet has no name to be told by
			targets = append(targets, target{p2pnode.SelfNode, p2pnode.ClassProcessDead, h.Role("node")})
		case n == 1, n == 2:
			ledger := ledgers[rng.IntN(len(ledgers))]
			targets = append(targets, target{filepath.Base(ledger), p2pnode.ClassSignalled, last(ledger)})
		}
		exec, took := next(), h.takenSince()
		if exec == 0 {
			h.T.Errorf("the %d. time in a row: exec does not come back", i)
			return kills
		}
		targets = append(targets, target{p2pnode.SelfExec, p2pnode.ClassExecDead, exec})
		rng.Shuffle(len(targets), func(i, j int) { targets[i], targets[j] = targets[j], targets[i] })
		start := host.StartTicks(exec)
		host.Eventually(5*time.Second, func() bool { // one that finds the folder locked ends by itself
			return i%3 == 0 || i%3 == 1 && h.locked(exec) || took() > 0 || !host.Running(exec, start)
		})
		time.Sleep(time.Duration(rng.IntN(10_000)) * time.Microsecond)
		locked := h.locked(exec)
		for _, t := range targets {
			if t.pid <= 1 || !host.Running(t.pid, host.StartTicks(t.pid)) {
				continue
			}
			h.Fault(t.name, t.class, t.pid)
			syscall.Kill(t.pid, syscall.SIGKILL)
			kills++
			time.Sleep(time.Duration(rng.IntN(2_000)) * time.Microsecond)
		}
		if i == 0 {
			continue // that one had worked
		}
		switch n := took(); {
		case n == 0 && !locked:
			hit.fresh++
		case n == 0:
			hit.locked++
		case n < steady+webs:
			hit.adopting++
		default:
			hit.adopted++
		}
	}
	return kills
}

// execs returns what waits for an exec that it has not returned yet, and sees it
// within a millisecond. Where none of ours is left to start one, an init would.
func (h *Host) execs() (next func() int) {
	known, reads := map[int]bool{}, map[int]int{}
	show := func() int {
		now := map[int]int{}
		defer func() { reads = now }()
		for _, pid := range processes() {
			if now[pid] = reads[pid] + 1; known[pid] || now[pid] > 50 {
				continue // it has been looked at often enough to have become what it is
			}
			raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			argv := strings.Split(string(raw), "\x00")
			if !strings.HasSuffix(argv[0], filepath.Base(h.Binary)) {
				continue
			}
			if len(argv) > 3 && strings.HasPrefix(argv[1], "--") && bytes.Contains(raw, []byte("\x00"+h.Dir+"\x00")) {
				known[pid] = true
				return pid
			}
			now[pid] = 1 // a child of a guard bears its name until it is an exec, on a busy machine for long
		}
		return 0
	}
	return func() int {
		for began, asked := time.Now(), time.Now(); time.Since(began) < 30*time.Second; time.Sleep(time.Millisecond) {
			if pid := show(); pid != 0 {
				return pid
			}
			if time.Since(asked) < 100*time.Millisecond {
				continue
			}
			if asked = time.Now(); h.Role("door") == 0 && h.Role("node") == 0 && h.Exec() == 0 {
				h.Wait()
				h.Start("--listen", "127.0.0.1:0", "--door", "127.0.0.1:0")
			}
		}
		return 0
	}
}

// last is the pid of the last process that signed a ledger.
func last(ledger string) (pid int) {
	raw, _ := os.ReadFile(ledger)
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	fmt.Sscanf(lines[len(lines)-1], "%d", &pid)
	return pid
}

// locked reports whether pid is the last that wrote itself into the folder's lock.
func (h *Host) locked(pid int) bool {
	raw, _ := os.ReadFile(filepath.Join(h.Dir, "run", "exec.lock"))
	return strings.TrimSpace(string(raw)) == strconv.Itoa(pid)
}

// takenSince returns what counts how many processes an exec of this host has taken
// over since now.
func (h *Host) takenSince() (count func() int) {
	path, from := h.Fleet.HistoryFile(h.Name), int64(0)
	if info, err := os.Stat(path); err == nil {
		from = info.Size()
	}
	return func() int {
		f, err := os.Open(path)
		if err != nil {
			return 0
		}
		defer f.Close()
		raw, _ := io.ReadAll(io.NewSectionReader(f, from, 1<<30))
		return bytes.Count(raw, []byte(`"event":"adopted"`))
	}
}
