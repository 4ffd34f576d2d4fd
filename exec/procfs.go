package exec

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"p2pnode"
)

// stat is what exec reads of /proc/PID/stat.
type stat struct {
	pid     int
	state   byte
	ppid    int
	pgrp    int
	session int
	ticks   uint64
	exit    int // wait status of a process that ended and was not reaped; 0 also where the kernel does not tell us
}

var errStat = errors.New("unreadable process status")

func readStat(pid int) (stat, error) {
	raw, err := os.ReadFile(procPath(pid, "stat"))
	if err != nil {
		return stat{}, err
	}
	return parseStat(raw)
}

func procPath(pid int, name string) string { return "/proc/" + strconv.Itoa(pid) + "/" + name }

// parseStat reads the fields after the command, which may itself contain spaces
// and parentheses: the last one ends it.
func parseStat(raw []byte) (stat, error) {
	open, end := bytes.IndexByte(raw, '('), bytes.LastIndexByte(raw, ')')
	if open < 1 || end < open {
		return stat{}, errStat
	}
	f := strings.Fields(string(raw[end+1:]))
	if len(f) < 20 || len(f[0]) != 1 {
		return stat{}, errStat
	}
	s := stat{state: f[0][0]}
	for _, n := range []struct {
		to   *int
		from string
	}{{&s.pid, strings.TrimSpace(string(raw[:open]))}, {&s.ppid, f[1]}, {&s.pgrp, f[2]}, {&s.session, f[3]}} {
		v, err := strconv.Atoi(n.from)
		if err != nil {
			return stat{}, errStat
		}
		*n.to = v
	}
	ticks, err := strconv.ParseUint(f[19], 10, 64)
	if err != nil {
		return stat{}, errStat
	}
	s.ticks = ticks
	if len(f) > 49 {
		s.exit, _ = strconv.Atoi(f[49])
	}
	return s, nil
}

// exitOfZombie is how a process ended that its parent has not reaped yet; ticks
// says which process is meant. Old kernels keep no status in the pidfd, and an
// init that is slow to reap keeps it from there.
func exitOfZombie(pid int, ticks uint64) (p2pnode.Exit, bool) {
	st, err := readStat(pid)
	if err != nil || st.state != 'Z' || st.ticks != ticks || st.exit == 0 && !seesExit(pid) {
		return p2pnode.Exit{}, false
	}
	return exitOfStatus(syscall.WaitStatus(st.exit)), true
}

// seesExit reports whether the kernel shows us the wait status of pid: to others
// than root and the process's own user it says 0, which must not be believed.
func seesExit(pid int) bool {
	if os.Geteuid() == 0 {
		return true
	}
	raw, err := os.ReadFile(procPath(pid, "status"))
	if err != nil {
		return false
	}
	same := func(key string, id int) bool {
		_, rest, ok := strings.Cut(string(raw), "\n"+key+":\t")
		line, _, _ := strings.Cut(rest, "\n")
		for f := range strings.FieldsSeq(line) {
			ok = ok && f == strconv.Itoa(id)
		}
		return ok
	}
	return same("Uid", os.Geteuid()) && same("Gid", os.Getegid())
}

// tracerOf is the pid of the debugger of pid, 0 for none.
func tracerOf(pid int) int {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return 0
	}
	_, rest, ok := strings.Cut(string(raw), "\nTracerPid:\t")
	if !ok {
		return 0
	}
	line, _, _ := strings.Cut(rest, "\n")
	n, _ := strconv.Atoi(line)
	return n
}

// childrenOf lists the direct children of all threads of pid.
func childrenOf(pid int) []int {
	dir := "/proc/" + strconv.Itoa(pid) + "/task"
	var out []int
	for _, tid := range namesIn(dir) {
		raw, err := os.ReadFile(dir + "/" + tid + "/children")
		if err != nil {
			continue
		}
		for f := range strings.FieldsSeq(string(raw)) {
			if n, err := strconv.Atoi(f); err == nil {
				out = append(out, n)
			}
		}
	}
	return out
}

// namesIn lists a folder without asking about its entries.
func namesIn(dir string) []string {
	d, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	return names
}

// allPIDs lists all processes that /proc shows.
func allPIDs() []int {
	var out []int
	for _, n := range namesIn("/proc") {
		if pid, err := strconv.Atoi(n); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

// fileID is device and inode of a file.
type fileID struct{ dev, ino uint64 }

func idOf(info os.FileInfo) fileID {
	st := info.Sys().(*syscall.Stat_t)
	return fileID{uint64(st.Dev), st.Ino}
}

// holds reports whether pid has the file open. base is the file's last name: the
// links are read first, so that nothing else (a hanging mount) is ever touched.
func holds(pid int, id fileID, base string) bool {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	for _, n := range namesIn(dir) {
		link, err := os.Readlink(dir + "/" + n)
		if err != nil || filepath.Base(strings.TrimSuffix(link, " (deleted)")) != base {
			continue
		}
		if info, err := os.Stat(dir + "/" + n); err == nil && idOf(info) == id {
			return true
		}
	}
	return false
}

// hasEnv reports whether the environment that pid was started with contains
// entry (K=V) as a whole.
func hasEnv(pid int, entry string) bool {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return false
	}
	return bytes.HasPrefix(raw, []byte(entry+"\x00")) || bytes.Contains(raw, []byte("\x00"+entry+"\x00"))
}

func bootID() string {
	raw, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(raw))
}

func pidNamespace() string {
	link, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return fmt.Sprintf("unknown: %v", err)
	}
	return link
}
