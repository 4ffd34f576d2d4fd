package main

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// errAddrInUse is what a listener says when another socket has its port.
var errAddrInUse error = syscall.EADDRINUSE

// bareNet strips the addresses from a network error where the sentence around
// it says them already.
func bareNet(err error) error {
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return e.Err
	}
	return err
}

// startedAt is when the process pid began; zero where that cannot be seen.
func startedAt(pid int) time.Time {
	const ticks = 100 // a second, in what the kernel tells users on every architecture
	_, start, ok := stat(pid)
	var up unix.Timespec
	if !ok || unix.ClockGettime(unix.CLOCK_BOOTTIME, &up) != nil {
		return time.Time{}
	}
	age := time.Duration(up.Nano()) - time.Duration(start)*time.Second/ticks
	return time.Now().Add(-max(0, age))
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// hasTerminal reports whether this process has a controlling terminal now.
func hasTerminal() bool {
	fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// nameProcess sets what ps and top show: started from /proc/self/exe the kernel
// would call every role "exe". The file, unlike prctl, names the whole process
// from any thread.
func nameProcess(name string) { os.WriteFile("/proc/self/comm", []byte(name), 0) }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// dialUnix connects to the socket name in folder dir, also where the path is
// longer than the 107 bytes that the kernel allows.
func dialUnix(dir, name string) (net.Conn, error) {
	path := dir + "/" + name
	if len(path) <= 107 {
		return net.Dial("unix", path)
	}
	folder, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	return net.Dial("unix", fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), name))
}
