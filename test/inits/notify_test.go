package inits

import (
	"errors"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"p2pnode/test/bin"
)

// allowed is the WatchdogSec of the test: longer than any pause of a busy machine.
const allowed = 9 * time.Second

// initd is the notify socket of an init, and what was said to it.
type initd struct {
	t    *testing.T
	conn *net.UnixConn
	path string

	mu     sync.Mutex
	main   int // all must be said by this process; 0 takes the first
	words  map[string]int
	last   time.Time
	silent time.Duration // the longest
}

func newInitd(t *testing.T, dir string) *initd {
	t.Helper()
	i := &initd{t: t, path: filepath.Join(dir, "notify.sock"), words: map[string]int{}}
	var err error
	if i.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: i.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	raw, err := i.conn.SyscallConn()
	if err == nil {
		failed := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
		err = errors.Join(err, failed)
	}
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(i.listen)
	t.Cleanup(func() { i.conn.Close(); wg.Wait() })
	return i
}

func (i *initd) listen() {
	word, ancillary := make([]byte, 4096), make([]byte, 256)
	for {
		n, m, _, _, err := i.conn.ReadMsgUnix(word, ancillary)
		if err != nil {
			return // closed
		}
		pid := 0
		if parts, err := unix.ParseSocketControlMessage(ancillary[:m]); err == nil && len(parts) > 0 {
			if cred, err := unix.ParseUnixCredentials(&parts[0]); err == nil {
				pid = int(cred.Pid)
			}
		}
		i.hears(pid, string(word[:n]))
	}
}

func (i *initd) hears(pid int, word string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.main == 0 {
		i.main = pid
	}
	if pid != i.main {
		i.t.Errorf("%d says %q, main process is %d", pid, word, i.main)
	}
	if !i.last.IsZero() {
		i.silent = max(i.silent, time.Since(i.last))
	}
	i.last = time.Now()
	i.words[word]++
}

func (i *initd) heard(word string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.words[word]
}

// What systemd needs of a Type=notify unit, without one: ready once what runs is
// adopted, signs of life in time, and all of it from the main process, whose pid an
// ExecReload that puts another binary in place does not change.
func TestNotifySocket(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	i := newInitd(t, h.Fleet.Dir)
	h.Bin = filepath.Join(h.Fleet.Dir, "p2pnode")
	bin.Copy(t, bin.P2pnode(t), h.Bin, "")
	next := filepath.Join(h.Fleet.Dir, "next")
	bin.Copy(t, bin.P2pnode(t), next, "next")
	h.Fleet.Env = []string{"NOTIFY_SOCKET=" + i.path, "WATCHDOG_USEC=" + strconv.FormatInt(allowed.Microseconds(), 10)}
	h.Start(append(alone, "--supervised", "auto")...)
	was := settled(h)
	h.Fleet.Must(patience, "READY=1", func() bool { return i.heard("READY=1") == 1 })

	h.OK("reload")
	h.OK("upgrade", next, "--settle", "200ms")
	h.Fleet.Must(patience, "READY=1 of the new binary", func() bool { return i.heard("READY=1") == 2 })
	signs := i.heard("WATCHDOG=1")
	now := becomes(h, "the new binary keeps pid and service", func(p pids) bool { return p.exec == was.exec && p.web == was.web })
	h.Fleet.Must(2*allowed, "signs of life of the new binary", func() bool { return i.heard("WATCHDOG=1") > signs })
	i.mu.Lock()
	if i.main != now.exec || i.silent > allowed {
		t.Errorf("main process %d is %d to the init; silent for %v of %v", now.exec, i.main, i.silent, allowed)
	}
	for word := range i.words {
		if word != "READY=1" && word != "WATCHDOG=1" {
			t.Errorf("it says %q", word)
		}
	}
	i.mu.Unlock()
	h.OK("shutdown")
	if code := h.Wait(); code != 0 {
		t.Errorf("exit %d after shutdown: Restart=on-failure would start it again", code)
	}
	empty(h, "after shutdown")
}
