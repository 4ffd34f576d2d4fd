package bench

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"p2pnode"
	"p2pnode/test/score"
)

// idleFor is how long an idle supervisor is watched, after as long to calm down.
const idleFor = 20 * time.Second

func idle(s *supervisor) []score.IdleCost {
	time.Sleep(idleFor)
	groups := map[string][]int{"all": s.pids()}
	if s.more != nil {
		groups = map[string][]int{"exec": s.pids(), "exec, door, node": slices.Concat(s.pids(), s.more())}
	}
	before := map[string]time.Duration{}
	for of, pids := range groups {
		before[of] = ran(pids)
	}
	time.Sleep(idleFor)
	var out []score.IdleCost
	for of, pids := range groups {
		c := score.IdleCost{Of: of, Processes: len(pids), CPU: p2pnode.Milliseconds(ran(pids)-before[of]) / idleFor.Seconds()}
		for _, pid := range pids {
			pss, anon := memory(pid)
			c.RSS, c.PSS, c.Anonymous = c.RSS+resident(pid), c.PSS+pss, c.Anonymous+anon
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b score.IdleCost) int { return a.Processes - b.Processes })
	return out
}

// ran is how long the threads of pids were on a core.
func ran(pids []int) (sum time.Duration) {
	for _, pid := range pids {
		dir := fmt.Sprintf("/proc/%d/task", pid)
		tasks, _ := os.ReadDir(dir)
		for _, t := range tasks {
			raw, _ := os.ReadFile(dir + "/" + t.Name() + "/schedstat")
			if f := strings.Fields(string(raw)); len(f) > 0 {
				ns, _ := strconv.ParseInt(f[0], 10, 64)
				sum += time.Duration(ns)
			}
		}
	}
	return sum
}

// resident is the RSS of pid in MiB.
func resident(pid int) float64 {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	f := strings.Fields(string(raw))
	if len(f) < 2 {
		return 0
	}
	pages, _ := strconv.ParseFloat(f[1], 64)
	return pages * float64(os.Getpagesize()) / (1 << 20)
}
