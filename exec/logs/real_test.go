package logs

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pnode/test/need"
)

// How many lines are masked that hold no secret: of logs that programs of Debian wrote
// on this machine, of those that they write when they are started, at their most
// talkative, and of their changelogs, which speak of keys and tokens more than any log
// does. The first ones of each file are printed.
func TestMaskOnRealLogs(t *testing.T) {
	var files []string
	for _, pattern := range []string{
		"/var/log/*.log", "/var/log/apt/*.log", "/var/log/nginx/*", "/var/log/redis/*", "/var/log/postgresql/*", "/usr/share/doc/*/changelog.Debian.gz",
	} {
		found, _ := filepath.Glob(pattern)
		found = found[:min(len(found), 150)]
		files = append(files, found...)
	}
	files = append(files, startedLogs(t)...)
	lines, masked := 0, 0
	byKind := map[string][2]int{}
	for _, path := range files {
		n, hits := maskedLines(t, path)
		kind := filepath.Dir(path)
		switch {
		case strings.HasPrefix(path, "/usr/share/doc"):
			kind = "changelogs"
		case !strings.HasPrefix(path, "/var/log"):
			kind = filepath.Base(path)
		}
		was := byKind[kind]
		byKind[kind] = [2]int{was[0] + n, was[1] + hits}
		lines, masked = lines+n, masked+hits
	}
	if lines == 0 {
		need.Had(t, errors.New("no logs of other programs on this machine"))
	}
	t.Logf("%d of %d lines of %d files are masked (%.3f %%): %v", masked, lines, len(files), 100*float64(masked)/float64(lines), byKind)
	if 1000*masked > lines {
		t.Errorf("more than one line in a thousand is masked for nothing")
	}
}

// startedLogs are the logs of the programs that are installed here, each started once
// and asked to stop.
func startedLogs(t *testing.T) (files []string) {
	dir := t.TempDir()
	conf := filepath.Join(dir, "nginx.conf")
	text := "daemon off; master_process off; pid nginx.pid; error_log stderr debug; events {} http { access_log off; server { listen unix:" + filepath.Join(dir, "nginx.sock") + "; } }"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"redis-server": {"--port", "0", "--unixsocket", filepath.Join(dir, "redis.sock"), "--loglevel", "debug", "--dir", dir, "--save", ""},
		"nginx":        {"-p", dir, "-e", "stderr", "-c", conf},
	} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Logf("%s is not installed: nothing of it is looked at", name)
			continue
		}
		out, err := os.Create(filepath.Join(dir, name+".log"))
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithTimeout(t.Context(), time.Second)
		cmd := exec.CommandContext(ctx, path, args...)
		cmd.Stdout, cmd.Stderr, cmd.Dir = out, out, dir
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.WaitDelay = 5 * time.Second
		cmd.Run() // how it ends is not the point: it was asked to
		stop()
		out.Close()
		files = append(files, out.Name())
	}
	return files
}

func maskedLines(t *testing.T, path string) (n, hits int) {
	f, err := os.Open(path)
	if err != nil {
		return 0, 0
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(path, ".gz") {
		if r, err = gzip.NewReader(f); err != nil {
			return 0, 0
		}
	}
	for in := bufio.NewScanner(r); in.Scan() && n < 20000; n++ {
		if out, found := Mask(in.Text()); found > 0 {
			if hits++; hits <= 3 {
				t.Logf("%s: %.160s", filepath.Base(path), out)
			}
		}
	}
	return n, hits
}
