package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"p2pnode"
	"p2pnode/exec"
)

// openLeash takes over the descriptor of --leash; services must not inherit it.
func openLeash(fd int) (*os.File, error) {
	if fd == 0 {
		return nil, nil
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || fd < 3 {
		return nil, usage("--leash %d: no such descriptor is open", fd)
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "leash"), nil
}

// daemonSignals turns signals into what INTERFACE promises. Signals are taken
// over by Notify and dropped rather than ignored: an ignored signal would stay
// ignored in every service.
func daemonSignals(dir string, log zerolog.Logger) (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 16)
	tty := watchTerminal(signal.Ignored(syscall.SIGHUP)) // before Notify: nohup is to be seen
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGTSTP, syscall.SIGPIPE)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer tty.close()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tty.look:
				tty.lookAgain()
			case s := <-signals:
				switch s {
				case syscall.SIGTERM, syscall.SIGINT:
					cancel()
				case syscall.SIGHUP:
					if tty.hangsUp() {
						cancel()
						continue
					}
					reload(ctx, dir, log)
				}
			}
		}
	}()
	return ctx, func() {
		cancel()
		<-done
		signal.Stop(signals)
	}
}

// terminal is the controlling terminal that this process may have. When it is closed
// the kernel takes it away first and sends SIGHUP then: asked at that moment nobody
// has one. So it is looked at all the time, and has gone just now if it was there a
// moment ago.
type terminal struct {
	look  <-chan time.Time
	close func()
	seen  time.Time
}

const (
	terminalLook = time.Second
	terminalGone = 5 * time.Second // a shell may take its time to tell its jobs
)

// watchTerminal begins to look; under nohup a terminal's end is nothing to us.
func watchTerminal(nohup bool) *terminal {
	if nohup || !hasTerminal() {
		return &terminal{close: func() {}}
	}
	tick := time.NewTicker(terminalLook)
	return &terminal{look: tick.C, close: tick.Stop, seen: time.Now()}
}

func (t *terminal) lookAgain() {
	if hasTerminal() {
		t.seen = time.Now()
	}
}

// hangsUp reports whether a SIGHUP of now is the end of the terminal, or of one that
// sits at it: without a terminal it asks for a reload.
func (t *terminal) hangsUp() bool {
	return !t.seen.IsZero() && (hasTerminal() || time.Since(t.seen) < terminalGone)
}

func reload(ctx context.Context, dir string, log zerolog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	client, err := exec.Dial(ctx, dir, exec.RoleCLI)
	if err != nil {
		log.Error().Err(err).Msg("cannot reload")
		return
	}
	defer client.Close()
	got, err := client.Reload(ctx, false)
	if err != nil {
		log.Error().Err(err).Msg("cannot reload: the running configuration is unchanged")
	} else if len(got.Later) > 0 {
		log.Warn().Strs("settings", got.Later).Msg("these settings hold when p2pnode is started anew")
	}
}

// leashed cancels a role when its leash closes, and ends the process a second
// later at the latest: nothing outlives a leash.
func leashed(ctx context.Context, leash *os.File) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	if leash == nil {
		return ctx, cancel
	}
	go func() {
		io.Copy(io.Discard, leash)
		cancel()
		time.Sleep(time.Second)
		os.Exit(p2pnode.ExitFailed)
	}()
	return ctx, cancel
}
