package chaos

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// The janitor is this test binary again, in a session of its own. It sweeps when
// its stdin closes: at the end of a run, and just so when the run is interrupted or
// killed. There is no other way in which a run is cleaned up.

const (
	janitorRun = "P2PNODE_CHAOS_JANITOR" // the run to sweep
	janitorDir = "P2PNODE_CHAOS_DIR"     // its folder
	keepFolder = "keep"                  // said on stdin: the folder stays for reading
)

// Janitor is the janitor's whole life, if this process is one; TestMain asks.
func Janitor() (code int, is bool) {
	run := os.Getenv(janitorRun)
	if run == "" {
		return 0, false
	}
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	keep := false
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		keep = keep || lines.Text() == keepFolder
	}
	var err error
	for range 5 { // a container that was being made appears a moment later
		if err = sweep(run); err == nil && len(remains(run)) == 0 {
			break
		}
		time.Sleep(500 * time.Millisecond)
	}
	if dir := os.Getenv(janitorDir); dir != "" && !keep && strings.Contains(dir, run) {
		os.RemoveAll(dir)
	}
	if err != nil {
		return 1, true
	}
	return 0, true
}

// janitor is the run's side of it.
type janitor struct {
	cmd  *exec.Cmd
	pipe *os.File
}

func startJanitor(run, dir string) (*janitor, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), janitorRun+"="+run, janitorDir+"="+dir)
	cmd.Stdin = r
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		w.Close()
		return nil, err
	}
	return &janitor{cmd, w}, nil
}

// close has everything swept and waits for it.
func (j *janitor) close(keep bool) error {
	if keep {
		fmt.Fprintln(j.pipe, keepFolder)
	}
	j.pipe.Close()
	return j.cmd.Wait()
}
