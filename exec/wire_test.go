package exec

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"p2pnode"
)

func FuzzDecodeMessage(f *testing.F) {
	f.Add([]byte{wireVersion, '{', '}'})
	f.Add([]byte{wireVersion})
	f.Add([]byte{9, '{', '}'})
	if raw, err := encodeMessage(message{ID: 1, Verb: "recover", Body: body(p2pnode.RecoverRequest{Op: "a"})}); err == nil {
		f.Add(raw[4:])
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := decodeMessage(raw)
		if err != nil {
			return
		}
		again, err := encodeMessage(m)
		if err != nil {
			t.Skip("grew beyond a frame")
		}
		if back, err := decodeMessage(again[4:]); err != nil || back.ID != m.ID || back.Verb != m.Verb {
			t.Errorf("%+v came back as %+v, %v", m, back, err)
		}
	})
}

func FuzzParseStat(f *testing.F) {
	own, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(own)
	f.Add([]byte("12 (a ) R (b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 99 21"))
	f.Add([]byte(") ("))
	f.Fuzz(func(t *testing.T, raw []byte) { parseStat(raw) })
}

func TestParseStatTakesTheLastParenthesis(t *testing.T) {
	s, err := parseStat([]byte("12 (a ) R (b) T 7 8 9 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 99 21 22"))
	if err != nil || s.state != 'T' || s.ppid != 7 || s.session != 9 || s.ticks != 99 {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestDescriptorsTravelWithTheirFrame(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	out, err := net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	from, to := newFrameConn(out), newFrameConn(in)
	for i := range uint64(5) {
		if err := from.write(message{ID: i, Verb: "plain"}); err != nil {
			t.Fatal(err)
		}
		if err := from.write(message{ID: i, Verb: "fd"}, r, w); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		if m, files, err := to.read(); err != nil || m.Verb != "plain" || len(files) != 0 {
			t.Fatalf("%+v %v %v", m, files, err)
		}
		m, files, err := to.read()
		if err != nil || m.Verb != "fd" || len(files) != 2 {
			t.Fatalf("%+v %v %v", m, files, err)
		}
		files[1].Write([]byte("x"))
		if n, err := files[0].Read(make([]byte, 1)); n != 1 || err != nil {
			t.Fatal("the descriptors are not the pipe's")
		}
		files[0].Close()
		files[1].Close()
	}
}

// What is no frame ends the connection that it came on and nothing else; half a hello is
// waited for as long as a hello may take, and a slow frame is answered when it is through.
func TestDamagedFramesOnTheSocket(t *testing.T) {
	h := newHost(t, daemonConfig{})
	files := func() int {
		entries, _ := os.ReadDir(procPath(h.cmd.Process.Pid, "fd"))
		return len(entries)
	}
	frame := func(m message) []byte {
		raw, err := encodeMessage(m)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	hello, status := frame(message{ID: 1, Verb: "hello", Body: body(helloBody{RoleCLI})}), frame(message{ID: 2, Verb: "status"})
	open := func(greeted bool) *frameConn {
		raw, err := dialSocket(t.Context(), SocketPath(h.dir))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { raw.Close() })
		raw.SetDeadline(time.Now().Add(4 * helloWait))
		c := newFrameConn(raw)
		if greeted {
			raw.Write(hello)
			if m, _, err := c.read(); err != nil || m.ID != 1 || m.Error != nil {
				t.Fatalf("hello: %+v, %v", m, err)
			}
		}
		return c
	}
	before := files()
	head := func(n uint32, more string) []byte { return append(binary.BigEndian.AppendUint32(nil, n), more...) }
	for _, c := range []struct {
		name    string
		greeted bool
		raw     []byte
		ends    time.Duration // at least
	}{
		{"oversized", true, head(maxFrame+1, "\x01{}"), 0},
		{"of four gigabytes", true, head(1<<32-1, "\x01{}"), 0},
		{"empty", true, head(0, "\x01"), 0},
		{"another version", true, head(3, "\x09{}"), 0},
		{"no JSON", true, head(3, "\x01{{"), 0},
		{"an oversized hello", false, head(maxFrame+1, "\x01{}"), 0},
		{"half a hello", false, hello[:len(hello)/2], helloWait - time.Second},
	} {
		conn, began := open(c.greeted), time.Now()
		conn.conn.Write(c.raw)
		n, err := conn.conn.Read(make([]byte, 1))
		if n != 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) < c.ends {
			t.Errorf("%s: %d bytes, %v after %v", c.name, n, err, time.Since(began))
		}
		if _, err := h.c.Status(t.Context()); err != nil {
			t.Fatalf("after one that is %s exec does not answer: %v", c.name, err)
		}
	}
	left := open(true) // in the middle of a frame
	left.conn.Write(status[:len(status)/2])
	left.close()
	slow := open(true)
	for i := range status {
		slow.conn.Write(status[i : i+1])
		if _, err := h.c.Status(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if m, _, err := slow.read(); err != nil || m.ID != 2 || len(m.Body) == 0 {
		t.Errorf("a slow frame: %+v, %v", m, err)
	}
	slow.close()
	eventually(t, "exec keeps none of them open", func() bool { return files() <= before })
}
