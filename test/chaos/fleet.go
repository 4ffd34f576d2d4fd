package chaos

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/bin"
	"p2pnode/test/history"
	"p2pnode/test/need"
	"p2pnode/test/score"
)

// names are the containers' host names, and their nodes'.
var names = []string{"a", "b", "c", "d", "e"}

// services are what each container runs; the port is firstPort and up.
var services = []string{"web", "db", "worker"}

const firstPort = 8080

// dataSize is the size of the file system of a data folder: small, to be filled.
const dataSize = "24m"

// Fleet is the containers of one run and all that was made for them.
type Fleet struct {
	t        testing.TB
	run      string // names and labels
	dir      string // histories, ledgers, logs; a folder a container
	binary   string
	image    string
	subnet   string // first three numbers of the network
	janitor  *janitor
	harness  *p2pnode.History
	boxes    []*Box
	lastAddr int

	mu         sync.Mutex
	violations []string
	fleetDead  []span // in which all died
	repairs    map[Kind]score.Samples
	views      score.Samples // from the start of the whole fleet to one view
}

// span is a time from the beginning of something to its end.
type span struct{ from, to time.Time }

// New builds the image and the network and starts nothing yet. What it makes is
// gone at the end of the test; if the test failed its folder stays.
func New(t testing.TB, binary string) *Fleet {
	t.Helper()
	need.Root(t, "processes of containers are killed and watched from outside")
	need.Docker(t)
	run := fmt.Sprintf("p2pnode-chaos-%d-%04x", os.Getpid(), rand.Uint32N(1<<16))
	f := &Fleet{t: t, run: run, image: run, binary: binary, dir: filepath.Join(os.TempDir(), run), repairs: map[Kind]score.Samples{}}
	var err error
	if f.janitor, err = startJanitor(run, f.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.close)
	if err := os.Mkdir(f.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if f.harness, err = p2pnode.OpenHistory(filepath.Join(f.dir, "harness.history.jsonl"), "", history.Harness); err != nil {
		t.Fatal(err)
	}
	f.buildImage()
	f.makeNetwork()
	return f
}

// buildImage makes the image of deploy/Dockerfile and, upon it, one with the victim.
func (f *Fleet) buildImage() {
	f.t.Helper()
	context := filepath.Join(f.dir, "image")
	if err := os.Mkdir(context, 0o700); err != nil {
		f.t.Fatal(err)
	}
	f.must(exec.Command("cp", f.binary, filepath.Join(context, "p2pnode")).Run())
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(context, "victim"), "./test/victim")
	build.Dir = bin.Root(f.t)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		f.t.Fatalf("%v\n%s", err, out)
	}
	victim := filepath.Join(context, "Dockerfile")
	f.must(os.WriteFile(victim, []byte("FROM "+f.image+":bare\nCOPY victim /victim\n"), 0o600))
	mark := label + "=" + f.run
	f.docker("build", "-q", "--label", mark, "-t", f.image+":bare", "-f", filepath.Join(build.Dir, "deploy", "Dockerfile"), context)
	f.docker("build", "-q", "--label", mark, "-t", f.image, "-f", victim, context)
}

// makeNetwork makes a network of a subnet that is free here: containers are given
// addresses of it by number.
func (f *Fleet) makeNetwork() {
	f.t.Helper()
	var err error
	for range 20 {
		f.subnet = fmt.Sprintf("10.%d.%d", 100+rand.IntN(100), rand.IntN(256))
		if _, err = docker("network", "create", "--label", label+"="+f.run, "--subnet", f.subnet+".0/24", f.run); err == nil {
			return
		}
	}
	f.t.Fatalf("no network: %v", err)
}

// newAddr is an address that no container had before.
func (f *Fleet) newAddr() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lastAddr = f.lastAddr%200 + 1
	return fmt.Sprintf("%s.%d", f.subnet, 20+f.lastAddr)
}

// Anchor starts a container that holds the data volumes mounted, so that what is in
// their memory survives the death of all others.
func (f *Fleet) anchor(volumes []string) {
	f.t.Helper()
	args := []string{"run", "-d", "--label", label + "=" + f.run, "--network", "none", "--no-healthcheck", "--entrypoint", "/victim", "--tmpfs", "/var/lib/p2pnode"}
	for i, v := range volumes {
		args = append(args, "-v", fmt.Sprintf("%s:/hold/%d", v, i))
	}
	f.docker(append(args, f.image, "-port", "0")...)
}

// Start starts the containers, waits until all see all alive, makes everybody a
// manager (who may read excerpts) and launches agents.
func (f *Fleet) Start(count int) {
	f.t.Helper()
	var volumes []string
	for _, name := range names[:count] {
		b := f.add(name)
		volumes = append(volumes, b.volume)
	}
	f.anchor(volumes)
	for i, b := range f.boxes {
		join := []string{"--join", names[0]}
		if i == 0 {
			join = nil
		}
		b.create(join...)
	}
	f.eventually(40*time.Second, "all see all alive", f.allAlive)
	first := f.boxes[0]
	for _, b := range f.boxes[1:] {
		f.eventually(20*time.Second, "promote "+b.Name, func() bool { _, code := first.CLI("promote", b.Name); return code == 0 })
	}
	if out, code := first.CLI("agents", "launch", "--slo", "15s"); code != 0 {
		f.t.Fatalf("agents launch: %s", out)
	}
	f.eventually(20*time.Second, "agents on patrol", func() bool {
		var d p2pnode.AgentsDoc
		return first.JSON(&d, "agents", "ls") && len(d.Agents) > 0
	})
}

func (f *Fleet) allAlive() bool {
	for _, b := range f.boxes {
		if !b.seesAll() {
			return false
		}
	}
	return true
}

func (f *Fleet) docker(args ...string) string {
	f.t.Helper()
	out, err := docker(args...)
	f.must(err)
	return out
}

func (f *Fleet) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *Fleet) eventually(within time.Duration, what string, cond func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(within); !cond(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("not within %v: %s", within, what)
		}
	}
}

// violation notes a broken promise.
func (f *Fleet) violation(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.violations = append(f.violations, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

func (f *Fleet) repaired(k Kind, took time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.repairs[k] = append(f.repairs[k], took)
}

func (f *Fleet) close() {
	f.t.Helper()
	for _, b := range f.boxes {
		b.stopLooking()
	}
	failed := f.t.Failed()
	if failed {
		for _, b := range f.boxes {
			out, _ := exec.Command("docker", "logs", "-t", b.container).CombinedOutput()
			os.WriteFile(filepath.Join(f.dir, b.Name+".log"), out, 0o600)
		}
		os.RemoveAll(filepath.Join(f.dir, "image"))
		f.t.Logf("kept for reading: %s", f.dir)
	}
	f.harness.Close()
	if err := f.janitor.close(failed); err != nil {
		f.t.Errorf("not swept: %v: %s", err, strings.Join(remains(f.run), ", "))
	}
}
