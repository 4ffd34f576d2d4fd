package check

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"p2pnode"
)

// The benchmark's server is a process of its own: what it costs is not the check's.
func TestMain(m *testing.M) {
	if addr := os.Getenv("CHECK_BENCH_SERVER"); addr != "" {
		http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") }))
		return
	}
	os.Exit(m.Run())
}

// BenchmarkHTTPChecks says what a check costs: %core@200/s is the share of one core
// that two hundred of them a second would take of exec.
func BenchmarkHTTPChecks(b *testing.B) {
	const addr = "127.0.0.1:47291"
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), "CHECK_BENCH_SERVER="+addr)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	c := p2pnode.Check{HTTP: "http://" + addr + "/", Timeout: 5 * time.Second}
	for deadline := time.Now().Add(10 * time.Second); Ask(b.Context(), c, nil) != nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatal("the server does not answer")
		}
	}
	before := used(b)
	n := 0
	for b.Loop() {
		if err := Ask(b.Context(), c, nil); err != nil {
			b.Fatal(err)
		}
		n++
	}
	each := (used(b) - before) / time.Duration(n)
	b.ReportMetric(float64(each.Microseconds()), "cpu-µs/check")
	b.ReportMetric(float64(each)*200/float64(time.Second)*100, "%core@200/s")
}

func used(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(fmt.Errorf("getrusage: %w", err))
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
