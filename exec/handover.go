package exec

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"p2pnode"

	"golang.org/x/sys/unix"
)

// Switch is what Run returns when another binary is to go on in this process. The
// caller ends its own work and calls Exec.
//
// The new image inherits, beside its children: the lock of the folder, so that no
// guard ever finds it free; the control socket, so that nobody is refused; and of
// each service the reading end of its output and its pidfd, so that last words and
// exit code are there whenever it dies. Their numbers are in a memory file that the
// variable P2PNODE_HANDOVER names.
type Switch struct {
	path  string
	argv  []string
	dir   string
	leash *os.File
	lock  *os.File
	sock  *os.File
	kept  []Kept
	since time.Time
}

func (*Switch) Error() string { return "another binary goes on in this process" }

const handoverKey = "P2PNODE_HANDOVER"

// handover is the memory file.
type handover struct {
	Format int           `json:"format"`
	Lock   int           `json:"lock"`
	Socket int           `json:"socket"`
	Kept   []handoverSvc `json:"kept"`
	Stop   bool          `json:"stop"` // the old image was told to end everything
	Left   time.Time     `json:"left"` // when it let go
}

type handoverSvc struct {
	keptHead
	FIFO  int `json:"fifo"`
	Pidfd int `json:"pidfd"`
}

// switchTo makes the loop end for the binary at path.
func (r *runner) switchTo(path string) *Switch {
	return &Switch{path: path, argv: r.cfg.SelfArgv, dir: r.cfg.Dir, leash: r.cfg.Leash, since: time.Now()}
}

// handsOver takes the socket of a server that closes, where a new image goes on
// with it.
func (r *runner) handsOver(l *net.UnixListener) bool {
	sw, ok := errors.AsType[*Switch](r.leaving)
	if !ok {
		return false
	}
	var err error
	sw.sock, err = l.File()
	return err == nil
}

// pack takes what the new image needs; nothing of the old one works any more.
func (r *runner) pack(sw *Switch, lock *os.File) error {
	r.exits.Range(func(name, end any) bool {
		e := end.(evEnded)
		if rec, ok := r.state.get(name.(string)); ok && rec.Inc == e.inc && rec.Ended == nil {
			rec.Ended = &e.exit // its status has been taken: the kernel may not tell it again
			r.remember(rec)
		}
		return true
	})
	var err error
	if sw.lock, err = dupFile(lock); err != nil {
		return err
	}
	r.keeper.mu.Lock()
	defer r.keeper.mu.Unlock()
	for _, name := range sortedKeys(r.keeper.kept) {
		sw.kept = append(sw.kept, r.keeper.kept[name])
	}
	return nil
}

// Exec replaces this process; stop makes the new image end everything. It returns
// only where that is not possible at all. A binary that the kernel refuses is
// rolled back, and the old one goes on.
func (sw *Switch) Exec(stop bool) error {
	argv, env, err := sw.inherit(stop)
	if err != nil {
		return fmt.Errorf("cannot hand over to the new binary: %w", err)
	}
	refused := unix.Exec(sw.path, argv, env)
	if u, err := readUpgrade(sw.dir); err == nil {
		u.State, u.EndedAt = p2pnode.UpgradeFailed, time.Now()
		u.Text = "the kernel does not run " + u.Target + " (" + refused.Error() + "): the old binary is back"
		refused = errors.Join(refused, rollBack(u), saveUpgrade(sw.dir, u))
	}
	return errors.Join(refused, unix.Exec("/proc/self/exe", argv, env))
}

// inherit makes the descriptors outlive the execve and writes down their numbers.
func (sw *Switch) inherit(stop bool) (argv, env []string, err error) {
	h := handover{Format: stateFormat, Socket: -1, Stop: stop, Left: sw.since}
	if h.Lock, err = pass(sw.lock); err != nil {
		return nil, nil, err
	}
	if sw.sock != nil {
		if h.Socket, err = pass(sw.sock); err != nil {
			return nil, nil, err
		}
	}
	for _, k := range sw.kept {
		one := handoverSvc{keptHead: keptHead{k.Service, k.Incarnation, k.PID}}
		var errFIFO, errPidfd error
		one.FIFO, errFIFO = pass(k.FIFO)
		one.Pidfd, errPidfd = pass(k.Pidfd)
		if err := errors.Join(errFIFO, errPidfd); err != nil {
			return nil, nil, err
		}
		h.Kept = append(h.Kept, one)
	}
	argv = slices.Clone(sw.argv)
	if sw.leash != nil {
		fd, err := pass(sw.leash)
		if err != nil {
			return nil, nil, err
		}
		argv = withLeash(argv, fd)
	}
	raw, err := json.Marshal(h)
	if err != nil {
		return nil, nil, err
	}
	mem, err := unix.MemfdCreate("p2pnode-handover", 0)
	if err != nil {
		return nil, nil, err
	}
	if _, err := unix.Write(mem, raw); err != nil {
		return nil, nil, err
	}
	return argv, append(os.Environ(), handoverKey+"="+strconv.Itoa(mem)), nil
}

// pass is the number under which f survives an execve. The description stays as it
// is: os.File.Fd would make it blocking, here and in every duplicate.
func pass(f *os.File) (fd int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	inner := raw.Control(func(n uintptr) {
		fd = int(n)
		_, err = unix.FcntlInt(n, unix.F_SETFD, 0)
	})
	return fd, errors.Join(err, inner)
}

// withLeash adds the flag that names the leash, before what follows a --.
func withLeash(argv []string, fd int) []string {
	at := slices.Index(argv, "--")
	if at < 0 {
		at = len(argv)
	}
	return slices.Insert(slices.Clone(argv), at, "--leash", strconv.Itoa(fd))
}

// handed is what an image before this one handed over; nil where there was none.
type handed struct {
	lock *os.File
	sock *os.File
	kept map[string]Kept
	stop bool
	left time.Time
}

// takeHandover reads what the image before this one left, once.
func takeHandover() (*handed, error) {
	text := os.Getenv(handoverKey)
	if text == "" {
		return nil, nil
	}
	os.Unsetenv(handoverKey)
	fd, err := strconv.Atoi(text)
	if err != nil || fd < 3 {
		return nil, errors.New(handoverKey + " names no descriptor")
	}
	mem := os.NewFile(uintptr(fd), "handover")
	defer mem.Close()
	raw, err := io.ReadAll(io.NewSectionReader(mem, 0, maxFrame))
	if err != nil {
		return nil, err
	}
	var h handover
	if err := json.Unmarshal(raw, &h); err != nil {
		return nil, err
	}
	if h.Format != stateFormat {
		return nil, fmt.Errorf("the hand-over has format %d, this binary reads %d", h.Format, stateFormat)
	}
	out := &handed{lock: os.NewFile(uintptr(h.Lock), "lock"), kept: map[string]Kept{}, stop: h.Stop, left: h.Left}
	if h.Socket >= 0 {
		out.sock = os.NewFile(uintptr(h.Socket), "socket")
	}
	for _, k := range h.Kept {
		out.kept[k.Service] = Kept{k.Service, k.Incarnation, k.PID, os.NewFile(uintptr(k.FIFO), "fifo"), os.NewFile(uintptr(k.Pidfd), "pidfd")}
	}
	return out, nil
}

func (h *handed) listener() (*net.UnixListener, error) {
	if h == nil || h.sock == nil {
		return nil, os.ErrNotExist
	}
	defer h.sock.Close()
	l, err := net.FileListener(h.sock)
	if err != nil {
		return nil, err
	}
	unixListener, ok := l.(*net.UnixListener)
	if !ok {
		l.Close()
		return nil, os.ErrInvalid
	}
	return unixListener, nil
}

// ofHandover reports whether kv is what one image tells the next.
func ofHandover(kv string) bool { return strings.HasPrefix(kv, handoverKey+"=") }
