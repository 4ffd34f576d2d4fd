package exec

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	osexec "os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pnode"

	"github.com/rs/zerolog"
)

// The test binary plays every part of a host: the daemon, its roles, and the
// services. The part is in the first argument.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], "part:") {
		part(strings.TrimPrefix(os.Args[1], "part:"), os.Args[2:])
		return
	}
	os.Exit(m.Run())
}

// daemonConfig is a Config that fits into an argument.
type daemonConfig struct {
	Dir        string
	Services   []p2pnode.ServiceSpec
	Grace      p2pnode.Grace
	Node, Door bool
	NodePart   string // instead of the usual one
	DoorPart   string
	Guard      bool
	Supervised string
	Old        bool // as if it had started an hour ago
	NoCgroups  bool // as on a host that grants none
	NoSystemd  bool // as on one with cgroup v2 alone, whose systemd gives no scope; a folder Dir/cgroup with its controllers
	SlowSync   bool // of what people want
	SlowRecord bool // of a process that was forked
	Deep       bool // in a folder whose name does not fit into a socket's address
	History    string
	On         string // the folder, instead of one that the test makes
	As         uint32 // not as root but as this user
}

func part(name string, args []string) {
	switch name {
	case "daemon":
		daemonPart(args[0], args[1:])
	case "sleep": // prints its environment's say and sleeps
		fmt.Println("incarnation", os.Getenv("P2PNODE_INCARNATION"), "last", os.Getenv("P2PNODE_LAST_EXIT"))
		time.Sleep(time.Hour)
	case "launch":
		fmt.Fprintln(os.Stderr, Launch(args))
		os.Exit(1)
	case "exit":
		code, _ := strconv.Atoi(args[0])
		os.Exit(code)
	case "sign": // writes its pid, and each signal that it gets, into a file
		signPart(args[0])
	case "stubborn": // ignores SIGTERM
		signal.Ignore(syscall.SIGTERM)
		time.Sleep(time.Hour)
	case "push-node":
		pushPart(args[0], RoleNode, func(ctx context.Context, c *Client, req p2pnode.RecoverRequest) (p2pnode.RecoverAnswer, error) {
			return c.Recover(ctx, req)
		})
	case "push-door":
		who := somebody()
		pushPart(args[0], RoleDoor, func(ctx context.Context, c *Client, req p2pnode.RecoverRequest) (p2pnode.RecoverAnswer, error) {
			return c.RecoverFor(ctx, who, req)
		})
	case "caller": // asks for what its arguments say, and waits for the answer
		if c, err := Dial(context.Background(), args[0], RoleCLI); err == nil {
			c.Recover(context.Background(), p2pnode.RecoverRequest{Op: args[1], Target: args[2], Expected: args[3]})
		}
	case "mute-node": // is there and claims nothing
		mutePart(args[0], time.Hour)
	case "falls-silent": // as that, and then its connection is all that is left
		mutePart(args[0], speaksFor)
	case "confess": // sd_notify: ready, and that it hangs, or works, when a file is there
		confessPart(args[0])
	case "slow-stop": // on SIGTERM asks for ten seconds and takes one
		term := make(chan os.Signal, 1)
		signal.Notify(term, syscall.SIGTERM)
		sayReady()
		<-term
		say("STOPPING=1\nEXTEND_TIMEOUT_USEC=10000000")
		time.Sleep(time.Second)
		os.Exit(5)
	case "background": // goes to the background: its child is the service, and names whom else the test wants
		child := osexec.Command("/proc/self/exe", "part:sleep")
		child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		child.Env = []string{"COOKIE=none"} // as of a program that writes its title over it
		if err := child.Start(); err != nil {
			os.Exit(1)
		}
		for _, pid := range args {
			say("MAINPID=" + pid)
		}
		say(fmt.Sprintf("MAINPID=%d\nREADY=1", child.Process.Pid))
		os.Exit(0)
	case "late": // sd_notify: asks for a minute, is ready after four seconds
		say("EXTEND_TIMEOUT_USEC=60000000")
		time.Sleep(4 * time.Second)
		sayReady()
		time.Sleep(time.Hour)
	case "ready": // sd_notify: ready, and nothing more
		sayReady()
		time.Sleep(time.Hour)
	case "say": // says hello; on SIGUSR1 a last word, without a newline, and ends
		usr1 := make(chan os.Signal, 1)
		signal.Notify(usr1, syscall.SIGUSR1)
		fmt.Println("hello, last", os.Getenv("P2PNODE_LAST_EXIT"))
		<-usr1
		fmt.Print("last words")
		os.Exit(7)
	case "family": // a child that leads its own session and goes on without its parent
		escape("sleep", false)
		time.Sleep(time.Hour)
	case "shy-family": // the same, and the child keeps no descriptor
		escape("shy", false)
		time.Sleep(time.Hour)
	case "bomb", "bomb-of-sessions":
		bombPart(args[0], name == "bomb-of-sessions")
	case "shy":
		for _, fd := range []int{0, 1, 2, lockDescriptor()} {
			syscall.Close(fd)
		}
		time.Sleep(time.Hour)
	case "closes": // has a descriptor as one that was received
		if fd, err := strconv.Atoi(args[0]); err == nil {
			syscall.CloseOnExec(fd)
		}
		time.Sleep(time.Hour)
	case "tree": // starts a grandchild that leaves session, environment and parent
		escape("sleep", false)
		time.Sleep(time.Hour)
	case "web":
		http.ListenAndServe(args[0], http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, os.Getpid()) }))
	case "talk":
		talkPart(args[0])
	case "deaf": // a port that is open and never answers after the first time
		deafPart(args[0])
	case "waits":
		waitsPart(args[0])
	case "recycler": // gives a number that a process had to another, again and again
		cycles, _ := strconv.Atoi(args[0])
		if err := recyclerPart(cycles, args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case "asker": // a question that nobody answers
		askerPart(args[0])
	case "flood": // prints without end, and says how much
		floodPart(args[0])
	case "beat": // sd_notify: ready, beats for a while, then hangs
		beatPart()
	case "pulse": // sd_notify: ready, and beats for ever
		for say("READY=1"); ; say("WATCHDOG=1") {
			time.Sleep(200 * time.Millisecond)
		}
	case "init":
		initPart(args)
	case "strangers":
		strangersPart()
	case "node":
		nodePart(args[0])
	case "door":
		doorPart(args[0])
	}
}

// escape starts a copy of the test binary in a session of its own and lets its
// parent, this call's child, end at once where double is asked for.
func escape(what string, clean bool) {
	cmd := osexec.Command("/proc/self/exe", "part:"+what)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if clean {
		cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	}
	cmd.Start()
	fmt.Println("grandchild", cmd.Process.Pid)
}

func daemonPart(raw string, more []string) {
	var dc daemonConfig
	if err := json.Unmarshal([]byte(raw), &dc); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	history, _ := p2pnode.OpenHistory(dc.History, "host", "exec")
	cfg := Config{
		Dir: dc.Dir, NodeName: "host", Services: dc.Services, Grace: dc.Grace, ShutdownTimeout: 4 * time.Second, Supervised: "no",
		LaunchArgv: []string{"/proc/self/exe", "part:launch"}, History: history, Log: zerolog.New(os.Stderr).Level(zerolog.WarnLevel),
	}
	cfg.Load = func() (l Loaded, err error) { // what the test has put there
		raw, err := os.ReadFile(filepath.Join(dc.Dir, "reload.json"))
		if err == nil {
			err = json.Unmarshal(raw, &l.Services)
		}
		return l, err
	}
	if dc.Guard {
		cfg.SelfArgv = []string{"exec", "part:daemon", raw}
	}
	if dc.Node || dc.NodePart != "" {
		cfg.NodeArgv = []string{"/proc/self/exe", "part:" + cmp.Or(dc.NodePart, "node"), dc.Dir}
	}
	if dc.Door || dc.DoorPart != "" {
		cfg.DoorArgv = []string{"/proc/self/exe", "part:" + cmp.Or(dc.DoorPart, "door"), dc.Dir}
	}
	if len(more) == 2 && more[0] == "--leash" {
		fd, _ := strconv.Atoi(more[1])
		cfg.Leash = os.NewFile(uintptr(fd), "leash")
	}
	if dc.Supervised != "" {
		cfg.Supervised = dc.Supervised
	}
	if err := runWith(ctx, cfg, dc); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(p2pnode.ExitCode(err))
	}
}

// slowSync is how long a disk takes that is slow.
const slowSync = 5 * time.Second

// runWith is Run on a host with peculiarities.
func runWith(ctx context.Context, cfg Config, dc daemonConfig) error {
	if !dc.Old && !dc.NoCgroups && !dc.NoSystemd && !dc.SlowSync && !dc.SlowRecord {
		return Run(ctx, cfg)
	}
	if err := cfg.validate(); err != nil {
		return err
	}
	lock, err := claimFolder(ctx, &cfg, nil)
	if err != nil || lock == nil {
		return err
	}
	defer lock.Close()
	r, err := newRunner(cfg)
	if err != nil {
		return err
	}
	if dc.SlowSync {
		r.state.write = func(path string, data []byte, perm os.FileMode) error {
			time.Sleep(slowSync)
			return p2pnode.WriteFile(path, data, perm)
		}
	}
	if dc.SlowRecord {
		r.forked = func(string) {
			time.Sleep(300 * time.Millisecond)
			for held := true; held; time.Sleep(5 * time.Millisecond) { // or as long as the test wants
				_, err := os.Stat(filepath.Join(dc.Dir, "hold-record"))
				held = err == nil
			}
		}
	}
	if dc.Old {
		r.began = r.began.Add(-time.Hour)
	}
	if dc.NoCgroups {
		r.cgroups.close()
		r.cgroups = nil
	}
	if dc.NoSystemd {
		root := filepath.Join(dc.Dir, "cgroup")
		r.v1 = filepath.Join(root, "v1")
		r.cgroups = &cgroups{base: filepath.Join(root, "ours"), scopes: openScopes(root, "/system.slice/p2pnode.service", "tag")}
	}
	return r.run(ctx)
}

// nodePart is the least that a node process is: hello each second, and an agent
// that recovers what failed.
func nodePart(dir string) {
	ctx := guardPart(dir)
	life := p2pnode.NewLife(uint64(os.Getpid()))
	for {
		c, err := Dial(ctx, dir, RoleNode)
		if err != nil {
			time.Sleep(10 * time.Millisecond)
			continue
		}
		agentPart(ctx, c, life)
		c.Close()
	}
}

func agentPart(ctx context.Context, c *Client, life p2pnode.Life) {
	health := NodeHealth{Life: life, Links: 1, Orders: 1, PeerID: "self"}
	if c.Health(ctx, health) != nil {
		return
	}
	events, err := c.Events(ctx, 0)
	if err != nil {
		return
	}
	beat := time.NewTicker(time.Second)
	defer beat.Stop()
	for {
		select {
		case ev, ok := <-events:
			if !ok {
				return
			}
			if ev.Event == p2pnode.FactFailed && ev.Held == "" && ev.Service[0] != '@' {
				go c.Recover(ctx, p2pnode.RecoverRequest{Op: fmt.Sprint(ev.Service, ev.Target), Target: ev.Service, Expected: ev.Target, Agent: "resident"})
			}
		case <-beat.C:
			if c.Health(ctx, health) != nil {
				return
			}
		case <-c.Done():
			return
		}
	}
}

// guardPart guards exec, until the leash of this role ends.
func guardPart(dir string) context.Context {
	ctx := context.Background()
	i := len(os.Args) - 1
	if os.Args[i-1] != "--leash" {
		go Guard(ctx, dir, nil, zerolog.Nop())
		return ctx
	}
	fd, _ := strconv.Atoi(os.Args[i])
	leash := os.NewFile(uintptr(fd), "leash")
	guarded, cancel := context.WithCancel(ctx)
	go func() {
		leash.Read(make([]byte, 1))
		cancel()
	}()
	go func() {
		Guard(guarded, dir, leash, zerolog.Nop())
		os.Exit(0)
	}()
	return ctx
}

func doorPart(dir string) {
	ctx := guardPart(dir)
	k := &testKeeper{held: map[string]Kept{}, spread: filepath.Join(dir, "spread"), full: filepath.Join(dir, "keeper-full")}
	for {
		if c, err := Dial(ctx, dir, RoleDoor); err == nil {
			c.ServeKeeper(ctx, k)
			c.Close()
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// testKeeper holds and does not drain. Once there is a file full it takes nothing more:
// what it has is then of lives that may be over.
type testKeeper struct {
	held         map[string]Kept
	spread, full string
}

func (k *testKeeper) Held() (out []Kept) {
	for _, h := range k.held {
		out = append(out, h)
	}
	return out
}

func (k *testKeeper) Keep(h Kept) {
	if _, err := os.Stat(k.full); err == nil {
		h.FIFO.Close()
		h.Pidfd.Close()
		return
	}
	k.Drop(h.Service)
	k.held[h.Service] = h
}

func (k *testKeeper) Spread(l p2pnode.Life) { os.WriteFile(k.spread, []byte(l.String()), 0o600) }
func (k *testKeeper) Drop(s string) {
	if h, ok := k.held[s]; ok {
		h.FIFO.Close()
		h.Pidfd.Close()
		delete(k.held, s)
	}
}

func deafPart(addr string) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		os.Exit(1)
	}
	for i := 0; ; i++ {
		c, err := l.Accept()
		if err != nil {
			return
		}
		if i == 0 {
			c.Read(make([]byte, 4096))
			c.Write([]byte("HTTP/1.0 200 OK\r\n\r\n"))
			c.Close()
		}
	}
}

func signPart(ledger string) {
	f, err := os.OpenFile(ledger, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		os.Exit(1)
	}
	told := make(chan os.Signal, 16)
	signal.Notify(told)
	fmt.Fprintln(f, os.Getpid())
	for s := range told {
		switch s {
		case syscall.SIGURG: // the runtime's own
		case syscall.SIGTERM:
			fmt.Fprintln(f, os.Getpid(), s)
			os.Exit(0)
		default:
			fmt.Fprintln(f, os.Getpid(), s)
		}
	}
}

func beatPart() {
	say("READY=1")
	for range 5 {
		time.Sleep(50 * time.Millisecond)
		say("WATCHDOG=1")
	}
	time.Sleep(time.Hour)
}

func sayReady() { say("READY=1\nSTATUS=serving") }

func say(text string) {
	c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		fmt.Println(err)
		os.Exit(3)
	}
	defer c.Close()
	c.Write([]byte(text))
}

// confessPart keeps its first thread idle: that is the one that a debugger holds.
func confessPart(sign string) {
	runtime.LockOSThread()
	sayReady()
	go func() {
		for {
			if os.Remove(sign) == nil {
				say("WATCHDOG=trigger")
			}
			if os.Remove(sign+".well") == nil {
				say("WATCHDOG=1")
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	time.Sleep(time.Hour)
}

// speaksFor is how long a node process speaks that falls silent.
const speaksFor = nodeSilence + nodeSilence/3

// mutePart says hello each second, for so long, and does nothing else.
func mutePart(dir string, speaks time.Duration) {
	ctx, began := guardPart(dir), time.Now()
	same := NodeHealth{Life: p2pnode.NewLife(1), Links: 1, Orders: 1, PeerID: "self"}
	for {
		if c, err := Dial(ctx, dir, RoleNode); err == nil {
			for c.Health(ctx, same) == nil {
				time.Sleep(time.Second)
				if time.Since(began) > speaks {
					<-c.Done()
				}
			}
			c.Close()
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// notifyAs says text on a service's socket as a process that is not the service's.
func notifyAs(t *testing.T, socket, text string) {
	t.Helper()
	c, err := net.Dial("unixgram", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
}

// environ reads a variable that a process was started with.
func environ(t *testing.T, pid int, key string) string {
	t.Helper()
	var raw []byte
	eventually(t, "it has an environment", func() (ok bool) { // none while it becomes another program
		var err error
		if raw, err = os.ReadFile(procPath(pid, "environ")); err != nil {
			t.Fatal(err)
		}
		return len(raw) > 0
	})
	return envValue(strings.Split(string(raw), "\x00"), key)
}

// host is a daemon under test.
type host struct {
	t     *testing.T
	dir   string
	cfg   daemonConfig
	cmd   *osexec.Cmd
	c     *Client
	end   *os.File // writing end of the leash
	leash *os.File
}

func newHost(t *testing.T, dc daemonConfig) *host {
	t.Helper()
	if testing.Short() {
		t.Skip("SKIPPED: real processes are not run with -short")
	}
	dc.Dir = cmp.Or(dc.On, t.TempDir())
	if dc.Deep {
		dc.Dir = filepath.Join(dc.Dir, strings.Repeat("deep", 25))
	}
	if err := os.MkdirAll(dc.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if dc.As != 0 { // its folder is below one that only root may enter
		if err := errors.Join(os.Chown(dc.Dir, int(dc.As), int(dc.As)), os.Chmod(filepath.Dir(dc.Dir), 0o711)); err != nil {
			t.Fatal(err)
		}
	}
	dc.History = filepath.Join(dc.Dir, "history.jsonl")
	if dc.On != "" {
		dc.History = filepath.Join(t.TempDir(), "history.jsonl") // it is no part of what is to work there
	}
	h := &host{t: t, dir: dc.Dir, cfg: dc}
	h.start()
	t.Cleanup(h.stop)
	return h
}

// reload gives the daemon other services.
func (h *host) reload(services ...p2pnode.ServiceSpec) {
	h.t.Helper()
	raw, err := json.Marshal(services)
	if err == nil {
		err = os.WriteFile(filepath.Join(h.dir, "reload.json"), raw, 0o600)
	}
	if err == nil {
		_, err = h.c.Reload(h.t.Context(), false)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) start() {
	h.t.Helper()
	raw, err := json.Marshal(h.cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	if h.end == nil {
		if h.leash, h.end, err = os.Pipe(); err != nil {
			h.t.Fatal(err)
		}
	}
	h.cmd = osexec.Command("/proc/self/exe", "part:daemon", string(raw), "--leash", "3")
	h.cmd.ExtraFiles = []*os.File{h.leash}
	h.cmd.Stderr = os.Stderr
	if h.cfg.As != 0 {
		h.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: h.cfg.As, Gid: h.cfg.As}}
	}
	if err := h.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.dial()
}

func (h *host) dial() {
	h.t.Helper()
	eventually(h.t, "the daemon answers", func() bool {
		c, err := Dial(h.t.Context(), h.dir, RoleCLI)
		h.c = c
		return err == nil
	})
}

func (h *host) stop() {
	if h.c != nil {
		h.c.Close()
	}
	h.end.Close()
	h.leash.Close()
	h.cmd.Wait()
	deadline := time.Now().Add(5 * time.Second)
	for {
		alive, pid := ExecAlive(h.dir)
		if !alive {
			return
		}
		if time.Now().After(deadline) {
			syscall.Kill(pid, syscall.SIGKILL)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (h *host) status(name string) p2pnode.ServiceStatus {
	h.t.Helper()
	st, err := h.c.Status(h.t.Context())
	if err != nil {
		return p2pnode.ServiceStatus{}
	}
	for _, s := range append(st.Services, st.Node, st.Door) {
		if s.Name == name {
			return s
		}
	}
	return p2pnode.ServiceStatus{}
}

func (h *host) await(name string, state p2pnode.ServiceState) p2pnode.ServiceStatus {
	h.t.Helper()
	var s p2pnode.ServiceStatus
	eventually(h.t, name+" is "+string(state), func() bool {
		s = h.status(name)
		return s.State == state
	})
	return s
}

// awaitNew waits for a life after the given pid.
func (h *host) awaitNew(name string, old int) p2pnode.ServiceStatus {
	h.t.Helper()
	var s p2pnode.ServiceStatus
	h.t.Cleanup(func() {
		if h.t.Failed() {
			h.t.Logf("last status: %+v", s)
		}
	})
	eventually(h.t, name+" runs again", func() bool {
		s = h.status(name)
		return s.State == p2pnode.StateUp && s.PID != old && s.PID != 0
	})
	return s
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within 15 s: %s", what)
		}
	}
}

// service declares one part of the test binary as a service.
func service(name string, argv ...string) p2pnode.ServiceSpec {
	return p2pnode.ServiceSpec{Name: name, Command: append([]string{"/proc/self/exe"}, argv...), StopGrace: p2pnode.DefaultStopGrace}
}

func alive(pid int) bool {
	st, err := readStat(pid)
	return err == nil && st.state != 'Z'
}

// copiesOf counts processes of a host by the cookie, from outside.
func copiesOf(h *host, name string) (n int) {
	st, err := openState(stateDir(h.dir), runDir(h.dir))
	if err != nil {
		h.t.Fatal(err)
	}
	id := identity{service: name, folder: st.identity(), epoch: st.epoch}
	for _, pid := range allPIDs() {
		if _, ok := cookieOf(pid, id); ok && alive(pid) {
			n++
		}
	}
	return n
}

func kill9(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}
