// Package demo tries the demo itself, as somebody does who does not trust it: what
// it prints for machines, that it leaves nothing behind however it ends, and that
// it sees a repair that was none.
package demo

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/bin"
	"p2pnode/test/host"
)

// own copies the binary to a place of its own: whatever runs from there is the
// demo's, and nobody else's.
func own(t *testing.T, binary string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "p2pnode")
	bin.Copy(t, binary, path, "")
	t.Cleanup(func() {
		for _, pid := range running(path) {
			syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	return path
}

// running are the pids of all processes of that binary, whatever they call
// themselves.
func running(path string) (out []int) {
	exes, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, exe := range exes {
		if to, err := os.Readlink(exe); err == nil && strings.TrimSuffix(to, " (deleted)") == path {
			var pid int
			if json.Unmarshal([]byte(filepath.Base(filepath.Dir(exe))), &pid) == nil {
				out = append(out, pid)
			}
		}
	}
	return out
}

func demo(path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, append([]string{"demo"}, args...)...)
	cmd.Env = append(os.Environ(), "NO_COLOR=1")
	return cmd
}

// What `demo -o json` promises to scripts, and that it ends clean.
func TestForMachines(t *testing.T) {
	path := own(t, bin.P2pnode(t))
	began := time.Now()
	out, err := demo(path, "-o", "json").Output()
	took := time.Since(began)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if left := running(path); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if took > time.Minute {
		t.Errorf("it took %v", took)
	}
	var doc struct {
		Schema string
		OK     bool
		Nodes  int
		TookMS float64 `json:"took_ms"`
		Faults []struct {
			Fault      string
			Node       string
			Service    string
			InjectedAt time.Time `json:"injected_at"`
			OutageMS   float64   `json:"outage_ms"`
			Repaired   bool
			Brake      *bool
			Incident   *p2pnode.Incident
			KnownBy    int `json:"known_by"`
		}
	}
	if err := json.Unmarshal(out, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Schema != "p2pnode/demo/v1" || !doc.OK || doc.Nodes != 5 || doc.TookMS < 1000 || doc.TookMS > p2pnode.Milliseconds(took) {
		t.Errorf("%+v", doc)
	}
	var faults []string
	living := 5
	for _, f := range doc.Faults {
		faults = append(faults, f.Fault)
		if f.Fault == "host-gone" {
			living--
		}
		if f.Node == "" || f.InjectedAt.Before(began) || f.Brake == nil || *f.Brake {
			t.Errorf("%+v", f)
		}
		if f.Fault == "host-gone" {
			continue
		}
		i := f.Incident
		if !f.Repaired || f.OutageMS <= 0 || f.KnownBy != living || i == nil {
			t.Errorf("%+v", f)
			continue
		}
		if i.State != p2pnode.IncidentRecovered || i.VerifiedAt.IsZero() || i.By.Kind != p2pnode.ByAgent || i.By.Fallback {
			t.Errorf("%s: %+v", f.Fault, i)
		}
		switch {
		case f.Fault == "node-kill" && (i.Hops < 1 || len(i.Trail) < 3 || i.By.Node == f.Node || f.Service != ""):
			t.Errorf("a node process repaired without travel: %+v", i)
		case f.Fault != "node-kill" && (i.Hops != 0 || i.By.Node != f.Node || f.Service != "web"):
			t.Errorf("a service repaired by another than its resident agent: %+v", i)
		}
	}
	want := []string{"service-kill", "node-kill", "service-stop", "service-deadlock", "host-gone", "node-kill", "service-kill"}
	if !slices.Equal(faults, want) {
		t.Errorf("faults %v, want %v", faults, want)
	}
}

// A demo that is killed, or asked to stop, at any moment leaves no process two
// seconds later; one that could clean up leaves no folder either.
func TestEndedEarlyItLeavesNothing(t *testing.T) {
	binary := bin.P2pnode(t)
	for name, c := range map[string]struct {
		at     string // words of its narration
		signal syscall.Signal
		code   int
	}{
		"killed while it starts":      {"hosts on this machine", syscall.SIGKILL, -1},
		"killed after a fault":        {"kill -9 of service", syscall.SIGKILL, -1},
		"killed during a node repair": {"kill -9 of the node process", syscall.SIGKILL, -1},
		"Ctrl-C":                      {"agent launched", syscall.SIGINT, p2pnode.ExitInterrupted},
		"SIGTERM":                     {"kill -9 of service", syscall.SIGTERM, p2pnode.ExitInterrupted},
	} {
		t.Run(name, func(t *testing.T) {
			path, temp := own(t, binary), t.TempDir()
			cmd := demo(path)
			cmd.Env = append(cmd.Env, "TMPDIR="+temp)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			for lines.Scan() && !strings.Contains(lines.Text(), c.at) {
			}
			if at := len(running(path)); at < 2 && c.at != "hosts on this machine" {
				t.Fatalf("%d processes run: the test would show nothing", at)
			}
			cmd.Process.Signal(c.signal)
			go io.Copy(io.Discard, out)
			if c.signal != syscall.SIGKILL {
				cmd.Wait() // it has its hosts to stop
			}
			var left []int
			if !host.Eventually(2*time.Second, func() bool { left = running(path); return len(left) == 0 }) {
				t.Errorf("2 s later %v still run", left)
			}
			if host.Eventually(300*time.Millisecond, func() bool { left = running(path); return len(left) > 0 }) {
				t.Errorf("started after the end: %v", left)
			}
			if c.signal == syscall.SIGKILL {
				cmd.Wait()
				return
			}
			if code := cmd.ProcessState.ExitCode(); code != c.code {
				t.Errorf("exit %d, want %d", code, c.code)
			}
			if kept, _ := filepath.Glob(filepath.Join(temp, "*")); len(kept) > 0 {
				t.Errorf("folders left: %v", kept)
			}
		})
	}
}

// An act that does nothing, planted in a test build: the demo exits 1 and names
// the incident.
func TestItSeesARepairThatWasNone(t *testing.T) {
	path := own(t, bin.Planted(t))
	cmd := demo(path, "-o", "json")
	cmd.Env = append(cmd.Env, "P2PNODE_PLANT=noop-recover", "TMPDIR="+t.TempDir())
	var out bytes.Buffer
	cmd.Stdout = &out
	began := time.Now()
	cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != p2pnode.ExitFailed {
		t.Fatalf("exit %d with a Recover that does nothing\n%s", code, out.String())
	}
	var doc struct {
		OK     bool
		Failed string
		Faults []struct {
			Repaired bool
			Incident *p2pnode.Incident
		}
	}
	if err := json.Unmarshal(out.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.OK || len(doc.Faults) != 1 || doc.Faults[0].Repaired || doc.Faults[0].Incident == nil || !strings.Contains(doc.Failed, doc.Faults[0].Incident.ID) {
		t.Errorf("%s", out.String())
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("it took %v", took)
	}
	if left := running(path); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
