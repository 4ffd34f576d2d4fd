package exec

import (
	"bytes"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/need"

	"golang.org/x/sys/unix"
)

// floodLine is a line of a flood, of its number.
const floodLine = "line %12d of a flood that fills a disk\n"

// floodPart prints numbered lines without end; on SIGUSR1 it writes down how many, and
// prints nothing more.
func floodPart(said string) {
	enough := make(chan os.Signal, 1)
	signal.Notify(enough, syscall.SIGUSR1)
	var lines []byte
	for n := 0; ; {
		lines = lines[:0]
		for range 1000 {
			n++
			lines = fmt.Appendf(lines, floodLine, n)
		}
		if _, err := os.Stdout.Write(lines); err != nil {
			os.Exit(1)
		}
		select {
		case <-enough:
			p2pnode.WriteFile(said, []byte(strconv.Itoa(n)), 0o600)
			time.Sleep(time.Hour)
		default:
		}
	}
}

// missing are the lines that say in a log how much of the output is not there.
var missing = regexp.MustCompile(`\n\[(\d+) bytes were (?:left out|dropped)[^\n]*\]\n`)

// onDisk is how many bytes of a service's output are in its log, and how many the log
// says are missing. The log is small enough never to be rotated.
func onDisk(t *testing.T, path string) (there, missed int) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	there = len(raw)
	for _, m := range missing.FindAllSubmatch(raw, -1) {
		n, _ := strconv.Atoi(string(m[1]))
		there, missed = there-len(m[0]), missed+n
	}
	return there, missed
}

// A disk that a flood has filled holds nobody up: the service prints on, a neighbour is
// restarted as ever. What is not in the file is counted to the byte, by ps and, once
// there is room, by the file itself; memory has the newest lines.
func TestAFloodFillsTheDisk(t *testing.T) {
	need.Root(t, "it mounts a small disk")
	dir := t.TempDir()
	logs, said := logDir(dir), filepath.Join(t.TempDir(), "said")
	if err := os.Mkdir(logs, 0o700); err != nil {
		t.Fatal(err)
	}
	need.Had(t, unix.Mount("tmpfs", logs, "tmpfs", 0, "size=7m"))
	t.Cleanup(func() { unix.Unmount(logs, unix.MNT_DETACH) })
	var ballast []string
	for i := range 2 {
		ballast = append(ballast, filepath.Join(logs, fmt.Sprint("ballast", i)))
		if err := os.WriteFile(ballast[i], make([]byte, 2<<20), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	web, db := service("web", "part:sleep"), service("db", "part:sleep")
	h := newHost(t, daemonConfig{On: dir, Services: []p2pnode.ServiceSpec{web, db}})
	restart := func(name string) time.Duration { // the first failure of each: no backoff
		t.Helper()
		old := h.await(name, p2pnode.StateUp).PID
		began := time.Now()
		kill9(t, old)
		h.awaitNew(name, old)
		return time.Since(began)
	}
	alone := restart("web")

	h.reload(web, db, service("flood", "part:flood", said))
	flood := h.await("flood", p2pnode.StateUp).PID
	path := filepath.Join(logs, "flood.log")
	full := func(when string) {
		t.Helper()
		was := h.status("flood").LogDropped
		eventually(t, when+" the disk is full", func() bool { return h.status("flood").LogDropped > was })
		for range 3 { // pipes and memory hold less than that
			taken := written(t, flood)
			eventually(t, when+" it prints on", func() bool { return written(t, flood) > taken+(16<<20) })
		}
	}
	full("at first")
	beside := restart("db")
	t.Logf("a neighbour's restart: %v alone, %v beside a flood on a full disk", alone, beside)
	if beside > max(10*alone, 2*time.Second) {
		t.Errorf("a neighbour's restart took %v, alone %v", beside, alone)
	}
	os.Remove(ballast[0])
	eventually(t, "the file goes on once there is room, and says what is missing", func() bool { _, n := onDisk(t, path); return n > 0 })
	full("again")

	unix.Kill(flood, unix.SIGUSR1)
	var all int
	eventually(t, "it has said how much it printed", func() bool {
		raw, err := os.ReadFile(said)
		n, _ := strconv.Atoi(string(raw))
		all = n * len(fmt.Sprintf(floodLine, n))
		return err == nil
	})
	if got := h.status("flood"); got.PID != flood || got.Restarts != 0 {
		t.Errorf("the flood was restarted: %+v", got)
	}
	os.Remove(ballast[1])
	var there, missed int
	var st p2pnode.ServiceStatus
	t.Cleanup(func() {
		t.Logf("%d bytes printed, %d are there, %d are missing by the file, %d dropped and %d left out by ps", all, there, missed, st.LogDropped, st.LogLeftOut)
	})
	eventually(t, "every byte is there or counted", func() bool {
		there, missed = onDisk(t, path)
		st = h.status("flood")
		return there+missed == all && there+int(st.LogDropped+st.LogLeftOut) == all
	})
	last := fmt.Appendf(nil, floodLine, all/len(fmt.Sprintf(floodLine, 1)))
	lines, err := h.c.Logs(t.Context(), LogQuery{Services: []string{"flood"}, Lines: 1})
	if err != nil {
		t.Fatal(err)
	}
	for line := range lines {
		if !bytes.Equal(fmt.Appendln(nil, line.Text), last) {
			t.Errorf("the newest line is %q, want %q", line.Text, last)
		}
	}
}
