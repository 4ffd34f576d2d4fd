// Package notify listens to what services say of themselves in systemd's sd_notify
// protocol (sd_notify(3)): READY=1, WATCHDOG=1, STATUS=, MAINPID=,
// EXTEND_TIMEOUT_USEC=.
//
// Each service has a datagram socket of its own, whose path is in its environment
// as NOTIFY_SOCKET. Who sent a message is the kernel's word (SCM_CREDENTIALS);
// whether that process may speak for the service is for the caller to judge.
//
// Datagrams are bounded, unknown lines are ignored, and Drain reads what has
// arrived by now, so that a heartbeat under way is never missed by a verdict.
package notify

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxDatagram = 4 << 10
	maxStatus   = 256
	maxDrain    = 1024 // datagrams of one Drain
	maxExtend   = time.Hour
)

// Message is one datagram.
type Message struct {
	PID             int // of the sender, by the kernel
	UID             int // its user, by the kernel
	Ready           bool
	Stopping        bool
	Watchdog        bool          // a heartbeat
	WatchdogTrigger bool          // the service says that it hangs
	Status          string        // free text for people, cut
	MainPID         int           // 0: not said
	Extend          time.Duration // more time wanted; 0: not said
}

// Socket is one service's.
type Socket struct {
	path string
	conn *net.UnixConn
	mu   sync.Mutex // one reader at a time
}

// Listen makes the socket at path anew: a file that everybody may write to, since
// the folder decides who reaches it, or, with a path that begins with @, an
// abstract name, which every process of the network namespace reaches. The latter
// is for services of other users and for folders whose names do not fit into a
// socket's address.
func Listen(path string) (*Socket, error) {
	if abstract(path) {
		return listen(path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot make notify socket: %w", err)
	}
	s, err := listen(path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o666); err != nil {
		s.Close()
		return nil, fmt.Errorf("cannot set up notify socket %s: %w", path, err)
	}
	return s, nil
}

func abstract(path string) bool { return strings.HasPrefix(path, "@") }

func listen(path string) (*Socket, error) {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("cannot make notify socket %s: %w", path, err)
	}
	raw, err := conn.SyscallConn()
	if err == nil {
		var inner error
		err = raw.Control(func(fd uintptr) { inner = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
		err = errors.Join(err, inner)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("cannot set up notify socket %s: %w", path, err)
	}
	return &Socket{path: path, conn: conn}, nil
}

// Path is the socket's path: NOTIFY_SOCKET of the service.
func (s *Socket) Path() string { return s.path }

// Run hands every message to hear until ctx ends or the socket is closed.
func (s *Socket) Run(ctx context.Context, hear func(Message)) error {
	stop := context.AfterFunc(ctx, func() { s.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	for {
		var (
			m  Message
			ok bool
		)
		err := raw.Read(func(fd uintptr) bool {
			s.mu.Lock()
			var again bool
			if m, ok, again = receive(int(fd)); again {
				s.mu.Unlock()
			}
			return !again
		})
		if err == nil {
			if ok && ctx.Err() == nil {
				hear(m)
			}
			s.mu.Unlock() // not before: who drains afterwards comes after it
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// Drain hands every message that has arrived by now to hear. It is safe beside
// Run: a message goes to one of them.
func (s *Socket) Drain(hear func(Message)) {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return
	}
	var got []Message
	s.mu.Lock() // before the descriptor is held: who closes it must not wait for a reader
	raw.Control(func(fd uintptr) {
		for range maxDrain {
			m, ok, again := receive(int(fd))
			if again {
				return
			}
			if ok {
				got = append(got, m)
			}
		}
	})
	s.mu.Unlock()
	for _, m := range got {
		hear(m)
	}
}

// Close ends Run and removes the socket.
func (s *Socket) Close() error {
	err := s.conn.Close()
	if abstract(s.path) {
		return err
	}
	return errors.Join(err, ignoreMissing(os.Remove(s.path)))
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// receive reads one datagram; again means that there is none now.
func receive(fd int) (m Message, ok, again bool) {
	buf := make([]byte, maxDatagram+1)
	oob := make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	n, oobn, flags, _, err := unix.Recvmsg(fd, buf, oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return m, false, err == unix.EAGAIN
	case err != nil || n > maxDatagram || flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		return m, false, false
	}
	cred := sender(oob[:oobn])
	if cred.Pid == 0 {
		return m, false, false
	}
	m = parse(string(buf[:n]))
	m.PID, m.UID = int(cred.Pid), int(cred.Uid)
	return m, true, false
}

// sender is who the kernel says sent the datagram; the zero value: it does not.
func sender(oob []byte) (by unix.Ucred) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return by
	}
	for _, m := range msgs {
		if cred, err := unix.ParseUnixCredentials(&m); err == nil {
			by = *cred
			continue
		}
		// Descriptors that somebody sends along are not wanted.
		if fds, err := unix.ParseUnixRights(&m); err == nil {
			for _, fd := range fds {
				syscall.Close(fd)
			}
		}
	}
	return by
}

// parse reads the lines of a datagram.
func parse(text string) Message {
	var m Message
	for line := range strings.SplitSeq(text, "\n") {
		key, value, _ := strings.Cut(line, "=")
		switch key {
		case "READY":
			m.Ready = value == "1"
		case "STOPPING":
			m.Stopping = value == "1"
		case "WATCHDOG":
			m.Watchdog = value == "1"
			m.WatchdogTrigger = value == "trigger"
		case "STATUS":
			m.Status = strings.ToValidUTF8(value[:min(len(value), maxStatus)], "\uFFFD")
		case "MAINPID":
			if pid, err := strconv.Atoi(value); err == nil && pid > 0 {
				m.MainPID = pid
			}
		case "EXTEND_TIMEOUT_USEC":
			if us, err := strconv.ParseUint(value, 10, 63); err == nil {
				m.Extend = maxExtend
				if us < uint64(maxExtend/time.Microsecond) {
					m.Extend = time.Duration(us) * time.Microsecond
				}
			}
		}
	}
	return m
}
