package exec

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pnode"
)

// fakeInit is the socket of an init that starts the test's daemons.
func fakeInit(t *testing.T) (socket string, said func() string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "init")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "notify")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return socket, func() string {
		buf := make([]byte, 256)
		c.SetReadDeadline(time.Now().Add(15 * time.Second))
		n, err := c.Read(buf)
		if err != nil {
			return err.Error()
		}
		return string(buf[:n])
	}
}

// An init hears that exec is ready once, and that it lives, again and again; the
// services do not inherit its socket.
func TestTheInitHears(t *testing.T) {
	socket, said := fakeInit(t)
	t.Setenv("NOTIFY_SOCKET", socket)
	t.Setenv("WATCHDOG_USEC", strconv.Itoa(300_000))
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:sleep")}})
	heard := map[string]int{}
	for heard["READY=1"] == 0 || heard["WATCHDOG=1"] < 5 {
		word := said()
		if word != "READY=1" && word != "WATCHDOG=1" {
			t.Fatalf("heard %q after %v", word, heard)
		}
		heard[word]++
	}
	if heard["READY=1"] != 1 {
		t.Errorf("heard %v", heard)
	}
	raw, err := os.ReadFile(procPath(h.await("web", p2pnode.StateUp).PID, "environ"))
	if err != nil || strings.Contains(string(raw), socket) || strings.Contains(string(raw), "WATCHDOG_USEC") {
		t.Errorf("web inherits the init's socket: %q, %v", raw, err)
	}
}

// An init hears that exec ends, when that begins, and what time it may take: the four
// seconds of these hosts, and what is killed then may take five to die.
func TestTheInitHearsOfTheEnd(t *testing.T) {
	for by, end := range map[string]func(h *host) error{
		"a signal": func(h *host) error { return h.cmd.Process.Signal(syscall.SIGTERM) },
		"a client": func(h *host) error { return h.c.Shutdown(t.Context(), false) },
	} {
		socket, said := fakeInit(t)
		t.Setenv("NOTIFY_SOCKET", socket)
		h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:sleep")}})
		h.await("web", p2pnode.StateUp)
		if word := said(); word != "READY=1" {
			t.Fatalf("heard %q", word)
		}
		if err := end(h); err != nil {
			t.Fatal(err)
		}
		if word := said(); word != "STOPPING=1\nEXTEND_TIMEOUT_USEC=9000000" {
			t.Errorf("ended by %s it heard %q", by, word)
		}
	}
}

// The sign of life is the loop's: while that is stuck none is given.
func TestAStuckLoopGivesNoSignOfLife(t *testing.T) {
	socket, said := fakeInit(t)
	r := &runner{in: make(chan func()), gone: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	heard := make(chan string, 16)
	go func() {
		for ctx.Err() == nil {
			heard <- said()
		}
	}()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.feedInit(ctx, initOf([]string{"NOTIFY_SOCKET=" + socket, "WATCHDOG_USEC=30000"}))
	}()
	select {
	case word := <-heard:
		t.Errorf("heard %q of a loop that does nothing", word)
	case <-time.After(300 * time.Millisecond):
	}
	(<-r.in)() // it works again
	if word := <-heard; word != "WATCHDOG=1" {
		t.Errorf("heard %q", word)
	}
	cancel()
	close(r.gone)
	<-done
}

func TestInitOf(t *testing.T) {
	own := strconv.Itoa(os.Getpid())
	for _, c := range []struct {
		env  []string
		want initLink
	}{
		{nil, initLink{}},
		{[]string{"NOTIFY_SOCKET=/a", "WATCHDOG_USEC=2000", "WATCHDOG_PID=" + own}, initLink{"/a", 2 * time.Millisecond}},
		{[]string{"NOTIFY_SOCKET=@a", "WATCHDOG_USEC=2000", "WATCHDOG_PID=1"}, initLink{"@a", 0}},
		{[]string{"NOTIFY_SOCKET=@a", "WATCHDOG_USEC=x"}, initLink{"@a", 0}},
	} {
		if got := initOf(c.env); got != c.want {
			t.Errorf("%q: %+v", c.env, got)
		}
	}
}
