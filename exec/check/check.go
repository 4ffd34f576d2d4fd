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
	"time"

	"p2pnode"
)

const maxAnswer = 64 << 10 // bytes of an answer that are looked at

// Ask puts c's question once. nil is a good answer; an error that is
// context.DeadlineExceeded means that none came within c.Timeout (default 1 s). Where
// the question is a program, run is to run it as its service would and to end it with
// ctx.
func Ask(ctx context.Context, c p2pnode.Check, run func(ctx context.Context, argv []string) error) error {
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
		err = run(ctx, c.Exec)
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
