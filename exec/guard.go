package exec

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"p2pnode"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"
)

// guardFile is what those who start exec again must know. It is decided at the
// first start: an exec that a guard started has another parent and environment
// and would decide otherwise.
type guardFile struct {
	Argv       []string `json:"argv"`
	Supervised bool     `json:"supervised"`
}

const (
	guardLook       = 50 * time.Millisecond
	guardAlone      = 500 * time.Millisecond // without a lock holder before a guard acts
	guardSupervised = 10 * time.Second       // the init gets this long first
	guardedKey      = "P2PNODE_GUARDED"      // set for an exec that was started again: since when there was none, Unix ns
)

// ofGuard reports whether this exec was started again by a guard.
func ofGuard() bool { return os.Getenv(guardedKey) != "" }

func guardPath(dir string) string { return filepath.Join(runDir(dir), "guard.json") }

// supervised says whether an init starts exec again.
func supervised(cfg Config) bool {
	if ofGuard() {
		g, err := readGuard(cfg.Dir)
		return err == nil && g.Supervised
	}
	switch cfg.Supervised {
	case "yes":
		return true
	case "no":
		return false
	}
	return os.Getpid() == 1 || os.Getenv("NOTIFY_SOCKET") != "" || os.Getenv("SYSTEMD_EXEC_PID") == strconv.Itoa(os.Getpid())
}

func (r *runner) saveGuard() {
	if ofGuard() || len(r.cfg.SelfArgv) == 0 {
		return
	}
	raw, err := json.Marshal(guardFile{Argv: r.cfg.SelfArgv, Supervised: r.supervised})
	if err == nil {
		err = overwriteFile(guardPath(r.cfg.Dir), raw)
	}
	r.disk("guard", err)
}

func readGuard(dir string) (guardFile, error) {
	var g guardFile
	raw, err := p2pnode.ReadRegular(guardPath(dir))
	if err != nil {
		return g, err
	}
	return g, json.Unmarshal(raw, &g)
}

// Guard starts exec again when it has been gone for half a second (ten seconds
// under an init). The node process and the door run it. It returns when ctx ends;
// where that is the end of the leash and exec is gone, it starts one for a last
// time: that one finds the leash ended and ends the services, which nobody else
// could.
func Guard(ctx context.Context, dir string, leash *os.File, log zerolog.Logger) error {
	closeOnExec()
	tick := time.NewTicker(guardLook)
	defer tick.Stop()
	var gone time.Time
	for {
		select {
		case <-ctx.Done():
			if alive, _ := ExecAlive(dir); !alive && ended(leash) {
				return StartDetached(dir, leash, time.Time{})
			}
			return nil
		case <-tick.C:
		}
		if alive, pid := ExecAlive(dir); alive {
			gone = time.Time{}
			untilDead(ctx, dir, pid)
			continue
		}
		g, err := readGuard(dir)
		if err != nil || len(g.Argv) == 0 {
			continue
		}
		if gone.IsZero() {
			gone = time.Now()
		}
		wait := guardAlone
		if undone := undoUpgrade(dir); g.Supervised && !undone {
			wait = guardSupervised
		}
		// The two guards of a host look at slightly different moments; should both
		// start one, the lock lets one work and the other ends (claimFolder).
		if time.Since(gone) < wait+time.Duration(rand.Int64N(int64(guardLook))) {
			continue
		}
		log.Warn().Msg("exec is gone: starting it again")
		if err := StartDetached(dir, leash, gone); err != nil {
			log.Error().Err(err).Msg("cannot start exec")
		}
		gone = time.Now()
	}
}

// untilDead waits for the end of the exec that works in dir, by its pidfd: looking
// at its lock twenty times a second costs more than all the rest of an idle door.
// It returns at once where the pid in the lock is not, or no longer, that exec's.
func untilDead(ctx context.Context, dir string, pid int) {
	st, err := readStat(pid)
	if err != nil {
		return
	}
	p, ok := watchPID(pid, st.ticks)
	if !ok {
		return
	}
	stop := context.AfterFunc(ctx, p.close)
	defer func() {
		if stop() {
			p.close()
		}
	}()
	if alive, now := ExecAlive(dir); alive && now == pid {
		p.wait() // an error means that ctx has ended
	}
}

// ended reports whether the other end of a leash is closed.
func ended(leash *os.File) (over bool) {
	if leash == nil {
		return false
	}
	raw, err := leash.SyscallConn()
	if err != nil {
		return false
	}
	raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		over = err == nil && n > 0 && p[0].Revents&unix.POLLHUP != 0
	})
	return over
}

// StartDetached starts exec for the data folder dir, as it was started first. The
// new process has its own session and is a sibling, not a child, of the caller
// (CLONE_PARENT does in one fork what a double fork does in two): it is no part of
// the tree that exec kills when it restarts the caller, and the caller owes it no
// wait.
//
// since is when the caller found that there was no exec; the new one tells the story
// of its own return by it. It is zero where somebody else tells that story: the
// agent at whose request it is started, or nobody, at the end of a leash.
func StartDetached(dir string, leash *os.File, since time.Time) error {
	g, err := readGuard(dir)
	if err != nil || len(g.Argv) == 0 {
		return &p2pnode.Error{Code: "no-guard", Text: "it is not known how the p2pnode of " + dir + " was started", Fix: "start it by hand"}
	}
	closeOnExec()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	argv := slices.Clone(g.Argv)
	files := []uintptr{null.Fd(), null.Fd(), null.Fd()}
	if out, err := openForWriting(filepath.Join(logDir(dir), "exec.log"), os.O_APPEND|os.O_CREATE); err == nil {
		defer out.Close()
		files[1], files[2] = out.Fd(), out.Fd()
	}
	if leash != nil {
		argv = withLeash(argv, 3)
		files = append(files, leash.Fd())
	}
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool { return private(kv) && !configVariable(kv) })
	mark := int64(1)
	if !since.IsZero() {
		mark = since.UnixNano()
	}
	env = append(env, guardedKey+"="+strconv.FormatInt(mark, 10))
	_, err = syscall.ForkExec("/proc/self/exe", argv, &syscall.ProcAttr{
		Env: env, Files: files,
		Sys: &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_PARENT},
	})
	if err != nil {
		return fmt.Errorf("cannot start exec again: %w", err)
	}
	return nil
}

// absent is since when there was no exec before this one, which a guard of the node
// process or the door started; zero where it was not one of them.
func absent() time.Time {
	ns, err := strconv.ParseInt(os.Getenv(guardedKey), 10, 64)
	if err != nil || ns <= 1 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

// tellReturn says that exec itself had failed: the incident is named by the life of
// the node process that it served, as neighbours who notice it name it too.
func (r *runner) tellReturn() {
	since := absent()
	if r.handed != nil || since.IsZero() || r.lifeNote.Life.IsZero() || since.After(r.began) {
		return
	}
	r.applyEvent(p2pnode.ExecEvent{
		At: time.Now(), Event: p2pnode.FactActed, Service: p2pnode.SelfExec, Target: r.lifeNote.Life.String(), PID: os.Getpid(),
		Class: p2pnode.ClassExecDead, By: p2pnode.By{Kind: p2pnode.ByExec}, DetectedAt: since, VerifiedAt: since, StartedAt: r.began,
	})
}

// guarded strips the mark of a guard, and of a hand-over, from what children inherit.
func guarded(environ []string) []string {
	return slices.DeleteFunc(environ, func(kv string) bool { return strings.HasPrefix(kv, guardedKey+"=") || ofHandover(kv) })
}
