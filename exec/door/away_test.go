package door

import (
	"bufio"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"p2pnode/exec/logs"
)

// take is an exec that takes away what the keeper wrote down for web in dir.
func take(dir string) {
	l, err := logs.Open(logs.Config{RunDir: dir, LogDir: dir, Service: "web"})
	if err != nil {
		panic(err)
	}
	l.Retain(1<<20, logs.MaxKeep)
	fmt.Println("takes")
	l.TakeAway()
}

// Absence after absence, and an exec that is killed anywhere in taking what the keeper
// wrote: the keeper goes on in what is left, under other names too. In the end each byte
// is in the log once.
func TestEachAbsenceIsInTheLogOnce(t *testing.T) {
	dir := t.TempDir()
	path := logs.AwayPath(dir, "web")
	size := func(name string) (n int64, there bool) {
		info, err := os.Stat(name)
		if err != nil {
			return 0, false
		}
		return info.Size(), true
	}
	const line, rounds = 64, 150
	printed, kills, renamed := 0, 0, 0
	for range rounds {
		head, _ := size(path)
		newest, _ := size(path + logs.AwayNewest)
		_, full := size(path + logs.AwayOlder)
		room := 2*maxAway - head - newest
		if !full {
			room += maxAway
		}
		was, _ := os.Stat(path + logs.AwayNewest)
		a := openAway(path)
		for range rand.Int64N(room/line + 1) {
			a.write(fmt.Appendf(nil, "%0*d\n", line-1, printed))
			printed++
		}
		a.close()
		if a.dropped > 0 {
			t.Fatalf("%d bytes of %d were dropped: this test must not", a.dropped, room)
		}
		if older, err := os.Stat(path + logs.AwayOlder); err == nil && was != nil && os.SameFile(was, older) {
			renamed++
		}

		cmd := osexec.Command("/proc/self/exe", "part:take", dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond)
		cmd.Process.Kill()
		cmd.Wait()
		if _, left := size(filepath.Join(dir, ".web.away.taking")); left {
			kills++
		}
	}
	if out, err := osexec.Command("/proc/self/exe", "part:take", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("%d lines in %d absences, %d kills in the middle of a file, %d of the newest file renamed since", printed, rounds, kills, renamed)
	if kills == 0 {
		t.Error("no kill came in the middle: this shows nothing")
	}
	seen, bytes := map[string]bool{}, 0
	files, _ := fs.Glob(os.DirFS(dir), "web.log*")
	slices.Sort(files)
	for _, name := range files {
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		bytes += len(raw)
		for text := range strings.Lines(string(raw)) {
			if len(text) == line && seen[text] {
				t.Fatalf("line %s is there twice", text)
			}
			seen[text] = true
		}
	}
	if bytes != printed*line {
		t.Errorf("%d bytes are in the log, %d were printed", bytes, printed*line)
	}
}
