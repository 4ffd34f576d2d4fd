package bench

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pnode/test/bin"
	"p2pnode/test/need"
)

// others are the supervisors that Debian has. They are fetched with apt-get and
// unpacked under bin/peers: nothing is installed, no daemon of the system starts.
// Each runs at its defaults but for what its config says. Where the supervisor is killed,
// that is the process which looks after the one service; who starts it again is its
// scanner where it has one, else we do, but for s6, whose scanner does not run from
// bin/peers. monit starts no service whose output it holds: the child that keeps it open
// is nothing to it.
func others() []contender {
	most := []fault{faultKill, faultChild, faultMissing, faultStop, faultDeadlock, faultNone}
	all := append(slices.Clone(most), faultSupervisor)
	return []contender{
		peer("runit", "runsvdir, defaults", []string{"runit"}, all, folders("runsvdir")),
		peer("s6", "s6-supervise, defaults", []string{"s6", "libs6-2.11", "libskarnet2.13", "libexecline2.9"}, most, s6),
		peer("daemontools", "svscan, defaults", []string{"daemontools"}, all, folders("svscan")),
		peer("supervisor", "autorestart=true", []string{"supervisor"}, all, supervisord),
		peer("monit", "set daemon 1, an http test", []string{"monit"}, []fault{faultKill, faultMissing, faultSupervisor, faultStop, faultDeadlock, faultNone}, monit),
	}
}

// peer is another supervisor. configure writes what it reads into dir and returns
// its command.
func peer(name, config string, packages []string, faults []fault, configure func(b *testing.B, dir string, ts []*target) []string) contender {
	return contender{
		name: name, config: config, faults: faults, ready: func(b *testing.B) { unpack(b, name, packages) },
		start: func(b *testing.B, dir string, ts []*target) *supervisor {
			argv := configure(b, dir, ts)
			out := logFile(b, dir)
			again := func() *exec.Cmd {
				cmd := exec.Command(tool(b, argv[0]), argv[1:]...)
				cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = append(mark(dir), toolEnv(b)...), dir, out, out
				cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
				if err := cmd.Start(); err != nil {
					b.Fatal(err)
				}
				return cmd
			}
			s := &supervisor{again: again, cmd: again()}
			s.pids = func() []int {
				return slices.DeleteFunc(marked(dir), func(pid int) bool { return strings.HasPrefix(comm(pid), "web") || comm(pid) == "sleep" })
			}
			s.stop = func() {
				for range 100 {
					left := marked(dir)
					if len(left) == 0 {
						break
					}
					for _, pid := range left {
						syscall.Kill(pid, syscall.SIGKILL)
					}
					time.Sleep(20 * time.Millisecond)
				}
				s.cmd.Wait()
			}
			return s
		},
	}
}

// unpack gets packages into bin/peers, unless they are there, or skips.
func unpack(b *testing.B, name string, packages []string) {
	b.Helper()
	root := peers(b)
	done := filepath.Join(root, name+".unpacked")
	if _, err := os.Stat(done); err == nil {
		return
	}
	need.Program(b, "apt-get", "apt")
	need.Program(b, "dpkg-deb", "dpkg")
	dir := b.TempDir()
	get := exec.Command("apt-get", append([]string{"download", "-q"}, packages...)...)
	get.Dir = dir
	if out, err := get.CombinedOutput(); err != nil {
		need.Had(b, fmt.Errorf("%s: apt-get download: %w: %s", name, err, out))
	}
	debs, _ := filepath.Glob(filepath.Join(dir, "*.deb"))
	for _, deb := range debs {
		if out, err := exec.Command("dpkg-deb", "-x", deb, root).CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
	}
	if err := os.WriteFile(done, nil, 0o644); err != nil {
		b.Fatal(err)
	}
}

func peers(b *testing.B) string { return filepath.Join(bin.Root(b), "bin", "peers") }

func tool(b *testing.B, name string) string {
	b.Helper()
	for _, dir := range []string{"usr/bin", "usr/sbin", "bin", "sbin"} {
		if path := filepath.Join(peers(b), dir, name); isFile(path) {
			return path
		}
	}
	path, err := exec.LookPath(name)
	need.Had(b, err)
	return path
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func toolEnv(b *testing.B) []string {
	root := peers(b)
	return []string{
		"PATH=" + root + "/usr/bin:" + root + "/usr/sbin:" + os.Getenv("PATH"),
		"LD_LIBRARY_PATH=" + root + "/usr/lib/x86_64-linux-gnu", "PYTHONPATH=" + root + "/usr/lib/python3/dist-packages",
	}
}

// folders is the layout of daemontools and its heirs: a folder with a program run
// for each service.
func folders(scanner string) func(*testing.B, string, []*target) []string {
	return func(b *testing.B, dir string, ts []*target) []string {
		services := filepath.Join(dir, "services")
		for _, t := range ts {
			write(b, filepath.Join(services, t.name, "run"), 0o755, "#!/bin/sh\nexec "+strings.Join(t.argv, " ")+"\n")
		}
		return []string{scanner, services}
	}
}

// s6 runs its supervisors as its scanner would, which looks for them in /usr alone.
func s6(b *testing.B, dir string, ts []*target) []string {
	services := folders("")(b, dir, ts)[1]
	return []string{"sh", "-c", `cd "$0" && for service in *; do s6-supervise "$service" & done; wait`, services}
}

func supervisord(b *testing.B, dir string, ts []*target) []string {
	var conf strings.Builder
	fmt.Fprintf(&conf, "[supervisord]\nnodaemon=true\nlogfile=%s/supervisord.log\npidfile=%[1]s/supervisord.pid\nchildlogdir=%[1]s\n", dir)
	for _, t := range ts {
		fmt.Fprintf(&conf, "[program:%s]\ncommand=%s\nautorestart=true\n", t.name, strings.Join(t.argv, " "))
	}
	write(b, filepath.Join(dir, "supervisord.conf"), 0o600, conf.String())
	return []string{"python3", "-c", "from supervisor.supervisord import main; main()", "-c", filepath.Join(dir, "supervisord.conf")}
}

func monit(b *testing.B, dir string, ts []*target) []string {
	var conf strings.Builder
	fmt.Fprintf(&conf, "set daemon 1\nset pidfile %s/monit.pid\nset idfile %[1]s/monit.id\nset statefile %[1]s/monit.state\n", dir)
	for _, t := range ts {
		start := filepath.Join(dir, t.name+".start")
		write(b, start, 0o755, fmt.Sprintf("#!/bin/sh\n%s >/dev/null 2>&1 &\necho $! > %s.pid\n", strings.Join(t.argv, " "), filepath.Join(dir, t.name)))
		stop := filepath.Join(dir, t.name+".stop")
		write(b, stop, 0o755, fmt.Sprintf("#!/bin/sh\nkill -9 $(cat %s.pid)\n", filepath.Join(dir, t.name)))
		fmt.Fprintf(&conf, "check process %s with pidfile %s.pid\n  start program = %q\n  stop program = %q\n  if failed host 127.0.0.1 port %d protocol http with timeout 1 seconds then restart\n",
			t.name, filepath.Join(dir, t.name), start, stop, t.port)
	}
	write(b, filepath.Join(dir, "monitrc"), 0o600, conf.String())
	return []string{"monit", "-I", "-c", filepath.Join(dir, "monitrc")}
}

func write(b *testing.B, path string, mode os.FileMode, text string) {
	b.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(text), mode)
	}
	if err != nil {
		b.Fatal(err)
	}
}

// mark is the environment by which everything that a supervisor starts is found.
func mark(dir string) []string { return append(os.Environ(), "MTTR="+dir) }

// marked are the processes of one measurement: by the environment that they were
// started with, or, where somebody emptied it, by their command line.
func marked(dir string) (out []int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		argv, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if bytes.Contains(append(env, 0), []byte("MTTR="+dir+"\x00")) || bytes.Contains(argv, []byte(dir+"/")) {
			out = append(out, pid)
		}
	}
	return out
}

// comm is the short name of pid.
func comm(pid int) string {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return strings.TrimSpace(string(raw))
}

// argument is the nth word of the command line of pid.
func argument(pid, n int) string {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	words := strings.Split(string(raw), "\x00")
	if n >= len(words) {
		return ""
	}
	return words[n]
}
