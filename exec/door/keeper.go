package door

import (
	"os"
	"path/filepath"
	"sync"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"p2pnode"
	"p2pnode/exec"
	"p2pnode/exec/logs"
)

// keeper holds the reading ends of services' output and their pidfds. While exec
// is there it only holds; while exec is away it reads the output into SVC.away.
type keeper struct {
	logDir string
	log    zerolog.Logger
	spread func(p2pnode.Life)

	mu      sync.Mutex
	kept    map[string]*holding
	reading bool
}

// holding is one kept service; its reader runs only while exec is away.
type holding struct {
	exec.Kept
	stop chan struct{} // closed to end the reader; nil while none runs
	done chan struct{}
}

func newKeeper(dir string, spread func(p2pnode.Life), log zerolog.Logger) *keeper {
	return &keeper{logDir: filepath.Join(dir, "logs"), log: log, spread: spread, kept: map[string]*holding{}}
}

// Held implements exec.Keeper: exec is there again, reading ends.
func (k *keeper) Held() []exec.Kept {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.reading = false
	out := make([]exec.Kept, 0, len(k.kept))
	for _, h := range k.kept {
		h.halt()
		out = append(out, h.Kept)
	}
	return out
}

// Keep implements exec.Keeper.
func (k *keeper) Keep(x exec.Kept) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dropLocked(x.Service)
	if len(k.kept) >= maxHeld {
		x.FIFO.Close()
		x.Pidfd.Close()
		k.log.Warn().Str("service", x.Service).Msg("too many services to keep the output of")
		return
	}
	k.kept[x.Service] = &holding{Kept: x}
	if k.reading {
		k.readLocked(k.kept[x.Service])
	}
}

// Drop implements exec.Keeper.
func (k *keeper) Drop(service string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dropLocked(service)
}

func (k *keeper) dropLocked(service string) {
	h := k.kept[service]
	if h == nil {
		return
	}
	h.halt()
	h.FIFO.Close()
	h.Pidfd.Close()
	delete(k.kept, service)
}

// Spread implements exec.Keeper.
func (k *keeper) Spread(life p2pnode.Life) { k.spread(life) }

// away starts reading: exec is gone.
func (k *keeper) away() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.reading {
		return
	}
	k.reading = true
	for _, h := range k.kept {
		k.readLocked(h)
	}
}

// close lets go of everything.
func (k *keeper) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for service := range k.kept {
		k.dropLocked(service)
	}
}

// alive reports whether the kept process of service runs, by its pidfd; known is
// false where nothing is kept for it.
func (k *keeper) alive(service string) (alive, known bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := k.kept[service]
	if h == nil {
		return false, false
	}
	raw, err := h.Pidfd.SyscallConn()
	if err != nil {
		return false, false
	}
	ended := true
	raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		ended = err != nil || n > 0
	})
	return !ended, true
}

func (k *keeper) readLocked(h *holding) {
	if h.stop != nil {
		return
	}
	h.stop, h.done = make(chan struct{}), make(chan struct{})
	path := logs.AwayPath(k.logDir, h.Service)
	go func(h *holding, stop, done chan struct{}) {
		defer close(done)
		drain(h.FIFO, openAway(path), stop)
	}(h, h.stop, h.done)
}

// halt ends the reader and waits until what it read is in the file.
func (h *holding) halt() {
	if h.stop == nil {
		return
	}
	close(h.stop)
	h.FIFO.SetReadDeadline(past)
	<-h.done
	h.FIFO.SetReadDeadline(never)
	h.stop = nil
}

// drain reads fifo into a's files until stop is closed.
func drain(fifo *os.File, a *absence, stop <-chan struct{}) {
	defer a.close()
	raw, err := fifo.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, 64<<10)
	for {
		n := 0
		err := raw.Read(func(fd uintptr) bool {
			select {
			case <-stop:
				return true
			default:
			}
			var err error
			n, err = a.pull(int(fd), buf)
			return n > 0 || (err != nil && err != unix.EAGAIN && err != unix.EINTR)
		})
		if n == 0 || err != nil {
			return
		}
	}
}
