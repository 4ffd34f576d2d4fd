package chaos

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	probeEvery   = 40 * time.Millisecond
	probeTimeout = 250 * time.Millisecond
)

// prober asks one service of one container over and over, in the container's own
// network namespace, and keeps the account of its availability: the time that it
// answered, of the time that its container ran.
type prober struct {
	box     *Box
	service string
	port    int
	quit    chan struct{}
	wg      sync.WaitGroup

	mu       sync.Mutex
	up       time.Duration
	total    time.Duration
	outages  []outage
	lastPID  int // that answered last, in the container's numbers
	answered time.Time
}

// outage is a time without an answer.
type outage struct {
	from time.Time
	took time.Duration
}

func (b *Box) probe(service string, port int) *prober {
	p := &prober{box: b, service: service, port: port, quit: make(chan struct{})}
	p.wg.Go(p.run)
	return p
}

func (p *prober) stop() {
	select {
	case <-p.quit:
	default:
		close(p.quit)
	}
	p.wg.Wait()
}

func (p *prober) run() {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	ask := inNamespace(p.port)
	defer close(ask)
	var counted time.Time
	for {
		select {
		case <-p.quit:
			return
		case <-tick.C:
		}
		pid, since := p.box.running()
		if pid == 0 {
			continue
		}
		reply := make(chan int, 1)
		ask <- question{pid, reply}
		who := <-reply
		now := time.Now()
		if again, from := p.box.running(); again != pid || !from.Equal(since) {
			continue // it went down while it was asked
		}
		if since.After(counted) {
			counted = since
		}
		p.count(who, counted, now)
		counted = now
	}
}

// count adds the time from the last question to this one.
func (p *prober) count(pid int, from, to time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	took := to.Sub(from)
	p.total += took
	if pid != 0 {
		p.up += took
		p.lastPID, p.answered = pid, to
		return
	}
	if n := len(p.outages); n > 0 && p.outages[n-1].from.Add(p.outages[n-1].took).Equal(from) {
		p.outages[n-1].took += took
		return
	}
	p.outages = append(p.outages, outage{from, took})
}

// account is what was counted so far.
func (p *prober) account() (up, total time.Duration, outages []outage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.up, p.total, append([]outage(nil), p.outages...)
}

// last is the pid that answered last, and when.
func (p *prober) last() (int, time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lastPID, p.answered
}

type question struct {
	pid   int // whose network namespace
	reply chan int
}

// inNamespace answers questions on a thread of its own, which ends with it: a
// thread that has entered another network namespace is of no use to others.
func inNamespace(port int) chan<- question {
	questions := make(chan question)
	go func() {
		runtime.LockOSThread()
		inside := 0
		for q := range questions {
			if q.pid != inside {
				inside = 0
				if enter(q.pid) != nil {
					q.reply <- 0
					continue
				}
				inside = q.pid
			}
			q.reply <- answers(port)
		}
	}()
	return questions
}

func enter(pid int) error {
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return err
	}
	defer ns.Close()
	return unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
}

// answers asks who serves the port; 0 for no good answer in time.
func answers(port int) int {
	deadline := time.Now().Add(probeTimeout)
	d := net.Dialer{Deadline: deadline}
	c, err := d.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return 0
	}
	defer c.Close()
	c.SetDeadline(deadline)
	fmt.Fprintf(c, "GET / HTTP/1.0\r\n\r\n")
	r := bufio.NewReader(c)
	status, err := r.ReadString('\n')
	if err != nil || !strings.Contains(status, " 200 ") {
		return 0
	}
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return 0
		}
		if line == "\r\n" {
			break
		}
	}
	body := make([]byte, 16)
	n, _ := r.Read(body)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(body[:n])))
	return pid
}

// accepts reports whether somebody accepts connections on a port of the network
// namespace that process pid is in.
func accepts(pid, port int) bool {
	done := make(chan bool)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends here
		if enter(pid) != nil {
			done <- false
			return
		}
		c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), probeTimeout)
		if err == nil {
			c.Close()
		}
		done <- err == nil
	}()
	return <-done
}

// nsPID is the innermost pid that /proc/PID/status tells.
func nsPID(status string) int {
	_, after, _ := strings.Cut(status, "\nNSpid:")
	line, _, _ := strings.Cut(after, "\n")
	fields := strings.Fields(line)
	if len(fields) == 0 {
		return 0
	}
	n, _ := strconv.Atoi(fields[len(fields)-1])
	return n
}
