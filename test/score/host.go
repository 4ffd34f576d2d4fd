package score

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
)

// written is what measuring writes itself.
var written = []string{"docs/SCORECARD.json", "docs/SCORECARD.md", "docs/mttr", "README.md"}

// Commit names the revision that is measured, from anywhere in its tree; a tree that
// is not as committed, but for what measuring writes, is said so. It is empty where
// there is none.
func Commit() string {
	head, _ := exec.Command("git", "rev-parse", "--short=9", "HEAD").Output()
	name := strings.TrimSpace(string(head))
	args := []string{"status", "--porcelain", "--untracked-files=no", "--", ":/"}
	for _, path := range written {
		args = append(args, ":(top,exclude)"+path)
	}
	if changed, _ := exec.Command("git", args...).Output(); len(changed) > 0 {
		name += " and changes"
	}
	return name
}

// Host says on what figures are taken.
func Host() string {
	model := ""
	raw, _ := os.ReadFile("/proc/cpuinfo")
	for l := range strings.Lines(string(raw)) {
		if name, value, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(name) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	kernel, _ := exec.Command("uname", "-r").Output()
	return fmt.Sprintf("%d cores of a shared machine (%s), Linux %s, %s", runtime.NumCPU(), model, strings.TrimSpace(string(kernel)), runtime.Version())
}
