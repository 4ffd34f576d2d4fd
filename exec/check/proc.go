package check

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// maxTree bounds how many processes of a tree are looked at.
const maxTree = 4096

// clockTick is the unit of CPU times in /proc: USER_HZ is 100 on every Linux
// architecture that Go runs on.
const clockTick = 10 * time.Millisecond

// Tree is pid and its descendants, breadth first, as /proc knows them now.
func Tree(pid int) []int {
	out := []int{pid}
	for i := 0; i < len(out) && len(out) < maxTree; i++ {
		out = append(out, children(out[i])...)
	}
	return out
}

func children(pid int) (out []int) {
	tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, t := range tasks {
		raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, t.Name()))
		for f := range strings.FieldsSeq(string(raw)) {
			if child, err := strconv.Atoi(f); err == nil {
				out = append(out, child)
			}
		}
	}
	return out
}

// CPU is the user and system time that pids, and the children that they have waited
// for, have used so far; those that are gone count nothing.
func CPU(pids []int) time.Duration {
	var ticks int64
	for _, pid := range pids {
		fields, err := statFields(fmt.Sprintf("/proc/%d/", pid))
		if err != nil {
			continue
		}
		for _, field := range fields[11:15] { // utime, stime, cutime, cstime
			n, _ := strconv.ParseInt(field, 10, 64)
			ticks += n
		}
	}
	return time.Duration(ticks) * clockTick
}

// Waiting are threads that were ready to run at a moment, or ran: to each how often it
// had gone to sleep by then.
type Waiting map[int]string

// Still reports whether a thread was ready to run before, is so now, and has not slept
// in between.
func (w Waiting) Still(before Waiting) bool {
	for tid, slept := range w {
		if was, there := before[tid]; there && was == slept {
			return true
		}
	}
	return false
}

// Ran is how long the living threads of pids have been on a core, to the nanosecond
// (0 where the kernel does not count that), and which of them want one now.
func Ran(pids []int) (sum time.Duration, w Waiting) {
	w = Waiting{}
	for _, pid := range pids {
		tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		for _, t := range tasks {
			dir := fmt.Sprintf("/proc/%d/task/%s/", pid, t.Name())
			raw, _ := os.ReadFile(dir + "schedstat")
			ran, _, _ := strings.Cut(string(raw), " ")
			ns, _ := strconv.ParseInt(ran, 10, 64)
			sum += time.Duration(ns)
			tid, _ := strconv.Atoi(t.Name())
			if slept, ok := ready(dir); ok {
				w[tid] = slept
			}
		}
	}
	return sum, w
}

// ready reports whether the thread of dir is on a core or waits for one, and how often
// it has gone to sleep.
func ready(dir string) (slept string, ok bool) {
	if fields, err := statFields(dir); err != nil || fields[0] != "R" {
		return "", false
	}
	raw, err := os.ReadFile(dir + "status")
	_, rest, ok := strings.Cut(string(raw), "\nvoluntary_ctxt_switches:\t")
	slept, _, _ = strings.Cut(rest, "\n")
	return slept, ok && err == nil
}

// statFields are the fields of the stat file in dir, of a process or a thread, after
// the command's name: [0] is the state. The name may hold spaces and parentheses.
func statFields(dir string) ([]string, error) {
	raw, err := os.ReadFile(dir + "stat")
	if err != nil {
		return nil, err
	}
	return parseStat(raw)
}

func parseStat(raw []byte) ([]string, error) {
	end := bytes.LastIndexByte(raw, ')')
	if end < 0 {
		return nil, errors.New("no command name in stat")
	}
	fields := strings.Fields(string(raw[end+1:]))
	if len(fields) < 20 {
		return nil, fmt.Errorf("%d fields in stat", len(fields))
	}
	return fields, nil
}
