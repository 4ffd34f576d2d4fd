package netlab

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"p2pnode/test/host"
)

// listenEnv makes this test binary a program that accepts on that address.
const listenEnv = "NETLAB_LISTEN"

func TestMain(m *testing.M) {
	if addr := os.Getenv(listenEnv); addr != "" {
		l, err := net.Listen("tcp", addr)
		for err == nil {
			_, err = l.Accept()
		}
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// The lab itself is tried first: a wire carries, a cut swallows, a mended wire
// carries again, and hosts without a wire never reach each other.
func TestWiresCarryAndCutsSwallow(t *testing.T) {
	l := New(t, "/bin/true")
	for _, name := range []string{"a", "b", "c"} {
		l.Host(name)
	}
	l.Wire("a", "b")
	l.Wire("b", "c")
	listen := exec.Command("nsenter", "--net=/run/netns/"+l.space("b"), "--", os.Args[0])
	listen.Env = append(os.Environ(), listenEnv+"=:8000")
	if err := listen.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { listen.Process.Kill(); listen.Wait() }()
	reach := func(from, addr string) bool {
		return exec.Command("nsenter", "--net=/run/netns/"+l.space(from), "--",
			"timeout", "0.3", "bash", "-c", "exec 3<>/dev/tcp/"+addr+"/8000").Run() == nil
	}
	l.Must(5*time.Second, "a reaches b", func() bool { return reach("a", l.Addr("a", "b")) })
	l.Cut("a", "b")
	if reach("a", l.Addr("a", "b")) {
		t.Error("a packet crossed a cut wire")
	}
	if !reach("c", l.Addr("c", "b")) {
		t.Error("the cut of a-b hit c-b")
	}
	l.Mend("a", "b")
	if !host.Eventually(3*time.Second, func() bool { return reach("a", l.Addr("a", "b")) }) {
		t.Error("a mended wire does not carry")
	}
	if reach("a", l.Addr("b", "c")) {
		t.Error("a reached c without a wire")
	}
}

func TestWhatAKilledTestLeftIsRemoved(t *testing.T) {
	mine := New(t, "/bin/true")
	mine.Host("a")
	gone := exec.Command("/bin/true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	left := fmt.Sprintf("p2pnode-%d-a", gone.Process.Pid)
	mine.run("ip", "netns", "add", left)
	New(t, "/bin/true")
	if _, err := os.Stat("/run/netns/" + left); err == nil {
		mine.run("ip", "netns", "del", left)
		t.Errorf("%s is still there", left)
	}
	if _, err := os.Stat("/run/netns/" + mine.space("a")); err != nil {
		t.Errorf("a living test's namespace was removed: %v", err)
	}
}
