package logs

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"p2pnode"
	"p2pnode/exec/disk"
)

// Config says where one service's output comes from and goes to.
type Config struct {
	RunDir  string    // FIFOs; must be on a local file system
	LogDir  string    // SVC.log, those before it, SVC.away
	Service string    // names the files
	Echo    io.Writer // a copy of the output, for a container's stdout; may be nil
	Log     zerolog.Logger
	// Refused is told when the disk refuses what the service printed, and again, with
	// nil, when it takes it; nil is fine. It must not block.
	Refused func(error)
}

// Log is one service's output across its incarnations. Only its hand touches the file:
// where the disk hangs nobody waits for it longer than disk.Patience, and what comes is
// in memory (flood.go) until it goes on.
type Log struct {
	cfg    Config
	opened time.Time
	hand   disk.Hand
	others disk.Hand  // reads what the program writes by itself, which may be on another disk
	file   *rotating  // the hand's
	buf    []byte     // the hand's: what it reads
	past   sync.Mutex // held by whoever reads a FIFO past a disk that hangs

	mu       sync.Mutex // never held while the disk is waited for
	follows  string     // a file that the program writes by itself
	retained bool       // Retain was called
	ring     ring
	flood    flood
	fifo     *os.File
	path     string
	began    Mark
	changed  chan struct{} // closed and replaced with every new line
	closed   bool
	readers  sync.WaitGroup
}

// Open prepares the log of a service; nothing is read before Begin or Adopt.
func Open(cfg Config) (*Log, error) {
	if err := os.MkdirAll(cfg.LogDir, 0o700); err != nil {
		return nil, fmt.Errorf("cannot keep logs of %s: %w", cfg.Service, err)
	}
	l := &Log{cfg: cfg, opened: time.Now(), file: newRotating(filepath.Join(cfg.LogDir, cfg.Service+".log"), cfg.Refused), changed: make(chan struct{})}
	l.flood.rate, l.flood.last = maxRate, floodTail
	l.hand.Turned, l.hand.Back = l.turned, l.endFlood
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

// Retain says at how many bytes the file is rotated and how many rotated ones are kept; 0
// is the default. What is more than that goes. Before it is called nothing that is there
// does, but by a rotation.
func (l *Log) Retain(size int64, keep int) {
	size, keep = cmp.Or(size, DefaultSize), cmp.Or(keep, DefaultKeep)
	l.file.most.Store(size)
	was := l.file.keep.Swap(int64(keep))
	l.mu.Lock()
	first := !l.retained
	l.retained = true
	l.mu.Unlock()
	if first || int64(keep) < was {
		l.readers.Go(func() { l.hand.Do(func() { Trim(l.file.path, int(l.file.keep.Load())) }) })
	}
}

func (l *Log) followed() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.follows
}

// Begin makes a fresh FIFO for incarnation inc, owned by uid and gid with mode
// 0600, reads it from now on, and returns its path. The last FIFO is drained,
// closed and removed. Where the disk does not answer it is a pipe without a name: its
// path leads to it from this process, as long as it is in use, and Path is "".
func (l *Log) Begin(inc p2pnode.Incarnation, uid, gid int) (string, error) {
	path := filepath.Join(l.cfg.RunDir, l.cfg.Service+"-"+inc.String()+".fifo")
	patience := disk.Patience
	if l.hand.Hangs() { // most likely it is the same disk
		patience = disk.Little
	}
	f, err := disk.Within(patience, func() (*os.File, error) { return l.makeFIFO(path, uid, gid) }, func(f *os.File) {
		f.Close()
		os.Remove(path)
	})
	if errors.Is(err, disk.ErrHangs) {
		return l.beginUnnamed(uid, gid)
	}
	if err != nil {
		return "", err
	}
	l.swap(f, path, true)
	return path, nil
}

func (l *Log) makeFIFO(path string, uid, gid int) (*os.File, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot make FIFO for %s: %w", l.cfg.Service, err)
	}
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return nil, fmt.Errorf("cannot make FIFO %s: %w", path, err)
	}
	if uid != os.Geteuid() || gid != os.Getegid() {
		if err := os.Lchown(path, uid, gid); err != nil {
			os.Remove(path)
			return nil, fmt.Errorf("cannot give FIFO %s to uid %d: %w", path, uid, err)
		}
	}
	f, err := openFIFO(path)
	if err != nil {
		os.Remove(path)
	}
	return f, err
}

func (l *Log) beginUnnamed(uid, gid int) (string, error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		return "", fmt.Errorf("cannot make a pipe for %s: %w", l.cfg.Service, err)
	}
	unix.Close(ends[1])
	if err := unix.Fchown(ends[0], uid, gid); err != nil {
		unix.Close(ends[0])
		return "", fmt.Errorf("cannot give a pipe to uid %d: %w", uid, err)
	}
	unix.FcntlInt(uintptr(ends[0]), unix.F_SETPIPE_SZ, pipeSize) // best effort, as in openFIFO
	l.swap(os.NewFile(uintptr(ends[0]), l.cfg.Service), "", true)
	return fmt.Sprintf("/proc/self/fd/%d", ends[0]), nil
}

// Adopt goes on with the FIFO of a service that outlived an exec, or died while
// none was there: r is the keeper's read end, or nil to open the path, which leads
// through /proc to one without a name. What that
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
// the run folder may have been tampered with. A pipe without a name is reached through
// a process's descriptors, which are links.
func openFIFO(path string) (*os.File, error) {
	flags := unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC
	if !strings.HasPrefix(path, "/proc/") {
		flags |= unix.O_NOFOLLOW
	}
	fd, err := unix.Open(path, flags, 0)
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
	l.mu.Unlock()
	if old != nil {
		l.drain(old)
	}
	l.mu.Lock()
	l.fifo, l.path = f, path
	if newRun && l.ring.run(time.Now()) {
		l.flood.keep([]byte{'\n'}) // the next run does not go on with this one's last line
	}
	l.mu.Unlock()
	began, _ := disk.Got(&l.hand, func() Mark {
		l.endFlood()
		return l.file.mark()
	})
	if newRun {
		l.mu.Lock()
		l.began = began // no place where the disk hangs
		l.mu.Unlock()
	}
	l.readers.Go(func() { l.read(f) })
	if old == nil {
		return
	}
	away := func() (struct{}, error) { // Close waits for a hand that hangs, and Remove for the disk
		old.Close()
		if oldPath != path && oldPath != "" {
			os.Remove(oldPath)
		}
		return struct{}{}, nil
	}
	if l.hand.Hangs() {
		l.readers.Go(func() { away() })
		return
	}
	disk.Within(disk.Patience, away, nil)
}

// read takes what arrives until f is closed. An end of file means only that no
// writer is there at the moment: it waits for the next one.
func (l *Log) read(f *os.File) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	for {
		err := raw.Read(func(uintptr) bool {
			n, err := l.pull(f)
			return n > 0 || err != nil && err != unix.EAGAIN && err != unix.EINTR
		})
		if err != nil || l.FIFO() != f {
			return
		}
	}
}

var errNotInUse = errors.New("another FIFO is in use")

// pull takes what f holds, up to a buffer of it: into the file first, by the kernel's
// own hand where the disk lets it, and into memory alone where the disk hangs.
func (l *Log) pull(f *os.File) (int, error) {
	type pulled struct {
		n   int
		err error
	}
	p, done := disk.Got(&l.hand, func() (p pulled) {
		p.n, p.err = l.pullToFile(f)
		return p
	})
	if !done {
		return l.pullPast(f)
	}
	return p.n, p.err
}

// pullToFile is done by the hand.
func (l *Log) pullToFile(f *os.File) (n int, err error) {
	l.past.Lock() // what is being read past us is in memory first
	inUse := l.FIFO() == f
	l.past.Unlock()
	if !inUse {
		return 0, errNotInUse
	}
	l.mu.Lock()
	over := l.flood.turn(time.Now())
	full := l.flood.full()
	l.mu.Unlock()
	if over || !full { // not full: what was kept while the disk hung comes first
		l.endFlood()
	}
	if l.buf == nil {
		l.buf = make([]byte, readChunk)
	}
	inner := onFD(f, func(fd int) {
		if full {
			if n, err = unix.Read(fd, l.buf); n > 0 {
				l.flooded(l.buf[:n])
			}
			return
		}
		n, err = l.moveOrRead(fd)
	})
	return max(n, 0), cmp.Or(err, inner)
}

func (l *Log) moveOrRead(fifo int) (int, error) {
	data, err := l.file.move(fifo, l.buf)
	if err == nil {
		l.note(data, len(data))
		return len(data), nil
	}
	if !errors.Is(err, errCannotMove) {
		return 0, err
	}
	n, err := unix.Read(fifo, l.buf)
	if n > 0 {
		l.file.write(l.buf[:n])
		l.note(l.buf[:n], n)
	}
	return n, err
}

// pullPast takes what f holds into memory: the disk hangs.
func (l *Log) pullPast(f *os.File) (n int, err error) {
	l.past.Lock()
	defer l.past.Unlock()
	if l.FIFO() != f {
		return 0, errNotInUse
	}
	buf := make([]byte, readChunk)
	inner := onFD(f, func(fd int) { n, err = unix.Read(fd, buf) })
	if n > 0 {
		l.flooded(buf[:n])
	}
	return max(n, 0), cmp.Or(err, inner)
}

// onFD calls fn with the descriptor of f, which stays open meanwhile.
func onFD(f *os.File, fn func(fd int)) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { fn(int(fd)) })
}

// take is the way in for what did not come through the FIFO; done by the hand.
func (l *Log) take(data []byte) {
	l.file.write(data)
	l.note(data, 0)
}

// note takes data into memory, of which the file had its part of a second's share, and
// wakes who waits for it.
func (l *Log) note(data []byte, share int) {
	if len(data) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flood.taken += share
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
	if f := l.FIFO(); f != nil {
		l.drain(f)
	}
}

func (l *Log) drain(f *os.File) {
	var left int
	var err error
	if inner := onFD(f, func(fd int) { left, err = unix.IoctlGetInt(fd, unix.TIOCINQ) }); inner != nil || err != nil {
		return
	}
	for { // once at least: what was read a moment ago is in memory then
		n, err := l.pull(f)
		if err == unix.EINTR {
			continue
		}
		if left -= n; n <= 0 || left <= 0 {
			return
		}
	}
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

// turned is told that the disk hangs, or goes on.
func (l *Log) turned(hangs bool) {
	l.mu.Lock()
	l.flood.hangs = hangs
	l.mu.Unlock()
	switch {
	case hangs:
		l.file.refused(disk.ErrHangs)
	case l.file.gap == 0:
		l.file.refused(nil)
	}
}

// Mend tries again to write to a disk that refused what the service printed.
func (l *Log) Mend() {
	l.hand.Try(func() {
		if err := l.file.mend(); err != nil {
			l.file.refused(err)
		}
	})
}

// Dropped is how many bytes could not be written to disk. It waits for nothing.
func (l *Log) Dropped() uint64 { return l.file.dropped.Load() + l.flood.hung.Load() }

// Remove takes the FIFO away, after Close: nobody will go on with it.
func (l *Log) Remove() {
	if path := l.Path(); path != "" {
		disk.Within(disk.Patience, func() (struct{}, error) { return struct{}{}, os.Remove(path) }, nil)
	}
}

// Close stops reading and leaves the FIFO in place: the keeper goes on with it. What a
// disk that hangs has not taken yet it takes later, should this process live so long.
func (l *Log) Close() error {
	f := l.FIFO()
	if f != nil {
		l.drain(f)
	}
	l.mu.Lock()
	l.fifo, l.closed = nil, true
	close(l.changed)
	l.changed = make(chan struct{})
	l.mu.Unlock()
	_, err := disk.Within(disk.Patience, func() (struct{}, error) {
		defer l.readers.Wait()
		if f == nil {
			return struct{}{}, nil
		}
		return struct{}{}, f.Close()
	}, nil)
	l.hand.Try(func() {
		l.endFlood()
		l.file.close()
	})
	return err
}
