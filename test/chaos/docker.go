package chaos

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// label marks everything that a run makes; its value is the run's name.
const label = "p2pnode.chaos"

// docker runs the CLI and returns what it printed: what the harness does is what
// a person would type.
func docker(args ...string) (string, error) {
	cmd := exec.Command("docker", args...)
	cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=0") // FROM scratch needs no more, and 20.10 may have no more
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("docker %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return strings.TrimSpace(out.String()), nil
}

// kinds are what a run may leave, in the order in which they can be removed.
var kinds = []struct{ list, remove []string }{
	{[]string{"ps", "-aq"}, []string{"rm", "-fv"}},
	{[]string{"network", "ls", "-q"}, []string{"network", "rm"}},
	{[]string{"volume", "ls", "-q"}, []string{"volume", "rm", "-f"}},
	{[]string{"images", "-aq"}, []string{"rmi", "-f"}},
}

// marks are the labels by which a run's things are known: ours, and the one that
// docker-compose gives.
func marks(run string) []string {
	return []string{"label=" + label + "=" + run, "label=com.docker.compose.project=" + run}
}

// sweep removes everything that carries a run's label. What is gone already is no
// error: two sweeps may meet.
func sweep(run string) error {
	for _, kind := range kinds {
		for _, mark := range marks(run) {
			if ids := listed(append(kind.list, "--filter", mark)...); len(ids) > 0 {
				docker(append(kind.remove, ids...)...)
			}
		}
	}
	if left := remains(run); len(left) > 0 {
		return fmt.Errorf("left of %s: %v", run, left)
	}
	return nil
}

// remains names what still carries a run's label.
func remains(run string) (left []string) {
	for _, kind := range kinds {
		for _, mark := range marks(run) {
			for _, id := range listed(append(kind.list, "--filter", mark)...) {
				left = append(left, kind.list[0]+" "+id)
			}
		}
	}
	return left
}

func listed(args ...string) []string {
	out, err := docker(args...)
	if err != nil {
		return nil
	}
	return strings.Fields(out)
}
