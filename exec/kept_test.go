package exec

import (
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"p2pnode"
)

// How much of a log is kept is a rule about a service: said anew it holds at once, and
// the process is not touched. A log in many files is read as one, also by an exec that
// comes after a kill of the one that wrote it.
func TestWhatIsKeptOfALog(t *testing.T) {
	web := p2pnode.ServiceSpec{
		Name: "web", LogSize: 200000, LogKeep: 5,
		Command: []string{"/bin/sh", "-c", "n=0; while :; do seq -f %0100.0f $n $((n+199)); n=$((n+200)); sleep 0.02; done"},
	}
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{web}, Door: true})
	path := filepath.Join(logDir(h.dir), "web.log")
	files := func(n int) func() bool {
		return func() bool { found, _ := filepath.Glob(path + "*"); return len(found) == n }
	}
	whole := func(when string, least int) {
		t.Helper()
		lines := h.log("web")
		for i := 1; i < len(lines); i++ {
			was, err := strconv.Atoi(lines[i-1])
			now, bad := strconv.Atoi(lines[i])
			if i == 1 && err != nil || i == 1 && len(lines[0]) < 100 {
				continue // the oldest file begins somewhere in a line
			}
			if i == len(lines)-1 && len(lines[i]) < 100 {
				break // the newest has no end yet
			}
			if err != nil || bad != nil || now != was+1 {
				t.Fatalf("%s: line %d is %q, after %q", when, i, lines[i], lines[i-1])
			}
		}
		if len(lines) < least {
			t.Errorf("%s: %d lines", when, len(lines))
		}
	}
	was := h.await("web", p2pnode.StateUp)
	eventually(t, "it is rotated", files(6))
	whole("rotated", 8000)
	h.withoutExec(func() {})
	if now := h.await("web", p2pnode.StateUp); now.PID != was.PID {
		t.Fatalf("%d was not adopted, now %d", was.PID, now.PID)
	}
	whole("adopted", 8000)

	found, err := h.c.Logs(t.Context(), LogQuery{Services: []string{"web"}, Lines: 100000, Grep: "[05]00$"})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for l := range found {
		if n++; !strings.HasSuffix(l.Text, "00") || strings.HasSuffix(l.Text, "200") {
			t.Errorf("%q does not match", l.Text)
		}
	}
	if n < 10 || n > 1000 {
		t.Errorf("%d lines match", n)
	}
	if _, err := h.c.Logs(t.Context(), LogQuery{Grep: "("}); p2pnode.ExitCode(err) != p2pnode.ExitUsage {
		t.Errorf("a pattern that is none: %v", err)
	}

	less := web
	less.LogKeep = 2
	h.reload(less)
	eventually(t, "what is too much goes", files(3))
	again, err := h.c.Reload(t.Context(), true)
	if err != nil || !slices.Equal(again.Kept, []string{"web"}) {
		t.Errorf("once more: %+v, %v", again, err)
	}
	whole("of less", 4000)
	h.reload(web)
	eventually(t, "it is rotated to more again", files(6))
	whole("of more again", 8000)
	if now := h.status("web"); now.PID != was.PID {
		t.Errorf("%d was restarted, now %d", was.PID, now.PID)
	}
}
