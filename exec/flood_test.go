package exec

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"p2pnode"
)

// written is how many bytes a process has written, ever.
func written(t *testing.T, pid int) (n uint64) {
	t.Helper()
	raw, err := os.ReadFile(procPath(pid, "io"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(raw), "wchar: ")
	if _, err := fmt.Sscan(rest, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// One service prints without end: a neighbour's heartbeats are heard in time, a
// dead neighbour is restarted, the log on disk stays small, and exec answers.
func TestAFloodOfLogsHurtsNobody(t *testing.T) {
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{
		{Name: "flood", Command: []string{"yes", "a line of a flood of lines that nobody will ever read"}},
		{Name: "pulse", Command: []string{"/proc/self/exe", "part:pulse"}, Ready: p2pnode.ReadyNotify, Watchdog: 2 * time.Second},
		{Name: "victim", Command: []string{"sleep", "1000"}},
	}})
	for _, name := range []string{"flood", "pulse", "victim"} {
		h.await(name, p2pnode.StateUp)
	}
	flood, pulse := h.status("flood").PID, h.status("pulse").PID
	path := filepath.Join(logDir(h.dir), "flood.log")
	deadline := time.Now().Add(20 * time.Second)
	for info, err := os.Stat(path + ".1"); err != nil || info.Size() < 1<<20; info, err = os.Stat(path + ".1") {
		if time.Now().After(deadline) {
			t.Fatal("no flood: the log was never rotated")
		}
		time.Sleep(20 * time.Millisecond)
	}
	for range 2 {
		old := h.status("victim").PID
		time.Sleep(freeLife)
		kill9(t, old)
		h.awaitNew("victim", old)
	}
	taken, began := written(t, flood), time.Now()
	time.Sleep(2 * time.Second) // a whole period of the heartbeat beside the flood
	rate := float64(written(t, flood)-taken) / time.Since(began).Seconds()
	if got := h.status("pulse"); got.PID != pulse || got.State != p2pnode.StateUp {
		t.Errorf("beside a flood the heartbeats of pulse were missed: %+v", got)
	}
	if got := h.status("flood"); got.PID != flood {
		t.Errorf("the flooding service was restarted: %+v", got)
	}
	var kept int64
	for _, p := range []string{path, path + ".1"} {
		if info, err := os.Stat(p); err == nil {
			kept += info.Size()
		}
	}
	if kept > 40<<20 {
		t.Errorf("the log of a flood takes %d bytes", kept)
	}
	// A busy machine may take no more than the file may have.
	if got := h.status("flood"); got.LogLeftOut == 0 && rate > 15e6 || got.LogDropped != 0 || h.status("pulse").LogLeftOut != 0 {
		t.Errorf("of %.0f bytes a second %d left out, %d dropped; of pulse %d", rate, got.LogLeftOut, got.LogDropped, h.status("pulse").LogLeftOut)
	}
	lines, err := h.c.Logs(t.Context(), LogQuery{Services: []string{"flood"}, Lines: 3})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for range lines {
		n++
	}
	if n == 0 {
		t.Error("memory has no line of a flood")
	}
}
