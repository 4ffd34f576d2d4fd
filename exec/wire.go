package exec

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"p2pnode"
	"p2pnode/exec/rawio"

	"golang.org/x/sys/unix"
)

// The control socket speaks frames in both directions:
//
//	+----------------+---------+------------------+
//	| 4 bytes        | 1 byte  | the rest         |
//	| length of rest | version | one JSON message |
//	+----------------+---------+------------------+
//
// The length counts the version byte. Descriptors travel beside the first byte of
// the frame that announces them (SCM_RIGHTS).

const wireVersion = 1

// message is a request (Verb set) or an answer to the request of the same ID. A
// stream answers many times; its last answer has More false.
type message struct {
	ID    uint64          `json:"id"`
	Verb  string          `json:"verb,omitempty"`
	Body  json.RawMessage `json:"body,omitempty"`
	Error *p2pnode.Error  `json:"error,omitempty"`
	More  bool            `json:"more,omitempty"`
	FDs   int             `json:"fds,omitempty"`
}

var errFrame = errors.New("damaged control frame")

// decodeMessage reads what follows the length.
func decodeMessage(frame []byte) (message, error) {
	var m message
	if len(frame) == 0 || frame[0] != wireVersion {
		return m, fmt.Errorf("%w: unknown version", errFrame)
	}
	if err := json.Unmarshal(frame[1:], &m); err != nil {
		return m, fmt.Errorf("%w: %v", errFrame, err)
	}
	if m.FDs < 0 || m.FDs > maxFrameFDs {
		return m, fmt.Errorf("%w: too many descriptors", errFrame)
	}
	return m, nil
}

func encodeMessage(m message) ([]byte, error) {
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	if len(raw)+1 > maxFrame {
		return nil, fmt.Errorf("%w: %d bytes are too many", errFrame, len(raw))
	}
	out := make([]byte, 5, 5+len(raw))
	binary.BigEndian.PutUint32(out, uint32(len(raw)+1))
	out[4] = wireVersion
	return append(out, raw...), nil
}

// frameConn reads and writes messages with descriptors on a unix socket. One
// goroutine may read, any number may write.
type frameConn struct {
	conn *net.UnixConn
	buf  []byte // read and not parsed yet
	fds  []int  // received and not claimed yet

	mu sync.Mutex // orders writes
}

func newFrameConn(c *net.UnixConn) *frameConn { return &frameConn{conn: c} }

// read returns the next message and its descriptors, which the caller owns.
func (c *frameConn) read() (message, []*os.File, error) {
	if err := c.fill(4); err != nil {
		return message{}, nil, err
	}
	n := int(binary.BigEndian.Uint32(c.buf))
	if n < 1 || n > maxFrame {
		return message{}, nil, fmt.Errorf("%w: length %d", errFrame, n)
	}
	if err := c.fill(4 + n); err != nil {
		return message{}, nil, err
	}
	m, err := decodeMessage(c.buf[4 : 4+n])
	if err != nil {
		return message{}, nil, err
	}
	c.buf = c.buf[4+n:]
	if len(c.buf) == 0 {
		c.buf = nil
	}
	if m.FDs > len(c.fds) {
		return message{}, nil, fmt.Errorf("%w: descriptors are missing", errFrame)
	}
	files := make([]*os.File, m.FDs)
	for i := range files {
		unix.SetNonblock(c.fds[i], true)
		files[i] = os.NewFile(uintptr(c.fds[i]), "received")
	}
	c.fds = c.fds[m.FDs:]
	return m, files, nil
}

// fill reads until n bytes are buffered.
func (c *frameConn) fill(n int) error {
	for len(c.buf) < n {
		chunk := make([]byte, 16<<10)
		oob := make([]byte, unix.CmsgSpace(4*maxFrameFDs))
		got, oobn, err := rawio.Recvmsg(c.conn, chunk, oob)
		if oobn > 0 {
			c.keepFDs(oob[:oobn])
		}
		c.buf = append(c.buf, chunk[:max(got, 0)]...)
		if err != nil {
			return err
		}
		if got == 0 {
			return io.EOF
		}
		if len(c.fds) > 4*maxFrameFDs {
			return fmt.Errorf("%w: descriptors that nobody announced", errFrame)
		}
	}
	return nil
}

func (c *frameConn) keepFDs(oob []byte) {
	msgs, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return
	}
	for _, m := range msgs {
		if fds, err := syscall.ParseUnixRights(&m); err == nil {
			for _, fd := range fds {
				syscall.CloseOnExec(fd)
			}
			c.fds = append(c.fds, fds...)
		}
	}
}

// write sends m, with duplicates of files beside it.
func (c *frameConn) write(m message, files ...*os.File) error {
	m.FDs = len(files)
	raw, err := encodeMessage(m)
	if err != nil {
		return err
	}
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, 0, len(files))
		for _, f := range files {
			d, err := dupFile(f)
			if err != nil {
				return err
			}
			defer d.Close()
			rc, err := d.SyscallConn()
			if err != nil {
				return err
			}
			rc.Control(func(fd uintptr) { fds = append(fds, int(fd)) })
		}
		rights = unix.UnixRights(fds...)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n, err := rawio.Sendmsg(c.conn, raw, rights)
	for err == nil && n < len(raw) {
		raw = raw[n:]
		n, err = c.conn.Write(raw)
	}
	return err
}

// close ends the connection and drops descriptors that nobody claimed.
func (c *frameConn) close() error { return c.conn.Close() }

// dropFDs closes what was received and not claimed; the reader calls it last.
func (c *frameConn) dropFDs() {
	for _, fd := range c.fds {
		unix.Close(fd)
	}
	c.fds = nil
}

// body packs v; a type that cannot be packed is a bug of this package.
func body(v any) json.RawMessage {
	raw, err := json.Marshal(v)
	if err != nil {
		panic("exec: unmarshalable message body: " + err.Error())
	}
	return raw
}

// asError makes any error one that crosses the socket.
func asError(err error) *p2pnode.Error {
	if e, ok := errors.AsType[*p2pnode.Error](err); ok {
		return e
	}
	return &p2pnode.Error{Code: "failed", Text: err.Error()}
}
