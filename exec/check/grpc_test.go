package check

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"p2pnode"

	"google.golang.org/protobuf/encoding/protowire"
)

// healthServer speaks the health protocol as a gRPC server does: HTTP/2 without
// TLS, framed messages, the status in a trailer or, without a message, a header.
func healthServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	over := make(chan struct{})
	s := &http.Server{Protocols: &protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		frame, _ := io.ReadAll(r.Body)
		if r.ProtoMajor != 2 || r.URL.Path != "/grpc.health.v1.Health/Check" || r.Header.Get("Te") != "trailers" || len(frame) < 5 || binary.BigEndian.Uint32(frame[1:]) != uint32(len(frame)-5) {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		service := ""
		if len(frame) > 5 {
			service, _ = protowire.ConsumeString(frame[6:])
		}
		w.Header().Set("Content-Type", "application/grpc")
		switch service {
		case "unknown":
			w.Header().Set("Grpc-Status", "5")
			w.Header().Set("Grpc-Message", "unknown service")
			return
		case "hangs":
			<-over
			return
		case "html":
			w.Header().Set("Content-Type", "text/html")
			return
		}
		answer := map[string][]byte{"": {0x08, 1}, "web": {0x12, 1, 'x', 0x08, 1}, "down": {0x08, 2}, "nothing": {}, "damaged": {0x08}}[service]
		w.Header().Set("Trailer", "Grpc-Status")
		w.Write(append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(answer))), answer...))
		w.Header().Set("Grpc-Status", "0")
	})}
	go s.Serve(l)
	t.Cleanup(func() { close(over); s.Close() })
	return l.Addr().String()
}

func TestGRPC(t *testing.T) {
	addr := healthServer(t)
	for service, want := range map[string]string{
		"": "", "web": "", "down": "says NOT_SERVING", "nothing": "says UNKNOWN", "damaged": "no HealthCheckResponse", "unknown": "gRPC status 5: unknown service", "html": "speaks no gRPC",
	} {
		err := Ask(t.Context(), p2pnode.Check{GRPC: addr, Service: service, Timeout: 10 * time.Second}, nil)
		if got := fmt.Sprint(err); want == "" && err != nil || !strings.Contains(got, want) {
			t.Errorf("%q: %v, want %q", service, err, want)
		}
	}
	if err := Ask(t.Context(), p2pnode.Check{GRPC: addr, Service: "hangs", Timeout: 100 * time.Millisecond}, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("hangs: %v", err)
	}
	plain := answering(t, "tcp", "127.0.0.1:0", func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n") })
	if err := Ask(t.Context(), p2pnode.Check{GRPC: plain, Timeout: 10 * time.Second}, nil); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a web server is no gRPC server: %v", err)
	}
}

func TestHTTPStatusAndBody(t *testing.T) {
	addr := answering(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		buf := make([]byte, 4096)
		n, _ := c.Read(buf)
		path := strings.Fields(string(buf[:n]))[1]
		code := strings.TrimPrefix(path, "/")
		fmt.Fprintf(c, "HTTP/1.1 %s x\r\nLocation: /200\r\nConnection: close\r\n\r\nall is well in %s", code, code)
	})
	for _, c := range []struct {
		path, body string
		status     []p2pnode.StatusRange
		want       string
	}{
		{"200", "is well", nil, ""},
		{"200", "ill", nil, `"ill" is not in its 18 bytes`},
		{"503", "", []p2pnode.StatusRange{{Low: 200, High: 299}, {Low: 503, High: 503}}, ""},
		{"204", "", []p2pnode.StatusRange{{Low: 200, High: 200}}, ": 204 x"},
		{"302", "in 200", nil, ""}, // followed
		{"302", "in 302", []p2pnode.StatusRange{{Low: 302, High: 302}}, ""},
		{"302", "in 200", []p2pnode.StatusRange{{Low: 200, High: 200}}, ""},
		{"302", "", []p2pnode.StatusRange{{Low: 204, High: 204}}, ": 200 x"},
	} {
		err := Ask(t.Context(), p2pnode.Check{HTTP: "http://" + addr + "/" + c.path, Body: c.body, Status: c.status, Timeout: 10 * time.Second}, nil)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestHeartbeatFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "beat")
	c := p2pnode.Check{File: path, Newer: time.Minute}
	if err := Ask(t.Context(), c, nil); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no file: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Ask(t.Context(), c, nil); err != nil {
		t.Errorf("a fresh one: %v", err)
	}
	old := time.Now().Add(-2 * time.Minute)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	if err := Ask(t.Context(), c, nil); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "no heartbeat") {
		t.Errorf("an old one: %v", err)
	}
}

func FuzzHealthStatus(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 2, 8, 1})
	f.Add([]byte{0, 0, 0, 0, 1, 8})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if status, err := healthStatus(raw); err != nil && status != 0 {
			t.Fatal("a status of a damaged answer")
		}
	})
}
