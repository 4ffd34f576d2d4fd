package keep

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/history"
	"p2pnode/test/host"
)

// absence is how long nobody is there but the door.
func absence(t testing.TB) time.Duration {
	text := os.Getenv("P2PNODE_ABSENCE")
	if text == "" {
		return 20 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// wide is the number of a line with the spaces after it: 200 kB of lines a second, which
// is more than the door keeps of an absence of 20 s.
const wide = 193

// fits is what the door keeps of an absence without leaving anything out.
const fits = 512 << 10

// TestNobodyIsThere: exec and node process are dead for a while and nobody starts
// exec again, while a service prints 200 kB a second. It answers every request, it is
// never held up, and then it goes on under the next exec: in the log are its first
// line of that time and its last one, and what was left out is counted, to the byte.
func TestNobodyIsThere(t *testing.T) {
	t.Parallel()
	away, port := absence(t), freePorts(t, 1)[0]
	h := New(t, func(victim, dir string) string {
		return fmt.Sprintf("  web: {command: [%s, -ledger, %s/web, -port, \"%d\", -count, 1ms, -wide, \"%d\"]}\n", victim, dir, port, wide)
	})
	h.Fleet.Must(20*time.Second, "web answers", func() bool { return len(h.pids("")) == 1 && h.answers(port) })
	h.Fleet.Must(20*time.Second, "the door holds its output", func() bool { return holds(h.Role("door"), "web-") })
	web, st := h.pids("")["web"], h.status()

	if err := os.Remove(filepath.Join(h.Dir, "run", "guard.json")); err != nil { // nobody knows how to start exec
		t.Fatal(err)
	}
	h.Kill(p2pnode.SelfExec, p2pnode.ClassExecDead, st.PID)
	h.Kill(p2pnode.SelfNode, p2pnode.ClassProcessDead, st.Node.PID)
	h.Wait()
	_, before := h.gaps("web")
	asked, unanswered := 0, 0
	for began := time.Now(); time.Since(began) < away; asked++ {
		if !h.answers(port) {
			unanswered++
		}
		time.Sleep(20 * time.Millisecond)
	}
	if was := written(web); !host.Eventually(5*time.Second, func() bool { return written(web) > was }) {
		t.Error("it was held up: nobody reads what it prints")
	}
	if h.Exec() != 0 || h.Role("node") != 0 {
		t.Fatal("somebody was there")
	}
	if asked < int(away/time.Second) || unanswered > 0 {
		t.Errorf("%d of %d requests were not answered", unanswered, asked)
	}

	h.Start("--listen", "127.0.0.1:0", "--door", "127.0.0.1:0")
	h.Fleet.Must(60*time.Second, "the next exec has it", func() bool { return h.pids("")["web"] == web })
	h.Fleet.Must(60*time.Second, "the log goes on", func() bool {
		_, now := h.gaps("web")
		return now > before+int(away/(10*time.Millisecond))
	})
	gaps, now := h.gaps("web")
	dropped, printed := h.leftOut("web"), 0
	for _, line := range h.logged("web") {
		printed += len(line) + 1
	}
	if there, all := h.span("web", before, now), (now-before)*len(fmt.Sprintf("count %-*d\n", wide, 0)); there+dropped != all {
		t.Errorf("lines %d to %d are %d bytes: %d are there and %d are counted as left out, which is %d", before+1, now, all, there, dropped, there+dropped)
	}
	first := fmt.Sprint("count ", before+1)
	if !slices.ContainsFunc(h.logged("web"), func(line string) bool { return strings.TrimSpace(line) == first }) {
		t.Errorf("the first line of the absence, %d, is not there", before+1)
	}
	if len(gaps) > 2 || (len(gaps) > 0) != (dropped > 0) || (dropped > 0 && printed < fits) {
		t.Errorf("%d lines, %d gaps, %d bytes left out: %q", now, len(gaps), dropped, gaps[:min(len(gaps), 5)])
	}
	if dropped == 0 && away >= 20*time.Second {
		t.Errorf("nothing of %d lines was left out: this shows nothing", now-before)
	}
	t.Logf("away for %v: %d of %d requests answered, lines %d to %d, %d bytes left out and counted", away, asked-unanswered, asked, before+1, now, dropped)
	h.startsOf([]string{"web"}, nil)
	h.Fleet.Judge(history.Options{})
}

// answers asks a service once, and is patient.
func (h *Host) answers(port int) bool {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	return err == nil && len(raw) > 0
}

// written is how many bytes a process has written so far.
func written(pid int) (n int) {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	for line := range strings.Lines(string(raw)) {
		fmt.Sscanf(line, "wchar: %d", &n)
	}
	return n
}

// leftOut are the bytes that a service's log says are missing.
func (h *Host) leftOut(name string) (all int) {
	for _, line := range h.logged(name) {
		n := 0
		if _, err := fmt.Sscanf(line, "[%d bytes were dropped", &n); err == nil {
			all += n
		}
	}
	return all
}

// noted are the lines of ours in a log, which count what is missing there.
var noted = regexp.MustCompile(`\n\[\d+ bytes were dropped while exec was away\]\n`)

// span is how many bytes that a service printed after a numbered line, up to another
// one with its end, are in its log.
func (h *Host) span(name string, from, to int) int {
	h.T.Helper()
	var text []byte
	for _, suffix := range []string{".log.1", ".log"} {
		raw, _ := os.ReadFile(filepath.Join(h.Dir, "logs", name+suffix))
		text = append(text, raw...)
	}
	raw := noted.ReplaceAllString(string(text), "")
	end := func(n int) int {
		line := fmt.Sprintf("count %-*d\n", wide, n)
		at := strings.LastIndex(raw, line)
		if at < 0 {
			h.T.Fatalf("line %d is not in the log of %s", n, name)
		}
		return at + len(line)
	}
	return end(to) - end(from)
}

// holds reports whether a process has a FIFO open whose name begins with prefix.
func holds(pid int, prefix string) bool {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && strings.HasPrefix(filepath.Base(to), prefix) {
			return true
		}
	}
	return false
}
