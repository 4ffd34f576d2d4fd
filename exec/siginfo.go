package exec

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// sigchldInfo is the layout of siginfo_t for SIGCHLD on 64-bit Linux: three ints
// and padding, then the union, of which a child's death fills pid, uid, status.
type sigchldInfo struct {
	signo, errno, code, pad int32
	pid                     int32
	uid                     uint32
	status                  int32
}

func infoPointer(info *unix.Siginfo) unsafe.Pointer { return unsafe.Pointer(info) }
