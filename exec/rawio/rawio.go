// Package rawio reads and writes sockets that do not block by system calls that Go's
// scheduler is not told of.
//
// The scheduler is told of a system call so that it can go on without the thread should
// the call take long, and has a thread of its own to watch that. In a process that does
// next to nothing this watching is most of what a short call costs: the watcher is woken
// by the first one and then naps 20 microseconds at a time, each a switch, until all is
// idle again. A call on a descriptor with O_NONBLOCK needs none of it.
package rawio

import (
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Conn is a descriptor of Go's poller: an *os.File or a connection of package net.
type Conn interface {
	SyscallConn() (syscall.RawConn, error)
}

// Read is read(2): as many bytes as are there, at least one; 0 at the end. It waits as
// the Read of c does, and ends with its deadline.
func Read(c Conn, p []byte) (int, error) {
	return whenReady(c, syscall.RawConn.Read, "read", func(fd uintptr) (uintptr, syscall.Errno) {
		n, _, errno := unix.RawSyscall(unix.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		return n, errno
	})
}

// Recvmsg is recvmsg(2) into p, with control messages into oob; descriptors among them
// are closed on exec.
func Recvmsg(c Conn, p, oob []byte) (n, oobn int, err error) {
	iov := unix.Iovec{Base: unsafe.SliceData(p)}
	iov.SetLen(len(p))
	msg := unix.Msghdr{Iov: &iov, Control: unsafe.SliceData(oob)}
	msg.SetIovlen(1)
	n, err = whenReady(c, syscall.RawConn.Read, "recvmsg", func(fd uintptr) (uintptr, syscall.Errno) {
		msg.SetControllen(len(oob)) // a try that found nothing has set it to 0
		n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&msg)), unix.MSG_CMSG_CLOEXEC)
		return n, errno
	})
	if err != nil {
		return n, 0, err
	}
	return n, int(msg.Controllen), nil
}

// Sendmsg is sendmsg(2) of p with control messages beside its first byte: it may take a
// part of p, then with all of them.
func Sendmsg(c Conn, p, control []byte) (int, error) {
	iov := unix.Iovec{Base: unsafe.SliceData(p)}
	iov.SetLen(len(p))
	msg := unix.Msghdr{Iov: &iov}
	msg.SetIovlen(1)
	if len(control) > 0 {
		msg.Control = unsafe.SliceData(control)
		msg.SetControllen(len(control))
	}
	return whenReady(c, syscall.RawConn.Write, "sendmsg", func(fd uintptr) (uintptr, syscall.Errno) {
		n, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&msg)), unix.MSG_NOSIGNAL)
		return n, errno
	})
}

// whenReady puts call, and again whenever c becomes ready, until it has an answer.
func whenReady(c Conn, wait func(syscall.RawConn, func(uintptr) bool) error, name string, call func(fd uintptr) (uintptr, syscall.Errno)) (int, error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var n uintptr
	var errno syscall.Errno
	err = wait(rc, func(fd uintptr) bool {
		n, errno = call(fd)
		for errno == unix.EINTR {
			n, errno = call(fd)
		}
		return errno != unix.EAGAIN
	})
	switch {
	case err != nil:
		return 0, err
	case errno != 0:
		return 0, os.NewSyscallError(name, errno)
	}
	return int(n), nil
}
