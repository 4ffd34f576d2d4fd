package exec

import (
	"bytes"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"p2pnode"

	"golang.org/x/sys/unix"
)

// kernelLog is /dev/kmsg from the start of exec on, where this process may read it
// and the pids in it are the ones that we see. It tells of kills for want of memory
// that no cgroup of ours counts: of the whole host, of cgroup v1. nil knows nothing.
type kernelLog struct {
	mu     sync.Mutex
	fd     int
	killed []int // pids, as the kernel names them, the newest maxKilled
}

func openKernelLog() *kernelLog {
	if !inFirstPidNamespace() {
		return nil
	}
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	if _, err := unix.Seek(fd, 0, unix.SEEK_END); err != nil {
		unix.Close(fd)
		return nil
	}
	return &kernelLog{fd: fd}
}

// inFirstPidNamespace: the kernel's own has always had this inode.
func inFirstPidNamespace() bool {
	link, err := os.Readlink("/proc/self/ns/pid")
	return err == nil && link == "pid:[4026531836]"
}

func (k *kernelLog) close() {
	if k != nil {
		unix.Close(k.fd)
	}
}

// blame adds to the end of pid that the kernel killed it for want of memory.
func (k *kernelLog) blame(pid int, exit p2pnode.Exit) p2pnode.Exit {
	if k == nil || exit.Signal != "SIGKILL" || exit.OOM {
		return exit
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.readLocked()
	exit.OOM = slices.Contains(k.killed, pid)
	k.killed = slices.DeleteFunc(k.killed, func(p int) bool { return p == pid }) // the number may come again
	return exit
}

// readLocked takes what was logged since the last look; each read is one record.
func (k *kernelLog) readLocked() {
	buf := make([]byte, maxKernelLine)
	for range maxKernelLines {
		n, err := unix.Read(k.fd, buf)
		if err == unix.EPIPE {
			continue // records were overwritten: the next read goes on behind them
		}
		if err != nil || n <= 0 {
			return
		}
		if pid := outOfMemory(buf[:n]); pid != 0 {
			k.killed = append(k.killed, pid)
			k.killed = k.killed[max(0, len(k.killed)-maxKilled):]
		}
	}
}

var oomTask = regexp.MustCompile(`,pid=([0-9]+),uid=[0-9]+$`)

// outOfMemory is the pid of a record that tells of a kill for want of memory, 0 of
// others. Only the kernel's own records count: anybody with the right to write may
// put text into the log, but not under facility 0.
func outOfMemory(record []byte) int {
	head, text, ok := bytes.Cut(record, []byte{';'})
	priority, _, _ := strings.Cut(string(head), ",")
	level, err := strconv.Atoi(priority)
	if !ok || err != nil || level > 7 {
		return 0
	}
	line, _, _ := bytes.Cut(text, []byte{'\n'})
	if !bytes.HasPrefix(line, []byte("oom-kill:")) {
		return 0
	}
	m := oomTask.FindSubmatch(line)
	if m == nil {
		return 0
	}
	pid, _ := strconv.Atoi(string(m[1]))
	return pid
}
