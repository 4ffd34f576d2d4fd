package exec

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	osexec "os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"p2pnode"

	"golang.org/x/sys/unix"
)

// launch is everything that a fork needs, worked out beforehand.
type launch struct {
	argv   []string
	path   string // resolved argv[0]
	cwd    string
	env    []string
	as     *credentials // nil: exec's own
	in     inherited
	limits p2pnode.Limits
	oom    *int
	uid    int
	gid    int
	leash  *os.File
	stdout int // FIFO, opened O_RDWR and blocking

	join     []string // cgroup.procs of groups that hold limits on all of the service
	born     string   // the group to be born in, where that holds some; else any will do
	launcher []string // argv of a launcher, where one is needed
}

// cannotRun is a start that never ran, and why.
type cannotRun struct {
	kind startFailure
	text string
}

func (e *cannotRun) Error() string { return e.text }

// prepare works out how a service is to be run. An error is *cannotRun.
func prepare(spec p2pnode.ServiceSpec, env []string) (launch, error) {
	l, err := asService(spec, env)
	if err != nil {
		return l, err
	}
	if spec.Cwd != "" {
		if info, err := os.Stat(spec.Cwd); err != nil || !info.IsDir() {
			return l, &cannotRun{startMissing, "its folder " + spec.Cwd + " is not there"}
		}
	}
	if l.path, err = resolve(spec.Command[0], spec.Cwd, l.env); err != nil {
		return l, &cannotRun{startMissing, err.Error()}
	}
	return l, nil
}

// asService is how all programs of a service are run: as whom, and with what. It does
// not look whether they can be.
func asService(spec p2pnode.ServiceSpec, env []string) (launch, error) {
	l := launch{argv: spec.Command, cwd: spec.Cwd, env: lastWins(env), uid: os.Getuid(), gid: os.Getgid(), in: inheritedBy(spec), limits: spec.Limits, oom: spec.OOM}
	if err := l.become(spec.User, spec.Group); err != nil {
		return l, &cannotRun{startMissing, err.Error()}
	}
	return l, nil
}

// lastWins leaves of each variable only its last value: most programs take the first
// of two, and what is said last is meant.
func lastWins(env []string) []string {
	seen, out := map[string]bool{}, make([]string, 0, len(env))
	for _, kv := range slices.Backward(env) {
		if key, _, _ := strings.Cut(kv, "="); !seen[key] {
			seen[key] = true
			out = append(out, kv)
		}
	}
	slices.Reverse(out)
	return out
}

// become fills in the user and the group that a service runs as.
func (l *launch) become(name, group string) error {
	var groups []uint32
	if name != "" {
		u, err := lookupUser(name)
		if err != nil {
			return fmt.Errorf("user %s is not known here", quoted(name))
		}
		l.uid, _ = strconv.Atoi(u.Uid)
		l.gid, _ = strconv.Atoi(u.Gid)
		ids, _ := u.GroupIds()
		for _, id := range ids {
			if n, err := strconv.ParseUint(id, 10, 32); err == nil {
				groups = append(groups, uint32(n))
			}
		}
	}
	if group != "" {
		g, err := lookupGroup(group)
		if err != nil {
			return fmt.Errorf("group %s is not known here", quoted(group))
		}
		l.gid, _ = strconv.Atoi(g.Gid)
	}
	if l.uid == os.Getuid() && l.gid == os.Getgid() {
		return nil
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("p2pnode runs as uid %d and only root may start a service as %s: run p2pnode as root, or leave user: and group: out",
			os.Getuid(), quoted(strings.Trim(name+":"+group, ":")))
	}
	l.as = &credentials{UID: uint32(l.uid), GID: uint32(l.gid), Groups: groups}
	return nil
}

// lookupUser knows a user by name or by number. A number needs no entry anywhere, as in
// an image without /etc/passwd: such a user has the group of the same number, not exec's,
// and no home.
func lookupUser(name string) (*user.User, error) {
	u, err := user.Lookup(name)
	if !isID(name) || !noEntry(err) {
		return u, err
	}
	if u, err = user.LookupId(name); !noEntry(err) {
		return u, err
	}
	return &user.User{Uid: name, Gid: name, Username: name, HomeDir: "/"}, nil
}

// lookupGroup does the same for groups.
func lookupGroup(name string) (*user.Group, error) {
	g, err := user.LookupGroup(name)
	if isID(name) && noEntry(err) {
		return &user.Group{Gid: name, Name: name}, nil
	}
	return g, err
}

// noEntry reports whether err says that there is no such user or group. One that says
// that it could not be looked up, for want of descriptors say, does not.
func noEntry(err error) bool {
	_, name := errors.AsType[user.UnknownUserError](err)
	_, id := errors.AsType[user.UnknownUserIdError](err)
	_, group := errors.AsType[user.UnknownGroupError](err)
	return name || id || group || errors.Is(err, fs.ErrNotExist)
}

// isID reports whether text is a number that the kernel takes for a user or a group; the
// highest one means "as it is".
func isID(text string) bool {
	n, err := strconv.ParseUint(text, 10, 32)
	return err == nil && n < math.MaxUint32
}

// resolve finds the program as the child would: names with a slash belong to its
// folder, others to its PATH.
func resolve(name, cwd string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		seen := name
		if !filepath.IsAbs(name) && cwd != "" {
			seen = filepath.Join(cwd, name)
		}
		if _, err := os.Stat(seen); err != nil {
			return "", fmt.Errorf("its program %s is not there", seen)
		}
		return name, nil
	}
	for _, dir := range filepath.SplitList(envValue(env, "PATH")) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	if path, err := osexec.LookPath(name); err == nil {
		return path, nil
	}
	return "", fmt.Errorf("its program %s is in no folder of PATH", quoted(name))
}

func envValue(env []string, key string) string {
	value := ""
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, key+"="); ok {
			value = v // the last one wins
		}
	}
	return value
}

// lockDescriptor is where the child keeps the lock: high, so that it is not in
// the way of programs that count on low numbers, and below what programs close in
// a loop is no aim: those that do are found by their session.
func lockDescriptor() int {
	var lim unix.Rlimit
	top := highestLockFD
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) == nil && lim.Cur < uint64(top)+16 {
		top = max(int(lim.Cur)-16, 8) // the fork itself needs a few numbers above it
	}
	return top - 1
}

// spawn forks and executes l. The child has its own session, /dev/null as input,
// and the lock; what it inherits otherwise is closed. It takes no ownership.
func spawn(l launch, lock *os.File, group *os.File) (*process, error) {
	null, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(null)
	top := lockDescriptor()
	files := make([]uintptr, top+1)
	for i := range files {
		files[i] = ^uintptr(0)
	}
	files[0], files[1], files[2] = uintptr(null), uintptr(l.stdout), uintptr(l.stdout)
	if l.leash != nil {
		files[3] = l.leash.Fd()
	}
	if lock != nil {
		files[top] = lock.Fd()
	}
	pidfd := -1
	attr := &syscall.ProcAttr{
		Dir: l.cwd, Env: l.env, Files: files,
		Sys: &syscall.SysProcAttr{Setsid: true, Credential: l.credential(), PidFD: &pidfd},
	}
	if group != nil {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(group.Fd())
	}
	path, argv, word := l.path, l.argv, func() error { return nil }
	if l.needsLauncher() {
		if path, argv, word, err = l.throughLauncher(attr); err != nil {
			return nil, err
		}
	}
	var pid int
	fork := func() (err error) {
		pid, err = syscall.ForkExec(path, argv, attr)
		return err
	}
	err = l.in.fork(fork)
	if err != nil && group != nil && (errors.Is(err, syscall.ENODEV) || errors.Is(err, syscall.EBADF) || errors.Is(err, syscall.EACCES)) {
		if l.born != "" {
			err = &cannotRun{startBroken, "the cgroup that holds its limits is gone: " + err.Error()}
		} else {
			attr.Sys.UseCgroupFD = false // the group vanished, or may not be entered
			os.Remove(group.Name())      // it is not in there
			err = l.in.fork(fork)
		}
	}
	if said := word(); err == nil && said != nil { // it ended without becoming the service
		unix.Close(pidfd)
		unix.Wait4(pid, nil, 0, nil)
		return nil, said
	}
	if err != nil {
		if _, ok := errors.AsType[*cannotRun](err); ok {
			return nil, err
		}
		return nil, whyNot(l, err)
	}
	if pidfd < 0 {
		if pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
			return nil, err
		}
	}
	return newProcess(pid, pidfd, true)
}

func whyNot(l launch, err error) error {
	text := "cannot run " + l.argv[0] + ": " + err.Error()
	if cwd := l.entersNot(); cwd != nil {
		text = "cannot enter the folder that it runs in: " + cwd.Error()
	}
	switch {
	case errors.Is(err, syscall.ETXTBSY):
		return &cannotRun{startRetry, text}
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOMEM), errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return &cannotRun{startBroken, text}
	}
	return &cannotRun{startMissing, text}
}

// entersNot is why the service's user cannot enter the folder that it is to run in; nil
// if he can.
func (l *launch) entersNot() error {
	if l.cwd == "" {
		return nil
	}
	return l.asItsUser(func() error {
		fd, err := unix.Open(l.cwd+"/.", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("%s: %w", l.cwd, err)
		}
		unix.Close(fd)
		return nil
	})
}

// worldOf is what a missing service misses, as far as a look shows: it is compared
// with an earlier look, not understood.
func worldOf(spec p2pnode.ServiceSpec, env []string) string {
	var b strings.Builder
	look := func(path string) {
		info, err := os.Stat(path)
		if err != nil {
			fmt.Fprintf(&b, "%s -;", path)
			return
		}
		fmt.Fprintf(&b, "%s %v %d %v %d;", path, idOf(info), info.ModTime().UnixNano(), info.Mode(), info.Size())
	}
	look(orElse(spec.Cwd, "/"))
	for _, file := range spec.EnvFile {
		look(file)
	}
	path, err := resolve(spec.Command[0], spec.Cwd, env)
	if err != nil {
		fmt.Fprintf(&b, "%v;", err)
		path = spec.Command[0]
	}
	if !filepath.IsAbs(path) && spec.Cwd != "" {
		path = filepath.Join(spec.Cwd, path)
	}
	look(path)
	if interpreter := shebang(path); interpreter != "" {
		look(interpreter)
	}
	if spec.User != "" {
		_, err := lookupUser(spec.User)
		fmt.Fprintf(&b, "user %v;", err == nil)
	}
	if spec.Group != "" {
		_, err := lookupGroup(spec.Group)
		fmt.Fprintf(&b, "group %v;", err == nil)
	}
	return b.String()
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// shebang is the interpreter that a script names.
func shebang(path string) string {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	head := make([]byte, 128)
	n, err := unix.Read(fd, head)
	if err != nil || n < 3 || head[0] != '#' || head[1] != '!' {
		return ""
	}
	line, _, _ := strings.Cut(string(head[2:n]), "\n")
	if fields := strings.Fields(line); len(fields) > 0 {
		return fields[0]
	}
	return ""
}

// serviceEnv is the environment of a service: exec's own without what concerns
// only exec, what its user has, what its files and then its declaration add, and what
// it is told. Of two variables of one name the last is meant, see prepare.
func serviceEnv(spec p2pnode.ServiceSpec, own, files []string, told ...string) []string {
	env := slices.Concat(slices.DeleteFunc(slices.Clone(own), private), userEnv(spec.User), files)
	for _, k := range sortedKeys(spec.Env) {
		env = append(env, k+"="+spec.Env[k])
	}
	return append(env, told...)
}

// userEnv is what a login gives a user; nothing of one that is not known here.
func userEnv(name string) []string {
	if name == "" {
		return nil
	}
	u, err := lookupUser(name)
	if err != nil {
		return nil
	}
	return []string{"USER=" + u.Username, "LOGNAME=" + u.Username, "HOME=" + u.HomeDir}
}

func private(kv string) bool {
	for _, prefix := range []string{"P2PNODE_", "NOTIFY_SOCKET=", "WATCHDOG_", "LISTEN_", "SYSTEMD_EXEC_PID=", "MAINPID=", "INVOCATION_ID=", "JOURNAL_STREAM="} {
		if strings.HasPrefix(kv, prefix) {
			return true
		}
	}
	return false
}
