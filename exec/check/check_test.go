package check

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pnode"
)

func TestHTTP(t *testing.T) {
	asked := make(chan struct{}, 1)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		w.WriteHeader(http.StatusInternalServerError)
	}))
	defer other.Close()
	over := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/good", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	mux.HandleFunc("/bad", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	mux.HandleFunc("/missing", http.NotFound)
	mux.HandleFunc("/here", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/bad", http.StatusFound) })
	mux.HandleFunc("/there", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) })
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-over:
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("/endless", func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	})
	s := httptest.NewServer(mux)
	defer s.Close()
	defer close(over)
	for path, good := range map[string]bool{"/good": true, "/bad": false, "/missing": false, "/here": false, "/there": true, "/loop": false, "/endless": true} {
		err := Ask(t.Context(), p2pnode.Check{HTTP: s.URL + path, Timeout: 10 * time.Second}, nil)
		if (err == nil) != good || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if len(asked) > 0 {
		t.Error("a redirect led to another host")
	}
	if err := Ask(t.Context(), p2pnode.Check{HTTP: s.URL + "/slow", Timeout: 50 * time.Millisecond}, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("slow: %v", err)
	}
}

// A password in the URL is sent, and over https a stranger's certificate is no
// answer.
func TestHTTPWithPasswordAndOverTLS(t *testing.T) {
	guarded := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "secret" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	plain := httptest.NewServer(guarded)
	defer plain.Close()
	sealed := httptest.NewTLSServer(guarded)
	defer sealed.Close()
	ask := func(url string) error {
		return Ask(t.Context(), p2pnode.Check{HTTP: url, Timeout: 10 * time.Second}, nil)
	}
	if err := ask(strings.Replace(plain.URL, "//", "//me:secret@", 1)); err != nil {
		t.Error(err)
	}
	if err := ask(plain.URL); err == nil {
		t.Error("an answer of 401 was taken for good")
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](ask(sealed.URL)); !ok {
		t.Errorf("over https: %v", ask(sealed.URL))
	}
	if err := ask("ftp://127.0.0.1/"); err == nil {
		t.Error("ftp was asked")
	}
}

// answering serves each connection with what handle does until the test ends.
func answering(t *testing.T, network, addr string, handle func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); handle(c) }()
		}
	}()
	return l.Addr().String()
}

func pong(c net.Conn) {
	buf := make([]byte, 64)
	n, _ := c.Read(buf)
	if string(buf[:n]) == "PING\n" {
		io.WriteString(c, "+PO") // an answer in two pieces
		io.WriteString(c, "NG\n")
	}
	c.Read(buf)
}

func TestStream(t *testing.T) {
	dir, err := os.MkdirTemp("", "check")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	deaf, err := net.Listen("tcp", "127.0.0.1:0") // the kernel connects, nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	tcp := answering(t, "tcp", "127.0.0.1:0", pong)
	unix := answering(t, "unix", filepath.Join(dir, "s"), pong)
	closer := answering(t, "tcp", "127.0.0.1:0", func(net.Conn) {})
	chatty := answering(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		for {
			if _, err := c.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	})
	const ok, timeout, wrong = "good", "no answer in time", "wrong"
	for name, c := range map[string]struct {
		p2pnode.Check
		want string
	}{
		"tcp":            {p2pnode.Check{TCP: tcp, Send: "PING\n", Expect: "+PONG"}, ok},
		"any byte":       {p2pnode.Check{TCP: tcp, Send: "PING\n"}, ok},
		"unix":           {p2pnode.Check{Unix: unix, Send: "PING\n", Expect: "+PONG"}, ok},
		"other words":    {p2pnode.Check{TCP: tcp, Send: "PING\n", Expect: "+YES"}, timeout},
		"open port":      {p2pnode.Check{TCP: deaf.Addr().String()}, timeout},
		"open port, ask": {p2pnode.Check{TCP: deaf.Addr().String(), Send: "PING\n", Expect: "+PONG"}, timeout},
		"closes":         {p2pnode.Check{TCP: closer}, wrong},
		"endless":        {p2pnode.Check{TCP: chatty, Expect: "x"}, wrong},
		"refused":        {p2pnode.Check{Unix: filepath.Join(dir, "none")}, wrong},
		"nothing":        {p2pnode.Check{}, wrong},
	} {
		t.Run(name, func(t *testing.T) {
			c.Timeout = 300 * time.Millisecond
			if c.want != timeout {
				c.Timeout = 10 * time.Second
			}
			err := Ask(t.Context(), c.Check, nil)
			got := wrong
			if err == nil {
				got = ok
			} else if errors.Is(err, context.DeadlineExceeded) {
				got = timeout
			}
			if got != c.want {
				t.Errorf("%v", err)
			}
		})
	}
}

// Time over is time over, whichever timer is first.
func TestDeadlineIsAlwaysTheContexts(t *testing.T) {
	deaf, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	for range 100 {
		if err := Ask(t.Context(), p2pnode.Check{TCP: deaf.Addr().String(), Timeout: 2 * time.Millisecond}, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("%v", err)
		}
	}
}

func TestTreeAndCPU(t *testing.T) {
	cmd := exec.Command("/bin/sh", "-c", "(while :; do :; done) & echo $!; wait")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); cmd.Wait() }()
	var child int
	if _, err := fmt.Fscan(out, &child); err != nil {
		t.Fatal(err)
	}
	tree := Tree(cmd.Process.Pid)
	if tree[0] != cmd.Process.Pid || !slices.Contains(tree, child) {
		t.Fatalf("tree %v without %d", tree, child)
	}
	was := CPU(tree)
	for deadline := time.Now().Add(20 * time.Second); CPU(tree) <= was; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a busy tree uses no time")
		}
	}
	if CPU([]int{1 << 30}) != 0 || !slices.Equal(Tree(1<<30), []int{1 << 30}) {
		t.Error("a process that is not there counts")
	}
}

func TestParseStat(t *testing.T) {
	rest := " S 1 2 3 0 -1 4194560 1 0 0 0 17 4 0 0 20 0 1 0 12345 1 1"
	fields, err := parseStat([]byte("42 (a) b (c)" + rest))
	if err != nil || fields[0] != "S" || fields[11] != "17" || fields[12] != "4" || fields[19] != "12345" {
		t.Fatalf("%q, %v", fields, err)
	}
	for _, bad := range []string{"", "42 (x", "42 (x) S 1 2"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("42 (a) b (c) S 1 2 3 0 -1 4194560 1 0 0 0 17 4 0 0 20 0 1 0 12345 1 1"))
	f.Add([]byte(")"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if fields, err := parseStat(raw); err == nil && len(fields) < 20 {
			t.Fatal("too few fields")
		}
	})
}

// What is no open port of the loopback is a net.Dialer's; what is one leaves no
// descriptor behind.
func TestDialNear(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	open := l.Addr().String()
	_, port, _ := net.SplitHostPort(open)
	for addr, want := range map[string]bool{open: true, "localhost:" + port: false, "192.0.2.1:" + port: false, "127.0.0.1": false} {
		f, ok := dialNear(addr)
		if ok {
			f.Close()
		}
		if ok != want {
			t.Errorf("%s: near %v, want %v", addr, ok, want)
		}
	}
	l.Close()
	if f, ok := dialNear(open); ok {
		f.Close()
		t.Errorf("nobody listens on %s, and it was reached", open)
	}
	if err := Ask(t.Context(), p2pnode.Check{TCP: open}, nil); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%v, want that the connection was refused", err)
	}
}

// A port whose queue is full is connected by nobody at once: the answer is late, and
// says so.
func TestAFullQueueIsNoAnswer(t *testing.T) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	at, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", at.(*syscall.SockaddrInet4).Port)
	for full := false; !full; {
		f, ok := dialNear(addr)
		if ok {
			defer f.Close()
		}
		full = !ok
	}
	if err := Ask(t.Context(), p2pnode.Check{HTTP: "http://" + addr, Timeout: 100 * time.Millisecond}, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want that no answer came", err)
	}
}

// A socket may be connected to itself, where nobody listens and it asks from the very
// port that it asks: that is nobody's answer.
func TestAQuestionToItselfIsNone(t *testing.T) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	own, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Connect(fd, own); err != nil {
		t.Fatal(err)
	}
	if port := own.(*syscall.SockaddrInet4).Port; !itself(fd, uint16(port)) || itself(fd, uint16(port)+1) {
		t.Error("a connection to itself is taken for one to somebody")
	}
}
