package exec

import (
	"net"
	"os"
	"path/filepath"
	"testing"

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
