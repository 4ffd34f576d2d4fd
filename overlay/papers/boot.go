package papers

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"p2pnode"
)

const bootFile = "boot"

// NextLife draws the life of a node process that starts now: above the number
// that dir remembers and above seen, what the cluster remembers of this node (0
// if it was not asked). It writes the new number before it returns. The life is
// good also when err says that the disk did not take it.
func NextLife(dir string, seen uint64) (p2pnode.Life, error) {
	path := filepath.Join(dir, bootFile)
	prev, err := readBoot(path)
	life := p2pnode.NewLife(max(prev, seen))
	if plantBootRepeats && prev > 0 {
		life.Boot = prev
	}
	text := strconv.FormatUint(life.Boot, 10) + "\n"
	if werr := p2pnode.WriteFile(path, []byte(text), 0o600); werr != nil {
		err = errors.Join(err, fmt.Errorf("cannot keep the boot number: %w", werr))
	}
	return life, err
}

// readBoot reads a number; a file that holds none counts as 0, and the cluster's
// memory corrects that.
func readBoot(path string) (uint64, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 63)
	if err != nil {
		return 0, fmt.Errorf("boot number unreadable: %w", err)
	}
	return n, nil
}

// RaiseBoot makes the next life's number be above seen.
func RaiseBoot(dir string, seen uint64) error {
	path := filepath.Join(dir, bootFile)
	if prev, err := readBoot(path); err == nil && prev >= seen {
		return nil
	}
	return p2pnode.WriteFile(path, []byte(strconv.FormatUint(seen, 10)+"\n"), 0o600)
}
