// Command victim is a small service for tests to break: it answers HTTP on a
// port of 127.0.0.1 with its pid, writes each of its starts into a ledger, and
// deadlocks on request (SIGUSR1: the port stays open, nothing answers, the
// heartbeat that WATCHDOG_USEC asks for ends). On SIGUSR2 it prints a random word,
// writes it down beside the ledger (.word) and kills itself. With -child it has a
// child that keeps its output open and outlives it, with -orphans some that nobody
// waits for.
//
// The ledger is a lock too, held for life: a copy that starts while another one
// lives adds a third word, "second", to its line.
//
// It links no net/http, so that its own start is a small part of what is
// measured around it.
package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	port := flag.Int("port", 0, "port on 127.0.0.1")
	ledger := flag.String("ledger", "", "file that gets a line for each start: pid and Unix nanoseconds")
	say := flag.String("say", "", "line to print at the start")
	count := flag.Duration("count", 0, "print a numbered line this often")
	wide := flag.Int("wide", 0, "with -count: the number is followed by spaces up to this width")
	child := flag.Bool("child", false, "leave the output open in a child that sleeps for a minute")
	bye := flag.String("bye", "", "on SIGTERM or SIGINT add a line to this file, the name of the ledger and that of the signal, and exit with 0")
	deaf := flag.Bool("deaf", false, "ignore SIGTERM and SIGINT")
	orphans := flag.Int("orphans", 0, "leave so many children of ended children behind, which end a moment later")
	work := flag.Duration("work", 0, "CPU time that each answer takes")
	fill := flag.Int("fill", 0, "take so many MiB of memory a second after the start, and use them")
	lives := flag.Duration("lives", 0, "exit after this long, with a code made of the incarnation: N%250+1")
	flag.Parse()
	if *child {
		if err := leaveOpen(); err != nil {
			fmt.Fprintln(os.Stderr, "victim:", err)
			os.Exit(1)
		}
	}
	if *deaf {
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT)
	}
	if *bye != "" {
		go leave(*bye, filepath.Base(*ledger))
	}
	if flag.Arg(0) == "parent" {
		orphan()
		return
	}
	if flag.Arg(0) == "orphan" {
		time.Sleep(100 * time.Millisecond)
		return
	}
	for range *orphans {
		if out, err := exec.Command("/proc/self/exe", "parent").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "victim: %v %s\n", err, out)
			os.Exit(1)
		}
	}
	last := make(chan os.Signal, 1)
	signal.Notify(last, syscall.SIGUSR2)
	go lastWords(last, *ledger)
	if *count > 0 {
		go counting(*count, *wide)
	}
	if *fill > 0 {
		time.AfterFunc(time.Second, func() { take(*fill << 20) })
	}
	if *lives > 0 {
		time.AfterFunc(*lives, func() { os.Exit(code(os.Getenv("P2PNODE_INCARNATION"))) })
	}
	fmt.Fprintln(os.Stderr, "victim:", serve(*port, *ledger, *say, *work))
	os.Exit(1)
}

// take has so many bytes of memory, and does not let them go.
func take(n int) {
	all := bytes.Repeat([]byte{1}, n)
	time.Sleep(time.Hour)
	runtime.KeepAlive(all)
}

// orphan starts a child that outlives this process, for a moment.
func orphan() {
	if err := exec.Command("/proc/self/exe", "orphan").Start(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// leave ends this process in order, and says in a file which signal told it to.
func leave(path, name string) {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGTERM, syscall.SIGINT)
	s := <-told
	if f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
		fmt.Fprintln(f, name, s)
		f.Close()
	}
	os.Exit(0)
}

// counting prints a line for each tick, without a gap.
func counting(every time.Duration, wide int) {
	n := 0
	for range time.Tick(every) {
		n++
		fmt.Printf("count %-*d\n", wide, n)
	}
}

// code is the number of the incarnation (EPOCH-N), folded into 1 to 250.
func code(incarnation string) int {
	_, n, _ := strings.Cut(incarnation, "-")
	i, err := strconv.Atoi(n)
	if err != nil {
		return 251
	}
	return i%250 + 1
}

// lastWords prints a word that nobody can know before, and dies of SIGKILL at once.
func lastWords(asked <-chan os.Signal, ledger string) {
	<-asked
	word := fmt.Sprintf("%x", rand.Text()[:6])
	os.WriteFile(ledger+".word", []byte(word), 0o600)
	fmt.Println("last word", word)
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
}

// serve answers until it cannot.
func serve(port int, ledger, say string, work time.Duration) error {
	if ledger != "" {
		f, err := sign(ledger)
		if err != nil {
			return err
		}
		defer f.Close()
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	fmt.Printf("victim %d listens on %d\n%s\n", os.Getpid(), port, say)
	var stuck atomic.Bool
	deadlock := make(chan os.Signal, 1)
	signal.Notify(deadlock, syscall.SIGUSR1)
	go func() { <-deadlock; stuck.Store(true) }()
	go beat(&stuck)
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go answer(c, &stuck, work)
	}
}

// leaveOpen starts a child that has this process's output and does nothing.
func leaveOpen() error {
	holder := exec.Command("sleep", "60")
	holder.Stdout, holder.Stderr = os.Stdout, os.Stderr
	return holder.Start()
}

// beat says WATCHDOG=1 three times in each period that the supervisor asks for,
// until the victim is stuck.
func beat(stuck *atomic.Bool) {
	period, err := strconv.Atoi(os.Getenv("WATCHDOG_USEC"))
	if err != nil || period <= 0 {
		return
	}
	c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "victim:", err)
		return
	}
	defer c.Close()
	for ; !stuck.Load(); time.Sleep(time.Duration(period) * time.Microsecond / 3) {
		fmt.Fprint(c, "WATCHDOG=1")
	}
}

// sign writes this start into the ledger. Other copies do not write at the same
// time, unless there are two: then the lock says so.
func sign(ledger string) (*os.File, error) {
	f, err := os.OpenFile(ledger, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	line := fmt.Sprintf("%d %d", os.Getpid(), time.Now().UnixNano())
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		line += " second"
	}
	_, err = fmt.Fprintln(f, line)
	return f, err
}

// answer reads one request's head and answers it, or never does.
func answer(c net.Conn, stuck *atomic.Bool, work time.Duration) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if line == "\r\n" || line == "\n" {
			break
		}
	}
	if stuck.Load() {
		select {}
	}
	toil(work)
	body := fmt.Sprint(os.Getpid())
	fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
}

// toil uses so much CPU time, which is not the time that goes by.
func toil(work time.Duration) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for end := used() + work; used() < end; {
	}
}

// used is the CPU time of this thread.
func used() time.Duration {
	const thread = 1 // RUSAGE_THREAD
	var u syscall.Rusage
	syscall.Getrusage(thread, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
