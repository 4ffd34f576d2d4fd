package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"p2pnode"
	"p2pnode/exec"
	"p2pnode/exec/check"
	"p2pnode/exec/logs"
)

// Sizes of a bundle: what a mail takes.
const (
	maxState  = 256 << 10 // bytes of one file of state
	maxTail   = 64 << 10  // last bytes of one log
	maxLogs   = 256       // files
	maxListed = 5000      // lines of the list of files
	maxPIDs   = 200
)

// bundle is a tar.gz that is being written. Every text goes through the mask.
type bundle struct {
	f     *os.File
	gz    *gzip.Writer
	tar   *tar.Writer
	now   time.Time
	files []bundleFile
	lacks []string
	err   error
}

type bundleFile struct {
	Name string `json:"name"`
	Size int    `json:"size"`
}

func newBundle(path string, now time.Time) (*bundle, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, &p2pnode.Error{Code: "exists", Text: path + " is there already and was left as it is", Fix: "name another file: p2pnode debug bundle FILE", Exit: p2pnode.ExitUsage}
	}
	if err != nil {
		return nil, fmt.Errorf("cannot write %s: %w", path, bare(err))
	}
	gz := gzip.NewWriter(f)
	return &bundle{f: f, gz: gz, tar: tar.NewWriter(gz), now: now}, nil
}

func (b *bundle) close() error {
	return errors.Join(b.err, b.tar.Close(), b.gz.Close(), b.f.Close())
}

func (b *bundle) lack(what string, err error) {
	b.lacks = append(b.lacks, what+": "+logs.MaskText(err.Error()))
}

// text adds a file, masked.
func (b *bundle) text(name, text string) {
	raw := []byte(logs.MaskText(text))
	err := b.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(raw)), ModTime: b.now, Format: tar.FormatPAX})
	if err == nil {
		_, err = b.tar.Write(raw)
	}
	if b.err = errors.Join(b.err, err); err == nil {
		b.files = append(b.files, bundleFile{name, len(raw)})
	}
}

func (b *bundle) json(name string, doc any) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(doc); err != nil {
		b.lack(name, err)
		return
	}
	b.text(name, out.String())
}

// file adds the end of a file, if it is one.
func (b *bundle) file(name, path string, tail int) {
	raw, err := tailOf(path, tail)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		b.lack(name, err)
		return
	}
	b.text(name, string(raw))
}

// tailOf reads the last n bytes of a regular file, from the beginning of a line.
func tailOf(path string, n int) ([]byte, error) {
	f, info, err := p2pnode.OpenRegular(path, unix.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	from := max(0, info.Size()-int64(n))
	raw, err := io.ReadAll(io.NewSectionReader(f, from, int64(n)))
	if i := bytes.IndexByte(raw, '\n'); from > 0 && i >= 0 {
		raw = raw[i+1:] // half a line may be half a secret
	}
	return raw, err
}

// readSome is the beginning of a file of /proc or of state; "" where there is none.
func readSome(path string, n int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	raw, _ := io.ReadAll(io.LimitReader(f, n))
	return string(raw)
}

// state is what exec wrote down, and the list of what is in the data folder; of
// files that are not named here only name and size are told. It returns how
// p2pnode was started.
func (b *bundle) state(dir string) (argv []string) {
	for _, name := range []string{"exec/epoch.json", "exec/desired.json", "audit.log", "audit.log.1"} {
		b.file("state/"+name, filepath.Join(dir, name), maxState)
	}
	records, _ := filepath.Glob(filepath.Join(dir, "exec", "services", "*.json"))
	for _, path := range records {
		if raw, err := tailOf(path, maxState); err == nil {
			b.text("state/exec/services/"+filepath.Base(path), strings.TrimRight(string(raw), " \n")+"\n")
		} else {
			b.lack(path, err)
		}
	}
	if raw, err := tailOf(filepath.Join(dir, "run", "guard.json"), maxState); err == nil {
		argv = guardOf(raw)
		b.text("state/started.txt", strings.Join(argv, " ")+"\n")
	}
	var list strings.Builder
	lines := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			fmt.Fprintf(&list, "%s: %v\n", path, bare(err))
			return nil
		}
		if info, err := d.Info(); err == nil && lines < maxListed {
			fmt.Fprintf(&list, "%s %10d %s %s\n", info.Mode(), info.Size(), info.ModTime().UTC().Format(time.RFC3339), strings.TrimPrefix(path, dir))
			lines++
		}
		return nil
	})
	if err != nil {
		b.lack("state/files.txt", err)
	}
	b.text("state/files.txt", list.String())
	return argv
}

// earlierLog are the rotated files of a log but the newest.
var earlierLog = regexp.MustCompile(`\.(log|out)\.([2-9]|[0-9]{2,})$`)

// logs adds the ends of logs: of those that are written to and of the ones before. What
// was rotated earlier is in the list of files.
func (b *bundle) logs(dir string) {
	paths, _ := filepath.Glob(filepath.Join(dir, "logs", "*"))
	paths = slices.DeleteFunc(paths, func(path string) bool { return earlierLog.MatchString(path) })
	for i, path := range paths {
		if i == maxLogs {
			b.lack("logs", fmt.Errorf("%d more", len(paths)-maxLogs))
			return
		}
		b.file("logs/"+filepath.Base(path), path, maxTail)
	}
}

// proc is the host, p2pnode's processes and those of its services. Environments
// are not looked at.
func (b *bundle) proc(dir string) {
	for _, name := range []string{"version", "uptime", "loadavg", "meminfo", "pressure/cpu", "pressure/memory", "pressure/io", "self/mountinfo", "self/cgroup"} {
		if text := readSome("/proc/"+name, maxState); text != "" {
			b.text("proc/"+name, text)
		}
	}
	var fsys unix.Statfs_t
	if err := unix.Statfs(dir, &fsys); err == nil {
		b.text("proc/disk.txt", fmt.Sprintf("%s: %d MiB of %d free, %d of %d inodes, type %x\n", dir, fsys.Bavail*uint64(fsys.Bsize)>>20, fsys.Blocks*uint64(fsys.Bsize)>>20, fsys.Ffree, fsys.Files, fsys.Type))
	}
	pids := recordedPIDs(dir)
	if alive, pid := exec.ExecAlive(dir); alive {
		pids = append(pids, pid)
	}
	for _, pid := range slices.Clone(pids) {
		pids = append(pids, check.Tree(pid)...)
	}
	slices.Sort(pids)
	for i, pid := range slices.Compact(pids) {
		if i == maxPIDs {
			b.lack("proc", errors.New("more processes than fit"))
			return
		}
		b.process(pid)
	}
}

func (b *bundle) process(pid int) {
	at := "/proc/" + strconv.Itoa(pid) + "/"
	if _, err := os.Stat(at); err != nil {
		b.lack("proc/"+strconv.Itoa(pid), errors.New("it is dead"))
		return
	}
	for _, name := range []string{"status", "stat", "limits", "cgroup", "wchan", "oom_score_adj"} {
		if text := readSome(at+name, maxState); text != "" {
			b.text("proc/"+strconv.Itoa(pid)+"/"+name, text)
		}
	}
	b.text("proc/"+strconv.Itoa(pid)+"/cmdline", strings.ReplaceAll(readSome(at+"cmdline", 16<<10), "\x00", " ")+"\n")
}
