package exec

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"p2pnode"
)

// maxOutput is the size at which an output file of ours makes room at a start: it is
// kept once, as .1.
const maxOutput = 8 << 20

// outputOf is the file that a service writes by itself: what it says, or with log: file
// and nothing said one in dir; "" if none.
func outputOf(spec p2pnode.ServiceSpec, dir string) string {
	if spec.LogFile == "" && spec.Log == p2pnode.LogFile {
		return filepath.Join(logDir(dir), spec.Name+".out")
	}
	return spec.LogFile
}

// openOutput opens the file that a service's output goes to, at its end. One of ours is
// in our own folder. Another is opened as the service's user: what he may not write, and
// what a link of his leads to, the service may not write through us either.
func openOutput(path string, l launch, ours bool) (fd int, err error) {
	if ours {
		if info, err := os.Lstat(path); err == nil && info.Size() >= maxOutput {
			os.Rename(path, path+".1")
		}
	} else if l.uid != os.Geteuid() {
		back, err := seeFilesAs(l.uid, l.gid)
		if err != nil {
			return -1, err
		}
		defer back()
	}
	fd, err = unix.Open(path, unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o640)
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

// seeFilesAs makes this goroutine open files as another user would, until back is
// called: the file system's idea of who acts belongs to a thread (setfsuid(2)).
func seeFilesAs(uid, gid int) (back func(), err error) {
	runtime.LockOSThread()
	back = func() {
		unix.SetfsuidRetUid(os.Geteuid())
		unix.SetfsgidRetGid(os.Getegid())
		runtime.UnlockOSThread()
	}
	unix.SetfsgidRetGid(gid)
	unix.SetfsuidRetUid(uid)
	// Neither tells whether it was done: asked for nobody, each says who it is now.
	isUID, _ := unix.SetfsuidRetUid(-1)
	isGID, _ := unix.SetfsgidRetGid(-1)
	if isUID != uid || isGID != gid {
		back()
		return nil, fmt.Errorf("cannot open files as uid %d", uid)
	}
	return back, nil
}
