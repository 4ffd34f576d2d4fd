package bench

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/score"

	"golang.org/x/sys/unix"
)

// idleFor is how long an idle supervisor is watched, after as long to calm down.
const idleFor = 20 * time.Second

func idle(b *testing.B, s *supervisor, ts []*target) []score.IdleCost {
	b.Helper()
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
	bare := bareQuestions(b, ts)
	for i := range out {
		out[i].Bare = bare
	}
	return out
}

// bareQuestions is what it costs, in ms/s, to put an http question to each of ts once a
// second with the system calls alone: five of them, one thread that sleeps between.
func bareQuestions(b *testing.B, ts []*target) float64 {
	b.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	self := func() time.Duration { return onCore(fmt.Sprintf("/proc/self/task/%d", unix.Gettid())) }
	question, answer := []byte("GET / HTTP/1.0\r\n\r\n"), make([]byte, 4096)
	began, before := time.Now(), self()
	for time.Since(began) < idleFor {
		for _, t := range ts {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				b.Fatal(err)
			}
			err = unix.Connect(fd, &unix.SockaddrInet4{Port: t.port, Addr: [4]byte{127, 0, 0, 1}})
			if err == nil {
				_, err = unix.Write(fd, question)
			}
			n := 0
			if err == nil {
				n, err = unix.Read(fd, answer)
			}
			unix.Close(fd)
			if err != nil || n == 0 {
				b.Fatalf("a bare question to %s: %d bytes, %v", t.name, n, err)
			}
		}
		wait := unix.NsecToTimespec(int64(time.Second))
		unix.Nanosleep(&wait, nil)
	}
	return p2pnode.Milliseconds(self()-before) / time.Since(began).Seconds()
}

// ran is how long the threads of pids were on a core.
func ran(pids []int) (sum time.Duration) {
	for _, pid := range pids {
		dir := fmt.Sprintf("/proc/%d/task", pid)
		tasks, _ := os.ReadDir(dir)
		for _, t := range tasks {
			sum += onCore(dir + "/" + t.Name())
		}
	}
	return sum
}

// onCore is how long a thread was on a core; task is its folder in /proc.
func onCore(task string) time.Duration {
	raw, _ := os.ReadFile(task + "/schedstat")
	f := strings.Fields(string(raw))
	if len(f) == 0 {
		return 0
	}
	ns, _ := strconv.ParseInt(f[0], 10, 64)
	return time.Duration(ns)
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
