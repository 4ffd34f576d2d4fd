package notify

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// A process that is started with NOTIFY_TEST says that on its socket.
func TestMain(m *testing.M) {
	if text := os.Getenv("NOTIFY_TEST"); text != "" {
		c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
		if err == nil {
			_, err = c.Write([]byte(text))
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func listenFor(t *testing.T) (*Socket, *net.UnixConn) {
	t.Helper()
	dir, err := os.MkdirTemp("", "notify")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s, err := Listen(filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: s.Path(), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return s, c
}

func drain(s *Socket) (out []Message) {
	s.Drain(func(m Message) { out = append(out, m) })
	return out
}

func TestWords(t *testing.T) {
	s, c := listenFor(t)
	me := os.Getpid()
	for text, want := range map[string]Message{
		"READY=1":                  {Ready: true},
		"READY=0":                  {},
		"STOPPING=1":               {Stopping: true},
		"WATCHDOG=1":               {Watchdog: true},
		"WATCHDOG=trigger":         {WatchdogTrigger: true},
		"MAINPID=42":               {MainPID: 42},
		"MAINPID=-1":               {},
		"MAINPID=x":                {},
		"EXTEND_TIMEOUT_USEC=1500": {Extend: 1500 * time.Microsecond},
		"EXTEND_TIMEOUT_USEC=-5":   {},
		"EXTEND_TIMEOUT_USEC=" + strings.Repeat("9", 18):  {Extend: time.Hour},
		"READY=1\nSTATUS=up and = well\nX_UNKNOWN=1\n\n=": {Ready: true, Status: "up and = well"},
		"STATUS=" + strings.Repeat("x", 1000):             {Status: strings.Repeat("x", maxStatus)},
		"STATUS=\xff":                                     {Status: "\uFFFD"},
	} {
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		want.PID = me
		if got := drain(s); len(got) != 1 || got[0] != want {
			t.Errorf("%q: %+v, want %+v", text, got, want)
		}
	}
}

// The sender is the kernel's word: a real child, whatever it says.
func TestSenderIsTheKernelsWord(t *testing.T) {
	s, _ := listenFor(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{"NOTIFY_TEST=READY=1\nMAINPID=1", "NOTIFY_SOCKET=" + s.Path()}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	got := drain(s)
	if len(got) != 1 || got[0].PID != cmd.Process.Pid || got[0].MainPID != 1 || !got[0].Ready {
		t.Errorf("%+v, sent by %d", got, cmd.Process.Pid)
	}
	if info, err := os.Stat(s.Path()); err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("%v, %v: other users cannot write", info.Mode(), err)
	}
}

func TestOversizeIsDropped(t *testing.T) {
	s, c := listenFor(t)
	for _, n := range []int{maxDatagram, maxDatagram + 1, 5 * maxDatagram} {
		text := "READY=1\nX=" + strings.Repeat("x", n)
		if _, err := c.Write([]byte(text[:n])); err != nil {
			t.Fatal(err)
		}
	}
	c.Write([]byte("WATCHDOG=1"))
	if got := drain(s); len(got) != 2 || !got[0].Ready || !got[1].Watchdog {
		t.Errorf("%+v", got)
	}
}

// A descriptor that is sent along is closed, so that a sender who waits for that
// (sd_notify_barrier) goes on.
func TestDescriptorsAreClosed(t *testing.T) {
	s, c := listenFor(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Write(func(fd uintptr) bool {
		err = unix.Sendmsg(int(fd), []byte("BARRIER=1"), syscall.UnixRights(int(w.Fd())), nil, 0)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	drain(s)
	r.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := r.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the descriptor is still open")
	}
}

func TestRunAndDrainShareTheMessages(t *testing.T) {
	s, c := listenFor(t)
	ctx, stop := context.WithCancel(t.Context())
	heard := make(chan Message, 1000)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, func(m Message) { heard <- m }) }()
	const n = 500
	for range n {
		if _, err := c.Write([]byte("WATCHDOG=1")); err != nil {
			t.Fatal(err)
		}
		s.Drain(func(m Message) { heard <- m })
	}
	for range n {
		select {
		case m := <-heard:
			if !m.Watchdog {
				t.Fatalf("%+v", m)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("a heartbeat is missing")
		}
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Run ended with %v", err)
	}
	if len(heard) != 0 {
		t.Error("a heartbeat was heard twice")
	}
}

func TestCloseEndsRunAndRemovesTheSocket(t *testing.T) {
	s, _ := listenFor(t)
	ended := make(chan error, 1)
	go func() { ended <- s.Run(t.Context(), func(Message) {}) }()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(s.Path()); err == nil {
		t.Error("the socket is left")
	}
	s.Drain(func(Message) { t.Error("a message out of a closed socket") })
}

// A socket of the life before is replaced; another's message without credentials
// cannot happen, and rubbish beside the data is no sender.
func TestSenderOfRubbish(t *testing.T) {
	for _, oob := range [][]byte{nil, {1}, make([]byte, unix.CmsgSpace(4))} {
		if by := sender(oob); by.Pid != 0 {
			t.Errorf("%v is from %d", oob, by.Pid)
		}
	}
	s, _ := listenFor(t)
	again, err := Listen(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func FuzzParse(f *testing.F) {
	f.Add("READY=1\nSTATUS=\xff\nMAINPID=1\nEXTEND_TIMEOUT_USEC=1")
	f.Fuzz(func(t *testing.T, text string) {
		m := parse(text)
		if m.MainPID < 0 || m.Extend < 0 || m.Extend > maxExtend || !utf8.ValidString(m.Status) || len(m.Status) > 3*maxStatus {
			t.Fatalf("%+v", m)
		}
	})
}
