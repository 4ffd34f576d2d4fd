package manage

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"p2pnode"
)

func TestRepairsAreCountedOnce(t *testing.T) {
	reg := prometheus.NewRegistry()
	r := NewRepairs(reg)
	r.Observe(acted(1, 90))
	done := verified(2, 3090)
	done.Timing = p2pnode.Timing{Detect: 4, Travel: 1, Verify: 3000, Total: 90} // it repeats the early steps
	r.Observe(done)
	got := map[string]uint64{}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if h := m.GetHistogram(); h != nil {
				got[m.GetLabel()[1].GetValue()] = h.GetSampleCount()
			}
		}
	}
	for _, step := range []string{"detect", "travel", "verify", "total"} {
		if got[step] != 1 {
			t.Errorf("%s was measured %d times, want 1: %v", step, got[step], got)
		}
	}
	if _, there := got["dispatch"]; there {
		t.Errorf("a step that did not happen is measured: %v", got)
	}
}

func TestMetricsOnTheSocket(t *testing.T) {
	w := healthy()
	w.host.DoorRefused = map[string]uint64{"stranger": 5}
	reg := prometheus.NewRegistry()
	reg.MustRegister(NewHostMetrics(w))
	_, c := serve(t, w)
	if code, _ := get(t, c.http, "http://node/metrics"); code != http.StatusNotFound {
		t.Errorf("without a gatherer: %d", code)
	}
	a := w.api(true)
	a.cfg.Gatherer, a.cfg.Data = reg, t.TempDir()
	if err := os.Mkdir(filepath.Join(a.cfg.Data, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, d := serveAPI(t, a)
	code, text := get(t, d.http, "http://node/metrics")
	for _, line := range []string{`p2pnode_service_up{service="web"} 1`, `p2pnode_service_up{service="x"} 0`, `p2pnode_door_refused_total{reason="stranger"} 5`} {
		if code != http.StatusOK || !strings.Contains(text, line) {
			t.Errorf("%d, no %s in\n%s", code, line, text)
		}
	}
}

func TestMetricsPort(t *testing.T) {
	a := healthy().api(true)
	a.cfg.Gatherer = prometheus.NewRegistry()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.ServeMetrics(ctx, addr) }()
	var conn net.Conn
	for deadline := time.Now().Add(5 * time.Second); conn == nil; {
		if conn, err = net.Dial("tcp", addr); err != nil && time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	conn.Close()
	if code, _ := get(t, http.DefaultClient, "http://"+addr+"/metrics"); code != http.StatusOK {
		t.Errorf("%d", code)
	}
	if code, _ := get(t, http.DefaultClient, "http://"+addr+"/v1/status"); code != http.StatusNotFound {
		t.Errorf("verbs over TCP: %d", code)
	}
	req, _ := http.NewRequest(http.MethodGet, "http://"+addr+"/metrics", nil)
	req.Host = "evil.example"
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("another name: %v %v", resp, err)
	}
	resp.Body.Close()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func get(t *testing.T, c *http.Client, url string) (int, string) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(raw)
}
