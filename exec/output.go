package exec

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"p2pnode"
	"p2pnode/exec/disk"
	"p2pnode/exec/logs"
)

// outputOf is the file that a service writes by itself: what it says, or with log: file
// and nothing said one in dir; "" if none.
func outputOf(spec p2pnode.ServiceSpec, dir string) string {
	if spec.LogFile == "" && spec.Log == p2pnode.LogFile {
		return filepath.Join(logDir(dir), spec.Name+".out")
	}
	return spec.LogFile
}

// openOutput opens the file that a service's output goes to, at its end. One of ours is
// in our own folder, and makes room where it has grown to its size. Another is opened as
// the service's user: what he may not write, and what a link of his leads to, the service
// may not write through us either.
func openOutput(spec p2pnode.ServiceSpec, path string, l launch) (fd int, err error) {
	if spec.LogFile != "" {
		err = l.asItsUser(func() error {
			fd, err = appendTo(path)
			return err
		})
		return fd, err
	}
	keep := cmp.Or(spec.LogKeep, logs.DefaultKeep)
	if info, err := os.Lstat(path); err == nil && info.Size() >= cmp.Or(spec.LogSize, logs.DefaultSize) {
		logs.Rotate(path, keep)
	}
	logs.Trim(path, keep)
	return appendTo(path)
}

// openOutputUnless is openOutput that ctx ends, though the kernel may go on with it.
func openOutputUnless(ctx context.Context, spec p2pnode.ServiceSpec, path string, l launch) (int, error) {
	fd, err := disk.Unless(ctx, func() (int, error) { return openOutput(spec, path, l) }, func(fd int) { unix.Close(fd) })
	if over := context.Cause(ctx); over != nil && errors.Is(err, over) {
		return -1, fmt.Errorf("%s: given up while it was opened: %w", path, over)
	}
	return fd, err
}

func appendTo(path string) (fd int, err error) {
	const how = unix.O_WRONLY | unix.O_APPEND | unix.O_NONBLOCK | unix.O_CLOEXEC
	fd, err = unix.Open(path, how, 0)
	if errors.Is(err, unix.ENOENT) { // to create it waits for a disk that is frozen
		fd, err = unix.Open(path, how|unix.O_CREAT, 0o640)
	}
	if err != nil {
		return -1, fmt.Errorf("%s: %w", path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		unix.Close(fd)
		return -1, errors.Join(fmt.Errorf("%s is no regular file", path), err)
	}
	return fd, unix.SetNonblock(fd, false)
}

// disguise is held by whoever becomes another user for files: what the kernel takes from
// the process for it must be given back once.
var disguise sync.Mutex

// asItsUser runs f on a thread that opens files as the service's user would, with his
// groups: the file system's idea of who acts is a thread's own (setfsuid(2)). The thread
// is used for nothing else afterwards.
func (l *launch) asItsUser(f func() error) error {
	if l.as == nil {
		return f()
	}
	disguise.Lock()
	dumpable, _ := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	disguised, done := make(chan error, 1), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for ever: it ends with this goroutine
		err := l.as.forFiles()
		disguised <- err
		if err == nil {
			done <- f()
		}
	}()
	err := <-disguised
	if dumpable == 1 {
		unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) // another identity took it away
	}
	disguise.Unlock() // f may wait for a mount that hangs
	if err != nil {
		return fmt.Errorf("cannot open files as uid %d: %w", l.as.UID, err)
	}
	return <-done
}

// forFiles gives this thread, and no other, the groups, and for files the IDs, of c.
func (c *credentials) forFiles() error {
	var groups *uint32
	if len(c.Groups) > 0 {
		groups = &c.Groups[0]
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(c.Groups)), uintptr(unsafe.Pointer(groups)), 0); errno != 0 {
		return errno
	}
	unix.SetfsgidRetGid(int(c.GID))
	unix.SetfsuidRetUid(int(c.UID))
	// Neither tells whether it was done: asked for nobody, each says who it is now.
	isUID, _ := unix.SetfsuidRetUid(-1)
	isGID, _ := unix.SetfsgidRetGid(-1)
	if isUID != int(c.UID) || isGID != int(c.GID) {
		return unix.EPERM
	}
	return nil
}
