package exec

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Locks are open-file-description locks: they belong to the description, so they
// pass to children with the descriptor and end with the last copy of it.

// openLock opens (or makes) a lock file without locking it. One that is there is opened
// without asking for it to be made: the latter waits for a disk that hangs.
func openLock(path string) (*os.File, error) {
	if f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0); !os.IsNotExist(err) {
		return f, err
	}
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
}

// takeLock locks f; ok is false when another description holds it.
func takeLock(f *os.File) (ok bool, err error) {
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart})
	switch err {
	case nil:
		return true, nil
	case unix.EAGAIN, unix.EACCES:
		return false, nil
	}
	return false, fmt.Errorf("cannot lock %s: %w", filepath.Base(f.Name()), err)
}

// lockHeld asks whether some other description holds a lock on path. It never
// takes it, not even for a moment, so a question cannot keep anybody out.
func lockHeld(path string) (bool, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if os.IsNotExist(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	return descriptionLocked(f)
}

// descriptionLocked asks through an open file that holds no lock itself.
func descriptionLocked(f *os.File) (bool, error) {
	probe := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &probe); err != nil {
		return false, err
	}
	return probe.Type != unix.F_UNLCK, nil
}

// execLockPath is the lock of the one exec of a data folder.
func execLockPath(dir string) string { return filepath.Join(runDir(dir), "exec.lock") }

// ExecAlive reports whether an exec lives on the data folder dir, and which pid
// it wrote into its lock file (0 if that cannot be read). It only looks.
func ExecAlive(dir string) (alive bool, pid int) {
	held, err := lockHeld(execLockPath(dir))
	if err != nil || !held {
		return false, 0
	}
	raw, err := os.ReadFile(execLockPath(dir))
	if err != nil {
		return true, 0
	}
	if _, err := fmt.Sscanf(string(raw), "%d", &pid); err != nil {
		return true, 0
	}
	return true, pid
}
