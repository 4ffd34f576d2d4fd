package exec

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"p2pnode"
)

// installation is a binary on its way to the installed one's place. What is tried
// is what is installed: a copy that nobody else writes to.
type installation struct {
	from   string // as it was named
	target string // the installed file
	sync   func(folder string) error
	staged string // the copy beside it, or target itself where a package manager has put it there already
	same   bool   // it is the binary that runs
}

// installed is the file from which this process was started. It may be another
// binary by now.
func installed() (string, error) {
	path, err := os.Readlink("/proc/self/exe")
	return strings.TrimSuffix(path, " (deleted)"), err
}

// stage puts a copy of file beside the installed binary; "" is the installed file
// itself.
func stage(file string) (*installation, error) {
	target, err := installed()
	if err != nil {
		return nil, err
	}
	in := &installation{from: file, target: target, sync: syncFolder}
	if file == "" {
		in.from = target
	}
	src, info, err := p2pnode.OpenRegular(in.from, 0)
	if err != nil {
		return nil, unfit(in.from, errors.New(plain(err)))
	}
	defer src.Close()
	if in.same, err = sameBytes(src, "/proc/self/exe"); err != nil {
		return nil, err
	}
	there, err := os.Stat(target)
	if err == nil && os.SameFile(info, there) {
		in.staged = target
		return in, nil
	}
	if in.same {
		if f, err := os.Open(target); err == nil {
			defer f.Close()
			if same, err := sameBytes(f, "/proc/self/exe"); err == nil && same {
				return in, nil // it runs, and it is installed
			}
		}
		in.same = false // another one is installed: this one is put back
	}
	in.staged, err = copyBeside(src, target, ".new")
	return in, err
}

// sameBytes compares an open file, from its beginning, with another one.
func sameBytes(a *os.File, path string) (bool, error) {
	b, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer b.Close()
	x, y := make([]byte, 1<<18), make([]byte, 1<<18)
	for at := int64(0); ; {
		n, errA := a.ReadAt(x, at)
		m, errB := b.ReadAt(y, at)
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		if errA == io.EOF || errB == io.EOF {
			return errA == errB, nil
		}
		if err := errors.Join(errA, errB); err != nil {
			return false, err
		}
		at += int64(n)
	}
}

// copyBeside writes a whole new executable into target's folder, synced.
func copyBeside(src *os.File, target, suffix string) (path string, err error) {
	f, err := os.CreateTemp(filepath.Dir(target), "."+filepath.Base(target)+suffix+"-*")
	if err != nil {
		return "", &p2pnode.Error{
			Code: "cannot-install", Text: "cannot install into " + filepath.Dir(target) + ": " + plain(err),
			Fix: "exec must be able to write there; or put the new binary there yourself and run: p2pnode upgrade",
		}
	}
	_, err = io.Copy(f, io.NewSectionReader(src, 0, 1<<62))
	err = errors.Join(err, f.Chmod(0o755), f.Sync(), f.Close())
	if err != nil {
		os.Remove(f.Name())
		return "", &p2pnode.Error{Code: "cannot-install", Text: "cannot write " + f.Name() + ": " + plain(err), Fix: "check the disk"}
	}
	return f.Name(), nil
}

func (in *installation) previous() string { return in.target + ".prev" }

// install keeps the binary that runs as .prev and gives the new one its name.
func (in *installation) install() error {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer self.Close()
	old, err := copyBeside(self, in.target, ".prev")
	if err != nil {
		return err
	}
	if err := os.Rename(old, in.previous()); err != nil {
		os.Remove(old)
		return err
	}
	if in.staged == in.target {
		return nil
	}
	if err := os.Rename(in.staged, in.target); err != nil {
		return err
	}
	in.staged = ""
	if err := in.sync(filepath.Dir(in.target)); err != nil {
		return in.takeBack(err)
	}
	return nil
}

// takeBack gives the old binary its name again: the new one has it, and may not be on the
// disk. Nobody asked for what a restart would start then.
func (in *installation) takeBack(why error) error {
	e := &p2pnode.Error{Code: "cannot-install", Text: "the disk does not keep " + in.target + ": " + plain(why) + "; the old binary is back", Fix: "check the disk"}
	if err := os.Rename(in.previous(), in.target); err != nil {
		e.Text = "the disk does not keep " + in.target + ": " + plain(why) + "; and the old binary cannot be put back: " + plain(err)
		e.Fix = "p2pnode runs on as before, but its next start is of the new binary: check the disk and mv " + in.previous() + " " + in.target
	}
	return e
}

// discard removes a copy that was not installed.
func (in *installation) discard() {
	if in.staged != "" && in.staged != in.target {
		os.Remove(in.staged)
	}
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// rollBack gives the installed file its old content again.
func rollBack(u p2pnode.Upgrade) error {
	if err := os.Rename(u.Previous, u.Target); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(u.Target))
}

// undoUpgrade is a guard's: exec died of the new binary, so the old one is put back
// before exec is started again, at once. It reports whether this is such a case. A
// guard that runs the new binary cannot help.
func undoUpgrade(dir string) bool {
	u, err := readUpgrade(dir)
	switch {
	case err != nil || u.Step != p2pnode.SelfExec || u.Back:
		return false
	case u.State == p2pnode.UpgradeFailed:
		return time.Since(u.EndedAt) < guardSupervised // the other guard was here a moment ago
	case u.State != p2pnode.UpgradeRunning:
		return false
	}
	u.State, u.EndedAt, u.Text = p2pnode.UpgradeFailed, time.Now(), "exec died of the new binary: the old one is back"
	if err := rollBack(u); err != nil {
		u.Text = "exec died of the new binary, and the old one cannot be put back: " + err.Error()
	}
	saveUpgrade(dir, u)
	return true
}
