package netlab

import (
	"fmt"
	"os"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/bin"
	"p2pnode/test/history"
	"p2pnode/test/need"
)

// away is how long a stray sleeps, in seconds: its mark from outside, and another one
// for each test process, since several may run at once.
var away = fmt.Sprint(10_000_000 + os.Getpid())

// stray starts a child that leaves its session and closes every descriptor: only
// its environment still says whose it is. bash, since dash closes single digits.
var stray = farFallback + `services:
  web:
    command: [bash, -c, "(for f in /proc/self/fd/*; do n=${f##*/}; [ $n -gt 2 ] && eval \"exec $n>&-\"; done; exec setsid sleep ` + away + ` 0<&- 1>&- 2>&-) 2>/dev/null & exec sleep 1000000"]
    ready: started
`

// Without a cgroup the cookie is what finds a child that left its session and
// closed its descriptors: it does not live on beside the next life.
func TestAHiddenChildIsFound(t *testing.T) {
	need.Program(t, "unshare", "util-linux")
	l := New(t, bin.P2pnode(t))
	a := l.Host("a").Configure(stray)
	a.Prefix = append(a.Prefix, "unshare", "-m", "sh", "-c", `mount -t tmpfs none /sys/fs/cgroup && exec "$0" "$@"`)
	a.Start("--listen", "127.0.0.1:7744", "--door", "127.0.0.1:7745")
	t.Cleanup(killStrays)
	l.Must(15*time.Second, "web is up, and its child", func() bool { return a.Sees("a") && webOf(a).PID != 0 && len(strays()) == 1 })
	time.Sleep(1200 * time.Millisecond) // a life that is restarted at once
	web := webOf(a)
	a.Kill("web", p2pnode.ClassSignalled, web.PID)
	l.Must(10*time.Second, "web runs again", func() bool { s := webOf(a); return s.PID != 0 && s.PID != web.PID })
	l.Must(10*time.Second, "its child runs again", func() bool { return len(strays()) > 0 })
	time.Sleep(time.Second)
	if n := len(strays()); n != 1 {
		t.Errorf("%d children live, want the new life's one", n)
	}
	l.Judge(history.Options{})
}

// strays are the children that left their session.
func strays() (out []int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		var p int
		if _, err := fmt.Sscan(e.Name(), &p); err != nil {
			continue
		}
		raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p))
		if string(raw) == "sleep\x00"+away+"\x00" {
			out = append(out, p)
		}
	}
	return out
}

func killStrays() {
	for _, p := range strays() {
		if proc, err := os.FindProcess(p); err == nil {
			proc.Kill()
		}
	}
}
