package chaos

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"p2pnode/test/bin"
	"p2pnode/test/host"
	"p2pnode/test/need"
)

// interruptMe makes TestInterruptedChild run, in a process that is to be killed.
const interruptMe = "P2PNODE_CHAOS_INTERRUPT"

// A run that is killed in the middle leaves no container, network, volume, image,
// process or folder.
func TestNothingIsLeft(t *testing.T) {
	need.Root(t, "processes of containers are watched from outside")
	need.Docker(t)
	cmd := exec.Command("/proc/self/exe", "-test.run", "^TestInterruptedChild$", "-test.v")
	cmd.Env = append(os.Environ(), interruptMe+"=1", "P2PNODE_BIN="+bin.P2pnode(t))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	run := ""
	var said []string
	for lines := bufio.NewScanner(out); run == "" && lines.Scan(); {
		said = append(said, lines.Text())
		run, _ = strings.CutPrefix(lines.Text(), "started ")
		if !strings.HasPrefix(lines.Text(), "started ") {
			run = ""
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
	if run == "" {
		t.Fatalf("it never started:\n%s", strings.Join(said, "\n"))
	}
	if !host.Eventually(30*time.Second, func() bool {
		_, err := os.Stat(filepath.Join(os.TempDir(), run))
		return len(remains(run)) == 0 && os.IsNotExist(err) && len(mentioning(run)) == 0
	}) {
		t.Errorf("30 s after the run was killed: %v, processes %v", remains(run), mentioning(run))
	}
}

// mentioning are the processes that have text in their arguments or environment.
func mentioning(text string) (out []string) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		args, _ := os.ReadFile(dir + "/cmdline")
		env, _ := os.ReadFile(dir + "/environ")
		if strings.Contains(string(args)+string(env), text) {
			out = append(out, dir)
		}
	}
	return slices.Clip(out)
}

// TestInterruptedChild is no test by itself: it runs in the process that
// TestNothingIsLeft kills.
func TestInterruptedChild(t *testing.T) {
	if os.Getenv(interruptMe) == "" {
		return
	}
	f := New(t, bin.P2pnode(t))
	f.Start(2)
	fmt.Printf("started %s\n", f.run)
	select {}
}
