package chaos

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/bin"
	"p2pnode/test/host"
	"p2pnode/test/need"
)

// composed is deploy/compose.yaml, come up as the README says it.
type composed struct {
	t       testing.TB
	project string
	file    string
}

// run runs docker-compose; its own words are on stderr.
func (c composed) run(args ...string) (string, error) {
	cmd := exec.Command("docker-compose", append([]string{"-p", c.project, "-f", c.file}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("docker-compose %s: %w\n%s%s", strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String(), nil
}

func (c composed) must(args ...string) string {
	c.t.Helper()
	out, err := c.run(args...)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// json asks a node of the file; the answer is no good until it is.
func (c composed) json(v any, node string, args ...string) bool {
	out, err := c.run(append([]string{"exec", "-T", node, "/p2pnode"}, append(args, "-o", "json")...)...)
	return err == nil && json.Unmarshal([]byte(out), v) == nil
}

// deploy/compose.yaml comes up as it is printed, with the binary that was built:
// five see five alive, each runs the service of the mounted file, Docker calls all
// healthy; what it runs comes back when it is killed; down leaves nothing.
func TestComposeComesUp(t *testing.T) {
	need.Root(t, "a service in a container is killed from outside")
	need.Docker(t)
	need.Program(t, "docker-compose", "docker-compose")
	root := bin.Root(t)
	c := composed{t, fmt.Sprintf("p2pnodecompose%d", os.Getpid()), filepath.Join(root, "deploy", "compose.yaml")}
	if binary, place := bin.P2pnode(t), filepath.Join(root, "bin", "p2pnode"); binary != place { // the file builds from there
		if out, err := exec.Command("install", "-D", binary, place).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	janitor, err := startJanitor(c.project, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := janitor.close(false); err != nil {
			t.Error(err)
		}
	})
	c.must("config", "-q")
	c.must("up", "-d", "--build")
	nodes := []string{"one", "two", "three", "four", "five"}
	for _, node := range nodes {
		if !host.Eventually(60*time.Second, func() bool { return c.sees(node, nodes) }) {
			t.Fatalf("%s does not see five alive and its service up\n%s", node, c.must("logs", "--tail", "30", node))
		}
	}
	id := strings.TrimSpace(c.must("ps", "-q", "three"))
	if !host.Eventually(30*time.Second, func() bool {
		out, _ := docker("inspect", "-f", "{{.State.Health.Status}}", id)
		return out == "healthy"
	}) {
		t.Error("Docker does not call three healthy")
	}
	before := c.web("three")
	inside, err := docker("top", id, "-eo", "pid,args")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(inside) {
		if fields := strings.Fields(line); len(fields) > 2 && fields[2] == "demo-web" {
			if out, err := exec.Command("kill", "-9", fields[0]).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
	}
	if !host.Eventually(10*time.Second, func() bool { now := c.web("three"); return now != 0 && now != before }) {
		t.Error("the service of three did not come back")
	}
	c.must("down", "-v", "--rmi", "all")
	left, err := docker("ps", "-aq", "--filter", "label=com.docker.compose.project="+c.project)
	if err != nil || left != "" {
		t.Errorf("left: %s %v", left, err)
	}
}

func (c composed) sees(node string, all []string) bool {
	var d p2pnode.NodesDoc
	if !c.json(&d, node, "nodes") || len(d.Nodes) != len(all) {
		return false
	}
	dead := slices.ContainsFunc(d.Nodes, func(n p2pnode.NodeDoc) bool { return n.Verdict != p2pnode.Alive || !slices.Contains(all, n.Name) })
	return !dead && c.web(node) != 0
}

// web is the pid of a node's service web, where it is up.
func (c composed) web(node string) int {
	var d p2pnode.PSDoc
	c.json(&d, node, "ps")
	for _, s := range d.Services {
		if s.Name == "web" && s.State == p2pnode.StateUp {
			return s.PID
		}
	}
	return 0
}
