package inits

import (
	"bufio"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pnode/test/bin"
	"p2pnode/test/need"
)

// kernelScript is PID 1 of a kernel until boot.sh is.
//
//go:embed testdata/kernel.sh
var kernelScript string

// kernel is a Linux of its own that runs as a process (user mode), with a systemd as its
// PID 1: a host with cgroup v2 alone and all of its controllers, whatever this one has.
// It reads this host's /usr, and its other files are in its memory. It ends with the test,
// however that one ends: it is PID 1 of a pid namespace.
type kernel struct {
	t    *testing.T
	line *os.File // the input of a shell in it
	out  *os.File
	says *bufio.Reader // of out, a line for each command
}

// shellUnit is a unit that runs a shell on the kernel's second console: a line is a
// command, and is answered with its exit code and its output in base64.
const shellUnit = `[Service]
ExecStart=/bin/sh -c 'stty raw -echo; echo ready; while read -r line; do out=$$(eval "$$line" 2>&1 </dev/null); code=$$?; echo "$$code $$(printf %%s "$$out" | base64 -w0)"; done'
Environment=PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
StandardInput=tty-force
StandardOutput=tty
TTYPath=/dev/tty1
`

// file is one that a kernel is to have: a copy of one of this host, or a text.
type file struct{ from, text string }

// bootKernel returns when systemd says that all is started. files, by their paths in it,
// are laid over the kernel's own.
func bootKernel(t *testing.T, files map[string]file) *kernel {
	t.Helper()
	need.Root(t, "the root folder of a kernel in user mode is made by mounts")
	need.Program(t, "linux.uml", "user-mode-linux")
	need.Program(t, systemdInit, "systemd")
	dir := t.TempDir()
	lay := func(path string, f file) {
		t.Helper()
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if f.from != "" {
			bin.Copy(t, f.from, path, "")
		} else {
			bin.Write(t, path, []byte(f.text))
		}
	}
	lay("root/here", file{})
	lay("boot.sh", file{text: bootScript})
	lay("init", file{text: kernelScript})
	lay("files/etc/systemd/system/shell.service", file{text: shellUnit})
	lay("files/etc/systemd/system/multi-user.target.d/shell.conf", file{text: "[Unit]\nWants=shell.service\n"})
	for path, f := range files {
		lay("files/"+path, f)
	}

	words, err := os.Create(filepath.Join(dir, "words"))
	if err != nil {
		t.Fatal(err)
	}
	defer words.Close()
	in, line, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	says, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("linux.uml", "mem=512M", "rootfstype=hostfs", "rootflags=/", "ro", "init="+filepath.Join(dir, "init"), "dir="+dir,
		"cgroup_no_v1=all", "quiet", "con=null", "con0=null,fd:1", "con1=fd:3,fd:4", "uml_dir="+dir)
	cmd.Env = []string{"HOME=" + dir, "PATH=/usr/bin:/bin"}
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = words, words, []*os.File{in, out}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Setsid: true, Pdeathsig: syscall.SIGKILL}
	if err = cmd.Start(); errors.Is(err, syscall.EPERM) {
		need.Had(t, fmt.Errorf("no namespaces may be made here: %w", err))
	}
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
	out.Close()
	t.Cleanup(func() {
		if t.Failed() {
			raw, _ := os.ReadFile(words.Name())
			t.Logf("the kernel says:\n%s", raw[max(0, len(raw)-8000):])
		}
		cmd.Process.Kill()
		cmd.Wait()
		line.Close()
		says.Close()
	})
	k := &kernel{t: t, line: line, out: says, says: bufio.NewReader(says)}
	says.SetReadDeadline(time.Now().Add(3 * patience))
	for said := ""; !strings.Contains(said, "ready"); {
		if said, err = k.says.ReadString('\n'); err != nil {
			t.Fatalf("the kernel does not boot: %q %v", said, err)
		}
	}
	k.until("systemd is up", `[ "$(systemctl is-system-running)" = running ]`)
	return k
}

// in runs a line of shell in the kernel, as root.
func (k *kernel) in(line string) (out string, ok bool) {
	k.t.Helper()
	if _, err := fmt.Fprintln(k.line, line); err != nil {
		k.t.Fatal(err)
	}
	k.out.SetReadDeadline(time.Now().Add(patience))
	said, err := k.says.ReadString('\n')
	code, text, _ := strings.Cut(strings.TrimSpace(said), " ")
	raw, err64 := base64.StdEncoding.DecodeString(text)
	if err = errors.Join(err, err64); err != nil {
		k.t.Fatalf("%s: %q %v", line, said, err)
	}
	return string(raw), code == "0"
}

// ok runs what must succeed.
func (k *kernel) ok(line string) string {
	k.t.Helper()
	out, ok := k.in(line)
	if !ok {
		k.t.Fatalf("%s fails:\n%s", line, out)
	}
	return out
}

// until waits until a line of shell succeeds.
func (k *kernel) until(what, line string) {
	k.t.Helper()
	var out string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		var ok bool
		if out, ok = k.in(line); ok {
			return
		}
	}
	k.t.Fatalf("not within %v: %s: %s\n%s", patience, what, line, out)
}
