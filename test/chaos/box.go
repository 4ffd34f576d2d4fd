package chaos

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"p2pnode"
	"p2pnode/test/host"
)

// Box is one container with a p2pnode host in it, seen from outside.
type Box struct {
	Name      string
	fleet     *Fleet
	container string
	volume    string // data folder, on a small file system of its own
	data      string // where the host sees that volume
	folder    string // /chaos in the container

	fault   sync.Mutex // one fault at a time
	probers []*prober

	mu     sync.Mutex
	pid    int // of its exec, in the host's numbers; 0 while it is down
	upFrom time.Time
	starts int // of its container
	paused bool
	cutOff bool
}

func (f *Fleet) add(name string) *Box {
	f.t.Helper()
	b := &Box{Name: name, fleet: f, container: f.run + "-" + name, volume: f.run + "-" + name, folder: filepath.Join(f.dir, name)}
	f.must(os.Mkdir(b.folder, 0o700))
	var yaml strings.Builder
	yaml.WriteString("services:\n")
	for i, s := range services {
		port := firstPort + i
		fmt.Fprintf(&yaml, "  %s:\n    command: [/victim, -port, \"%d\", -ledger, /chaos/%s.ledger, -say, last words of %s on %s]\n    check: {http: \"http://127.0.0.1:%d/\"}\n",
			s, port, s, s, name, port)
	}
	f.must(os.WriteFile(filepath.Join(b.folder, "p2pnode.yaml"), []byte(yaml.String()), 0o600))
	f.docker("volume", "create", "--label", label+"="+f.run, "--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size="+dataSize, b.volume)
	b.data = f.docker("volume", "inspect", "-f", "{{.Mountpoint}}", b.volume)
	f.boxes = append(f.boxes, b)
	return b
}

// create runs the container for the first time and begins to look at it.
func (b *Box) create(flags ...string) {
	f := b.fleet
	f.t.Helper()
	args := []string{
		"run", "-d", "--name", b.container, "--hostname", b.Name, "--label", label + "=" + f.run,
		"--network", f.run, "--network-alias", b.Name, "--ip", f.newAddr(),
		"-v", b.volume + ":/var/lib/p2pnode", "-v", b.folder + ":/chaos", f.image,
		"--config", "/chaos/p2pnode.yaml", "--history", "/chaos/" + b.Name + ".history.jsonl",
		"--ephemeral", "no", // the volume is in memory for its size only: it outlives the container
	}
	f.docker(append(args, flags...)...)
	f.must(b.started())
	for i, s := range services {
		b.probers = append(b.probers, b.probe(s, firstPort+i))
	}
}

// started notes that the container runs, and since when.
func (b *Box) started() error {
	out, err := docker("inspect", "-f", "{{.State.Pid}} {{.State.StartedAt}}", b.container)
	if err != nil {
		return err
	}
	pid, at, _ := strings.Cut(out, " ")
	n, err := strconv.Atoi(pid)
	if err != nil || n == 0 {
		return fmt.Errorf("%s does not run: %s", b.container, out)
	}
	since, err := time.Parse(time.RFC3339Nano, at)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pid, b.upFrom = n, since
	b.starts++
	return nil
}

// down notes that the container is about to be killed.
func (b *Box) down() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pid = 0
}

func (b *Box) pause(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.paused, b.upFrom = on, time.Now()
}

// running is the pid of exec, and since when services are expected to answer; 0
// while none is.
func (b *Box) running() (pid int, since time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.paused {
		return 0, b.upFrom
	}
	return b.pid, b.upFrom
}

func (b *Box) cutOffIs(on bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.cutOff = on
}

// reachable reports whether nothing that the harness did keeps others from it.
func (b *Box) reachable() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pid != 0 && !b.paused && !b.cutOff
}

// PID is exec's, whether paused or not.
func (b *Box) PID() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.pid
}

// children are the processes that exec has as children, with their arguments.
func (b *Box) children() map[int][]string {
	out := map[int][]string{}
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", b.PID(), b.PID()))
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", b.PID()))
	for _, t := range threads {
		more, _ := os.ReadFile(t)
		raw = append(append(raw, ' '), more...)
	}
	for field := range strings.FieldsSeq(string(raw)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			continue
		}
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if argv := strings.Split(strings.TrimRight(string(cmdline), "\x00"), "\x00"); len(argv) > 1 {
			out[pid] = argv
		}
	}
	return out
}

// find is the pid of a service, or of @node or @door; 0 if it does not run. Where
// several run they are all said: that is for the caller to judge.
func (b *Box) find(what string) (pids []int) {
	for pid, argv := range b.children() {
		is := false
		switch what {
		case p2pnode.SelfNode, p2pnode.SelfDoor:
			is = argv[1] == what[1:]
		default:
			is = argv[0] == "/victim" && slices.Contains(argv, "/chaos/"+what+".ledger")
		}
		if is && host.Running(pid, host.StartTicks(pid)) {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids
}

// CLI runs a command against the container's daemon, through its data folder.
func (b *Box) CLI(args ...string) (out string, code int) {
	cmd := exec.Command(b.fleet.binary, args...)
	cmd.Env = append(os.Environ(), "NO_COLOR=1", "P2PNODE_DATA="+b.data)
	var both bytes.Buffer
	cmd.Stdout = &both
	err := cmd.Run()
	if x, ok := errors.AsType[*exec.ExitError](err); ok {
		code = x.ExitCode()
	} else if err != nil {
		code = 1
	}
	return both.String(), code
}

// JSON runs a command and decodes what it prints; false if it failed or printed
// something else.
func (b *Box) JSON(v any, args ...string) bool {
	out, _ := b.CLI(append(args, "-o", "json")...)
	return json.Unmarshal([]byte(out), v) == nil
}

// seesAll reports whether this node believes all of the fleet, and nobody else, to
// be alive.
func (b *Box) seesAll() bool {
	var d p2pnode.NodesDoc
	if !b.JSON(&d, "nodes") || len(d.Nodes) != len(b.fleet.boxes) {
		return false
	}
	return !slices.ContainsFunc(d.Nodes, func(n p2pnode.NodeDoc) bool { return n.Verdict != p2pnode.Alive })
}

// amongOthers reports whether this node and everybody who can be reached believe
// each other to be alive.
func (b *Box) amongOthers() bool {
	for _, other := range b.fleet.boxes {
		if other != b && other.reachable() && (!b.believes(other) || !other.believes(b)) {
			return false
		}
	}
	return true
}

func (b *Box) believes(other *Box) bool {
	var d p2pnode.NodesDoc
	return b.JSON(&d, "nodes") && slices.ContainsFunc(d.Nodes, func(n p2pnode.NodeDoc) bool {
		return n.Name == other.Name && n.Verdict == p2pnode.Alive
	})
}

func (b *Box) stopLooking() {
	for _, p := range b.probers {
		p.stop()
	}
}
