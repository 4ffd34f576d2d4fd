package logs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"p2pnode"
)

// Config says where one service's output comes from and goes to.
type Config struct {
	RunDir  string    // FIFOs; must be on a local file system
	LogDir  string    // SVC.log, SVC.log.1, SVC.away
	Service string    // names the files
	Echo    io.Writer // a copy of the output, for a container's stdout; may be nil
	Log     zerolog.Logger
	// Refused is told when the disk refuses what the service printed, and again, with
	// nil, when it takes it; nil is fine. It must not block.
	Refused func(error)
}

// Log is one service's output across its incarnations.
type Log struct {
	cfg  Config
	file *rotating

	mu      sync.Mutex
	follows string // a file that the program writes by itself
	ring    ring
	flood   flood
	fifo    *os.File
	path    string
	began   Mark
	changed chan struct{} // closed and replaced with every new line
	closed  bool
	readers sync.WaitGroup
}

// Open prepares the log of a service; nothing is read before Begin or Adopt.
func Open(cfg Config) (*Log, error) {
	if err := os.MkdirAll(cfg.LogDir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot keep logs of %s: %w", cfg.Service, err)
	}
	l := &Log{cfg: cfg, file: newRotating(filepath.Join(cfg.LogDir, cfg.Service+".log"), cfg.Refused), changed: make(chan struct{})}
	l.flood.rate, l.flood.last = maxRate, floodTail
	l.ring.run(time.Now())
	return l, nil
}

// Follow names a file that the program writes by itself (log_file:), "" for none: its
// end joins excerpts, and who follows the log is told of it.
func (l *Log) Follow(path string) {
	l.mu.Lock()
	l.follows = path
	l.mu.Unlock()
}

func (l *Log) followed() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.follows
}

// Begin makes a fresh FIFO for incarnation inc, owned by uid and gid with mode
// 0600, reads it from now on, and returns its path. The last FIFO is drained,
// closed and removed.
func (l *Log) Begin(inc p2pnode.Incarnation, uid, gid int) (string, error) {
	path := filepath.Join(l.cfg.RunDir, l.cfg.Service+"-"+inc.String()+".fifo")
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("cannot make FIFO for %s: %w", l.cfg.Service, err)
	}
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return "", fmt.Errorf("cannot make FIFO %s: %w", path, err)
	}
	if uid != os.Geteuid() || gid != os.Getegid() {
		if err := os.Lchown(path, uid, gid); err != nil {
			os.Remove(path)
			return "", fmt.Errorf("cannot give FIFO %s to uid %d: %w", path, uid, err)
		}
	}
	f, err := openFIFO(path)
	if err != nil {
		os.Remove(path)
		return "", err
	}
	l.swap(f, path, true)
	return path, nil
}

// Adopt goes on with the FIFO of a service that outlived an exec, or died while
// none was there: r is the keeper's read end, or nil to open the path. What that
// exec had written of the run, which began at m, and what the keeper wrote down in
// the meantime come first.
func (l *Log) Adopt(path string, r *os.File, m Mark) error {
	l.recall(m)
	l.TakeAway()
	if r == nil {
		var err error
		if r, err = openFIFO(path); err != nil {
			return err
		}
	}
	l.swap(r, path, false)
	return nil
}

// openFIFO opens the read end for the poller. A path that is no FIFO is refused:
// the run folder may have been tampered with.
func openFIFO(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open FIFO %s: %w", path, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		unix.Close(fd)
		return nil, fmt.Errorf("%s is no FIFO", path)
	}
	// Best effort: an unprivileged user may be over his pipe quota.
	unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, pipeSize)
	return os.NewFile(uintptr(fd), path), nil
}

// swap reads f instead of the FIFO before it.
func (l *Log) swap(f *os.File, path string, newRun bool) {
	l.mu.Lock()
	old, oldPath := l.fifo, l.path
	if old != nil {
		l.drainLocked(old)
	}
	l.endFloodLocked()
	if newRun {
		if l.ring.run(time.Now()) {
			l.file.write([]byte{'\n'}) // the next run does not go on with this one's last line
		}
		l.began = l.file.mark()
	}
	l.fifo, l.path = f, path
	l.mu.Unlock()
	if old != nil {
		// Not under mu: Close waits for the reader, and the reader may wait for mu.
		old.Close()
		if oldPath != path {
			os.Remove(oldPath)
		}
	}
	l.readers.Go(func() { l.read(f) })
}

// read takes what arrives until f is closed. An end of file means only that no
// writer is there at the moment: it waits for the next one.
func (l *Log) read(f *os.File) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, readChunk)
	for {
		err := raw.Read(func(fd uintptr) bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.fifo != f {
				return true
			}
			n, err := l.pullLocked(int(fd), buf)
			return n > 0 || err != nil && err != unix.EAGAIN && err != unix.EINTR
		})
		l.mu.Lock()
		over := err != nil || l.fifo != f
		l.mu.Unlock()
		if over {
			return
		}
	}
}

// pullLocked takes what a FIFO holds, up to a buffer of it: into the file first, by
// the kernel's own hand where the disk lets it.
func (l *Log) pullLocked(fifo int, buf []byte) (int, error) {
	if l.flood.turn(time.Now()) {
		l.endFloodLocked()
	}
	if l.flood.full() {
		n, err := unix.Read(fifo, buf)
		if n > 0 {
			l.floodedLocked(buf[:n])
		}
		return n, err
	}
	data, err := l.file.move(fifo, buf)
	l.flood.taken += len(data)
	if err == nil {
		l.noteLocked(data)
		return len(data), nil
	}
	if !errors.Is(err, errCannotMove) {
		return 0, err
	}
	n, err := unix.Read(fifo, buf)
	if n > 0 {
		l.flood.taken += n
		l.takeLocked(buf[:n])
	}
	return n, err
}

// takeLocked is the way in for what did not come through the FIFO into the file.
func (l *Log) takeLocked(data []byte) {
	l.file.write(data)
	l.noteLocked(data)
}

// noteLocked takes data that is in the file into memory, and wakes who waits for it.
func (l *Log) noteLocked(data []byte) {
	if len(data) == 0 {
		return
	}
	l.ring.add(time.Now(), data, func(line) {})
	if l.cfg.Echo != nil {
		l.cfg.Echo.Write(data)
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// FIFO is the read end in use; nil before the first Begin or Adopt. It stays the
// Log's: duplicate it to hand it on.
func (l *Log) FIFO() *os.File {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fifo
}

// Path is the path of the FIFO in use; "" before the first Begin or Adopt, and where
// a run goes on by a descriptor alone.
func (l *Log) Path() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.path
}

// Drain reads all that the kernel holds now, however long a busy host takes for it:
// called after a death, so that the last words are in the excerpt. What a child that
// lives on prints meanwhile does not hold it up.
func (l *Log) Drain() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fifo != nil {
		l.drainLocked(l.fifo)
	}
}

func (l *Log) drainLocked(f *os.File) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, readChunk)
	raw.Control(func(fd uintptr) {
		left, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
		for err == nil && left > 0 {
			var n int
			if n, err = l.pullLocked(int(fd), buf); err == unix.EINTR {
				err = nil
				continue
			}
			if n <= 0 {
				return
			}
			left -= n
		}
	})
}

// AwayPath is where the keeper writes a service's output while exec is away. When
// that file is full the end of it goes to two more, by turns.
func AwayPath(logDir, service string) string { return filepath.Join(logDir, service+".away") }

const (
	AwayOlder  = ".1"
	AwayNewest = ".2"
)

// Mark is where the run that goes on begins in the log's files.
func (l *Log) Mark() Mark {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.began
}

// Mend tries again to write to a disk that refused what the service printed.
func (l *Log) Mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.file.mend()
}

// Dropped is how many bytes could not be written to disk. It waits for nothing.
func (l *Log) Dropped() uint64 { return l.file.dropped.Load() }

// Remove takes the FIFO away, after Close: nobody will go on with it.
func (l *Log) Remove() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.path != "" {
		os.Remove(l.path)
	}
}

// Close stops reading and leaves the FIFO in place: the keeper goes on with it.
func (l *Log) Close() error {
	l.mu.Lock()
	f := l.fifo
	if f != nil {
		l.drainLocked(f)
	}
	l.endFloodLocked()
	l.fifo, l.closed = nil, true
	close(l.changed)
	l.changed = make(chan struct{})
	l.mu.Unlock()
	var err error
	if f != nil {
		err = f.Close()
	}
	l.readers.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(err, l.file.close())
}
