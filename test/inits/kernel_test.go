package inits

import (
	"bufio"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/bin"
	"p2pnode/test/host"
	"p2pnode/test/need"
)

// kernelScript is PID 1 of a kernel until boot.sh is.
//
//go:embed testdata/kernel.sh
var kernelScript string

// kernel is a Linux of its own that runs as a process (user mode), with a systemd as its
// PID 1: a host with cgroup v2 alone and all of its controllers, whatever this one has.
// It reads this host's /usr; its other files are in its memory, or on a disk that outlives
// it. It ends with the test, however that one ends: it is PID 1 of a pid namespace.
type kernel struct {
	t     *testing.T
	line  *os.File // the input of a shell in it
	out   *os.File
	says  *bufio.Reader // of out, a line for each command
	cut   func() error  // takes its power away
	disk  string        // a file; "": it has none
	ended chan struct{} // closed when the kernel has
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
// are laid over the kernel's own; /etc and /var are on disk, unless that is "".
func bootKernel(t *testing.T, files map[string]file, disk string) *kernel {
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
		"cgroup_no_v1=all", "loglevel=7", "con=null", "con0=null,fd:1", "con1=fd:3,fd:4", "uml_dir="+dir)
	if disk != "" {
		cmd.Args = append(cmd.Args, "ubd0="+disk, "disk=yes")
	}
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
	k := &kernel{t: t, line: line, out: says, says: bufio.NewReader(says), cut: cmd.Process.Kill, disk: disk, ended: make(chan struct{})}
	go func() {
		defer close(k.ended)
		cmd.Wait()
	}()
	t.Cleanup(func() {
		if t.Failed() {
			raw, _ := os.ReadFile(words.Name())
			t.Logf("the kernel says:\n%s", raw[max(0, len(raw)-8000):])
		}
		k.cut()
		<-k.ended
		line.Close()
		says.Close()
	})
	k.ready()
	return k
}

// newDisk is an empty disk for kernels that come one after the other.
func newDisk(t *testing.T) string {
	t.Helper()
	need.Program(t, "mkfs.ext4", "e2fsprogs")
	path := filepath.Join(t.TempDir(), "disk")
	err := os.WriteFile(path, nil, 0o600)
	if err == nil {
		err = os.Truncate(path, 128<<20)
	}
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", path).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v\n%s", err, out)
	}
	return path
}

// goesDown tells systemd to end the host, and returns how long that took, from outside.
func (k *kernel) goesDown() time.Duration {
	k.t.Helper()
	began := time.Now()
	if _, err := fmt.Fprintln(k.line, "systemctl poweroff"); err != nil {
		k.t.Fatal(err)
	}
	for range knocks {
		select {
		case <-k.ended:
			return time.Since(began)
		case <-time.After(patience / knocks):
			fmt.Fprintln(k.line)
		}
	}
	k.t.Fatalf("the host is not down within %v\n%s", patience, k.remains())
	return 0
}

// remains is what a kernel that does not go down has to say: to the last command and of
// what systemd still does, should its shell live, and what exec's log has on the disk.
func (k *kernel) remains() string {
	var out strings.Builder
	fmt.Fprintln(k.line, "systemctl list-jobs; ps axo pid,ppid,stat,wchan,args")
	for range 2 + knocks {
		k.out.SetReadDeadline(time.Now().Add(5 * time.Second))
		said, err := k.says.ReadString('\n')
		code, text, _ := strings.Cut(strings.TrimSpace(said), " ")
		raw, _ := base64.StdEncoding.DecodeString(text)
		fmt.Fprintf(&out, "the shell: %s %s (%v)\n", code, raw, err)
	}
	if k.disk != "" {
		log, err := exec.Command("debugfs", "-c", "-R", "cat "+daemonLog, k.disk).Output()
		fmt.Fprintf(&out, "%s on the disk:\n%s (%v)\n", daemonLog, log[max(0, len(log)-8000):], err)
	}
	return out.String()
}

// comesBack has the kernel boot again, and returns when all is started.
func (k *kernel) comesBack() {
	k.t.Helper()
	if _, err := fmt.Fprintln(k.line, "systemctl reboot"); err != nil {
		k.t.Fatal(err)
	}
	k.ready()
}

// ready waits for the shell, then for systemd.
func (k *kernel) ready() {
	k.t.Helper()
	k.out.SetReadDeadline(time.Now().Add(3 * patience))
	for said := ""; !strings.Contains(said, "ready"); {
		var err error
		if said, err = k.says.ReadString('\n'); err != nil {
			k.t.Fatalf("the kernel does not boot: %q %v", said, err)
		}
	}
	k.until("systemd is up", `[ "$(systemctl is-system-running)" = running ]`)
}

// knocks is how often a kernel that gives no answer is sent an empty line within patience.
// On a crowded host one in some forty did not see that its input had come (it hears of
// that by SIGIO); it sees all of it with the next.
const knocks = 4

// answer is the shell's to the last line, and its answers to knocks are taken with it.
func (k *kernel) answer() (said string, err error) {
	for knocked := 0; ; knocked++ {
		k.out.SetReadDeadline(time.Now().Add(patience / knocks))
		var more string
		more, err = k.says.ReadString('\n')
		said += more
		if !errors.Is(err, os.ErrDeadlineExceeded) || knocked == knocks-1 {
			for ; err == nil && knocked > 0; knocked-- {
				_, err = k.says.ReadString('\n')
			}
			return said, err
		}
		k.t.Logf("no answer yet: knocking")
		fmt.Fprintln(k.line)
	}
}

// in runs a line of shell in the kernel, as root.
func (k *kernel) in(line string) (out string, ok bool) {
	k.t.Helper()
	if _, err := fmt.Fprintln(k.line, line); err != nil {
		k.t.Fatal(err)
	}
	said, err := k.answer()
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

// ps is what exec says of the services, nothing where it is away.
func (k *kernel) ps() map[string]p2pnode.ServiceStatus {
	k.t.Helper()
	var doc struct{ Services []p2pnode.ServiceStatus }
	text, _ := k.in("p2pnode ps -o json")
	json.Unmarshal([]byte(text), &doc)
	out := map[string]p2pnode.ServiceStatus{}
	for _, s := range doc.Services {
		out[s.Name] = s
	}
	return out
}

func (k *kernel) becomes(what string, ok func() bool) {
	k.t.Helper()
	if !host.Eventually(patience, ok) {
		log, _ := k.in("p2pnode ps; tail -n 30 " + daemonLog)
		k.t.Fatalf("not within %v: %s\n%s", patience, what, log)
	}
}
