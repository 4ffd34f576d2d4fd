package exec

import (
	"context"
	"net"
	"os"
	"strconv"
	"time"
)

// initLink is the other end of sd_notify: this host's init, which waits for exec to
// be ready and wants a sign of life. The zero value is no such init.
type initLink struct {
	socket string
	every  time.Duration // WATCHDOG=1 is wanted this often; 0: never
}

// initOf reads what the init told this process.
func initOf(environ []string) (l initLink) {
	l.socket = envValue(environ, "NOTIFY_SOCKET")
	pid := envValue(environ, "WATCHDOG_PID")
	if usec, err := strconv.ParseInt(envValue(environ, "WATCHDOG_USEC"), 10, 64); err == nil && usec > 0 && (pid == "" || pid == strconv.Itoa(os.Getpid())) {
		l.every = time.Duration(usec) * time.Microsecond
	}
	return l
}

// say tells the init something; one that does not listen is not waited for.
func (l initLink) say(state string) error {
	if l.socket == "" {
		return nil
	}
	c, err := net.DialTimeout("unixgram", l.socket, time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetWriteDeadline(time.Now().Add(time.Second))
	_, err = c.Write([]byte(state))
	return err
}

// endsWithin says that exec ends, and that it is not to be killed for as long as that may
// take: within, what is killed then has to die, and the disk. An init that allows more
// goes by its own time.
func endsWithin(within time.Duration) string {
	return "STOPPING=1\nEXTEND_TIMEOUT_USEC=" + strconv.FormatInt((within+killPatience).Microseconds(), 10)
}

// feedInit says that exec lives, three times in what the init allows, as long as
// the loop answers: a loop that is stuck is worth less than a new one.
func (r *runner) feedInit(ctx context.Context, l initLink) {
	if l.socket == "" || l.every == 0 {
		return
	}
	tick := time.NewTicker(l.every / 3)
	defer tick.Stop()
	for {
		if r.ask(func() {}) != nil {
			return
		}
		l.say("WATCHDOG=1")
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
