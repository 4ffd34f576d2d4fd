package exec

import (
	"bytes"
	"context"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"p2pnode"

	"golang.org/x/sys/unix"
)

// kernelLog is /dev/kmsg from the start of exec on, where this process may read it
// and the pids in it are the ones that we see. It tells of kills for want of memory
// that no cgroup of ours counts: of the whole host, of cgroup v1. nil knows nothing.
type kernelLog struct {
	mu     sync.Mutex
	fd     int
	killed []oomKill // the newest maxKilled
}

// oomKill is a kill for want of memory. The kernel writes two records of it, before and
// after; of many kills in a row it leaves out the first one.
type oomKill struct {
	pid  int  // as the kernel names it
	half bool // the second record is still to come
	told bool
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

// follow reads what is logged from time to time, so that no restart has to read much of
// it, until ctx ends.
func (k *kernelLog) follow(ctx context.Context) {
	if k == nil {
		return
	}
	fd, err := unix.FcntlInt(uintptr(k.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return
	}
	f := os.NewFile(uintptr(fd), "kmsg")
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	defer context.AfterFunc(ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })()
	for err == nil {
		err = raw.Read(func(uintptr) bool {
			k.mu.Lock()
			defer k.mu.Unlock()
			return k.readLocked() > 0
		})
		select {
		case <-time.After(kmsgEvery):
		case <-ctx.Done():
		}
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
	for i := range k.killed {
		if k.killed[i].pid == pid && !k.killed[i].told {
			k.killed[i].told, exit.OOM = true, true // the number may come again
		}
	}
	k.forgetLocked()
	return exit
}

// forgetLocked drops what was told, but for what has another record to come: that one
// would be taken for a kill of its own.
func (k *kernelLog) forgetLocked() {
	k.killed = slices.DeleteFunc(k.killed, func(o oomKill) bool { return o.told && !o.half })
	k.killed = k.killed[max(0, len(k.killed)-maxKilled):]
}

// readLocked takes what was logged since the last look, and says how many records.
func (k *kernelLog) readLocked() (records int) {
	buf := make([]byte, maxKernelLine)
	for records < maxKernelLines {
		n, err := unix.Read(k.fd, buf)
		if err == unix.EPIPE || err == unix.EINTR {
			continue // records were overwritten: the next read goes on behind them
		}
		if err != nil || n <= 0 {
			break
		}
		records++
		if pid, first := outOfMemory(buf[:n]); pid != 0 {
			k.noteLocked(pid, first)
		}
	}
	return records
}

func (k *kernelLog) noteLocked(pid int, first bool) {
	i := slices.IndexFunc(k.killed, func(o oomKill) bool { return o.pid == pid && o.half })
	if first || i < 0 {
		k.killed = append(k.killed, oomKill{pid: pid, half: first})
	} else {
		k.killed[i].half = false
	}
	k.forgetLocked()
}

var (
	oomTask   = regexp.MustCompile(`^oom-kill:.*,pid=([0-9]+),uid=[0-9]+$`)
	oomKilled = regexp.MustCompile(`^[^:]*[Oo]ut of memory[^:]*: Killed process ([0-9]+) \(`) // a process's name follows, which may be anything
)

// outOfMemory is the pid of a record that tells of a kill for want of memory, 0 of
// others, and whether it is the first of the two. Only the kernel's own records count:
// anybody with the right to write may put text into the log, but not under facility 0.
func outOfMemory(record []byte) (pid int, first bool) {
	head, text, ok := bytes.Cut(record, []byte{';'})
	priority, _, _ := strings.Cut(string(head), ",")
	level, err := strconv.Atoi(priority)
	if !ok || err != nil || level > 7 {
		return 0, false
	}
	line, _, _ := bytes.Cut(text, []byte{'\n'})
	m := oomTask.FindSubmatch(line)
	first = m != nil
	if m == nil {
		m = oomKilled.FindSubmatch(line)
	}
	if m == nil {
		return 0, false
	}
	pid, _ = strconv.Atoi(string(m[1]))
	return pid, first
}
