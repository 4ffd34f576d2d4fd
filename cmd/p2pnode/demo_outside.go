package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// What the demo believes of a process comes from here: /proc and the ports. No
// component of p2pnode is asked.

// process names one process for good: a pid alone may be given out again.
type process struct {
	pid   int
	start uint64 // clock ticks since boot
}

// stat reads the state letter and start time of pid; ok is false where there is
// no such process.
func stat(pid int) (state byte, start uint64, ok bool) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, false
	}
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	if len(fields) < 20 {
		return 0, 0, false
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	return fields[0][0], start, err == nil
}

// running reports whether the process is there and no zombie.
func (p process) running() bool {
	state, start, ok := stat(p.pid)
	return ok && start == p.start && state != 'Z' && state != 'X'
}

// stopped reports whether the process is stopped by a signal.
func (p process) stopped() bool {
	state, start, ok := stat(p.pid)
	return ok && start == p.start && state == 'T'
}

// ticks is how many clock ticks /proc counts in a second.
const ticks = 100

// age is how long the process has been there.
func (p process) age() time.Duration {
	var up float64
	raw, _ := os.ReadFile("/proc/uptime")
	fmt.Sscan(string(raw), &up)
	return time.Duration((up - float64(p.start)/ticks) * float64(time.Second))
}

func (p process) kill(s syscall.Signal) error { return syscall.Kill(p.pid, s) }

// processes finds those whose command line fits.
func processes(fits func(argv []string) bool) []process {
	entries, _ := os.ReadDir("/proc")
	var out []process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		raw, err := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		if err != nil || len(raw) == 0 || !fits(strings.Split(strings.TrimRight(string(raw), "\x00"), "\x00")) {
			continue
		}
		p := process{pid: pid}
		if _, p.start, _ = stat(pid); p.running() {
			out = append(out, p)
		}
	}
	return out
}

// webCopies are the processes that serve the demo's web service on port.
func webCopies(port int) []process {
	want := strconv.Itoa(port)
	return processes(func(argv []string) bool {
		return len(argv) == 4 && argv[1] == "demo-web" && argv[3] == want
	})
}

// roleOf finds the door or node process of the host with this folder.
func roleOf(role, dir string) []process {
	return processes(func(argv []string) bool {
		return len(argv) > 3 && argv[1] == role && argv[2] == "--data" && argv[3] == dir
	})
}

// answer asks the web service once, on a connection of its own, and returns the
// pid that it says; 0 if no good answer comes in time.
func answer(port int, patience time.Duration) int {
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64))
	if err != nil || resp.StatusCode != http.StatusOK {
		return 0
	}
	pid, _ := strconv.Atoi(strings.TrimSpace(string(body)))
	return pid
}

// until asks cond every pause until it holds; false when the time is up.
func until(limit, pause time.Duration, cond func() bool) bool {
	deadline := time.Now().Add(limit)
	for !cond() {
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(pause)
	}
	return true
}
