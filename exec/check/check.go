// Package check puts questions to services and reads what /proc says of their
// processes.
//
// A question wants an answer: a bare TCP connection proves nothing, since the
// kernel completes it for a stopped process. Ask returns within the check's
// timeout and leaves no process, connection or goroutine behind. When and how
// often to ask, and what the answers mean, is the policy's business (package
// exec), not this one's.
//
// Read next: dial.go, http.go, grpc.go, proc.go.
package check

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"p2pnode"

	"golang.org/x/sys/unix"
)

const maxAnswer = 64 << 10 // bytes of an answer that are looked at

// Ask puts c's question once. nil is a good answer; an error that is
// context.DeadlineExceeded means that none came within c.Timeout (default 1 s).
func Ask(ctx context.Context, c p2pnode.Check) error {
	timeout := c.Timeout
	if timeout <= 0 {
		timeout = time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var err error
	switch {
	case c.HTTP != "":
		err = askHTTP(ctx, c)
	case c.TCP != "":
		err = askStream(ctx, "tcp", c.TCP, c.Send, c.Expect)
	case c.Unix != "":
		err = askStream(ctx, "unix", c.Unix, c.Send, c.Expect)
	case len(c.Exec) > 0:
		err = askProgram(ctx, c.Exec)
	case c.GRPC != "":
		err = askGRPC(ctx, c.GRPC, c.Service)
	case c.File != "":
		return askFile(c.File, c.Newer)
	default:
		return errors.New("the check asks nothing")
	}
	// A dialer has a timer of its own, which may fire ahead of the context's.
	if err != nil && (ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded)) {
		return fmt.Errorf("no answer within %v: %w", timeout, cmp.Or(ctx.Err(), context.DeadlineExceeded))
	}
	return err
}

// askStream writes send and reads until expect has come; with an empty expect
// any byte is an answer.
func askStream(ctx context.Context, network, addr, send, expect string) error {
	conn, err := dial(ctx, network, addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := conn.endWith(ctx)
	defer stop()
	if send != "" {
		if _, err := io.WriteString(conn, send); err != nil {
			return err
		}
	}
	var got []byte
	buf := make([]byte, 4096)
	for len(got) < maxAnswer {
		n, err := conn.Read(buf)
		got = append(got, buf[:n]...)
		if len(got) > 0 && bytes.Contains(got, []byte(expect)) {
			return nil
		}
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("%s answered %.80q, not %q", addr, got, expect)
		}
		if err != nil {
			return err
		}
	}
	return fmt.Errorf("%s answered %d bytes without %q", addr, len(got), expect)
}

// askProgram runs argv in a process group of its own, which is killed whole when
// the program has ended or the time is over. Exit status 0 is a good answer.
//
// The program's own status is taken last: until then its number is nobody else's, and
// the group's neither.
func askProgram(ctx context.Context, argv []string) error {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// A grandchild that holds the pipe must not hold us.
	cmd.WaitDelay = 100 * time.Millisecond
	var out cutBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Start()
	if err == nil {
		killed := make(chan struct{})
		stop := context.AfterFunc(ctx, func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); close(killed) })
		awaitEnd(cmd.Process.Pid)
		if !stop() {
			<-killed
		}
		endGroup(cmd.Process.Pid)
		err = cmd.Wait()
	}
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	if words := strings.TrimSpace(out.String()); words != "" {
		return fmt.Errorf("%s: %w: %s", argv[0], err, words)
	}
	return fmt.Errorf("%s: %w", argv[0], err)
}

// awaitEnd waits until our child has ended and leaves its status where it is.
func awaitEnd(pid int) {
	for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
}

// endGroup kills what a program left behind, and takes its status: orphans come to
// us, the subreaper, and would stay zombies. The group is the program's own, so
// nobody else waits for its members; its leader is not touched.
func endGroup(leader int) {
	syscall.Kill(-leader, syscall.SIGKILL)
	for deadline := time.Now().Add(100 * time.Millisecond); ; time.Sleep(time.Millisecond) {
		left := 0
		for _, pid := range children(os.Getpid()) {
			if group, err := syscall.Getpgid(pid); pid == leader || err != nil || group != leader {
				continue
			}
			if _, err := syscall.Wait4(pid, nil, syscall.WNOHANG, nil); err == nil {
				left++ // it has not died yet, or its children come to us now
			}
		}
		if left == 0 || time.Now().After(deadline) {
			return
		}
	}
}

// cutBuffer keeps the first bytes that are written to it. The buffer is not
// embedded: its ReadFrom would read without a limit.
type cutBuffer struct{ buf bytes.Buffer }

// Write implements io.Writer.
func (b *cutBuffer) Write(p []byte) (int, error) {
	b.buf.Write(p[:min(len(p), max(0, 256-b.buf.Len()))])
	return len(p), nil
}

// String is what was kept.
func (b *cutBuffer) String() string { return b.buf.String() }
