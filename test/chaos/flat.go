package chaos

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"p2pnode"
)

// gauge is one quantity of one process, looked at from outside.
type gauge string

// What must be flat: a process that leaks one of these dies in the end.
const (
	gaugeFDs        gauge = "open descriptors"
	gaugeThreads    gauge = "threads"
	gaugeAnonymous  gauge = "anonymous KiB"
	gaugeGoroutines gauge = "goroutines" // of the node process, by its /metrics
)

// slack is what a gauge may grow, beside a quarter of what it was: faults come at
// random, and a window may hold more of them than the other.
var slack = map[gauge]float64{gaugeFDs: 16, gaugeThreads: 8, gaugeAnonymous: 6 << 10, gaugeGoroutines: 80}

const (
	gaugeEvery = time.Second
	warmUp     = 15 * time.Second // of a process's life: it is still growing into its work
)

// meter looks at every process of every container while the chaos goes on.
type meter struct {
	quit chan struct{}
	wg   sync.WaitGroup
	at   map[string]map[gauge][]reading // by container and role
}

type reading struct {
	at    time.Time
	value float64
}

func (f *Fleet) meter() *meter {
	m := &meter{quit: make(chan struct{}), at: map[string]map[gauge][]reading{}}
	m.wg.Go(func() {
		tick := time.NewTicker(gaugeEvery)
		defer tick.Stop()
		lives := map[string]life{}
		for {
			select {
			case <-m.quit:
				return
			case <-tick.C:
			}
			for _, b := range f.boxes {
				m.look(b, lives)
			}
		}
	})
	return m
}

// life is a process of a role, and since when it was seen.
type life struct {
	pid  int
	from time.Time
}

func (m *meter) look(b *Box, lives map[string]life) {
	exec, _ := b.running()
	if exec == 0 {
		return
	}
	pids := map[string]int{"exec": exec}
	for _, role := range []string{p2pnode.SelfNode, p2pnode.SelfDoor} {
		if found := b.find(role); len(found) == 1 {
			pids[role[1:]] = found[0]
		}
	}
	for role, pid := range pids {
		key, now := b.Name+"/"+role, time.Now()
		if lives[key].pid != pid {
			lives[key] = life{pid, now}
		}
		if now.Sub(lives[key].from) < warmUp {
			continue
		}
		for g, v := range gaugesOf(pid) {
			m.add(key, g, now, v)
		}
		if role == "node" {
			if n, ok := goroutines(filepath.Join(b.data, "run", "node.sock")); ok {
				m.add(key, gaugeGoroutines, now, n)
			}
		}
	}
}

func (m *meter) add(key string, g gauge, at time.Time, v float64) {
	if m.at[key] == nil {
		m.at[key] = map[gauge][]reading{}
	}
	m.at[key][g] = append(m.at[key][g], reading{at, v})
}

// gaugesOf reads what the kernel says of a process.
func gaugesOf(pid int) map[gauge]float64 {
	out := map[gauge]float64{}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return out // it has just ended
	}
	out[gaugeFDs] = float64(len(fds))
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		name, rest, _ := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		if len(fields) == 0 {
			continue
		}
		n, _ := strconv.ParseFloat(fields[0], 64)
		switch name {
		case "Threads":
			out[gaugeThreads] = n
		case "RssAnon":
			out[gaugeAnonymous] = n
		}
	}
	return out
}

// goroutines asks a node process by its operator's socket.
func goroutines(socket string) (float64, bool) {
	dir, err := os.Open(filepath.Dir(socket)) // the path may be longer than a socket's may be
	if err != nil {
		return 0, false
	}
	defer dir.Close()
	short := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(socket))
	c := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", short)
	}}}
	answer, err := c.Get("http://node/metrics")
	if err != nil {
		return 0, false
	}
	defer answer.Body.Close()
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "go_goroutines "); ok {
			n, err := strconv.ParseFloat(text, 64)
			return n, err == nil
		}
	}
	return 0, false
}

// stop ends the looking.
func (m *meter) stop() {
	close(m.quit)
	m.wg.Wait()
}

// judge compares, of each gauge of each process, the middle of the run's second
// quarter with that of its last one. It returns what grew, and prints the rest.
func (m *meter) judge(began, ended time.Time, log func(format string, args ...any)) (grew []string) {
	most := map[string]string{}
	for _, key := range sortedKeys(m.at) {
		_, role, _ := strings.Cut(key, "/")
		for _, g := range []gauge{gaugeFDs, gaugeThreads, gaugeAnonymous, gaugeGoroutines} {
			early, late, ok := ends(m.at[key][g], began, ended)
			if !ok {
				continue
			}
			if late > 1.25*early+slack[g] {
				grew = append(grew, fmt.Sprintf("%s: %s grew from %.0f to %.0f", key, g, early, late))
			}
			most[role] += fmt.Sprintf(" %s %.0f>%.0f", g, early, late)
		}
		if most[role] != "" {
			log("  flat %-8s%s", key, most[role])
			delete(most, role)
		}
	}
	return grew
}

// ends are the medians of the second and the last quarter; ok is false where one of
// them has too little to say something.
func ends(all []reading, began, ended time.Time) (early, late float64, ok bool) {
	quarter := ended.Sub(began) / 4
	median := func(from, to time.Time) (float64, bool) {
		var vs []float64
		for _, r := range all {
			if !r.at.Before(from) && r.at.Before(to) {
				vs = append(vs, r.value)
			}
		}
		if len(vs) < 3 {
			return 0, false
		}
		slices.Sort(vs)
		return vs[len(vs)/2], true
	}
	early, ok1 := median(began.Add(quarter), began.Add(2*quarter))
	late, ok2 := median(began.Add(3*quarter), ended.Add(time.Second))
	return early, late, ok1 && ok2
}

func sortedKeys[V any](m map[string]V) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
