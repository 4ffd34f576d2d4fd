// Package keep tries that exec keeps what it has, whatever happens to exec: real
// binaries, real services, and witnesses that are none of ours. A service's own
// ledger (a lock, held for life) tells of every start and of every second copy; its
// numbered lines tell of every line that is missing; the code that it exits with is
// made of its incarnation, so that a wrong or lost one shows.
//
// Short forms run with the other tests; `make upgrades`, `make kills` and `make
// absence` run the long ones.
package keep

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"p2pnode"
	kept "p2pnode/exec"
	"p2pnode/test/bin"
	"p2pnode/test/host"
)

// Host is one p2pnode whose binary is a file of its own, so that it can be replaced.
type Host struct {
	*host.Host
	T      testing.TB
	Victim string
	Binary string // the installed one
}

// victims builds the service program.
func victims(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "victim")
	cmd := exec.Command("go", "build", "-o", path, "./test/victim")
	cmd.Dir = bin.Root(t)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return path
}

// New starts a host alone; services makes the service section, given the victim
// program and a folder for ledgers.
func New(t testing.TB, services func(victim, dir string) string) *Host {
	t.Helper()
	return newBehind(t, nil, services)
}

// newBehind is New with argv before the binary.
func newBehind(t testing.TB, prefix []string, services func(victim, dir string) string) *Host {
	t.Helper()
	f := host.NewFleet(t, "")
	h := &Host{T: t, Victim: victims(t), Binary: filepath.Join(f.Dir, "bin", "p2pnode")}
	if err := os.MkdirAll(filepath.Dir(h.Binary), 0o700); err != nil {
		t.Fatal(err)
	}
	bin.Copy(t, bin.P2pnode(t), h.Binary, "")
	f.Bin = h.Binary
	h.Host = f.Add("solo").Configure("grace: {node: 200ms}\nservices:\n" + services(h.Victim, f.Dir))
	h.Prefix = prefix
	h.Start("--listen", "127.0.0.1:0", "--door", "127.0.0.1:0")
	f.Must(20*time.Second, "the node process is up", func() bool { return h.Sees("solo") })
	return h
}

// variant is another file of the same program.
func variant(t testing.TB, from, to, end string) string {
	t.Helper()
	bin.Copy(t, from, to, end)
	return to
}

// status asks exec; nil if it does not answer.
func (h *Host) status() *p2pnode.ExecStatus {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	c, err := kept.Dial(ctx, h.Dir, kept.RoleCLI)
	if err != nil {
		return nil
	}
	defer c.Close()
	st, err := c.Status(ctx)
	if err != nil {
		return nil
	}
	return &st
}

// service is one of a status; the zero value if it is not there.
func service(st *p2pnode.ExecStatus, name string) p2pnode.ServiceStatus {
	if st != nil {
		for _, s := range st.Services {
			if s.Name == name {
				return s
			}
		}
	}
	return p2pnode.ServiceStatus{}
}

// pids are those of the services whose names begin with prefix; nil unless all are
// up.
func (h *Host) pids(prefix string) map[string]int {
	st := h.status()
	if st == nil {
		return nil
	}
	out := map[string]int{}
	for _, s := range st.Services {
		if strings.HasPrefix(s.Name, prefix) {
			if s.State != p2pnode.StateUp || s.PID == 0 {
				return nil
			}
			out[s.Name] = s.PID
		}
	}
	return out
}

// starts are the lines of a ledger, and how many copies began while another lived.
func starts(t testing.TB, ledger string) (n, second int) {
	t.Helper()
	raw, err := os.ReadFile(ledger)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		n++
		if strings.Contains(line, "second") {
			second++
		}
	}
	return n, second
}

// logged are the lines of a service's log files.
func (h *Host) logged(name string) (lines []string) {
	for _, suffix := range []string{".log.1", ".log"} {
		raw, err := os.ReadFile(filepath.Join(h.Dir, "logs", name+suffix))
		if err == nil {
			lines = append(lines, strings.Split(string(raw), "\n")...)
		}
	}
	return lines
}

// gaps are what is missing, or wrong, in the numbered lines of a service's log
// files; count is the highest number.
func (h *Host) gaps(name string) (gaps []string, count int) {
	for _, line := range h.logged(name) {
		number, ok := strings.CutPrefix(strings.TrimSpace(line), "count ")
		if !ok {
			continue
		}
		n, err := strconv.Atoi(number)
		if err != nil || n != count+1 {
			gaps = append(gaps, fmt.Sprintf("%q after %d", line, count))
		}
		count = n
	}
	return gaps, count
}

// rounds is how often, by default or as P2PNODE_ROUNDS says.
func rounds(t testing.TB, short int) int {
	text := os.Getenv("P2PNODE_ROUNDS")
	if text == "" {
		return short
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("P2PNODE_ROUNDS=%s is no number", text)
	}
	return n
}
