package exec

import (
	"encoding/json"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"p2pnode"
	"p2pnode/exec/check"

	"golang.org/x/sys/unix"
)

// usedUntil is the CPU time that a kid had used at some moment; zero: at its start.
type usedUntil struct {
	pid int
	cpu time.Duration
	at  time.Time
}

// usageEvery is the least time over which a share of a core is told: shorter ones
// are noise, since the kernel counts in ticks of 10 ms.
const usageEvery = time.Second

// usage looks at the trees of all children, beside the loop: nothing is looked at
// unless somebody asks.
func (ss *session) usage(json.RawMessage) (any, error) {
	r := ss.r
	since := map[string]usedUntil{}
	if err := r.ask(func() {
		for s := range r.policy.all {
			if k := r.kids[s.spec.Name]; k != nil && s.phase == running && s.pid != 0 {
				if k.used.pid != s.pid {
					k.used = usedUntil{pid: s.pid, at: s.startedAt}
				}
				since[s.spec.Name] = k.used
			}
		}
	}); err != nil {
		return nil, err
	}
	out, now := map[string]p2pnode.Usage{}, map[string]usedUntil{}
	for name, was := range since {
		tree := check.Tree(was.pid)
		is := usedUntil{pid: was.pid, cpu: check.CPU(tree), at: time.Now()}
		out[name], now[name] = usageOf(tree, was, is), is
	}
	out[p2pnode.SelfExec] = usageOf([]int{os.Getpid()}, usedUntil{at: r.began}, usedUntil{cpu: ownCPU(), at: time.Now()})
	return out, r.ask(func() {
		for name, is := range now {
			if k := r.kids[name]; k != nil && k.used.pid == is.pid && is.at.Sub(k.used.at) >= usageEvery {
				k.used = is
			}
		}
	})
}

func usageOf(pids []int, was, is usedUntil) p2pnode.Usage {
	u := p2pnode.Usage{CPUMS: is.cpu.Milliseconds(), Memory: memoryOf(pids), Processes: len(pids)}
	if elapsed := is.at.Sub(was.at); elapsed > 0 && is.cpu > was.cpu {
		u.CPUPercent = math.Round(1000*float64(is.cpu-was.cpu)/float64(elapsed)) / 10
	}
	return u
}

// ownCPU leaves out the children, whose time exec has waited for too.
func ownCPU() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// memoryOf is the resident memory of pids: what is private to each, and of what
// they share (a database's buffers) the largest part, once. /proc/PID/smaps would
// tell it exactly and stop a large process while it counts.
func memoryOf(pids []int) (bytes uint64) {
	var shared uint64
	for _, pid := range pids {
		raw, err := os.ReadFile(procPath(pid, "statm"))
		f := strings.Fields(string(raw))
		if err != nil || len(f) < 3 {
			continue
		}
		resident, _ := strconv.ParseUint(f[1], 10, 64)
		common, _ := strconv.ParseUint(f[2], 10, 64)
		bytes += resident - min(common, resident)
		shared = max(shared, common)
	}
	return (bytes + shared) * uint64(os.Getpagesize())
}
